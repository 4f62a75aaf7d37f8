package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"
)

const (
	shopURL   = "https://shop.example"
	issuerURL = "https://id.example"
	ordersURL = "https://orders.example"
	clientID  = "storefront"
	secret    = "the shop's secret & more"
)

// network takes each request to the neighbour its host names, in this process:
// nothing but the test decides what comes before what.
type network map[string]http.Handler

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	handler, ok := n[r.URL.Host]
	if !ok {
		return nil, fmt.Errorf("no host %s", r.URL.Host)
	}
	server := r.Clone(r.Context())
	if server.Body == nil {
		server.Body = http.NoBody
	}
	server.RequestURI, server.Host, server.RemoteAddr = r.URL.RequestURI(), r.URL.Host, "192.0.2.1:1234"
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, server)
	res := w.Result()
	res.Request = r
	return res, nil
}

// street is the shop with its neighbours: a provider and an API that do what
// the test says.
type street struct {
	t       *testing.T
	network network
	app     *App
	key     *ecdsa.PrivateKey
	now     time.Time
	log     *bytes.Buffer

	mu        sync.Mutex
	nonce     string // of the sign-in under way
	challenge string
	current   string // the refresh token that counts
	issued    int
	refreshes []url.Values
	revoked   []string
	orders    []order
	keys      []string // Idempotency-Keys

	claims  func(map[string]any)        // changes the ID token
	info    map[string]any              // what userinfo tells
	refuse  func(w http.ResponseWriter) // refuses refreshes, unless nil
	api     func(w http.ResponseWriter, token string) (answered bool)
	hold    chan struct{} // a refresh waits for it, unless nil
	padding string        // makes tokens larger
}

func newStreet(t *testing.T, alter ...func(*Config)) *street {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &street{t: t, key: key, now: time.Now().Truncate(time.Second), log: &bytes.Buffer{},
		info: map[string]any{"sub": "ada-1", "name": "Ada <Lovelace>", "preferred_username": "ada", "email": "ada@people.example", "email_verified": true}}
	s.network = network{"id.example": http.HandlerFunc(s.provider), "orders.example": http.HandlerFunc(s.ordersAPI)}
	config := Config{
		Issuer: issuerURL, ClientID: clientID, ClientSecret: secret, URL: shopURL, Orders: ordersURL, Key: bytes.Repeat([]byte{7}, 32),
		AccountURL: issuerURL + "/account", HTTPClient: &http.Client{Transport: s.network}, Now: func() time.Time { return s.now },
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	for _, f := range alter {
		f(&config)
	}
	if s.app, err = New(config); err != nil {
		t.Fatal(err)
	}
	s.network["shop.example"] = s.app.Handler()
	return s
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *street) provider(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		reply(w, http.StatusOK, map[string]any{
			"issuer": issuerURL, "authorization_endpoint": issuerURL + "/authorize", "token_endpoint": issuerURL + "/token",
			"jwks_uri": issuerURL + "/jwks", "userinfo_endpoint": issuerURL + "/userinfo", "revocation_endpoint": issuerURL + "/revoke",
			"end_session_endpoint": issuerURL + "/logout?a=b", "id_token_signing_alg_values_supported": []string{"ES256"},
			"authorization_response_iss_parameter_supported": true,
		})
	case "/jwks":
		reply(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: "k", Algorithm: "ES256"}}})
	case "/token":
		s.token(w, r)
	case "/userinfo":
		if r.Header.Get("Authorization") != "Bearer for "+issuerURL+s.padding {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reply(w, http.StatusOK, s.info)
	case "/revoke":
		s.revoked = append(s.revoked, r.PostFormValue("token"))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *street) token(w http.ResponseWriter, r *http.Request) {
	id, given, _ := r.BasicAuth()
	if given, _ = url.QueryUnescape(given); id != clientID || given != secret {
		reply(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	if err := r.ParseForm(); err != nil {
		s.t.Error(err)
	}
	answer := map[string]any{"token_type": "Bearer", "expires_in": 600, "access_token": "for " + r.PostForm.Get("resource") + s.padding}
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		if oauth2.S256ChallengeFromVerifier(r.PostForm.Get("code_verifier")) != s.challenge || r.PostForm.Get("redirect_uri") != shopURL+"/callback" {
			reply(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
			return
		}
		answer["id_token"] = s.idToken()
	case "refresh_token":
		s.mu.Lock()
		hold := s.hold
		s.refreshes = append(s.refreshes, r.PostForm)
		s.mu.Unlock()
		if hold != nil {
			<-hold
		}
		if s.refuse != nil {
			s.refuse(w)
			return
		}
	default:
		s.t.Errorf("grant_type %s", r.PostForm.Get("grant_type"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// This provider forgives no repetition.
	if given := r.PostForm.Get("refresh_token"); given != s.current && r.PostForm.Get("grant_type") == "refresh_token" {
		s.current = "dead"
		reply(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "used before"})
		return
	}
	s.issued++
	s.current = fmt.Sprintf("refresh-%d", s.issued) + s.padding
	answer["refresh_token"] = s.current
	reply(w, http.StatusOK, answer)
}

func (s *street) idToken() string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: s.key, KeyID: "k"}}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	claims := map[string]any{"iss": issuerURL, "sub": "ada-1", "aud": clientID, "nonce": s.nonce,
		"iat": s.now.Unix(), "exp": s.now.Add(time.Minute).Unix()}
	if s.claims != nil {
		s.claims(claims)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func (s *street) ordersAPI(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.api != nil && s.api(w, token) {
		return
	}
	if token != "for "+ordersURL+s.padding {
		reply(w, http.StatusUnauthorized, map[string]string{"detail": "not for this API"})
		return
	}
	if r.Method == http.MethodGet {
		reply(w, http.StatusOK, map[string]any{"items": s.orders})
		return
	}
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		s.t.Error(err)
	}
	o.ID, o.CreatedAt = fmt.Sprintf("order-%d", len(s.orders)), s.now
	s.orders, s.keys = append(s.orders, o), append(s.keys, r.Header.Get("Idempotency-Key"))
	reply(w, http.StatusCreated, o)
}

// A browser keeps cookies and follows redirects within the shop.
type browser struct {
	*street
	jar    http.CookieJar
	status int
	header http.Header
	body   string
	at     *url.URL // the page, or where a redirect leads away to
}

func (s *street) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{street: s, jar: jar}
}

// send makes one request. A cross-site POST goes without Lax cookies, as from
// a real browser.
func (b *browser) send(method, path string, form url.Values, site string) *browser {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, shopURL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", site)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if method == http.MethodGet || site != "cross-site" {
		for _, c := range b.jar.Cookies(req.URL) {
			req.AddCookie(c)
		}
	}
	res, err := b.network.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.jar.SetCookies(req.URL, res.Cookies())
	b.status, b.header, b.body, b.at = res.StatusCode, res.Header, string(body), req.URL
	if to := res.Header.Get("Location"); to != "" {
		if b.at, err = req.URL.Parse(to); err != nil {
			b.t.Fatal(err)
		}
	}
	return b
}

