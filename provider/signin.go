package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

var (
	// ErrBadCredentials is the one answer to a name that nobody has, a wrong
	// password, a disabled account and one without a password.
	ErrBadCredentials = errors.New("wrong name or password")
	// ErrPasswordChangeRequired says that the password is right, but was set by
	// somebody else: try again with NewPassword.
	ErrPasswordChangeRequired = errors.New("the password has to be changed first")
)

// ThrottledError says that there were too many failures: no attempt counts
// before RetryAfter has passed.
type ThrottledError struct{ RetryAfter time.Duration }

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many failed sign-ins; try again in %s", e.RetryAfter.Round(time.Second))
}

// BusyError says that too many passwords are being checked at once.
type BusyError struct{ RetryAfter time.Duration }

func (e *BusyError) Error() string { return "too much at once" }

// SignedIn is a person in a browser, as of the request.
type SignedIn struct {
	Session storage.Session
	User    storage.User
}

// SignInAttempt is what the sign-in page sends.
type SignInAttempt struct {
	Login, Password string
	NewPassword     string // replaces Password when that is right
	Address         string
	UserAgent       string
	Device          string    // the cookie of a browser in which the person signed in before, or ""
	Previous        *SignedIn // who is signed in in this browser, or nil
}

// SignInResult is who is signed in now and the cookies that say so.
type SignInResult struct {
	SignedIn *SignedIn
	Cookie   string // the session's
	Device   string // to be kept for a year, through sign-outs
}

// SignIn checks a person's password and starts a session. The same person
// again keeps the session, under a new cookie; another person ends the previous
// one. Errors: ErrBadCredentials, ErrPasswordChangeRequired, *ThrottledError,
// *BusyError, *InvalidError for NewPassword, or the database's.
func (p *Provider) SignIn(ctx context.Context, a SignInAttempt) (*SignInResult, error) {
	result, err := p.signIn(ctx, a)
	var throttled *ThrottledError
	var busy *BusyError
	outcome := "error"
	switch {
	case err == nil:
		outcome = "success"
	case errors.Is(err, ErrBadCredentials):
		outcome = "refused"
	case errors.As(err, &throttled):
		outcome = "throttled"
	case errors.As(err, &busy):
		outcome = "busy"
	case errors.Is(err, ErrPasswordChangeRequired):
		outcome = "password_change"
	}
	p.metrics.signIns.WithLabelValues(outcome).Inc()
	return result, err
}

func (p *Provider) signIn(ctx context.Context, a SignInAttempt) (*SignInResult, error) {
	user, password, err := p.credentials(ctx, a.Login)
	if err != nil {
		return nil, err
	}
	release, err := p.hashing.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer release()

	count := p.counters(user, password, a)
	if err := p.countAttempt(ctx, count); err != nil {
		return nil, err
	}
	// Whoever there is to check, one hash is computed.
	right, outdated := p.policy.passwordCost().verify(password.Hash, a.Password)
	if !right || !user.Enabled {
		p.log.InfoContext(ctx, "sign-in refused", "user", user.ID, "address", a.Address) // never what was typed
		return nil, ErrBadCredentials
	}
	if password.MustChange && a.NewPassword == "" {
		return nil, ErrPasswordChangeRequired
	}
	newHash := password.Hash
	switch {
	case a.NewPassword != "":
		if newHash, err = p.newPasswordHash(a.NewPassword, a.Password, user); err != nil {
			return nil, err
		}
	case outdated:
		newHash = p.policy.passwordCost().hash(a.Password)
	}

	now := p.now()
	session, cookie := p.newSession(user.ID, a, now)
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if a.NewPassword != "" {
			err = p.replacePassword(ctx, tx, user.ID, password.Hash, newHash, "", now)
		} else {
			err = tx.UpdatePasswordHash(ctx, user.ID, password.Hash, newHash, now)
		}
		if errors.Is(err, storage.ErrNotFound) { // changed while it was checked
			return ErrBadCredentials
		}
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		switch u, err := tx.User(ctx, user.ID); {
		case errors.Is(err, storage.ErrNotFound) || err == nil && !u.Enabled:
			return ErrBadCredentials
		case err != nil: // which says nothing of the password
			return fmt.Errorf("user: %w", err)
		}
		if err := p.startSession(ctx, tx, &session, a.Previous); err != nil {
			return err
		}
		if err := p.forgive(ctx, tx, count, now); err != nil {
			return err
		}
		return audit(ctx, tx, now, eventSignedIn, user.ID, user.ID, "", map[string]any{"sid": session.ID})
	})
	if err != nil {
		return nil, err
	}
	return &SignInResult{
		SignedIn: &SignedIn{Session: session, User: user},
		Cookie:   cookie.of(session.ID),
		Device:   p.newDevice(user.ID, now),
	}, nil
}

