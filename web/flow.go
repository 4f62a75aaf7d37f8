package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// Paths of the pages, below the issuer's path. Those of the protocol are the
// provider's.
const (
	pathLogin         = "/login"
	pathLoginPassword = "/login/password" // a password that somebody else set has to be replaced
	pathSelect        = "/select"
	pathConsent       = "/consent"
	pathConfirmLogout = "/logout/confirm"
	pathSetup         = provider.PathSetUp
	pathAccount       = "/account"
	pathEndSession    = "/account/sessions/end"
	pathEndOthers     = "/account/sessions/end-others"
	pathWithdraw      = "/account/apps/withdraw"
	pathPassword      = "/account/password"
)

// path returns one of our paths as a page has to write it.
func (s *Server) path(path string) string { return s.issuer.Path() + path }

// flowPath is path for a page that carries a flow.
func (s *Server) flowPath(path, sealed string) string {
	return s.path(path) + "?" + url.Values{"flow": {sealed}}.Encode()
}

// maxForm bounds a form: a flow, and passwords of which every byte is escaped.
const maxForm = 32 << 10

// readForm reads the form that one of our pages posted into r.PostForm.
func readForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return &provider.PageError{Status: http.StatusBadRequest, Kind: provider.PageBadRequest, Description: "The form could not be read."}
	}
	return nil
}

// openFlow opens the flow that a page of ours carries.
func (s *Server) openFlow(r *http.Request, sealed string) (*provider.Authorization, error) {
	b := s.binding(r)
	if b == "" { // an unbound flow opens at the authorization endpoint only
		return nil, provider.ErrFlowInvalid
	}
	return s.provider.OpenFlow(r.Context(), sealed, b)
}

// openForm reads a posted form and opens the flow in it.
func (s *Server) openForm(w http.ResponseWriter, r *http.Request) (*provider.Authorization, error) {
	if err := readForm(w, r); err != nil {
		return nil, err
	}
	return s.openFlow(r, r.PostForm.Get("flow"))
}

// visitor returns who is signed in in this browser, or nil.
func (s *Server) visitor(r *http.Request) (*provider.SignedIn, error) {
	value := cookie(r, s.cookies.session)
	if value == "" {
		return nil, nil
	}
	who, err := s.provider.Resume(r.Context(), value)
	if errors.Is(err, provider.ErrNoSession) {
		return nil, nil
	}
	return who, err
}

// view is what every page begins with, in the language that the app or else
// the browser asks for.
func (s *Server) view(w http.ResponseWriter, r *http.Request, uiLocales ...string) templates.Page {
	return templates.Page{
		Base:      s.issuer.Path(),
		Locale:    s.catalogue.Match(strings.Join(uiLocales, " "), r.Header.Get("Accept-Language")),
		Now:       s.now().UTC(),
		RequestID: w.Header().Get(provider.RequestIDHeader),
	}
}

// flowView is view for a page of a flow; a may be nil.
func (s *Server) flowView(w http.ResponseWriter, r *http.Request, a *provider.Authorization) templates.Page {
	if a == nil {
		return s.view(w, r)
	}
	return s.view(w, r, a.UILocales()...)
}

// seeOther sends the browser on with a GET, whatever this request was: a
// password or a code in a form is never sent along (RFC 9700 §4.12).
func seeOther(w http.ResponseWriter, location string) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}
