package web_test

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// relyingParty is an app as others write it: golang.org/x/oauth2 and go-oidc,
// which know of the issuer only what it publishes.
type relyingParty struct {
	oauth2.Config
	site     *site
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
	heard    chan url.Values // what came to the redirect URI, where somebody listens
	endpoint struct {
		Revocation string `json:"revocation_endpoint"`
		EndSession string `json:"end_session_endpoint"`
	}
}

// newApp registers an app and has it discover the issuer.
func (s *site) newApp(t *testing.T, id string, style oauth2.AuthStyle, alter ...func(*storage.Client)) *relyingParty {
	t.Helper()
	a := &relyingParty{site: s}
	var registered storage.Client
	secret := s.client(id, append([]func(*storage.Client){forPeople}, append(alter, func(c *storage.Client) { registered = *c })...)...)
	var err error
	if a.provider, err = oidc.NewProvider(t.Context(), s.issuer); err != nil {
		t.Fatal(err)
	}
	if err := a.provider.Claims(&a.endpoint); err != nil {
		t.Fatal(err)
	}
	a.Config = oauth2.Config{
		ClientID: id, ClientSecret: secret, Endpoint: a.provider.Endpoint(), RedirectURL: registered.RedirectURIs[0],
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess, "orders:read"},
	}
	a.Config.Endpoint.AuthStyle = style
	// What the app was registered with is what it accepts, nothing else.
	a.verifier = a.provider.Verifier(&oidc.Config{ClientID: id, SupportedSigningAlgs: []string{registered.IDTokenAlg}})
	return a
}

// listen has the app wait for its answer on whatever port is free (RFC 8252 §7.3).
func (a *relyingParty) listen(t *testing.T) {
	t.Helper()
	a.heard = make(chan url.Values, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ParseForm() != nil || r.URL.Path != "/callback" {
			http.NotFound(w, r)
			return
		}
		a.heard <- r.Form
	}))
	t.Cleanup(srv.Close)
	a.RedirectURL = srv.URL + "/callback"
}

// signIn sends a person to the issuer and back, and returns what the app got,
// and the verifier and nonce it made for this once.
func (a *relyingParty) signIn(t *testing.T, b *browser, more ...oauth2.AuthCodeOption) (got url.Values, verifier, nonce string) {
	t.Helper()
	verifier, nonce = oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	state := oauth2.GenerateVerifier()
	options := append([]oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce)}, more...)
	b.open(a.AuthCodeURL(state, options...))
	if b.node("login") != nil {
		b.signIn(ada, password)
	}
	if b.node("consent") != nil {
		b.press("allow")
	}
	switch {
	case b.node("form-post") != nil:
		action, fields := b.form("submit")
		if action != a.RedirectURL {
			t.Fatalf("the form goes to %s", action)
		}
		got = fields
		if a.heard != nil {
			res, err := http.PostForm(action, fields)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			got = <-a.heard
		}
	case a.heard != nil && b.left != nil:
		res, err := http.Get(b.left.String())
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("nobody listens at %s", b.left)
		}
		got = <-a.heard
	default:
		got = b.answered(a.RedirectURL)
	}
	if got.Get("state") != state || got.Get("iss") != a.site.issuer { // RFC 9700 §4.4, §4.7
		t.Fatalf("the app gets %v", got)
	}
	return got, verifier, nonce
}

// verified exchanges the code and returns the tokens and the ID token, checked
// as OIDC Core §3.1.3.7 and §3.1.3.8 ask of an app.
func (a *relyingParty) verified(t *testing.T, b *browser, more ...oauth2.AuthCodeOption) (*oauth2.Token, *oidc.IDToken) {
	t.Helper()
	got, verifier, nonce := a.signIn(t, b, more...)
	token, err := a.Exchange(t.Context(), got.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	id, err := a.verifier.Verify(t.Context(), idTokenOf(token))
	if err != nil {
		t.Fatal(err)
	}
	if id.Nonce != nonce {
		t.Fatalf("nonce %q, want %q", id.Nonce, nonce)
	}
	if err := id.VerifyAccessToken(token.AccessToken); err != nil {
		t.Fatal(err)
	}
	return token, id
}

func idTokenOf(token *oauth2.Token) string {
	raw, _ := token.Extra("id_token").(string)
	return raw
}

// refresh gets new tokens with the refresh token alone.
func (a *relyingParty) refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	return a.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
}

// isOAuth reports whether x/oauth2 was refused with this code.
func isOAuth(err error, code string) bool {
	var refused *oauth2.RetrieveError
	return errors.As(err, &refused) && refused.ErrorCode == code
}

