package verify_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
)

const metadataURL = "https://orders.example/.well-known/oauth-protected-resource"

// whoami answers with the subject, so that a 200 is never an accident.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Write([]byte(verify.ClaimsFrom(r.Context()).Subject()))
})

func request(method, target string, edits ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for _, edit := range edits {
		edit(r)
	}
	return r
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = append(r.Header[name], value) } // the name as it is
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// answered checks a refusal whole: status, challenge, body and headers.
func answered(t *testing.T, w *httptest.ResponseRecorder, status int, challenge, code string) {
	t.Helper()
	if w.Code != status || w.Header().Get("WWW-Authenticate") != challenge {
		t.Errorf("answer %d\n got %s\nwant %d\n     %s", w.Code, w.Header().Get("WWW-Authenticate"), status, challenge)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	if code == "" {
		if w.Body.Len() != 0 {
			t.Errorf("body %q", w.Body)
		}
		return
	}
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error != code || body.Description == "" {
		t.Errorf("body %q: %v", w.Body, err)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: %q", got)
	}
}

func TestMiddleware(t *testing.T) {
	key := newKey("k1", "ES256")
	h := newProvider(key).verifier(t, verify.WithResourceMetadata(metadataURL)).Middleware(whoami)
	good := key.token()
	auth := func(value string) func(*http.Request) { return header("Authorization", value) }
	form := func(r *http.Request) {
		*r = *httptest.NewRequest("POST", "/", strings.NewReader("access_token="+good))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	const (
		where = `resource_metadata="` + metadataURL + `"`
		bare  = `Bearer ` + where
	)
	invalid := func(description string) string {
		return `Bearer error="invalid_token", error_description="` + description + `", ` + where
	}
	request400 := func(description string) string {
		return `Bearer error="invalid_request", error_description="` + description + `", ` + where
	}
	rows := []struct {
		name            string
		request         *http.Request
		status          int
		challenge, code string
	}{
		{"V22 no token", request("GET", "/"), 401, bare, ""},
		{"V22 another scheme", request("GET", "/", auth("Basic YTpi")), 401, bare, ""},
		{"V22 DPoP scheme", request("GET", "/", auth("DPoP "+good)), 401, bare, ""},
		{"V22 scheme only begins like Bearer", request("GET", "/", auth("Bearerx "+good)), 401, bare, ""},
		{"V22 garbage", request("GET", "/", auth("Bearer garbage")), 401, invalid("the access token is malformed"), "invalid_token"},
		{"V22 expired", request("GET", "/", auth("Bearer "+key.token(set("exp", 1)))), 401, invalid("the access token has expired"), "invalid_token"},
		{"V22 two tokens in one header", request("GET", "/", auth("Bearer "+good+", Bearer "+good)), 401, invalid("the access token is malformed"), "invalid_token"},
		{"V22 no token after the scheme", request("GET", "/", auth("Bearer ")), 400, request400("no token after Bearer"), "invalid_request"},
		{"V33 token bound to a key", request("GET", "/", auth("Bearer "+key.token(set("cnf", object{"jkt": "x"})))), 401,
			invalid("the access token needs a proof of possession"), "invalid_token"},
		{"V21 two Authorization headers", request("GET", "/", auth("Bearer "+good), auth("Bearer "+good)), 400, request400("more than one Authorization header"), "invalid_request"},
		{"V21 token in the query", request("GET", "/?access_token="+good), 401, bare, ""},
		{"V21 token in the form", request("GET", "/", form), 401, bare, ""},
		{"V21 token in header and query", request("GET", "/?access_token="+good, auth("Bearer "+good)), 400, request400("more than one method of sending a token"), "invalid_request"},
		{"V21 token in header and query, escaped", request("GET", "/?access%5Ftoken="+good, auth("Bearer "+good)), 400, request400("more than one method of sending a token"), "invalid_request"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w := serve(h, r.request)
			answered(t, w, r.status, r.challenge, r.code)
			for part := range strings.SplitSeq(good, ".") {
				if strings.Contains(w.Body.String()+w.Header().Get("WWW-Authenticate"), part) {
					t.Error("V22 the answer repeats the token")
				}
			}
		})
	}
	for _, scheme := range []string{"Bearer", "bearer", "BEARER", "bEaReR", "Bearer "} {
		t.Run("V21 scheme "+scheme, func(t *testing.T) {
			if w := serve(h, request("GET", "/?q=1", auth(scheme+" "+good))); w.Code != 200 || w.Body.String() != "alice" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	t.Run("V22 without resource metadata", func(t *testing.T) {
		answered(t, serve(newProvider(key).verifier(t).Middleware(whoami), request("GET", "/")), 401, "Bearer", "")
	})
}

// RFC 6750 §3: who has no good token learns which scope to ask for, and who needs
// another one learns that one alone.
func TestFirstScope(t *testing.T) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(t, verify.WithResourceMetadata(metadataURL), verify.WithFirstScope("orders:read", "profile"))
	const first, where = `scope="orders:read profile"`, `, resource_metadata="` + metadataURL + `"`
	bearer := func(token string) *http.Request { return request("GET", "/", header("Authorization", "Bearer "+token)) }
	h := v.Middleware(verify.RequireScope("orders:write")(verify.RequireACR("mfa")(whoami)))
	answered(t, serve(h, request("GET", "/")), 401, "Bearer "+first+where, "")
	answered(t, serve(h, bearer(key.token(set("exp", 1)))), 401,
		`Bearer error="invalid_token", error_description="the access token has expired", `+first+where, "invalid_token")
	answered(t, serve(h, bearer("")), 400,
		`Bearer error="invalid_request", error_description="no token after Bearer"`+where, "invalid_request")
	answered(t, serve(h, bearer(key.token(set("scope", "orders:read")))), 403,
		`Bearer error="insufficient_scope", error_description="the access token lacks a scope", scope="orders:write"`+where, "insufficient_scope")
	answered(t, serve(h, bearer(key.token(set("scope", "orders:write")))), 401,
		`Bearer error="insufficient_user_authentication", error_description="a different or more recent sign-in is required", acr_values="mfa"`+where,
		"insufficient_user_authentication")
}

// Whoever asks, however and for whatever: without a token nothing is served.
func TestNoWayAround(t *testing.T) {
	key := newKey("k1", "ES256")
	h := newProvider(key).verifier(t).Middleware(whoami)
	for _, path := range []string{"/", "/health", "/public", "/public/../orders", "//orders", "/orders;/public", "/orders%2f..%2fpublic",
		"/.well-known/x", "/login", "/orders?/public", "/static/../orders", "/ORDERS", "/orders/%00"} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "TRACE", "CONNECT", "FOO"} {
			r := request(method, "/")
			r.URL.Path = path
			r.URL.RawPath = path
			if w := serve(h, r); w.Code != 401 {
				t.Errorf("V37 %s %s: %d", method, path, w.Code)
			}
		}
	}
	for _, h2 := range [][2]string{
		{"X-Forwarded-For", "127.0.0.1"}, {"X-Forwarded-Host", "localhost"}, {"X-Forwarded-Proto", "https"}, {"X-Forwarded-Uri", "/health"},
		{"X-Forwarded-Method", "OPTIONS"}, {"X-Forwarded-User", "alice"}, {"X-Original-Url", "/health"}, {"X-Rewrite-Url", "/health"},
		{"X-Http-Method-Override", "OPTIONS"}, {"User-Agent", "kube-probe/1.30"}, {"User-Agent", "GoogleHC/1.0"}, {"Host", "localhost"},
		{"Proxy-Authorization", "Bearer x"}, {"X-Authorization", "Bearer x"}, {"Cookie", "access_token=x"}, {"Access-Control-Request-Method", "GET"},
	} {
		if w := serve(h, request("GET", "/orders", header(h2[0], h2[1]))); w.Code != 401 {
			t.Errorf("V37 %s: %s: %d", h2[0], h2[1], w.Code)
		}
	}
}

func TestIdentityHeadersAreRemoved(t *testing.T) {
	key := newKey("k1", "ES256")
	var seen http.Header
	h := newProvider(key).verifier(t).Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header }))
	for _, name := range []string{"X-User", "X_User", "x_user", "X-USER", "x-user", "X-User-Id", "X_User-Id", "X-User_Id", "X_USER_ID", "X-User-Email",
		"X-Forwarded-User", "X_Forwarded_User", "X-Forwarded_User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username",
		"X-Auth-Request-User", "X-Auth-Request-Groups", "Remote-User", "Remote_User", "REMOTE_USER", "X-Remote-User", "X-Authenticated-User", "X-Authenticated-Userid"} {
		t.Run("V38 "+name, func(t *testing.T) {
			r := request("GET", "/", header("Authorization", "Bearer "+key.token()), header(name, "root"), header("X-Userland", "kept"), header("X-Forwarded-For", "kept"))
			if w := serve(h, r); w.Code != 200 {
				t.Fatal(w.Code)
			}
			if _, ok := seen[name]; ok || len(seen) != 3 {
				t.Errorf("handler sees %v", seen)
			}
			if _, ok := r.Header[name]; !ok {
				t.Error("the request of an outer handler was changed")
			}
		})
	}
}

