package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// An app is the client as people meet it: where it sends them, and what its
// codes are exchanged with.
type app struct {
	*target
	authorize, token string // paths
	query            string // of the authorization request
	verifier         string // RFC 7636 §4.1: one for all, which a test may
}

// newApp reads the metadata. scope is asked for where --scope is not given.
func (t *target) newApp(scope string) (*app, error) {
	a := &app{target: t, verifier: base64.RawURLEncoding.EncodeToString([]byte(rand.Text() + rand.Text()))}
	var err error
	if a.authorize, err = t.path("authorization_endpoint"); err != nil {
		return nil, err
	}
	if a.token, err = t.path("token_endpoint"); err != nil {
		return nil, err
	}
	if t.scope == "" {
		t.scope = scope
	}
	challenge := sha256.Sum256([]byte(a.verifier))
	a.query = "?" + url.Values{
		"response_type": {"code"}, "client_id": {t.clientID}, "redirect_uri": {t.redirectURI}, "scope": {t.scope}, "state": {"load"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode()
	return a, nil
}

// code returns the code that a redirect to the app brings; ok is false when it
// goes elsewhere.
func (a *app) code(location string) (code string, ok bool, err error) {
	query, ok := strings.CutPrefix(location, a.redirectURI+"?")
	if !ok {
		return "", false, nil
	}
	values, err := url.ParseQuery(query)
	if err == nil && values.Get("code") == "" {
		err = fmt.Errorf("%s: %s", values.Get("error"), values.Get("error_description"))
	}
	if err != nil {
		return "", true, &failure{"refused", err}
	}
	return values.Get("code"), true, nil
}

// redeem exchanges the code and returns the answer.
func (a *app) redeem(c *conn, code string, now time.Time) ([]byte, error) {
	return a.tokens(c, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.redirectURI}, "code_verifier": {a.verifier}}, now)
}

func (a *app) tokens(c *conn, form url.Values, now time.Time) ([]byte, error) {
	status, body, err := c.do(a.post(a.token, form), now)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, &failure{fmt.Sprintf("status %d", status), fmt.Errorf("%.200s", body)}
	}
	return body, nil
}

// A grant is what the token endpoint gives for a person.
type grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	idTokenAlg   string // "" without one
}

// read reads an answer closely.
func (a *app) read(body []byte, now time.Time) (grant, error) {
	var g grant
	if err := json.Unmarshal(body, &g); err != nil {
		return g, err
	}
	if err := a.checkToken(g.AccessToken, now); err != nil {
		return g, err
	}
	if strings.Contains(" "+a.scope+" ", " openid ") {
		header, err := segment(g.IDToken, 0)
		var h struct{ Alg string }
		if err == nil {
			err = json.Unmarshal(header, &h)
		}
		if err != nil {
			return g, fmt.Errorf("ID token: %w", err)
		}
		g.idTokenAlg = h.Alg
	}
	return g, nil
}

// A browser is one person's.
type browser struct {
	app     *app
	cookies map[string]string
}

func (a *app) browser() *browser { return &browser{app: a, cookies: make(map[string]string)} }

// ask sends a request with the cookies there are, and keeps those that come.
func (b *browser) ask(c *conn, path string, form url.Values, now time.Time) (status int, body []byte, err error) {
	method, body := "GET", []byte(nil)
	if form != nil {
		method, body = "POST", []byte(form.Encode())
	}
	request := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: load\r\n", method, path, b.app.host)
	if len(b.cookies) > 0 {
		pairs := make([]string, 0, len(b.cookies))
		for name, value := range b.cookies {
			pairs = append(pairs, name+"="+value)
		}
		request = fmt.Appendf(request, "Cookie: %s\r\n", strings.Join(pairs, "; "))
	}
	if form != nil {
		request = fmt.Appendf(request, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n", len(body))
	}
	request = append(append(request, "\r\n"...), body...)
	status, body, err = c.do(request, now)
	for _, pair := range c.cookies {
		name, value, _ := strings.Cut(pair, "=")
		b.cookies[name] = value
	}
	return status, body, err
}

// follow asks for an address that is known to redirect, and says where to.
func (b *browser) follow(c *conn, path string, form url.Values, now time.Time) (string, error) {
	status, body, err := b.ask(c, path, form, now)
	switch {
	case err != nil:
		return "", err
	case status != http.StatusSeeOther && status != http.StatusFound:
		return "", &failure{fmt.Sprintf("status %d", status), fmt.Errorf("want a redirect from %s: %s", pathOf(path), heading(body))}
	}
	return c.location, nil
}

func pathOf(location string) string {
	path, _, _ := strings.Cut(location, "?")
	return path
}

var (
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]+)"`)
	formAction = regexp.MustCompile(`<form id="[^"]*" method="post" action="([^"]+)"`)
	title      = regexp.MustCompile(`<title>([^<]*)</title>`)
	successor  = regexp.MustCompile(`"refresh_token":"([^"]+)"`)
)