func (b *browser) get(path string) *browser {
	b.t.Helper()
	b.send(http.MethodGet, path, nil, "same-origin")
	for b.status == http.StatusSeeOther && b.at.Host == "shop.example" {
		b.send(http.MethodGet, b.at.RequestURI(), nil, "same-origin")
	}
	return b
}

func (b *browser) post(path string, form url.Values) *browser {
	b.t.Helper()
	b.send(http.MethodPost, path, form, "same-origin")
	if b.status == http.StatusSeeOther && b.at.Host == "shop.example" {
		b.get(b.at.RequestURI())
	}
	return b
}

// begin starts a sign-in and returns the answer of a provider that is content.
func (b *browser) begin(to string) url.Values {
	b.t.Helper()
	b.send(http.MethodGet, "/signin?to="+url.QueryEscape(to), nil, "none")
	if b.status != http.StatusSeeOther || b.at.Host != "id.example" {
		b.t.Fatalf("%d to %s", b.status, b.at)
	}
	q := b.at.Query()
	b.nonce, b.challenge = q.Get("nonce"), q.Get("code_challenge")
	return url.Values{"code": {"a-code"}, "state": {q.Get("state")}, "iss": {issuerURL}}
}

func (b *browser) signIn() *browser {
	b.t.Helper()
	b.get("/callback?" + b.begin("/").Encode())
	if b.status != http.StatusOK || !b.signedIn() {
		b.t.Fatalf("not signed in: %d %s", b.status, b.body)
	}
	return b
}

// signedIn says what the first page says.
func (b *browser) signedIn() bool {
	b.t.Helper()
	return b.get("/").has("sign-out")
}

func (b *browser) node(id string) *html.Node {
	b.t.Helper()
	root, err := html.Parse(strings.NewReader(b.body))
	if err != nil {
		b.t.Fatal(err)
	}
	for n := range root.Descendants() {
		if slices.Contains(n.Attr, html.Attribute{Key: "id", Val: id}) {
			return n
		}
	}
	return nil
}

