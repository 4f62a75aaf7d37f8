package web

import (
	"bytes"
	"net/http"

	"github.com/a-h/templ"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// page renders a view with the headers every page has: nothing but our own
// stylesheet loads, nobody may frame it, no address of ours leaks as referrer.
func (s *Server) page(w http.ResponseWriter, r *http.Request, status int, view templ.Component) {
	var body bytes.Buffer
	if err := view.Render(r.Context(), &body); err != nil {
		panic(err) // plain structs in, a buffer out: only a bug fails here
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// view is what every page begins with, in the language of whoever asks.
func (s *Server) view(w http.ResponseWriter, r *http.Request) templates.Page {
	return templates.Page{
		Base:      s.issuer.Path(),
		Locale:    s.catalogue.Match("", r.Header.Get("Accept-Language")),
		Now:       s.now(),
		RequestID: w.Header().Get(provider.RequestIDHeader),
	}
}

// home tells a visitor what this address is, and a developer where to start.
func (s *Server) home(w http.ResponseWriter, r *http.Request) {
	s.page(w, r, http.StatusOK, templates.Home(templates.HomeView{
		Page:      s.view(w, r),
		Issuer:    s.issuer.String(),
		Discovery: s.issuer.Endpoint("/.well-known/openid-configuration"),
	}))
}

// stylesheet serves the one stylesheet. Its name changes with its content.
func (s *Server) stylesheet(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(templates.Stylesheet)
}
