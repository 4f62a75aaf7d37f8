package keys

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// Schedule says how long a signing key spends in each state.
type Schedule struct {
	// PublishAhead is how long a key is published before it signs, so that
	// whoever caches the JWK Set has it by then.
	PublishAhead time.Duration
	// Sign is how long a key signs.
	Sign time.Duration
	// Retire is how long a key stays published after it last signed, so that
	// all it signed has expired by then.
	Retire time.Duration
}

// shortestWait is the least time a key is published before and after it signs:
// the JWK Set's max-age, or the longest life of an access token, and a minute
// for clocks and half a minute for replicas to notice.
const shortestWait = 17 * time.Minute

// DefaultSchedule suits verifiers that cache a JWK Set for up to a day.
func DefaultSchedule() Schedule {
	return Schedule{PublishAhead: 24 * time.Hour, Sign: 30 * 24 * time.Hour, Retire: 24 * time.Hour}
}

// Validate reports every way in which tokens could be refused because their
// key is not known yet, or no longer.
func (s Schedule) Validate() error {
	var faults []error
	if s.PublishAhead < shortestWait {
		faults = append(faults, fmt.Errorf("a key must be published at least %v before it signs, not %v", shortestWait, s.PublishAhead))
	}
	if s.Retire < shortestWait {
		faults = append(faults, fmt.Errorf("a key must stay published at least %v after it signed, not %v", shortestWait, s.Retire))
	}
	if s.Sign < s.PublishAhead {
		faults = append(faults, fmt.Errorf("a key must sign at least as long (%v) as its successor is published ahead (%v)", s.Sign, s.PublishAhead))
	}
	return errors.Join(faults...)
}

// clockAllowance is how far the clocks of replicas may be apart when the first
// keys are made: these are dated back by it, so that a replica which is a
// moment behind may sign with them as well.
const clockAllowance = time.Minute

// firstKeys sets the times of the very first key of an algorithm, which signs
// at once, and of its successor.
func (s Schedule) firstKeys(pair *[2]storage.SigningKey, now time.Time) {
	active, next := &pair[0], &pair[1]
	active.PublishAt = now.Add(-clockAllowance)
	active.SignFrom = active.PublishAt
	active.SignUntil = now.Add(s.Sign)
	active.RemoveAt = active.SignUntil.Add(s.Retire)

	next.PublishAt = active.PublishAt
	next.SignFrom = active.SignUntil
	next.SignUntil = next.SignFrom.Add(s.Sign)
	next.RemoveAt = next.SignUntil.Add(s.Retire)
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

// begun and ended follow storage's rule that the zero time is "not yet" for a
// beginning and "never" for an end.
func begun(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }
func ended(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// KeyInfo describes a signing key to an operator.
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
		list[i] = KeyInfo{
			KID: k.KID, Alg: k.Alg, Purpose: k.Purpose, State: state(k, now),
			PublishAt: k.PublishAt, SignFrom: k.SignFrom, SignUntil: k.SignUntil, RemoveAt: k.RemoveAt,
		}
	}
	return list, nil
}

// The canary is a known text, sealed when the database is new: a
// key-encryption key that does not open it is not this database's.
const (
	purposeCanary = "canary"
	canaryText    = "signet canary v1"
)

// Ensure makes the keys that the database lacks: for each algorithm that has
// none left to sign tokens with, and for the revocation feed (not when algs is
// empty), one that signs at once and its successor, already published; the MAC
// keys; and the canary. Where nothing is lacking it writes
// nothing. Of any number of processes that call it at once one makes the keys.
// ErrWrongKEK when the database was sealed with another key-encryption key:
// then nothing is made, for new keys in place of unreadable ones would be an
// outage that looks like success.
func Ensure(ctx context.Context, store storage.Store, sealer *Sealer, now time.Time, schedule Schedule, algs []string) error {
	have, err := takeInventory(ctx, store, sealer)
	if err != nil {
		return err
	}
	for _, s := range have.secrets[purposeCanary] {
		text, err := sealer.Open(ctx, sealedSecretIdentity(s), Sealed{s.Sealed, s.WrappedDEK, s.KEKID})
		if err != nil {
			return fmt.Errorf("canary: %w", err)
		}
		if string(text) != canaryText {
			return fmt.Errorf("canary: %w: it opens to something else", ErrWrongKEK)
		}
	}
	// Made before the transaction: an RSA key takes too long to hold a lock for.
	pairs, secrets, err := makeMissing(ctx, have, sealer, now, schedule, algs)
	if err != nil {
		return err
	}
	if len(pairs) == 0 && len(secrets) == 0 {
		return nil
	}
	return store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if err := tx.LockRegistry(ctx); err != nil {
			return fmt.Errorf("lock registry: %w", err)
		}
		// Somebody may have been first, and with another key-encryption key.
		have, err := takeInventory(ctx, tx, sealer)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			if !have.lacksKeys(slotOf(pair[0]), now) {
				continue
			}
			for _, k := range pair {
				if err := tx.CreateSigningKey(ctx, k); err != nil {
					return fmt.Errorf("create signing key: %w", err)
				}
			}
		}
		for _, s := range secrets {
			if !have.lacksSecret(s.Purpose, now) {
				continue
			}
			if err := tx.CreateSealedSecret(ctx, s); err != nil {
				return fmt.Errorf("create sealed secret: %w", err)
			}
		}
		return nil
	})
}

