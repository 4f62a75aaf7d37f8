package web

import (
	"errors"
	"net/http"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/templates"
)

// purposeSetup, with the link, is what a set-up form is shown for.
const purposeSetup = "setup "

// setup lets the bearer of a set-up link choose a password. To look at the page
// does not use the link up: mail scanners look, too.
func (s *Server) setup(w http.ResponseWriter, r *http.Request) {
	link := r.URL.Query().Get("link")
	user, err := s.provider.Invitee(r.Context(), link)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	s.showSetup(w, r, link, user, http.StatusOK)
}

func (s *Server) showSetup(w http.ResponseWriter, r *http.Request, link string, user storage.User, status int, problems ...templates.Problem) {
	s.page(w, r, status, content{form: true, body: templates.SetUp(templates.SetUpView{
		Page:     s.view(w, r),
		Form:     templates.Form{Action: s.path(pathSetup), Flow: link, CSRF: proof(s.bind(w, r), purposeSetup+link)},
		Username: user.Username, FixedUsername: true,
		MinPassword: provider.MinPassword, Problems: problems,
	})})
}

// postSetup sets the password and signs the person in.
func (s *Server) postSetup(w http.ResponseWriter, r *http.Request) {
	if err := readForm(w, r); err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	link := r.PostForm.Get("flow")
	if !proven(r, s.binding(r), purposeSetup+link) {
		s.fail(w, r, http.StatusForbidden)
		return
	}
	user, err := s.provider.Invitee(r.Context(), link)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	password, problems := newPassword(r.PostForm)
	if len(problems) > 0 {
		s.showSetup(w, r, link, user, http.StatusUnprocessableEntity, problems...)
		return
	}
	var invalid *provider.InvalidError
	_, err = s.provider.UseInvitation(r.Context(), link, password)
	switch {
	case errors.As(err, &invalid):
		s.showSetup(w, r, link, user, http.StatusUnprocessableEntity, passwordProblems(invalid)...)
	case err != nil:
		s.refuse(w, r, nil, err)
	default:
		s.notify(w, templates.AccountCreated)
		s.signIn(w, r, nil, provider.SignInAttempt{Login: user.Username, Password: password})
	}
}
