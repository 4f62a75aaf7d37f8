package web_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/signet-oidc/signet/storage"
)

// Who signs out is shown, unseen, the pages of the apps that the session signed
// them in to, and no others; then they go where the app wants them (OpenID
// Connect Front-Channel Logout 1.0).
func TestFrontChannelLogout(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		if m := s.get("/.well-known/openid-configuration").json; m["frontchannel_logout_supported"] != true || m["frontchannel_logout_session_supported"] != true {
			t.Errorf("metadata: %v", m)
		}
		change := func(id string, alter func(*storage.Client)) {
			t.Helper()
			if _, err := s.admin.UpdateClient(t.Context(), id, alter); err != nil {
				t.Fatal(err)
			}
		}
		for id, uri := range map[string]string{"shop": `https://shop.example/out?x=1&y='"`, "portal": "https://portal.example/out"} {
			change(id, func(c *storage.Client) { c.FrontChannelLogoutURI = strings.ReplaceAll(uri, `"`, "%22") })
		}
		change("shop", func(c *storage.Client) { c.Metadata = `{"frontchannel_logout_session_required":true}` })
		s.settle()
		const bye = "https://shop.example/bye"
		frames := func(b *browser) []string {
			t.Helper()
			var list []string
			root, err := html.Parse(strings.NewReader(b.body))
			if err != nil {
				t.Fatal(err)
			}
			for n := range root.Descendants() {
				if n.Type != html.ElementNode || n.Data != "iframe" {
					continue
				}
				attributes := make(map[string]string)
				for _, a := range n.Attr {
					attributes[a.Key] = a.Val
				}
				if _, hidden := attributes["hidden"]; !hidden || attributes["sandbox"] != "allow-same-origin allow-scripts allow-forms" {
					t.Errorf("a frame with %v", attributes)
				}
				list = append(list, attributes["src"])
			}
			return list
		}

		// Nobody was signed in to an app: nothing to show.
		b := s.browser().open("/login").signIn(ada, password).open("/logout").press("submit").isPage(200, "/logout/confirm")
		if list := frames(b); list != nil || strings.Contains(b.header.Get("Content-Security-Policy"), "frame-src") {
			t.Errorf("frames %v", list)
		}
		// Another session's app is none of this one's.
		s.grant(s.browser(), secret, "scope", "openid")

		b = s.browser()
		tokens := s.grant(b, secret, "scope", "openid")
		s.grant(b, secret, "scope", "openid offline_access")
		_, id := decode(t, tokens.member("id_token"))
		b.open(authorize("client_id", "portal", "redirect_uri", "https://portal.example/cb")).answered("https://portal.example/cb")
		b.open("/logout?"+url.Values{"id_token_hint": {tokens.member("id_token")}, "post_logout_redirect_uri": {bye}, "state": {"s"}}.Encode()).isPage(200, "/logout")
		want := []string{"https://portal.example/out",
			"https://shop.example/out?x=1&y='%22&" + url.Values{"iss": {s.issuer}, "sid": {id["sid"].(string)}}.Encode()}
		list := frames(b)
		slices.Sort(list)
		if !slices.Equal(list, want) {
			t.Errorf("frames %q, want %q", list, want)
		}
		if csp := b.header.Get("Content-Security-Policy"); !strings.Contains(csp, "; frame-src https://portal.example https://shop.example; ") {
			t.Errorf("Content-Security-Policy: %s", csp)
		}
		if got := b.header.Get("Refresh"); got != "2; url="+bye+"?state=s" {
			t.Errorf("Refresh: %q", got)
		}
		if n := b.node("return"); n == nil {
			t.Errorf("no way back without waiting: %s", b.body)
		}
		b.open("/account").isPage(200, "/login")

		// Signed out: there is nothing left to show, and they go at once.
		b.open("/logout?" + url.Values{"id_token_hint": {tokens.member("id_token")}, "post_logout_redirect_uri": {bye}}.Encode()).answered(bye)
	})
}
