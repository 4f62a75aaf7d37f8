package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

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
	ctx := r.Context()
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
	t, err := p.readToken(v, token)
	if errors.Is(err, errNotIssued) || err == nil && t.clientID != authenticated.GetID() {
		writeRevoked(w)
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.revokeToken(ctx, t, w.Header().Get(RequestIDHeader), r.RemoteAddr); err != nil {
		return err
	}
	p.metrics.revocations.Inc()
	writeRevoked(w)
	return nil
}

const kindRevokedToken = "revoked_token"

// revokeToken blocks one access token for the rest of its life. Doing it
// again, or after that life, changes nothing, so a client cannot grow the log
// beyond the tokens it was issued.
func (p *Provider) revokeToken(ctx context.Context, t *issued, requestID, address string) error {
	now := p.now()
	until := t.expiresAt.Add(p.policy.ClockSkew)
	if !now.Before(until) {
		return nil
	}
	entry := revocation.Block(revocation.KindToken, t.id, "revoked by its client", now, until)
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		// Of any number of requests at once, one appends.
		err := tx.UseOnce(ctx, storage.OneTime{
			Kind: kindRevokedToken, KeyHash: entry.Key.Hash, Subject: t.clientID, CreatedAt: now, ExpiresAt: until,
		}, now)
		if err != nil {
			return err
		}
		if _, err := tx.AppendRevocation(ctx, entry); err != nil {
			return err
		}
		return tx.AppendAudit(ctx, storage.AuditEvent{
			ID: uuid.Must(uuid.NewV7()).String(), At: now, Event: eventTokenRevoked,
			Actor: t.clientID, ClientID: t.clientID, Address: address, RequestID: requestID,
		})
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
