package templates

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
)

var gallery = flag.String("gallery", "", "a directory to write every page to, in every language, to look at")

// TestGallery writes every page to -gallery, to be served at its root and
// looked at; without the flag it shows that they can be rendered.
func TestGallery(t *testing.T) {
	for _, locale := range NewCatalogue().locales {
		for name, page := range samples(locale) {
			html := render(t, page)
			if *gallery != "" {
				write(t, filepath.Join(*gallery, locale.Tag(), name+".html"), html)
			}
		}
	}
	if *gallery != "" {
		write(t, filepath.Join(*gallery, StylesheetRoute), string(Stylesheet))
	}
}

func render(t *testing.T, page templ.Component) string {
	t.Helper()
	var b strings.Builder
	if err := page.Render(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// samples is every page in every state that looks different.
func samples(locale *Locale) map[string]templ.Component {
	now := time.Date(2026, time.November, 23, 14, 3, 0, 0, time.UTC)
	page := Page{Locale: locale, Now: now, RequestID: "01JD9Q2Z7X8V", Nonce: "bm9uY2U"}
	form := Form{Action: "/interaction", Flow: "c2VhbGVk", CSRF: "dG9rZW4"}
	shop := Client{ID: "storefront", Name: "Harbour Street Bookshop", Home: "https://shop.example/", Policy: "https://shop.example/privacy"}
	long := Client{ID: "long", Name: "Sign-in service " + strings.Repeat("of the Extraordinarily Long Name ", 8), Trust: Unverified}
	unbroken := Client{ID: "unbroken", Name: strings.Repeat("x", 300), Trust: Unverified}
	arabic := Client{ID: "arabic", Name: "متجر الكتب <b>(signet)</b>"}

	own := ScopeGroup{Scopes: []Scope{{Name: "openid", Before: true}, {Name: "profile", Before: true}, {Name: "email"}}}
	allowed := ScopeGroup{Scopes: []Scope{{Name: "openid"}, {Name: "profile"}, {Name: "email"}}}
	orders := ScopeGroup{Name: "Orders", Scopes: []Scope{
		{Name: "orders.read", Description: "See what you have ordered"},
		{Name: "orders.write", Description: "Place orders and pay with your stored cards"},
	}}
	everything := ScopeGroup{Scopes: []Scope{{Name: "openid"}, {Name: "profile"}, {Name: "email"}, {Name: "address"}, {Name: "phone"},
		{Name: "groups"}, {Name: "roles"}, {Name: "offline_access"}}}
	wordless := ScopeGroup{Name: "https://a-very-long-subdomain.of-some-service.example.com/with/a/path", Scopes: []Scope{
		{Name: "https://a-very-long-subdomain.of-some-service.example.com/scopes/everything.readwrite"}}}
	day := 24 * time.Hour

	consent := ConsentView{Page: page, Form: form, Client: shop, Username: "ada", Host: "shop.example",
		Groups: []ScopeGroup{own, orders}, Access: Access{Kind: AccessSession, Longest: 14 * day}}
	native := consent
	native.Client, native.OnDevice, native.Host = Client{ID: "cli", Name: "Harbour CLI", Trust: Operator}, true, "127.0.0.1:52814"
	native.Access = Access{Kind: AccessOnce, Longest: 10 * time.Minute}
	unverified := consent
	unverified.Client, unverified.Username, unverified.Host = long, "a.person.with.a.very.long.address@department.of.examples.example", strings.Repeat("sub.", 20)+"example.com"
	unverified.Client.Home, unverified.Client.Policy, unverified.Client.Terms = "https://"+unverified.Host+"/", "https://shop.example/privacy", "https://shop.example/terms"
	unverified.Groups = []ScopeGroup{everything, wordless}
	unverified.Access = Access{Kind: AccessOffline, Idle: 30 * day, Longest: 180 * day}
	published := unverified
	published.Client.Host = strings.Repeat("sub.", 20) + "example.com"
	private := native
	private.Client, private.Host = unbroken, "com.example.app"
	rtl := consent
	rtl.Client, rtl.NewHost = arabic, true

	login := LoginView{Page: page, Form: form, Client: &shop, CanCancel: true}
	hinted := login
	hinted.Username, hinted.Confirm = "ada@example.com", true
	refused := hinted
	refused.Confirm, refused.Problems = false, []Problem{SignInRefused()}
	empty := login
	empty.Client, empty.CanCancel, empty.Problems = nil, false, []Problem{UsernameMissing(), PasswordMissing()}
	throttled := refused
	throttled.Problems = []Problem{Throttled(42 * time.Second)}
	busy := login
	busy.Client, busy.Problems = &long, []Problem{Busy()}

	account := AccountView{Page: page, CSRF: "dG9rZW4", Username: "ada", Email: "ada@example.com", Notice: AccessWithdrawn,
		Sessions: []Session{
			{ID: "s1", Browser: "Firefox", System: "Windows", Address: "192.0.2.17", SignedInAt: now.Add(-3 * time.Hour), LastSeenAt: now, Current: true},
			{ID: "s2", Browser: "Safari", Address: "2001:db8:1234:5678:9abc:def0:1234:5678", SignedInAt: now.Add(-30 * time.Hour), LastSeenAt: now.Add(-25 * time.Minute)},
			{ID: "s3", Address: "198.51.100.4", SignedInAt: now.Add(-12 * day), LastSeenAt: now.Add(-9 * day)},
		},
		Apps: []App{
			{Client: shop, Groups: []ScopeGroup{allowed, orders}, Open: "https://shop.example/login?iss=https%3A%2F%2Fid.example", Since: now.Add(-70 * day), LastUsedAt: now.Add(-2 * time.Hour), Live: true, Remembered: true},
			{Client: Client{ID: "ended", Name: "Harbour Letters", Trust: Registered}, Groups: []ScopeGroup{orders}, Since: now.Add(-9 * day), Remembered: true},
			{Client: native.Client, Groups: []ScopeGroup{orders}, Since: now.Add(-2 * day)},
			{Client: long, Groups: []ScopeGroup{everything, wordless}, Since: now.Add(-time.Minute), Live: true, Offline: true},
			{Client: Client{ID: "https://small.example/client.json", Name: "Small App", Host: "small.example", Trust: Unverified}, Groups: []ScopeGroup{orders}, Since: now.Add(-time.Minute), Live: true, Remembered: true, Once: true},
		},
		EndSession: "/account/sessions/end", EndOthers: "/account/sessions/end-others", Withdraw: "/account/apps/withdraw",
		Password: "/account/password", Logout: "/logout"}
	fresh := account
	fresh.Notice, fresh.Email, fresh.Sessions, fresh.Apps = AccountCreated, "", account.Sessions[:1], nil

	setUp := SetUpView{Page: page, Form: form, First: true, MinPassword: 15}
	invite := setUp
	invite.First, invite.Username, invite.FixedUsername = false, "grace", true
	faulty := setUp
	faulty.Problems = []Problem{NewUsernameMissing(), NewPasswordShort(15), RepeatDiffers()}
	change := ChangePasswordView{Page: page, Form: form, Username: "ada", MinPassword: 15, AccountURL: "/account"}
	required := change
	required.Required = true
	wrong := change
	wrong.Problems = []Problem{CurrentPasswordWrong(), NewPasswordCommon(), NewPasswordPersonal("ada.lovelace")}

	failed := func(kind ErrorKind) ErrorView { return ErrorView{Page: page, Kind: kind} }
	badRedirect := failed(ErrorBadRedirect)
	badRedirect.Developer = []Parameter{{"error", "invalid_request"},
		{"error_description", "The redirect_uri is not one that is registered for this client."},
		{"client_id", "storefront"}, {"redirect_uri", "https://shop.example/callback?" + strings.Repeat("a", 200)}}
	badClient := failed(ErrorBadClient)
	badClient.Developer = badRedirect.Developer[:1]
	expired, otherUser, unavailable := failed(ErrorExpired), failed(ErrorOtherUser), failed(ErrorUnavailable)
	expired.Retry, otherUser.Retry, unavailable.Wait = "/again", "/again", 5*time.Second

	return map[string]templ.Component{
		"login":                    Login(login),
		"login-hinted":             Login(hinted),
		"login-refused":            Login(refused),
		"login-empty":              Login(empty),
		"login-throttled":          Login(throttled),
		"login-busy":               Login(busy),
		"select-account":           SelectAccount(SelectAccountView{Page: page, Form: form, Client: &shop, Username: "ada", Email: "ada@example.com"}),
		"select-account-long":      SelectAccount(SelectAccountView{Page: page, Form: form, Username: unverified.Username, Email: unverified.Username}),
		"consent":                  Consent(consent),
		"consent-native":           Consent(native),
		"consent-private":          Consent(private),
		"consent-unverified":       Consent(unverified),
		"consent-published":        Consent(published),
		"consent-arabic":           Consent(rtl),
		"set-up-first":             SetUp(setUp),
		"set-up-invite":            SetUp(invite),
		"set-up-problems":          SetUp(faulty),
		"change-password":          ChangePassword(change),
		"change-password-required": ChangePassword(required),
		"change-password-problems": ChangePassword(wrong),
		"account":                  Account(account),
		"account-fresh":            Account(fresh),
		"logout":                   Logout(LogoutView{Page: page, Form: form, Client: &shop, Username: "ada"}),
		"logout-own":               Logout(LogoutView{Page: page, Form: form, Username: "ada"}),
		"signed-out":               SignedOut(SignedOutView{Page: page, LoginURL: "/account"}),
		"signed-out-return":        SignedOut(SignedOutView{Page: page, Client: &shop, ReturnURL: "https://shop.example/", LoginURL: "/account"}),
		"form-post": FormPost(FormPostView{Page: page, Client: shop, Action: "https://shop.example/callback",
			Parameters: []Parameter{{"code", "sgc_x"}, {"state", `"></form></script><script>alert(1)</script>`}, {"iss", "https://id.example"}}}),
		"home":                Home(HomeView{Page: page, Issuer: "https://id.example", Discovery: "https://id.example/.well-known/openid-configuration", AccountURL: "/account"}),
		"error-server":        Error(failed(ErrorServer)),
		"error-unavailable":   Error(unavailable),
		"error-not-found":     Error(failed(ErrorNotFound)),
		"error-method":        Error(failed(ErrorMethod)),
		"error-too-many":      Error(failed(ErrorTooMany)),
		"error-forbidden":     Error(failed(ErrorForbidden)),
		"error-bad-client":    Error(badClient),
		"error-bad-redirect":  Error(badRedirect),
		"error-bad-request":   Error(failed(ErrorBadRequest)),
		"error-expired":       Error(expired),
		"error-other-user":    Error(otherUser),
		"error-other-browser": Error(failed(ErrorOtherBrowser)),
		"error-link":          Error(failed(ErrorLink)),
	}
}
