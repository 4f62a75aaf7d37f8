package web_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
)

func clientCredentials() url.Values { return url.Values{"grant_type": {"client_credentials"}} }

// asPost registers a client for client_secret_post, asPublic one without credentials.
func asPost(c *storage.Client) { c.AuthMethod = "client_secret_post" }
func asPublic(c *storage.Client) {
	c.AuthMethod, c.GrantTypes = "none", []string{"authorization_code"}
	c.RedirectURIs = []string{"https://app.example/cb"}
}

// address returns the i-th of many client addresses.
func address(i int) string {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
}

// trusted are the proxies of tests that speak for many addresses.
func trusted() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

func TestClientSecretAuthentication(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		posted := s.client("post", asPost)
		s.client("app", asPublic)
		other := s.client("other")
		encoded := strings.NewReplacer("s", "%73", "_", "%5F").Replace(secret)
		raw := func(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

		for _, tc := range []struct {
			name          string
			authorization []string
			form          url.Values
			status        int
			code          string
		}{
			{name: "basic", authorization: []string{basic("shop", secret)}, status: 200},
			{name: "basic, form-encoded (RFC 6749 §2.3.1)", authorization: []string{raw("%73hop:" + encoded)}, status: 200},
			{name: "basic, scheme in lower case", authorization: []string{strings.Replace(basic("shop", secret), "Basic", "basic", 1)}, status: 200},
			{name: "basic and the same client_id in the body", authorization: []string{basic("shop", secret)}, form: url.Values{"client_id": {"shop"}}, status: 200},
			{name: "post", form: url.Values{"client_id": {"post"}, "client_secret": {posted}}, status: 200},

			{name: "E1 basic and post", authorization: []string{basic("shop", secret)}, form: url.Values{"client_secret": {secret}}, status: 400, code: "invalid_request"},
			{name: "E1 basic and post, all of it", authorization: []string{basic("shop", secret)}, form: url.Values{"client_id": {"shop"}, "client_secret": {secret}}, status: 400, code: "invalid_request"},
			{name: "E1 basic and an assertion", authorization: []string{basic("shop", secret)},
				form: url.Values{"client_assertion": {unsigned("shop")}, "client_assertion_type": {assertionType}}, status: 401, code: "invalid_client"},
			{name: "E1 basic and a bare assertion type", authorization: []string{basic("shop", secret)}, form: url.Values{"client_assertion_type": {assertionType}}, status: 401, code: "invalid_client"},
			{name: "E1 two Authorization headers", authorization: []string{basic("shop", secret), basic("shop", secret)}, status: 400, code: "invalid_request"},
			{name: "E1 basic and another client_id", authorization: []string{basic("shop", secret)}, form: url.Values{"client_id": {"other"}}, status: 400, code: "invalid_request"},
			{name: "E2 post by a client registered for basic", form: url.Values{"client_id": {"shop"}, "client_secret": {secret}}, status: 401, code: "invalid_client"},
			{name: "E2 basic by a client registered for post", authorization: []string{basic("post", posted)}, status: 401, code: "invalid_client"},
			{name: "E2 no credentials for a client that has some", form: url.Values{"client_id": {"shop"}}, status: 401, code: "invalid_client"},
			{name: "E2 a secret for a public client", authorization: []string{basic("app", "x")}, status: 401, code: "invalid_client"},
			{name: "RFC 6749 §4.4 a public client acts for itself", form: url.Values{"client_id": {"app"}}, status: 400, code: "unauthorized_client"},
			{name: "E3 an unsigned assertion, alone", form: url.Values{"client_id": {"shop"}, "client_assertion": {unsigned("shop")}, "client_assertion_type": {assertionType}}, status: 401, code: "invalid_client"},
			{name: "E3 an unsigned assertion beside a secret in the body",
				form:   url.Values{"client_id": {"post"}, "client_secret": {posted}, "client_assertion": {unsigned("post")}, "client_assertion_type": {assertionType}},
				status: 401, code: "invalid_client"},
			{name: "an unknown assertion type", form: url.Values{"client_assertion": {"x"}, "client_assertion_type": {"x"}}, status: 400, code: "invalid_request"},

			{name: "nothing at all", status: 401, code: "invalid_client"},
			{name: "wrong secret", authorization: []string{basic("shop", secret+"x")}, status: 401, code: "invalid_client"},
			{name: "half a secret", authorization: []string{basic("shop", secret[:len(secret)/2])}, status: 401, code: "invalid_client"},
			{name: "empty secret", authorization: []string{basic("shop", "")}, status: 401, code: "invalid_client"},
			{name: "empty client", authorization: []string{basic("", secret)}, status: 401, code: "invalid_client"},
			{name: "the secret of another client", authorization: []string{basic("shop", other)}, status: 401, code: "invalid_client"},
			{name: "client_id in capitals", authorization: []string{basic("SHOP", secret)}, status: 401, code: "invalid_client"},
			{name: "a secret without client_id", form: url.Values{"client_secret": {posted}}, status: 401, code: "invalid_client"},
			{name: "Basic without base64", authorization: []string{"Basic shop:" + secret}, status: 401, code: "invalid_client"},
			{name: "Basic without a colon", authorization: []string{raw("shop" + secret)}, status: 401, code: "invalid_client"},
			{name: "Basic with a bad escape", authorization: []string{raw("shop%zz:" + secret)}, status: 401, code: "invalid_client"},
			{name: "Basic with NUL", authorization: []string{raw("shop%00:" + secret)}, status: 401, code: "invalid_client"},
			{name: "Basic with invalid UTF-8", authorization: []string{raw("shop\xff:" + secret)}, status: 401, code: "invalid_client"},
			{name: "Basic alone", authorization: []string{"Basic"}, status: 401, code: "invalid_client"},
			{name: "Bearer (CVE-2026-9803)", authorization: []string{"Bearer " + secret}, status: 401, code: "invalid_client"},
			{name: "a huge client_id", form: url.Values{"client_id": {strings.Repeat("x", 60_000)}, "client_secret": {"x"}}, status: 401, code: "invalid_client"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				form := clientCredentials()
				for name, v := range tc.form {
					form[name] = v
				}
				var header []string
				for _, v := range tc.authorization {
					header = append(header, "Authorization", v)
				}
				a := s.form("/token", "", "", form, header...)
				if tc.status == 200 {
					if a.status != 200 {
						t.Fatalf("%d %s", a.status, a.body)
					}
					return
				}
				a.isRefusal(t, tc.status, tc.code)
			})
		}
		t.Run("E13 a public client at introspection", func(t *testing.T) {
			s.form("/introspect", "", "", url.Values{"client_id": {"app"}, "token": {"x"}}).isRefusal(t, 401, "invalid_client")
		})
		t.Run("E13 nobody at introspection", func(t *testing.T) {
			s.form("/introspect", "", "", url.Values{"token": {"x"}}).isRefusal(t, 401, "invalid_client")
		})
		t.Run("nobody at revocation", func(t *testing.T) {
			s.form("/revoke", "", "", url.Values{"token": {"x"}}).isRefusal(t, 401, "invalid_client")
		})
	})
}

