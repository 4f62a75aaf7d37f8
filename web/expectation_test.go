package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// resigned returns the ID token with another value of a claim, signed by us.
func (s *site) resigned(token, claim string, value any) string {
	s.t.Helper()
	_, claims := claimsOf(s.t, token)
	claims[claim] = value
	payload, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := s.ring.Sign(keys.ES256, "JWT", payload, s.clock.now())
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func numbered(n int) (members []string) {
	for i := range n {
		members = append(members, fmt.Sprintf(`"c%d":null`, i))
	}
	return members
}

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
			{"a hint of another issuer that has our keys", adas, []string{"id_token_hint", s.resigned(hint, "iss", "https://elsewhere.example")}, "invalid_request"},
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
			{"claims that are null", adas, []string{"claims", "null"}, "invalid_request"},
			{"claims that are a list", adas, []string{"claims", "[]"}, "invalid_request"},
			{"claims with more behind them", adas, []string{"claims", "{} {}"}, "invalid_request"},
			{"claims with a member twice", adas, []string{"claims", `{"id_token":{},"id_token":{}}`}, "invalid_request"},
			{"claims in capitals, which nobody knows", adas, []string{"claims", `{"ID_TOKEN":{"sub":{"value":"` + sub[bob] + `"}}}`}, "code"},
			{"claims with members that nobody knows", adas, []string{"claims", `{"vendor":{"x":[1]},"id_token":{"name":{"vendor":1}}}`}, "code"},
			{"essential that is no boolean", adas, []string{"claims", wants("id_token", "name", `{"essential":"true"}`)}, "invalid_request"},
			{"values that are no list", adas, []string{"claims", wants("id_token", "acr", `{"values":"x"}`)}, "invalid_request"},
			{"claims nested too deep", adas, []string{"claims", wants("userinfo", "x", `{"value":`+strings.Repeat("[", 6)+strings.Repeat("]", 6)+`}`)}, "invalid_request"},
			{"claims nested as deep as may be", adas, []string{"claims", wants("userinfo", "x", `{"value":`+strings.Repeat("[", 5)+strings.Repeat("]", 5)+`}`)}, "code"},
			{"more claims than there are", adas, []string{"claims", `{"userinfo":{` + strings.Join(numbered(101), ",") + `}}`}, "invalid_request"},
			{"many claims", adas, []string{"claims", `{"userinfo":{` + strings.Join(numbered(100), ",") + `}}`}, "code"},
			{"another sub in each member", adas, []string{"claims", `{"id_token":{"sub":{"value":"` + sub[ada] + `"}},"userinfo":{"sub":{"value":"` + sub[bob] + `"}}}`}, "invalid_request"},
			{"her sub in both members", adas, []string{"claims", `{"id_token":{"sub":{"values":["` + sub[bob] + `","` + sub[ada] + `"]}},"userinfo":{"sub":{"value":"` + sub[ada] + `"}}}`, "prompt", "none"}, "code"},
			{"his sub in both members", adas, []string{"claims", `{"id_token":{"sub":{"values":["` + sub[bob] + `","` + sub[ada] + `"]}},"userinfo":{"sub":{"value":"` + sub[bob] + `"}}}`, "prompt", "none"}, "login_required"},
			{"an essential auth_time", adas, []string{"claims", wants("id_token", "auth_time", `{"essential":true}`)}, "code"},
			{"an essential claim that nobody has", adas, []string{"claims", wants("id_token", "vendor_rank", `{"essential":true}`)}, "code"},
			{"display and languages that nobody knows", adas, []string{"display", "wap", "ui_locales", "tlh x"}, "code"},
			{"registration by the way", adas, []string{"registration", "{}"}, "registration_not_supported"},
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
	})
}

