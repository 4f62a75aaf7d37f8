package web_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
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

// N7: the consent page links to what the maker of an app says of it, in a tab of
// its own and without a referrer; says of a stranger's that nobody checked it;
// and shows no logo, which its host would be told of by every browser.
func TestConsentLinks(t *testing.T) {
	o := open()
	o.algs = []string{keys.ES256, keys.RS256}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		about := []any{"client_uri", "https://app.example/", "policy_uri", "https://app.example/privacy?a=b&c=%3C", "tos_uri", "https://terms.example/x", "logo_uri", "https://app.example/logo.png"}
		id := s.registers(spa(about...)).member("client_id")
		if _, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) {
			extra := provider.ReadClientExtra(*c)
			extra.PolicyURI = "https://shop.example/privacy"
			extra.Write(c)
		}); err != nil {
			t.Fatal(err)
		}
		s.settle()
		b := s.browser()
		b.open(authorize("client_id", id)).signIn(ada, password).isPage(200, "/consent")
		for name, want := range map[string]string{"client-uri": "https://app.example/", "policy-uri": "https://app.example/privacy?a=b&c=%3C", "tos-uri": "https://terms.example/x"} {
			n := b.node(name)
			if n == nil || attr(n, "href") != want || attr(n, "rel") != "noopener noreferrer" || attr(n, "target") != "_blank" {
				t.Errorf("%s: %+v", name, n)
			}
		}
		if text := b.text("about"); !strings.Contains(text, "nobody here has checked") || !strings.Contains(text, "terms.example") {
			t.Errorf("of a stranger's links: %q", text)
		}
		if strings.Contains(b.body, "logo.png") || strings.Contains(b.body, "<img") {
			t.Errorf("a logo is shown: %s", b.body)
		}
		b.open(authorize()).isPage(200, "/consent")
		if text := b.text("about"); b.node("client-uri") != nil || attr(b.node("policy-uri"), "href") != "https://shop.example/privacy" || strings.Contains(text, "checked") {
			t.Errorf("of the operator's: %q", text)
		}

		// What is no https URL in the row, however it came there, is no link.
		if err := s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			if err := tx.LockRegistry(ctx); err != nil {
				return err
			}
			c, err := tx.Client(ctx, "shop")
			if err != nil {
				return err
			}
			provider.ClientExtra{PolicyURI: "javascript:alert(1)", TermsURI: "http://shop.example", ClientURI: "https://a@b.example", InitiateLoginURI: "http://shop.example"}.Write(&c)
			return tx.UpdateClient(ctx, c)
		}); err != nil {
			t.Fatal(err)
		}
		s.settle()
		if b.open(authorize()).isPage(200, "/consent"); b.node("about") != nil {
			t.Errorf("links: %q", b.text("about"))
		}
	})
}

// The account page opens an app at the address where it begins a sign-in by
// itself, and tells it which issuer it comes from and nothing else (OIDC Core §4).
func TestAccountOpensApps(t *testing.T) {
	o := open()
	o.algs = []string{keys.ES256, keys.RS256}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		id := s.registers(spa("client_name", "B", "initiate_login_uri", "https://app.example/start?a=b&iss=https%3A%2F%2Fevil.example")).member("client_id")
		s.registers(spa("client_name", "C"))
		s.registration(http.MethodPost, "/register", "", spa("initiate_login_uri", "http://app.example/start")).isRefusal(t, 400, "invalid_client_metadata")
		b := s.browser()
		b.open(authorize()).signIn(ada, password).press("allow") // which has no such address
		b.open(authorize("client_id", id)).press("allow")
		b.open("/account").isPage(200, "/account")
		open := b.node("app-1-open")
		if open == nil || attr(open, "href") != "https://app.example/start?a=b&iss="+url.QueryEscape(s.issuer) || attr(open, "rel") != "noopener noreferrer" || b.node("app-2-open") != nil {
			t.Fatalf("%+v: %s", open, b.body)
		}
		if _, err := s.admin.DisableClient(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		s.settle()
		if b.open("/account"); b.node("app-1") == nil || b.node("app-1-open") != nil {
			t.Errorf("a disabled app opens: %s", b.body)
		}
	})
}

// A stranger may call itself what an operator's app is called, for it may be the
// same app: people see that nobody checked it, and where the answer goes.
func TestNamesake(t *testing.T) {
	o := open()
	o.algs = []string{keys.ES256, keys.RS256}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		c, err := s.admin.Client(t.Context(), "portal")
		if err != nil {
			t.Fatal(err)
		}
		id := s.registers(spa("client_name", c.Name, "redirect_uris", []string{"https://other.example/cb"})).member("client_id")
		b := s.browser()
		b.open(authorize("client_id", id, "redirect_uri", "https://other.example/cb")).isPage(200, "/login")
		if b.node("trust") == nil {
			t.Errorf("the sign-in page does not say that nobody checked it: %s", b.body)
		}
		b.signIn(ada, password).isPage(200, "/consent") // though the operator's is never asked about
		if b.node("unverified") == nil || b.text("host") != "other.example" {
			t.Errorf("the consent page: %s", b.body)
		}
	})
}
