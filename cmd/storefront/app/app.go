// Package app is a small web shop, the example to copy: a relying party that
// signs people in with OpenID Connect and orders in their name at an API. Start
// reading at routes, then signin.go.
//
// It keeps nothing on the server. Who is signed in, and the tokens that go with
// it, are in a cookie that only the shop can read (session.go), so any number
// of copies may run side by side. The price: a session can't be looked up and
// ended from the server's side. What it may do is the provider's to say, each
// time it needs a new access token.
package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"golang.org/x/oauth2"
)

const (
	maxForm = 16 << 10         // bytes of a form
	patient = 10 * time.Second // how long the shop waits for the provider or the API
)

// Config says what the shop needs to run. All fields but the last four are
// required.
type Config struct {
	Issuer       string // the provider's URL, exactly as its metadata has it
	ClientID     string // as the shop is registered with the provider
	ClientSecret string
	URL          string // where browsers reach the shop, without a path
	Orders       string // URL of the orders API, which is its resource identifier as well (RFC 8707)
	Key          []byte // 32 random bytes that seal the cookies; the same for all copies of the shop

	FormPost   bool             // take the provider's answer as a POST (OAuth 2.0 Form Post Response Mode)
	AccountURL string           // the provider's page on which a person withdraws access; "" shows no link to it
	Log        *slog.Logger     // nil: no logs
	HTTPClient *http.Client     // reaches provider and API; nil: a new one
	Now        func() time.Time // nil: time.Now
}

// App is the running shop.
type App struct {
	issuer     string
	oauth      oauth2.Config // without the endpoints, which discovery tells
	orders     string
	formPost   bool
	accountURL string
	url        *url.URL
	cookies    cookies
	seal       sealer
	pages      map[string]*template.Template
	stylesheet []byte
	version    string // of the stylesheet
	client     *http.Client
	log        *slog.Logger
	now        func() time.Time

	discovery sync.Mutex
	found     *provider // nil until the provider has answered once

	mu      sync.Mutex
	flights map[string]*flight // redemptions and refreshes, by code and verifier or refresh token
}

// provider is what discovery has found.
type provider struct {
	*oidc.Provider
	EndSession string `json:"end_session_endpoint"`
	Revocation string `json:"revocation_endpoint"`
	NamesIss   bool   `json:"authorization_response_iss_parameter_supported"` // RFC 9207 §3
}

//go:embed pages static
var files embed.FS

// New returns the shop, or an error that says what of the configuration cannot
// be used. The provider is asked for its metadata when it is first needed: one
// that is down is no error.
func New(config Config) (*App, error) {
	home, err := url.Parse(config.URL)
	if err != nil || home.Host == "" || home.Scheme != "https" && home.Scheme != "http" || home.Path != "" {
		return nil, fmt.Errorf("URL %q: want the shop's address without a path, as https://shop.example", config.URL)
	}
	a := &App{
		issuer: config.Issuer,
		oauth: oauth2.Config{
			ClientID: config.ClientID, ClientSecret: config.ClientSecret, RedirectURL: config.URL + "/callback",
			Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess, "orders:read", "orders:write"},
		},
		orders:     config.Orders,
		formPost:   config.FormPost,
		accountURL: config.AccountURL,
		url:        home,
		cookies:    newCookies(home),
		client:     cmp.Or(config.HTTPClient, &http.Client{Timeout: patient}),
		log:        cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
		now:        config.Now,
		flights:    make(map[string]*flight),
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.seal, err = newSealer(config.Key); err != nil {
		return nil, err
	}
	if a.stylesheet, err = files.ReadFile("static/shop.css"); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(a.stylesheet)
	a.version = hex.EncodeToString(sum[:6])
	a.pages, err = parsePages()
	return a, err
}

