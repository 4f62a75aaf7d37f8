package web_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

// object returns the claims of a request object of shop's that asks what request does.
func (s *site) object(parameters ...string) map[string]any {
	claims := map[string]any{"iss": "shop", "aud": s.issuer, "exp": time.Now().Add(time.Minute).Unix()}
	for name := range request(parameters...) {
		claims[name] = request(parameters...).Get(name)
	}
	return claims
}

// asObject is the authorization request that carries the object and, in the
// open, what RFC 9101 §5 wants beside it.
func asObject(object string, more ...string) string {
	v := url.Values{"client_id": {"shop"}, "request": {object}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return "/authorize?" + v.Encode()
}

// signs registers the key for shop's request objects, beside its secret.
func (k signer) signs(t testing.TB, s *site, alter ...func(*provider.ClientExtra)) {
	t.Helper()
	_, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) {
		c.JWKS = k.jwks(t)
		extra := provider.ReadClientExtra(*c)
		for _, f := range alter {
			f(&extra)
		}
		extra.Write(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.settle()
}

// Only what is in the object counts (RFC 9101 §6.3), in every algorithm offered.
func TestRequestObject(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser().open("/login").signIn(ada, password)
		b.open(authorize("scope", "openid profile email")).press("allow").answered(callback)
		for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA} {
			t.Run(string(alg), func(t *testing.T) {
				k := newSigner(t, alg)
				k.signs(t, s)
				claims := s.object("state", "inside")
				claims["max_age"] = 3600
				claims["claims"] = map[string]any{"id_token": map[string]any{"name": nil}}
				claims["resource"] = []string{s.issuer}
				got := b.another().open(asObject(k.assertion(t, claims), "scope", "openid email", "state", "outside", "prompt", "login",
					"redirect_uri", callback)).answered(callback)
				if got.Get("state") != "inside" || got.Get("code") == "" {
					t.Fatalf("the app gets %v", got)
				}
				token := s.redeem(secret, got.Get("code"))
				if token.member("scope") != "openid profile" {
					t.Fatalf("token: %d %s", token.status, token.body)
				}
				if _, id := decode(t, token.member("id_token")); id["name"] != "Ada Lovelace" {
					t.Errorf("the claims of the object are not heeded: %v", id)
				}
			})
		}
		t.Run("pushed", func(t *testing.T) { // RFC 9126 §3
			k := newSigner(t, jose.ES256)
			k.signs(t, s)
			a := s.form("/par", "shop", secret, url.Values{"request": {k.assertion(t, s.object())}})
			b.another().open(referring(a.member("request_uri"))).answered(callback)
		})
	})
}

// F9: an object that its client did not sign, for us, now, as what it is, is refused.
func TestRequestObjectRefused(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		k := newSigner(t, jose.ES256)
		k.signs(t, s, func(e *provider.ClientExtra) { e.RequestObjectAlg = "ES256" })
		b := s.browser().open("/login").signIn(ada, password)
		b.open(asObject(k.assertion(t, s.object()))).press("allow").answered(callback)
		altered := func(name string, value any) string {
			claims := maps.Clone(s.object())
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
			return k.assertion(t, claims)
		}
		stranger := newSigner(t, jose.ES256)
		rsa := newSigner(t, jose.RS256)
		typed := func(typ jose.ContentType) string {
			return k.sign(t, s.object(), (&jose.SignerOptions{}).WithHeader("kid", k.kid).WithType(typ))
		}
		right := k.assertion(t, s.object())
		none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(right, ".")[1] + "."
		for name, object := range map[string]string{
			"unsigned":            none,
			"by a stranger":       stranger.assertion(t, s.object()),
			"in another alg":      rsa.assertion(t, s.object()),
			"brings its key":      k.sign(t, s.object(), &jose.SignerOptions{EmbedJWK: true}),
			"an ID token":         typed("at+jwt"),
			"a client assertion":  k.assertion(t, claimsFor(s, "shop")),
			"another issuer":      altered("iss", "portal"),
			"no issuer":           altered("iss", nil),
			"another audience":    altered("aud", "https://elsewhere.example"),
			"no audience":         altered("aud", nil),
			"expired":             altered("exp", time.Now().Add(-10*time.Minute).Unix()),
			"not yet":             altered("nbf", time.Now().Add(10*time.Minute).Unix()),
			"another client":      altered("client_id", "portal"),
			"an object in it":     altered("request", right),
			"a reference in it":   altered("request_uri", "https://shop.example/r"),
			"scope as a list":     altered("scope", []string{"openid"}),
			"a NUL":               altered("state", "a\x00b"),
			"claims of odd bytes": altered("claims", json.RawMessage("{\"userinfo\":{\"\xff\":null}}")),
			"max_age as an array": altered("max_age", []int{1}),
			"no object":           k.assertion(t, nil),
			"no JWS":              "e30.e30.e30",
			"cut off":             right[:len(right)-4],
		} {
			t.Run(name, func(t *testing.T) {
				got := b.another().open(asObject(object, "redirect_uri", callback, "state", "st")).answered(callback)
				if got.Get("error") != "invalid_request_object" || got.Get("state") != "st" || got.Get("iss") != s.issuer {
					t.Errorf("the app gets %v", got)
				}
				// Without a registered redirect URI in the open nobody is sent anywhere.
				b.another().open(asObject(object, "redirect_uri", "https://evil.example/cb")).isPage(http.StatusBadRequest, "/authorize")
			})
		}
		t.Run("typed", func(t *testing.T) { b.another().open(asObject(typed("oauth-authz-req+jwt"))).answered(callback) })
		t.Run("of an evil redirect", func(t *testing.T) {
			b.another().open(asObject(altered("redirect_uri", "https://evil.example/cb"), "redirect_uri", callback)).isPage(http.StatusBadRequest, "/authorize")
		})
		t.Run("of an unknown client", func(t *testing.T) {
			b.another().open(asObject(right, "client_id", "nobody")).isPage(http.StatusBadRequest, "/authorize")
		})
		k.signs(t, s, func(e *provider.ClientExtra) { e.RequireRequestObject = true })
		if got := b.another().open(authorize()).answered(callback); got.Get("error") != "invalid_request" {
			t.Errorf("a request without an object, which is required: %v", got)
		}
		b.another().open(asObject(right)).answered(callback)
	})
}

