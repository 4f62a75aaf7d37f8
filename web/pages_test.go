package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/web"
)

// openToAnySite are the endpoints that other sites may post to. Everything
// else is a page, and only pages of ours may post to it.
var openToAnySite = []string{"/token", "/userinfo", "/revoke", "/introspect", "/par", "/authorize", "/logout"}

// L15: the router is walked: a form from elsewhere is refused everywhere.
func TestCrossSiteForms(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open("/login").signIn(ada, password)
		session := b.sessionName() + "=" + b.cookie("session")
		posts := 0
		err := chi.Walk(s.public.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
			if method != http.MethodPost || slices.Contains(openToAnySite, route) {
				return nil
			}
			posts++
			for name, header := range map[string][]string{
				"another site":               {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
				"a sister":                   {"Sec-Fetch-Site", "same-site", "Origin", "https://sister.example"},
				"an origin it hides":         {"Sec-Fetch-Site", "cross-site", "Origin", "null"},
				"an old browser":             {"Origin", "https://evil.example"},
				"an old browser, hidden":     {"Origin", "null"},
				"another port of this host":  {"Origin", "http://127.0.0.1:1"},
				"no browser, without a form": {},
			} {
				header = append(header, "Cookie", session, "Content-Type", formType)
				a := s.send(http.MethodPost, route, "decision=allow&session=x&client=shop&account=current", header...)
				noForm := name == "no browser, without a form" && (a.status == http.StatusBadRequest || a.status == http.StatusConflict)
				if a.status != http.StatusForbidden && !noForm {
					t.Errorf("POST %s from %s: %d", route, name, a.status)
				}
			}
			return nil
		})
		if err != nil || posts < 10 {
			t.Fatalf("walked %d forms: %v", posts, err)
		}
		if b.open("/account").status != http.StatusOK {
			t.Error("the session did not survive")
		}
	})
}

// L16: nobody is signed in to somebody else's account by a form that was not
// shown in this browser.
func TestSignInOfAnother(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		attacker := s.browser().open("/login")
		action, fields := attacker.form("submit")
		fields.Set("username", bob)
		fields.Set("password", password)
		for name, victim := range map[string]*browser{"new": s.browser(), "with a page of its own": s.browser().open("/login")} {
			t.Run(name, func(t *testing.T) {
				victim.post(action, fields, "same-origin").isPage(http.StatusForbidden, "/login")
				if victim.cookie("session") != "" {
					t.Error("the victim is signed in as the attacker")
				}
			})
		}
		flow := s.browser().open(authorize())
		action, fields = flow.form("submit")
		victim := s.browser().open(authorize())
		victim.post(action, with(fields, "username", bob, "password", password), "same-origin").isPage(http.StatusBadRequest, "/login")
	})
}

// T1–T3, A19, A20: what every page says to the browser.
func checkPageHeaders(t *testing.T, path string, h http.Header, body string) {
	t.Helper()
	policy := h.Get("Content-Security-Policy")
	if !regexp.MustCompile(`^default-src 'none'; script-src 'none'; style-src 'self'; img-src 'self'; form-action [^;*]+; frame-ancestors 'none'; base-uri 'none'$`).MatchString(policy) {
		t.Errorf("%s: Content-Security-Policy %s", path, policy)
	}
	referrer := "no-referrer"
	if strings.Contains(policy, "form-action 'self'") { // a form of ours
		referrer = "same-origin"
	}
	for name, want := range map[string]string{
		"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": referrer, "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8", "Access-Control-Allow-Origin": "",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), want)
		}
	}
	if h.Get("Permissions-Policy") == "" || fromElsewhere(body) || strings.Contains(body, "style=") {
		t.Errorf("%s: Permissions-Policy %q, or something from elsewhere", path, h.Get("Permissions-Policy"))
	}
}

// fromElsewhere says whether a page loads anything from another host.
func fromElsewhere(body string) bool {
	return regexp.MustCompile(`<(link|script|img|iframe|object|embed|source|audio|video)\b[^>]*\b(href|src|srcset|data)="([a-z]+:)?//`).MatchString(body)
}

// checkRedirectHeaders: what leads from page to page may carry a code or a flow.
func checkRedirectHeaders(t *testing.T, path string, status int, h http.Header) {
	t.Helper()
	if status != http.StatusSeeOther || h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" { // A6
		t.Errorf("%s: redirects by %d, Cache-Control %q, Referrer-Policy %q", path, status, h.Get("Cache-Control"), h.Get("Referrer-Policy"))
	}
}

func TestPageHeaders(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser()
		check := func(b *browser, form bool) {
			t.Helper()
			checkPageHeaders(t, b.at.Path, b.header, b.body)
			if got := strings.HasPrefix(formActions(b), "'self'"); got != form {
				t.Errorf("%s: form-action %s", b.at.Path, formActions(b))
			}
			for _, hop := range b.hops[:len(b.hops)-1] {
				checkRedirectHeaders(t, hop.Request.URL.Path, hop.StatusCode, hop.Header)
			}
		}
		check(b.open("/"), false)
		check(b.open("/nothing"), false)
		check(b.open("/login"), true)
		check(b.open(authorize("client_id", "")), false)
		check(b.open(authorize()), true)
		if got := formActions(b); got != "'self' https://shop.example" {
			t.Errorf("form-action %s", got)
		}
		check(b.signIn(ada, "a wrong heron at dawn"), true)
		check(b.signIn(ada, password), true)
		check(b.open(authorize("prompt", "select_account")), true)
		check(b.open("/account"), true)
		check(b.open("/account/password"), true)
		check(b.open("/logout"), true)
		check(b.press("submit"), false)
	})
}

