package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// Schedule says how long a key spends in each state.
type Schedule struct {
	// PublishAhead is how long a key is published before it signs, so that
	// whoever caches the JWK Set has it by then; and how long a symmetric key is
	// in the database before it is used, so that every replica has it by then.
	PublishAhead time.Duration
	// Sign is how long a key signs.
	Sign time.Duration
	// Retire is how long a key stays published after it last signed, so that
	// all it signed has expired by then.
	Retire time.Duration
	// Secret is how long a symmetric key makes new values before its successor
	// is made.
	Secret time.Duration
	// Allowance is how far the clocks of replicas may be apart, and what they
	// know of the database behind it. The first keys are dated back by it, so
	// that a replica which is a moment behind may sign with them as well, and
	// private halves are destroyed that much after their time.
	Allowance time.Duration
}

// DefaultSchedule suits verifiers that cache a JWK Set for up to a day.
func DefaultSchedule() Schedule {
	const day = 24 * time.Hour
	return Schedule{PublishAhead: day, Sign: 30 * day, Retire: day, Secret: 90 * day, Allowance: time.Minute}
}

// Validate reports every way in which tokens that live so long could be
// refused because their key is not known yet, or no longer, to somebody who
// caches the JWK Set so long.
func (s Schedule) Validate(maxAge, tokenLifetime time.Duration) error {
	var faults []error
	if least := maxAge + 2*s.Allowance; s.PublishAhead < least {
		faults = append(faults, fmt.Errorf("a key must be published at least %v before it signs, not %v", least, s.PublishAhead))
	}
	if least := tokenLifetime + 2*s.Allowance; s.Retire < least {
		faults = append(faults, fmt.Errorf("a key must stay published at least %v after it signed, not %v", least, s.Retire))
	}
	if s.Sign < s.PublishAhead {
		faults = append(faults, fmt.Errorf("a key must sign at least as long (%v) as its successor is published ahead (%v)", s.Sign, s.PublishAhead))
	}
	return errors.Join(faults...)
}

// JWKSGood is how long what a replica read may be published: by then somebody
// who still has it, cached as long as maxAge says, knows every key that signs.
func (s Schedule) JWKSGood(maxAge time.Duration) time.Duration {
	return s.PublishAhead - maxAge - s.Allowance
}

// KeptFor returns how long a symmetric key of the purpose goes on verifying
// after it made its last value: as long as that value may be presented.
func KeptFor(purpose string) time.Duration {
	const day = 24 * time.Hour
	switch purpose {
	case PurposeGrant:
		return 31 * day // the idle life of a refresh token, whose retry needs the key as well
	case PurposeDevice:
		return 366 * day // the life of the cookie
	case PurposeFlow:
		return 2 * day // an hour, the life of a flow
	default:
		// Secrets of clients live for years: a key of theirs goes when no
		// secret in the database is hashed with it, and never before this.
		return day
	}
}

// State is where a signing key stands in its life.
type State string

// A key is next while it waits for its turn to sign, active while it signs,
// retired while what it signed may still be valid, and then removed from the
// JWK Set; or it was declared compromised.
const (
	StateNext        State = "next"
	StateActive      State = "active"
	StateRetired     State = "retired"
	StateRemoved     State = "removed"
	StateCompromised State = "compromised"
)

func state(k storage.SigningKey, now time.Time) State {
	switch {
	case !k.CompromisedAt.IsZero():
		return StateCompromised
	case ended(k.RemoveAt, now):
		return StateRemoved
	case ended(k.SignUntil, now):
		return StateRetired
	case begun(k.SignFrom, now):
		return StateActive
	}
	return StateNext
}

// gone reports whether the key is never published again.
func gone(k storage.SigningKey, now time.Time) bool {
	s := state(k, now)
	return s == StateRemoved || s == StateCompromised
}

// published reports whether the key belongs in the JWK Set.
func published(k storage.SigningKey, now time.Time) bool {
	return begun(k.PublishAt, now) && !gone(k, now)
}

// signs reports whether the key may sign: never outside its publication.
func signs(k storage.SigningKey, now time.Time) bool {
	return published(k, now) && state(k, now) == StateActive
}

// inUse reports whether the secret is one that new MACs are made with.
func inUse(s storage.SealedSecret, now time.Time) bool {
	return begun(s.UseFrom, now) && !ended(s.UseUntil, now) && !ended(s.RemoveAt, now)
}

// signsFrom moves a key's time to sign to the given one.
func (s Schedule) signsFrom(k *storage.SigningKey, at time.Time) {
	k.SignFrom = at
	s.signsUntil(k, at.Add(s.Sign))
}

// signsAtOnce is signsFrom now on, on a clock that is behind as well.
func (s Schedule) signsAtOnce(k *storage.SigningKey, now time.Time) {
	k.SignFrom = now.Add(-s.Allowance)
	s.signsUntil(k, now.Add(s.Sign))
}

func (s Schedule) signsUntil(k *storage.SigningKey, at time.Time) {
	k.SignUntil, k.RemoveAt = at, at.Add(s.Retire)
}