// credentials returns who has this name and their password, or nobody and a
// password that nothing matches.
func (p *Provider) credentials(ctx context.Context, login string) (storage.User, storage.Password, error) {
	nobody := storage.Password{Hash: p.policy.passwordCost().nobody()}
	key, err := LoginKey(login)
	if err != nil {
		return storage.User{}, nobody, nil
	}
	user, err := p.store.UserByLogin(ctx, key)
	if errors.Is(err, storage.ErrInvalid) {
		return storage.User{}, nobody, nil
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return storage.User{}, nobody, fmt.Errorf("user: %w", err)
	}
	// Asked for nobody too, so that it takes as long.
	password, err := p.store.Password(ctx, user.ID)
	if errors.Is(err, storage.ErrNotFound) {
		return user, nobody, nil
	}
	if err != nil {
		return storage.User{}, nobody, fmt.Errorf("password: %w", err)
	}
	return user, password, nil
}

// counter is one count of failures: free of them cost nothing, then each
// doubles the wait, up to longest. Time forgives one every forgives, if that is
// not zero.
type counter struct {
	key      string
	free     int64
	longest  time.Duration
	forgives time.Duration
}

// counters returns what a failed attempt counts against: the account, by
// whatever name, and the network it comes from. Nobody is locked out: waits
// end, and a browser in which the person signed in with the password in force
// has a count of its own, which strangers cannot spend. Who knew only an
// earlier password is a stranger, however many browsers they signed in with.
func (p *Provider) counters(user storage.User, password storage.Password, a SignInAttempt) []counter {
	// A cookie has whole seconds; that of the sign-in which set the password counts.
	device, made, ok := p.readDevice(a.Device, user.ID)
	if ok && !made.Before(password.CreatedAt.Truncate(time.Second)) {
		return []counter{{key: "device:" + device, free: 10, longest: 15 * time.Minute}}
	}
	account := "user:" + user.ID
	if user.ID == "" {
		name := a.Login
		if key, err := LoginKey(name); err == nil {
			name = key
		}
		sum := sha256.Sum256([]byte(name))
		account = "name:" + base64.RawURLEncoding.EncodeToString(sum[:16])
	}
	return []counter{
		{key: account, free: 10, longest: 15 * time.Minute},
		{key: "net:" + network(a.Address), free: 100, longest: time.Minute, forgives: 10 * time.Second},
	}
}

// countAttempt counts the attempt as a failure before it is checked, so that
// no number of attempts at once gets more tries, or returns *ThrottledError.
func (p *Provider) countAttempt(ctx context.Context, counters []counter) error {
	now := p.now()
	return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		for _, c := range counters {
			before, err := tx.Throttle(ctx, c.key)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return fmt.Errorf("throttle: %w", err)
			}
			t, err := tx.AddFailure(ctx, c.key, now)
			if err != nil {
				return fmt.Errorf("throttle: %w", err)
			}
			if now.Before(t.BlockedTo) { // and nothing is counted
				return &ThrottledError{RetryAfter: t.BlockedTo.Sub(now)}
			}
			if c.forgives > 0 && !before.LastAt.IsZero() {
				t.Failures = max(1, t.Failures-int64(now.Sub(before.LastAt)/c.forgives))
			}
			t.BlockedTo = time.Time{}
			if over := t.Failures - c.free; over >= 0 {
				t.BlockedTo = now.Add(min(c.longest, time.Second<<min(over, 20)))
			}
			if err := tx.SaveThrottle(ctx, t); err != nil {
				return fmt.Errorf("throttle: %w", err)
			}
		}
		return nil
	})
}

