package web_test

import (
	"strings"
	"testing"

	"github.com/signet-oidc/signet/storage"
)

// K1: a new app, a new scope and a new address of a known app are each asked
// about once; what was allowed is not asked about again.
func TestConsentAskedAgain(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		const moved, port, path = "https://moved.example/cb", "https://shop.example:8443/cb", "https://shop.example/other"
		s.client("movable", forPeople, func(c *storage.Client) { c.RedirectURIs = []string{callback, moved, port, path} })
		b := s.browser().open("/login").signIn(ada, password)
		ask := func(parameters ...string) *browser {
			return b.open(authorize(append([]string{"client_id", "movable", "scope", "openid"}, parameters...)...))
		}
		allowed := func(at string, parameters ...string) {
			t.Helper()
			if got := ask(append(parameters, "redirect_uri", at)...).answered(at); got.Get("code") == "" {
				t.Errorf("asked already, and answered %v", got)
			}
		}

		b.open(authorize()).press("allow").answered(callback) // another app
		ask().isPage(200, "/consent")
		if b.node("host-note") != nil {
			t.Error("the first time says that the address is another")
		}
		b.press("allow").answered(callback)
		allowed(callback)
		allowed(path)

		for _, at := range []string{moved, port} {
			if got := ask("redirect_uri", at, "prompt", "none").answered(at); got.Get("error") != "consent_required" {
				t.Errorf("without asking, %s gets %v", at, got)
			}
			ask("redirect_uri", at).isPage(200, "/consent")
			if got := b.text("host-note"); !strings.Contains(got, b.text("host")) || !strings.Contains(at, b.text("host")) {
				t.Errorf("the page says %q", got)
			}
			b.press("deny").answered(at)
			ask("redirect_uri", at).press("allow").answered(at)
			allowed(at)
		}
		allowed(callback)

		ask("scope", "openid email").isPage(200, "/consent")
		if b.node("host-note") != nil || !strings.Contains(b.text("scopes"), "allowed before") || !strings.Contains(b.body, "is remembered") {
			t.Errorf("a new scope at a known address: %s", b.text("scopes"))
		}
		b.press("allow").answered(callback)
		allowed(moved, "scope", "openid email")

		// Withdrawn is withdrawn for every address.
		b.open("/account")
		for _, id := range []string{"app-1", "app-2"} {
			if attr(b.node(id), "data-client") == "movable" {
				b.press(id+"-withdraw").isPage(200, "/account")
				break
			}
		}
		for _, at := range []string{moved, callback} {
			ask("redirect_uri", at).isPage(200, "/consent")
			if b.node("host-note") != nil {
				t.Error("a withdrawn app is asked about as one that moved")
			}
		}
	})
}