// A claim that is asked for by name is released where it is asked for, and no
// other claim of its scope with it, once the person has consented to that scope
// (OIDC Core §5.5).
func TestClaimsByName(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser().open(authorize("scope", "openid")).signIn(ada, password).press("allow")
		asked := `{"id_token":{"email":{"essential":true}},"userinfo":{"name":null,"phone_number":{"value":"1"}}}`
		said := func(a answer) (id, info map[string]any) {
			t.Helper()
			_, id = claimsOf(t, a.member("id_token"))
			return id, s.get("/userinfo", "Authorization", "Bearer "+a.member("access_token")).json
		}
		silently := func() answer {
			t.Helper()
			return s.redeem(secret, b.another().open(authorize("scope", "openid", "claims", asked, "prompt", "none")).answered(callback).Get("code"))
		}
		if id, info := said(silently()); id["email"] != nil || info["name"] != nil {
			t.Errorf("without asking her: ID token %v, userinfo %v", id, info)
		}
		if b.another().open(authorize("scope", "openid", "claims", asked)).isPage(200, "/consent").press("deny").answered(callback).Get("error") != "access_denied" {
			t.Error("she said no, and the app hears something else")
		}
		form := b.another().open(authorize("scope", "openid", "claims", asked)).isPage(200, "/consent")
		if list := form.text("scopes"); !strings.Contains(list, "e-mail") || !strings.Contains(list, "profile") {
			t.Errorf("she is asked for %q", list)
		}
		a := s.redeem(secret, form.press("allow").answered(callback).Get("code"))
		if a.member("scope") != "openid" {
			t.Errorf("scope %q", a.member("scope"))
		}
		for _, a := range []answer{a, silently(), s.form("/token", "shop", secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.member("refresh_token")}})} {
			id, info := said(a)
			if id["email"] != adaMail || id["email_verified"] != nil || id["name"] != nil ||
				info["name"] != "Ada Lovelace" || info["preferred_username"] != nil || info["email"] != nil || info["phone_number"] != nil {
				t.Errorf("ID token %v, userinfo %v", id, info)
			}
		}
		// Asked for without a name, nothing of it is released.
		if id, info := said(s.grant(b.another(), secret, "scope", "openid")); id["email"] != nil || info["name"] != nil {
			t.Errorf("ID token %v, userinfo %v", id, info)
		}

		// What the client is not registered for, nobody is asked about.
		if _, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.Scopes = []string{"openid"} }); err != nil {
			t.Fatal(err)
		}
		s.settle()
		if id, info := said(s.redeem(secret, b.another().open(authorize("scope", "openid", "claims", asked)).answered(callback).Get("code"))); id["email"] != nil || info["name"] != nil {
			t.Errorf("ID token %v, userinfo %v", id, info)
		}

		// What was not on the form is not given by it.
		form = b.another().open(authorize("scope", "openid", "claims", `{"userinfo":{"address":null}}`, "prompt", "consent")).isPage(200, "/consent")
		if _, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.Scopes = []string{"openid", "address"} }); err != nil {
			t.Fatal(err)
		}
		s.settle()
		if list := form.press("allow").isPage(200, "/consent").text("scopes"); !strings.Contains(list, "postal") {
			t.Errorf("she is asked for %q", list)
		}
	})
}

// What a client registered counts where its request does not say otherwise
// (OIDC Registration §2).
func TestRegisteredDefaults(t *testing.T) {
	o := open()
	o.algs = []string{keys.ES256, keys.RS256}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		made := s.registers(spa("default_max_age", 60, "require_auth_time", true, "default_acr_values", []string{"urn:signet:acr:password"}))
		id := made.member("client_id")
		b := s.browser()
		b.open(authorize("client_id", id)).signIn(ada, password).press("allow").answered(callback)
		open := func(parameters ...string) *browser {
			return b.another().open(authorize(append(parameters, "client_id", id)...))
		}
		code := open().answered(callback).Get("code")
		a := s.form("/token", "", "", url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}})
		if _, claims := claimsOf(t, a.member("id_token")); claims["auth_time"] == nil || claims["acr"] != "urn:signet:acr:password" {
			t.Errorf("ID token %v", claims)
		}
		s.clock.set(2 * time.Minute)
		s.settle()
		open().isPage(200, "/login")
		if got := open("prompt", "none").answered(callback); got.Get("error") != "login_required" {
			t.Errorf("silently, after default_max_age: %v", got)
		}
		if got := open("max_age", "3600").answered(callback); got.Get("code") == "" {
			t.Errorf("what the request says does not count: %v", got)
		}
		for name, body := range map[string]map[string]any{
			"a class that is not offered": spa("default_acr_values", []string{"urn:example:gold"}),
			"an age below 0":              spa("default_max_age", -1),
			"an age that is text":         spa("default_max_age", "60"),
			"auth_time by text":           spa("require_auth_time", "true"),
		} {
			if a := s.registration(http.MethodPost, "/register", "", body); a.member("error") != "invalid_client_metadata" {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
	})
}
