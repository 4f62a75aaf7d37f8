package web_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares an answer with a file, in which ISSUER stands for the issuer.
func golden(t *testing.T, s *site, name, body string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	pretty, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(pretty), s.issuer, "ISSUER") + "\n"
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n%s", file, got)
	}
}

// documents are what browsers of any origin may read.
func documents(s *site, path string) []string {
	root := strings.TrimSuffix(s.url, path)
	list := []string{
		s.url + "/.well-known/openid-configuration",
		root + "/.well-known/oauth-authorization-server" + path,
		s.url + "/jwks",
	}
	if path != "" {
		list = append(list, root+"/.well-known/openid-configuration"+path, s.url+"/.well-known/oauth-authorization-server")
	}
	return list
}

func (s *site) at(method, url string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	return s.do(req)
}

func TestDiscovery(t *testing.T) {
	for name, path := range map[string]string{"root": "", "path": "/tenant/one"} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, options{path: path}, func(t *testing.T, s *site) {
				t.Run("golden", func(t *testing.T) {
					golden(t, s, "metadata.json", s.get("/.well-known/openid-configuration").body)
				})
				hostile := []string{"Host", "evil.example", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
					"X-Forwarded-Prefix", "/evil", "Forwarded", "host=evil.example;proto=https", "X-Original-URL", "/evil"}
				for _, url := range documents(s, path) {
					t.Run(strings.TrimPrefix(url, strings.TrimSuffix(s.url, path)), func(t *testing.T) {
						a := s.at(http.MethodGet, url)
						if a.status != 200 {
							t.Fatalf("%d %s", a.status, a.body)
						}
						if strings.HasSuffix(url, "/jwks") {
							if got := a.header.Get("Content-Type"); got != "application/jwk-set+json" {
								t.Errorf("Content-Type = %q", got)
							}
						} else {
							if a.member("issuer") != s.issuer || a.body != s.get("/.well-known/openid-configuration").body {
								t.Errorf("another document under this name: %s", a.body)
							}
							if got := a.header.Get("Content-Type"); got != "application/json" {
								t.Errorf("Content-Type = %q", got)
							}
						}
						if got := a.header.Get("Cache-Control"); got != "public, max-age=900" {
							t.Errorf("Cache-Control = %q", got)
						}
						etag := a.header.Get("ETag")
						for match, status := range map[string]int{etag: 304, "W/" + etag: 304, `"other", ` + etag: 304, "*": 304, `"other"`: 200, "x": 200} {
							b := s.at(http.MethodGet, url, "If-None-Match", match)
							if b.status != status || status == 304 && b.body != "" || b.header.Get("ETag") != etag {
								t.Errorf("If-None-Match %s: %d %s", match, b.status, b.body)
							}
						}
						if b := s.at(http.MethodHead, url); b.status != 200 || b.body != "" || b.header.Get("Content-Length") != a.header.Get("Content-Length") {
							t.Errorf("HEAD: %d, Content-Length %q", b.status, b.header.Get("Content-Length"))
						}
						for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
							if b := s.at(method, url); b.status != 405 {
								t.Errorf("%s: %d", method, b.status)
							}
						}
						if b := s.at(http.MethodGet, url, hostile...); b.body != a.body || b.header.Get("ETag") != etag {
							t.Errorf("L18 hostile headers changed the document: %s", b.body)
						}
					})
				}
				t.Run("an endpoint below another path", func(t *testing.T) {
					root := strings.TrimSuffix(s.url, path)
					for _, wrong := range []string{"/x/token", "/token/", "//token", "/.well-known/openid-configuration/x"} {
						if a := s.at(http.MethodGet, root+wrong); a.status != 404 {
							t.Errorf("%s: %d", wrong, a.status)
						}
					}
				})
			})
		})
	}
}

// L18: what a token says of its issuer, and where a refusal points, comes from
// the configuration.
func TestHostileHostHeaders(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		hostile := []string{"X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "Forwarded", "host=evil.example", "X-Request-Id", "chosen"}
		a := s.form("/token", "shop", secret, clientCredentials(), hostile...)
		if _, claims := decode(t, a.member("access_token")); claims["iss"] != s.issuer {
			t.Errorf("iss = %v", claims["iss"])
		}
		a = s.form("/token", "shop", "wrong", clientCredentials(), hostile...)
		if got := a.header.Get("WWW-Authenticate"); strings.Contains(got, "evil") || !strings.Contains(got, s.issuer) {
			t.Errorf("WWW-Authenticate = %q", got)
		}
		if got := a.header.Get("X-Request-Id"); got == "chosen" || len(got) != 24 {
			t.Errorf("X-Request-Id = %q", got)
		}
	})
}

// The design's CORS rule: any origin, never credentials, on what no cookie
// matters to; nothing on pages.
func TestCORS(t *testing.T) {
	onBoth(t, open(), func(t *testing.T, s *site) {
		secret := s.register("shop")
		forms := []string{s.url + "/token", s.url + "/revoke", s.url + "/par", s.url + "/register", s.url + "/userinfo"}
		for _, url := range slices.Concat(documents(s, ""), forms, []string{s.url + "/statuslists/0", s.url + "/register/nobody"}) {
			for _, origin := range []string{"https://app.example", "null", s.issuer, "https://evil.example"} {
				method := http.MethodGet
				if slices.Contains(forms, url) {
					method = http.MethodPost
				}
				a := s.at(http.MethodOptions, url, "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "authorization, content-type")
				if a.status != 204 || a.header.Get("Access-Control-Allow-Origin") != "*" ||
					!strings.Contains(a.header.Get("Access-Control-Allow-Methods"), method) ||
					!strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") {
					t.Errorf("preflight of %s: %d %v", url, a.status, a.header)
				}
				b := s.at(method, url, "Origin", origin)
				if b.header.Get("Access-Control-Allow-Origin") != "*" {
					t.Errorf("%s for %s: %q", url, origin, b.header.Get("Access-Control-Allow-Origin"))
				}
				if a.header.Get("Access-Control-Allow-Credentials") != "" || b.header.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%s lets credentials be sent", url)
				}
			}
		}
		a := s.form("/token", "shop", secret, clientCredentials(), "Origin", "https://app.example")
		if a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("token: %d, %q", a.status, a.header.Get("Access-Control-Allow-Origin"))
		}
		for _, path := range []string{"/", "/introspect", "/livez", "/readyz", "/nowhere", "/authorize", "/logout", "/login", "/login/password", "/select", "/consent", "/logout/confirm",
			"/setup", "/account", "/account/sessions/end", "/account/sessions/end-others", "/account/apps/withdraw", "/account/password", "/doctor"} {
			url := s.url + path
			for _, method := range []string{http.MethodOptions, http.MethodGet, http.MethodPost} {
				a := s.at(method, url, "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
				for name := range a.header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("X1 %s %s answers %s", method, url, name)
					}
				}
			}
		}
		for _, path := range []string{"/livez", "/readyz", "/metrics"} { // of operators
			w := httptest.NewRecorder()
			req := httptest.NewRequest(http.MethodGet, path, nil)
			req.Header.Set("Origin", "https://app.example")
			if s.ops.ServeHTTP(w, req); w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("X1 %s of the admin listener: %v", path, w.Header())
			}
		}
	})
}