// What others wrote goes all the way: discovery, sign-in with PKCE, code, ID
// token, userinfo, refresh, revocation, signing out.
func TestOtherSoftwareSignsIn(t *testing.T) {
	onBoth(t, options{path: "/tenant", algs: keys.Algorithms()}, func(t *testing.T, s *site) {
		s.people()
		native := func(c *storage.Client) {
			c.AuthMethod, c.RedirectURIs = "none", []string{"http://127.0.0.1/callback"}
		}
		alg := func(name string) func(*storage.Client) { return func(c *storage.Client) { c.IDTokenAlg = name } }
		formPost := oauth2.SetAuthURLParam("response_mode", "form_post")
		for id, app := range map[string]struct {
			style  oauth2.AuthStyle
			alter  []func(*storage.Client)
			listen bool
			more   []oauth2.AuthCodeOption
		}{
			"basic-rs256":      {oauth2.AuthStyleInHeader, []func(*storage.Client){alg(keys.RS256)}, false, nil},
			"basic-es256":      {oauth2.AuthStyleInHeader, []func(*storage.Client){alg(keys.ES256)}, false, nil},
			"basic-ps256":      {oauth2.AuthStyleInHeader, []func(*storage.Client){alg(keys.PS256)}, false, nil},
			"basic-eddsa":      {oauth2.AuthStyleInHeader, []func(*storage.Client){alg(keys.EdDSA)}, false, nil},
			"post-form":        {oauth2.AuthStyleInParams, []func(*storage.Client){asPost, alg(keys.RS256)}, false, []oauth2.AuthCodeOption{formPost}},
			"native":           {oauth2.AuthStyleInParams, []func(*storage.Client){native, alg(keys.RS256)}, true, nil},
			"native-form-post": {oauth2.AuthStyleInParams, []func(*storage.Client){native, alg(keys.EdDSA)}, true, []oauth2.AuthCodeOption{formPost}},
		} {
			t.Run(id, func(t *testing.T) {
				a := s.newApp(t, id, app.style, app.alter...)
				if app.listen {
					a.listen(t)
				}
				a.wholeLife(t, app.more...)
			})
		}
	})
}

// wholeLife is everything an app does with a person's sign-in.
func (a *relyingParty) wholeLife(t *testing.T, more ...oauth2.AuthCodeOption) {
	ctx, b := t.Context(), a.site.browser()
	token, id := a.verified(t, b, more...)
	if !token.Valid() || token.Type() != "Bearer" || token.Extra("scope") == "" {
		t.Errorf("type %s, scope %v, expires %s", token.Type(), token.Extra("scope"), token.Expiry)
	}
	person, err := a.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Name string `json:"name"`
		User string `json:"preferred_username"`
	}
	if err := person.Claims(&claims); err != nil || claims.Name != "Ada Lovelace" || claims.User != ada {
		t.Errorf("userinfo says %+v, %v", claims, err)
	}
	if person.Subject != id.Subject || person.Email != adaMail || !person.EmailVerified {
		t.Errorf("userinfo: %+v", person)
	}

	// x/oauth2 refreshes by itself what has expired.
	stale := *token
	stale.Expiry = time.Now().Add(-time.Minute)
	fresh, err := a.TokenSource(ctx, &stale).Token()
	if err != nil {
		t.Fatal(err)
	}
	if fresh.AccessToken == token.AccessToken || fresh.RefreshToken == token.RefreshToken || fresh.RefreshToken == "" {
		t.Error("the refresh changed nothing")
	}
	again, err := a.verifier.Verify(ctx, idTokenOf(fresh))
	if err != nil {
		t.Fatal(err)
	}
	if again.Subject != id.Subject || again.Nonce != "" || again.VerifyAccessToken(fresh.AccessToken) != nil {
		t.Errorf("the ID token of the refresh: %+v", again)
	}

	// x/oauth2 has no call for RFC 7009.
	asBasic, secret, form := a.ClientID, a.ClientSecret, url.Values{"token": {fresh.RefreshToken}}
	if a.Endpoint.AuthStyle == oauth2.AuthStyleInParams {
		form.Set("client_id", asBasic)
		if secret != "" {
			form.Set("client_secret", secret)
		}
		asBasic = ""
	}
	path := strings.TrimPrefix(a.endpoint.Revocation, a.site.url)
	if res := a.site.form(path, asBasic, secret, form); res.status != http.StatusOK {
		t.Fatalf("revocation: %d %s", res.status, res.body)
	}
	if _, err := a.refresh(ctx, fresh.RefreshToken); !isOAuth(err, "invalid_grant") {
		t.Errorf("a refresh after the revocation: %v", err)
	}
	if _, err := a.provider.UserInfo(ctx, oauth2.StaticTokenSource(fresh)); err == nil {
		t.Error("userinfo answers a revoked token")
	}

	// OpenID Connect RP-Initiated Logout 1.0.
	b.open(a.endpoint.EndSession + "?" + url.Values{"id_token_hint": {idTokenOf(fresh)},
		"post_logout_redirect_uri": {"https://shop.example/bye"}, "state": {"out"}}.Encode())
	if got := b.answered("https://shop.example/bye"); got.Get("state") != "out" {
		t.Errorf("after signing out the app gets %v", got)
	}
	got, _, _ := a.signIn(t, b, append(more, oauth2.SetAuthURLParam("prompt", "none"))...)
	if got.Get("error") != "login_required" {
		t.Errorf("after signing out: %v", got)
	}
}