// Whoever guesses learns nothing from an answer: a client that does not
// exist, a wrong secret and a disabled client are refused alike.
func TestUnknownClientLooksLikeWrongSecret(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.register("shop")
		retired := s.client("retired")
		if _, err := s.admin.DisableClient(t.Context(), "retired"); err != nil {
			t.Fatal(err)
		}
		s.settle()
		look := func(a answer) string {
			a.header.Del("X-Request-Id")
			a.header.Del("Date")
			var b strings.Builder
			_ = a.header.Write(&b)
			return b.String() + a.body
		}
		for _, path := range protocolPaths() {
			form := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
			wrong := s.form(path, "shop", "sgs_wrong", form)
			wrong.isRefusal(t, 401, "invalid_client")
			want := look(wrong)
			for name, a := range map[string]answer{
				"E11 unknown client":                   s.form(path, "nobody", "sgs_wrong", form),
				"E11 disabled client, right secret":    s.form(path, "retired", retired, form),
				"E11 disabled client, wrong secret":    s.form(path, "retired", "sgs_wrong", form),
				"E11 unknown client, no secret":        s.form(path, "", "", url.Values{"grant_type": {"client_credentials"}, "token": {"x"}, "client_id": {"nobody"}}),
				"E11 confidential client, no secret":   s.form(path, "", "", url.Values{"grant_type": {"client_credentials"}, "token": {"x"}, "client_id": {"shop"}}),
				"E11 unknown client, by an assertion":  s.form(path, "", "", url.Values{"grant_type": {"client_credentials"}, "token": {"x"}, "client_assertion_type": {assertionType}, "client_assertion": {newSigner(t, "ES256").assertion(t, claimsFor(s, "nobody"))}}),
				"E11 secret client, by an assertion":   s.form(path, "", "", url.Values{"grant_type": {"client_credentials"}, "token": {"x"}, "client_assertion_type": {assertionType}, "client_assertion": {newSigner(t, "ES256").assertion(t, claimsFor(s, "shop"))}}),
				"E11 unknown client, unsigned request": s.form(path, "", "", url.Values{"grant_type": {"client_credentials"}, "token": {"x"}, "client_assertion_type": {assertionType}, "client_assertion": {unsigned("nobody")}}),
			} {
				if got := look(a); a.status != wrong.status || got != want {
					t.Errorf("%s, %s: %d\n%s\nwant %d\n%s", path, name, a.status, got, wrong.status, want)
				}
			}
		}
	})
}

