package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// A10–A15: who and how an app expects somebody to be signed in (OIDC Core
// §3.1.2.1, §5.5.1), from the request to the answer.
func TestExpectations(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		secret := s.people()
		s.client("other", forPeople)
		adas, bobs := s.browser(), s.browser().open(authorize()).signIn(bob, password).press("allow")
		tokens := s.grant(adas, secret)
		sub := make(map[string]string)
		for _, name := range []string{ada, bob} {
			u, err := s.admin.User(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			sub[name] = u.ID
		}
		hint := tokens.member("id_token")
		wants := func(member, claim, value string) string { return `{"` + member + `":{"` + claim + `":` + value + `}}` }
		s.clock.set(20 * time.Minute) // the hint has expired, the sign-in is old
		s.settle()

		for _, tc := range []struct {
			name       string
			b          *browser
			parameters []string
			want       string // "code", an error code, or the page that is shown
		}{
			{"nobody, silently", s.browser(), []string{"prompt", "none"}, "login_required"},
			{"silently", adas, []string{"prompt", "none"}, "code"},
			{"silently, for a new scope", adas, []string{"prompt", "none", "scope", "openid email"}, "consent_required"},
			{"none login", adas, []string{"prompt", "none login"}, "invalid_request"},
			{"none consent", adas, []string{"prompt", "none consent"}, "invalid_request"},
			{"none select_account", adas, []string{"prompt", "none select_account"}, "invalid_request"},
			{"a prompt that is none of them", adas, []string{"prompt", "create"}, "invalid_request"},
			{"login", adas, []string{"prompt", "login"}, "/login"},
			{"consent", adas, []string{"prompt", "consent"}, "/consent"},
			{"select_account", adas, []string{"prompt", "select_account"}, "/select"},
			{"select_account consent", adas, []string{"prompt", "select_account consent"}, "/select"},
			{"login consent select_account", adas, []string{"prompt", "login consent select_account"}, "/login"},

			{"max_age=0", adas, []string{"max_age", "0"}, "/login"},
			{"max_age that is over", adas, []string{"max_age", "1199"}, "/login"},
			{"max_age that is over, silently", adas, []string{"max_age", "1199", "prompt", "none"}, "login_required"},
			{"max_age that is not over", adas, []string{"max_age", "3600"}, "code"},
			{"max_age below 0", adas, []string{"max_age", "-1"}, "invalid_request"},
			{"max_age beyond all numbers", adas, []string{"max_age", "99999999999999999999"}, "invalid_request"},

			{"her hint, expired", adas, []string{"id_token_hint", hint, "prompt", "none"}, "code"},
			{"her hint in his browser, silently", bobs, []string{"id_token_hint", hint, "prompt", "none"}, "login_required"},
			{"her hint in his browser", bobs, []string{"id_token_hint", hint}, "/login"},
			{"her hint in a new browser", s.browser(), []string{"id_token_hint", hint}, "/login"},
			{"a forged hint", adas, []string{"id_token_hint", hint[:len(hint)-6] + "AAAAAA"}, "invalid_request"},
			{"an unsigned hint", adas, []string{"id_token_hint", "eyJhbGciOiJub25lIn0." + strings.Split(hint, ".")[1] + "."}, "invalid_request"},
			{"an access token for a hint", adas, []string{"id_token_hint", tokens.member("access_token")}, "invalid_request"},
			{"the hint of another app", adas, []string{"client_id", "other", "id_token_hint", hint}, "invalid_request"},
			{"no hint at all", adas, []string{"id_token_hint", "ada"}, "invalid_request"},

			{"her sub", adas, []string{"claims", wants("id_token", "sub", `{"value":"`+sub[ada]+`"}`), "prompt", "none"}, "code"},
			{"his sub", adas, []string{"claims", wants("id_token", "sub", `{"value":"`+sub[bob]+`"}`), "prompt", "none"}, "login_required"},
			{"his sub, at userinfo", adas, []string{"claims", wants("userinfo", "sub", `{"value":"`+sub[bob]+`"}`), "prompt", "none"}, "login_required"},
			{"one of two subs", adas, []string{"claims", wants("id_token", "sub", `{"values":["`+sub[bob]+`","`+sub[ada]+`"]}`), "prompt", "none"}, "code"},
			{"none of two subs", adas, []string{"claims", wants("id_token", "sub", `{"values":["`+sub[bob]+`","x"]}`), "prompt", "none"}, "login_required"},
			{"a sub that is a number", adas, []string{"claims", wants("id_token", "sub", `{"value":1}`), "prompt", "none"}, "login_required"},
			{"a sub without a value", adas, []string{"claims", wants("id_token", "sub", `null`), "prompt", "none"}, "code"},
			{"his sub and her hint", adas, []string{"claims", wants("id_token", "sub", `{"value":"`+sub[bob]+`"}`), "id_token_hint", hint}, "invalid_request"},

			{"a class that is out of reach", adas, []string{"acr_values", "urn:example:gold"}, "code"},
			{"a class that would be nice", adas, []string{"claims", wants("id_token", "acr", `{"values":["urn:example:gold"]}`)}, "code"},
			{"an essential class", adas, []string{"claims", wants("id_token", "acr", `{"essential":true,"value":"urn:signet:acr:password"}`)}, "code"},
			{"an essential class out of reach", adas, []string{"claims", wants("id_token", "acr", `{"essential":true,"values":["urn:example:gold"]}`)}, "unmet_authentication_requirements"},
			{"an essential class that is a number", adas, []string{"claims", wants("id_token", "acr", `{"essential":true,"value":2}`)}, "unmet_authentication_requirements"},

			{"claims that are no object", adas, []string{"claims", `"name"`}, "invalid_request"},
			{"claims of the wrong shape", adas, []string{"claims", wants("id_token", "name", `"Ada"`)}, "invalid_request"},
			{"claims nested without end", adas, []string{"claims", strings.Repeat(`{"id_token":`, 300)}, "invalid_request"},
			{"a request object", adas, []string{"request", "eyJhbGciOiJub25lIn0.e30."}, "invalid_request_object"},
			{"a request object elsewhere", adas, []string{"request_uri", s.issuer + "/livez"}, "invalid_request_uri"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := tc.b.another().open(authorize(tc.parameters...))
				if strings.HasPrefix(tc.want, "/") {
					b.isPage(http.StatusOK, tc.want)
					return
				}
				got := b.answered(callback)
				if tc.want == "code" && got.Get("code") == "" || tc.want != "code" && got.Get("error") != tc.want || got.Get("iss") != s.issuer || got.Get("state") != "st" {
					t.Errorf("the app gets %v, want %s", got, tc.want)
				}
			})
		}

		// A12: a fresh sign-in has a new auth_time, and goes on to what else was asked.
		_, before := claimsOf(t, hint)
		b := adas.another().open(authorize("prompt", "login consent")).signIn(ada, password).isPage(200, "/consent")
		_, after := claimsOf(t, s.redeem(secret, b.press("allow").answered(callback).Get("code")).member("id_token"))
		if age := after["auth_time"].(float64) - before["auth_time"].(float64); age < 20*60 || after["sid"] != before["sid"] {
			t.Errorf("auth_time %v, was %v; sid %v, was %v", after["auth_time"], before["auth_time"], after["sid"], before["sid"])
		}
		b = adas.another().open(authorize("max_age", "0")).signIn(ada, "a wrong heron at dawn").isPage(422, "/login")
		b.signIn(ada, password).answered(callback)
		adas.another().open(authorize("prompt", "select_account consent")).press("continue").isPage(200, "/consent")

		// A13: what class it was is said, not what was asked for.
		if _, claims := claimsOf(t, s.grant(adas.another(), secret, "acr_values", "urn:example:gold").member("id_token")); claims["acr"] != "urn:signet:acr:password" {
			t.Errorf("acr %v", claims["acr"])
		}

		// A14: who signs in is who was expected, or the app hears that nobody is.
		b = bobs.another().open(authorize("id_token_hint", hint))
		if got := b.signIn(bob, password).answered(callback); got.Get("error") != "login_required" {
			t.Errorf("he signed in again, and the app gets %v", got)
		}
		b = bobs.another().open(authorize("id_token_hint", hint))
		if got := b.signIn(ada, password).answered(callback); got.Get("code") == "" {
			t.Errorf("she signed in, and the app gets %v", got)
		}

		// Claims are released where they are asked for, if their scope was allowed.
		asked := `{"id_token":{"email":{"essential":true},"name":null},"userinfo":{"email":null,"phone_number":{"value":"1"}}}`
		for scope, there := range map[string]bool{"openid": false, "openid email": true} {
			a := s.grant(adas.another(), secret, "scope", scope, "claims", asked)
			_, claims := claimsOf(t, a.member("id_token"))
			info := s.get("/userinfo", "Authorization", "Bearer "+a.member("access_token"))
			_, userinfo := info.json["email"]
			_, name := claims["name"]
			if (claims["email"] == adaMail) != there || userinfo != there || name {
				t.Errorf("%s: ID token %v, userinfo %s", scope, claims, info.body)
			}
		}
	})
}
