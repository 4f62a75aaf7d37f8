package web_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// Where nobody can be redirected to, the person is told; otherwise the app is.
func TestAuthorizeRefusals(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser()
		for name, address := range map[string]string{
			"unknown client":      authorize("client_id", "nobody"),
			"no client":           authorize("client_id", ""),
			"other redirect_uri":  authorize("redirect_uri", "https://evil.example/cb"),
			"longer redirect_uri": authorize("redirect_uri", callback+"/more"),
			"a parameter twice":   authorize() + "&scope=openid",
			"state too long":      authorize("state", strings.Repeat("x", 1025)),
		} {
			t.Run(name, func(t *testing.T) { // A1, A2, A3, A7
				b := b.another()
				b.open(address).isPage(http.StatusBadRequest, "/authorize")
				if b.text("advice") == "" || b.text("request-id") == "" || b.node("home") == nil {
					t.Errorf("the page does not say what to do: %s", b.body)
				}
			})
		}
		for code, parameters := range map[string][]string{
			"unsupported_response_type": {"response_type", "token"},
			"invalid_scope":             {"scope", "openid everything"},
			"invalid_request":           {"code_challenge", "", "code_challenge_method", ""},
			"login_required":            {"prompt", "none"},
			"invalid_request_object":    {"request", "e30.e30."},
			"invalid_request_uri":       {"request_uri", s.url + "/jwks"},
			"invalid_target":            {"resource", "https://nothing.example"},
		} {
			t.Run(code, func(t *testing.T) {
				b := b.another()
				got := b.open(authorize(parameters...)).answered(callback)
				if got.Get("error") != code || got.Get("state") != "st" || got.Get("iss") != s.issuer { // A5
					t.Errorf("the app gets %v", got)
				}
				if b.hops[0].StatusCode != http.StatusSeeOther { // A6
					t.Errorf("by %d", b.hops[0].StatusCode)
				}
			})
		}
		for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodDelete} { // A26
			for _, path := range []string{authorize(), "/logout"} {
				if a := s.send(method, path, ""); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, POST" {
					t.Errorf("%s %s: %d, Allow %q", method, path, a.status, a.header.Get("Allow"))
				}
			}
		}
	})
}

// A7: the app gets its state back byte by byte, whatever it is; nobody else is
// impressed (A18).
func TestStateComesBack(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open("/login").signIn(ada, password)
		b.open(authorize()).press("allow").answered(callback)
		for _, state := range []string{
			"x", strings.Repeat("x", 1024), "a b+c%20d&e=f#g", "\r\nSet-Cookie: a=b", "</script><script>alert(1)</script>", `"'><img src=x>`,
			"état 🦉", "?code=x&iss=y",
		} {
			got := b.another().open(authorize("state", state))
			if got.answered(callback).Get("state") != state {
				t.Errorf("state %q comes back as %q", state, got.left.Query().Get("state"))
			}
			for _, c := range got.hops[len(got.hops)-1].Cookies() {
				if c.Name == "a" {
					t.Errorf("state %q sets a cookie", state)
				}
			}
			if strings.Contains(state, "\n") {
				continue // a form may change line ends (HTML §4.10.21.4); RFC 6749 allows none in a state
			}
			post := b.another().open(authorize("state", state, "response_mode", "form_post"))
			if _, fields := post.form("submit"); fields.Get("state") != state || fields.Get("code") == "" {
				t.Errorf("by form_post, state %q comes back as %v", state, fields)
			}
		}
		if got := b.open(authorize("state", "")).answered(callback); got.Has("state") {
			t.Errorf("a state that nobody sent: %v", got)
		}
	})
}

