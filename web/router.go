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
	r.Use(s.requestID, s.observe, s.clientAddress, s.recover, s.headers, middleware.GetHead)

	// Documents that any site may read, prepared in memory. Where the issuer
	// has a path, RFC 8414 §3.1 puts it behind the well-known part and OpenID
	// Connect before it.
	r.Group(func(r chi.Router) {
		r.Use(quiet, cors)
		s.get(r, "/.well-known/oauth-authorization-server"+base, p.Metadata)
		s.get(r, base+"/.well-known/openid-configuration", p.Metadata)
		if base != "" {
			s.get(r, "/.well-known/openid-configuration"+base, p.Metadata)
			s.get(r, base+"/.well-known/oauth-authorization-server", p.Metadata)
		}
		s.get(r, base+provider.PathJWKS, p.JWKS)
	})

	// What verifiers follow. It goes on for as long as they like, so it has
	// limits of its own in place of every request's.
	r.Group(func(r chi.Router) {
		r.Use(cors, s.untilDrained)
		s.get(r, base+provider.PathFeedSnapshot, p.FeedSnapshot)
		s.get(r, base+provider.PathFeedStream, p.FeedStream)
		s.get(r, base+provider.PathFeedPoll, p.FeedPoll)
	})

	// Protocol endpoints. They check the method themselves.
	r.Group(func(r chi.Router) {
		r.Use(s.trace, s.bound)
		r.HandleFunc(base+provider.PathIntrospection, p.Introspect)
		// Apps send browsers here, also by POST. That is answered with a
		// redirect to a GET and changes nothing.
		r.With(s.origin).HandleFunc(base+provider.PathAuthorize, s.authorize)
		r.With(s.origin).HandleFunc(base+provider.PathLogout, s.logout)

		// Open to any site, because no cookie matters to them.
		if s.provider.Registers() {
			register := r.With(corsOf("GET, POST, PUT, DELETE"))
			register.HandleFunc(base+provider.PathRegistration, p.Register)
			register.HandleFunc(base+provider.PathRegistration+"/{id}", p.Manage)
		}
		r = r.With(cors)
		r.HandleFunc(base+provider.PathToken, p.Token)
		r.HandleFunc(base+provider.PathPushed, p.PushAuthorization)
		r.HandleFunc(base+provider.PathUserInfo, p.UserInfo)
		r.HandleFunc(base+provider.PathRevocation, p.Revoke)
		s.get(r, base+provider.PathStatusLists+"/{list}", p.StatusList)
	})

	// Pages: their forms are posted by themselves only.
	r.Group(func(r chi.Router) {
		r.Use(s.trace, s.bound, s.origin, s.crossOrigin.Handler)
		r.Get(base+"/", s.home)
		if base != "" {
			r.Get(base, s.home)
		}
		r.Get(base+pathLogin, s.login)
		r.Post(base+pathLogin, s.postLogin)
		r.Post(base+pathLoginPassword, s.postReplace)
		r.Get(base+pathSelect, s.step)
		r.Post(base+pathSelect, s.postSelect)
		r.Get(base+pathConsent, s.step)
		r.Post(base+pathConsent, s.postConsent)
		r.Post(base+pathConfirmLogout, s.postLogout)
		r.Get(base+pathSetup, s.setup)
		r.Post(base+pathSetup, s.postSetup)
		r.Get(base+pathAccount, s.account)
		r.Post(base+pathEndSession, s.endSession)
		r.Post(base+pathEndOthers, s.endOthers)
		r.Post(base+pathWithdraw, s.withdraw)
		r.Get(base+pathPassword, s.password)
		r.Post(base+pathPassword, s.postPassword)
		r.With(quiet).Get(base+templates.StylesheetRoute, s.stylesheet)
	})

	r.With(s.bound, quiet).Get(base+provider.PathDoctor, s.doctor)

	// For load balancers.
	r.With(quiet).Get("/livez", s.live)
	r.With(quiet).Get("/readyz", s.ready)

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
