package web_test

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

const (
	ada      = "ada"
	adaMail  = "ada@people.example"
	bob      = "bob"
	password = "a quiet heron at dawn"
	callback = "https://shop.example/cb"
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// people makes the users ada and bob, and the apps shop and, of the house,
// portal. It returns shop's secret.
func (s *site) people() string {
	s.t.Helper()
	for _, u := range []storage.User{
		{Username: ada, Email: adaMail, EmailVerified: true, Profile: `{"name":"Ada Lovelace"}`},
		{Username: bob, Email: "bob@people.example"},
	} {
		if _, err := s.admin.CreateUser(s.t.Context(), u, password); err != nil {
			s.t.Fatal(err)
		}
	}
	s.register("service")
	secret := s.client("shop", forPeople)
	s.client("portal", forPeople, func(c *storage.Client) {
		c.FirstParty, c.RedirectURIs = true, []string{"https://portal.example/cb"}
	})
	return secret
}

// forPeople makes a client one that signs people in.
func forPeople(c *storage.Client) {
	c.GrantTypes = []string{"authorization_code", "refresh_token"}
	c.RedirectURIs = []string{callback}
	c.PostLogoutRedirectURIs = []string{"https://shop.example/bye"}
	c.IDTokenAlg = keys.ES256
	c.Scopes = []string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write"}
}

// request returns an authorization request of shop's. alter holds parameters
// and values in turn; "" takes one out.
func request(alter ...string) url.Values {
	v := url.Values{
		"response_type": {"code"}, "client_id": {"shop"}, "redirect_uri": {callback}, "scope": {"openid profile"},
		"state": {"st"}, "nonce": {"no"}, "code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(alter); i += 2 {
		v.Set(alter[i], alter[i+1])
		if alter[i+1] == "" {
			v.Del(alter[i])
		}
	}
	return v
}

func authorize(alter ...string) string { return "/authorize?" + request(alter...).Encode() }

// redeem exchanges a code at the token endpoint, as shop.
func (s *site) redeem(secret, code string) answer {
	s.t.Helper()
	return s.form("/token", "shop", secret, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}})
}

// What others wrote signs a person in, keeps them signed in and signs them out.
func TestSignIn(t *testing.T) {
	onBoth(t, options{path: "/tenant"}, func(t *testing.T, s *site) {
		ctx := t.Context()
		secret := s.people()
		discovered, err := oidc.NewProvider(ctx, s.issuer)
		if err != nil {
			t.Fatal(err)
		}
		endpoint := discovered.Endpoint()
		endpoint.AuthStyle = oauth2.AuthStyleInHeader
		app := oauth2.Config{ClientID: "shop", ClientSecret: secret, Endpoint: endpoint, RedirectURL: callback,
			Scopes: []string{"openid", "profile", "email", "offline_access", "orders:read"}}
		b := s.browser()
		b.open(app.AuthCodeURL("some state", oidc.Nonce("some nonce"), oauth2.S256ChallengeOption(verifier))).isPage(200, "/tenant/login")
		if got := b.text("client"); !strings.Contains(got, "shop") {
			t.Errorf("the sign-in page says %q of who asks", got)
		}
		b.signIn(ada, "a wrong heron at dawn").isPage(422, "/tenant/login")
		b.signIn(adaMail, password).isPage(200, "/tenant/consent")
		for id, want := range map[string]string{"client": "shop", "host": "shop.example", "user": ada, "scopes": "orders:read", "lasts": "30 days"} {
			if got := b.text(id); !strings.Contains(got, want) {
				t.Errorf("the consent page says %q at #%s, want %q in it", got, id, want)
			}
		}
		got := b.press("allow").answered(callback)
		if got.Get("state") != "some state" || got.Get("iss") != s.issuer {
			t.Fatalf("the app gets %v", got)
		}

		token, err := app.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := token.Extra("id_token").(string)
		idToken, err := discovered.Verifier(&oidc.Config{ClientID: "shop"}).Verify(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := idToken.VerifyAccessToken(token.AccessToken); err != nil || idToken.Nonce != "some nonce" {
			t.Errorf("nonce %q, at_hash: %v", idToken.Nonce, err)
		}
		person, err := discovered.UserInfo(ctx, app.TokenSource(ctx, token))
		if err != nil {
			t.Fatal(err)
		}
		if person.Subject != idToken.Subject || person.Email != adaMail || !person.EmailVerified {
			t.Errorf("userinfo: %+v", person)
		}
		again, err := app.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
		if err != nil {
			t.Fatal(err)
		}
		if again.RefreshToken == token.RefreshToken || again.AccessToken == token.AccessToken {
			t.Error("the refresh changed nothing")
		}

		// Signed in and asked before: the next time nothing is shown.
		next := b.open(app.AuthCodeURL("more", oauth2.S256ChallengeOption(verifier))).answered(callback)
		if next.Get("code") == "" || len(b.hops) != 1 {
			t.Errorf("%d requests to the answer %v", len(b.hops), next)
		}

		b.open(s.issuer + "/logout?" + url.Values{"id_token_hint": {raw},
			"post_logout_redirect_uri": {"https://shop.example/bye"}, "state": {"out"}}.Encode())
		if got := b.answered("https://shop.example/bye"); got.Get("state") != "out" {
			t.Errorf("after signing out the app gets %v", got)
		}
		if b.cookie("session") != "" {
			t.Error("the session's cookie is still there")
		}
		b.open(s.issuer+"/account").isPage(200, "/tenant/login")
	})
}

// L1: nobody learns from a sign-in whether an account exists.
func TestSignInRefusals(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		if _, err := s.admin.CreateUser(t.Context(), storage.User{Username: "eve"}, ""); err != nil { // no password
			t.Fatal(err)
		}
		if _, err := s.admin.DisableUser(t.Context(), bob); err != nil {
			t.Fatal(err)
		}
		var first *browser
		for _, login := range []string{ada, bob, "eve", "nobody", "nobody@people.example"} {
			p := password
			if login == ada {
				p = "a wrong heron at dawn"
			}
			b := s.browser().open(authorize())
			_, before := b.form("submit")
			b.signIn(login, p).isPage(http.StatusUnprocessableEntity, "/login")
			_, after := b.form("submit")
			if b.header.Get("Set-Cookie") != "" {
				t.Errorf("%s: a cookie is set: %s", login, b.header.Get("Set-Cookie"))
			}
			// What differs by its nature: the name as typed, sealed and random values.
			for _, values := range []url.Values{before, after} {
				b.body = strings.ReplaceAll(b.body, values.Get("flow"), "FLOW")
			}
			b.body = strings.ReplaceAll(b.body, `value="`+login+`"`, `value="NAME"`)
			b.header.Del("X-Request-Id")
			b.header.Del("Date")
			b.header.Del("Content-Length")
			if first == nil {
				first = b
				continue
			}
			if b.body != first.body {
				t.Errorf("%s: another page:\n%s\n%s", login, b.body, first.body)
			}
			if len(b.header) != len(first.header) {
				t.Errorf("%s: other headers: %v, %v", login, b.header, first.header)
			}
			for name := range first.header {
				if b.header.Get(name) != first.header.Get(name) {
					t.Errorf("%s: header %s is %q, else %q", login, name, b.header.Get(name), first.header.Get(name))
				}
			}
		}
		b := s.browser().open(authorize())
		b.press("submit", "username", "", "password", "").isPage(422, "/login")
		if got := b.text("error-summary"); !strings.Contains(got, "username") || !strings.Contains(got, "password") {
			t.Errorf("empty fields: %q", got)
		}
	})
}

