package web_test

import (
	"bufio"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/storage"
)

// almost are the URIs that the corpus comes near to.
func almost() []string {
	return []string{callback, "http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost/cb?x=y", "com.example.app:/cb", "https://127.0.0.1/tls"}
}

// hostileURIs reads the corpus: one Go string literal a line.
func hostileURIs(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("testdata/hostile_redirect_uris.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var uris []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "# ") {
			continue
		}
		uri, err := strconv.Unquote(lines.Text())
		if err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		uris = append(uris, uri)
	}
	if len(uris) < 200 {
		t.Fatalf("%d URIs", len(uris))
	}
	return uris
}

// B1, B3, B4, A2: what is not registered to the byte gets nothing: no redirect,
// whether or not somebody is signed in and has consented.
func TestHostileRedirectURIs(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		s.client("near", forPeople, func(c *storage.Client) { c.AuthMethod, c.RedirectURIs = "none", almost() })
		b := s.browser().open(authorize("client_id", "near")).signIn(ada, password)
		b.press("allow").answered(callback)
		for _, uri := range []string{callback, "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb", "http://[::1]:49152/cb", "http://localhost:3000/cb?x=y", "com.example.app:/cb"} { // B2
			if b.open(authorize("client_id", "near", "redirect_uri", uri)); b.status != http.StatusOK && b.left == nil {
				t.Errorf("%s: %d %s", uri, b.status, b.body)
			}
		}
		cookies := b.sessionName() + "=" + b.cookie("session")
		for _, uri := range hostileURIs(t) {
			a := s.send(http.MethodGet, authorize("client_id", "near", "redirect_uri", uri), "", "Accept", "text/html", "Cookie", cookies)
			if a.status != http.StatusBadRequest || a.header.Get("Location") != "" || !strings.Contains(a.body, `id="request-id"`) {
				t.Errorf("%q: %d, Location %q", uri, a.status, a.header.Get("Location"))
			}
		}
	})
}

// B10: nor does a sign-out lead to any of them; here the port counts, too.
func TestHostilePostLogoutRedirectURIs(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		s.client("near", forPeople, func(c *storage.Client) {
			c.AuthMethod, c.RedirectURIs, c.PostLogoutRedirectURIs = "none", almost(), almost()
		})
		out := func(uri string) answer { // nobody is signed in, so it goes on at once
			return s.get("/logout?" + url.Values{"client_id": {"near"}, "post_logout_redirect_uri": {uri}, "state": {"x"}}.Encode())
		}
		for _, uri := range almost() {
			if got := out(uri).header.Get("Location"); !strings.HasPrefix(got, uri) {
				t.Errorf("%s leads to %q", uri, got)
			}
		}
		for _, uri := range append(hostileURIs(t), "http://127.0.0.1:5555/cb", "http://[::1]:1/cb") {
			if a := out(uri); a.header.Get("Location") != "" || strings.Contains(a.body, "evil") {
				t.Errorf("%q leads to %q", uri, a.header.Get("Location"))
			}
		}
	})
}
