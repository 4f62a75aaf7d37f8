package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// LogoutRequest is an app's wish that the person be signed out (OpenID Connect
// RP-Initiated Logout 1.0 §2), already judged.
type LogoutRequest struct {
	begunAt     time.Time
	clientName  string
	redirectURI string // registered by the client, or ""
	state       string
	hasState    bool
	uiLocales   []string
	subject     string // of the id_token_hint, if there is a good one
	sessionID   string
}

// ClientName returns the name of the app that asks, or "".
func (l *LogoutRequest) ClientName() string { return l.clientName }

// UILocales returns the languages asked for, the preferred first.
func (l *LogoutRequest) UILocales() []string { return l.uiLocales }

// RedirectTarget returns where the person goes afterwards as a CSP source, or "".
func (l *LogoutRequest) RedirectTarget() string { return cspSource(l.redirectURI) }

// NeedsConfirmation says whether the person has to be asked: always, unless
// nobody is signed in or the hint names this very session. Any site can send a
// browser here (RP-Initiated Logout §6).
func (l *LogoutRequest) NeedsConfirmation(s *SignedIn) bool {
	return s != nil && (l.sessionID == "" || l.sessionID != s.Session.ID || l.subject != s.User.ID)
}

var logoutParameters = []string{
	"id_token_hint", "logout_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales",
}

// BeginLogout reads a logout request, GET or POST. What does not fit together
// leads to no redirect: a hint of another client, an address that is not
// registered. It returns a *PageError for what cannot be read at all.
func (p *Provider) BeginLogout(ctx context.Context, r *http.Request) (*LogoutRequest, error) {
	form, err := p.readFront(r, logoutParameters)
	if err != nil {
		return nil, err
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	hinted := false
	l := &LogoutRequest{begunAt: p.now(), uiLocales: readLocales(form.Get("ui_locales"))}
	clientID := form.Get("client_id")
	if given := form.Get("id_token_hint"); given != "" {
		// Not ours: as if it were not there (RP-Initiated Logout §4).
		if h, err := p.readHint(v, given); err == nil {
			if clientID != "" && clientID != h.clientID {
				return l, nil
			}
			clientID, l.subject, l.sessionID, hinted = h.clientID, h.subject, h.sessionID, true
			if err := p.unmask(ctx, l); err != nil {
				return nil, err
			}
		}
	}
	if clientID == "" {
		return l, nil
	}
	c, err := p.registry.client(ctx, v, clientID)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrInvalid) || err == nil && !c.Enabled {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	l.clientName = c.Name
	// A stranger has to show that it signed somebody in: its word alone does not
	// make the place legitimate (RP-Initiated Logout §3).
	vouched := hinted || c.Origin == originOperator
	if uri := form.Get("post_logout_redirect_uri"); vouched && slices.Contains(c.PostLogoutRedirectURIs, uri) { // exactly (§3.1)
		l.redirectURI, l.state, l.hasState = uri, form.Get("state"), form.Has("state")
	}
	return l, nil
}

// unmask replaces the pairwise names of a hint by the names here. Where no grant
// has them any more the person is asked, as with any hint of another session.
func (p *Provider) unmask(ctx context.Context, l *LogoutRequest) (err error) {
	if isPairwise(l.subject, pairwiseSubSize) {
		if l.subject, err = p.store.PairwiseUser(ctx, l.subject); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("subject of the hint: %w", err)
		}
	}
	if isPairwise(l.sessionID, pairwiseSIDSize) {
		if l.sessionID, err = p.store.PairwiseSession(ctx, l.sessionID); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("session of the hint: %w", err)
		}
	}
	return nil
}

// sealedLogout is the form in which a LogoutRequest travels.
type sealedLogout struct {
	BegunAt     int64    `json:"b"` // Unix milliseconds
	ClientName  string   `json:"n,omitempty"`
	RedirectURI string   `json:"r,omitempty"`
	State       *string  `json:"s,omitempty"`
	UILocales   []string `json:"l,omitempty"`
	Subject     string   `json:"u,omitempty"`
	SessionID   string   `json:"c,omitempty"`
}