func (b *browser) has(id string) bool { return b.node(id) != nil }

func (b *browser) text(id string) string {
	b.t.Helper()
	var words []string
	if n := b.node(id); n != nil {
		for d := range n.Descendants() {
			if d.Type == html.TextNode {
				words = append(words, strings.Fields(d.Data)...)
			}
		}
	}
	return strings.Join(words, " ")
}

// cookies returns those whose name has the part in it.
func (b *browser) cookies(part string) (found []*http.Cookie) {
	u, _ := url.Parse(shopURL)
	for _, c := range b.jar.Cookies(u) {
		if strings.Contains(c.Name, part) {
			found = append(found, c)
		}
	}
	return found
}

func TestSignInAndOrder(t *testing.T) {
	s := newStreet(t)
	b := s.browser()
	if b.get("/").status != http.StatusOK || b.has("sign-out") || b.has("order-lamp") || !b.has("sign-in") {
		t.Fatalf("before: %d %s", b.status, b.body)
	}
	answer := b.begin("/orders")
	q := b.at.Query()
	want := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {shopURL + "/callback"},
		"scope": {"openid profile email offline_access orders:read orders:write"}, "resource": {ordersURL, issuerURL}, "code_challenge_method": {"S256"}}
	for name, values := range want {
		if !slices.Equal(q[name], values) {
			t.Errorf("%s is %q, want %q", name, q[name], values)
		}
	}
	if len(q.Get("state")) < 22 || len(q.Get("nonce")) < 22 || len(q.Get("code_challenge")) != 43 || q.Has("response_mode") {
		t.Errorf("asked for %s", b.at)
	}
	b.get("/callback?" + answer.Encode())
	if b.status != http.StatusOK || b.at.Path != "/orders" || !b.has("no-orders") || b.text("nav-profile") != "Ada <Lovelace>" {
		t.Fatalf("after: %d at %s: %s", b.status, b.at, b.body)
	}
	b.post("/orders", url.Values{"product": {"lamp"}, "quantity": {"2"}, "key": {"k1"}})
	if b.at.Path != "/orders" || b.text("placed") != "Thank you. 2 × Desk lamp is ordered." || !strings.Contains(b.text("orders"), "2 × Desk lamp") {
		t.Errorf("ordered: %s", b.body)
	}
	if len(s.orders) != 1 || s.orders[0].Item != "Desk lamp" || s.orders[0].Quantity != 2 || s.keys[0] != "k1" {
		t.Errorf("the API got %+v %q", s.orders, s.keys)
	}
	b.get("/profile")
	if b.text("name") != "Ada <Lovelace>" || b.text("username") != "ada" || b.text("email") != "ada@people.example (verified)" || b.text("sub") != "ada-1" {
		t.Errorf("profile: %s", b.body)
	}
	for _, refreshed := range s.refreshes {
		if len(refreshed["resource"]) != 1 {
			t.Errorf("a token for several: %v", refreshed)
		}
	}
	for _, private := range []string{"refresh-", "for https", "a-code", secret, b.cookies("session")[0].Value} {
		if strings.Contains(s.log.String(), private) {
			t.Errorf("%q is in the log:\n%s", private, s.log)
		}
	}
	if strings.Contains(b.cookies("session")[0].Value, "refresh") || len(b.cookies("signin")) != 0 {
		t.Errorf("cookies: %v", b.jar)
	}
}

// A sign-in goes back to pages of the shop, and to no other address.
func TestReturnTo(t *testing.T) {
	s := newStreet(t)
	for to, want := range map[string]string{"": "/", "/orders": "/orders", "//evil.example": "/", "https://evil.example": "/", "/\\evil.example": "/", "/orders/../x": "/"} {
		b := s.browser()
		b.send(http.MethodGet, "/callback?"+b.begin(to).Encode(), nil, "cross-site")
		if b.status != http.StatusSeeOther || b.at.String() != shopURL+want {
			t.Errorf("%q leads to %d %s", to, b.status, b.at)
		}
	}
}