// parsePages reads each page together with the layout all share.
func parsePages() (map[string]*template.Template, error) {
	layout, err := template.ParseFS(files, "pages/layout.html")
	if err != nil {
		return nil, err
	}
	pages := make(map[string]*template.Template)
	for _, name := range []string{"home", "orders", "profile", "refused", "signed-out"} {
		page, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if pages[name], err = page.ParseFS(files, "pages/"+name+".html"); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// Handler returns the whole shop.
func (a *App) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(a.record, a.headers, limitBody, a.crossOrigin().Handler, middleware.GetHead)
	r.NotFound(a.notFound)
	r.MethodNotAllowed(a.methodNotAllowed(r))

	r.Get("/", a.home)
	r.Get("/orders", a.list)
	r.Post("/orders", a.place)
	r.Get("/profile", a.profile)

	r.Get("/signin", a.signIn)
	r.Get("/initiate", a.initiate)
	r.Post("/initiate", a.initiate)
	r.Get("/callback", a.callback)
	r.Post("/callback", a.postCallback)
	r.Post("/signout", a.signOut)
	r.Get("/signed-out", a.signedOut)

	r.Get("/static/shop.css", a.style)
	r.Get("/livez", live)
	r.Get("/readyz", a.ready)
	return r
}

// crossOrigin keeps other sites from posting the shop's forms. The provider
// posts its answer to the callback, which therefore does nothing but pass it on.
func (a *App) crossOrigin() *http.CrossOriginProtection {
	p := http.NewCrossOriginProtection()
	p.AddInsecureBypassPattern("POST /callback")
	p.AddInsecureBypassPattern("POST /initiate") // which is as good as a link
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, a.session(r), &refusal{status: http.StatusForbidden, Title: "This came from another site",
			Advice: "The shop takes its own forms only. Nothing was done."})
	}))
	if err := p.AddTrustedOrigin(a.url.String()); err != nil {
		panic(err) // New has looked at it
	}
	return p
}

// discover returns what the provider says of itself, asking it once.
func (a *App) discover(ctx context.Context) (*provider, error) {
	a.discovery.Lock()
	defer a.discovery.Unlock()
	if a.found != nil {
		return a.found, nil
	}
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, a.client), a.issuer)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	p := &provider{Provider: found}
	if err := found.Claims(p); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	a.found = p
	return p, nil
}

// headers fit every page: it is one person's own, nothing but our stylesheet
// loads, nobody frames it. Signing out redirects a form to the provider, which
// browsers hold form-action against.
func (a *App) headers(next http.Handler) http.Handler {
	forms := "'self'"
	if u, err := url.Parse(a.issuer); err == nil {
		forms += " " + u.Scheme + "://" + u.Host
	}
	policy := "default-src 'none'; style-src 'self'; img-src 'self'; form-action " + forms + "; frame-ancestors 'none'; base-uri 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		if a.url.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=63072000")
		}
		next.ServeHTTP(w, r)
	})
}

func limitBody(next http.Handler) http.Handler { return http.MaxBytesHandler(next, maxForm) }

// record logs each request and turns a panic into a 500. It logs the route, not
// the URL: a callback's holds a code.
func (a *App) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			if fault := recover(); fault != nil {
				if fault == http.ErrAbortHandler {
					panic(fault)
				}
				a.log.ErrorContext(r.Context(), "panic", "fault", fault)
				if seen.Status() == 0 {
					http.Error(seen, "Something went wrong here.", http.StatusInternalServerError)
				}
			}
			a.log.InfoContext(r.Context(), "request", "method", r.Method,
				"route", chi.RouteContext(r.Context()).RoutePattern(), "status", seen.Status(), "seconds", time.Since(began).Seconds())
		}()
		next.ServeHTTP(seen, r)
	})
}

func live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// ready says whether people can sign in: the provider has answered once.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	if _, err := a.discover(r.Context()); err != nil {
		a.log.WarnContext(r.Context(), "not ready", "error", err)
		http.Error(w, "The provider has not been reached yet.", http.StatusServiceUnavailable)
		return
	}
	live(w, r)
}

// style serves the stylesheet. Its address changes with its content.
func (a *App) style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.stylesheet)
}

