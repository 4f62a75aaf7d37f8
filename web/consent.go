package web

import (
	"errors"
	"net/http"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// showConsent asks a person whether the app may have what it wants.
func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, a *provider.Authorization, c *provider.ConsentView) {
	sealed, err := s.provider.SealFlow(a, s.binding(r)) // it names session and user by now
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	groups := scopeGroups(c.Groups)
	if c.Native { // asked about each time: nothing of it is allowed yet
		forget(groups)
	}
	s.page(w, r, http.StatusOK, content{
		body: templates.Consent(templates.ConsentView{
			Page:     s.flowView(w, r, a),
			Form:     templates.Form{Action: s.path(pathConsent), Flow: sealed},
			Client:   templates.Client{ID: c.ClientID, Name: c.ClientName, Host: c.ClientHost, Trust: trust(c.FirstParty, c.Unverified), Home: c.Home, Policy: c.Policy, Terms: c.Terms},
			Username: c.Username,
			Host:     c.RedirectHost,
			NewHost:  c.NewHost,
			OnDevice: c.Native,
			Groups:   groups,
			Access:   access(c),
		}),
		form: true, target: a.RedirectTarget(),
	})
}

// postConsent answers the app as the person decided.
func (s *Server) postConsent(w http.ResponseWriter, r *http.Request) {
	a, err := s.openForm(w, r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	decision := r.PostForm.Get("decision")
	if decision == "switch" {
		s.toSwitch(w, r, a)
		return
	}
	who, err := s.visitor(r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	if who == nil || decision != "allow" && decision != "deny" {
		s.proceed(w, r, a, who) // signed out meanwhile, or sent without a button: ask again
		return
	}
	redirect, err := s.provider.Approve(r.Context(), a, who, decision == "allow")
	switch {
	case errors.Is(err, provider.ErrSwitched):
		s.proceed(w, r, a, who) // another account or another request by now: ask again
	case err != nil:
		s.refuse(w, r, a, err)
	default:
		s.answer(w, r, a, redirect)
	}
}

// trust says what a person should know about who is behind an app.
func trust(firstParty, unverified bool) templates.Trust {
	switch {
	case unverified:
		return templates.Unverified
	case firstParty:
		return templates.Operator
	default:
		return templates.Registered
	}
}

func scopeGroups(groups []provider.ScopeGroup) []templates.ScopeGroup {
	views := make([]templates.ScopeGroup, len(groups))
	for i, g := range groups {
		views[i].Name = g.Name
		if g.Resource != "" && g.Name == "" {
			views[i].Name = g.Resource // without a name it would pass for the provider itself
		}
		for _, scope := range g.Scopes {
			views[i].Scopes = append(views[i].Scopes, templates.Scope{Name: scope.Name, Description: scope.Description, Before: !scope.New})
		}
	}
	return views
}

// forget leaves out what was allowed before.
func forget(groups []templates.ScopeGroup) {
	for _, group := range groups {
		for i := range group.Scopes {
			group.Scopes[i].Before = false
		}
	}
}

// access says how long the app keeps what it gets. Without refresh tokens
// there is nothing that could lie unused.
func access(c *provider.ConsentView) templates.Access {
	kind := templates.AccessSession
	switch {
	case c.Offline:
		kind = templates.AccessOffline
	case c.Idle == c.Absolute:
		kind = templates.AccessOnce
	}
	return templates.Access{Kind: kind, Idle: c.Idle, Longest: c.Absolute}
}
