package web_test

import (
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

func BenchmarkIntrospection(b *testing.B) {
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		b.Run(string(engine), func(b *testing.B) {
			s := newSite(b, openStore(b, engine), options{quiet: true})
			secret := s.register("shop")
			token := s.token("shop", secret, "orders:read")
			b.ResetTimer()
			benchmarkForm(b, s, "/introspect", "shop", secret, url.Values{"token": {token}})
		})
	}
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
