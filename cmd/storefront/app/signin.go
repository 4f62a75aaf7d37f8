package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	signInLifetime = time.Hour // a person may look for their password for that long
	maxSignIns     = 5         // under way in one browser, a cookie each
)

// An attempt is a sign-in under way, in a cookie of the browser it began in.
// Its state names the cookie.
type attempt struct {
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"` // PKCE, RFC 7636 §4.1
	To       string    `json:"to"`       // the page to show afterwards
	BegunAt  time.Time `json:"at"`
}

func (a *App) attemptCookie(state string) string { return a.cookies.signIn + state }

// returnTo keeps the way back to pages of ours.
func returnTo(path string) string {
	switch path {
	case "/orders", "/profile":
		return path
	}
	return "/"
}

// initiate begins a sign-in that somebody else asks for, as the provider's
// account page does (OIDC Core §4). It goes to our provider whatever is asked,
// and back to a page of ours: otherwise anybody could send people anywhere by it.
func (a *App) initiate(w http.ResponseWriter, r *http.Request) {
	if iss := r.FormValue("iss"); iss != a.issuer {
		a.refuse(w, r, a.session(r), &refusal{status: http.StatusBadRequest, Title: "The shop doesn't sign people in there",
			Advice: "A link from elsewhere named a sign-in service that is not the shop's.", cause: fmt.Errorf("iss is %q", iss)})
		return
	}
	to := "/"
	if target, err := url.Parse(r.FormValue("target_link_uri")); err == nil && target.Scheme == a.url.Scheme && target.Host == a.url.Host {
		to = returnTo(target.Path)
	}
	query := url.Values{"to": {to}}
	if hint := r.FormValue("login_hint"); hint != "" && len(hint) <= 320 {
		query.Set("login_hint", hint)
	}
	// A request of ours, in case this one was a POST, which brings no cookies.
	http.Redirect(w, r, "/signin?"+query.Encode(), http.StatusSeeOther)
}

// signIn sends the browser to the provider.
func (a *App) signIn(w http.ResponseWriter, r *http.Request) {
	p, err := a.discover(r.Context())
	if err != nil {
		a.refuse(w, r, a.session(r), unreachable("Signing in isn't possible right now", err))
		return
	}
	begun := attempt{Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), To: returnTo(r.URL.Query().Get("to")), BegunAt: a.now()}
	state := rand.Text()
	sealed, err := a.seal.close("attempt "+state, begun)
	if err != nil {
		a.refuse(w, r, a.session(r), err)
		return
	}
	a.clearAttempts(w, r)
	a.cookies.set(w, a.attemptCookie(state), sealed, signInLifetime)
	options := []oauth2.AuthCodeOption{oidc.Nonce(begun.Nonce), oauth2.S256ChallengeOption(begun.Verifier)}
	if hint := r.URL.Query().Get("login_hint"); hint != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", hint))
	}
	if a.formPost {
		options = append(options, oauth2.SetAuthURLParam("response_mode", "form_post"))
	}
	// RFC 8707 §2: what the grant is for. Each token will be for one of them.
	to := a.config(p).AuthCodeURL(state, options...) + "&" + url.Values{"resource": {a.orders, a.issuer}}.Encode()
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// clearAttempts makes room when sign-ins were begun and never finished.
func (a *App) clearAttempts(w http.ResponseWriter, r *http.Request) {
	var begun []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, a.cookies.signIn) {
			begun = append(begun, c.Name)
		}
	}
	if len(begun) < maxSignIns {
		return
	}
	for _, name := range begun {
		a.cookies.set(w, name, "", -time.Second)
	}
}

func (a *App) config(p *provider) *oauth2.Config {
	c := a.oauth
	c.Endpoint = p.Endpoint()
	c.Endpoint.AuthStyle = oauth2.AuthStyleInHeader // found out by trying, a code or refresh token would be sent twice
	return &c
}

// An answer is what the provider sends through the browser (RFC 6749 §4.1.2).
type answer struct {
	Code        string    `json:"code,omitempty"`
	State       string    `json:"state,omitempty"`
	Iss         string    `json:"iss,omitempty"` // RFC 9207 §2
	Error       string    `json:"error,omitempty"`
	Description string    `json:"error_description,omitempty"`
	At          time.Time `json:"at"`
}

func readAnswer(form url.Values) answer {
	return answer{Code: form.Get("code"), State: form.Get("state"), Iss: form.Get("iss"),
		Error: form.Get("error"), Description: form.Get("error_description")}
}