// A17: the page that carries an answer by POST has one script, and may send to
// the app only.
func TestFormPost(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser()
		b.open(authorize("response_mode", "form_post", "state", `</script>"'`)).signIn(ada, password).press("allow").isPage(200, "/consent")
		action, fields := b.form("submit")
		if action != callback || fields.Get("iss") != s.issuer || fields.Get("state") != `</script>"'` {
			t.Fatalf("to %s: %v", action, fields)
		}
		root, err := html.Parse(strings.NewReader(b.body))
		if err != nil {
			t.Fatal(err)
		}
		var nonces []string
		for n := range root.Descendants() {
			if n.Data == "script" {
				nonces = append(nonces, attr(n, "nonce"))
			}
		}
		policy := b.header.Get("Content-Security-Policy")
		if len(nonces) != 1 || !strings.Contains(policy, "script-src 'nonce-"+nonces[0]+"';") ||
			!strings.Contains(policy, "form-action https://shop.example;") {
			t.Errorf("scripts with %q under %s", nonces, policy)
		}
		if a := s.redeem(secret, fields.Get("code")); a.status != http.StatusOK {
			t.Errorf("the code: %d %s", a.status, a.body)
		}
		again := b.another().open(authorize("response_mode", "form_post"))
		if strings.Contains(again.body, nonces[0]) {
			t.Error("two answers have the same nonce")
		}
		refused := b.another().open(authorize("response_mode", "form_post", "scope", "openid everything"))
		if action, fields := refused.form("submit"); action != callback || fields.Get("error") != "invalid_scope" {
			t.Errorf("an error goes to %s: %v", action, fields)
		}
	})
}

// POST /authorize comes from the app's site, without cookies, and still finds
// the session.
func TestAuthorizeByPost(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser()
		b.post("/authorize", request(), "cross-site").isPage(200, "/login")
		b.signIn(ada, password).press("allow").answered(callback)
		if got := b.post("/authorize", request(), "cross-site").answered(callback); got.Get("code") == "" {
			t.Errorf("signed in before: %v", got)
		}
		// What the redirect carries is no flow under way: no form takes it.
		unbound := b.hops[1].Request.URL.Query().Get("flow")
		for _, path := range []string{"/login", "/select", "/consent"} {
			b.another().post(path, url.Values{"flow": {unbound}, "decision": {"allow"}, "username": {ada}, "password": {password}}, "same-origin").isPage(400, path)
			b.another().open(path+"?flow="+unbound).isPage(400, path)
		}
	})
}

// A21: what was begun in one browser is not finished in another.
func TestOtherBrowser(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		victim := s.browser().open(authorize()).signIn(ada, password).isPage(200, "/consent")
		action, fields := victim.form("allow")
		link := victim.at.String()

		for name, other := range map[string]*browser{
			"without anything": s.browser(),
			"signed in":        s.browser().open("/login").signIn(bob, password),
			"the same person":  s.browser().open("/login").signIn(ada, password),
		} {
			t.Run(name, func(t *testing.T) {
				other.post(action, fields, "same-origin").isPage(http.StatusBadRequest, "/consent")
				if !strings.Contains(other.body, "began in another browser") {
					t.Errorf("the page says %s", other.text("advice"))
				}
				other.open(link).isPage(http.StatusBadRequest, "/consent")
			})
		}
		victim.press("allow").answered(callback)
	})
}

// A22: two tabs ask for two apps, step by step in turn.
func TestTwoTabs(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.client("other", forPeople, func(c *storage.Client) { c.RedirectURIs = []string{"https://other.example/cb"} })
		one := s.browser()
		two := one.another()
		one.open(authorize("state", "one")).isPage(200, "/login")
		two.open(authorize("client_id", "other", "redirect_uri", "https://other.example/cb", "state", "two")).isPage(200, "/login")
		one.signIn(ada, password).isPage(200, "/consent")
		// The second tab still shows its form: to reload it finds the session.
		two.open(two.at.String()).isPage(200, "/consent")
		if got := two.text("client"); !strings.Contains(got, "other") {
			t.Errorf("the second tab asks for %q", got)
		}
		second := two.press("allow").answered("https://other.example/cb")
		first := one.press("allow").answered(callback)
		if first.Get("state") != "one" || second.Get("state") != "two" || first.Get("code") == second.Get("code") {
			t.Errorf("answers %v and %v", first, second)
		}
		if a := s.redeem(secret, second.Get("code")); a.status != http.StatusBadRequest {
			t.Errorf("shop redeems the other app's code: %d", a.status)
		}
		if a := s.redeem(secret, first.Get("code")); a.status != http.StatusOK {
			t.Errorf("shop's own code: %d %s", a.status, a.body)
		}
	})
}

