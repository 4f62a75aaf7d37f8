package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// refreshToken is the grant of RFC 6749 §6 with rotation (RFC 9700 §4.14.2):
// every use moves the grant one generation on, by a compare-and-swap. A repeat
// of the token before, soon after, is taken for a lost answer and gets the
// same successor; any other old token is a theft, and ends the family.
type refreshToken struct{ provider *Provider }

var _ fosite.TokenEndpointHandler = (*refreshToken)(nil)

func (h *refreshToken) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne(grantRefresh)
}

func (h *refreshToken) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *refreshToken) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	p, s, form := h.provider, r.GetSession().(*session), r.GetRequestForm()
	if form.Get("refresh_token") == "" {
		return invalidRequest("The parameter refresh_token is missing.")
	}
	w, err := readWish(form, p.policy)
	if err != nil {
		return err
	}
	c, err := p.presented(ctx, s, r.GetClient().GetID(), prefixRefresh, form.Get("refresh_token"))
	if err != nil {
		return err
	}
	if s.token.generation != s.person.grant.Generation && !p.repeats(c, s.token, s.person.grant) {
		return p.refuseStale(ctx, s.token, s.person.grant)
	}
	s.award, err = p.gate(s.view, ask{client: c, grantType: grantRefresh, wish: w, person: s.person})
	return err
}

// repeats says whether the token is the one before the grant's current, used
// again so soon after that its answer may have been lost.
func (p *Provider) repeats(c *client, t *grantToken, g storage.Grant) bool {
	window := c.RefreshWindow
	if window < 0 {
		window = p.policy.RefreshWindow
	}
	// The replica that rotated may have been a moment ahead, so no window has to
	// be told from one that has hardly begun.
	return window > 0 && t.generation == g.Generation-1 && g.RevokedAt.IsZero() && p.now().Before(g.RotatedAt.Add(window))
}

// refuseStale refuses a token that is not the grant's current one. An older
// one was used twice, by its client and a thief in whichever order; of a newer
// one the database has lost the use that made it, in a failover or a restore, so
// that a token which is spent looks current. Either way the family ends, in a
// transaction of its own: the answer is an error all the same.
func (p *Provider) refuseStale(ctx context.Context, t *grantToken, g storage.Grant) error {
	reason := "refresh token reused"
	if t.generation > g.Generation {
		reason = "refresh lost by the database"
	}
	if err := p.endGrant(ctx, g, reason); err != nil {
		return err
	}
	return invalidGrant("The refresh token was used before or was revoked; the person has to sign in again.", nil)
}

// PopulateTokenEndpointResponse signs first, then moves the grant on with one
// conditional update. Whoever comes second finds the grant moved on, and is
// answered like a repeat or like a reuse.
func (h *refreshToken) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, answer fosite.AccessResponder) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	p, s := h.provider, r.GetSession().(*session)
	if err := p.answerPerson(r, answer, ""); err != nil {
		return err
	}
	g := s.person.grant
	if s.token.generation == g.Generation {
		now, keyID := p.now(), s.view.ring.CurrentID(keys.PurposeGrant)
		idleEnd := earlier(now.Add(p.policy.RefreshIdle), g.AbsoluteEnd)
		second := false
		err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
			err := tx.RotateGrant(ctx, g.ID, s.token.generation, now, keyID, idleEnd)
			if second = errors.Is(err, storage.ErrConsumed); second {
				// Read where it was refused: what came first is in sight here.
				g, err = tx.Grant(ctx, g.ID)
			}
			return err
		})
		switch {
		case err != nil:
			return fmt.Errorf("rotate: %w", err)
		case !second:
			g.Generation, g.KeyVersion = g.Generation+1, keyID
		case !p.repeats(r.GetClient().(*client), s.token, g):
			return p.refuseStale(ctx, s.token, g)
		}
	}
	successor, err := mintGrantToken(s.view.ring, g, g.Generation, g.KeyVersion)
	if err != nil {
		return err
	}
	answer.SetExtra("refresh_token", successor)
	return nil
}