// Others may have the shop begin a sign-in (OIDC Core §4): at its own provider,
// and to go on to a page of its own.
func TestInitiate(t *testing.T) {
	s := newStreet(t)
	for _, test := range []struct {
		name, iss, target string
		want              string // the page that is shown in the end, or "" for a refusal
	}{
		{"nothing but the issuer", issuerURL, "", "/"},
		{"a page of the shop", issuerURL, shopURL + "/orders", "/orders"},
		{"a page that is not for it", issuerURL, shopURL + "/signout", "/"},
		{"another site", issuerURL, "https://evil.example/orders", "/"},
		{"another scheme", issuerURL, "ftp://shop.example/orders", "/"},
		{"a site that looks alike", issuerURL, shopURL + "@evil.example/orders", "/"},
		{"another port", issuerURL, shopURL + ":444/orders", "/"},
		{"no URL", issuerURL, "%zz", "/"},
		{"a path alone", issuerURL, "//evil.example/orders", "/"},
		{"another issuer", "https://evil.example", "", ""},
		{"an issuer that looks alike", issuerURL + "/", "", ""},
		{"no issuer", "", shopURL + "/orders", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			form := url.Values{"iss": {test.iss}, "target_link_uri": {test.target}, "login_hint": {"ada"}}
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				b := s.browser()
				path, body := "/initiate?"+form.Encode(), url.Values(nil)
				if method == http.MethodPost {
					path, body = "/initiate", form
				}
				b.send(method, path, body, "cross-site")
				if test.want == "" {
					if b.status != http.StatusBadRequest {
						t.Errorf("%s: %d to %s", method, b.status, b.at)
					}
					continue
				}
				if b.status != http.StatusSeeOther || b.at.Host != "shop.example" {
					t.Fatalf("%s: %d to %s", method, b.status, b.at)
				}
				b.send(http.MethodGet, b.at.RequestURI(), nil, "cross-site")
				q := b.at.Query()
				if b.status != http.StatusSeeOther || b.at.Host != "id.example" || q.Get("login_hint") != "ada" {
					t.Fatalf("%s: %d to %s", method, b.status, b.at)
				}
				b.nonce, b.challenge = q.Get("nonce"), q.Get("code_challenge")
				b.send(http.MethodGet, "/callback?"+url.Values{"code": {"a-code"}, "state": {q.Get("state")}, "iss": {issuerURL}}.Encode(), nil, "cross-site")
				if b.status != http.StatusSeeOther || b.at.String() != shopURL+test.want {
					t.Errorf("%s leads to %d %s, want %s", method, b.status, b.at, test.want)
				}
			}
		})
	}
}

// An answer that is not to this browser's own question signs nobody in.
func TestAnswersThatDoNotCount(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(url.Values)
		setUp  func(*street)
		status int
	}{
		{"no state", func(v url.Values) { v.Del("state") }, nil, http.StatusBadRequest},
		{"another state", func(v url.Values) { v.Set("state", "made-up") }, nil, http.StatusBadRequest},
		{"another issuer", func(v url.Values) { v.Set("iss", "https://evil.example") }, nil, http.StatusBadRequest},
		{"no issuer", func(v url.Values) { v.Del("iss") }, nil, http.StatusBadRequest},
		{"too late", nil, func(s *street) { s.now = s.now.Add(signInLifetime + time.Second) }, http.StatusBadRequest},
		{"an ID token of another sign-in", nil, func(s *street) { s.claims = func(c map[string]any) { c["nonce"] = "other" } }, http.StatusBadRequest},
		{"an ID token without nonce", nil, func(s *street) { s.claims = func(c map[string]any) { delete(c, "nonce") } }, http.StatusBadRequest},
		{"an ID token for another client", nil, func(s *street) { s.claims = func(c map[string]any) { c["aud"] = "other" } }, http.StatusBadRequest},
		{"an ID token by another issuer", nil, func(s *street) { s.claims = func(c map[string]any) { c["iss"] = "https://evil.example" } }, http.StatusBadRequest},
		{"an expired ID token", nil, func(s *street) { s.claims = func(c map[string]any) { c["exp"] = s.now.Unix() - 1 } }, http.StatusBadRequest},
		{"userinfo of somebody else", nil, func(s *street) { s.info["sub"] = "bob-2" }, http.StatusBadRequest},
		{"a code the provider refuses", nil, func(s *street) { s.challenge = "other" }, http.StatusBadGateway},
		{"access denied", func(v url.Values) { v.Del("code"); v.Set("error", "access_denied") }, nil, http.StatusForbidden},
		{"another error", func(v url.Values) {
			v.Del("code")
			v.Set("error", "invalid_scope")
			v.Set("error_description", "<i>no")
		}, nil, http.StatusForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStreet(t)
			b := s.browser()
			answer := b.begin("/")
			if test.answer != nil {
				test.answer(answer)
			}
			if test.setUp != nil {
				test.setUp(s)
			}
			b.get("/callback?" + answer.Encode())
			if b.status != test.status || !b.has("refused") || !b.has("again") || !b.has("back") {
				t.Errorf("%d %s", b.status, b.body)
			}
			if strings.Contains(b.body, "<i>") {
				t.Error("markup of others")
			}
			if b.signedIn() {
				t.Error("signed in")
			}
		})
	}
	t.Run("in another browser", func(t *testing.T) {
		s := newStreet(t)
		answer := s.browser().begin("/")
		thief := s.browser()
		if thief.get("/callback?" + answer.Encode()); thief.status != http.StatusBadRequest || thief.signedIn() {
			t.Errorf("%d %s", thief.status, thief.body)
		}
	})
	t.Run("twice", func(t *testing.T) {
		s := newStreet(t)
		b := s.browser()
		answer := b.begin("/")
		b.get("/callback?" + answer.Encode())
		before := s.issued
		if b.get("/callback?" + answer.Encode()); b.status != http.StatusBadRequest || s.issued != before {
			t.Errorf("%d, %d answers of the token endpoint", b.status, s.issued-before)
		}
		if !b.signedIn() {
			t.Error("signed out by it")
		}
	})
}

