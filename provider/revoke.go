package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// Revoke answers the revocation endpoint (RFC 7009). What is not a token of
// this client is answered 200 like what is, and stays as it was (§2.2).
func (p *Provider) Revoke(w http.ResponseWriter, r *http.Request) {
	if err := p.revoke(w, r); err != nil {
		p.writeError(w, r, err)
	}
}

func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) error {
	ctx := withRequest(w, r)
	if err := readForm(w, r); err != nil {
		return err
	}
	authenticated, err := p.fosite.AuthenticateClient(ctx, r, r.PostForm)
	if err != nil {
		return err
	}
	token := r.PostForm.Get("token")
	if token == "" {
		return invalidRequest("The parameter token is missing.")
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return err
	}
	if refresh, err := readGrantToken(v.ring, prefixRefresh, token); err == nil {
		return p.revokeRefresh(ctx, w, authenticated.GetID(), refresh)
	}
	t, err := p.readToken(v, token)
	if errors.Is(err, errNotIssued) || err == nil && t.clientID != authenticated.GetID() {
		writeRevoked(w)
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.revokeToken(ctx, t); err != nil {
		return err
	}
	p.metrics.revocations.Inc()
	writeRevoked(w)
	return nil
}

// revokeRefresh ends the grant of a refresh token, and with it every access
// token it gave (RFC 7009 §2.1). A token that was used and replaced counts too:
// its holder means the grant.
func (p *Provider) revokeRefresh(ctx context.Context, w http.ResponseWriter, clientID string, t *grantToken) error {
	g, err := p.store.Grant(ctx, t.grantID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("grant: %w", err)
	}
	if err == nil && t.of(g) && g.ClientID == clientID {
		if err := p.endGrant(ctx, g, "revoked by its client"); err != nil {
			return err
		}
		p.metrics.revocations.Inc()
	}
	writeRevoked(w)
	return nil
}

const kindRevokedToken = "revoked_token"

// revokeToken blocks one access token for the rest of its life. Doing it
// again, or after that life, changes nothing, so a client cannot grow the log
// beyond the tokens it was issued.
func (p *Provider) revokeToken(ctx context.Context, t *issued) error {
	now := p.sharedNow()
	until := p.policy.lastAccepted(t.expiresAt)
	if !now.Before(until) {
		return nil
	}
	hash := revocation.Key(revocation.KindToken, t.id).Hash
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		// Of any number of requests at once, one appends.
		err := tx.UseOnce(ctx, storage.OneTime{
			Kind: kindRevokedToken, KeyHash: hash, Subject: t.clientID, CreatedAt: now, ExpiresAt: until,
		}, now)
		if err != nil {
			return err
		}
		if _, err := p.entries.block(ctx, tx, revocation.KindToken, t.id, "revoked by its client", until); err != nil {
			return err
		}
		return audit(ctx, tx, now, eventTokenRevoked, t.clientID, "", t.clientID, nil)
	})
	if err != nil && !errors.Is(err, storage.ErrConsumed) {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

func writeRevoked(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}
