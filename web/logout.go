package web

import (
	"net/http"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// purposeLogout, with the id of the session, is what the confirmation is shown for.
const purposeLogout = "logout "

// logout is the end session endpoint (OpenID Connect RP-Initiated Logout 1.0 §2).
func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	l, err := s.beginLogout(r)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	if r.Method == http.MethodPost { // from the app's site, without our cookies: as for authorize
		sealed, err := s.provider.SealLogout(l, "")
		if err != nil {
			s.refuse(w, r, nil, err)
			return
		}
		seeOther(w, s.flowPath(provider.PathLogout, sealed))
		return
	}
	who, err := s.visitor(r)
	switch {
	case err != nil:
		s.refuse(w, r, nil, err)
	case l.NeedsConfirmation(who):
		s.showLogout(w, r, l, who)
	default:
		s.finishLogout(w, r, l, who)
	}
}

// beginLogout reads a logout request, or what a POST has made of one.
func (s *Server) beginLogout(r *http.Request) (*provider.LogoutRequest, error) {
	if query := r.URL.Query(); r.Method == http.MethodGet && query.Has("flow") {
		return s.provider.OpenLogout(r.Context(), query.Get("flow"), "")
	}
	return s.provider.BeginLogout(r.Context(), r)
}

// showLogout asks whether the person wants to sign out.
func (s *Server) showLogout(w http.ResponseWriter, r *http.Request, l *provider.LogoutRequest, who *provider.SignedIn) {
	b := s.bind(w, r)
	sealed, err := s.provider.SealLogout(l, b)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	s.page(w, r, http.StatusOK, content{
		body: templates.Logout(templates.LogoutView{
			Page:   s.view(w, r, l.UILocales()...),
			Form:   templates.Form{Action: s.path(pathConfirmLogout), Flow: sealed, CSRF: proof(b, purposeLogout+who.Session.ID)},
			Client: logoutClient(l), Username: who.User.Username,
		}),
		form: true, target: l.RedirectTarget(),
	})
}

// postLogout ends the session that the page was about.
func (s *Server) postLogout(w http.ResponseWriter, r *http.Request) {
	if err := readForm(w, r); err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	b := s.binding(r)
	if b == "" {
		s.refuse(w, r, nil, provider.ErrFlowInvalid)
		return
	}
	l, err := s.provider.OpenLogout(r.Context(), r.PostForm.Get("flow"), b)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	if r.PostForm.Get("decision") == "stay" {
		seeOther(w, s.path(pathAccount))
		return
	}
	who, err := s.visitor(r)
	switch {
	case err != nil:
		s.refuse(w, r, nil, err)
	case who != nil && !proven(r, b, purposeLogout+who.Session.ID):
		s.showLogout(w, r, l, who) // somebody else signed in meanwhile: ask about them
	default:
		s.finishLogout(w, r, l, who)
	}
}

func (s *Server) finishLogout(w http.ResponseWriter, r *http.Request, l *provider.LogoutRequest, who *provider.SignedIn) {
	done, err := s.provider.FinishLogout(r.Context(), l, who)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	s.cookies.clear(w, s.cookies.session)
	if done.Location != "" && len(done.Frames) == 0 {
		seeOther(w, done.Location)
		return
	}
	if done.Location != "" {
		// Front-Channel Logout §3: once the frames had time to load, without a script.
		w.Header().Set("Refresh", "2; url="+done.Location)
	}
	s.page(w, r, http.StatusOK, content{frames: done.Frames, body: templates.SignedOut(templates.SignedOutView{
		Page: s.view(w, r, l.UILocales()...), Client: logoutClient(l), ReturnURL: done.Location, LoginURL: s.path(pathLogin), Frames: done.Frames,
	})})
}

func logoutClient(l *provider.LogoutRequest) *templates.Client {
	if l.ClientName() == "" {
		return nil
	}
	return &templates.Client{Name: l.ClientName()}
}
