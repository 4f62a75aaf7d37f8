package web_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

func TestClientCredentials(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		a := s.form("/token", "shop", secret, url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		if a.status != 200 || a.member("token_type") != "Bearer" || a.member("scope") != "orders:read" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		// RFC 6749 §4.4.3: no refresh token; §5.1: nothing else either.
		if got, want := names(a.json), "access_token expires_in scope token_type"; got != want {
			t.Errorf("members %q, want %q", got, want)
		}
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("D9 Cache-Control = %q", got)
		}
		if got := a.header.Get("Content-Type"); got != "application/json;charset=UTF-8" {
			t.Errorf("D9 Content-Type = %q", got)
		}
		i := s.form("/introspect", "shop", secret, url.Values{"token": {a.member("access_token")}})
		if i.json["active"] != true || i.member("sub") != "shop" || i.member("aud") != ordersURI {
			t.Fatalf("introspection: %s", i.body)
		}
		if r := s.form("/revoke", "shop", secret, url.Values{"token": {a.member("access_token")}}); r.status != 200 {
			t.Fatalf("revocation: %d %s", r.status, r.body)
		}
		if i := s.form("/introspect", "shop", secret, url.Values{"token": {a.member("access_token")}}); i.body != `{"active":false}` {
			t.Fatalf("introspection after revocation: %s", i.body)
		}
	})
}

// names lists an object's members.
func names(object map[string]any) string {
	return strings.Join(slices.Sorted(maps.Keys(object)), " ")
}

// decode returns a token's header and claims; numbers stay as written.
func decode(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

// jwks fetches the published keys.
func (s *site) jwks() jose.JSONWebKeySet {
	s.t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(s.get("/jwks").body), &set); err != nil {
		s.t.Fatal(err)
	}
	return set
}

