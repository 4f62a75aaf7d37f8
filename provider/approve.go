package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// StepKind is what web shows next.
type StepKind int

// A step is a page to show, or a redirect that ends the flow.
const (
	StepLogin StepKind = iota + 1
	StepSelect
	StepConsent
	StepRedirect
)

// Step is the answer to "what comes next?".
type Step struct {
	Kind     StepKind
	Login    LoginView    // for StepLogin and StepSelect
	Consent  *ConsentView // for StepConsent
	Redirect *Redirect    // for StepRedirect
}

// LoginReason is why a person has to sign in.
type LoginReason int

// Nobody is signed in; who is has to do it again; somebody else is expected.
const (
	LoginNone LoginReason = iota
	LoginAgain
	LoginOther
)

// LoginView is what a sign-in or selection page shows.
type LoginView struct {
	ClientName string
	Hint       string // prefills the name
	Reason     LoginReason
}

// ConsentView is what a consent page shows.
type ConsentView struct {
	ClientID, ClientName string
	ClientHost           string // of an identifier that is a URL, or ""
	ClientLinks
	Unverified     bool // not registered by the operator
	FirstParty     bool
	Native         bool   // answers go to a program on this device: always asked
	RedirectHost   string // where the answer goes: the host, or the scheme
	NewHost        bool   // answers went elsewhere when the person was asked before
	Username       string
	Groups         []ScopeGroup
	Offline        bool          // goes on after signing out
	Idle, Absolute time.Duration // how long it lasts unused, and at most
}

// ClientLinks lead to what the maker of a client says of it (RFC 7591 §2):
// https URLs, or "". A logo is never shown: where it comes from would be told who
// is asked, and it could be another's.
type ClientLinks struct{ Home, Policy, Terms string }

func linksOf(c *client) ClientLinks {
	shown := func(uri string) string {
		if checkHTTPS(uri) != nil { // as it was registered; nothing else is linked to
			return ""
		}
		return uri
	}
	return ClientLinks{Home: shown(c.extra.ClientURI), Policy: shown(c.extra.PolicyURI), Terms: shown(c.extra.TermsURI)}
}

// ScopeGroup is what is asked for at one resource.
type ScopeGroup struct {
	Resource string // "" for the issuer's own scopes, which pages have words for
	Name     string
	Scopes   []ScopeView
}

// ScopeView is one scope, in words.
type ScopeView struct {
	Name, Description string
	New               bool // not consented to before
}

// plan is what an authorization would give to the person who is signed in.
type plan struct {
	scopes    []string
	named     []string // scopes of claims that are asked for by name alone (OIDC Core §5.5)
	resources []string
	offline   bool
	consents  []storage.Consent // that the grant rests on
	missing   []storage.Consent // those of them that are not there, or not explicit where that is needed
	unwritten []storage.Consent // those of them that have no row at all
	newHost   bool              // there is consent, but none to where the answer goes
}

// Next decides what comes next for the authorization, of which s is who is
// signed in, or nil. When nothing is left to ask it issues the code. For
// StepConsent it notes in a whom the form is for: seal it after.
// ErrFlowSpent when the code was issued before and used.
func (p *Provider) Next(ctx context.Context, a *Authorization, s *SignedIn) (Step, error) {
	what, pl, err := p.weigh(ctx, a, s, false)
	if err != nil {
		return redirectStep(err)
	}
	hint := a.LoginHint()
	switch what {
	case issue:
		r, err := p.issueCode(ctx, a, s, pl, true)
		if err != nil {
			return redirectStep(err)
		}
		return Step{Kind: StepRedirect, Redirect: r}, nil
	case askLogin:
		return Step{Kind: StepLogin, Login: LoginView{ClientName: a.ClientName(), Hint: hint}}, nil
	case askLoginAgain:
		return Step{Kind: StepLogin, Login: LoginView{ClientName: a.ClientName(), Hint: s.User.Username, Reason: LoginAgain}}, nil
	case askLoginOther:
		return Step{Kind: StepLogin, Login: LoginView{ClientName: a.ClientName(), Hint: hint, Reason: LoginOther}}, nil
	case askSelect:
		return Step{Kind: StepSelect, Login: LoginView{ClientName: a.ClientName(), Hint: s.User.Username}}, nil
	case askConsent:
		a.Session, a.User, a.offer = s.Session.ID, s.User.ID, pl.digest()
		return Step{Kind: StepConsent, Consent: p.consentView(a, s, pl)}, nil
	}
	return Step{Kind: StepRedirect, Redirect: p.refuseOutcome(a, what)}, nil
}