// answerLifetime is how long an answer may take from POST to GET.
const answerLifetime = time.Minute

// postCallback takes the provider's answer as a form. It comes from another
// site, so browsers send it without our Lax cookies, and those of SameSite=None
// need https. Therefore it only seals the answer, so that no code gets into a
// URL, and lets the browser come again with a GET, which brings the cookies.
func (a *App) postCallback(w http.ResponseWriter, r *http.Request) {
	if !a.formPost {
		a.refuse(w, r, nil, unexpected("the answer came as a POST"))
		return
	}
	if err := r.ParseForm(); err != nil {
		a.refuse(w, r, nil, unexpected("the form can't be read"))
		return
	}
	given := readAnswer(r.PostForm)
	given.At = a.now()
	sealed, err := a.seal.close("answer", given)
	if err != nil {
		a.refuse(w, r, nil, err)
		return
	}
	http.Redirect(w, r, "/callback?"+url.Values{"answer": {sealed}}.Encode(), http.StatusSeeOther)
}

// callback takes the provider's answer and signs the person in.
func (a *App) callback(w http.ResponseWriter, r *http.Request) {
	given := readAnswer(r.URL.Query())
	if a.formPost {
		given = answer{}
		if a.seal.open("answer", r.URL.Query().Get("answer"), &given) != nil || a.now().After(given.At.Add(answerLifetime)) {
			a.refuse(w, r, a.session(r), unexpected("the answer was not posted, or too long ago"))
			return
		}
	}
	begun, err := a.attempt(w, r, given.State)
	if err != nil {
		a.refuse(w, r, a.session(r), err)
		return
	}
	s, err := a.redeem(r.Context(), begun, given)
	if err != nil {
		var told *refusal
		if errors.As(err, &told) && told.SignIn == "" {
			told.SignIn = begun.To
		}
		a.refuse(w, r, a.session(r), err)
		return
	}
	a.save(w, s)
	http.Redirect(w, r, begun.To, http.StatusSeeOther)
}

// attempt returns the sign-in that this browser began with the state, and
// forgets it: an answer counts once.
func (a *App) attempt(w http.ResponseWriter, r *http.Request, state string) (attempt, error) {
	var begun attempt
	lost := &refusal{status: http.StatusBadRequest, Title: "This sign-in can't be finished",
		Advice: "It was begun in another browser, finished already, or left open for too long. Start again; it takes a moment.", SignIn: "/"}
	c, err := r.Cookie(a.attemptCookie(state))
	if state == "" || err != nil {
		return begun, lost
	}
	if a.seal.open("attempt "+state, c.Value, &begun) != nil || a.now().After(begun.BegunAt.Add(signInLifetime)) {
		return begun, lost
	}
	a.cookies.set(w, c.Name, "", -time.Second)
	return begun, nil
}

// redeem turns the provider's answer into a session.
func (a *App) redeem(ctx context.Context, begun attempt, given answer) (*session, error) {
	p, err := a.discover(ctx)
	if err != nil {
		return nil, unreachable("Signing in isn't possible right now", err)
	}
	// Whose answer it is comes before what it says (RFC 9207 §2.4).
	if given.Iss != a.issuer && (given.Iss != "" || p.NamesIss) {
		return nil, unexpected("it came from another issuer")
	}
	if given.Error != "" {
		return nil, declined(given)
	}
	// The token of the first answer asks about the person; refreshes bring those for the API.
	redeemed, err := a.once(ctx, given.Code+" "+begun.Verifier, func(ctx context.Context) (tokens, error) {
		t, err := a.config(p).Exchange(ctx, given.Code, oauth2.VerifierOption(begun.Verifier), oauth2.SetAuthURLParam("resource", a.issuer))
		return tokens{a.issuer, t}, err
	})
	if err != nil {
		return nil, unreachable("Signing in didn't work out", fmt.Errorf("code: %w", err))
	}
	ctx = oidc.ClientContext(ctx, a.client)
	raw, _ := redeemed.Extra("id_token").(string)
	id, err := p.Verifier(&oidc.Config{ClientID: a.oauth.ClientID, Now: a.now}).Verify(ctx, raw)
	switch {
	case err != nil:
		return nil, unexpected("ID token: " + err.Error())
	case id.Nonce != begun.Nonce: // OIDC Core §3.1.3.7, 11
		return nil, unexpected("the ID token is of another sign-in")
	}
	who, err := a.userInfo(ctx, p, redeemed.Token, id.Subject)
	if err != nil {
		return nil, err
	}
	return &session{
		Subject: id.Subject, Name: who.display(), SignedIn: a.now(), IDToken: raw, Refresh: redeemed.RefreshToken, changed: true,
	}, nil
}

