package provider

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
)

func TestBeginAuthorization(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	d.client("native", func(c *storage.Client) {
		c.AuthMethod, c.RedirectURIs = authNone, []string{"http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost/cb?x=y", "com.example.app:/cb", "https://127.0.0.1/tls"}
	})
	d.client("lax", func(c *storage.Client) { c.RequirePKCE = false })
	d.client("two", func(c *storage.Client) { c.RedirectURIs = []string{houseCallback, houseCallback + "2"} })
	must(t, func() error { d.client("off", nil); _, err := d.admin.DisableClient(t.Context(), "off"); return err }())
	d.settle()
	ann := d.signIn("ann")
	id := d.tokens(ann).member("id_token")
	foreign := func() string {
		other := newHouse(t, migrations.SQLite, nil)
		return other.tokens(other.signIn("ann")).member("id_token")
	}()
	long := strings.Repeat("x", 1024)

	const (
		good = ""
		page = "page"
	)
	ask := func(changes ...string) string { return askShop(changes...).Encode() }
	native := func(uri string) string { return ask("client_id", "native", "redirect_uri", uri) }
	for _, tc := range []struct {
		name, query string
		want        string // good, page, or an error code that goes back
		kind        PageKind
	}{
		{"as it should be", ask(), good, 0},
		{"no client_id", ask("client_id", ""), page, PageBadRequest},
		{"unknown client", ask("client_id", "nobody"), page, PageUnknownClient},
		{"disabled client", ask("client_id", "off"), page, PageClientDisabled},
		{"client_id twice", ask() + "&client_id=shop", page, PageBadRequest},
		{"state twice", ask() + "&state=x", page, PageBadRequest},
		{"state too long", ask("state", long+"x"), page, PageBadRequest},
		{"state as long as may be", ask("state", long), good, 0},
		{"no state", ask("state", ""), good, 0},
		{"state of one character", ask("state", "x"), good, 0},
		{"not UTF-8", ask() + "&nonce=%ff", page, PageBadRequest},
		{"scope of 64 KiB", ask("scope", strings.Repeat("a ", 32<<10)), page, PageBadRequest},
		{"scope of 2 KiB", ask("scope", strings.Repeat("openid ", 300)), "invalid_scope", 0},
		{"claims of 64 KiB", ask("claims", strings.Repeat("[", 64<<10)), page, PageBadRequest},
		{"unknown parameter twice", ask() + "&color=1&color=2", good, 0},

		{"redirect_uri in other case", ask("redirect_uri", "https://shop.example/CB"), page, PageBadRedirect},
		{"redirect_uri with a slash", ask("redirect_uri", houseCallback+"/"), page, PageBadRedirect},
		{"redirect_uri with a query", ask("redirect_uri", houseCallback+"?x"), page, PageBadRedirect},
		{"redirect_uri with a fragment", ask("redirect_uri", houseCallback+"#x"), page, PageBadRedirect},
		{"redirect_uri with a port", ask("redirect_uri", "https://shop.example:443/cb"), page, PageBadRedirect},
		{"redirect_uri with a user", ask("redirect_uri", "https://shop.example@evil.example/cb"), page, PageBadRedirect},
		{"redirect_uri with dots", ask("redirect_uri", "https://shop.example/x/../cb"), page, PageBadRedirect},
		{"redirect_uri escaped", ask("redirect_uri", "https://shop.example/%63b"), page, PageBadRedirect},
		{"redirect_uri of another host", ask("redirect_uri", "https://shop.example.evil.example/cb"), page, PageBadRedirect},
		{"no redirect_uri with openid", ask("redirect_uri", ""), page, PageBadRedirect},
		{"no redirect_uri without openid", ask("redirect_uri", "", "scope", "orders:read"), good, 0},
		{"no redirect_uri with two registered", ask("client_id", "two", "redirect_uri", "", "scope", "orders:read"), page, PageBadRedirect},
		{"loopback, any port", native("http://127.0.0.1:49152/cb"), good, 0},
		{"loopback v6, any port", native("http://[::1]:49152/cb"), good, 0},
		{"localhost, any port", native("http://localhost:1/cb?x=y"), good, 0},
		{"private-use scheme", native("com.example.app:/cb"), good, 0},
		{"loopback, other path", native("http://127.0.0.1:49152/cb/"), page, PageBadRedirect},
		{"loopback, other query", native("http://localhost:49152/cb?x=z"), page, PageBadRedirect},
		{"loopback by https", native("https://127.0.0.1:49152/cb"), page, PageBadRedirect},
		{"loopback by registered https, other port", native("https://127.0.0.1:1/tls"), page, PageBadRedirect},
		{"loopback with a user", native("http://x@127.0.0.1:49152/cb"), page, PageBadRedirect},
		{"loopback, other spelling", native("http://0x7f.1:49152/cb"), page, PageBadRedirect},
		{"loopback, bad port", native("http://127.0.0.1:65536/cb"), page, PageBadRedirect},
		{"name that begins like loopback", native("http://127.0.0.1.evil.example/cb"), page, PageBadRedirect},
		{"name that begins like localhost", native("http://localhost.evil.example/cb?x=y"), page, PageBadRedirect},

		{"no response_type", ask("response_type", ""), "invalid_request", 0},
		{"implicit", ask("response_type", "token"), "unsupported_response_type", 0},
		{"hybrid", ask("response_type", "code id_token"), "unsupported_response_type", 0},
		{"fragment", ask("response_mode", "fragment"), "invalid_request", 0},
		{"fragment.jwt", ask("response_mode", "fragment.jwt"), "invalid_request", 0},
		{"form_post", ask("response_mode", "form_post"), good, 0},
		{"query", ask("response_mode", "query"), good, 0},
		{"request object", ask("request", "eyJhbGciOiJub25lIn0.e30."), "invalid_request_object", 0},
		{"request_uri", ask("request_uri", "https://evil.example/r"), "invalid_request_uri", 0},
		{"registration", ask("registration", "{}"), "registration_not_supported", 0},
		{"no challenge", ask("code_challenge", "", "code_challenge_method", ""), "invalid_request", 0},
		{"no challenge where none is needed", ask("client_id", "lax", "code_challenge", "", "code_challenge_method", ""), good, 0},
		{"method without challenge", ask("client_id", "lax", "code_challenge", ""), "invalid_request", 0},
		{"plain", ask("code_challenge_method", "plain"), "invalid_request", 0},
		{"no method", ask("code_challenge_method", ""), "invalid_request", 0},
		{"method in lower case", ask("code_challenge_method", "s256"), "invalid_request", 0},
		{"short challenge", ask("code_challenge", "abc"), "invalid_request", 0},
		{"challenge with padding", ask("code_challenge", strings.Repeat("a", 42)+"="), "invalid_request", 0},
		{"unknown scope", ask("scope", "openid nothing"), "invalid_scope", 0},
		{"scope with a quote", ask("scope", `openid "`), "invalid_scope", 0},
		{"unknown resource", ask("resource", "https://elsewhere.example"), "invalid_target", 0},
		{"relative resource", ask("resource", "/orders"), "invalid_target", 0},
		{"resource with a fragment", ask("resource", houseAPI+"#x"), "invalid_target", 0},
		{"prompt=none login", ask("prompt", "none login"), "invalid_request", 0},
		{"prompt with an unknown value", ask("prompt", "dance"), "invalid_request", 0},
		{"max_age=-1", ask("max_age", "-1"), "invalid_request", 0},
		{"max_age=soon", ask("max_age", "soon"), "invalid_request", 0},
		{"claims is no object", ask("claims", "[1]"), "invalid_request", 0},
		{"claims nested", ask("claims", strings.Repeat(`{"userinfo":`, 200)), "invalid_request", 0},
		{"hint of ours", ask("id_token_hint", id), good, 0},
		{"hint of another issuer's keys", ask("id_token_hint", foreign), "invalid_request", 0},
		{"hint of another client", ask("client_id", "two", "id_token_hint", id), "invalid_request", 0},
		{"hint and claims differ", ask("id_token_hint", id, "claims", `{"id_token":{"sub":{"value":"x"}}}`), "invalid_request", 0},
		{"login_hint too long", ask("login_hint", strings.Repeat("x", 321)), "invalid_request", 0},
		{"too large to carry", ask("state", strings.Repeat("ü", 500), "nonce", strings.Repeat("ü", 250)), "invalid_request", 0},
	} {
		a, err := d.p.BeginAuthorization(t.Context(), httptest.NewRequest(http.MethodGet, "/authorize?"+tc.query, nil))
		var onPage *PageError
		var back *Redirect
		switch {
		case tc.want == good:
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			} else if sealed, err := d.p.SealFlow(a, "browser"); err != nil || len(sealed) > d.p.policy.MaxFlowBytes {
				t.Errorf("%s: sealed to %d bytes, %v", tc.name, len(sealed), err)
			}
		case tc.want == page:
			if !errors.As(err, &onPage) || onPage.Kind != tc.kind {
				t.Errorf("%s: %v", tc.name, err)
			}
		default:
			if !errors.As(err, &back) || back.Params.Get("error") != tc.want || back.Params.Get("iss") != houseIssuer || back.Params.Get("state") == "" {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	}
}

func TestBeginAuthorizationByPost(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	post := func(target, contentType, body string) error {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		_, err := d.p.BeginAuthorization(t.Context(), r)
		return err
	}
	const form = "application/x-www-form-urlencoded"
	if err := post("/authorize", form, askShop().Encode()); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"in the query": post("/authorize?"+askShop().Encode(), form, askShop().Encode()),
		"as JSON":      post("/authorize", "application/json", "{}"),
		"too large":    post("/authorize", form, "client_id="+strings.Repeat("x", 9<<10)),
	} {
		var page *PageError
		if !errors.As(err, &page) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodDelete} {
		_, err := d.p.BeginAuthorization(t.Context(), httptest.NewRequest(method, "/authorize?"+askShop().Encode(), nil))
		var page *PageError
		if !errors.As(err, &page) || page.Kind != PageMethod {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestStateComesBackAsItWas(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	ann := d.signIn("ann")
	for _, state := range []string{"x", "\r\nLocation: https://evil.example/", `</script><script>"'&`, "a b+c%20#?", strings.Repeat("é", 100)} {
		r := d.authorize(ann, askShop("state", state))
		u, err := url.Parse(r.Location(r.Params))
		must(t, err)
		if got := u.Query().Get("state"); got != state || strings.ContainsAny(r.Location(r.Params), "\r\n#") {
			t.Errorf("%q came back as %q in %q", state, got, r.Location(r.Params))
		}
	}
	if r := d.authorize(ann, askShop("state", "")); r.Params.Has("state") {
		t.Errorf("a state out of nowhere: %v", r.Params)
	}
}

func TestFlowIsBoundToItsBrowser(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	a, err := d.begin(askShop())
	must(t, err)
	a.MarkSelected(&SignedIn{Session: storage.Session{ID: "s"}})
	if _, err := d.p.SealFlow(a, ""); err == nil {
		t.Error("a flow under way was sealed for anybody")
	}
	sealed, err := d.p.SealFlow(a, "one")
	must(t, err)
	if got, err := d.p.OpenFlow(t.Context(), sealed, "one"); err != nil || got.ID != a.ID || got.Selected != "s" || !got.BegunAt.Equal(a.BegunAt.Truncate(time.Millisecond)) {
		t.Errorf("%+v %v", got, err)
	}
	for name, try := range map[string]struct {
		sealed string
		b      Binding
	}{
		"another browser": {sealed, "two"}, "no browser": {sealed, ""}, "cut": {sealed[:len(sealed)-1], "one"},
		"changed": {"B" + sealed[1:], "one"}, "empty": {"", "one"}, "a line break": {sealed + "\n", "one"},
	} {
		if _, err := d.p.OpenFlow(t.Context(), try.sealed, try.b); !errors.Is(err, ErrFlowInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.p.OpenLogout(t.Context(), sealed, "one"); !errors.Is(err, ErrFlowInvalid) {
		t.Errorf("opened as a logout: %v", err)
	}
	d.later(d.p.policy.FlowLifetime + time.Second)
	if _, err := d.p.OpenFlow(t.Context(), sealed, "one"); !errors.Is(err, ErrFlowExpired) {
		t.Errorf("after its time: %v", err)
	}
}

// TestApproval: one flow, one code, however often the form is sent; and only
// for whom and for what the form was shown.
func TestApproval(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		ann, bob := d.signIn("ann"), d.signIn("bob")
		form := func(changes ...string) *Authorization {
			t.Helper()
			a, err := d.begin(askShop(changes...))
			must(t, err)
			step, err := d.p.Next(ctx, a, ann)
			must(t, err)
			if step.Kind != StepConsent {
				t.Fatalf("step %d", step.Kind)
			}
			return d.carry(a)
		}
		a := form()
		sealed, err := d.p.SealFlow(a, "browser")
		must(t, err)
		codes := make(map[string]bool)
		for _, r := range together(16, func() reply {
			a, err := d.p.OpenFlow(ctx, sealed, "browser")
			if err != nil {
				return reply{json: map[string]any{"error": err.Error()}}
			}
			r, err := d.p.Approve(ctx, a, ann, true)
			if err != nil {
				return reply{json: map[string]any{"error": err.Error()}}
			}
			return reply{json: map[string]any{"code": r.Params.Get("code")}}
		}) {
			codes[r.member("code")] = true
		}
		if len(codes) != 1 || codes[""] {
			t.Fatalf("codes of one approval: %v", codes)
		}
		for code := range codes {
			if r := d.redeem(code); r.status != http.StatusOK {
				t.Fatal(r.json)
			}
		}
		if _, err := d.p.Approve(ctx, a, ann, true); !errors.Is(err, ErrFlowSpent) {
			t.Errorf("after its code was used: %v", err)
		}

		a = form("prompt", "consent")
		if _, err := d.p.Approve(ctx, a, bob, true); !errors.Is(err, ErrSwitched) {
			t.Errorf("by somebody else: %v", err)
		}
		if r, err := d.p.Approve(ctx, a, ann, false); err != nil || r.Params.Get("error") != "access_denied" || r.Params.Has("code") {
			t.Errorf("refused: %v %v", r, err)
		}
		_, err = d.p.Approve(ctx, a, ann, true)
		must(t, err)
		d.later(d.p.policy.CodeLifetime)
		if _, err := d.p.Approve(ctx, a, ann, true); !errors.Is(err, ErrFlowSpent) {
			t.Errorf("after its code expired: %v", err)
		}

		// The role comes after the form was shown: what it gates was not on it.
		a = form("prompt", "consent", "scope", "openid orders:read orders:report")
		_, err = d.admin.GrantUserRole(ctx, "ann", "orders-admin")
		must(t, err)
		ann = &SignedIn{Session: ann.Session, User: func() storage.User { u, err := d.store.User(ctx, ann.User.ID); must(t, err); return u }()}
		if _, err := d.p.Approve(ctx, a, ann, true); !errors.Is(err, ErrSwitched) {
			t.Errorf("more than was shown: %v", err)
		}
	})
}

func TestConsentIsRememberedPerScope(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		d.client("home", func(c *storage.Client) { c.FirstParty = true })
		d.client("tool", func(c *storage.Client) {
			c.AuthMethod, c.RedirectURIs, c.FirstParty = authNone, []string{"http://127.0.0.1/cb"}, true
		})
		d.settle()
		ann := d.signIn("ann")
		for _, step := range []struct {
			name  string
			ask   []string
			want  StepKind
			error string
		}{
			{"first time", []string{"scope", "openid"}, StepConsent, ""},
			{"again", []string{"scope", "openid"}, StepRedirect, ""},
			{"again, silently", []string{"scope", "openid", "prompt", "none"}, StepRedirect, ""},
			{"a new scope", []string{"scope", "openid email"}, StepConsent, ""},
			{"a new scope, silently", []string{"scope", "openid profile", "prompt", "none"}, StepRedirect, "consent_required"},
			{"both", []string{"scope", "email openid"}, StepRedirect, ""},
			{"of the house", []string{"client_id", "home", "scope", "openid orders:read"}, StepRedirect, ""},
			{"of the house, to go on after signing out", []string{"client_id", "home", "scope", "openid orders:read offline_access"}, StepConsent, ""},
			{"of the house, after that", []string{"client_id", "home", "scope", "openid orders:read offline_access"}, StepRedirect, ""},
			{"on this device", []string{"client_id", "tool", "scope", "openid", "redirect_uri", "http://127.0.0.1:5000/cb"}, StepConsent, ""},
			{"on this device, again", []string{"client_id", "tool", "scope", "openid", "redirect_uri", "http://127.0.0.1:5000/cb"}, StepConsent, ""},
			{"on this device, silently", []string{"client_id", "tool", "scope", "openid", "redirect_uri", "http://127.0.0.1:5000/cb", "prompt", "none"}, StepRedirect, "consent_required"},
		} {
			a, err := d.begin(askShop(step.ask...))
			must(t, err)
			got, err := d.p.Next(t.Context(), a, ann)
			must(t, err)
			if got.Kind != step.want || got.Kind == StepRedirect && got.Redirect.Params.Get("error") != step.error {
				t.Fatalf("%s: %d %v", step.name, got.Kind, got.Redirect)
			}
			if got.Kind == StepConsent {
				_, err := d.p.Approve(t.Context(), d.carry(a), ann, true)
				must(t, err)
			}
		}
	})
}

// TestExpectations: who and how an app expects, from the request to the answer.
func TestExpectations(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	ann, bob := d.signIn("ann"), d.signIn("bob")
	id := d.tokens(ann).member("id_token")
	d.tokens(bob)
	next := func(s *SignedIn, here bool, changes ...string) Step {
		t.Helper()
		a, err := d.begin(askShop(changes...))
		must(t, err)
		if here {
			a.MarkSignedIn(s)
		}
		step, err := d.p.Next(t.Context(), d.carry(a), s)
		must(t, err)
		return step
	}
	for _, tc := range []struct {
		name  string
		step  Step
		kind  StepKind
		error string
	}{
		{"hint of who is there", next(ann, false, "id_token_hint", id), StepRedirect, ""},
		{"hint of another", next(bob, false, "id_token_hint", id), StepLogin, ""},
		{"hint of another, silently", next(bob, false, "id_token_hint", id, "prompt", "none"), StepRedirect, "login_required"},
		{"hint of another, who signed in", next(bob, true, "id_token_hint", id), StepRedirect, "login_required"},
		{"sub by claims", next(bob, false, "claims", `{"id_token":{"sub":{"value":"`+ann.User.ID+`"}}}`), StepLogin, ""},
		{"class that is there", next(ann, false, "claims", `{"id_token":{"acr":{"essential":true,"values":["`+acrPassword+`"]}}}`), StepRedirect, ""},
		{"essential class", next(ann, false, "claims", `{"id_token":{"acr":{"essential":true,"values":["x"]}}}`), StepRedirect, "unmet_authentication_requirements"},
		{"class that would be nice", next(ann, false, "acr_values", "x"), StepRedirect, ""},
		{"prompt=login", next(ann, false, "prompt", "login"), StepLogin, ""},
		{"prompt=login, done", next(ann, true, "prompt", "login"), StepRedirect, ""},
		{"max_age=0", next(ann, false, "max_age", "0"), StepLogin, ""},
		{"prompt=none, nobody there", next(nil, false, "prompt", "none"), StepRedirect, "login_required"},
		{"nobody there", next(nil, false), StepLogin, ""},
		{"prompt=select_account", next(ann, false, "prompt", "select_account"), StepSelect, ""},
	} {
		if tc.step.Kind != tc.kind || tc.kind == StepRedirect && tc.step.Redirect.Params.Get("error") != tc.error {
			t.Errorf("%s: %d %v", tc.name, tc.step.Kind, tc.step.Redirect)
		}
	}
}

// TestFositeIssuesTheCode: without our handler in fosite's chain there is no code.
func TestFositeIssuesTheCode(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	ann := d.signIn("ann")
	d.tokens(ann)
	d.p.fosite.Config.(*fosite.Config).AuthorizeEndpointHandlers = nil
	a, err := d.begin(askShop())
	must(t, err)
	if step, err := d.p.Next(t.Context(), a, ann); err == nil {
		t.Errorf("step %d %v", step.Kind, step.Redirect)
	}
}