// A form that was made for one person is not answered by another, who signed
// in in another tab meanwhile.
func TestSwitchedMeanwhile(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		one := s.browser().open(authorize()).signIn(ada, password).isPage(200, "/consent")
		two := one.another()
		two.open(authorize("prompt", "login")).signIn(bob, password).isPage(200, "/consent")

		one.press("allow").isPage(200, "/consent")
		if got := one.text("user"); !strings.Contains(got, bob) {
			t.Errorf("the form asks again, of %q", got)
		}
		two.open("/logout").press("submit")
		one.press("allow").isPage(200, "/login")

		// The page that offers the account says whose it is, too.
		one.signIn(ada, password).isPage(200, "/consent").press("allow").answered(callback)
		one.open(authorize("prompt", "select_account")).isPage(200, "/select")
		if got := one.text("continue"); !strings.Contains(got, ada) {
			t.Errorf("to continue as %q", got)
		}
		two.open("/logout").press("submit")
		two.open("/login").signIn(bob, password)
		one.press("continue").isPage(200, "/select")
		if got := one.text("continue"); !strings.Contains(got, bob) {
			t.Errorf("to continue as %q", got)
		}
		one.press("other").isPage(200, "/login")
		one.signIn(ada, password).answered(callback)
	})
}

// A23: the same approval again, by a double click or after a lost answer, is
// the identical answer, and one grant; when the code is spent, a kind refusal.
func TestApprovalTwice(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser().open(authorize()).signIn(ada, password).isPage(200, "/consent")
		form := b.at.String()
		action, fields := b.form("allow")
		first := b.post(action, fields, "same-origin").answered(callback)
		second := b.post(action, fields, "same-origin").answered(callback)
		if first.Encode() != second.Encode() {
			t.Errorf("two answers: %v, %v", first, second)
		}
		if n := s.db.rows(t)["grants"]; n != 1 {
			t.Errorf("%d grants", n)
		}
		if a := s.redeem(secret, first.Get("code")); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		b.post(action, fields, "same-origin").isPage(http.StatusBadRequest, "/consent")
		b.open(form).isPage(http.StatusBadRequest, "/consent") // the way back
		if n := s.db.rows(t)["grants"]; n != 1 {
			t.Errorf("%d grants", n)
		}
	})
}

// No is an answer, and is asked again the next time.
func TestDenied(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open(authorize()).signIn(ada, password)
		if got := b.press("deny").answered(callback); got.Get("error") != "access_denied" || got.Get("state") != "st" {
			t.Errorf("the app gets %v", got)
		}
		b.open(authorize()).isPage(200, "/consent")
		b.press("switch").isPage(200, "/login")
		b.signIn(bob, password).isPage(200, "/consent")
		if got := b.text("user"); !strings.Contains(got, bob) {
			t.Errorf("asked of %q", got)
		}
	})
}

// A form that lay around for too long is refused in words.
func TestExpiredForm(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open(authorize()).isPage(200, "/login")
		s.clock.set(61 * time.Minute)
		s.settle()
		b.another().open(b.at.String()).isPage(http.StatusBadRequest, "/login")
		b.signIn(ada, password).isPage(http.StatusBadRequest, "/login")
		if !strings.Contains(b.body, "took too long") || b.cookie("session") != "" {
			t.Errorf("the page says %s", b.body)
		}
		b.post("/login", url.Values{"flow": {"AAAA"}}, "same-origin").isPage(http.StatusBadRequest, "/login")
	})
}

// A client that is turned off, or loses its address, between two steps ends
// the flow there.
func TestClientDisabledMidway(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open(authorize()).signIn(ada, password).isPage(200, "/consent")
		if _, err := s.admin.DisableClient(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		s.settle()
		b.press("allow").isPage(http.StatusBadRequest, "/consent")
	})
}

