package web

import (
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// Public returns the handler of the listener the world reaches.
func (s *Server) Public() http.Handler {
	p, base := s.provider, s.issuer.Path()
	r := chi.NewRouter()
	r.Use(s.requestID, s.clientAddress, s.observe, s.recover, s.bound, s.headers, middleware.GetHead)

	// Documents that any site may read. Where the issuer has a path, RFC 8414
	// §3.1 puts it behind the well-known part and OpenID Connect before it.
	r.Group(func(r chi.Router) {
		r.Use(cors)
		s.get(r, "/.well-known/oauth-authorization-server"+base, p.Metadata)
		s.get(r, base+"/.well-known/openid-configuration", p.Metadata)
		if base != "" {
			s.get(r, "/.well-known/openid-configuration"+base, p.Metadata)
			s.get(r, base+"/.well-known/oauth-authorization-server", p.Metadata)
		}
		s.get(r, base+provider.PathJWKS, p.JWKS)

		// Protocol endpoints: they check the method themselves, and are not
		// subject to cross-origin checks, because no cookie matters to them.
		r.HandleFunc(base+provider.PathToken, p.Token)
		r.HandleFunc(base+provider.PathRevocation, p.Revoke)
	})
	r.HandleFunc(base+provider.PathIntrospection, p.Introspect)

	// Pages.
	r.Get(base+"/", s.home)
	if base != "" {
		r.Get(base, s.home)
	}
	r.Get(base+templates.StylesheetRoute, s.stylesheet)

	// For load balancers.
	r.Get("/livez", s.live)
	r.Get("/readyz", s.ready)

	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.methodNotAllowed)
	return r
}

// Admin returns the handler of the listener for operators.
func (s *Server) Admin() http.Handler {
	r := chi.NewRouter()
	r.Use(s.requestID, s.recover)
	r.Get("/livez", s.live)
	r.Get("/readyz", s.ready)
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(s.gatherer, promhttp.HandlerOpts{}))
	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.methodNotAllowed)
	return r
}

// get adds a document that browsers of any origin may ask for, and the
// preflight that some of them send first.
func (s *Server) get(r chi.Router, path string, handler http.HandlerFunc) {
	r.Get(path, handler)
	r.Options(path, handler) // answered by cors
}