// An object is fetched from where its client registered, and from nowhere else.
func TestRequestObjectByReference(t *testing.T) {
	o := open()
	o.allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	onBoth(t, o, func(t *testing.T, s *site) {
		var fetched atomic.Int32
		var object atomic.Value
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fetched.Add(1)
			if r.URL.Path == "/moved" {
				http.Redirect(w, r, "/r", http.StatusFound)
				return
			}
			fmt.Fprint(w, object.Load())
		}))
		t.Cleanup(host.Close)
		s.people()
		k := newSigner(t, jose.ES256)
		object.Store(k.assertion(t, s.object("state", "fetched")))
		sum := sha256.Sum256([]byte(object.Load().(string)))
		digested := host.URL + "/r#" + base64.RawURLEncoding.EncodeToString(sum[:])
		k.signs(t, s, func(e *provider.ClientExtra) {
			e.RequestURIs = []string{host.URL + "/r", digested, host.URL + "/r#" + strings.Repeat("A", 43), host.URL + "/moved", "https://127.0.0.1:1/r"}
		})
		b := s.browser().open("/login").signIn(ada, password)
		b.open(authorize()).press("allow").answered(callback)
		at := func(uri string) url.Values {
			v := url.Values{"client_id": {"shop"}, "request_uri": {uri}, "redirect_uri": {callback}}
			return b.another().open("/authorize?" + v.Encode()).answered(callback)
		}
		for _, uri := range []string{host.URL + "/r", digested} {
			if got := at(uri); got.Get("code") == "" || got.Get("state") != "fetched" {
				t.Errorf("%s: the app gets %v", uri, got)
			}
		}
		before := fetched.Load()
		for _, uri := range []string{host.URL + "/other", host.URL + "/r?", "https://169.254.169.254/latest", "file:///etc/passwd"} {
			if got := at(uri); got.Get("error") != "invalid_request_uri" {
				t.Errorf("%s: the app gets %v", uri, got)
			}
		}
		if fetched.Load() != before {
			t.Error("what is not registered was fetched")
		}
		for _, uri := range []string{host.URL + "/r#" + strings.Repeat("A", 43), host.URL + "/moved", "https://127.0.0.1:1/r"} {
			if got := at(uri); got.Get("error") != "invalid_request_uri" {
				t.Errorf("%s: the app gets %v", uri, got)
			}
		}
		// The operator's networks are for what the operator registered.
		registered := s.registers(spa("jwks", json.RawMessage(k.jwks(t)), "request_uris", []string{host.URL + "/r"}))
		before = fetched.Load()
		b.another().open("/authorize?"+url.Values{"client_id": {registered.member("client_id")}, "request_uri": {host.URL + "/r"}}.Encode()).isPage(http.StatusBadRequest, "/authorize")
		if fetched.Load() != before {
			t.Error("what a stranger registered was fetched from the operator's network")
		}
		before = fetched.Load()
		refused := false
		for range 60 {
			refused = refused || at(host.URL+"/r").Get("error") == "invalid_request_uri"
		}
		if n := fetched.Load() - before; !refused || n > 40 {
			t.Errorf("of 60 requests in a row %d were fetched for", n)
		}
	})
}

// Of many keys that might have signed, few are tried when a signature names none.
func TestFewKeysAreTried(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		var set jose.JSONWebKeySet
		var last signer
		for i := range 8 {
			last = newSigner(t, jose.ES256)
			last.kid = fmt.Sprint(i)
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: last.key.Public(), KeyID: last.kid})
		}
		document, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.JWKS = string(document) }); err != nil {
			t.Fatal(err)
		}
		s.settle()
		b := s.browser().open("/login").signIn(ada, password)
		b.open(asObject(last.assertion(t, s.object()))).press("allow").answered(callback)
		if got := b.another().open(asObject(last.sign(t, s.object(), nil), "redirect_uri", callback)).answered(callback); got.Get("error") != "invalid_request_object" {
			t.Errorf("the last of eight keys, not named: %v", got)
		}
	})
}