// heading is what a page says it is, for a message.
func heading(page []byte) string {
	if m := title.FindSubmatch(page); m != nil {
		return string(m[1])
	}
	return "a page without a title"
}

// fill adds the hidden fields of a page's form to what a person enters, and
// returns where it is sent.
func fill(page []byte, form url.Values) (action string, err error) {
	m := formAction.FindSubmatch(page)
	if m == nil {
		return "", &failure{"wrong answer", fmt.Errorf("want a form: %s", heading(page))}
	}
	for _, field := range hidden.FindAllSubmatch(page, -1) {
		form.Set(string(field[1]), string(field[2]))
	}
	return string(m[1]), nil
}

// open opens a page and fills in its form.
func (b *browser) open(c *conn, location string, form url.Values, now time.Time) (action string, err error) {
	_, page, err := b.ask(c, location, nil, now)
	if err != nil {
		return "", err
	}
	return fill(page, form)
}

// enter is the form of the sign-in page.
func (a *app) enter(password string) url.Values {
	return url.Values{"username": {a.user}, "password": {password}}
}

// settlePassword finds out which password is the person's. One that an operator
// set has to be replaced at the first sign-in: it is, by one that follows from
// it, which later runs try first.
func (a *app) settlePassword(c *conn, now time.Time) error {
	sum := sha256.Sum256([]byte(a.password))
	chosen := base64.RawURLEncoding.EncodeToString(sum[:])
	for _, password := range []string{chosen, a.password} {
		b := a.browser()
		location, err := b.follow(c, a.authorize+a.query, nil, now)
		if err == nil {
			_, _, err = a.code(location)
		}
		if err != nil {
			return err
		}
		form := a.enter(password)
		action, err := b.open(c, location, form, now)
		if err != nil {
			return err
		}
		status, page, err := b.ask(c, action, form, now)
		switch {
		case err != nil:
			return err
		case status == http.StatusSeeOther:
			a.password = password
			return nil
		case status == http.StatusOK: // a new one is to be chosen
			form := url.Values{"new_password": {chosen}, "repeat_password": {chosen}}
			if action, err = fill(page, form); err != nil {
				return err
			}
			a.password = chosen
			_, err = b.follow(c, action, form, now)
			return err
		}
	}
	return errors.New("name and password are refused")
}

// signIn takes a person who is not signed in from the app to the answer it
// gets: the password, and the consent if it was never given.
func (b *browser) signIn(c *conn, now time.Time) (code string, err error) {
	location, err := b.follow(c, b.app.authorize+b.app.query, nil, now)
	if err != nil {
		return "", err
	}
	form := b.app.enter(b.app.password)
	for pages := 0; ; pages++ {
		code, ok, err := b.app.code(location)
		switch {
		case ok || err != nil:
			return code, err
		case pages == 2:
			return "", &failure{"wrong answer", fmt.Errorf("no code after the password and the consent, but %s", pathOf(location))}
		}
		action, err := b.open(c, location, form, now)
		if err != nil {
			return "", err
		}
		if location, err = b.follow(c, action, form, now); err != nil {
			return "", err
		}
		form = url.Values{"decision": {"allow"}}
	}
}

// silent gets a code on a live session: nothing may be shown.
func (b *browser) silent(c *conn, now time.Time) (string, error) {
	location, err := b.follow(c, b.app.authorize+b.app.query, nil, now)
	if err != nil {
		return "", err
	}
	code, ok, err := b.app.code(location)
	if err == nil && !ok {
		err = &failure{"wrong answer", fmt.Errorf("sent to %s, though signed in and asked before", pathOf(location))}
	}
	return code, err
}

// A visit is what a worker of a person's workload begins with.
type visit struct {
	browser *browser
	grant   grant
}