// What is not meant for an app, its libraries refuse, and what it does wrong
// the issuer refuses in a way they understand.
func TestOtherSoftwareRefuses(t *testing.T) {
	onBoth(t, options{path: "/tenant", algs: keys.Algorithms()}, func(t *testing.T, s *site) {
		ctx := t.Context()
		s.people()
		a, other := s.newApp(t, "app", oauth2.AuthStyleInHeader), s.newApp(t, "other", oauth2.AuthStyleInHeader)
		b := s.browser()
		token, id := a.verified(t, b)
		raw := idTokenOf(token)
		config := func(change func(*oidc.Config)) *oidc.Config {
			c := &oidc.Config{ClientID: a.ClientID, SupportedSigningAlgs: []string{keys.ES256}}
			change(c)
			return c
		}
		same := func(*oidc.Config) {}
		published := oidc.NewRemoteKeySet(ctx, s.issuer+"/jwks")
		if _, err := oidc.NewVerifier(s.issuer, published, config(same)).Verify(ctx, raw); err != nil {
			t.Fatalf("the right verifier: %v", err)
		}
		signature := strings.LastIndexByte(raw, '.') + 1
		for name, refuse := range map[string]struct {
			verifier *oidc.IDTokenVerifier
			token    string
		}{
			"another issuer":        {oidc.NewVerifier("https://other.example", published, config(same)), raw},
			"an issuer almost":      {oidc.NewVerifier(s.issuer+"/", published, config(same)), raw},
			"another key":           {oidc.NewVerifier(s.issuer, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{newSigner(t, jose.ES256).key.Public()}}, config(same)), raw},
			"another app":           {other.verifier, raw},
			"another algorithm":     {oidc.NewVerifier(s.issuer, published, config(func(c *oidc.Config) { c.SupportedSigningAlgs = []string{keys.RS256} })), raw},
			"later":                 {oidc.NewVerifier(s.issuer, published, config(func(c *oidc.Config) { c.Now = func() time.Time { return id.Expiry.Add(time.Second) } })), raw},
			"another signature":     {a.verifier, raw[:signature] + tamper(raw[signature:])},
			"an access token":       {a.verifier, token.AccessToken},
			"no token":              {a.verifier, ""},
			"without its signature": {a.verifier, raw[:signature]},
		} {
			t.Run(name, func(t *testing.T) {
				if _, err := refuse.verifier.Verify(ctx, refuse.token); err == nil {
					t.Error("accepted")
				}
			})
		}
		t.Run("a nonce of another sign-in", func(t *testing.T) {
			_, later := a.verified(t, b)
			if later.Nonce == id.Nonce || later.Nonce == "" {
				t.Errorf("nonces %q and %q", id.Nonce, later.Nonce)
			}
		})
		t.Run("an access token of another sign-in", func(t *testing.T) {
			later, _ := a.verified(t, b)
			if err := id.VerifyAccessToken(later.AccessToken); err == nil {
				t.Error("accepted")
			}
		})
		t.Run("discovery under another name", func(t *testing.T) {
			if _, err := oidc.NewProvider(ctx, s.issuer+"/"); err == nil {
				t.Error("accepted")
			}
		})
		t.Run("a wrong verifier", func(t *testing.T) {
			got, right, _ := a.signIn(t, b)
			if _, err := a.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier())); !isOAuth(err, "invalid_grant") {
				t.Errorf("a wrong verifier: %v", err)
			}
			if _, err := a.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(right)); !isOAuth(err, "invalid_grant") {
				t.Errorf("the right one afterwards: %v", err)
			}
		})
		t.Run("another app's code", func(t *testing.T) {
			got, right, _ := a.signIn(t, b)
			if _, err := other.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(right)); !isOAuth(err, "invalid_grant") {
				t.Errorf("got %v", err)
			}
			if _, err := a.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(right)); err != nil {
				t.Errorf("its own app afterwards: %v", err)
			}
		})
		t.Run("another app's refresh token", func(t *testing.T) {
			if _, err := other.refresh(ctx, token.RefreshToken); !isOAuth(err, "invalid_grant") {
				t.Errorf("got %v", err)
			}
			if _, err := a.refresh(ctx, token.RefreshToken); err != nil {
				t.Errorf("its own app afterwards: %v", err)
			}
		})
		t.Run("a code twice", func(t *testing.T) {
			got, right, _ := a.signIn(t, b)
			first, err := a.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(right))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(right)); !isOAuth(err, "invalid_grant") {
				t.Errorf("got %v", err)
			}
			if _, err := a.refresh(ctx, first.RefreshToken); !isOAuth(err, "invalid_grant") {
				t.Errorf("the refresh token it gave: %v", err)
			}
		})
		t.Run("a wrong secret", func(t *testing.T) {
			got, right, _ := a.signIn(t, b)
			stranger := a.Config
			stranger.ClientSecret = "not-the-secret-of-this-client"
			if _, err := stranger.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(right)); !isOAuth(err, "invalid_client") {
				t.Errorf("got %v", err)
			}
		})
	})
}