// forgive takes back what countAttempt counted, after a success: the account's
// whole count, but only this one of the network's, or an attacker would clear
// it by signing in.
func (p *Provider) forgive(ctx context.Context, tx storage.Tx, counters []counter, now time.Time) error {
	for _, c := range counters {
		if c.forgives == 0 {
			if err := tx.ClearThrottle(ctx, c.key); err != nil {
				return fmt.Errorf("throttle: %w", err)
			}
			continue
		}
		t, err := tx.AddFailure(ctx, c.key, now) // takes the row's lock
		if err != nil {
			return fmt.Errorf("throttle: %w", err)
		}
		if t.Failures = max(0, t.Failures-2); t.Failures < c.free {
			t.BlockedTo = time.Time{}
		}
		if err := tx.SaveThrottle(ctx, t); err != nil {
			return fmt.Errorf("throttle: %w", err)
		}
	}
	return nil
}

// deviceMemory is how long a browser is remembered after a sign-in.
const deviceMemory = 365 * 24 * time.Hour

// newDevice returns the cookie that says that the user signed in in this
// browser: user (16) ‖ random (16) ‖ Unix seconds (8) ‖ MAC (32) ‖ key id. It
// lets nobody in; it only keeps strangers from slowing the owner down.
func (p *Provider) newDevice(userID string, now time.Time) string {
	id, err := uuid.Parse(userID)
	s := p.registry.current.Load()
	if err != nil || s == nil {
		return ""
	}
	b := make([]byte, 32, 96)
	copy(b, id[:])
	_, _ = rand.Read(b[16:]) // never fails: it aborts the program instead
	b = binary.BigEndian.AppendUint64(b, uint64(now.Unix()))
	keyID, mac := s.ring.MAC(keys.PurposeDevice, b)
	return base64.RawURLEncoding.EncodeToString(append(append(b, mac[:]...), keyID...))
}

// readDevice returns the device's random part and the second it was made in, if
// the cookie is one of ours, for this user, and not too old.
func (p *Provider) readDevice(cookie, userID string) (device string, made time.Time, ok bool) {
	const covered, size = 40, 72
	s := p.registry.current.Load()
	raw, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || s == nil || len(cookie) > 256 || len(raw) <= size ||
		!s.ring.VerifyMAC(keys.PurposeDevice, string(raw[size:]), raw[:covered], raw[covered:size]) {
		return "", time.Time{}, false
	}
	made = time.Unix(int64(binary.BigEndian.Uint64(raw[32:covered])), 0)
	if uuid.UUID(raw[:16]).String() != userID || p.now().After(made.Add(deviceMemory)) {
		return "", time.Time{}, false
	}
	return base64.RawURLEncoding.EncodeToString(raw[16:32]), made, true
}

// maxUserAgent bounds what is kept of a browser's name for itself, in bytes.
const maxUserAgent = 256

// newSession returns a session that begins now, and its cookie.
func (p *Provider) newSession(userID string, a SignInAttempt, now time.Time) (storage.Session, sessionCookie) {
	var cookie sessionCookie
	_, _ = rand.Read(cookie[:]) // never fails: it aborts the program instead
	agent := strings.ToValidUTF8(strings.ReplaceAll(a.UserAgent, "\x00", ""), "")
	if len(agent) > maxUserAgent {
		agent = strings.ToValidUTF8(agent[:maxUserAgent], "")
	}
	absolute := now.Add(p.policy.SessionAbsolute)
	return storage.Session{
		ID: uuid.NewString(), SecretHash: cookie.hash(), UserID: userID,
		AuthTime: now, ACR: acrPassword, AMR: []string{amrPassword},
		UserAgent: agent, Address: a.Address, CreatedAt: p.epoch().first(now), LastSeenAt: now,
		IdleEnd: earlier(now.Add(p.policy.SessionIdle), absolute), AbsoluteEnd: absolute,
	}, cookie
}

// startSession writes the session. The one that this browser had goes on as
// the new one if it is the same person's, so that what is bound to it lives on,
// and ends otherwise.
func (p *Provider) startSession(ctx context.Context, tx storage.Tx, s *storage.Session, previous *SignedIn) error {
	if previous != nil && previous.User.ID == s.UserID {
		renewed := *s
		renewed.ID, renewed.CreatedAt = previous.Session.ID, previous.Session.CreatedAt
		switch err := tx.RenewSession(ctx, renewed); {
		case err == nil:
			*s = renewed
			return nil
		case !errors.Is(err, storage.ErrNotFound):
			return fmt.Errorf("session: %w", err)
		}
	} else if previous != nil {
		if err := p.endSession(ctx, tx, previous.Session.ID, previous.User.ID, s.CreatedAt, "another person signed in"); err != nil {
			return err
		}
	}
	if err := tx.CreateSession(ctx, *s); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}