// SealLogout returns the request as text for a URL or a form, as SealFlow does.
func (p *Provider) SealLogout(l *LogoutRequest, b Binding) (string, error) {
	s := sealedLogout{BegunAt: l.begunAt.UnixMilli(), ClientName: l.clientName, RedirectURI: l.redirectURI,
		UILocales: l.uiLocales, Subject: l.subject, SessionID: l.sessionID}
	if l.hasState {
		s.State = &l.state
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("logout: %w", err)
	}
	return p.seal(flowLogout, b, plain)
}

// OpenLogout returns what SealLogout sealed, or ErrFlowExpired or ErrFlowInvalid.
func (p *Provider) OpenLogout(ctx context.Context, sealed string, b Binding) (*LogoutRequest, error) {
	plain, err := p.open(ctx, flowLogout, b, sealed)
	if err != nil {
		return nil, err
	}
	var s sealedLogout
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, fmt.Errorf("logout: %w", err)
	}
	l := &LogoutRequest{begunAt: time.UnixMilli(s.BegunAt).UTC(), clientName: s.ClientName, redirectURI: s.RedirectURI,
		uiLocales: s.UILocales, subject: s.Subject, sessionID: s.SessionID}
	if s.State != nil {
		l.state, l.hasState = *s.State, true
	}
	if p.now().After(l.begunAt.Add(p.policy.FlowLifetime)) {
		return nil, ErrFlowExpired
	}
	return l, nil
}

// LoggedOut says what is left to do once somebody is signed out.
type LoggedOut struct {
	// Location is where to send the browser, or "" for a page that says so.
	Location string
	// Frames are pages of clients that have to be shown to the browser before
	// (OpenID Connect Front-Channel Logout 1.0 §3).
	Frames []string
}

// FinishLogout signs the person out, if one is signed in.
func (p *Provider) FinishLogout(ctx context.Context, l *LogoutRequest, s *SignedIn) (LoggedOut, error) {
	done := LoggedOut{Location: l.redirectURI}
	if l.redirectURI != "" && l.hasState {
		done.Location = withQuery(l.redirectURI, url.Values{"state": {l.state}})
	}
	if s == nil {
		return done, nil
	}
	var err error
	if done.Frames, err = p.logoutFrames(ctx, s); err != nil { // while the grants are there
		return LoggedOut{}, err
	}
	if err := p.SignOut(ctx, s); err != nil {
		return LoggedOut{}, err
	}
	return done, nil
}

// maxLogoutFrames bounds how many pages of others a browser has to load.
const maxLogoutFrames = 16

// logoutFrames returns the front-channel logout URIs of the clients that the
// session signed the person in to.
func (p *Provider) logoutFrames(ctx context.Context, s *SignedIn) ([]string, error) {
	targets, err := p.store.LogoutTargets(ctx, s.User.ID)
	if err != nil {
		return nil, fmt.Errorf("clients of the session: %w", err)
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	var frames []string
	for _, t := range targets {
		if !t.FrontChannel || t.SessionID != s.Session.ID || len(frames) == maxLogoutFrames {
			continue
		}
		c, err := p.registry.client(ctx, v, t.ClientID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && (!c.Enabled || c.FrontChannelLogoutURI == "") {
			continue // changed just now
		}
		if err != nil {
			return nil, err
		}
		frame := c.FrontChannelLogoutURI
		if c.extra.FrontChannelSession { // §3
			frame = withQuery(frame, url.Values{"iss": {p.issuer.String()}, "sid": {cmp.Or(t.SID, t.SessionID)}})
		}
		frames = append(frames, frame)
	}
	return frames, nil
}

// withQuery adds parameters to a URI that may have some.
func withQuery(uri string, parameters url.Values) string {
	if strings.Contains(uri, "?") {
		return uri + "&" + parameters.Encode()
	}
	return uri + "?" + parameters.Encode()
}