// L4: after a number of failures the sign-in page says how long to wait.
func TestSignInThrottled(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		known := s.browser().open("/login").signIn(ada, password).isPage(200, "/account")
		b := s.browser().open(authorize())
		for range 15 {
			if b.signIn(ada, "a wrong heron at dawn"); b.status == http.StatusTooManyRequests {
				break
			}
		}
		b.isPage(http.StatusTooManyRequests, "/login")
		if b.header.Get("Retry-After") == "" || b.text("error-summary") == "" {
			t.Errorf("Retry-After %q, page says %q", b.header.Get("Retry-After"), b.text("error-summary"))
		}
		// The owner still gets in, in a browser that is known.
		known.open("/logout").press("submit")
		known.open("/login").signIn(ada, password).isPage(200, "/account")
	})
}

// L6: whatever a person is called by, failures count together. So they do for
// a name that nobody has: the difference would tell that.
func TestAliasesAreThrottledTogether(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		for _, aliases := range [][]string{
			{ada, "ADA", "\uff41da", adaMail, "Ada@People.Example"},
			{"nobody", "NoBody", "\uff4eobody"},
			{"nobody@people.example", "Nobody@People.Example"},
		} {
			b := s.browser().open("/login")
			for i := range 9 * len(aliases) { // each less often than the ten failures that are free
				if b.signIn(aliases[i%len(aliases)], "a wrong heron at dawn"); b.status == http.StatusTooManyRequests {
					break
				}
			}
			if b.status != http.StatusTooManyRequests {
				t.Errorf("%q are never throttled: %d", aliases, b.status)
			}
		}
	})
}

// A12: prompt=login and max_age have a person sign in once more, and the ID
// token says when that was.
func TestSignInOnceMore(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser()
		authTime := func(a answer) float64 {
			t.Helper()
			_, claims := claimsOf(t, a.member("id_token"))
			at, _ := claims["auth_time"].(float64)
			return at
		}
		last := authTime(s.grant(b, secret))
		for i, parameters := range [][]string{{"prompt", "login"}, {"max_age", "0"}, {"max_age", "60"}} {
			s.clock.set(time.Duration(i+1) * time.Minute)
			s.settle()
			b.open(authorize(parameters...)).isPage(200, "/login")
			got := authTime(s.redeem(secret, b.signIn(ada, password).answered(callback).Get("code")))
			if got < last+60 {
				t.Errorf("%v: auth_time %v, before %v", parameters, got, last)
			}
			last = got
		}
		if got := authTime(s.redeem(secret, b.open(authorize("max_age", "3600")).answered(callback).Get("code"))); got != last {
			t.Errorf("signed in a moment ago: auth_time %v, was %v", got, last)
		}
	})
}