// visits signs the person in once for each worker, one after another, and gives
// the consent on the way: at once they would be throttled like guesses, until
// each browser is known as one in which they signed in before.
func (a *app) visits(ctx context.Context, workers int) ([]visit, error) {
	all := make([]visit, workers)
	c := &conn{address: a.address}
	defer c.close()
	if err := a.settlePassword(c, time.Now()); err != nil {
		return nil, fmt.Errorf("signing in: %w", err)
	}
	for i := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		now := time.Now()
		all[i].browser = a.browser()
		code, err := all[i].browser.signIn(c, now)
		if err != nil {
			return nil, fmt.Errorf("signing in: %w", err)
		}
		body, err := a.redeem(c, code, now)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		if all[i].grant, err = a.read(body, now); err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		a.idTokenAlg = all[i].grant.idTokenAlg
	}
	return all, nil
}

// exchange redeems a code as the end of an operation.
func (a *app) exchange(c *conn, code string, now time.Time, closely bool) error {
	body, err := a.redeem(c, code, now)
	if err == nil && closely {
		if _, err = a.read(body, now); err != nil {
			err = &failure{"wrong answer", err}
		}
	}
	return err
}

// visited returns an app and, for each worker, what a visit to it has led to:
// where every workload with a person begins.
func (t *target) visited(ctx context.Context, scope string, workers int) (*app, []visit, error) {
	a, err := t.newApp(scope)
	if err != nil {
		return nil, nil, err
	}
	visits, err := a.visits(ctx, workers)
	return a, visits, err
}

// login is everything from the app's link to its tokens, in a browser that is
// known but not signed in.
func login(ctx context.Context, t *target, workers int) (func(int) operation, error) {
	a, visits, err := t.visited(ctx, "openid profile", workers)
	if err != nil {
		return nil, err
	}
	return func(worker int) operation {
		known := make(map[string]string)
		for name, value := range visits[worker].browser.cookies {
			if strings.Contains(name, "device") { // all that is left after a restart
				known[name] = value
			}
		}
		return func(c *conn, now time.Time, closely bool) error {
			b := a.browser()
			maps.Copy(b.cookies, known)
			code, err := b.signIn(c, now)
			if err != nil {
				return err
			}
			return a.exchange(c, code, now, closely)
		}
	}, nil
}

// codeFlow is an authorization request of somebody who is signed in and was
// asked before, and the exchange of its code.
func codeFlow(ctx context.Context, t *target, workers int) (func(int) operation, error) {
	a, visits, err := t.visited(ctx, "openid profile", workers)
	if err != nil {
		return nil, err
	}
	return func(worker int) operation {
		b := visits[worker].browser
		return func(c *conn, now time.Time, closely bool) error {
			code, err := b.silent(c, now)
			if err != nil {
				return err
			}
			return a.exchange(c, code, now, closely)
		}
	}, nil
}

// refresh is a chain for each worker: every answer's token is the next one's.
func refresh(ctx context.Context, t *target, workers int) (func(int) operation, error) {
	a, visits, err := t.visited(ctx, "openid offline_access", workers)
	if err != nil {
		return nil, err
	}
	if visits[0].grant.RefreshToken == "" {
		return nil, errors.New("the client gets no refresh tokens")
	}
	return func(worker int) operation {
		token := visits[worker].grant.RefreshToken
		return func(c *conn, now time.Time, closely bool) error {
			body, err := a.tokens(c, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, now)
			if err != nil {
				return err // the same token again: the answer may have been lost
			}
			m := successor.FindSubmatch(body)
			if m == nil || string(m[1]) == token {
				return &failure{"wrong answer", errors.New("the refresh token did not rotate")}
			}
			token = string(m[1])
			if closely {
				if _, err := a.read(body, now); err != nil {
					return &failure{"wrong answer", err}
				}
			}
			return nil
		}
	}, nil
}

// userInfo asks about the person, with an access token of each worker's own.
func userInfo(ctx context.Context, t *target, workers int) (func(int) operation, error) {
	path, err := t.path("userinfo_endpoint")
	if err != nil {
		return nil, err
	}
	_, visits, err := t.visited(ctx, "openid profile email", workers)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, workers)
	for i, v := range visits {
		requests[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, t.host, v.grant.AccessToken)
	}
	return ask(requests, `"sub"`, func(body []byte, _ time.Time) error {
		var answer struct {
			Subject string `json:"sub"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if answer.Subject == "" {
			return errors.New("about nobody")
		}
		return nil
	}), nil
}
