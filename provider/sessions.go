package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// ErrNoSession says that a cookie names no session that is live, or that its
// person may not sign in any more.
var ErrNoSession = errors.New("nobody is signed in")

// sessionCookie is the secret half of a session's cookie. It is 256 random
// bits, so a plain hash in the database gives nothing away.
type sessionCookie [32]byte

func (c sessionCookie) hash() []byte {
	sum := sha256.Sum256(c[:])
	return sum[:]
}

// of returns the cookie's value: the session's id and the secret.
func (c sessionCookie) of(sessionID string) string {
	id := uuid.MustParse(sessionID)
	return base64.RawURLEncoding.EncodeToString(append(id[:], c[:]...))
}

func readSessionCookie(value string) (id string, c sessionCookie, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(raw) != 16+len(c) || strings.ContainsAny(value, "\r\n") {
		return "", c, false
	}
	copy(c[:], raw[16:])
	return uuid.UUID(raw[:16]).String(), c, true
}

// Resume returns who is signed in by this cookie, or ErrNoSession.
func (p *Provider) Resume(ctx context.Context, cookie string) (*SignedIn, error) {
	id, secret, ok := readSessionCookie(cookie)
	if !ok {
		return nil, ErrNoSession
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	s, u, err := p.store.SessionUser(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, ErrNoSession
	}
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	now := p.now()
	if subtle.ConstantTimeCompare(secret.hash(), s.SecretHash) != 1 || !sessionLive(s, now) || !u.Enabled ||
		v.epoch.voids(s.CreatedAt) {
		return nil, ErrNoSession
	}
	if now.Sub(s.LastSeenAt) >= p.policy.SessionTouch {
		s.LastSeenAt, s.IdleEnd = now, earlier(now.Add(p.policy.SessionIdle), s.AbsoluteEnd)
		err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
			return tx.TouchSession(ctx, s.ID, s.LastSeenAt, s.IdleEnd)
		})
		if errors.Is(err, storage.ErrNotFound) { // ended meanwhile
			return nil, ErrNoSession
		}
		if err != nil {
			return nil, fmt.Errorf("session: %w", err)
		}
	}
	return &SignedIn{Session: s, User: u}, nil
}

// SignOut ends the session and what is bound to it. Doing it again changes nothing.
func (p *Provider) SignOut(ctx context.Context, s *SignedIn) error {
	return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return p.endSession(ctx, tx, s.Session.ID, s.User.ID, p.now(), "signed out")
	})
}

// endSession ends a session, the grants that are bound to it and, at
// verifiers, their access tokens, unless it was ended before.
func (p *Provider) endSession(ctx context.Context, tx storage.Tx, id, userID string, now time.Time, reason string) error {
	err := tx.EndSession(ctx, id, now, reason)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return p.sessionEnded(ctx, tx, id, userID, now, reason)
}

func (p *Provider) sessionEnded(ctx context.Context, tx storage.Tx, id, userID string, now time.Time, reason string) error {
	if err := queueLogouts(ctx, tx, now, userID, anyOf(id)); err != nil {
		return err
	}
	sids, err := tx.PairwiseSIDs(ctx, id) // while the grants are there
	if err != nil {
		return fmt.Errorf("grants of the session: %w", err)
	}
	if _, err := tx.RevokeGrants(ctx, storage.GrantFilter{SessionID: id}, now, reason); err != nil {
		return fmt.Errorf("grants of the session: %w", err)
	}
	if err := p.block(ctx, tx, revocation.KindSession, reason, append(sids, id)...); err != nil {
		return err
	}
	return audit(ctx, tx, now, eventSessionEnded, userID, userID, "", map[string]any{"sid": id, "reason": reason})
}
