package web

import (
	"net/http"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// showSelect asks with which account to go on.
func (s *Server) showSelect(w http.ResponseWriter, r *http.Request, a *provider.Authorization, who *provider.SignedIn) {
	sealed, err := s.provider.SealFlow(a, s.binding(r))
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	s.page(w, r, http.StatusOK, content{
		body: templates.SelectAccount(templates.SelectAccountView{
			Page: s.flowView(w, r, a),
			Form: templates.Form{
				Action: s.path(pathSelect), Flow: sealed,
				CSRF: proof(s.binding(r), purposeSelect+who.Session.ID),
			},
			Client: clientOf(a, nil), Username: who.User.Username, Email: who.User.Email,
		}),
		form: true, target: a.RedirectTarget(),
	})
}

// purposeSelect, with the id of the session that the page names, is what a
// selection form is shown for.
const purposeSelect = "select "

// postSelect goes on with the account on the page, or asks for another one.
func (s *Server) postSelect(w http.ResponseWriter, r *http.Request) {
	a, err := s.openForm(w, r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	if r.PostForm.Get("account") == "other" {
		s.toSwitch(w, r, a)
		return
	}
	who, err := s.visitor(r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	// Who was signed out meanwhile, or replaced by another account in another
	// tab, is asked again.
	if who != nil && proven(r, s.binding(r), purposeSelect+who.Session.ID) {
		a.MarkSelected(who)
	}
	s.proceed(w, r, a, who)
}

// toSwitch sends the browser to a sign-in page, though somebody is signed in.
func (s *Server) toSwitch(w http.ResponseWriter, r *http.Request, a *provider.Authorization) {
	sealed, err := s.provider.SealFlow(a, s.binding(r))
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	seeOther(w, s.flowPath(pathLogin, sealed)+"&switch=1")
}