// A page is what every template gets.
type page struct {
	Title   string
	Style   string   // URL of the stylesheet
	Person  *session // nil: nobody is signed in
	Account string   // URL of the provider's account page, or ""
	Key     string   // for the forms of this page, see place
	Data    any      // the page's own
}

// show renders a page. What changed in the session goes out with it.
func (a *App) show(w http.ResponseWriter, status int, name, title string, s *session, data any) {
	var body bytes.Buffer
	if err := a.pages[name].ExecuteTemplate(&body, "layout", page{
		Title: title, Style: "/static/shop.css?v=" + a.version, Person: s, Account: a.accountURL, Key: rand.Text(), Data: data,
	}); err != nil {
		panic(err) // plain structs in, a buffer out: only a bug fails here
	}
	a.save(w, s)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

func (a *App) home(w http.ResponseWriter, r *http.Request) {
	a.show(w, http.StatusOK, "home", "Harbour Street Goods", a.session(r), catalogue())
}

// A refusal is an error that people are told about.
type refusal struct {
	status  int
	Title   string
	Advice  string
	Detail  string // what the other side said, for whoever runs the shop
	SignIn  string // path to come back to after signing in again; "" when that wouldn't help
	Account bool   // the account page is of use
	cause   error
}

func (e *refusal) Error() string {
	if e.cause != nil {
		return e.Title + ": " + e.cause.Error()
	}
	return e.Title
}

func (e *refusal) Unwrap() error { return e.cause }

// refuse shows what went wrong, to whom s is. An error of our own making tells nothing; its
// cause goes to the log.
func (a *App) refuse(w http.ResponseWriter, r *http.Request, s *session, err error) {
	var told *refusal
	if !errors.As(err, &told) {
		told = &refusal{status: http.StatusInternalServerError, Title: "Something went wrong here", Advice: "Try again in a moment."}
		a.log.ErrorContext(r.Context(), "request failed", "error", err)
	} else if told.status >= http.StatusInternalServerError {
		a.log.WarnContext(r.Context(), "refused", "error", err)
	} else {
		a.log.InfoContext(r.Context(), "refused", "error", err)
	}
	if errors.Is(err, errAccessEnded) { // the session's tokens are good for nothing more
		a.forget(w)
		s = nil
	}
	a.show(w, told.status, "refused", told.Title, s, told)
}

func (a *App) notFound(w http.ResponseWriter, r *http.Request) {
	a.refuse(w, r, a.session(r), &refusal{status: http.StatusNotFound, Title: "There is nothing here", Advice: "The address may have a typing mistake in it, or be out of date."})
}

// methodNotAllowed names the methods that are allowed, RFC 9110 §15.5.6.
func (a *App) methodNotAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
				w.Header().Add("Allow", strings.Replace(method, "GET", "GET, HEAD", 1))
			}
		}
		a.refuse(w, r, a.session(r), &refusal{status: http.StatusMethodNotAllowed, Title: "This can't be done that way", Advice: "Start again from the shop's first page."})
	}
}

// A product is something to order.
type product struct {
	ID, Name, About, Price string
}

func catalogue() []product {
	return []product{
		{"lamp", "Desk lamp", "Brass arm, warm light, a switch that clicks.", "€ 64"},
		{"teapot", "Teapot", "Stoneware for four cups, and a lid that stays on.", "€ 38"},
		{"notebook", "Notebook", "Dotted pages, thread-bound, lies flat.", "€ 12"},
		{"blanket", "Wool blanket", "Woven in one piece, warm when damp.", "€ 79"},
		{"bell", "Bicycle bell", "One clear tone, heard around the corner.", "€ 9"},
		{"clock", "Wall clock", "Two hands, no alarm, nothing to charge.", "€ 45"},
	}
}

func findProduct(id string) (product, bool) {
	all := catalogue()
	i := slices.IndexFunc(all, func(p product) bool { return p.ID == id })
	if i < 0 {
		return product{}, false
	}
	return all[i], true
}
