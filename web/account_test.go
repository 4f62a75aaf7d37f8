package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// A person sees where they are signed in, and ends one session or all others.
func TestAccountSessions(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		here := s.browser().open("/account").isPage(200, "/login")
		here.signIn(ada, password).isPage(200, "/account")
		phone, laptop := s.browser(), s.browser()
		phone.agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
		phone.open("/login").signIn(ada, password)
		laptop.agent = `<script>alert(1)</script>`
		laptop.open("/login").signIn(ada, password)
		stranger := s.browser().open("/login").signIn(bob, password)

		here.open("/account").isPage(200, "/account")
		if got := here.text("session-1"); !strings.Contains(got, "Firefox on Linux") || !strings.Contains(got, "this browser") || !strings.Contains(got, "127.0.0.1") {
			t.Errorf("this session: %q", got)
		}
		if here.node("session-3") == nil || here.node("session-4") != nil || strings.Contains(here.body, "<script>") || here.text("no-apps") == "" {
			t.Fatalf("the page: %s", here.body)
		}
		button := "session-2-end"
		if !strings.Contains(here.text("session-2"), "Safari on iPhone") {
			button = "session-3-end"
		}
		ending, _ := here.form(button)
		here.press(button).isPage(200, "/account")
		if here.text("notice") == "" || here.node("session-3") != nil {
			t.Errorf("after ending one: %s", here.body)
		}
		if here.open("/account"); here.text("notice") != "" {
			t.Error("the notice is there again")
		}
		phone.open("/account").isPage(200, "/login")
		laptop.open("/account").isPage(200, "/account")

		// Somebody else's session is not theirs to end.
		_, fields := here.form("end-others")
		fields.Set("session", attr(stranger.node("session-1"), "data-session"))
		here.post(ending, fields, "same-origin").isPage(200, "/account")
		stranger.open("/account").isPage(200, "/account")

		here.open("/account").press("end-others").isPage(200, "/account")
		laptop.open("/account").isPage(200, "/login")
		if here.node("session-2") != nil || here.node("end-others") != nil {
			t.Errorf("after ending all others: %s", here.body)
		}
	})
}

// A person sees which apps have access, and takes it away: at once.
func TestAccountApps(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser().open(authorize("scope", "openid profile offline_access orders:read")).signIn(ada, password)
		code := b.press("allow").answered(callback).Get("code")
		tokens := s.redeem(secret, code)
		if tokens.status != http.StatusOK {
			t.Fatal(tokens.body)
		}
		b.open("/account").isPage(200, "/account")
		if got := b.text("app-1"); !strings.Contains(got, "shop") || !strings.Contains(got, "Orders") || !strings.Contains(got, "away") {
			t.Errorf("the app: %q", got)
		}
		b.press("app-1-withdraw").isPage(200, "/account")
		if b.text("notice") == "" || b.node("app-1") != nil {
			t.Errorf("after withdrawing: %s", b.body)
		}
		refreshed := s.form("/token", "shop", secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.member("refresh_token")}})
		refreshed.isRefusal(t, http.StatusBadRequest, "invalid_grant")
		if i := s.form("/introspect", "shop", secret, url.Values{"token": {tokens.member("refresh_token")}}); i.body != `{"active":false}` {
			t.Errorf("introspection: %s", i.body)
		}
		b.open(authorize()).isPage(200, "/consent")
	})
}

func TestChangePassword(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		const replacement = "an owl between two oaks"
		b, other := s.browser().open("/login").signIn(ada, password), s.browser().open("/login").signIn(ada, password)
		before, device := b.cookie("session"), b.cookie("device")
		b.open("/account/password").isPage(200, "/account/password")
		for name, fields := range map[string][]string{
			"nothing":       {},
			"wrong":         {"current_password", "a wrong heron at dawn", "new_password", replacement, "repeat_password", replacement},
			"two different": {"current_password", password, "new_password", replacement, "repeat_password", replacement + "!"},
			"short":         {"current_password", password, "new_password", "short", "repeat_password", "short"},
			"the same":      {"current_password", password, "new_password", password, "repeat_password", password},
			"the name":      {"current_password", password, "new_password", "adalovelaceadalovelace signet", "repeat_password", "adalovelaceadalovelace signet"},
			"too long":      {"current_password", password, "new_password", strings.Repeat("long ", 300), "repeat_password", strings.Repeat("long ", 300)},
		} {
			t.Run(name, func(t *testing.T) {
				c := b.another().open("/account/password")
				c.press("submit", fields...).isPage(http.StatusUnprocessableEntity, "/account/password")
				if c.text("error-summary") == "" || strings.Contains(c.body, "heron") {
					t.Errorf("the page says %q, or holds a password", c.text("error-summary"))
				}
			})
		}
		b.press("submit", "current_password", password, "new_password", replacement, "repeat_password", replacement).isPage(200, "/account")
		if b.text("notice") == "" || b.cookie("session") == before {
			t.Error("no notice, or the same cookie")
		}
		if now := b.cookie("device"); now == "" || now == device {
			t.Error("the browser is not known by the new password")
		}
		other.open("/account").isPage(200, "/login")
		other.signIn(ada, password).isPage(422, "/login")
		other.signIn(ada, replacement).isPage(200, "/account")
	})
}

// The form of an account page is that of the person who saw it.
func TestAccountSwitched(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open("/login").signIn(ada, password)
		s.browser().open("/login").signIn(bob, password)
		b.open("/account/password").isPage(200, "/account/password")
		two := b.another()
		two.open("/logout").press("submit")
		b.another().open("/login").signIn(bob, password).isPage(200, "/account")
		const replacement = "an owl between two oaks"
		b.press("submit", "current_password", password, "new_password", replacement, "repeat_password", replacement).isPage(http.StatusConflict, "/account/password")
		s.browser().open("/login").signIn(bob, password).isPage(200, "/account")
	})
}

// A set-up link works once, for a day; looking at it uses nothing up.
func TestSetup(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		const chosen = "an owl between two oaks"
		if _, err := s.admin.CreateUser(t.Context(), storage.User{Username: "eve"}, ""); err != nil {
			t.Fatal(err)
		}
		link := s.invite("eve")
		b := s.browser().open(link).isPage(200, "/setup")
		if attr(b.node("username"), "value") != "eve" {
			t.Errorf("the page is for %s", b.body)
		}
		b.press("submit", "new_password", "short", "repeat_password", "short").isPage(422, "/setup")
		action, fields := b.form("submit")
		s.browser().post(action, with(fields, "new_password", chosen, "repeat_password", chosen), "same-origin").isPage(http.StatusForbidden, "/setup")
		b.press("submit", "new_password", chosen, "repeat_password", chosen).isPage(200, "/account")
		if b.text("notice") == "" || b.text("username") != "eve" {
			t.Errorf("the account page: %s", b.body)
		}
		s.browser().open(link).isPage(http.StatusGone, "/setup")
		b.post(action, with(fields, "new_password", chosen, "repeat_password", chosen), "same-origin").isPage(http.StatusGone, "/setup")

		link = s.invite("eve")
		s.clock.set(24*time.Hour + time.Second)
		s.settle()
		s.browser().open(link).isPage(http.StatusGone, "/setup")
		s.browser().open("/setup?link=sgi_guess").isPage(http.StatusGone, "/setup")
	})
}

// invite returns the path of a set-up link for a user.
func (s *site) invite(username string) string {
	s.t.Helper()
	link, _, err := s.admin.InviteUser(s.t.Context(), username)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimPrefix(link, s.issuer)
}