// person is what the provider tells of somebody (OIDC Core §5.1).
type person struct {
	Subject       string `json:"sub"`
	Name          string `json:"name"`
	Username      string `json:"preferred_username"`
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
}

func (p person) display() string {
	for _, name := range []string{p.Name, p.Username, p.Email} {
		if name != "" {
			return name
		}
	}
	return p.Subject
}

func (a *App) userInfo(ctx context.Context, p *provider, token *oauth2.Token, subject string) (person, error) {
	info, err := p.UserInfo(oidc.ClientContext(ctx, a.client), oauth2.StaticTokenSource(token))
	if err != nil {
		return person{}, unreachable("Your details can't be shown right now", fmt.Errorf("userinfo: %w", err))
	}
	var who person
	if err := info.Claims(&who); err != nil || who.Subject != subject { // OIDC Core §5.3.2
		return person{}, unexpected("userinfo tells of somebody else")
	}
	return who, nil
}

// signOut ends the shop's session, hands back what the shop could still do, and
// lets the provider ask about its own session (OpenID Connect RP-Initiated
// Logout 1.0 §2).
func (a *App) signOut(w http.ResponseWriter, r *http.Request) {
	s := a.session(r)
	a.forget(w)
	p, err := a.discover(r.Context())
	if s == nil || err != nil {
		http.Redirect(w, r, "/signed-out", http.StatusSeeOther)
		return
	}
	if err := a.handBack(r.Context(), p, s.Refresh); err != nil {
		a.log.WarnContext(r.Context(), "the refresh token was not revoked and ends by itself", "error", err)
	}
	end, err := url.Parse(p.EndSession)
	if err != nil || p.EndSession == "" {
		http.Redirect(w, r, "/signed-out", http.StatusSeeOther)
		return
	}
	q := end.Query()
	q.Set("id_token_hint", s.IDToken)
	q.Set("client_id", a.oauth.ClientID)
	q.Set("post_logout_redirect_uri", a.url.String()+"/signed-out")
	end.RawQuery = q.Encode()
	http.Redirect(w, r, end.String(), http.StatusSeeOther)
}

// handBack revokes a refresh token (RFC 7009 §2.1): a copy of the cookie is then
// worth nothing.
func (a *App) handBack(ctx context.Context, p *provider, token string) error {
	if p.Revocation == "" {
		return nil
	}
	form := url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(a.oauth.ClientID), url.QueryEscape(a.oauth.ClientSecret)) // RFC 6749 §2.3.1
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("revocation: %s", res.Status)
	}
	return nil
}

func (a *App) signedOut(w http.ResponseWriter, r *http.Request) {
	a.show(w, http.StatusOK, "signed-out", "You are signed out", a.session(r), nil)
}

// What can go wrong with a sign-in.

func unexpected(detail string) *refusal {
	return &refusal{status: http.StatusBadRequest, Title: "This sign-in can't be finished",
		Advice: "The answer to it is not one that the shop can rely on. Nothing was done; start again.", Detail: detail, SignIn: "/",
		cause: errors.New(detail)}
}

// declined is the provider's own refusal (RFC 6749 §4.1.2.1).
func declined(given answer) *refusal {
	e := &refusal{status: http.StatusForbidden, Title: "You were not signed in",
		Advice: "The sign-in service did not let the request pass.", Detail: given.Error, cause: errors.New(given.Error)}
	if given.Description != "" {
		e.Detail += ": " + given.Description
	}
	if given.Error == "access_denied" {
		e.Advice = "You have not allowed the shop to act for you, and that is fine: look around, and sign in when you want to order."
		e.Detail = ""
	}
	return e
}

// unreachable is for when the provider or the API cannot be used; a 4xx of the
// token endpoint lands here as well, for it is the shop's to mend.
func unreachable(title string, cause error) *refusal {
	return &refusal{status: http.StatusBadGateway, Title: title,
		Advice: "A service that the shop needs gives no usable answer. Try again in a moment.", cause: cause}
}
