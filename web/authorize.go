package web

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// authorize is the authorization endpoint (RFC 6749 §3.1).
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	a, err := s.begin(r)
	if err != nil {
		s.refuse(w, r, a, s.held(r, err))
		return
	}
	if r.Method == http.MethodPost {
		// It comes from the app's site, so without our cookies (SameSite=Lax):
		// they come with the GET that follows.
		sealed, err := s.provider.SealFlow(a, "")
		if err != nil {
			s.refuse(w, r, a, err)
			return
		}
		seeOther(w, s.flowPath(provider.PathAuthorize, sealed))
		return
	}
	who, err := s.visitor(r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	s.proceed(w, r, a, who)
}

// held keeps an error answer to a stranger from leaving when nobody is signed in.
func (s *Server) held(r *http.Request, err error) error {
	var redirect *provider.Redirect
	if !errors.As(err, &redirect) || !redirect.Stranger {
		return err
	}
	if who, failed := s.visitor(r); failed != nil || who == nil {
		return cmp.Or(failed, error(redirect.Page()))
	}
	return err
}

// begin reads an authorization request, or what a POST has made of one.
func (s *Server) begin(r *http.Request) (*provider.Authorization, error) {
	if query := r.URL.Query(); r.Method == http.MethodGet && query.Has("flow") && !query.Has("client_id") {
		return s.provider.OpenFlow(r.Context(), query.Get("flow"), "")
	}
	return s.provider.BeginAuthorization(r.Context(), r)
}

// proceed sends the browser to whatever comes next: one of our pages, or the
// app with the answer.
func (s *Server) proceed(w http.ResponseWriter, r *http.Request, a *provider.Authorization, who *provider.SignedIn) {
	step, err := s.provider.Next(r.Context(), a, who)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	if step.Kind == provider.StepRedirect {
		s.answer(w, r, a, step.Redirect)
		return
	}
	s.toPage(w, r, a, stepPath(step.Kind))
}

// toPage sends the browser to a page of the flow.
func (s *Server) toPage(w http.ResponseWriter, r *http.Request, a *provider.Authorization, path string) {
	sealed, err := s.provider.SealFlow(a, s.bind(w, r))
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	seeOther(w, s.flowPath(path, sealed))
}

func stepPath(kind provider.StepKind) string {
	switch kind {
	case provider.StepSelect:
		return pathSelect
	case provider.StepConsent:
		return pathConsent
	default:
		return pathLogin
	}
}

// step shows the page of a flow that comes next. It may be another one than
// the URL says: somebody went back, or signed in in another tab meanwhile.
func (s *Server) step(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	a, err := s.openFlow(r, query.Get("flow"))
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	who, err := s.visitor(r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	if query.Has("switch") && r.URL.Path == s.path(pathLogin) {
		s.showLogin(w, r, loginPage{flow: a})
		return
	}
	step, err := s.provider.Next(r.Context(), a, who)
	switch {
	case err != nil:
		s.refuse(w, r, a, err)
	case step.Kind == provider.StepRedirect:
		s.answer(w, r, a, step.Redirect)
	case r.URL.Path != s.path(stepPath(step.Kind)):
		s.toPage(w, r, a, stepPath(step.Kind))
	case step.Kind == provider.StepLogin:
		s.showLogin(w, r, loginPage{flow: a, username: step.Login.Hint, again: step.Login.Reason == provider.LoginAgain})
	case step.Kind == provider.StepSelect:
		s.showSelect(w, r, a, who)
	case step.Kind == provider.StepConsent:
		s.showConsent(w, r, a, step.Consent)
	}
}

// answer takes the answer to the app: in the URL, or by a page with a form
// (OAuth 2.0 Form Post Response Mode). a is nil when the request was refused
// before there was a flow.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, a *provider.Authorization, redirect *provider.Redirect) {
	carried, err := s.provider.Parameters(r.Context(), redirect)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	if !redirect.ByForm() {
		seeOther(w, redirect.Location(carried))
		return
	}
	page := s.flowView(w, r, a)
	page.Nonce = newNonce()
	var parameters []templates.Parameter
	for _, name := range slices.Sorted(maps.Keys(carried)) {
		parameters = append(parameters, templates.Parameter{Name: name, Value: carried.Get(name)})
	}
	s.page(w, r, http.StatusOK, content{
		body:   templates.FormPost(templates.FormPostView{Page: page, Client: *clientOf(a, redirect), Action: redirect.URL, Parameters: parameters}),
		target: redirect.URL,
		only:   true,
		nonce:  page.Nonce,
	})
}

// clientOf names the app of a flow, or else the host that the answer goes to.
func clientOf(a *provider.Authorization, redirect *provider.Redirect) *templates.Client {
	if a != nil {
		return &templates.Client{Name: a.ClientName(), Host: a.ClientHost(), Trust: trust(false, a.Unverified())}
	}
	if u, err := url.Parse(redirect.URL); err == nil && u.Host != "" {
		return &templates.Client{Name: u.Host}
	}
	return &templates.Client{Name: redirect.URL}
}
