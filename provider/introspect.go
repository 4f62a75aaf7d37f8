package provider

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// issued is an access token of ours whose signature was checked.
type issued struct {
	claims map[string]any // as signed; shared, never written to

	issuer, subject, clientID, id, kid string
	grantID, sessionID, scope          string // of a person's grant; scope of any
	audience                           []string
	issuedAt, expiresAt                time.Time
}

// audienceClaim reads aud in both its forms (RFC 7519 §4.1.3).
type audienceClaim []string

func (a *audienceClaim) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audienceClaim{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

var errNotIssued = errors.New("not an access token of this issuer")

// readToken checks that token is an access token of this issuer, expired or
// not. Signatures once checked are remembered; who may know and what was
// revoked is asked every time.
func (p *Provider) readToken(v view, token string) (*issued, error) {
	digest := sha256.Sum256([]byte(token))
	if t, ok := p.tokens.get(digest); ok {
		// A key that left the ring takes its tokens with it.
		if _, _, published := v.ring.PublicKey(t.kid); published {
			return t, nil
		}
		return nil, errNotIssued
	}
	payload, kid, err := v.ring.Verify(token, typAccessToken)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotIssued, err)
	}
	var c struct {
		Issuer   string        `json:"iss"`
		Subject  string        `json:"sub"`
		Audience audienceClaim `json:"aud"`
		ClientID string        `json:"client_id"`
		IssuedAt int64         `json:"iat"`
		Expires  int64         `json:"exp"`
		ID       string        `json:"jti"`
		GrantID  string        `json:"grant_id"`
		Session  string        `json:"sid"`
		Scope    string        `json:"scope"`
	}
	t := &issued{kid: kid}
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotIssued, err)
	}
	if err := json.Unmarshal(payload, &t.claims); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotIssued, err)
	}
	if c.Issuer != p.issuer.String() {
		return nil, errNotIssued
	}
	t.issuer, t.subject, t.clientID, t.id, t.audience = c.Issuer, c.Subject, c.ClientID, c.ID, c.Audience
	t.grantID, t.sessionID, t.scope = c.GrantID, c.Session, c.Scope
	t.issuedAt, t.expiresAt = time.Unix(c.IssuedAt, 0).UTC(), time.Unix(c.Expires, 0).UTC()
	p.tokens.put(digest, t)
	return t, nil
}

// revoked asks the log, which is the truth for single tokens and as fresh as
// the truth for everything else, whether anything refuses the token. The
// most restrictive entry wins.
func (p *Provider) revoked(ctx context.Context, t *issued, now time.Time) (bool, error) {
	names := []storage.RevocationKey{
		revocation.Key(revocation.KindToken, t.id),
		revocation.Key(revocation.KindSubject, t.subject),
		revocation.Key(revocation.KindClient, t.clientID),
		revocation.Key(revocation.KindKey, t.kid),
		revocation.Key(revocation.KindIssuer, t.issuer),
	}
	if t.grantID != "" {
		names = append(names, revocation.Key(revocation.KindGrant, t.grantID))
	}
	if t.sessionID != "" {
		names = append(names, revocation.Key(revocation.KindSession, t.sessionID))
	}
	entries, err := p.store.Revocations(ctx, names, now)
	if err != nil {
		return false, fmt.Errorf("revocations: %w", err)
	}
	return slices.ContainsFunc(entries, func(e storage.Revocation) bool {
		return revocation.Refuses(e, t.issuedAt)
	}), nil
}

// Introspect answers the introspection endpoint (RFC 7662). A token's state
// is told to the client it was issued to and to those an operator named for
// its resource; everybody else learns that it is not active, and no more.
func (p *Provider) Introspect(w http.ResponseWriter, r *http.Request) {
	if err := p.introspect(w, r); err != nil {
		p.writeError(w, r, err)
	}
}

func (p *Provider) introspect(w http.ResponseWriter, r *http.Request) error {
	ctx := withRequest(w, r)
	if err := readForm(w, r); err != nil {
		return err
	}
	authenticated, err := p.fosite.AuthenticateClient(ctx, r, r.PostForm)
	if err != nil {
		return err
	}
	if authenticated.IsPublic() { // RFC 7662 §2.1: the caller must authenticate
		return invalidClient(errors.New("a public client cannot introspect"))
	}
	token := r.PostForm.Get("token")
	if token == "" {
		return invalidRequest("The parameter token is missing.")
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return err
	}
	p.metrics.introspections.Inc()
	c := authenticated.(*client)
	answer, err := p.inspect(ctx, v, c, token)
	if err != nil {
		return err
	}
	if !accepts(r, "application/"+typIntrospection) {
		writeJSON(w, http.StatusOK, answer)
		return nil
	}
	signed, err := p.signAnswer(v, c.extra.IntrospectionAlg, typIntrospection, c.ID, map[string]any{
		"iat": p.now().Unix(), "token_introspection": answer, // RFC 9701 §5
	})
	if err != nil {
		return err
	}
	writeJWT(w, "application/"+typIntrospection, signed)
	return nil
}

// inspect returns what the client may learn of the token (RFC 7662 §2.2).
func (p *Provider) inspect(ctx context.Context, v view, c *client, token string) (map[string]any, error) {
	if refresh, err := readGrantToken(v.ring, prefixRefresh, token); err == nil {
		return p.inspectRefresh(ctx, v, c, refresh)
	}
	t, err := p.readToken(v, token)
	now := p.now()
	if err != nil || !now.Before(t.expiresAt) || !v.mayIntrospect(c.ID, t) {
		return inactive(), nil
	}
	revoked, err := p.revoked(ctx, t, now)
	if err != nil {
		return nil, err
	}
	if revoked {
		return inactive(), nil
	}
	answer := make(map[string]any, len(t.claims)+2)
	for name, value := range t.claims {
		answer[name] = value
	}
	answer["active"] = true
	answer["token_type"] = "Bearer"
	return answer, nil
}

// inspectRefresh tells a client about its own refresh token. One that was
// used is not active, even while a repeat of it would be answered.
func (p *Provider) inspectRefresh(ctx context.Context, v view, c *client, t *grantToken) (map[string]any, error) {
	who, err := p.person(ctx, t.grantID)
	if err != nil && !errors.Is(err, errGone) {
		return nil, err
	}
	if err != nil || !t.of(who.grant) || who.grant.ClientID != c.ID || who.grant.Generation != t.generation {
		return inactive(), nil
	}
	// It is active if it could be used now.
	if _, err := p.gate(v, ask{client: c, grantType: grantRefresh, person: who}); err != nil {
		return inactive(), nil
	}
	g := who.grant
	return map[string]any{
		"active": true, "iss": p.issuer.String(), "sub": subjectOf(g), "client_id": g.ClientID, "grant_id": g.ID,
		"scope": strings.Join(g.Scopes, " "), "aud": g.Resources, "exp": earlier(g.IdleEnd, g.AbsoluteEnd).Unix(),
	}, nil
}

// mayIntrospect says whether the client may learn the token's state.
func (s *snapshot) mayIntrospect(clientID string, t *issued) bool {
	return clientID == t.clientID || slices.ContainsFunc(t.audience, func(uri string) bool {
		r := s.resources[uri]
		return r != nil && slices.Contains(r.Introspectors, clientID)
	})
}

// inactive is the one answer for every token that is not active for the caller
// (RFC 7662 §2.2): no member beyond active.
func inactive() map[string]any { return map[string]any{"active": false} }
