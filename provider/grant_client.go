package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/provider/revocation"
)

const grantClientCredentials = "client_credentials"

// clientCredentials is the grant of RFC 6749 §4.4: a client acts for itself.
// It writes nothing: the token carries all there is to know.
type clientCredentials struct{ provider *Provider }

var _ fosite.TokenEndpointHandler = (*clientCredentials)(nil)

func (h *clientCredentials) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne(grantClientCredentials)
}

func (h *clientCredentials) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool {
	return false
}

func (h *clientCredentials) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	p, s := h.provider, r.GetSession().(*session)
	if r.GetClient().IsPublic() { // RFC 6749 §4.4: confidential clients only
		return unauthorizedClient("A public client cannot act for itself.")
	}
	w, err := readWish(r.GetRequestForm(), p.policy)
	if err != nil {
		return err
	}
	// The client is read again under the view the token will rest on: the one
	// that authenticated may be older than it.
	var c *client
	if s.view, c, err = p.registry.settled(ctx, r.GetClient().GetID()); err != nil {
		return err
	}
	if s.award, err = p.gate(s.view, ask{client: c, grantType: grantClientCredentials, wish: w}); err != nil {
		return err
	}
	s.subject = c.ID // RFC 9068 §5: never a person's sub, those are UUIDs
	return nil
}

func (h *clientCredentials) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, answer fosite.AccessResponder) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	_, err := h.provider.answerAccessToken(r, answer)
	return err
}

// answerAccessToken signs the access token the session stands for and puts it
// into the answer (RFC 6749 §5.1). It returns the token.
func (p *Provider) answerAccessToken(r fosite.AccessRequester, answer fosite.AccessResponder) (string, error) {
	s := r.GetSession().(*session)
	issuedAt := s.view.asOf.Truncate(time.Second)
	expiresAt := p.now().Truncate(time.Second).Add(s.award.lifetime)
	s.tokenID = newTokenID()
	claims := accessToken{
		issuer:    p.issuer.String(),
		subject:   s.subject,
		audience:  s.award.audience,
		clientID:  r.GetClient().GetID(),
		issuedAt:  issuedAt,
		expiresAt: expiresAt,
		id:        s.tokenID,
		scopes:    s.award.scopes,
		roles:     s.award.roles,
	}
	if s.person != nil {
		g := s.person.grant
		claims.grantID, claims.authTime, claims.acr, claims.amr = g.ID, g.AuthTime, g.ACR, g.AMR
		if !g.Offline {
			claims.sessionID = sidOf(g)
		}
		if g.StatusIndex > 0 && s.view.listsStatus(s.award.audience) {
			list, bit := revocation.StatusPlace(g.StatusIndex)
			claims.status = &statusRef{bit, p.statusListURI(list)}
		}
	}
	body := claims.encode()
	token, err := p.sign(s.view, s.award.alg, typAccessToken, body)
	if err != nil {
		return "", fmt.Errorf("access token: %w", err)
	}
	if err := p.checkSize(r.GetClient().GetID(), token, body); err != nil {
		return "", err
	}
	answer.SetAccessToken(token)
	answer.SetTokenType("Bearer")
	answer.SetExpiresIn(s.award.lifetime)
	answer.SetScopes(s.award.scopes)
	return token, nil
}
