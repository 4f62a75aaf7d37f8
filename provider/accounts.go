package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// Sessions returns where the person is signed in, the last seen first.
func (p *Provider) Sessions(ctx context.Context, s *SignedIn) ([]storage.Session, error) {
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := p.store.Sessions(ctx, s.User.ID, p.now())
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	return slices.DeleteFunc(rows, func(row storage.Session) bool { return v.epoch.voids(row.CreatedAt) }), nil
}

// EndSession ends one of the person's sessions; storage.ErrNotFound when it is
// not theirs or is not there.
func (p *Provider) EndSession(ctx context.Context, s *SignedIn, id string) error {
	return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		row, err := tx.Session(ctx, id)
		if err == nil && row.UserID != s.User.ID {
			err = storage.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("session: %w", err)
		}
		return p.endSession(ctx, tx, id, s.User.ID, p.now(), "ended by its person")
	})
}

// EndOtherSessions ends all of the person's sessions but this one and returns how many.
func (p *Provider) EndOtherSessions(ctx context.Context, s *SignedIn) (int, error) {
	var ended []string
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) (err error) {
		const reason = "ended by its person"
		now := p.now()
		if ended, err = tx.EndSessions(ctx, s.User.ID, s.Session.ID, now, reason); err != nil {
			return fmt.Errorf("sessions: %w", err)
		}
		for _, id := range ended {
			if err := p.sessionEnded(ctx, tx, id, s.User.ID, now, reason); err != nil {
				return err
			}
		}
		return nil
	})
	return len(ended), err
}

// App is a client that the person lets act for them.
type App struct {
	ClientID, Name string
	Host           string // of an identifier that is a URL, or ""
	FirstParty     bool
	Unverified     bool // not registered by the operator
	Live           bool // it has access now
	Remembered     bool // it gets access without a question; not so on the person's device
	Offline        bool // it may go on after signing out
	Once           bool // it cannot go on, for it gets no refresh tokens
	Since          time.Time
	LastUsed       time.Time
	Groups         []ScopeGroup
	Open           string // URL at which it begins a sign-in by itself, or ""
}

// Apps returns which clients have the person's consent, by name.
func (p *Provider) Apps(ctx context.Context, s *SignedIn) ([]App, error) {
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := p.store.ConsentsOfUser(ctx, s.User.ID)
	if err != nil {
		return nil, fmt.Errorf("consents: %w", err)
	}
	grants, err := p.store.GrantsOfUser(ctx, s.User.ID, p.now())
	if err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	var apps []App
	for len(rows) > 0 { // they come by client
		id := rows[0].ClientID
		n := slices.IndexFunc(rows, func(row storage.Consent) bool { return row.ClientID != id })
		if n < 0 {
			n = len(rows)
		}
		c, err := p.registry.client(ctx, v, id)
		if errors.Is(err, storage.ErrNotFound) { // deleted meanwhile, consents and all
			rows = rows[n:]
			continue
		}
		if err != nil {
			return nil, err
		}
		app := App{ClientID: id, Name: c.Name, Host: clientHost(id), FirstParty: c.FirstParty, Unverified: c.Origin != originOperator,
			Once:       !slices.Contains(c.GrantTypes, grantRefresh),
			Remembered: slices.ContainsFunc(c.RedirectURIs, func(uri string) bool { return !needsNative(uri) }),
			Since:      rows[0].GrantedAt, Groups: p.scopeGroups(v.snapshot, rows[:n], nil)}
		if c.Enabled {
			app.Open = p.initiation(c.extra.InitiateLoginURI)
		}
		for _, row := range rows[:n] {
			app.Since = earlier(app.Since, row.GrantedAt)
		}
		for _, g := range grants {
			if g.ClientID != id || v.epoch.voids(g.CreatedAt) {
				continue
			}
			app.Live, app.Offline = true, app.Offline || g.Offline
			for _, at := range []time.Time{g.CreatedAt, g.CodeUsedAt, g.RotatedAt} {
				if at.After(app.LastUsed) {
					app.LastUsed = at
				}
			}
		}
		apps, rows = append(apps, app), rows[n:]
	}
	slices.SortFunc(apps, func(a, b App) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ClientID, b.ClientID)) })
	return apps, nil
}

// initiation returns the URL that has an app begin a sign-in here (OIDC Core
// §4), or "". It names the issuer and nobody: who is signed in is found out in
// the sign-in that follows.
func (p *Provider) initiation(uri string) string {
	if checkHTTPS(uri) != nil {
		return ""
	}
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	query := u.Query()
	query.Set("iss", p.issuer.String())
	u.RawQuery = query.Encode()
	return u.String()
}