// Two tabs may sign in side by side; those never finished make room.
func TestSignInsSideBySide(t *testing.T) {
	s := newStreet(t)
	b := s.browser()
	first := b.begin("/")
	nonce, challenge := s.nonce, s.challenge
	b.begin("/")
	s.nonce, s.challenge = nonce, challenge
	if b.get("/callback?" + first.Encode()); b.status != http.StatusOK {
		t.Errorf("%d %s", b.status, b.body)
	}
	for range 3 * maxSignIns {
		b.begin("/")
	}
	if n := len(b.cookies("signin")); n > maxSignIns {
		t.Errorf("%d cookies", n)
	}
}

func TestFormPost(t *testing.T) {
	s := newStreet(t, func(c *Config) { c.FormPost = true })
	b := s.browser()
	answer := b.begin("/")
	if b.at.Query().Get("response_mode") != "form_post" {
		t.Errorf("asked for %s", b.at)
	}
	if b.get("/callback?" + answer.Encode()); b.status != http.StatusBadRequest {
		t.Errorf("a code in the URL: %d", b.status)
	}
	b.send(http.MethodPost, "/callback", answer, "cross-site")
	if b.status != http.StatusSeeOther || b.at.Path != "/callback" || strings.Contains(b.at.RawQuery, "a-code") || s.issued != 0 {
		t.Fatalf("%d %s", b.status, b.at)
	}
	at := b.at.RequestURI()
	if thief := s.browser().get(at); thief.status != http.StatusBadRequest || thief.signedIn() {
		t.Errorf("another browser: %d", thief.status)
	}
	s.now = s.now.Add(answerLifetime + time.Second)
	if b.get(at); b.status != http.StatusBadRequest || s.issued != 0 {
		t.Errorf("too late: %d", b.status)
	}
	s.now = s.now.Add(-answerLifetime)
	if b.get(at); b.status != http.StatusOK || !b.signedIn() {
		t.Errorf("%d %s", b.status, b.body)
	}

	plain := newStreet(t).browser()
	answer = plain.begin("/")
	if plain.send(http.MethodPost, "/callback", answer, "cross-site"); plain.status != http.StatusBadRequest {
		t.Errorf("not asked for: %d", plain.status)
	}
}

// Requests of one session that come together make one refresh, and those that
// want tokens for different services one after the other: this provider would
// end the session over a refresh token used twice.
func TestOneRefreshAtATime(t *testing.T) {
	for _, test := range []struct {
		name      string
		paths     []string
		refreshes int
	}{
		{"one service", slices.Repeat([]string{"/orders"}, 16), 1},
		{"two services", slices.Repeat([]string{"/orders", "/profile"}, 8), 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStreet(t)
				b := s.browser().signIn()
				s.hold = make(chan struct{})
				results := make([]*browser, len(test.paths))
				var done sync.WaitGroup
				for i, path := range test.paths {
					tab := &browser{street: s, jar: b.jar}
					results[i] = tab
					done.Go(func() { tab.get(path) })
				}
				synctest.Wait() // all of them wait for the first refresh
				close(s.hold)
				done.Wait()
				for i, tab := range results {
					if tab.status != http.StatusOK || tab.at.Path != test.paths[i] {
						t.Errorf("%s: %d %s", test.paths[i], tab.status, tab.text("refused"))
					}
				}
				if len(s.refreshes) != test.refreshes {
					t.Errorf("%d refreshes", len(s.refreshes))
				}
				if b.get("/profile"); b.status != http.StatusOK {
					t.Errorf("afterwards: %d %s", b.status, b.body)
				}
			})
		})
	}
}

