package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Person can sign in at the issuer.
type Person struct{ Username, Password string }

// Pages say how the issuer's pages name what a person uses, by id, name or
// value; what is not found is guessed.
type Pages struct{ Username, Password, Allow, Deny, Account, Logout string }

// An App is a client that people sign in to. One without a secret is public.
type App struct {
	Credentials
	RedirectURI string
}

func (a App) confidential() bool { return a.complete() && a.RedirectURI != "" }

// receives says whether an address is the app's redirect URI with an answer.
func (a App) receives(u *url.URL) bool {
	own, err := url.Parse(a.RedirectURI)
	return err == nil && a.RedirectURI != "" && u.Scheme == own.Scheme && u.Host == own.Host && u.Path == own.Path
}

// signIn is what checks with a person need.
func signIn(more ...Need) []Need {
	return slices.Concat([]Need{
		{personNeeded, func(e *Env) bool { return e.Person.Username != "" && e.Person.Password != "" && e.Web.confidential() }},
		endpoint("authorization_endpoint"), endpoint("token_endpoint"),
	}, more)
}

const personNeeded = "--username with its password, and --web-client-id with its secret and --redirect-uri"

func (c Check) needsPerson() bool {
	return slices.ContainsFunc(c.Needs, func(n Need) bool { return n.what == personNeeded })
}

// with adds to needs that others share.
func with(needs []Need, more ...Need) []Need { return slices.Concat(needs, more) }

func secondApp() Need {
	return Need{"--second-web-client-id with its secret", func(e *Env) bool { return e.SecondWeb.confidential() }}
}

func nativeApp() Need {
	return Need{"--native-client-id", func(e *Env) bool { return e.Native.ID != "" }}
}

// A change makes an authorization or token request another one than usual.
type change func(url.Values)

func set(name, value string) change { return func(v url.Values) { v.Set(name, value) } }

func add(name, value string) change { return func(v url.Values) { v.Add(name, value) } }

func unset(names ...string) change {
	return func(v url.Values) {
		for _, name := range names {
			v.Del(name)
		}
	}
}

// A flow is one authorization request, on its way through a browser.
type flow struct {
	*browser
	app      App
	asked    url.Values // what the app asked for
	verifier string     // RFC 7636
	shown    []string   // which pages the person went through
	answer   url.Values // what the app got at its redirect URI; nil when nothing came
	answered hop        // the answer in which it came
}

// The pages a person goes through.
const (
	pageLogin   = "sign-in"
	pageConsent = "consent"
	pageAccount = "account selection"
	pageOther   = "other"
)

// newVerifier makes a PKCE code verifier (RFC 7636 §4.1).
func newVerifier() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

const usualScope = "openid profile email"

// begin sends an authorization request with changes, and looks no further than
// the first page.
func (b *browser) begin(ctx context.Context, app App, changes ...change) (*flow, error) {
	f := b.prepare(app, changes...)
	at, err := url.Parse(b.env.endpoint("authorization_endpoint"))
	if err != nil {
		return nil, fmt.Errorf("authorization_endpoint: %w", err)
	}
	query := at.Query()
	maps.Copy(query, f.asked)
	at.RawQuery = query.Encode()
	return f, f.arrive(f.visit(ctx, http.MethodGet, at, nil))
}

// prepare writes an authorization request, all of it right but for the changes.
func (b *browser) prepare(app App, changes ...change) *flow {
	tab := &browser{env: b.env, jar: b.jar}
	f := &flow{browser: tab, app: app, verifier: newVerifier()}
	f.asked = url.Values{
		"response_type": {"code"}, "client_id": {app.ID}, "redirect_uri": {app.RedirectURI}, "scope": {usualScope},
		"state": {rand.Text()}, "nonce": {rand.Text()},
		"code_challenge": {challengeOf(f.verifier)}, "code_challenge_method": {"S256"},
	}
	for _, c := range changes {
		c(f.asked)
	}
	return f
}