// T1–T3 by a walk of the router: whatever a route is asked, by whomever, what
// looks like a page has the headers of a page, what is an error says which
// request it was and shows a way back, and nothing is our fault.
func TestEveryRoute(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open(authorize()).signIn(ada, password).isPage(200, "/consent")
		flow := "flow=" + url.QueryEscape(b.at.Query().Get("flow"))
		in := b.sessionName() + "=" + b.cookie("session") + "; " + b.bindingName() + "=" + b.cookie("browser")
		pages, errors, redirects := 0, 0, 0
		err := chi.Walk(s.public.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
			if method != http.MethodGet && method != http.MethodPost || route == provider.PathFeedStream { // which does not end
				return nil
			}
			for _, cookies := range []string{"", in, strings.Replace(in, b.cookie("session"), "forged", 1)} {
				for _, parameters := range []string{"", flow, "flow=x", "link=x&decision=stay", "%zz", "client_id=nobody", "csrf=x&session=x&client=x"} {
					path, body := route, parameters
					if method == http.MethodGet {
						path, body = route+"?"+parameters, ""
					}
					a := s.send(method, path, body, "Accept", "text/html", "Content-Type", formType, "Sec-Fetch-Site", "same-origin", "Cookie", cookies)
					name := method + " " + path
					switch {
					case a.status >= 500:
						t.Errorf("%s: %d %s", name, a.status, a.body)
					case a.status >= 300 && a.status < 400:
						redirects++
						checkRedirectHeaders(t, name, a.status, a.header)
					case strings.HasPrefix(a.header.Get("Content-Type"), "text/html"):
						pages++
						checkPageHeaders(t, name, a.header, a.body)
						if a.status >= 400 && a.status != http.StatusUnprocessableEntity {
							errors++
							page := &browser{t: t, site: s, tab: tab{body: a.body}}
							if page.text("request-id") != a.header.Get("X-Request-Id") || page.text("advice") == "" || attr(page.node("home"), "href") != "/" {
								t.Errorf("%s: %d without its request, advice or way back: %s", name, a.status, a.body)
							}
						}
					case a.header.Get("Access-Control-Allow-Origin") == "" && a.status >= 400 && a.json == nil:
						t.Errorf("%s: %d, neither a page nor JSON: %s", name, a.status, a.body)
					}
				}
			}
			return nil
		})
		if err != nil || pages < 100 || errors < 50 || redirects < 20 {
			t.Fatalf("walked %d pages, %d of them errors, and %d redirects: %v", pages, errors, redirects, err)
		}
	})
}

// L12: cookies, on http and on https.
func TestCookies(t *testing.T) {
	s := newSite(t, openStore(t, "sqlite"), options{})
	s.people()
	b := s.browser().open("/login").signIn(ada, password)
	var all []*http.Cookie
	for _, hop := range b.hops {
		all = append(all, hop.Cookies()...)
	}
	all = append(all, s.browser().open("/login").hops[0].Cookies()...)
	if len(all) != 3 {
		t.Fatalf("cookies %v", all)
	}
	for _, c := range all {
		if !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || len(c.Value) > 512 || len(c.Value) < 22 {
			t.Errorf("cookie %v", c)
		}
		if !regexp.MustCompile(`^signet-(browser|session|device)-[0-9a-f]{8}$`).MatchString(c.Name) {
			t.Errorf("cookie %s", c.Name)
		}
		if wantAge := map[bool]int{true: 365 * 24 * 3600}[strings.Contains(c.Name, "device")]; c.MaxAge != wantAge {
			t.Errorf("%s lives %d s", c.Name, c.MaxAge)
		}
	}

	issuer, err := provider.ParseIssuer("https://login.example")
	if err != nil {
		t.Fatal(err)
	}
	secure := web.New(web.Config{Issuer: issuer, Provider: s.provider, RequestTimeout: provider.DefaultPolicy().RequestTimeout,
		Registerer: prometheus.NewRegistry(), Gatherer: s.metrics, Log: s.logger, Now: s.clock.now}).Public()
	w := httptest.NewRecorder()
	secure.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://login.example/login", nil))
	c := w.Result().Cookies()
	if len(c) != 1 || !strings.HasPrefix(c[0].Name, "__Host-signet-browser-") || !c[0].Secure || c[0].Path != "/" || c[0].Domain != "" {
		t.Errorf("on https: %v", c)
	}
	if got := w.Header().Get("Strict-Transport-Security"); !strings.Contains(got, "max-age=63072000") {
		t.Errorf("Strict-Transport-Security %q", got)
	}

	// The forms of a page are taken behind a proxy that changes the Host header.
	w = httptest.NewRecorder()
	form := httptest.NewRequest(http.MethodPost, "http://10.0.0.1:8080/login", strings.NewReader(url.Values{}.Encode()))
	form.Header.Set("Content-Type", formType)
	form.Header.Set("Origin", "https://login.example")
	form.Header.Set("Accept", "application/json")
	secure.ServeHTTP(w, form)
	if w.Code != http.StatusForbidden || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("a form without its proof: %d", w.Code)
	}
}

// A 405 says what there is instead (RFC 9110 §15.5.6).
func TestMethodNotAllowed(t *testing.T) {
	s := newSite(t, openStore(t, "sqlite"), options{})
	for path, want := range map[string]string{"/login": "GET, POST", "/account": "GET", "/account/sessions/end": "POST"} {
		a := s.send(http.MethodPut, path, "", "Sec-Fetch-Site", "same-origin")
		if got := strings.Join(a.header.Values("Allow"), ", "); a.status != http.StatusMethodNotAllowed || got != want {
			t.Errorf("PUT %s: %d, Allow %q, want %q", path, a.status, got, want)
		}
	}
}
