package web_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage"
)

// inactive is all that anybody else learns of a token (RFC 7662 §2.2).
const inactive = `{"active":false}`

func (s *site) introspect(id, secret, token string) answer {
	s.t.Helper()
	return s.form("/introspect", id, secret, url.Values{"token": {token}})
}

func TestIntrospection(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop", func(c *storage.Client) { c.Roles = []string{"orders-admin"} })
		api, foreign := s.client("api"), s.client("foreign")
		if _, err := s.admin.UpdateResource(t.Context(), ordersURI, func(r *storage.Resource) { r.Introspectors = []string{"api"} }); err != nil {
			t.Fatal(err)
		}
		stock := s.admin.DefaultResource()
		stock.URI, stock.Name, stock.Scopes = "https://stock.example", "Stock", []storage.Scope{{Name: "stock:read"}}
		if _, err := s.admin.CreateResource(t.Context(), stock); err != nil {
			t.Fatal(err)
		}
		clerk := s.client("clerk", func(c *storage.Client) { c.Scopes = []string{"stock:read"} })
		s.settle()
		token := s.token("shop", secret, "orders:read orders:report")

		t.Run("the owner and the introspector see the claims", func(t *testing.T) {
			_, claims := decode(t, token)
			for id, secret := range map[string]string{"shop": secret, "api": api} {
				a := s.introspect(id, secret, token)
				if a.status != 200 || a.json["active"] != true || a.member("token_type") != "Bearer" {
					t.Fatalf("%s: %d %s", id, a.status, a.body)
				}
				if got := names(a.json); got != "active aud client_id exp iat iss jti roles scope sub token_type" {
					t.Errorf("members %q", got)
				}
				for _, name := range []string{"iss", "sub", "aud", "client_id", "jti", "scope"} {
					if a.json[name] != claims[name] {
						t.Errorf("%s = %v, in the token %v", name, a.json[name], claims[name])
					}
				}
				if a.header.Get("Cache-Control") != "no-store" {
					t.Error("the answer may be kept")
				}
			}
		})
		for _, tc := range []struct{ name, id, secret, token string }{
			{"I1 F6 a client that is neither owner nor introspector", "foreign", foreign, token},
			{"I1 the introspector of another resource", "api", api, s.token("clerk", clerk, "stock:read")},
			{"I1 garbage", "shop", secret, "x"},
			{"I1 a huge one", "shop", secret, strings.Repeat("x", 60_000)},
			{"I1 dots", "shop", secret, strings.Repeat(".", 60_000)},
		} {
			t.Run(tc.name, func(t *testing.T) {
				if a := s.introspect(tc.id, tc.secret, tc.token); a.status != 200 || a.body != inactive {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		t.Run("F6 an access token is no credential here", func(t *testing.T) {
			a := s.form("/introspect", "", "", url.Values{"token": {token}}, "Authorization", "Bearer "+token)
			a.isRefusal(t, 401, "invalid_client")
		})
		t.Run("I1 by every token_type_hint", func(t *testing.T) {
			for _, hint := range []string{"access_token", "refresh_token", "id_token"} {
				a := s.form("/introspect", "shop", secret, url.Values{"token": {token}, "token_type_hint": {hint}})
				if a.json["active"] != true { // RFC 7662 §2.1: a hint only helps to find it
					t.Errorf("hint %s: %s", hint, a.body)
				}
				a = s.form("/introspect", "foreign", foreign, url.Values{"token": {token}, "token_type_hint": {hint}})
				if a.body != inactive {
					t.Errorf("hint %s by a foreign client: %s", hint, a.body)
				}
			}
		})
	})
}

// What was not issued here as an access token is inactive, whoever signed it.
func TestIntrospectionRefusesForgeries(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		token := s.token("shop", secret, "orders:read")
		header, claims := decode(t, token)
		kid := header["kid"].(string)
		now := time.Now()

		// A second issuer over the same keys: only iss tells them apart.
		twin := newSite(t, s.store, options{beside: s, foreign: true})
		if a := twin.introspect("shop", secret, token); a.body != inactive {
			t.Errorf("another issuer takes the token: %s", a.body)
		}
		sign := func(typ string, change map[string]any) string {
			c := maps.Clone(claims)
			maps.Copy(c, change)
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := s.ring.Sign("ES256", typ, b, now)
			if err != nil {
				t.Fatal(err)
			}
			return signed
		}
		if a := s.introspect("shop", secret, sign("at+jwt", nil)); a.json["active"] != true {
			t.Fatalf("the test's own signature is refused: %s", a.body)
		}
		enc := base64.RawURLEncoding.EncodeToString
		payload, _ := json.Marshal(claims)
		part := strings.Split(token, ".")
		stranger := newSigner(t, jose.ES256)
		stranger.kid = kid
		for name, forged := range map[string]string{
			"F7 an ID token":                sign("JWT", map[string]any{"aud": "shop", "nonce": "n"}),
			"F7 typ in another case":        sign("AT+JWT", nil),
			"F7 a logout token":             sign("logout+jwt", nil),
			"F7 no typ":                     sign("", nil),
			"another issuer":                sign("at+jwt", map[string]any{"iss": "https://evil.example"}),
			"no issuer":                     sign("at+jwt", map[string]any{"iss": nil}),
			"the issuer with a slash":       sign("at+jwt", map[string]any{"iss": s.issuer + "/"}),
			"I2 expired":                    sign("at+jwt", map[string]any{"exp": now.Unix() - 1}),
			"I2 expires now":                sign("at+jwt", map[string]any{"exp": now.Unix()}),
			"no exp":                        sign("at+jwt", map[string]any{"exp": nil}),
			"exp as text":                   sign("at+jwt", map[string]any{"exp": "9999999999"}),
			"another client's":              sign("at+jwt", map[string]any{"client_id": "other"}),
			"V1 alg none":                   enc([]byte(`{"alg":"none","typ":"at+jwt","kid":"`+kid+`"}`)) + "." + part[1] + ".",
			"V1 alg none, signed":           enc([]byte(`{"alg":"none","typ":"at+jwt","kid":"`+kid+`"}`)) + "." + part[1] + "." + part[2],
			"V2 HS256 with the public key":  hs256(`{"alg":"HS256","typ":"at+jwt","kid":"`+kid+`"}`, string(payload), s.get("/jwks").body),
			"V3 the alg of another key":     enc([]byte(`{"alg":"RS256","typ":"at+jwt","kid":"`+kid+`"}`)) + "." + part[1] + "." + part[2],
			"V4 signed by a key of its own": stranger.sign(t, claims, (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", kid)),
			"V4 brings its key along":       stranger.sign(t, claims, (&jose.SignerOptions{EmbedJWK: true}).WithType("at+jwt")),
			"V5 unknown kid":                enc([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"x"}`)) + "." + part[1] + "." + part[2],
			"V5 no kid":                     enc([]byte(`{"alg":"ES256","typ":"at+jwt"}`)) + "." + part[1] + "." + part[2],
			"V6 crit":                       enc([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"`+kid+`","crit":["x"],"x":1}`)) + "." + part[1] + "." + part[2],
			"V17 no signature":              part[0] + "." + part[1] + ".",
			"V17 zero signature":            part[0] + "." + part[1] + "." + enc(make([]byte, 64)),
			"V19 JWE":                       token + ".x.y",
			"a changed header":              tamper(part[0]) + "." + part[1] + "." + part[2],
			"changed claims":                part[0] + "." + tamper(part[1]) + "." + part[2],
			"a changed signature":           part[0] + "." + part[1] + "." + tamper(part[2]),
			"V16 padding":                   token + "=",
			"V16 a line break":              part[0] + "." + part[1] + ".\n" + part[2],
			"a space before":                " " + token,
			"D13 half of it":                token[:len(token)/2],
			"D13 all but the last":          token[:len(token)-1],
			"the token twice":               token + token,
		} {
			t.Run(name, func(t *testing.T) {
				if a := s.introspect("shop", secret, forged); a.status != 200 || a.body != inactive {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
	})
}

// tamper changes the middle of a segment.
func tamper(segment string) string {
	b := []byte(segment)
	if i := len(b) / 2; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// I2: a token ends with its time.
func TestIntrospectionOfExpiredToken(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		token := s.token("shop", secret, "orders:read")
		s.clock.set(9 * time.Minute)
		if a := s.introspect("shop", secret, token); a.json["active"] != true {
			t.Fatalf("after nine of ten minutes: %s", a.body)
		}
		s.clock.set(10*time.Minute + time.Second)
		if a := s.introspect("shop", secret, token); a.body != inactive {
			t.Errorf("I2 after its lifetime: %s", a.body)
		}
	})
}

// I3, RFC 7009: only its own client ends a token, the answer never says
// whether it did, and doing it twice leaves one trace.
func TestRevocation(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		foreign := s.client("foreign")
		token := s.token("shop", secret, "orders:read")
		revoke := func(id, secret, token string) answer {
			return s.form("/revoke", id, secret, url.Values{"token": {token}})
		}
		active := func() bool { return s.introspect("shop", secret, token).json["active"] == true }

		mine := revoke("shop", secret, "unknown")
		if mine.status != 200 || mine.body != "" || mine.header.Get("Cache-Control") != "no-store" {
			t.Errorf("I3 an unknown token: %d %s", mine.status, mine.body)
		}
		before := s.db.rows(t)
		if a := revoke("foreign", foreign, token); a.status != 200 || a.body != "" {
			t.Errorf("I3 F17 a foreign token: %d %s", a.status, a.body)
		}
		if !active() {
			t.Fatal("I3 F17 a foreign client ended the token")
		}
		if after := s.db.rows(t); !maps.Equal(before, after) {
			t.Errorf("a foreign revocation wrote: %v, then %v", before, after)
		}
		s.form("/revoke", "shop", secret, url.Values{}).isRefusal(t, 400, "invalid_request")
		for range 3 {
			if a := revoke("shop", secret, token); a.status != 200 || a.body != "" {
				t.Errorf("I3 %d %s", a.status, a.body)
			}
		}
		if active() {
			t.Error("I2 a revoked token is active")
		}
		after := s.db.rows(t)
		if n := after["revocations"] - before["revocations"]; n != 1 {
			t.Errorf("revoking three times appended %d entries", n)
		}
		if n := after["audit_events"] - before["audit_events"]; n != 1 {
			t.Errorf("revoking three times left %d audit events", n)
		}
		replica := newSite(t, s.db.open(t), options{beside: s})
		if a := replica.introspect("shop", secret, token); a.body != inactive {
			t.Errorf("another replica: %s", a.body)
		}
		other := s.token("shop", secret, "orders:read")
		if a := s.introspect("shop", secret, other); a.json["active"] != true {
			t.Error("revoking one token ended another")
		}
		s.clock.set(13 * time.Minute)
		before = s.db.rows(t)
		if a := revoke("shop", secret, other); a.status != 200 {
			t.Errorf("an expired token: %d", a.status)
		}
		if got := s.db.rows(t)["revocations"]; got != before["revocations"] {
			t.Error("an expired token grew the log")
		}
	})
}

// The database is away: 503, never a wrong word about a token, and all is
// well again once it is back.
func TestNothingIsSaidWithoutADatabase(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		token := s.token("shop", secret, "orders:read")
		replica := newSite(t, s.db.open(t), options{beside: s})
		if err := replica.store.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/introspect", "/revoke"} {
			a := replica.form(path, "shop", secret, url.Values{"token": {token}})
			a.isRefusal(t, 503, "temporarily_unavailable")
			if a.header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", path)
			}
		}
		s.clock.set(2 * time.Second) // what the replica remembers is too old now
		replica.form("/token", "shop", secret, clientCredentials()).isRefusal(t, 503, "temporarily_unavailable")
		if a := replica.get("/readyz"); a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("readyz: %d", a.status)
		}
		if a := replica.get("/livez"); a.status != 200 {
			t.Errorf("livez: %d", a.status)
		}
		if a := replica.get("/jwks"); a.status != 200 {
			t.Errorf("jwks: %d", a.status)
		}
		if a := s.introspect("shop", secret, token); a.json["active"] != true {
			t.Errorf("I3 a failed revocation changed the token: %s", a.body)
		}
	})
}

// hs256 signs with what everybody can read.
func hs256(header, claims, secret string) string {
	enc := base64.RawURLEncoding.EncodeToString
	input := enc([]byte(header)) + "." + enc([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(input))
	return input + "." + enc(mac.Sum(nil))
}
