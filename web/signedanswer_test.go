package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// opened checks that the issuer signed the token, by the algorithm, as the
// type, for the client, and returns its claims.
func (s *site) opened(token, alg, typ, client string) map[string]any {
	s.t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		s.t.Fatalf("%v: %s", err, token)
	}
	set := s.jwks()
	key := set.Key(jws.Signatures[0].Protected.KeyID)
	if len(key) != 1 {
		s.t.Fatalf("no key for %s", token)
	}
	if _, err := jws.Verify(key[0]); err != nil {
		s.t.Fatal(err)
	}
	header, claims := decode(s.t, token)
	if header["typ"] != typ || claims["iss"] != s.issuer || claims["aud"] != client {
		s.t.Errorf("%v %v, want the type %s for %s", header, claims, typ, client)
	}
	return claims
}

// alters changes what shop registered beyond its columns.
func (s *site) alters(alter func(*provider.ClientExtra)) {
	s.t.Helper()
	_, err := s.admin.UpdateClient(s.t.Context(), "shop", func(c *storage.Client) {
		extra := provider.ReadClientExtra(*c)
		alter(&extra)
		extra.Write(c)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

// OIDC Core §5.3.2: who registered an algorithm gets what userinfo says signed.
func TestSignedUserInfo(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.alters(func(e *provider.ClientExtra) { e.UserInfoAlg = keys.EdDSA })
		token := s.redeem(secret, s.browser().consents(ada, password, "openid profile"))
		a := s.get("/userinfo", "Authorization", "Bearer "+token.member("access_token"))
		if a.status != 200 || a.header.Get("Content-Type") != "application/jwt" || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
		claims := s.opened(a.body, keys.EdDSA, "userinfo+jwt", "shop")
		if claims["name"] != "Ada Lovelace" || claims["sub"] == "" || claims["exp"] != nil || claims["email"] != nil {
			t.Errorf("%v", claims)
		}
		// It passes for nothing else.
		for _, path := range []string{"/userinfo"} {
			if a := s.get(path, "Authorization", "Bearer "+a.body); a.status != http.StatusUnauthorized {
				t.Errorf("%s takes it for an access token: %d", path, a.status)
			}
		}
		if got := s.browser().open(authorize("id_token_hint", a.body)).answered(callback); got.Get("error") != "invalid_request" {
			t.Errorf("it is taken for an ID token: %v", got)
		}
	})
}

// RFC 9701: who asks for it gets the introspection answer signed, and learns no
// more by it.
func TestSignedIntrospection(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		other := s.client("other")
		s.alters(func(e *provider.ClientExtra) { e.IntrospectionAlg = keys.ES256 })
		const mediaType = "application/token-introspection+jwt"
		token := s.redeem(secret, s.browser().consents(ada, password, "openid profile")).member("access_token")
		ask := func(id, secret, token string, header ...string) answer {
			return s.form("/introspect", id, secret, url.Values{"token": {token}}, header...)
		}
		if a := ask("shop", secret, token); a.json["active"] != true {
			t.Fatalf("unsigned: %d %s", a.status, a.body)
		}
		a := ask("shop", secret, token, "Accept", mediaType)
		if a.header.Get("Content-Type") != mediaType {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
		claims := s.opened(a.body, keys.ES256, "token-introspection+jwt", "shop")
		inner, _ := claims["token_introspection"].(map[string]any)
		if inner["active"] != true || inner["client_id"] != "shop" || claims["iat"] == nil || claims["sub"] != nil || claims["exp"] != nil {
			t.Errorf("%v", claims)
		}
		_, err := s.admin.UpdateClient(t.Context(), "other", func(c *storage.Client) { provider.ClientExtra{IntrospectionAlg: keys.ES256}.Write(c) })
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		for name, token := range map[string]string{"another client's": token, "none": "x.y.z", "an answer itself": a.body} {
			claims := s.opened(ask("other", other, token, "Accept", "text/html, "+mediaType+";q=0.5").body, keys.ES256, "token-introspection+jwt", "other")
			if inner, _ := claims["token_introspection"].(map[string]any); len(inner) != 1 || inner["active"] != false {
				t.Errorf("%s: %v", name, claims)
			}
		}
		for _, accept := range []string{"*/*", "application/json", mediaType + ";q=0", mediaType + "x", ";"} {
			if a := ask("shop", secret, token, "Accept", accept); a.json["active"] != true {
				t.Errorf("Accept: %s: %s", accept, a.body)
			}
		}
	})
}

// JARM: the answer, a code or an error, comes in one signed response.
func TestSignedAuthorization(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.alters(func(e *provider.ClientExtra) { e.AuthorizationAlg = keys.ES256 })
		b := s.browser().open("/login").signIn(ada, password)
		b.open(authorize()).press("allow").answered(callback)
		for _, mode := range []string{"jwt", "query.jwt", "form_post.jwt"} {
			for _, parameters := range [][]string{{"response_mode", mode}, {"response_mode", mode, "scope", "openid everything"}} {
				b := b.another().open(authorize(parameters...))
				var got url.Values
				if strings.HasPrefix(mode, "form") {
					_, got = b.form("submit")
				} else {
					got = b.answered(callback)
				}
				if len(got) != 1 {
					t.Fatalf("%s: the app gets %v", mode, got)
				}
				claims := s.opened(got.Get("response"), keys.ES256, "oauth-authz-resp+jwt", "shop")
				if claims["state"] != "st" || claims["exp"] == nil {
					t.Errorf("%s: %v", mode, claims)
				}
				if len(parameters) > 2 {
					if claims["error"] != "invalid_scope" || claims["code"] != nil {
						t.Errorf("%s: %v", mode, claims)
					}
					continue
				}
				code, _ := claims["code"].(string)
				if a := s.redeem(secret, code); a.status != 200 {
					t.Errorf("%s: %d %s", mode, a.status, a.body)
				}
			}
		}
		if got := b.another().open(authorize("response_mode", "fragment.jwt")).answered(callback); got.Get("error") != "invalid_request" {
			t.Errorf("fragment.jwt: %v", got)
		}
	})
}