// arrive sees whether the app has its answer, by redirect or by a form.
func (f *flow) arrive(err error) error {
	if err != nil {
		return err
	}
	f.answered = f.last()
	// Where it really was sent: a native app's port, an address of the check's.
	to := App{RedirectURI: f.asked.Get("redirect_uri")}
	if f.left != nil {
		if to.receives(f.left) || f.app.receives(f.left) {
			f.answer = f.left.Query()
			// Multiple Response Types §2.1: other response types answer in the fragment.
			if inFragment, err := url.ParseQuery(f.left.Fragment); err == nil && f.asked.Get("response_type") != "code" {
				maps.Copy(f.answer, inFragment)
			}
		}
		return nil
	}
	forms, err := f.forms()
	if err != nil {
		return err
	}
	for _, form := range forms {
		if to.receives(form.action) {
			f.answer = form.fields
		}
	}
	return nil
}

// goOn lets a willing person go through whatever pages there are. A password
// that is refused is not tried again.
func (f *flow) goOn(ctx context.Context) error {
	typed := false
	for range 8 {
		if f.answer != nil || f.left != nil {
			return nil
		}
		form, kind, err := f.question()
		if err != nil || form == nil {
			return err
		}
		button, typing := "", false
		switch kind {
		case pageLogin:
			typing = f.env.fillIn(form)
		case pageConsent:
			button = f.env.Pages.Allow
		case pageAccount:
			button = f.env.Pages.Account
		}
		if typing && (typed || f.env.refused != nil) {
			return f.env.refused
		}
		typed = typing
		f.shown = append(f.shown, kind)
		if err := f.arrive(f.submit(ctx, form, button)); err != nil {
			return err
		}
	}
	return nil
}

// question is the form that the page wants answered, or nil.
func (f *flow) question() (*form, string, error) {
	forms, err := f.forms()
	if err != nil || len(forms) == 0 {
		return nil, "", err
	}
	for _, form := range forms {
		_, name := form.field(f.env.Pages.Username, "")
		_, password := form.field(f.env.Pages.Password, "password")
		switch {
		case name || password:
			return form, pageLogin, nil
		case form.button(f.env.Pages.Allow) != nil:
			return form, pageConsent, nil
		case form.button(f.env.Pages.Account) != nil:
			return form, pageAccount, nil
		}
	}
	return forms[0], pageOther, nil
}

// fillIn types who the person is, and says whether that included the password:
// some ask for one after the other.
func (e *Env) fillIn(f *form) (password bool) {
	if name, ok := f.field(e.Pages.Username, "text"); ok {
		f.fields.Set(name, e.Person.Username)
	}
	name, ok := f.field(e.Pages.Password, "password")
	if ok {
		f.fields.Set(name, e.Person.Password)
	}
	return ok
}

// authorize goes through a whole authorization with a willing person.
func (b *browser) authorize(ctx context.Context, app App, changes ...change) (*flow, error) {
	f, err := b.begin(ctx, app, changes...)
	if err != nil {
		return nil, err
	}
	return f, f.goOn(ctx)
}

// signedIn is the browser in which the person has signed in and has allowed the
// main app the usual scope. It is tried once.
func (e *Env) signedIn(ctx context.Context) (*browser, error) {
	if e.live == nil && e.refused == nil {
		e.live, e.refused = e.firstSignIn(ctx)
	}
	return e.live, e.refused
}

func (e *Env) firstSignIn(ctx context.Context) (*browser, error) {
	b, err := e.newBrowser()
	if err != nil {
		return nil, err
	}
	f, err := b.authorize(ctx, e.Web, set("prompt", "consent"))
	if err == nil {
		err = f.wantCode()
	}
	if err != nil {
		return nil, fmt.Errorf("signing in: %w", err)
	}
	return b, nil
}

// flow goes through an authorization for the main app where the person is
// signed in.
func (e *Env) flow(ctx context.Context, changes ...change) (*flow, error) {
	return e.flowFor(ctx, e.Web, changes...)
}