// redirectStep turns an error that is an answer to the app into the step it is.
func redirectStep(err error) (Step, error) {
	var r *Redirect
	if errors.As(err, &r) {
		return Step{Kind: StepRedirect, Redirect: r}, nil
	}
	return Step{}, err
}

// refuseOutcome is the error answer for a refusal of decide (OIDC Core §3.1.2.6).
func (p *Provider) refuseOutcome(a *Authorization, what outcome) *Redirect {
	switch what {
	case refuseConsent:
		return a.refuse(p, "consent_required", "The person has to be asked for consent first.")
	case refuseUnmet:
		return a.refuse(p, "unmet_authentication_requirements", "The authentication class that is essential cannot be reached.")
	default:
		return a.refuse(p, "login_required", "The person has to sign in first, as the one who is expected.")
	}
}

// Approve ends the consent form that Next asked for. Refused consent goes back
// to the app as access_denied. The same approval again, by a double click or
// after a lost answer, is answered with the identical redirect while its code
// is unused and unexpired, and after that with ErrFlowSpent. ErrSwitched: ask
// Next again.
func (p *Provider) Approve(ctx context.Context, a *Authorization, s *SignedIn, granted bool) (*Redirect, error) {
	if a.Session == "" || a.Session != s.Session.ID || a.User != s.User.ID {
		return nil, ErrSwitched
	}
	if !granted {
		return a.refuse(p, "access_denied", "The person said no."), nil
	}
	what, pl, err := p.weigh(ctx, a, s, true)
	var r *Redirect
	switch {
	case errors.As(err, &r):
		return r, nil
	case err != nil:
		return nil, err
	case what >= refuseLogin:
		return p.refuseOutcome(a, what), nil
	case what != issue || pl.digest() != a.offer:
		return nil, ErrSwitched
	}
	return p.issueCode(ctx, a, s, pl, false)
}

// weigh collects what decide needs and asks it.
func (p *Provider) weigh(ctx context.Context, a *Authorization, s *SignedIn, consented bool) (outcome, *plan, error) {
	q := a.request
	o := occasion{
		prompt: q.prompt, maxAge: q.maxAge, expected: q.claims.subjects(), essential: q.claims.essentialACR(),
		consented: consented, alwaysAsk: needsNative(q.redirectURI), now: p.now(),
	}
	if a.expected != "" { // which is one of those
		o.expected = []string{a.expected}
	}
	if s == nil {
		return decide(o), nil, nil
	}
	pl, err := p.plan(ctx, a, s)
	if err != nil {
		return 0, nil, err
	}
	o.signedIn, o.subject, o.authTime, o.acr = true, q.view.subjectFor(q.client, s.User.ID), s.Session.AuthTime, s.Session.ACR
	o.signedInHere, o.selectedHere = a.SignedIn == s.Session.ID, a.Selected == s.Session.ID
	o.consentMissing = len(pl.missing) > 0 || pl.newHost
	return decide(o), pl, nil
}