// A browser that gave up on an answer comes again with its old cookie, and
// gets what that answer was; an attacker's copy of an old cookie does not.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		b := s.browser().signIn()
		old := s.browser()
		old.jar.SetCookies(b.at, b.cookies("session"))
		older := s.browser()
		older.jar.SetCookies(b.at, b.cookies("session"))
		b.get("/orders") // the answer that old does not get
		if old.get("/orders"); old.status != http.StatusOK || len(s.refreshes) != 1 {
			t.Errorf("%d, %d refreshes", old.status, len(s.refreshes))
		}
		if old.get("/profile"); old.status != http.StatusOK {
			t.Errorf("afterwards: %d", old.status)
		}
		time.Sleep(answered + time.Second)
		if older.get("/orders"); older.status != http.StatusForbidden {
			t.Errorf("after a while: %d", older.status)
		}
	})
}

// A token is used until shortly before its end, and refreshed then.
func TestRefreshWhenNeeded(t *testing.T) {
	s := newStreet(t)
	b := s.browser().signIn()
	for range 3 {
		b.get("/orders")
	}
	if len(s.refreshes) != 1 {
		t.Errorf("%d refreshes while the token is good", len(s.refreshes))
	}
	s.now = s.now.Add(10 * time.Minute)
	for range 3 {
		b.get("/orders")
	}
	if len(s.refreshes) != 2 || b.status != http.StatusOK {
		t.Errorf("%d refreshes after its end; %d", len(s.refreshes), b.status)
	}
}

func refuseRefresh(w http.ResponseWriter) {
	reply(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "The grant was revoked."})
}

// When access has ended the shop says so, and offers to sign in again.
func TestAccessEnded(t *testing.T) {
	for _, path := range []string{"/orders", "/profile"} {
		s := newStreet(t)
		b := s.browser().signIn()
		s.refuse = refuseRefresh
		b.get(path)
		if b.status != http.StatusForbidden || b.text("refused") != "The shop may no longer act for you" || !b.has("again") || !b.has("account") || b.text("detail") != "The grant was revoked." {
			t.Errorf("%s: %d %s", path, b.status, b.body)
		}
		if b.signedIn() {
			t.Errorf("%s: still signed in", path)
		}
		s.refuse = nil
		b.signIn()
		if b.get(path); b.status != http.StatusOK {
			t.Errorf("%s, signed in again: %d", path, b.status)
		}
	}
}

func TestWhatTheAPIRefuses(t *testing.T) {
	always := func(status int, detail string) func(*street) {
		return func(s *street) {
			s.api = func(w http.ResponseWriter, _ string) bool {
				reply(w, status, map[string]string{"detail": detail})
				return true
			}
		}
	}
	for _, test := range []struct {
		name     string
		setUp    func(*street)
		status   int
		title    string
		again    bool
		signedIn bool
	}{
		{"a fresh token", always(401, "no"), http.StatusForbidden, "The order service no longer accepts the shop", true, true},
		{"a revoked token whose grant is revoked too", func(s *street) { always(401, "revoked")(s); s.refuse = refuseRefresh }, http.StatusForbidden, "The shop may no longer act for you", true, false},
		{"a scope that is missing", always(403, "orders:write is missing"), http.StatusForbidden, "The shop isn't allowed to do this", true, true},
		{"an order it does not take", always(422, "no lamps left"), http.StatusBadRequest, "The order service didn't take this", false, true},
		{"everything, being down", always(503, ""), http.StatusBadGateway, "Orders can't be reached right now", false, true},
		{"nothing, being away", func(s *street) { delete(s.network, "orders.example") }, http.StatusBadGateway, "Orders can't be reached right now", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStreet(t)
			b := s.browser().signIn()
			b.get("/orders") // the token is there
			test.setUp(s)
			b.post("/orders", url.Values{"product": {"clock"}, "quantity": {"1"}, "key": {"k"}})
			if b.status != test.status || b.text("refused") != test.title || b.has("again") != test.again {
				t.Errorf("%d %s", b.status, b.body)
			}
			// Nobody is told that nothing was ordered when that isn't known.
			if unknown := test.status == http.StatusBadGateway; strings.Contains(b.text("advice"), "look at your orders") != unknown {
				t.Errorf("advice: %s", b.text("advice"))
			}
			if b.signedIn() != test.signedIn {
				t.Errorf("signed in: %t", !test.signedIn)
			}
			// Whatever was refreshed on the way is not lost.
			s.api, s.refuse, s.network["orders.example"] = nil, nil, http.HandlerFunc(s.ordersAPI)
			if b.get("/profile"); test.signedIn && b.status != http.StatusOK {
				t.Errorf("afterwards: %d %s", b.status, b.body)
			}
		})
	}
	t.Run("one token, not its successor", func(t *testing.T) {
		s := newStreet(t)
		b := s.browser().signIn()
		b.get("/orders")
		refused := 0
		s.api = func(w http.ResponseWriter, _ string) bool {
			if refused++; refused > 1 {
				return false
			}
			reply(w, http.StatusUnauthorized, nil)
			return true
		}
		b.post("/orders", url.Values{"product": {"clock"}, "quantity": {"1"}, "key": {"k"}})
		if b.status != http.StatusOK || !b.has("placed") || len(s.orders) != 1 || len(s.refreshes) != 2 {
			t.Errorf("%d, %d orders, %d refreshes: %s", b.status, len(s.orders), len(s.refreshes), b.body)
		}
	})
}