// BenchmarkWrongSecret and BenchmarkUnknownClient cost the same: compare them
// with benchstat (E11).
func BenchmarkWrongSecret(b *testing.B)   { benchmarkRefusal(b, "shop") }
func BenchmarkUnknownClient(b *testing.B) { benchmarkRefusal(b, "nobody") }

func benchmarkRefusal(b *testing.B, id string) {
	s := newSite(b, openStore(b, migrations.SQLite), options{quiet: true, proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	s.register("shop")
	body := clientCredentials().Encode()
	for i := range b.N {
		req := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body)) // from 192.0.2.1
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Authorization", basic(id, "sgs_wrong"))
		// An address each, so that the throttle has no part in it.
		req.Header.Set("X-Forwarded-For", address(i))
		w := httptest.NewRecorder()
		s.public.ServeHTTP(w, req)
		if w.Code != http.StatusUnauthorized {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

func TestSecretRotation(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		first := s.register("shop")
		status := func(secret string) int { return s.form("/token", "shop", secret, clientCredentials()).status }
		second, _, err := s.admin.RotateClientSecret(t.Context(), "shop", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		if a, b := status(first), status(second); a != 200 || b != 200 {
			t.Fatalf("E12 during the overlap: old %d, new %d", a, b)
		}
		third, _, err := s.admin.RotateClientSecret(t.Context(), "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		if a, b, c := status(first), status(second), status(third); a != 401 || b != 401 || c != 200 {
			t.Fatalf("E12 without an overlap: oldest %d, old %d, new %d", a, b, c)
		}
		for _, secret := range []string{first, second, third} {
			random, ok := strings.CutPrefix(secret, "sgs_")
			raw, err := base64.RawURLEncoding.DecodeString(random)
			if !ok || err != nil || len(raw) < 32 {
				t.Errorf("E12 a secret of %d bytes: %v", len(raw), err)
			}
		}
	})
}

// An old secret ends when its overlap does, without anybody's doing.
func TestOverlapEnds(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		first := s.register("shop")
		if _, _, err := s.admin.RotateClientSecret(t.Context(), "shop", time.Hour); err != nil {
			t.Fatal(err)
		}
		s.settle()
		if a := s.form("/introspect", "shop", first, url.Values{"token": {"x"}}); a.status != 200 {
			t.Fatalf("during the overlap: %d", a.status)
		}
		s.clock.set(time.Hour + time.Second)
		s.form("/introspect", "shop", first, url.Values{"token": {"x"}}).isRefusal(t, 401, "invalid_client")
	})
}

