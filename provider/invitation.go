package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// ErrInvitation says that a set-up link is unknown, was used or has expired.
var ErrInvitation = errors.New("the link was used before or has expired")

const (
	invitationKind   = "setup"
	invitationPrefix = "sgi_" // lets secret scanners recognise one
)

// newInvitation returns the secret of a set-up link, with which the user can
// choose a password once, and the row that Tx.UseOnce stores of it.
func newInvitation(userID string, now, expires time.Time) (link string, row storage.OneTime) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails: it aborts the program instead
	link = invitationPrefix + base64.RawURLEncoding.EncodeToString(random)
	return link, storage.OneTime{
		Kind: invitationKind, KeyHash: invitationHash(link), Subject: userID, CreatedAt: now, ExpiresAt: expires,
	}
}

func invitationHash(link string) []byte {
	sum := sha256.Sum256([]byte(link))
	return sum[:]
}

// Invitee returns whom a set-up link is for, without using it, or ErrInvitation.
func (p *Provider) Invitee(ctx context.Context, link string) (storage.User, error) {
	if !strings.HasPrefix(link, invitationPrefix) {
		return storage.User{}, ErrInvitation
	}
	row, err := p.store.OneTime(ctx, invitationKind, invitationHash(link), p.now())
	if errors.Is(err, storage.ErrNotFound) {
		return storage.User{}, ErrInvitation
	}
	if err != nil {
		return storage.User{}, fmt.Errorf("invitation: %w", err)
	}
	user, err := p.store.User(ctx, row.Subject)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !user.Enabled {
		return storage.User{}, ErrInvitation
	}
	if err != nil {
		return storage.User{}, fmt.Errorf("user: %w", err)
	}
	return user, nil
}

// UseInvitation sets the password of whom the link is for and spends the link.
// Errors: ErrInvitation, *InvalidError for the password, *BusyError.
func (p *Provider) UseInvitation(ctx context.Context, link, password string) (storage.User, error) {
	user, err := p.Invitee(ctx, link)
	if err != nil {
		return storage.User{}, err
	}
	release, err := p.hashing.enter(ctx)
	if err != nil {
		return storage.User{}, err
	}
	defer release()
	hash, err := newPasswordHash(password, "", user)
	if err != nil {
		return storage.User{}, err
	}
	now := p.now()
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if _, err := tx.TakeOnce(ctx, invitationKind, invitationHash(link), now); err != nil {
			if errors.Is(err, storage.ErrConsumed) {
				return ErrInvitation
			}
			return fmt.Errorf("invitation: %w", err)
		}
		return p.setPassword(ctx, tx, user.ID, hash, "", now, eventInvitationUsed)
	})
	return user, err
}