// A provider that is down is told of, and asked again.
func TestProviderDown(t *testing.T) {
	s := newStreet(t)
	up := s.network["id.example"]
	delete(s.network, "id.example")
	b := s.browser()
	if b.get("/signin"); b.status != http.StatusBadGateway || b.text("refused") != "Signing in isn't possible right now" {
		t.Errorf("%d %s", b.status, b.body)
	}
	if b.get("/readyz"); b.status != http.StatusServiceUnavailable {
		t.Errorf("ready: %d", b.status)
	}
	if b.get("/livez"); b.status != http.StatusOK {
		t.Errorf("live: %d", b.status)
	}
	s.network["id.example"] = up
	if b.get("/readyz"); b.status != http.StatusOK {
		t.Errorf("ready: %d", b.status)
	}
	b.signIn()
	s.refuse = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	if b.get("/orders"); b.status != http.StatusBadGateway || !b.signedIn() {
		t.Errorf("%d %s", b.status, b.body)
	}
}

func TestSignOut(t *testing.T) {
	s := newStreet(t)
	b := s.browser().signIn()
	held := s.current
	if b.send(http.MethodPost, "/signout", nil, "cross-site"); b.status != http.StatusForbidden || !b.signedIn() {
		t.Errorf("from another site: %d", b.status)
	}
	b.send(http.MethodPost, "/signout", nil, "same-origin")
	q := b.at.Query()
	if b.status != http.StatusSeeOther || b.at.Host != "id.example" || b.at.Path != "/logout" || q.Get("a") != "b" ||
		q.Get("client_id") != clientID || q.Get("post_logout_redirect_uri") != shopURL+"/signed-out" || strings.Count(q.Get("id_token_hint"), ".") != 2 {
		t.Errorf("%d to %s", b.status, b.at)
	}
	if !slices.Equal(s.revoked, []string{held}) {
		t.Errorf("handed back: %q", s.revoked)
	}
	if b.get("/signed-out"); !b.has("signed-out") || b.signedIn() || len(b.cookies("session")) != 0 {
		t.Errorf("%s %v", b.body, b.jar)
	}
	if b.post("/signout", nil); b.status != http.StatusOK || b.at.Path != "/signed-out" {
		t.Errorf("once more: %d at %s", b.status, b.at)
	}
}

// Other sites can't order, nor can what is not in the shop be ordered.
func TestOrdersThatAreNotPlaced(t *testing.T) {
	s := newStreet(t)
	b := s.browser().signIn()
	good := url.Values{"product": {"lamp"}, "quantity": {"1"}, "key": {"k"}}
	if b.send(http.MethodPost, "/orders", good, "cross-site"); b.status != http.StatusForbidden {
		t.Errorf("from another site: %d", b.status)
	}
	for _, bad := range []string{"product=lamp&quantity=0", "product=lamp&quantity=10", "product=lamp&quantity=x", "product=rocket&quantity=1", ""} {
		form, _ := url.ParseQuery(bad)
		if b.post("/orders", form); b.status != http.StatusBadRequest || !b.has("refused") {
			t.Errorf("%s: %d", bad, b.status)
		}
	}
	b.post("/orders", url.Values{"product": {"lamp"}, "quantity": {"1"}, "padding": {strings.Repeat("x", maxForm)}})
	if b.status != http.StatusBadRequest {
		t.Errorf("too large: %d", b.status)
	}
	if b = s.browser(); b.send(http.MethodPost, "/orders", good, "same-origin").at.Path != "/signin" {
		t.Errorf("signed out: %d at %s", b.status, b.at)
	}
	if len(s.orders) != 0 {
		t.Errorf("ordered: %v", s.orders)
	}
}

