package web_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// signer is a client's key pair.
type signer struct {
	alg jose.SignatureAlgorithm
	key crypto.Signer
	kid string
}

func newSigner(t testing.TB, alg jose.SignatureAlgorithm) signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case jose.RS256, jose.PS256:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg, key, "k-" + string(alg)}
}

// jwks is the JWK Set the client registers.
func (k signer) jwks(t testing.TB) string {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.key.Public(), KeyID: k.kid, Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// registers gives a client the key.
func (k signer) registers(t testing.TB) func(*storage.Client) {
	return func(c *storage.Client) { c.AuthMethod, c.JWKS = "private_key_jwt", k.jwks(t) }
}

// assertion signs the claims and names the key.
func (k signer) assertion(t testing.TB, claims map[string]any) string {
	t.Helper()
	return k.sign(t, claims, (&jose.SignerOptions{}).WithHeader("kid", k.kid))
}

func (k signer) sign(t testing.TB, claims map[string]any, opts *jose.SignerOptions) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.alg, Key: k.key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return compact(t, s, payload)
}

// signBytes signs what need be no JSON.
func (k signer) signBytes(t testing.TB, payload []byte) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.alg, Key: k.key}, (&jose.SignerOptions{}).WithHeader("kid", k.kid))
	if err != nil {
		t.Fatal(err)
	}
	return compact(t, s, payload)
}

func compact(t testing.TB, s jose.Signer, payload []byte) string {
	t.Helper()
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	serialized, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return serialized
}

// claimsFor returns the claims of a right assertion (RFC 7523 §3), to be altered.
func claimsFor(s *site, id string) map[string]any {
	now := time.Now().Unix()
	return map[string]any{"iss": id, "sub": id, "aud": s.issuer, "iat": now, "exp": now + 60, "jti": rand.Text()}
}

// unsigned is an assertion with alg none.
func unsigned(id string) string {
	now := time.Now().Unix()
	claims, _ := json.Marshal(map[string]any{"iss": id, "sub": id, "iat": now, "exp": now + 60, "jti": rand.Text()})
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc(claims) + "."
}

// assert asks for a token with an assertion.
func (s *site) assert(assertion string, header ...string) answer {
	s.t.Helper()
	form := clientCredentials()
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", assertion)
	return s.form("/token", "", "", form, header...)
}