// A disabled client's tokens are refused and it gets none; enabled again, it
// works within seconds, while what it had before stays dead.
func TestDisabledClient(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		api := s.client("api")
		if _, err := s.admin.UpdateResource(t.Context(), ordersURI, func(r *storage.Resource) { r.Introspectors = []string{"api"} }); err != nil {
			t.Fatal(err)
		}
		s.settle()
		active := func(token string) bool {
			return s.form("/introspect", "api", api, url.Values{"token": {token}}).json["active"] == true
		}
		old := s.token("shop", secret, "orders:read")
		if !active(old) {
			t.Fatal("a fresh token is not active")
		}
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"disabled", func() error { _, err := s.admin.DisableClient(t.Context(), "shop"); return err }},
			{"deleted", func() error { return s.admin.DeleteClient(t.Context(), "shop") }},
		} {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			if active(old) {
				t.Errorf("I2 token of a %s client is active", step.name)
			}
			s.settle()
			s.form("/token", "shop", secret, clientCredentials()).isRefusal(t, 401, "invalid_client")
			s.form("/introspect", "shop", secret, url.Values{"token": {old}}).isRefusal(t, 401, "invalid_client")
			s.form("/revoke", "shop", secret, url.Values{"token": {old}}).isRefusal(t, 401, "invalid_client")
			if step.name == "deleted" {
				break
			}
			if _, err := s.admin.EnableClient(t.Context(), "shop"); err != nil {
				t.Fatal(err)
			}
			s.settle()
			fresh := s.token("shop", secret, "orders:read")
			if !active(fresh) {
				t.Error("the first token after enabling is not active")
			}
			if active(old) {
				t.Error("I2 enabling the client brought its old token back")
			}
		}
	})
}

// E10: guesses at one client from one address stop reaching the secret, while
// the right secret works from elsewhere.
func TestGuessingIsThrottled(t *testing.T) {
	onBoth(t, options{proxies: trusted()}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		from := func(address, secret string) answer {
			return s.form("/token", "shop", secret, clientCredentials(), "X-Forwarded-For", address)
		}
		refused := 0
		for range 60 {
			a := from("192.0.2.1", "sgs_wrong")
			if a.status == http.StatusTooManyRequests {
				a.isRefusal(t, 429, "invalid_client")
				if a.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				break
			}
			a.isRefusal(t, 401, "invalid_client")
			refused++
		}
		if refused > 30 {
			t.Fatalf("E10 %d guesses got an answer", refused)
		}
		if a := from("192.0.2.1", secret); a.status != 429 {
			t.Errorf("E10 a lucky guess is answered %d: guessing goes on", a.status)
		}
		if a := from("198.51.100.7", secret); a.status != 200 {
			t.Errorf("E10 the rightful client elsewhere: %d %s", a.status, a.body)
		}
		// Only what the trusted proxy wrote counts: the last hop.
		if a := from("198.51.100.9, 192.0.2.1", secret); a.status != 429 {
			t.Errorf("L18 a forged first hop escapes the throttle: %d", a.status)
		}
	})
}

// L18: without a trusted proxy X-Forwarded-For is anybody's word.
func TestForwardedForIsNotBelieved(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.register("shop")
		for i := range 60 {
			a := s.form("/token", "shop", "sgs_wrong", clientCredentials(), "X-Forwarded-For", address(i))
			if a.status == http.StatusTooManyRequests {
				return
			}
		}
		t.Error("another X-Forwarded-For each time, and never throttled")
	})
}

// F22, T5: 64 at once get 64 tokens, each with an id of its own.
func TestParallelTokenRequests(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		const n = 64
		tokens := make([]string, n)
		var wg sync.WaitGroup
		for i := range tokens {
			wg.Go(func() {
				if a := s.form("/token", "shop", secret, clientCredentials()); a.status == 200 {
					tokens[i] = a.member("access_token")
				}
			})
		}
		wg.Wait()
		ids := make(map[any]bool)
		for i, token := range tokens {
			if token == "" {
				t.Fatalf("request %d got no token", i)
			}
			_, claims := decode(t, token)
			ids[claims["jti"]] = true
		}
		if len(ids) != n {
			t.Errorf("%d tokens have %d ids", n, len(ids))
		}
		if a := s.get("/livez"); a.status != 200 {
			t.Errorf("F22 livez says %d", a.status)
		}
	})
}