// K2, K4: what the consent page says of the app, and when it always asks.
func TestConsentPage(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		s.client("tool", forPeople, func(c *storage.Client) {
			c.Name, c.AuthMethod, c.FirstParty = "Tool", "none", true
			c.RedirectURIs = []string{"http://127.0.0.1/cb"}
		})
		s.client("app", forPeople, func(c *storage.Client) {
			c.Name, c.AuthMethod, c.RedirectURIs = "App", "none", []string{"com.example.app:/cb"}
		})
		b := s.browser().open("/login").signIn(ada, password)

		b.open(authorize("client_id", "portal", "redirect_uri", "https://portal.example/cb", "scope", "openid profile")).answered("https://portal.example/cb") // of the house: not asked
		for range 2 {                                                                                                                                          // every time
			b.open(authorize("client_id", "tool", "redirect_uri", "http://127.0.0.1:5555/cb")).isPage(200, "/consent")
			if b.node("device-note") == nil || strings.Contains(b.body, "is remembered") || strings.Contains(b.text("scopes"), "before") || b.text("host") == "" || b.text("trust") == "" {
				t.Errorf("a program on this device is not marked: %s", b.body)
			}
			if got := formActions(b); got != "'self' http://127.0.0.1:5555" {
				t.Errorf("form-action %s", got)
			}
			b.press("allow").answered("http://127.0.0.1:5555/cb")
		}
		b.open(authorize("client_id", "app", "redirect_uri", "com.example.app:/cb")).isPage(200, "/consent")
		if got := formActions(b); got != "'self' com.example.app:" || !strings.Contains(b.text("host"), "com.example.app") {
			t.Errorf("form-action %s, host %q", got, b.text("host"))
		}
		if b.node("unverified") != nil {
			t.Error("an app that the operator registered is called unverified")
		}
		b.press("allow")
		if b.left == nil || b.left.Scheme != "com.example.app" || b.left.Query().Get("code") == "" {
			t.Errorf("the app gets %v", b.left)
		}
	})
}

// K2: an app that nobody vouches for is marked, where it asks and where it has
// access.
func TestUnverifiedApp(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		s.client("stranger", forPeople, func(c *storage.Client) { c.Origin, c.FirstParty = "registration", true })
		b := s.browser().open(authorize("client_id", "stranger", "scope", "openid offline_access")).signIn(ada, password).isPage(200, "/consent")
		if b.node("unverified") == nil || !strings.Contains(b.text("trust"), "Not verified") {
			t.Errorf("not marked: %s", b.body)
		}
		b.press("allow").answered(callback)
		if b.open("/account"); !strings.Contains(b.text("app-1-trust"), "Not verified") {
			t.Errorf("not marked: %s", b.text("app-1"))
		}
	})
}

func formActions(b *browser) string {
	_, rest, _ := strings.Cut(b.header.Get("Content-Security-Policy"), "form-action ")
	sources, _, _ := strings.Cut(rest, ";")
	return sources
}

// A28, L17, L18: nothing a request says of itself turns up unescaped, leads
// elsewhere, or changes who we are.
func TestHostileRequests(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser()
		markup := `"><script>alert(1)</script>`
		b.open(authorize("login_hint", markup, "ui_locales", "de "+markup)).isPage(200, "/login")
		if strings.Contains(b.body, "<script>") || attr(b.node("username"), "value") != markup {
			t.Errorf("the hint is not escaped: %s", b.body)
		}
		if !strings.Contains(b.body, `lang="de"`) {
			t.Error("ui_locales is not followed")
		}
		known, unknown := b.another().open(authorize("login_hint", ada)), b.another().open(authorize("login_hint", "xyz"))
		if strings.Replace(known.text("login"), ada, "", 1) != strings.Replace(unknown.text("login"), "xyz", "", 1) {
			t.Error("the page tells whether the hint names somebody")
		}

		for _, to := range []string{"//evil.example", `/\evil.example`, "https:evil.example", "%0d%0aLocation:x", "javascript:alert(1)", "https://evil.example"} {
			query := "?" + url.Values{"return_to": {to}, "rd": {to}, "next": {to}, "redirect_uri": {to}, "post_logout_redirect_uri": {to}}.Encode()
			b := s.browser().open("/login" + query)
			b.signIn(ada, password).isPage(200, "/account")
			b.open("/logout"+query).press("submit").isPage(200, "/logout/confirm")
			if strings.Contains(b.body, "evil") || strings.Contains(b.body, "javascript") {
				t.Errorf("%s turns up: %s", to, b.body)
			}
		}

		for name, value := range map[string]string{
			"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example;proto=https", "X-Original-URL": "/evil",
		} {
			plain, forged := s.get(authorize()), s.get(authorize(), name, value)
			if forged.status != plain.status || strings.Contains(forged.header.Get("Location"), "evil") || !strings.HasPrefix(forged.header.Get("Location"), "/login?") {
				t.Errorf("%s: to %s", name, forged.header.Get("Location"))
			}
			if strings.Contains(forged.header.Get("Set-Cookie"), "Secure") || strings.Contains(forged.header.Get("Set-Cookie"), "Domain") {
				t.Errorf("%s: cookie %s", name, forged.header.Get("Set-Cookie"))
			}
		}
		req, err := http.NewRequest(http.MethodGet, s.url+authorize("prompt", "none"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "evil.example"
		a := s.do(req)
		location, err := url.Parse(a.header.Get("Location"))
		if err != nil || location.Query().Get("iss") != s.issuer || strings.Contains(a.header.Get("Location"), "evil") {
			t.Errorf("Host: evil.example leads to %s", a.header.Get("Location"))
		}
	})
}