func TestSessionCookie(t *testing.T) {
	s := newStreet(t)
	b := s.browser()
	answer := b.begin("/")
	b.send(http.MethodGet, "/callback?"+answer.Encode(), nil, "cross-site")
	made := (&http.Response{Header: b.header}).Cookies()
	i := slices.IndexFunc(made, func(c *http.Cookie) bool { return strings.HasPrefix(c.Name, "__Host-shop-session-") })
	if i < 0 {
		t.Fatalf("%v", made)
	}
	c := made[i]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != int(sessionLifetime.Seconds()) {
		t.Errorf("%s", c)
	}
	u, _ := url.Parse(shopURL)
	with := func(value string) *browser {
		other := s.browser()
		other.jar.SetCookies(u, []*http.Cookie{{Name: c.Name, Value: value, Path: "/", Secure: true}})
		return other
	}
	if !with(c.Value).signedIn() {
		t.Error("the cookie does not work")
	}
	flipped := []byte(c.Value)
	flipped[len(flipped)/2] ^= 1
	sealed, err := s.app.seal.close("attempt x", session{Subject: "eve", SignedIn: s.now})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"changed": string(flipped), "cut": c.Value[:40], "none": "", "no base64": "*", "sealed for something else": sealed} {
		if with(value).signedIn() {
			t.Errorf("%s: signed in", name)
		}
	}
	s.now = s.now.Add(sessionLifetime)
	if with(c.Value).signedIn() {
		t.Error("after its life: signed in")
	}
}

// Large tokens take several cookies; what is left of them does no harm when
// the tokens are small again.
func TestLargeTokens(t *testing.T) {
	s := newStreet(t)
	s.padding = "-" + strings.Repeat("x", 3000)
	b := s.browser().signIn()
	if b.get("/orders"); b.status != http.StatusOK {
		t.Fatalf("%d %s", b.status, b.body)
	}
	if n := len(b.cookies("session")); n < 2 {
		t.Errorf("%d cookies", n)
	}
	for _, c := range b.cookies("session") {
		if len(c.Name)+len(c.Value) > 3900 {
			t.Errorf("a cookie of %d bytes", len(c.Name)+len(c.Value))
		}
	}
	s.padding = ""
	s.now = s.now.Add(time.Hour)
	if b.get("/orders"); b.status != http.StatusOK {
		t.Fatalf("%d %s", b.status, b.body)
	}
	if b.get("/orders"); b.status != http.StatusOK || !b.has("sign-out") {
		t.Errorf("%d %s", b.status, b.body)
	}
}

func TestEveryAnswer(t *testing.T) {
	s := newStreet(t)
	b := s.browser()
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"GET", "/signed-out", 200}, {"GET", "/nothing", 404}, {"DELETE", "/orders", 405}, {"GET", "/callback", 400},
	} {
		b.send(test.method, test.path, nil, "same-origin")
		if b.status != test.status || !strings.HasPrefix(b.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s %s: %d", test.method, test.path, b.status)
		}
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
			"Content-Security-Policy":   "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' https://id.example; frame-ancestors 'none'; base-uri 'none'",
			"Strict-Transport-Security": "max-age=63072000",
		} {
			if b.header.Get(name) != want {
				t.Errorf("%s %s: %s is %q", test.method, test.path, name, b.header.Get(name))
			}
		}
		if strings.Contains(b.body, "<script") || strings.Contains(b.body, "style=") {
			t.Errorf("%s needs what the policy forbids", test.path)
		}
	}
	if allow := b.send("DELETE", "/orders", nil, "same-origin").header.Values("Allow"); !slices.Equal(allow, []string{"GET, HEAD", "POST"}) {
		t.Errorf("Allow: %q", allow)
	}
	b.get("/")
	_, after, _ := strings.Cut(b.body, `href="/static/`)
	path, _, _ := strings.Cut(after, `"`)
	if b.get("/static/" + path); b.status != http.StatusOK || b.header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("stylesheet %s: %d", path, b.status)
	}
}

func TestConfiguration(t *testing.T) {
	good := Config{Issuer: issuerURL, ClientID: clientID, URL: shopURL, Orders: ordersURL, Key: make([]byte, 32)}
	for name, alter := range map[string]func(*Config){
		"short key": func(c *Config) { c.Key = c.Key[:16] }, "no key": func(c *Config) { c.Key = nil },
		"no URL": func(c *Config) { c.URL = "" }, "a path": func(c *Config) { c.URL = shopURL + "/" }, "another scheme": func(c *Config) { c.URL = "ftp://shop.example" },
	} {
		c := good
		alter(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
