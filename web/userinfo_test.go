package web_test

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// grant signs ada in as far as it is needed, lets shop have what the
// parameters ask for, and returns the answer of the token endpoint.
func (s *site) grant(b *browser, secret string, parameters ...string) answer {
	s.t.Helper()
	if b.open(authorize(parameters...)); b.left == nil && b.node("username") != nil {
		b.signIn(ada, password)
	}
	if b.left == nil {
		b.press("allow")
	}
	a := s.redeem(secret, b.answered(callback).Get("code"))
	if a.status != http.StatusOK {
		s.t.Fatalf("%d %s", a.status, a.body)
	}
	return a
}

// I5, R9: userinfo answers an access token that is meant for it, in the header
// or in a form (RFC 6750 §2), with what its scopes release (OIDC Core §5.3, §5.4).
func TestUserInfo(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser()
		tokens := s.grant(b, secret, "scope", "openid profile email offline_access")
		access := tokens.member("access_token")
		service := s.token("machine", s.client("machine"), "orders:read")
		bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }

		for scope, want := range map[string][]string{
			"openid":               {"sub"},
			"openid profile":       {"name", "preferred_username", "sub", "updated_at"},
			"openid email":         {"email", "email_verified", "sub"},
			"openid profile email": {"email", "email_verified", "name", "preferred_username", "sub", "updated_at"},
		} {
			a := s.get("/userinfo", bearer(s.grant(b, secret, "scope", scope).member("access_token"))...)
			if got := slices.Sorted(maps.Keys(a.json)); a.status != http.StatusOK || !slices.Equal(got, want) {
				t.Errorf("%s: %d %s", scope, a.status, a.body)
			}
			if a.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
				t.Errorf("%s: headers %v", scope, a.header)
			}
		}

		form := url.Values{"access_token": {access}}.Encode()
		for name, tc := range map[string]struct {
			method, path, body string
			header             []string
			status             int
			error              string
		}{
			"GET":                          {"GET", "", "", bearer(access), 200, ""},
			"POST":                         {"POST", "", "", bearer(access), 200, ""},
			"POST, in the form":            {"POST", "", form, []string{"Content-Type", formType}, 200, ""},
			"scheme in lower case":         {"GET", "", "", []string{"Authorization", "bearer " + access}, 200, ""},
			"nothing":                      {"GET", "", "", nil, 401, ""},
			"another scheme":               {"GET", "", "", []string{"Authorization", basic("shop", secret)}, 401, ""},
			"in the URL":                   {"GET", "?" + form, "", nil, 400, "invalid_request"},
			"in the URL, too":              {"GET", "?" + form, "", bearer(access), 400, "invalid_request"},
			"in two places":                {"POST", "", form, append(bearer(access), "Content-Type", formType), 400, "invalid_request"},
			"two headers":                  {"GET", "", "", append(bearer(access), bearer(access)...), 400, "invalid_request"},
			"in the form of a GET":         {"GET", "", form, []string{"Content-Type", formType}, 401, ""},
			"in JSON":                      {"POST", "", `{"access_token":"` + access + `"}`, []string{"Content-Type", "application/json"}, 401, ""},
			"PUT":                          {"PUT", "", "", bearer(access), 405, "invalid_request"},
			"an ID token":                  {"GET", "", "", bearer(tokens.member("id_token")), 401, "invalid_token"},
			"a refresh token":              {"GET", "", "", bearer(tokens.member("refresh_token")), 401, "invalid_token"},
			"no token at all":              {"GET", "", "", bearer("x.y.z"), 401, "invalid_token"},
			"an empty one":                 {"GET", "", "", bearer(""), 401, "invalid_token"},
			"cut":                          {"GET", "", "", bearer(access[:len(access)-2]), 401, "invalid_token"},
			"a service's":                  {"GET", "", "", bearer(service), 401, "invalid_token"},
			"meant for an API":             {"GET", "", "", bearer(s.grant(b, secret, "scope", "openid orders:read", "resource", ordersURI).member("access_token")), 401, "invalid_token"},
			"meant for us, without openid": {"GET", "", "", bearer(s.grant(b, secret, "scope", "profile", "resource", s.issuer).member("access_token")), 403, "insufficient_scope"},
		} {
			t.Run(name, func(t *testing.T) {
				a := s.send(tc.method, "/userinfo"+tc.path, tc.body, tc.header...)
				if a.status != tc.status || a.member("error") != tc.error || a.status != 200 && a.json["sub"] != nil {
					t.Fatalf("%d %s, want %d %s", a.status, a.body, tc.status, tc.error)
				}
				// RFC 6750 §3: the refusal is in the header, too, and never repeats the token.
				challenge := a.header.Get("WWW-Authenticate")
				if refused := tc.status != 200 && tc.status != 405; refused != strings.HasPrefix(challenge, `Bearer realm="`+s.issuer+`"`) ||
					strings.Contains(challenge, "error=") != (refused && tc.error != "") || strings.Contains(challenge+a.body, access[:40]) {
					t.Errorf("WWW-Authenticate: %s", challenge)
				}
			})
		}

		s.clock.set(10*time.Minute + time.Second)
		s.settle()
		if a := s.get("/userinfo", bearer(access)...); a.status != http.StatusUnauthorized {
			t.Errorf("expired: %d %s", a.status, a.body)
		}
	})
}