func TestAssertionClaims(t *testing.T) {
	onBoth(t, options{proxies: trusted()}, func(t *testing.T, s *site) {
		key := newSigner(t, jose.ES256)
		s.register("robot", key.registers(t))
		s.client("legacy", key.registers(t), func(c *storage.Client) { c.AssertionAudTokenURL = true })
		now := time.Now().Unix()
		for i, tc := range []struct {
			name   string
			client string // robot when ""
			change map[string]any
			ok     bool
		}{
			{name: "right", ok: true},
			{name: "without a client_id in the body", ok: true},
			{name: "E5 aud is the issuer in an array", change: map[string]any{"aud": []string{s.issuer}}},
			{name: "E5 F10 aud is the issuer and another", change: map[string]any{"aud": []string{s.issuer, "https://evil.example"}}},
			{name: "E5 aud is the token URL", change: map[string]any{"aud": s.issuer + "/token"}},
			{name: "E5 aud is the token URL, and the client has the legacy switch", client: "legacy", change: map[string]any{"aud": s.issuer + "/token"}, ok: true},
			{name: "E5 aud is the issuer, and the client has the legacy switch", client: "legacy", ok: true},
			{name: "E5 aud is the revocation URL, and the client has the legacy switch", client: "legacy", change: map[string]any{"aud": s.issuer + "/revoke"}},
			{name: "E5 aud is foreign", change: map[string]any{"aud": "https://evil.example"}},
			{name: "E5 aud is the issuer with a slash", change: map[string]any{"aud": s.issuer + "/"}},
			{name: "E5 aud is empty", change: map[string]any{"aud": ""}},
			{name: "E5 aud is null", change: map[string]any{"aud": nil}},
			{name: "E5 aud is a number", change: map[string]any{"aud": 7}},
			{name: "E6 F10 exp in ten years", change: map[string]any{"exp": now + 10*365*24*3600}},
			{name: "E6 exp beyond five minutes and skew", change: map[string]any{"exp": now + 300 + 65}},
			{name: "E6 exp within five minutes", change: map[string]any{"exp": now + 295}, ok: true},
			{name: "E6 expired", change: map[string]any{"exp": now - 65}},
			{name: "E6 expired within the skew", change: map[string]any{"exp": now - 30}, ok: true},
			{name: "E6 exp is missing", change: map[string]any{"exp": "delete"}},
			{name: "E6 exp is null", change: map[string]any{"exp": nil}},
			{name: "E6 exp is text", change: map[string]any{"exp": "9999999999"}},
			{name: "E6 iat is missing", change: map[string]any{"iat": "delete"}},
			{name: "E6 iat in the future", change: map[string]any{"iat": now + 90}},
			{name: "E6 iat in the future within the skew", change: map[string]any{"iat": now + 30}, ok: true},
			{name: "E6 nbf in the future", change: map[string]any{"nbf": now + 90}},
			{name: "E6 nbf in the future within the skew", change: map[string]any{"nbf": now + 30}, ok: true},
			{name: "E6 jti is missing", change: map[string]any{"jti": "delete"}},
			{name: "E6 jti is empty", change: map[string]any{"jti": ""}},
			{name: "E6 jti is long", change: map[string]any{"jti": strings.Repeat("x", 257)}},
			{name: "E6 jti is a number", change: map[string]any{"jti": 7}},
			{name: "E6 jti with NUL", change: map[string]any{"jti": "a\x00b"}},
			{name: "iss is another client", change: map[string]any{"iss": "legacy"}},
			{name: "sub is another client with the same key", change: map[string]any{"sub": "legacy"}},
			{name: "iss is missing", change: map[string]any{"iss": "delete"}},
			{name: "sub is missing", change: map[string]any{"sub": "delete"}},
			{name: "sub is nobody", change: map[string]any{"iss": "nobody", "sub": "nobody"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				id := tc.client
				if id == "" {
					id = "robot"
				}
				claims := claimsFor(s, id)
				maps.Copy(claims, tc.change)
				maps.DeleteFunc(claims, func(_ string, v any) bool { return v == "delete" })
				// An address each, so that no refusal comes from the throttle.
				a := s.assert(key.assertion(t, claims), "X-Forwarded-For", address(i))
				if !tc.ok {
					a.isRefusal(t, 401, "invalid_client")
				} else if a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
			})
		}
		t.Run("RFC 7521 §4.2 client_id names another client", func(t *testing.T) {
			form := clientCredentials()
			form.Set("client_assertion_type", assertionType)
			form.Set("client_assertion", key.assertion(t, claimsFor(s, "robot")))
			form.Set("client_id", "legacy")
			s.form("/token", "", "", form).isRefusal(t, 400, "invalid_request")
		})
		t.Run("E1 an assertion and a secret", func(t *testing.T) {
			form := clientCredentials()
			form.Set("client_assertion_type", assertionType)
			form.Set("client_assertion", key.assertion(t, claimsFor(s, "robot")))
			form.Set("client_secret", "x")
			form.Set("client_id", "robot")
			s.form("/token", "", "", form).isRefusal(t, 400, "invalid_request")
		})
		t.Run("E2 an assertion client with its key and no assertion", func(t *testing.T) {
			s.form("/token", "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {"robot"}}).isRefusal(t, 401, "invalid_client")
			s.form("/token", "robot", "", clientCredentials(), "X-Forwarded-For", "192.0.2.250").isRefusal(t, 401, "invalid_client")
		})
		t.Run("F15 an assertion client has no secret to guess", func(t *testing.T) {
			s.form("/token", "robot", "x", clientCredentials(), "X-Forwarded-For", "192.0.2.251").isRefusal(t, 401, "invalid_client")
		})
		t.Run("at introspection and revocation", func(t *testing.T) {
			for _, path := range []string{"/introspect", "/revoke"} {
				form := url.Values{"token": {"x"}, "client_assertion_type": {assertionType}, "client_assertion": {key.assertion(t, claimsFor(s, "robot"))}}
				if a := s.form(path, "", "", form); a.status != 200 {
					t.Errorf("%s: %d %s", path, a.status, a.body)
				}
			}
		})
	})
}

func TestAssertionSignatures(t *testing.T) {
	keys := make(map[jose.SignatureAlgorithm]signer)
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA} {
		keys[alg] = newSigner(t, alg)
	}
	keys[jose.PS256] = signer{jose.PS256, keys[jose.RS256].key, "k-PS256"}
	onBoth(t, options{proxies: trusted()}, func(t *testing.T, s *site) {
		s.register("shop")
		for alg, key := range keys {
			s.client("robot-"+string(alg), key.registers(t))
			t.Run(string(alg), func(t *testing.T) {
				if a := s.assert(key.assertion(t, claimsFor(s, "robot-"+string(alg)))); a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
			})
		}
		ec, rs := keys[jose.ES256], keys[jose.RS256]
		pinned := s.client("pinned", rs.registers(t), func(c *storage.Client) { c.AuthSigningAlg = "PS256" })
		if pinned != "" {
			t.Error("a client that authenticates with a key was given a secret")
		}
		named := ec.jwks(t)
		s.client("for-encryption", func(c *storage.Client) {
			c.AuthMethod, c.JWKS = "private_key_jwt", strings.Replace(named, `"use":"sig"`, `"alg":"ES256"`, 1)
		})
		forge := func(header string, claims map[string]any) string {
			payload, _ := json.Marshal(claims)
			enc := base64.RawURLEncoding.EncodeToString
			return enc([]byte(header)) + "." + enc(payload)
		}
		good := func() string { return ec.assertion(t, claimsFor(s, "robot-ES256")) }
		parts := strings.Split(good(), ".")
		der, err := json.Marshal(ec.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		hmacSigned := func(secret []byte) string {
			k, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, nil)
			if err != nil {
				t.Fatal(err)
			}
			payload, _ := json.Marshal(claimsFor(s, "robot-ES256"))
			jws, err := k.Sign(payload)
			if err != nil {
				t.Fatal(err)
			}
			compact, _ := jws.CompactSerialize()
			return compact
		}
		stranger := newSigner(t, jose.ES256)
		stranger.kid = ec.kid
		nameless := ec
		nameless.kid = ""
		for i, tc := range []struct {
			name, assertion string
		}{
			{"E4 alg none", unsigned("robot-ES256")},
			{"E4 alg none with a signature", forge(`{"alg":"none"}`, claimsFor(s, "robot-ES256")) + "." + parts[2]},
			{"E4 alg None", forge(`{"alg":"None"}`, claimsFor(s, "robot-ES256")) + "."},
			{"E4 HS256 with the public key", hmacSigned(append(der, make([]byte, 32)...))},
			{"E4 HS256 with the JWK Set", hmacSigned([]byte(ec.jwks(t)))},
			{"E4 RS256 over an EC key", forge(`{"alg":"RS256","kid":"k-ES256"}`, claimsFor(s, "robot-ES256")) + "." + parts[2]},
			{"E4 PS256 where RS256 is registered", rs.assertion(t, claimsFor(s, "pinned"))},
			{"E4 the key comes along", stranger.sign(t, claimsFor(s, "robot-ES256"), &jose.SignerOptions{EmbedJWK: true})},
			{"E4 a right signature and a key that comes along", ec.sign(t, claimsFor(s, "robot-ES256"), &jose.SignerOptions{EmbedJWK: true})},
			{"E4 another key under the same kid", stranger.assertion(t, claimsFor(s, "robot-ES256"))},
			{"E4 the key of another client", rs.assertion(t, claimsFor(s, "robot-ES256"))},
			{"E4 an unknown kid", nameless.sign(t, claimsFor(s, "robot-ES256"), (&jose.SignerOptions{}).WithHeader("kid", "elsewhere"))},
			{"E4 crit", ec.sign(t, claimsFor(s, "robot-ES256"), (&jose.SignerOptions{}).WithHeader("kid", ec.kid).WithHeader("crit", []string{"x"}).WithHeader("x", 1))},
			{"a changed payload", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"robot-ES256","sub":"robot-ES256"}`)) + "." + parts[2]},
			{"a cut signature", good()[:len(good())-8]},
			{"no signature", parts[0] + "." + parts[1] + "."},
			{"two parts", parts[0] + "." + parts[1]},
			{"five parts", good() + ".x.y"},
			{"dots only", strings.Repeat(".", 5000)},
			{"over 8 KiB", ec.assertion(t, func() map[string]any {
				c := claimsFor(s, "robot-ES256")
				c["pad"] = strings.Repeat("x", 9<<10)
				return c
			}())},
			{"for a client that has a secret", ec.assertion(t, claimsFor(s, "shop"))},
			{"not JSON", ec.assertion(t, nil)},
		} {
			t.Run(tc.name, func(t *testing.T) {
				s.assert(tc.assertion, "X-Forwarded-For", address(i)).isRefusal(t, 401, "invalid_client")
			})
		}
		t.Run("no kid, and one key registered", func(t *testing.T) {
			if a := s.assert(ec.sign(t, claimsFor(s, "robot-ES256"), nil)); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		})
	})
}

// E7: an assertion works once: in series, at once, on another replica, and
// after a restart.
func TestAssertionReplay(t *testing.T) {
	onBoth(t, options{proxies: trusted()}, func(t *testing.T, s *site) {
		key := newSigner(t, jose.ES256)
		s.register("robot", key.registers(t))
		s.client("second", key.registers(t))
		replica := newSite(t, s.db.open(t), options{beside: s, proxies: trusted()})

		t.Run("E7 in series", func(t *testing.T) {
			assertion := key.assertion(t, claimsFor(s, "robot"))
			if a := s.assert(assertion); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			s.assert(assertion).isRefusal(t, 401, "invalid_client")
			replica.assert(assertion).isRefusal(t, 401, "invalid_client")
		})
		t.Run("E7 another assertion with the same jti", func(t *testing.T) {
			claims := claimsFor(s, "robot")
			if a := s.assert(key.assertion(t, claims)); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			claims["exp"] = claims["exp"].(int64) + 1
			s.assert(key.assertion(t, claims)).isRefusal(t, 401, "invalid_client")
		})
		t.Run("E7 32 at once on two replicas", func(t *testing.T) {
			assertion := key.assertion(t, claimsFor(s, "robot"))
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 32 {
				at := []*site{s, replica}[i%2]
				wg.Go(func() {
					// The losers of this race are no guessers: an address each.
					switch a := at.assert(assertion, "X-Forwarded-For", address(i)); a.status {
					case 200:
						won.Add(1)
					case 401:
					default:
						t.Errorf("%d %s", a.status, a.body)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d succeeded", won.Load())
			}
		})
		t.Run("E8 the same jti from two clients", func(t *testing.T) {
			first, second := claimsFor(s, "robot"), claimsFor(s, "second")
			second["jti"] = first["jti"]
			if a, b := s.assert(key.assertion(t, first)), s.assert(key.assertion(t, second)); a.status != 200 || b.status != 200 {
				t.Fatalf("%d %s, %d %s", a.status, a.body, b.status, b.body)
			}
		})
		t.Run("F10 a refused assertion is not spent", func(t *testing.T) {
			claims := claimsFor(s, "robot")
			claims["aud"] = "https://evil.example"
			s.assert(key.assertion(t, claims)).isRefusal(t, 401, "invalid_client")
			claims["aud"] = s.issuer
			if a := s.assert(key.assertion(t, claims)); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		})
		t.Run("E7 after a restart", func(t *testing.T) {
			assertion := key.assertion(t, claimsFor(s, "robot"))
			if a := replica.assert(assertion); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if err := replica.store.Close(); err != nil {
				t.Fatal(err)
			}
			restarted := newSite(t, s.db.open(t), options{beside: s})
			restarted.assert(assertion).isRefusal(t, 401, "invalid_client")
		})
	})
}

// E9, F11: a client's jwks_uri is fetched when needed and not more often,
// whatever strangers send.
func TestJWKSURI(t *testing.T) {
	onBoth(t, options{allow: trusted(), proxies: trusted()}, func(t *testing.T, s *site) {
		key := newSigner(t, jose.ES256)
		var fetches atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fetches.Add(1)
			_, _ = w.Write([]byte(key.jwks(t)))
		}))
		defer srv.Close()
		s.register("robot", func(c *storage.Client) { c.AuthMethod, c.JWKSURI = "private_key_jwt", srv.URL })

		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if a := s.assert(key.assertion(t, claimsFor(s, "robot"))); a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wg.Wait()
		if n := fetches.Load(); n != 1 {
			t.Errorf("E9 eight at once fetched the keys %d times", n)
		}
		// Strangers need no valid signature to name an unknown key.
		for i := range 1000 {
			a := s.assert(forgeKid(claimsFor(s, "robot"), i), "X-Forwarded-For", address(i))
			if a.status != 401 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if n := fetches.Load(); n != 1 {
			t.Errorf("E9 F11 1,000 unknown kids: %d fetches, want the 1 that came before", n)
		}
		if a := s.assert(key.assertion(t, claimsFor(s, "robot"))); a.status != 200 {
			t.Errorf("the rightful client after the flood: %d %s", a.status, a.body)
		}
	})
}

// forgeKid makes an assertion with a kid of its own and no real signature.
func forgeKid(claims map[string]any, n int) string {
	payload, _ := json.Marshal(claims)
	enc := base64.RawURLEncoding.EncodeToString
	return enc(fmt.Appendf(nil, `{"alg":"ES256","kid":"k%d"}`, n)) + "." + enc(payload) + "." + enc(make([]byte, 64))
}

// A stranger who hangs up during the fetch that his forged assertion caused
// does not keep the client's keys from being fetched.
func TestJWKSURIFetchOutlivesItsRequest(t *testing.T) {
	onBoth(t, options{allow: trusted()}, func(t *testing.T, s *site) {
		key := newSigner(t, jose.ES256)
		asked, answer := make(chan struct{}, 8), make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-answer
			_, _ = w.Write([]byte(key.jwks(t)))
		}))
		defer srv.Close()
		s.register("robot", func(c *storage.Client) { c.AuthMethod, c.JWKSURI = "private_key_jwt", srv.URL })

		ctx, hangUp := context.WithCancel(t.Context())
		form := clientCredentials()
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", forgeKid(claimsFor(s, "robot"), 1))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.issuer+"/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		}()
		<-asked
		hangUp()
		<-gone
		close(answer)
		if a := s.assert(key.assertion(t, claimsFor(s, "robot"))); a.status != 200 {
			t.Errorf("the rightful client after that: %d %s", a.status, a.body)
		}
	})
}

// N3: a jwks_uri on a private network is not fetched unless an operator said so.
func TestJWKSURIOnAPrivateNetwork(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		key := newSigner(t, jose.ES256)
		var fetches atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fetches.Add(1)
			_, _ = w.Write([]byte(key.jwks(t)))
		}))
		defer srv.Close()
		s.register("robot", func(c *storage.Client) { c.AuthMethod, c.JWKSURI = "private_key_jwt", srv.URL })
		s.assert(key.assertion(t, claimsFor(s, "robot"))).isRefusal(t, 503, "temporarily_unavailable")
		if n := fetches.Load(); n != 0 {
			t.Errorf("the server fetched from loopback %d times", n)
		}
	})
}
