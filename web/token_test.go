package web_test

import (
	"net/http"
	"net/url"
	"testing"
)

func TestClientCredentials(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		a := s.form("/token", "shop", secret, url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		if a.status != http.StatusOK || a.member("token_type") != "Bearer" || a.member("scope") != "orders:read" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if _, ok := a.json["refresh_token"]; ok {
			t.Error("client credentials came with a refresh token (RFC 6749 §4.4.3)")
		}
		i := s.form("/introspect", "shop", secret, url.Values{"token": {a.member("access_token")}})
		if i.json["active"] != true || i.member("sub") != "shop" || i.member("aud") != ordersURI {
			t.Fatalf("introspection: %s", i.body)
		}
		if r := s.form("/revoke", "shop", secret, url.Values{"token": {a.member("access_token")}}); r.status != http.StatusOK {
			t.Fatalf("revocation: %d %s", r.status, r.body)
		}
		if i := s.form("/introspect", "shop", secret, url.Values{"token": {a.member("access_token")}}); i.body != `{"active":false}` {
			t.Fatalf("introspection after revocation: %s", i.body)
		}
	})
}