// inventory is what the database holds of everything Ensure makes.
type inventory struct {
	keys    []storage.SigningKey
	secrets map[string][]storage.SealedSecret // by purpose
}

// takeInventory reads the rows, and returns ErrWrongKEK if one of them was
// sealed with a key-encryption key that the sealer does not have.
func takeInventory(ctx context.Context, r storage.Reader, sealer *Sealer) (inventory, error) {
	inv := inventory{secrets: make(map[string][]storage.SealedSecret)}
	var err error
	if inv.keys, err = r.SigningKeys(ctx); err != nil {
		return inv, fmt.Errorf("signing keys: %w", err)
	}
	for _, k := range inv.keys {
		if len(k.SealedPrivate) == 0 {
			continue
		}
		if _, err := sealer.kek(k.KEKID); err != nil {
			return inv, fmt.Errorf("signing key %s: %w", k.KID, err)
		}
	}
	for _, purpose := range sealedPurposes() {
		rows, err := r.SealedSecrets(ctx, purpose)
		if err != nil {
			return inv, fmt.Errorf("sealed secrets: %w", err)
		}
		for _, s := range rows {
			if _, err := sealer.kek(s.KEKID); err != nil {
				return inv, fmt.Errorf("sealed secret %s: %w", s.ID, err)
			}
		}
		inv.secrets[purpose] = rows
	}
	return inv, nil
}

func sealedPurposes() []string { return append(secretPurposes(), purposeCanary) }

func (inv inventory) lacksKeys(place slot, now time.Time) bool {
	for _, k := range inv.keys {
		if s := state(k, now); slotOf(k) == place && (s == StateActive || s == StateNext) {
			return false
		}
	}
	return true
}

func (inv inventory) lacksSecret(purpose string, now time.Time) bool {
	for _, s := range inv.secrets[purpose] {
		if !ended(s.UseUntil, now) && !ended(s.RemoveAt, now) {
			return false
		}
	}
	return true
}

// makeMissing makes, without touching the database, a pair of signing keys for
// each slot that lacks them, first the active one and then the next, and
// a secret for each purpose that lacks one. Keys are made side by side.
func makeMissing(ctx context.Context, have inventory, sealer *Sealer, now time.Time, schedule Schedule, algs []string) ([][2]storage.SigningKey, []storage.SealedSecret, error) {
	var lacking []slot
	for _, s := range slots(algs) {
		if have.lacksKeys(s, now) {
			lacking = append(lacking, s)
		}
	}
	pairs := make([][2]storage.SigningKey, len(lacking))
	faults := make([]error, 2*len(lacking))
	var wg sync.WaitGroup
	for i, s := range lacking {
		schedule.firstKeys(&pairs[i], now)
		for j := range pairs[i] {
			wg.Go(func() {
				faults[2*i+j] = newSigningKey(ctx, &pairs[i][j], s, sealer, now)
			})
		}
	}
	wg.Wait()
	if err := errors.Join(faults...); err != nil {
		return nil, nil, err
	}
	var secrets []storage.SealedSecret
	for _, purpose := range sealedPurposes() {
		if !have.lacksSecret(purpose, now) {
			continue
		}
		s, err := newSealedSecret(ctx, purpose, sealer, now)
		if err != nil {
			return nil, nil, err
		}
		secrets = append(secrets, s)
	}
	return pairs, secrets, nil
}

// newSigningKey makes a key pair and fills in all of the row but its times.
func newSigningKey(ctx context.Context, k *storage.SigningKey, s slot, sealer *Sealer, now time.Time) error {
	private, err := newPrivateKey(s.alg)
	if err != nil {
		return fmt.Errorf("make %s key: %w", s, err)
	}
	if err := sealSigningKey(ctx, k, private, s, sealer); err != nil {
		return fmt.Errorf("make %s key: %w", s, err)
	}
	k.CreatedAt = now
	return nil
}

func sealSigningKey(ctx context.Context, k *storage.SigningKey, private crypto.Signer, s slot, sealer *Sealer) error {
	kid, err := thumbprint(private.Public())
	if err != nil {
		return err
	}
	public, err := json.Marshal(publicJWK(private.Public(), kid, s.alg))
	if err != nil {
		return fmt.Errorf("public JWK: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	k.KID, k.Alg, k.Purpose, k.PublicJWK = kid, s.alg, s.purpose, string(public)
	sealed, err := sealer.Seal(ctx, signingKeyIdentity(*k), der)
	if err != nil {
		return err
	}
	k.SealedPrivate, k.WrappedDEK, k.KEKID = sealed.Ciphertext, sealed.WrappedDEK, sealed.KEKID
	return nil
}

func newSealedSecret(ctx context.Context, purpose string, sealer *Sealer, now time.Time) (storage.SealedSecret, error) {
	s := storage.SealedSecret{Purpose: purpose, UseFrom: now.Add(-clockAllowance), CreatedAt: now}
	plaintext := []byte(canaryText)
	if purpose == purposeCanary {
		s.ID = purposeCanary
	} else {
		s.ID = base64.RawURLEncoding.EncodeToString(randomBytes(8))
		plaintext = randomBytes(32)
	}
	sealed, err := sealer.Seal(ctx, sealedSecretIdentity(s), plaintext)
	if err != nil {
		return s, fmt.Errorf("make %s secret: %w", purpose, err)
	}
	s.Sealed, s.WrappedDEK, s.KEKID = sealed.Ciphertext, sealed.WrappedDEK, sealed.KEKID
	return s, nil
}