// The database away is a page that says so, not a fault of the person's.
func TestAuthorizeWithoutDatabase(t *testing.T) {
	s := newSite(t, openStore(t, "sqlite"), options{policy: func(p *provider.Policy) { p.RequestTimeout = time.Second }})
	s.people()
	b := s.browser().open(authorize()).isPage(200, "/login")
	s.store.Close()
	b.signIn(ada, password).isPage(http.StatusServiceUnavailable, "/login")
	if b.header.Get("Retry-After") == "" || b.text("advice") == "" {
		t.Errorf("Retry-After %q: %s", b.header.Get("Retry-After"), b.body)
	}
}

// interposed does something just before the next change that a provider makes.
type interposed struct {
	storage.Store
	next atomic.Pointer[func()]
}

func (s *interposed) Update(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	if first := s.next.Swap(nil); first != nil {
		(*first)()
	}
	return s.Store.Update(ctx, fn)
}

// What changes in the very moment in which a person decides leads to a page,
// not to a fault of ours.
func TestChangedWhileDeciding(t *testing.T) {
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			store := &interposed{Store: openStore(t, engine)}
			s := newSite(t, store, options{})
			s.people()
			s.client("brief", forPeople)
			s.admin = provider.NewAdmin(provider.AdminConfig{ // which is not interposed
				Store: store.Store, Ring: func(context.Context) (*keys.Ring, error) { return s.ring, nil },
				Policy: provider.DefaultPolicy(), Now: s.clock.now, Actor: "operator", Issuer: s.issuer,
			})
			must := func(_ any, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			meanwhile := func(f func()) { store.next.Store(&f) }

			b := s.browser().open(authorize()).signIn(ada, password).isPage(200, "/consent")
			meanwhile(func() { must(s.admin.DisableUser(t.Context(), ada)) })
			b.press("allow").isPage(200, "/login") // signed out by then
			must(s.admin.EnableUser(t.Context(), ada))
			b.signIn(ada, password).isPage(200, "/consent").press("allow").answered(callback)

			// The same where nobody is asked.
			c := b.another()
			meanwhile(func() { must(s.admin.DisableUser(t.Context(), ada)) })
			c.open(authorize()).isPage(200, "/login")
			must(s.admin.EnableUser(t.Context(), ada))
			c.signIn(ada, password).answered(callback)

			c.open(authorize("client_id", "brief")).isPage(200, "/consent")
			meanwhile(func() { must(nil, s.admin.DeleteClient(t.Context(), "brief")) })
			c.press("allow").isPage(http.StatusBadRequest, "/consent")
			if c.text("request-id") == "" {
				t.Errorf("the page says %s", c.body)
			}
			if log := s.log.String(); strings.Contains(log, `"level":"ERROR"`) {
				t.Errorf("logged as a fault: %s", log)
			}
		})
	}
}

// A8: a code lives for a minute.
func TestCodeLifetime(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser().open(authorize()).signIn(ada, password)
		b.press("allow").answered(callback)
		var passed time.Duration
		for _, tc := range []struct{ age, status int }{{50, http.StatusOK}, {60, http.StatusBadRequest}} {
			code := b.open(authorize()).answered(callback).Get("code")
			passed += time.Duration(tc.age) * time.Second
			s.clock.set(passed)
			s.settle()
			if a := s.redeem(secret, code); a.status != tc.status {
				t.Errorf("after %d seconds: %d %s", tc.age, a.status, a.body)
			}
		}
	})
}