// WithdrawApp takes the person's consent from a client and ends all that it
// was given; storage.ErrNotFound when it has nothing.
func (p *Provider) WithdrawApp(ctx context.Context, s *SignedIn, clientID string) error {
	const reason = "consent withdrawn"
	return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		now := p.now()
		n, err := tx.DeleteConsents(ctx, s.User.ID, clientID)
		if err != nil {
			return fmt.Errorf("consents: %w", err)
		}
		grants, err := tx.RevokeGrants(ctx, storage.GrantFilter{UserID: s.User.ID, ClientID: clientID}, now, reason)
		if err != nil {
			return fmt.Errorf("grants: %w", err)
		}
		if n == 0 && len(grants) == 0 {
			return fmt.Errorf("app %q: %w", clip(clientID), storage.ErrNotFound)
		}
		if err := p.block(ctx, tx, revocation.KindGrant, reason, grants...); err != nil {
			return err
		}
		return audit(ctx, tx, now, eventConsentWithdrawn, s.User.ID, s.User.ID, clientID, nil)
	})
}

// ChangePassword replaces the person's password. All their other sessions and
// every app's access end; this session goes on under the cookie of the result,
// and the browser stays known under its new device cookie. Errors as SignIn's.
func (p *Provider) ChangePassword(ctx context.Context, s *SignedIn, current, replacement, address string) (*SignInResult, error) {
	password, err := p.store.Password(ctx, s.User.ID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, ErrBadCredentials
	}
	if err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	release, err := p.hashing.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	// A count of its own: strangers who guess elsewhere do not slow this down.
	count := []counter{{key: "session:" + s.Session.ID, free: 10, longest: 15 * time.Minute}}
	if err := p.countAttempt(ctx, count); err != nil {
		return nil, err
	}
	if right, _ := p.policy.passwordCost().verify(password.Hash, current); !right {
		return nil, ErrBadCredentials
	}
	hash, err := p.newPasswordHash(replacement, current, s.User)
	if err != nil {
		return nil, err
	}
	now := p.now()
	session, secret := p.newSession(s.User.ID, SignInAttempt{Address: address, UserAgent: s.Session.UserAgent}, now)
	session.ID, session.CreatedAt = s.Session.ID, s.Session.CreatedAt
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if err := p.replacePassword(ctx, tx, s.User.ID, password.Hash, hash, session.ID, now); err != nil {
			if errors.Is(err, storage.ErrNotFound) {
				return ErrBadCredentials
			}
			return err
		}
		if err := tx.RenewSession(ctx, session); err != nil {
			if errors.Is(err, storage.ErrNotFound) {
				return ErrNoSession
			}
			return fmt.Errorf("session: %w", err)
		}
		return p.forgive(ctx, tx, count, now)
	})
	if err != nil {
		return nil, err
	}
	return &SignInResult{
		SignedIn: &SignedIn{Session: session, User: s.User},
		Cookie:   secret.of(session.ID),
		Device:   p.newDevice(s.User.ID, now),
	}, nil
}

// replacePassword stores a new password in place of the one whose hash was
// checked, or returns storage.ErrNotFound when that one is not there any more.
// Whoever knew it loses everything: all grants, all sessions but keep, and every
// token that was issued before.
func (p *Provider) replacePassword(ctx context.Context, tx storage.Tx, userID, checked, hash, keep string, now time.Time) error {
	if err := tx.LockUser(ctx, userID); err != nil {
		return err
	}
	if err := tx.UpdatePasswordHash(ctx, userID, checked, checked, now); err != nil {
		return err
	}
	return p.setPassword(ctx, tx, userID, hash, keep, now, eventPasswordChanged)
}

// setPassword wants the user to be locked: see lockSubject.
func (p *Provider) setPassword(ctx context.Context, tx storage.Tx, userID, hash, keep string, now time.Time, event string) error {
	const reason = "password changed"
	if err := tx.SetPassword(ctx, storage.Password{UserID: userID, Hash: hash, CreatedAt: now, UpdatedAt: now}); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	// In this order: see stillSignedIn.
	ended, err := tx.EndSessions(ctx, userID, keep, now, reason)
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	if err := queueLogouts(ctx, tx, now, userID, anyOf(ended...)); err != nil {
		return err
	}
	grants, err := tx.RevokeGrants(ctx, storage.GrantFilter{UserID: userID}, now, reason)
	if err != nil {
		return fmt.Errorf("grants: %w", err)
	}
	// That these ended does not hang on a second, as the epoch does.
	if err := p.block(ctx, tx, revocation.KindGrant, reason, grants...); err != nil {
		return err
	}
	if _, err := p.entries.person(ctx, tx, revocation.Epoch, userID, reason); err != nil {
		return err
	}
	return audit(ctx, tx, now, event, userID, userID, "", nil)
}