func TestClaimsFromUnprotectedRoute(t *testing.T) {
	recovered := func(h http.Handler) http.Handler { // as chi's Recoverer does
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if v := recover(); v != nil {
					if text, ok := v.(string); !ok || !strings.Contains(text, "not protected") {
						t.Errorf("panic says %v", v)
					}
					w.WriteHeader(http.StatusInternalServerError)
				}
			}()
			h.ServeHTTP(w, r)
		})
	}
	t.Run("V39 ClaimsFrom without Middleware", func(t *testing.T) {
		if w := serve(recovered(whoami), request("GET", "/")); w.Code != 500 {
			t.Error(w.Code)
		}
	})
	for name, policy := range map[string]func(http.Handler) http.Handler{
		"RequireScope": verify.RequireScope("a"), "RequireRole": verify.RequireRole("a", "b"),
		"RequireACR": verify.RequireACR("a"), "RequireMaxAge": verify.RequireMaxAge(time.Minute),
	} {
		t.Run("V39 "+name+" without Middleware", func(t *testing.T) {
			h := policy(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("handler reached") }))
			if w := serve(h, request("GET", "/")); w.Code != 500 {
				t.Error(w.Code)
			}
		})
	}
}

func TestMiddlewareWithoutKeys(t *testing.T) {
	key := newKey("k1", "ES256")
	inBubble(t, "V27 503 until the keys are there", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		p.respond(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) })
		h := p.verifierIn(ctx, t).Middleware(whoami)
		r := request("GET", "/", header("Authorization", "Bearer "+key.token()))
		w := serve(h, r)
		answered(t, w, 503, "", "temporarily_unavailable")
		if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "502") {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
		p.respond(nil)
		after(time.Minute)
		if w := serve(h, r); w.Code != 200 {
			t.Error(w.Code)
		}
	})
}