func destroyPrivate(k *storage.SigningKey) { k.SealedPrivate, k.WrappedDEK, k.KEKID = nil, nil, "" }

// mayYetSign reports whether the key signs or will.
func mayYetSign(k storage.SigningKey, now time.Time) bool {
	st := state(k, now)
	return (st == StateActive || st == StateNext) && (k.KID == "" || len(k.SealedPrivate) > 0)
}

// draft is what the key tables are to become. Rows without an id are new ones,
// whose keys are made later.
type draft struct {
	keys    []storage.SigningKey
	secrets []storage.SealedSecret
}

// of returns the keys of a slot that sign or will, the next last.
func (d *draft) of(place slot, now time.Time) []*storage.SigningKey {
	var list []*storage.SigningKey
	for i := range d.keys {
		if slotOf(d.keys[i]) == place && mayYetSign(d.keys[i], now) {
			list = append(list, &d.keys[i])
		}
	}
	slices.SortStableFunc(list, func(a, b *storage.SigningKey) int { return a.SignFrom.Compare(b.SignFrom) })
	return list
}

// advance does what time demands: each slot has a key that signs and exactly
// one that is next, published from the moment the one before it signs; private
// halves go when they have signed for the last time, and rows when nothing
// they prove is of use. used are the keys that client secrets are hashed with.
func (d *draft) advance(s Schedule, places []slot, used []string, now time.Time) {
	d.keys = slices.DeleteFunc(d.keys, func(k storage.SigningKey) bool {
		end := k.RemoveAt
		if !k.CompromisedAt.IsZero() {
			end = k.CompromisedAt
		}
		return !end.IsZero() && ended(end.Add(hintMemory), now)
	})
	for i := range d.keys {
		if k := &d.keys[i]; len(k.SealedPrivate) > 0 && !k.SignUntil.IsZero() && ended(k.SignUntil.Add(s.Allowance), now) {
			destroyPrivate(k)
		}
	}
	for _, place := range places {
		d.fill(s, place, now)
	}
	for _, purpose := range secretPurposes() {
		d.succeed(s, purpose, used, now)
	}
}

// hasActive reports whether it is some key's time to sign. Its private half may
// be destroyed already, by a process whose clock is ahead of this one's.
func (d *draft) hasActive(place slot, now time.Time) bool {
	return slices.ContainsFunc(d.keys, func(k storage.SigningKey) bool { return slotOf(k) == place && state(k, now) == StateActive })
}

// fill gives a slot the keys it lacks.
func (d *draft) fill(s Schedule, place slot, now time.Time) {
	list := d.of(place, now)
	if len(list) == 0 {
		// Nobody waits for it, so it need not be known before it signs.
		k := storage.SigningKey{Alg: place.alg, Purpose: place.purpose, PublishAt: now.Add(-s.Allowance), CreatedAt: now}
		s.signsAtOnce(&k, now)
		d.keys = append(d.keys, k)
		list = d.of(place, now)
	}
	if first := list[0]; !begun(first.SignFrom, now) && !d.hasActive(place, now) {
		s.signsAtOnce(first, now) // it is published, and nothing else can sign
	}
	last := list[len(list)-1]
	if !begun(last.SignFrom, now) {
		return
	}
	if ready := now.Add(s.PublishAhead); last.SignUntil.Before(ready) {
		s.signsUntil(last, ready) // its successor is late
	}
	// Of a slot's first two keys both are published from the start.
	k := storage.SigningKey{Alg: place.alg, Purpose: place.purpose, PublishAt: now, CreatedAt: now}
	if last.KID == "" {
		k.PublishAt = last.PublishAt
	}
	s.signsFrom(&k, last.SignUntil)
	d.keys = append(d.keys, k)
}

// succeed gives a purpose the symmetric keys it lacks.
func (d *draft) succeed(s Schedule, purpose string, used []string, now time.Time) {
	d.secrets = slices.DeleteFunc(d.secrets, func(k storage.SealedSecret) bool {
		switch {
		case k.Purpose != purpose:
			return false
		case purpose == PurposeClientSecret:
			return !k.UseUntil.IsZero() && ended(k.UseUntil.Add(KeptFor(purpose)), now) && !slices.Contains(used, k.ID)
		}
		return ended(k.RemoveAt, now)
	})
	var newest *storage.SealedSecret
	for i := range d.secrets {
		k := &d.secrets[i]
		if k.Purpose == purpose && !ended(k.UseUntil, now) && (newest == nil || newest.UseFrom.Before(k.UseFrom)) {
			newest = k
		}
	}
	successor := storage.SealedSecret{Purpose: purpose, UseFrom: now.Add(-s.Allowance), CreatedAt: now}
	if newest != nil {
		if purpose == PurposePairwise { // another key would make everybody a stranger
			return
		}
		if !newest.UseUntil.IsZero() || !ended(newest.UseFrom.Add(s.Secret), now) {
			return
		}
		successor.UseFrom = now.Add(s.PublishAhead)
		newest.UseUntil = successor.UseFrom
		if purpose != PurposeClientSecret {
			newest.RemoveAt = newest.UseUntil.Add(KeptFor(purpose))
		}
	}
	d.secrets = append(d.secrets, successor)
}