// F8, G1, G2, G7, G10: exactly the header and the claims of RFC 9068, in the
// resource's algorithm and for its lifetime, signed by a published key.
func TestAccessToken(t *testing.T) {
	onBoth(t, options{algs: keys.Algorithms()}, func(t *testing.T, s *site) {
		secret := s.register("shop", func(c *storage.Client) { c.Name = "Shop of Ada Lovelace"; c.Roles = []string{"orders-admin"} })
		for i, alg := range keys.Algorithms() {
			r := s.admin.DefaultResource()
			r.URI, r.Name, r.SigningAlg = "https://"+strings.ToLower(alg)+".example", alg, alg
			r.TokenLifetime = time.Duration(5+i) * time.Minute
			r.Scopes = []storage.Scope{{Name: alg + ":use"}}
			if _, err := s.admin.CreateResource(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		other := s.client("shop2", func(c *storage.Client) {
			c.Scopes = nil
			for _, alg := range keys.Algorithms() {
				c.Scopes = append(c.Scopes, alg+":use")
			}
		})
		s.settle()
		published := s.jwks()
		for i, alg := range keys.Algorithms() {
			t.Run(alg, func(t *testing.T) {
				began := time.Now()
				a := s.form("/token", "shop2", other, url.Values{"grant_type": {"client_credentials"}, "scope": {alg + ":use"}})
				if a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
				header, claims := decode(t, a.member("access_token"))
				if got := names(header); got != "alg kid typ" {
					t.Errorf("G1 header %q", got)
				}
				if header["alg"] != alg || header["typ"] != "at+jwt" {
					t.Errorf("G1 F8 header %v", header)
				}
				key := published.Key(header["kid"].(string))
				if len(key) != 1 || key[0].Algorithm != alg {
					t.Fatalf("G1 G8 kid %v is published %d times", header["kid"], len(key))
				}
				jws, err := jose.ParseSignedCompact(a.member("access_token"), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := jws.Verify(key[0]); err != nil {
					t.Errorf("the published key does not verify: %v", err)
				}
				if got := names(claims); got != "aud client_id exp iat iss jti scope sub" {
					t.Errorf("G2 F8 G10 claims %q", got)
				}
				for name, want := range map[string]any{
					"iss": s.issuer, "sub": "shop2", "client_id": "shop2", "aud": "https://" + strings.ToLower(alg) + ".example", "scope": alg + ":use",
				} {
					if claims[name] != want {
						t.Errorf("G2 %s = %v, want %v", name, claims[name], want)
					}
				}
				iat, err1 := claims["iat"].(json.Number).Int64()
				exp, err2 := claims["exp"].(json.Number).Int64()
				if err1 != nil || err2 != nil {
					t.Fatalf("G7 iat %v, exp %v are not integers", claims["iat"], claims["exp"])
				}
				lifetime := int64(60 * (5 + i))
				if d := exp - iat; d < lifetime || d > lifetime+2 { // iat is the oldest read, up to a second ago
					t.Errorf("G7 lifetime %d s, want %d", exp-iat, lifetime)
				}
				if age := began.Unix() - iat; age < -1 || age > 3 {
					t.Errorf("G7 iat is %d s off", age)
				}
				if in := a.json["expires_in"].(float64); in > float64(lifetime) || in < float64(lifetime)-3 || in != math.Trunc(in) {
					t.Errorf("expires_in = %v, want %d or a little less", in, lifetime)
				}
				if strings.Contains(a.member("access_token"), "Ada") || claims["name"] != nil {
					t.Error("G10 the token tells a name")
				}
			})
		}
		t.Run("roles for a resource that asks", func(t *testing.T) {
			_, claims := decode(t, s.token("shop", secret, "orders:report"))
			if got := names(claims); got != "aud client_id exp iat iss jti roles scope sub" {
				t.Errorf("claims %q", got)
			}
			if roles, _ := claims["roles"].([]any); len(roles) != 1 || roles[0] != "orders-admin" {
				t.Errorf("roles = %v", claims["roles"])
			}
		})
		t.Run("two audiences come as an array", func(t *testing.T) {
			s.client("both", func(c *storage.Client) { c.Scopes = []string{"orders:read", "ES256:use"} })
			both, _, err := s.admin.RotateClientSecret(t.Context(), "both", 0)
			if err != nil {
				t.Fatal(err)
			}
			a := s.form("/token", "both", both, url.Values{"grant_type": {"client_credentials"}, "resource": {ordersURI, "https://es256.example"}})
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			_, claims := decode(t, a.member("access_token"))
			if aud, _ := claims["aud"].([]any); len(aud) != 2 {
				t.Errorf("aud = %v", claims["aud"])
			}
		})
	})
}

// The rules of audience, scope and role, as far as a client sees them.
// TestDecide in the package provider has all of them.
func TestAudienceScopeRole(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop", func(c *storage.Client) {
			c.GrantTypes, c.RedirectURIs = append(c.GrantTypes, "authorization_code"), []string{"https://shop.example/cb"}
			c.Scopes = append(c.Scopes, "openid")
		})
		stock := s.admin.DefaultResource()
		stock.URI, stock.Name, stock.Scopes = "https://stock.example", "Stock", []storage.Scope{{Name: "stock:read"}}
		if _, err := s.admin.CreateResource(t.Context(), stock); err != nil {
			t.Fatal(err)
		}
		wide := s.client("wide", func(c *storage.Client) { c.Scopes = []string{"orders:read", "stock:read"} })
		code := s.client("site", func(c *storage.Client) {
			c.GrantTypes, c.RedirectURIs = []string{"authorization_code"}, []string{"https://site.example/cb"}
		})
		s.settle()
		for _, tc := range []struct {
			name, id, secret string
			form             url.Values
			scope, aud       string // of a token
			code             string // of a refusal
		}{
			{name: "G4 the scope's resource is the audience", id: "shop", secret: secret, form: url.Values{"scope": {"orders:read"}}, scope: "orders:read", aud: ordersURI},
			{name: "nothing asked", id: "shop", secret: secret, scope: "orders:read orders:write", aud: ordersURI},
			{name: "a scope without its role is dropped, and the answer says so", id: "shop", secret: secret, form: url.Values{"scope": {"orders:read orders:report"}}, scope: "orders:read", aud: ordersURI},
			{name: "only a scope without its role", id: "shop", secret: secret, form: url.Values{"scope": {"orders:report"}}, code: "invalid_scope"},
			{name: "G4 scopes of two resources", id: "wide", secret: wide, form: url.Values{"scope": {"orders:read stock:read"}}, code: "invalid_scope"},
			{name: "G4 one of two resources named", id: "wide", secret: wide, form: url.Values{"scope": {"orders:read stock:read"}, "resource": {"https://stock.example"}}, scope: "stock:read", aud: "https://stock.example"},
			{name: "A24 the resource with the slash of an empty path", id: "shop", secret: secret, form: url.Values{"scope": {"orders:read"}, "resource": {ordersURI + "/"}}, scope: "orders:read", aud: ordersURI},
			{name: "A24 an unknown resource", id: "shop", secret: secret, form: url.Values{"resource": {"https://nobody.example"}}, code: "invalid_target"},
			{name: "A24 a relative resource", id: "shop", secret: secret, form: url.Values{"resource": {"/orders"}}, code: "invalid_target"},
			{name: "A24 a resource with a fragment", id: "shop", secret: secret, form: url.Values{"resource": {ordersURI + "#x"}}, code: "invalid_target"},
			{name: "an unknown scope", id: "shop", secret: secret, form: url.Values{"scope": {"orders:fly"}}, code: "invalid_scope"},
			{name: "the scope of another client", id: "shop", secret: secret, form: url.Values{"scope": {"stock:read"}}, code: "invalid_scope"},
			{name: "a person's scope", id: "shop", secret: secret, form: url.Values{"scope": {"openid"}}, code: "invalid_scope"},
			{name: "D7 password", id: "shop", secret: secret, form: url.Values{"grant_type": {"password"}, "username": {"a"}, "password": {"b"}}, code: "unsupported_grant_type"},
			{name: "D7 implicit", id: "shop", secret: secret, form: url.Values{"grant_type": {"implicit"}}, code: "unsupported_grant_type"},
			{name: "D7 two grants in one", id: "shop", secret: secret, form: url.Values{"grant_type": {"client_credentials password"}}, code: "unsupported_grant_type"},
			{name: "D7 another case", id: "shop", secret: secret, form: url.Values{"grant_type": {"Client_Credentials"}}, code: "unsupported_grant_type"},
			{name: "D7 none", id: "shop", secret: secret, form: url.Values{"grant_type": {""}}, code: "invalid_request"},
			{name: "D8 a grant the client is not registered for", id: "site", secret: code, code: "unauthorized_client"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				form := clientCredentials()
				maps.Copy(form, tc.form)
				a := s.form("/token", tc.id, tc.secret, form)
				if tc.code != "" {
					a.isRefusal(t, 400, tc.code)
					return
				}
				if a.status != 200 || a.member("scope") != tc.scope {
					t.Fatalf("%d %s", a.status, a.body)
				}
				_, claims := decode(t, a.member("access_token"))
				if claims["aud"] != tc.aud || claims["scope"] != tc.scope {
					t.Errorf("aud %v, scope %v", claims["aud"], claims["scope"])
				}
			})
		}
		t.Run("D12 no client can be taken for a person", func(t *testing.T) {
			token := s.token("shop", secret, "orders:read")
			if _, claims := decode(t, token); claims["sub"] != "shop" || claims["client_id"] != "shop" {
				t.Errorf("sub %v, client_id %v", claims["sub"], claims["client_id"])
			}
			for _, id := range []string{"0190a3c6-5b2e-7c3d-8e4f-000000000001", "0190A3C6-5B2E-7C3D-8E4F-000000000001"} {
				c := provider.DefaultClient()
				c.ID, c.Name, c.GrantTypes = id, "Person", []string{"client_credentials"}
				if _, _, err := s.admin.CreateClient(t.Context(), c); err == nil {
					t.Errorf("a client was registered as %s", id)
				}
			}
		})
	})
}