// L10, A12: signing in changes the session's cookie, and the one before is dead.
func TestSessionCookieChanges(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open(authorize())
		binding, before := b.cookie("browser"), b.cookie("session")
		b.signIn(ada, password).isPage(200, "/consent")
		first := b.cookie("session")
		if before != "" || first == "" || b.cookie("browser") != binding {
			t.Fatal("before signing in there is a session, after it none, or the browser's own cookie changed")
		}
		b.press("allow").answered(callback)
		b.open(authorize("prompt", "login")).isPage(200, "/login")
		if b.text("confirm") == "" {
			t.Error("the page does not say why to sign in again")
		}
		b.signIn(ada, password).answered(callback)
		if second := b.cookie("session"); second == first || b.cookie("browser") != binding {
			t.Error("signing in again left the session's cookie, or changed the browser's")
		}
		if a := s.get("/account", "Cookie", b.sessionName()+"="+first); a.status != http.StatusSeeOther {
			t.Errorf("the cookie from before still works: %d", a.status)
		}
	})
}

// sessionName and bindingName return the names of cookies.
func (b *browser) sessionName() string { return b.cookieName("session") }
func (b *browser) bindingName() string { return b.cookieName("browser") }

func (b *browser) cookieName(part string) string {
	b.t.Helper()
	u, _ := url.Parse(b.site.url)
	for _, c := range b.client.Jar.Cookies(u) {
		if strings.Contains(c.Name, part) {
			return c.Name
		}
	}
	b.t.Fatalf("no cookie %s", part)
	return ""
}

// A password that somebody else set has to be replaced on the way in.
func TestReplacePassword(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		s.mustChange(ada)
		b := s.browser().open(authorize())
		b.signIn(ada, password).isPage(200, "/login")
		action, fields := b.form("submit")
		if strings.Contains(b.body, password) || action != s.url+"/login/password" {
			t.Fatalf("the page holds the password, or goes to %s", action)
		}
		b.press("submit", "new_password", "too short", "repeat_password", "too short").isPage(422, "/login/password")
		b.press("submit", "new_password", "an owl between two oaks", "repeat_password", "an owl between two oats").isPage(422, "/login/password")
		b.press("submit", "new_password", password, "repeat_password", password).isPage(422, "/login/password")

		// In another browser the form is worth nothing, and after a while nowhere.
		thief := s.browser().open("/login")
		thief.post(action, with(fields, "new_password", "an owl between two oaks", "repeat_password", "an owl between two oaks"), "same-origin").isPage(400, "/login/password")

		b.press("submit", "new_password", "an owl between two oaks", "repeat_password", "an owl between two oaks").isPage(200, "/consent")
		s.browser().open("/login").signIn(ada, password).isPage(422, "/login")
		s.browser().open("/login").signIn(ada, "an owl between two oaks").isPage(200, "/account")
	})
}

func with(form url.Values, values ...string) url.Values {
	c := make(url.Values)
	for name, v := range form {
		c[name] = v
	}
	for i := 0; i < len(values); i += 2 {
		c.Set(values[i], values[i+1])
	}
	return c
}

// mustChange marks a user's password as set by somebody else.
func (s *site) mustChange(name string) {
	s.t.Helper()
	ctx := s.t.Context()
	u, err := s.admin.User(ctx, name)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := s.store.Password(ctx, u.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	p.MustChange = true
	if err := s.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.SetPassword(ctx, p) }); err != nil {
		s.t.Fatal(err)
	}
}

// L9: who finds the queue full hears when to come back.
func TestSignInBusy(t *testing.T) {
	onBoth(t, options{policy: func(p *provider.Policy) {
		p.PasswordHashes, p.PasswordQueue, p.PasswordMemory, p.PasswordPasses = 1, 0, 8<<10, 16
	}}, func(t *testing.T, s *site) {
		b := s.browser().open("/login")
		action, fields := b.form("submit")
		for range 50 {
			var wg sync.WaitGroup
			busy := make(chan *browser, 8)
			for i := range 8 {
				wg.Go(func() {
					c := b.another().post(action, with(fields, "username", strconv.Itoa(i), "password", "a wrong heron at dawn"), "same-origin")
					if c.status == http.StatusServiceUnavailable {
						busy <- c
					}
				})
			}
			wg.Wait()
			select {
			case c := <-busy:
				if c.header.Get("Retry-After") == "" || c.text("error-summary") == "" || c.node("submit") == nil {
					t.Errorf("Retry-After %q: %s", c.header.Get("Retry-After"), c.body)
				}
				return
			default:
			}
		}
		t.Error("nobody is told to come back")
	})
}