// nextDue returns the first time after now at which advance may find something
// to do.
func (d *draft) nextDue(s Schedule, now time.Time) time.Time {
	next := now.Add(hintMemory)
	note := func(at time.Time, later time.Duration) {
		if at = at.Add(later); at.After(now) && at.Before(next) {
			next = at
		}
	}
	for _, k := range d.keys {
		note(k.SignFrom, 0)
		note(k.SignUntil, s.Allowance)
		note(k.RemoveAt, hintMemory)
	}
	for _, k := range d.secrets {
		note(k.UseFrom, s.Secret)
		note(k.RemoveAt, 0)
	}
	return next
}

// TooEarlyError says that the next keys are not published long enough to sign.
type TooEarlyError struct{ Ready time.Time }

func (e *TooEarlyError) Error() string {
	return "the next keys are not published long enough: some who cache the JWK Set may not have them before " + e.Ready.UTC().Format(time.RFC3339)
}

// rotate lets each slot's next key sign at once where everybody has it: it was
// published as long ahead as the schedule says, or ever since there are keys.
// TooEarlyError when that is so nowhere.
func (d *draft) rotate(s Schedule, places []slot, now time.Time) error {
	var beginning, ready time.Time
	for _, k := range d.keys {
		if beginning.IsZero() || k.PublishAt.Before(beginning) {
			beginning = k.PublishAt
		}
	}
	rotated := false
	for _, place := range places {
		list := d.of(place, now)
		if len(list) < 2 || !begun(list[0].SignFrom, now) {
			continue // advance sees to it
		}
		active, next := list[0], list[1]
		if at := next.PublishAt.Add(s.PublishAhead); next.PublishAt.After(beginning) && at.After(now) {
			if ready.IsZero() || at.Before(ready) {
				ready = at
			}
			continue
		}
		s.signsUntil(active, now)
		s.signsFrom(next, now)
		rotated = true
	}
	if !rotated && !ready.IsZero() {
		return &TooEarlyError{ready}
	}
	return nil
}

// compromise takes a key out of use for good. Its successor, which is
// published already, signs at once; see fill. ErrNotFound.
func (d *draft) compromise(kid string, now time.Time) error {
	i := slices.IndexFunc(d.keys, func(k storage.SigningKey) bool { return k.KID == kid })
	if i < 0 {
		return fmt.Errorf("signing key %q: %w", kid, storage.ErrNotFound)
	}
	if k := &d.keys[i]; k.CompromisedAt.IsZero() {
		k.CompromisedAt = now
		destroyPrivate(k)
	}
	return nil
}

// begun and ended follow storage's rule that the zero time is "not yet" for a
// beginning and "never" for an end.
func begun(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }
func ended(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// KeyInfo describes a signing key to an operator. The zero time is never.
type KeyInfo struct {
	KID       string    `json:"kid"`
	Alg       string    `json:"alg"`
	Purpose   string    `json:"purpose"` // "token", or "feed" for the revocation feed
	State     State     `json:"state"`
	PublishAt time.Time `json:"publish_at"`
	SignFrom  time.Time `json:"sign_from"`
	SignUntil time.Time `json:"sign_until"`
	RemoveAt  time.Time `json:"remove_at"`
}

// List returns every signing key with its state at now, ordered by when they
// sign. It needs no key-encryption key.
func List(ctx context.Context, store storage.Reader, now time.Time) ([]KeyInfo, error) {
	rows, err := store.SigningKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	list := make([]KeyInfo, len(rows))
	for i, k := range rows {
		list[i] = info(k, now)
	}
	return list, nil
}

// info tells what happened rather than what the row provides for: no key
// signed before there was one, however far back signsAtOnce dates it, and none
// after it was compromised.
func info(k storage.SigningKey, now time.Time) KeyInfo {
	i := KeyInfo{KID: k.KID, Alg: k.Alg, Purpose: k.Purpose, State: state(k, now),
		PublishAt: k.PublishAt, SignFrom: k.SignFrom, SignUntil: k.SignUntil, RemoveAt: k.RemoveAt}
	for _, at := range []*time.Time{&i.PublishAt, &i.SignFrom} {
		if !at.IsZero() && at.Before(k.CreatedAt) {
			*at = k.CreatedAt
		}
	}
	if i.State != StateCompromised {
		return i
	}
	for _, at := range []*time.Time{&i.SignUntil, &i.RemoveAt} {
		if !ended(*at, k.CompromisedAt) {
			*at = k.CompromisedAt
		}
	}
	if !begun(i.SignFrom, k.CompromisedAt) { // its turn never came
		i.SignFrom, i.SignUntil = time.Time{}, time.Time{}
	}
	return i
}
