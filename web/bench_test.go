package web_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// benchmarkForm measures the handler without a network: one form, many times.
func benchmarkForm(b *testing.B, s *site, path, id, secret string, form url.Values) {
	body := form.Encode()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(id, secret)
			w := httptest.NewRecorder()
			s.public.ServeHTTP(w, req)
			if w.Code != http.StatusOK {
				b.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	})
}

func BenchmarkToken(b *testing.B) {
	for _, alg := range keys.Algorithms() {
		b.Run(alg, func(b *testing.B) {
			s := newSite(b, openStore(b, migrations.SQLite), options{quiet: true, algs: []string{keys.ES256, alg}})
			secret := s.register("shop")
			if _, err := s.admin.UpdateResource(b.Context(), ordersURI, func(r *storage.Resource) { r.SigningAlg = alg }); err != nil {
				b.Fatal(err)
			}
			s.settle()
			b.ResetTimer()
			benchmarkForm(b, s, "/token", "shop", secret, url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		})
	}
}

// onBothEngines measures against a site on each database, with the person ada
// and the app shop.
func onBothEngines(b *testing.B, measure func(b *testing.B, s *site, secret string)) {
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		b.Run(string(engine), func(b *testing.B) {
			s := newSite(b, openStore(b, engine), options{quiet: true})
			secret := s.people()
			b.ReportAllocs()
			b.ResetTimer()
			measure(b, s, secret)
		})
	}
}

func BenchmarkIntrospection(b *testing.B) {
	onBothEngines(b, func(b *testing.B, s *site, _ string) {
		secret := s.client("asker")
		token := s.token("asker", secret, "orders:read")
		b.ResetTimer()
		benchmarkForm(b, s, "/introspect", "asker", secret, url.Values{"token": {token}})
	})
}

// flow is a browser in which ada is signed in, as the handlers see it.
type flow struct {
	t       testing.TB
	s       *site
	secret  string
	cookies []*http.Cookie
}

func newFlow(t testing.TB, s *site, secret string) *flow {
	browser := s.browser()
	browser.open(authorize("scope", "openid offline_access")).signIn(ada, password).press("allow").answered(callback)
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	return &flow{t, s, secret, browser.client.Jar.Cookies(u)}
}

// get asks for a page.
func (f *flow) get(path string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	for _, c := range f.cookies {
		req.AddCookie(c)
	}
	w := httptest.NewRecorder()
	f.s.public.ServeHTTP(w, req)
	return w
}

// code gets a code on the live session.
func (f *flow) code() string {
	w := f.get(authorize("scope", "openid offline_access"))
	u, err := url.Parse(w.Header().Get("Location"))
	if err != nil || u.Query().Get("code") == "" {
		f.t.Fatalf("%d to %s", w.Code, w.Header().Get("Location"))
	}
	return u.Query().Get("code")
}

// tokens posts to the token endpoint, as shop.
func (f *flow) tokens(form url.Values) (t struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}) {
	w := f.post("/token", form)
	if err := json.Unmarshal(w.Body.Bytes(), &t); err != nil || w.Code != http.StatusOK {
		f.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return t
}

// post sends a form, as shop.
func (f *flow) post(path string, form url.Values) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("shop", f.secret)
	w := httptest.NewRecorder()
	f.s.public.ServeHTTP(w, req)
	return w
}

func (f *flow) redeem(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}}
}

// BenchmarkCode is an authorization on a live session and the exchange of its
// code, with an ES256 ID token.
func BenchmarkCode(b *testing.B) {
	onBothEngines(b, func(b *testing.B, s *site, secret string) {
		f := newFlow(b, s, secret)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f.tokens(f.redeem(f.code()))
			}
		})
	})
}

func BenchmarkRefresh(b *testing.B) {
	onBothEngines(b, func(b *testing.B, s *site, secret string) {
		f := newFlow(b, s, secret)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			t := f.tokens(f.redeem(f.code()))
			for pb.Next() {
				t = f.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.RefreshToken}})
			}
		})
	})
}

func BenchmarkUserInfo(b *testing.B) {
	onBothEngines(b, func(b *testing.B, s *site, secret string) {
		f := newFlow(b, s, secret)
		t := f.tokens(f.redeem(f.code()))
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				req := httptest.NewRequest(http.MethodGet, "/userinfo", nil)
				req.Header.Set("Authorization", "Bearer "+t.AccessToken)
				w := httptest.NewRecorder()
				s.public.ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	})
}

func BenchmarkJWKS(b *testing.B) {
	s := newSite(b, openStore(b, migrations.SQLite), options{quiet: true})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := httptest.NewRecorder()
			s.public.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/jwks", nil))
			if w.Code != http.StatusOK {
				b.Fatal(w.Code)
			}
		}
	})
}