func (e *Env) flowFor(ctx context.Context, app App, changes ...change) (*flow, error) {
	b, err := e.signedIn(ctx)
	if err != nil {
		return nil, err
	}
	return b.authorize(ctx, app, changes...)
}

// native is the native app, listening on some port of its own (RFC 8252 §7.3).
func (e *Env) native() App {
	app := e.Native
	if u, err := url.Parse(app.RedirectURI); err == nil {
		var b [2]byte
		_, _ = rand.Read(b[:]) // never fails
		u.Host = fmt.Sprintf("%s:%d", u.Hostname(), 1024+(int(b[0])<<8|int(b[1]))%60000)
		app.RedirectURI = u.String()
	}
	return app
}

// String says how the flow ended, without the code.
func (f *flow) String() string {
	switch {
	case f.answer.Has("code"):
		return "a code"
	case f.answer != nil:
		return strings.TrimSuffix(fmt.Sprintf("error %q at the app: %s", f.answer.Get("error"), f.answer.Get("error_description")), ": ")
	case f.left != nil:
		return "a redirect to " + f.left.Scheme + "://" + f.left.Host
	}
	s := fmt.Sprintf("a page with status %d", f.last().answer.Status)
	if _, kind, err := f.question(); err == nil && kind != "" {
		s += " (" + kind + ")"
	}
	return s
}

// wantCode checks that the app got a code.
func (f *flow) wantCode() error {
	if !f.answer.Has("code") {
		return unexpected("authorization", f, plain("a code"))
	}
	return nil
}

// wantRefused checks that the app was told one of the errors, with its state.
func (f *flow) wantRefused(codes ...string) error {
	if f.answer.Has("code") || !slices.Contains(codes, f.answer.Get("error")) {
		return unexpected("authorization", f, plain("error "+strings.Join(codes, " or ")+" at the app"))
	}
	return nil
}

// wantPage checks that only the person was told: no redirect to anywhere.
func (f *flow) wantPage() error {
	if f.left != nil || f.answer != nil || f.last().answer.Status < http.StatusBadRequest {
		return unexpected("authorization", f, plain("a page with an error"))
	}
	return nil
}

// wantShown checks that the person saw a page of that kind.
func (f *flow) wantShown(kind string) error {
	if !slices.Contains(f.shown, kind) {
		return unexpected("pages", f.shown, plain(kind))
	}
	return nil
}

// asking makes a check of what comes of an authorization request with changes,
// where the person is signed in.
func asking(rule func(*flow) error, changes ...change) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		f, err := e.flow(ctx, changes...)
		if err != nil {
			return err
		}
		return rule(f)
	}
}

// refusing makes such a check of a request that must bring the app an error.
func refusing(codes []string, changes ...change) func(context.Context, *Env) error {
	return asking(func(f *flow) error { return f.wantRefused(codes...) }, changes...)
}

// tokenRequest is the request for the tokens of a code (RFC 6749 §4.1.3).
func (f *flow) tokenRequest() url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "code": {f.answer.Get("code")},
		"redirect_uri": {f.asked.Get("redirect_uri")}, "code_verifier": {f.verifier},
	}
}

// redeem sends the token request, with changes.
func (f *flow) redeem(ctx context.Context, changes ...change) (*Answer, error) {
	if err := f.wantCode(); err != nil {
		return nil, err
	}
	form := f.tokenRequest()
	for _, c := range changes {
		c(form)
	}
	return f.env.postAs(ctx, f.app.Credentials, form)
}

// postAs sends a form to the token endpoint as a confidential or public client.
func (e *Env) postAs(ctx context.Context, as Credentials, form url.Values) (*Answer, error) {
	if as.Secret != "" {
		return e.postToken(ctx, &as, form)
	}
	form = maps.Clone(form)
	form.Set("client_id", as.ID)
	return e.postToken(ctx, nil, form)
}

// tokens are what a person's grant gives.
type tokens struct {
	app                 App
	flow                *flow
	answer              *Answer
	member              map[string]any
	access, refresh, id string
}