func TestResourceMetadata(t *testing.T) {
	h := verify.ResourceMetadata(verify.Metadata{Resource: audience, AuthorizationServers: []string{issuer}, ScopesSupported: []string{"orders:read"}})
	w := serve(h, request("GET", "/"))
	const want = `{"resource":"https://orders.example","authorization_servers":["https://id.example"],"scopes_supported":["orders:read"],"bearer_methods_supported":["header"]}`
	if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := serve(h, request("POST", "/")); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
	for resource, want := range map[string]string{ // RFC 9728 §3.1
		"https://orders.example":        "/.well-known/oauth-protected-resource",
		"https://orders.example/":       "/.well-known/oauth-protected-resource",
		"https://orders.example/v1":     "/.well-known/oauth-protected-resource/v1",
		"http://127.0.0.1:8081/v1/a":    "/.well-known/oauth-protected-resource/v1/a",
		"https://orders.example/a%2Fb/": "/.well-known/oauth-protected-resource/a%2Fb/",
	} {
		if got := verify.MetadataPath(resource); got != want {
			t.Errorf("%s: %s, want %s", resource, got, want)
		}
		u, err := url.Parse(resource)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := verify.MetadataURL(resource); err != nil || got != u.Scheme+"://"+u.Host+want {
			t.Errorf("%s: %s %v", resource, got, err)
		}
	}
	for _, resource := range []string{"", "orders", "http://orders.example", "https://orders.example#a"} {
		panics(t, "ResourceMetadata of "+resource, func() { verify.ResourceMetadata(verify.Metadata{Resource: resource}) })
		if _, err := verify.MetadataURL(resource); err == nil {
			t.Errorf("MetadataURL takes %q", resource)
		}
	}
}

func panics(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", name)
		}
	}()
	f()
}
