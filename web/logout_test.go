package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// O1–O3: who is asked before they are signed out, and where they go then.
func TestLogout(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.client("other", forPeople, func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{"https://other.example/bye"} })
		const bye = "https://shop.example/bye"
		b := s.browser().open(authorize()).signIn(ada, password)
		tokens := s.redeem(secret, b.press("allow").answered(callback).Get("code"))
		hint := tokens.member("id_token")
		if hint == "" {
			t.Fatal(tokens.body)
		}
		logout := func(parameters ...string) string {
			v := url.Values{}
			for i := 0; i < len(parameters); i += 2 {
				v.Set(parameters[i], parameters[i+1])
			}
			return "/logout?" + v.Encode()
		}

		for name, address := range map[string]string{
			"without anything":     logout(),
			"without a hint":       logout("client_id", "shop", "post_logout_redirect_uri", bye),
			"a hint that is none":  logout("id_token_hint", "x.y.z"),
			"a hint of another's":  logout("id_token_hint", hint, "client_id", "other"),
			"another redirect URI": logout("client_id", "other", "post_logout_redirect_uri", bye),
		} {
			t.Run(name, func(t *testing.T) {
				c := b.another().open(address).isPage(200, "/logout")
				if !strings.Contains(c.text("user"), ada) {
					t.Errorf("the page says %q", c.text("user"))
				}
				want := "'self'"
				if name == "without a hint" {
					want = "'self' https://shop.example"
				}
				if got := formActions(c); got != want {
					t.Errorf("form-action %s, want %s", got, want)
				}
				c.press("stay").isPage(200, "/account")
			})
		}

		// Where the redirect is not registered there is none, after the sign-out.
		c := s.browser().open("/login").signIn(bob, password)
		c.open(logout("client_id", "other", "post_logout_redirect_uri", bye)).press("submit").isPage(200, "/logout/confirm")
		c.open("/account").isPage(200, "/login")
		c.open(logout("post_logout_redirect_uri", "https://evil.example/")).isPage(200, "/logout") // nobody is signed in

		// With the right one, but after a question.
		c.open("/login").signIn(bob, password)
		c.open(logout("client_id", "shop", "post_logout_redirect_uri", bye, "state", "a&b")).isPage(200, "/logout")
		if got := c.press("submit").answered(bye); got.Get("state") != "a&b" {
			t.Errorf("the app gets %v", got)
		}

		// The hint of ada's session, expired by now, in bob's browser: he is asked.
		s.clock.set(20 * time.Minute)
		s.settle()
		c.open("/login").signIn(bob, password)
		c.open(logout("id_token_hint", hint, "post_logout_redirect_uri", bye)).isPage(200, "/logout")
		if !strings.Contains(c.text("user"), bob) {
			t.Errorf("the page says %q", c.text("user"))
		}
		// In hers she is not. By POST it works as well.
		b.post("/logout", url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {bye}, "state": {"s"}}, "cross-site")
		if got := b.answered(bye); got.Get("state") != "s" || b.cookie("session") != "" {
			t.Errorf("the app gets %v, the session's cookie is %q", got, b.cookie("session"))
		}
		if a := s.form("/token", "shop", secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.member("refresh_token")}}); a.status != http.StatusBadRequest {
			t.Errorf("a refresh after signing out: %d %s", a.status, a.body)
		}
		b.open("/account").isPage(200, "/login")
	})
}

// A question about one person is not answered for another.
func TestLogoutSwitched(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		one := s.browser().open("/login").signIn(ada, password)
		one.open("/logout").isPage(200, "/logout")
		action, fields := one.form("submit")
		two := one.another().open("/logout").press("submit")
		two.open("/login").signIn(bob, password).isPage(200, "/account")
		one.press("submit").isPage(200, "/logout/confirm")
		if !strings.Contains(one.text("user"), bob) {
			t.Errorf("the page says %q", one.text("user"))
		}
		two.open("/account").isPage(200, "/account")
		s.browser().post(action, fields, "same-origin").isPage(http.StatusBadRequest, "/logout/confirm")
		one.press("submit").isPage(200, "/logout/confirm")
		two.open("/account").isPage(200, "/login")
	})
}