// plan settles what the person would give and what consent to it there is.
func (p *Provider) plan(ctx context.Context, a *Authorization, s *SignedIn) (*plan, error) {
	q := a.request
	c := q.client
	got, err := q.view.decide(p.issuer.String(), q.wish, c.Scopes, s.User.Roles, c.FirstParty)
	if err != nil {
		var ours *Error
		if errors.As(err, &ours) {
			return nil, a.refuse(p, ours.Code, ours.Description)
		}
		return nil, err
	}
	pl := &plan{resources: got.audience}
	for _, scope := range q.wish.scopes {
		// OpenID Connect's own scopes are about the ID token and the grant too,
		// whatever the access token is for.
		if slices.Contains(oidcScopes, scope) || slices.Contains(got.scopes, scope) {
			pl.scopes = append(pl.scopes, scope)
		}
	}
	// Without openid the client asks for an API on the person's behalf, not for
	// a sign-in, so there is no session for the grant to end with.
	pl.offline = slices.Contains(c.GrantTypes, grantRefresh) &&
		(slices.Contains(pl.scopes, scopeOffline) || !slices.Contains(pl.scopes, scopeOpenID))

	rows, err := p.store.Consents(ctx, s.User.ID, c.ID)
	if err != nil {
		return nil, fmt.Errorf("consents: %w", err)
	}
	// The operator may speak for a person to apps of the house, but not for what
	// goes on after signing out (OIDC Core §11).
	explicit := pl.offline || !c.FirstParty
	have := consentsOf(rows)
	if slices.Contains(pl.scopes, scopeOpenID) {
		for _, scope := range q.claims.scopes() {
			implicit, there := have[consentKey{scope, p.issuer.String()}]
			unasked := explicit && (!there || implicit) && slices.Contains(q.prompt, "none")
			// Without them an app is not refused: it does without what they hold.
			if slices.Contains(c.Scopes, scope) && !slices.Contains(pl.scopes, scope) && !unasked {
				pl.named = append(pl.named, scope)
			}
		}
	}
	for _, scope := range slices.Concat(pl.scopes, pl.named) {
		key := consentKey{scope, q.view.ownerOf(p.issuer.String(), scope)}
		row := storage.Consent{UserID: s.User.ID, ClientID: c.ID, Scope: key.scope, Resource: key.resource}
		implicit, there := have[key]
		pl.consents = append(pl.consents, row)
		if !there {
			pl.unwritten = append(pl.unwritten, row)
		}
		if explicit && (!there || implicit) {
			pl.missing = append(pl.missing, row)
		}
	}
	// Consent is to an app at an address. An app that moves, or whose
	// registration somebody changed, is asked about again. Answers to this
	// device are asked about always.
	if explicit && len(rows) > 0 && !needsNative(q.redirectURI) {
		known, err := p.store.ConsentHost(ctx, s.User.ID, c.ID, redirectHost(q.redirectURI))
		if err != nil {
			return nil, fmt.Errorf("consents: %w", err)
		}
		pl.newHost = !known
	}
	return pl, nil
}

// consentKey names what a consent is to; consentsOf says of each whether it is implicit.
type consentKey struct{ scope, resource string }

func consentsOf(rows []storage.Consent) map[consentKey]bool {
	have := make(map[consentKey]bool, len(rows))
	for _, row := range rows {
		have[consentKey{row.Scope, row.Resource}] = row.Implicit
	}
	return have
}

// digest names what a consent form lists, so that no more is given than was shown.
func (pl *plan) digest() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %t", slices.Concat(pl.scopes, pl.named), pl.resources, pl.offline))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

func (p *Provider) consentView(a *Authorization, s *SignedIn, pl *plan) *ConsentView {
	q := a.request
	c := q.client
	view := &ConsentView{
		ClientID: c.ID, ClientName: c.Name, ClientHost: clientHost(c.ID), Unverified: c.Origin != originOperator, FirstParty: c.FirstParty,
		ClientLinks: linksOf(c),
		Native:      needsNative(q.redirectURI), RedirectHost: redirectHost(q.redirectURI), NewHost: pl.newHost, Username: s.User.Username,
		Groups: p.scopeGroups(q.view.snapshot, pl.consents, pl.missing), Offline: pl.offline,
	}
	switch {
	case pl.offline:
		view.Idle, view.Absolute = p.policy.RefreshIdle, p.policy.RefreshAbsolute
	case slices.Contains(c.GrantTypes, grantRefresh):
		view.Idle, view.Absolute = p.policy.SessionIdle, p.policy.SessionAbsolute
	default:
		view.Idle, view.Absolute = p.policy.AccessTokenLifetime, p.policy.AccessTokenLifetime
	}
	return view
}

// originOperator marks clients that an operator registered and vouches for.
const originOperator = "operator"

// redirectHost returns where an answer goes in the words of a page.
func redirectHost(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return ""
	case u.Scheme == "http" || u.Scheme == "https":
		return u.Host
	}
	return u.Scheme
}

// scopeGroups sorts consents into groups by resource, the issuer's own first.
func (p *Provider) scopeGroups(s *snapshot, consents, missing []storage.Consent) []ScopeGroup {
	var groups []ScopeGroup
	for _, row := range consents {
		resource, name := row.Resource, ""
		if resource == p.issuer.String() {
			resource = ""
		} else if r := s.resources[resource]; r != nil {
			name = r.Name
		}
		i := slices.IndexFunc(groups, func(g ScopeGroup) bool { return g.Resource == resource })
		if i < 0 {
			i = len(groups)
			groups = append(groups, ScopeGroup{Resource: resource, Name: name})
		}
		groups[i].Scopes = append(groups[i].Scopes, ScopeView{
			Name: row.Scope, Description: s.scopes[row.Scope].Description, New: slices.Contains(missing, row),
		})
	}
	slices.SortStableFunc(groups, func(a, b ScopeGroup) int { return strings.Compare(a.Resource, b.Resource) })
	return groups
}
