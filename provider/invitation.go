package provider

import (
	"context"
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

// InviteUser makes a set-up link for the user whose username, e-mail address or
// sub is name: whoever opens it before expires chooses the user's password. It
// needs the issuer, below which the link is. A password set later spends it.
func (a *Admin) InviteUser(ctx context.Context, name string) (link string, expires time.Time, err error) {
	if a.issuer == "" {
		return "", time.Time{}, &InvalidError{Faults: []Fault{{"issuer", "is not known yet, and the link begins with it", "serve this database once, or name the issuer"}}}
	}
	err = a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		u, err := findUser(ctx, tx, name)
		if err != nil {
			return err
		}
		if !u.Enabled {
			return &InvalidError{Faults: []Fault{{fmt.Sprintf("user %q", name), "is disabled and could not sign in", "enable the user first"}}}
		}
		e, err := readEpoch(ctx, tx)
		if err != nil {
			return err
		}
		expires = tx.now.Add(a.policy.InvitationLifetime)
		secret, row := newInvitation(u.ID, e.first(tx.now), expires)
		if err := tx.UseOnce(ctx, row, tx.now); err != nil {
			return fmt.Errorf("invitation: %w", err)
		}
		link = a.issuer + PathSetUp + "?link=" + secret
		return tx.audit(ctx, eventUserInvited, u.ID, "", map[string]any{"expires_at": expires.Format(time.RFC3339)})
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return link, expires, nil
}

// newInvitation returns the secret of a set-up link, with which the user can
// choose a password once, and the row that Tx.UseOnce stores of it.
func newInvitation(userID string, now, expires time.Time) (link string, row storage.OneTime) {
	link, hash := newBearer(invitationPrefix)
	return link, storage.OneTime{
		Kind: invitationKind, KeyHash: hash, Subject: userID, CreatedAt: now, ExpiresAt: expires,
	}
}

// Invitee returns whom a set-up link is for, without using it, or ErrInvitation.
func (p *Provider) Invitee(ctx context.Context, link string) (storage.User, error) {
	if !strings.HasPrefix(link, invitationPrefix) {
		return storage.User{}, ErrInvitation
	}
	row, err := p.store.OneTime(ctx, invitationKind, bearerHash(link), p.now())
	if errors.Is(err, storage.ErrNotFound) {
		return storage.User{}, ErrInvitation
	}
	if err != nil {
		return storage.User{}, fmt.Errorf("invitation: %w", err)
	}
	if err := invites(ctx, p.store, row); err != nil {
		return storage.User{}, err
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
	hash, err := p.newPasswordHash(password, "", user)
	if err != nil {
		return storage.User{}, err
	}
	now := p.now()
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		row, err := tx.TakeOnce(ctx, invitationKind, bearerHash(link), now)
		if errors.Is(err, storage.ErrConsumed) {
			return ErrInvitation
		}
		if err != nil {
			return fmt.Errorf("invitation: %w", err)
		}
		if err := invites(ctx, tx, row); err != nil {
			return err
		}
		if err := tx.LockUser(ctx, user.ID); err != nil {
			return fmt.Errorf("user: %w", err)
		}
		return p.setPassword(ctx, tx, user.ID, hash, "", now, eventInvitationUsed)
	})
	return user, err
}

// invites returns ErrInvitation when the user got a password after the link was
// made: an older link that still lies in a mailbox must not replace it. Whether
// one from before a restore was used, nobody knows any more.
func invites(ctx context.Context, r storage.Reader, row storage.OneTime) error {
	e, err := readEpoch(ctx, r)
	if err != nil {
		return err
	}
	if e.voids(row.CreatedAt) {
		return ErrInvitation
	}
	password, err := r.Password(ctx, row.Subject)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("password: %w", err)
	case password.UpdatedAt.After(row.CreatedAt):
		return ErrInvitation
	}
	return nil
}