// readTokens takes a token answer apart.
func readTokens(app App, f *flow, a *Answer) (*tokens, error) {
	if a.Status != http.StatusOK {
		return nil, unexpected("token request", a, plain("status 200"))
	}
	m, err := a.object()
	if err != nil {
		return nil, fmt.Errorf("token answer: %w", err)
	}
	t := &tokens{app: app, flow: f, answer: a, member: m}
	t.access, _ = m["access_token"].(string)
	t.refresh, _ = m["refresh_token"].(string)
	t.id, _ = m["id_token"].(string)
	if t.access == "" {
		return nil, errors.New("the token answer has no access_token")
	}
	return t, nil
}

// tokens redeems the code.
func (f *flow) tokens(ctx context.Context, changes ...change) (*tokens, error) {
	a, err := f.redeem(ctx, changes...)
	if err != nil {
		return nil, err
	}
	return readTokens(f.app, f, a)
}

// tokens gets the main app tokens, by a request with changes.
func (e *Env) tokens(ctx context.Context, changes ...change) (*tokens, error) {
	f, err := e.flow(ctx, changes...)
	if err != nil {
		return nil, err
	}
	return f.tokens(ctx)
}

// offline gets an app tokens with a refresh token among them.
func (e *Env) offline(ctx context.Context, app App, changes ...change) (*tokens, error) {
	// OIDC Core §11: offline_access goes with prompt=consent.
	usual := []change{set("scope", usualScope+" offline_access"), set("prompt", "consent")}
	f, err := e.flowFor(ctx, app, append(usual, changes...)...)
	if err != nil {
		return nil, err
	}
	t, err := f.tokens(ctx)
	if err == nil && t.refresh == "" {
		err = errors.New("the token answer has no refresh_token")
	}
	return t, err
}

// refreshed asks for new tokens with a refresh token (RFC 6749 §6).
func (e *Env) refreshed(ctx context.Context, as Credentials, refresh string, changes ...change) (*Answer, error) {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	for _, c := range changes {
		c(form)
	}
	return e.postAs(ctx, as, form)
}

// next refreshes the tokens, as their own app.
func (t *tokens) next(ctx context.Context, e *Env, changes ...change) (*tokens, error) {
	a, err := e.refreshed(ctx, t.app.Credentials, t.refresh, changes...)
	if err != nil {
		return nil, err
	}
	n, err := readTokens(t.app, t.flow, a)
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	if n.refresh == "" { // RFC 6749 §6: the old one is still good
		n.refresh = t.refresh
	}
	return n, nil
}

// wantDead checks that a refresh token gets its app nothing more.
func (e *Env) wantDead(ctx context.Context, app App, refresh string) error {
	a, err := e.refreshed(ctx, app.Credentials, refresh)
	if err != nil {
		return err
	}
	return a.wantError(http.StatusBadRequest, "invalid_grant")
}

// idToken is the ID token, taken apart without judging its signature.
func (t *tokens) idToken() (token, error) {
	if t.id == "" {
		return token{}, errors.New("the token answer has no id_token")
	}
	return parseJWT("ID token", t.id)
}

// holding makes a check of the tokens that a request with changes gets.
func holding(rule func(context.Context, *Env, *tokens) error, changes ...change) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		t, err := e.tokens(ctx, changes...)
		if err != nil {
			return err
		}
		return rule(ctx, e, t)
	}
}

// redeeming makes a check of a token request that must be refused: the right
// one for a fresh code, but for the changes.
func redeeming(codes []string, changes ...change) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		f, err := e.flow(ctx)
		if err != nil {
			return err
		}
		a, err := f.redeem(ctx, changes...)
		if err != nil {
			return err
		}
		return a.wantError(http.StatusBadRequest, codes...)
	}
}

// userinfo asks for the person of an access token, by the Authorization header.
func (e *Env) userinfo(ctx context.Context, access string) (*Answer, error) {
	return e.get(ctx, e.endpoint("userinfo_endpoint"), http.Header{"Authorization": {"Bearer " + access}})
}