// G8: the published keys are public, each for one algorithm, named by its
// RFC 7638 thumbprint.
func TestJWKS(t *testing.T) {
	onBoth(t, options{algs: keys.Algorithms()}, func(t *testing.T, s *site) {
		a := s.get("/jwks")
		var document struct{ Keys []map[string]any }
		if err := json.Unmarshal([]byte(a.body), &document); err != nil {
			t.Fatal(err)
		}
		members := map[string]string{"RSA": "alg e kid kty n use", "EC": "alg crv kid kty use x y", "OKP": "alg crv kid kty use x"}
		base64url := regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
		seen := make(map[any]int)
		for _, k := range document.Keys {
			if got := names(k); got != members[k["kty"].(string)] {
				t.Errorf("G8 a key of type %v has members %q", k["kty"], got)
			}
			if k["use"] != "sig" {
				t.Errorf("G8 use = %v", k["use"])
			}
			for _, name := range []string{"n", "e", "x", "y"} {
				if v, ok := k[name].(string); ok && !base64url.MatchString(v) {
					t.Errorf("G8 %s is not base64url", name)
				}
			}
			seen[k["alg"]]++
		}
		for _, alg := range keys.Algorithms() {
			want := 2 // the active one and the next
			if alg == keys.ES256 {
				want += 2 // those of the revocation feed
			}
			if seen[alg] != want {
				t.Errorf("%d keys for %s, want %d", seen[alg], alg, want)
			}
		}
		ids := make(map[string]bool)
		for _, k := range s.jwks().Keys {
			sum, err := k.Thumbprint(crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if k.KeyID != base64.RawURLEncoding.EncodeToString(sum) {
				t.Errorf("G8 kid %s is not the thumbprint", k.KeyID)
			}
			if ids[k.KeyID] {
				t.Errorf("G8 kid %s twice", k.KeyID)
			}
			ids[k.KeyID] = true
		}
	})
}
