package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// The canary is a known text, sealed when the database is new: a
// key-encryption key that does not open it is not this database's. It also
// says which key-encryption key seals new rows (see Rewrap), and by its text
// that all rows are authenticated: otherwise whoever can write to the database
// could take away what authenticates them, and have what is there adopted.
const (
	purposeCanary = "canary"
	canaryText    = "signet canary v2: rows are authenticated"
	canaryBefore  = "signet canary v1" // of an older release
)

// Keeper carries the keys of a database through their lives. Any number of
// processes may do so at once: each decides from the times in the rows, under
// the registry's lock, and of those that come to the same change one makes it.
// Keys are made before the lock is taken.
type Keeper struct {
	Store    storage.Store
	Sealer   *Sealer
	Schedule Schedule
	// Algorithms are those tokens are signed with. With none no signing key is
	// made, the revocation feed's neither.
	Algorithms []string
	// Record, unless nil, is told of every change in the transaction that makes
	// it; an error undoes it. It may be called again when a transaction is.
	Record func(ctx context.Context, tx storage.Tx, e Event) error
}

// Event is something that happened to a key.
type Event struct {
	Name    EventName
	Key     string // kid of a signing key, id of a symmetric one
	Alg     string // "" for symmetric keys
	Purpose string
}

// EventName says what happened to a key.
type EventName string

// What happens to a key: it is made, its times are changed, its private half
// is destroyed when it has signed for the last time, it is declared
// compromised, or it is deleted; or a row of an older release is authenticated.
const (
	EventMade        EventName = "made"
	EventRescheduled EventName = "rescheduled"
	EventDestroyed   EventName = "destroyed"
	EventCompromised EventName = "compromised"
	EventDeleted     EventName = "deleted"
	EventAdopted     EventName = "adopted"
	EventRewrapped   EventName = "rewrapped" // every key; Key is the key-encryption key's id
)

// Ensure makes the keys that the database lacks: for each algorithm that has
// none left to sign tokens with, and for the revocation feed (not when algs is
// empty), one that signs at once and its successor, already published; the MAC
// keys; and the canary. Where nothing is lacking it writes nothing. ErrWrongKEK
// when the database was sealed with another key-encryption key: then nothing is
// made, for new keys in place of unreadable ones would be an outage that looks
// like success. ErrAltered when a row is not as it was written.
func Ensure(ctx context.Context, store storage.Store, sealer *Sealer, now time.Time, schedule Schedule, algs []string) error {
	k := Keeper{Store: store, Sealer: sealer, Schedule: schedule, Algorithms: algs}
	_, err := k.Advance(ctx, now)
	return err
}

// Advance does what the time, on the database's clock, demands: it makes,
// destroys and deletes keys, and nothing where there is nothing to do, which
// costs a few small reads. It returns when to come back. Errors as Ensure.
func (k *Keeper) Advance(ctx context.Context, now time.Time) (next time.Time, err error) {
	err = k.change(ctx, now, func(*draft) error { return nil }, func(d draft) { next = d.nextDue(k.Schedule, now) })
	return next, err
}

// Rotate lets the next keys sign at once, wherever everybody knows them, and
// makes them successors. Tokens signed before stay good. A *TooEarlyError says
// when it can be done if that is so of none.
func (k *Keeper) Rotate(ctx context.Context, now time.Time) error {
	return k.change(ctx, now, func(d *draft) error { return d.rotate(k.Schedule, slots(k.Algorithms), now) }, nil)
}

// Compromise takes a signing key out of the JWK Set for good and destroys its
// private half; if it was signing, its successor does from now on. Doing it
// again changes nothing. storage.ErrNotFound when there is no such key.
func (k *Keeper) Compromise(ctx context.Context, kid string, now time.Time) error {
	return k.change(ctx, now, func(d *draft) error { return d.compromise(kid, now) }, nil)
}

// errMoved says that the database is not as it was when keys were made for it.
var errMoved = errors.New("the keys were changed by somebody else at the same time")

// change decides what becomes of the keys, makes those it takes, and decides
// again under the lock, on what is there then. outcome, if not nil, is told
// what the tables hold afterwards.
func (k *Keeper) change(ctx context.Context, now time.Time, decide func(*draft) error, outcome func(draft)) error {
	const attempts = 8
	for range attempts {
		err := k.attempt(ctx, now, decide, outcome)
		if !errors.Is(err, errMoved) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, errMoved)
}

func (k *Keeper) attempt(ctx context.Context, now time.Time, decide func(*draft) error, outcome func(draft)) error {
	have, err := k.look(ctx)
	if err != nil {
		return err
	}
	want, err := k.decide(have, now, decide)
	if err != nil {
		return err
	}
	if have.prepared() && reflect.DeepEqual(want, have.draft()) {
		if outcome != nil {
			outcome(want)
		}
		return nil
	}
	made, err := k.make(ctx, have, want, now)
	if err != nil {
		return err
	}
	return k.Store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if err := tx.LockRegistry(ctx); err != nil {
			return fmt.Errorf("lock registry: %w", err)
		}
		current, err := takeInventory(ctx, tx, k.Sealer)
		if err != nil {
			return err
		}
		if !current.follows(have) {
			return errMoved
		}
		if current.macs = have.macs; len(have.rows) > 0 {
			if err := current.check(); err != nil {
				return err
			}
		}
		want, err := k.decide(current, now, decide)
		if err != nil {
			return err
		}
		if err := k.write(ctx, tx, current, want, made.clone()); err != nil {
			return err
		}
		if outcome != nil {
			outcome(want)
		}
		return nil
	})
}

// look takes the inventory and opens it. What it reads may come from successive
// moments, so rows that do not fit together count only if nothing changed.
func (k *Keeper) look(ctx context.Context) (inventory, error) {
	before, err := k.Store.RegistryVersion(ctx)
	if err != nil {
		return inventory{}, fmt.Errorf("registry version: %w", err)
	}
	have, err := takeInventory(ctx, k.Store, k.Sealer)
	if err != nil {
		return have, err
	}
	if err = have.open(ctx); err == nil {
		return have, nil
	}
	after, verr := k.Store.RegistryVersion(ctx)
	if verr != nil {
		return have, fmt.Errorf("registry version: %w", verr)
	}
	if before != after {
		return have, errMoved
	}
	return have, err
}

func (k *Keeper) decide(have inventory, now time.Time, decide func(*draft) error) (draft, error) {
	want := have.draft()
	if err := decide(&want); err != nil {
		return draft{}, err
	}
	want.advance(k.Schedule, slots(k.Algorithms), have.used, now)
	return want, nil
}

// supply is what was made before the lock was taken.
type supply struct {
	keys    []storage.SigningKey
	secrets []storage.SealedSecret
	canary  *storage.SealedSecret // nil when there is one, and not an older release's
	rows    *storage.SealedSecret // nil when there is one
	macs    rowMACs
}

func (s supply) clone() supply {
	s.keys, s.secrets = slices.Clone(s.keys), slices.Clone(s.secrets)
	return s
}

// complete fills in the new row with a key that was made for such a one.
func (s *supply) complete(k *storage.SigningKey) error {
	i := slices.IndexFunc(s.keys, func(m storage.SigningKey) bool { return slotOf(m) == slotOf(*k) })
	if i < 0 {
		return errMoved
	}
	m := s.keys[i]
	s.keys = slices.Delete(s.keys, i, i+1)
	k.KID, k.PublicJWK, k.SealedPrivate, k.WrappedDEK, k.KEKID = m.KID, m.PublicJWK, m.SealedPrivate, m.WrappedDEK, m.KEKID
	k.MAC = s.macs.ofKey(*k)
	return nil
}

func (s *supply) completeSecret(k *storage.SealedSecret) error {
	i := slices.IndexFunc(s.secrets, func(m storage.SealedSecret) bool { return m.Purpose == k.Purpose })
	if i < 0 {
		return errMoved
	}
	m := s.secrets[i]
	s.secrets = slices.Delete(s.secrets, i, i+1)
	k.ID, k.Sealed, k.WrappedDEK, k.KEKID = m.ID, m.Sealed, m.WrappedDEK, m.KEKID
	k.MAC = s.macs.ofSecret(*k)
	return nil
}

// make makes what the draft lacks, keys side by side.
func (k *Keeper) make(ctx context.Context, have inventory, want draft, now time.Time) (supply, error) {
	made := supply{macs: have.macs}
	for _, row := range want.keys {
		if row.KID == "" {
			made.keys = append(made.keys, row)
		}
	}
	faults := make([]error, len(made.keys))
	var wg sync.WaitGroup
	for i := range made.keys {
		wg.Go(func() { faults[i] = newSigningKey(ctx, &made.keys[i], have.sealer) })
	}
	wg.Wait()
	if err := errors.Join(faults...); err != nil {
		return made, err
	}
	for _, row := range want.secrets {
		if row.ID != "" {
			continue
		}
		if err := newSealedSecret(ctx, &row, have.sealer); err != nil {
			return made, err
		}
		made.secrets = append(made.secrets, row)
	}
	for _, one := range []struct {
		purpose string
		have    bool
		made    **storage.SealedSecret
	}{{purposeRows, len(have.rows) > 0, &made.rows}, {purposeCanary, have.vouched, &made.canary}} {
		if one.have {
			continue
		}
		s := storage.SealedSecret{Purpose: one.purpose, UseFrom: now, CreatedAt: now}
		if err := newSealedSecret(ctx, &s, have.sealer); err != nil {
			return made, err
		}
		*one.made = &s
	}
	if made.rows != nil {
		secret, err := have.sealer.Open(ctx, sealedSecretIdentity(*made.rows), Sealed{made.rows.Sealed, made.rows.WrappedDEK, made.rows.KEKID})
		if err != nil {
			return made, err
		}
		made.macs = rowMACs{secret}
	}
	return made, nil
}

// write brings the tables from what they are to what they are to be.
func (k *Keeper) write(ctx context.Context, tx storage.Tx, have inventory, want draft, made supply) error {
	record := func(name EventName, id, alg, purpose string) error {
		if k.Record == nil {
			return nil
		}
		return k.Record(ctx, tx, Event{name, id, alg, purpose})
	}
	for _, s := range []*storage.SealedSecret{made.rows, made.canary} {
		if s == nil {
			continue
		}
		s, put := *s, tx.CreateSealedSecret
		if s.Purpose == purposeCanary && len(have.canary) > 0 { // of an older release
			s.CreatedAt, put = have.canary[0].CreatedAt, tx.UpdateSealedSecret
		}
		s.MAC = made.macs.ofSecret(s)
		if err := put(ctx, s); err != nil {
			return fmt.Errorf("write sealed secret: %w", err)
		}
	}
	before := make(map[string]storage.SigningKey)
	for _, key := range have.keys {
		before[key.KID] = key
	}
	for _, key := range want.keys {
		name := EventMade
		if key.KID != "" {
			old := before[key.KID]
			delete(before, key.KID)
			key.MAC = made.macs.ofKey(key)
			switch {
			case reflect.DeepEqual(key, old):
				continue
			case old.MAC == nil:
				name = EventAdopted
			case old.CompromisedAt.IsZero() && !key.CompromisedAt.IsZero():
				name = EventCompromised
			case len(old.SealedPrivate) > 0 && len(key.SealedPrivate) == 0:
				name = EventDestroyed
			default:
				name = EventRescheduled
			}
			if err := tx.UpdateSigningKey(ctx, key); err != nil {
				return fmt.Errorf("update signing key: %w", err)
			}
		} else {
			if err := made.complete(&key); err != nil {
				return err
			}
			if err := tx.CreateSigningKey(ctx, key); err != nil {
				return fmt.Errorf("create signing key: %w", err)
			}
		}
		if err := record(name, key.KID, key.Alg, key.Purpose); err != nil {
			return err
		}
	}
	for _, key := range before {
		if err := tx.DeleteSigningKey(ctx, key.KID); err != nil {
			return fmt.Errorf("delete signing key: %w", err)
		}
		if err := record(EventDeleted, key.KID, key.Alg, key.Purpose); err != nil {
			return err
		}
	}
	return k.writeSecrets(ctx, tx, have, want, made, record)
}

func (k *Keeper) writeSecrets(ctx context.Context, tx storage.Tx, have inventory, want draft, made supply, record func(name EventName, id, alg, purpose string) error) error {
	before := make(map[string]storage.SealedSecret)
	for _, s := range have.secrets {
		before[s.ID] = s
	}
	for _, s := range want.secrets {
		name := EventMade
		if s.ID != "" {
			old := before[s.ID]
			delete(before, s.ID)
			s.MAC = made.macs.ofSecret(s)
			if reflect.DeepEqual(s, old) {
				continue
			}
			if name = EventRescheduled; old.MAC == nil {
				name = EventAdopted
			}
			if err := tx.UpdateSealedSecret(ctx, s); err != nil {
				return fmt.Errorf("update sealed secret: %w", err)
			}
		} else {
			if err := made.completeSecret(&s); err != nil {
				return err
			}
			if err := tx.CreateSealedSecret(ctx, s); err != nil {
				return fmt.Errorf("create sealed secret: %w", err)
			}
		}
		if err := record(name, s.ID, "", s.Purpose); err != nil {
			return err
		}
	}
	for _, s := range before {
		if err := tx.DeleteSealedSecret(ctx, s.ID); err != nil {
			return fmt.Errorf("delete sealed secret: %w", err)
		}
		if err := record(EventDeleted, s.ID, "", s.Purpose); err != nil {
			return err
		}
	}
	return nil
}

// inventory is what the database holds.
type inventory struct {
	keys    []storage.SigningKey
	secrets []storage.SealedSecret // of secretPurposes
	canary  []storage.SealedSecret
	rows    []storage.SealedSecret
	vouched bool     // the canary says that rows are authenticated
	used    []string // keys that client secrets are hashed with
	sealer  *Sealer  // for new rows
	macs    rowMACs
}

// takeInventory reads the rows, and returns ErrWrongKEK if one of them was
// sealed with a key-encryption key that the sealer does not have.
func takeInventory(ctx context.Context, r storage.Reader, sealer *Sealer) (inventory, error) {
	inv := inventory{sealer: sealer}
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
		switch purpose {
		case purposeCanary:
			inv.canary = rows
		case purposeRows:
			inv.rows = rows
		default:
			inv.secrets = append(inv.secrets, rows...)
		}
	}
	if len(inv.canary) > 0 {
		if inv.sealer, err = sealer.sealingWith(inv.canary[0].KEKID); err != nil {
			return inv, err
		}
	}
	if inv.used, err = r.ClientSecretKeys(ctx); err != nil {
		return inv, fmt.Errorf("client secrets: %w", err)
	}
	return inv, nil
}

// sealedPurposes lists every purpose that has rows.
func sealedPurposes() []string { return append(secretPurposes(), purposeCanary, purposeRows) }

// prepared reports whether what all else rests on is there.
func (inv inventory) prepared() bool { return inv.vouched && len(inv.rows) > 0 }

func (inv inventory) draft() draft {
	return draft{slices.Clone(inv.keys), slices.Clone(inv.secrets)}
}

// open checks that the rows can be read and are as they were written, and sets
// vouched and macs unless the database is new or of an older release.
func (inv *inventory) open(ctx context.Context) error {
	if len(inv.canary) > 1 || len(inv.rows) > 1 {
		return fmt.Errorf("sealed secrets: more than one for %s or %s: %w", purposeCanary, purposeRows, ErrAltered)
	}
	for _, s := range inv.canary {
		text, err := inv.sealer.Open(ctx, sealedSecretIdentity(s), Sealed{s.Sealed, s.WrappedDEK, s.KEKID})
		if err != nil {
			return fmt.Errorf("canary: %w", err)
		}
		if inv.vouched = string(text) == canaryText; !inv.vouched && string(text) != canaryBefore {
			return fmt.Errorf("canary: %w: it opens to something else", ErrWrongKEK)
		}
	}
	switch {
	case inv.vouched && len(inv.rows) == 0:
		return fmt.Errorf("what authenticates rows is gone: %w", ErrAltered)
	case len(inv.canary) == 0 && len(inv.keys)+len(inv.secrets)+len(inv.rows) > 0:
		return fmt.Errorf("the canary is gone: %w", ErrAltered)
	case len(inv.rows) == 0:
		return inv.admit(ctx)
	}
	var err error
	if inv.macs, err = openRowMACs(ctx, inv.rows[0], inv.sealer); err != nil {
		return err
	}
	return inv.check()
}

// check returns ErrAltered with every row that is not as it was written.
func (inv inventory) check() error {
	var faults []error
	for _, k := range inv.keys {
		faults = append(faults, inv.macs.checkKey(k))
	}
	for _, s := range slices.Concat(inv.secrets, inv.canary, inv.rows) {
		faults = append(faults, inv.macs.checkSecret(s))
	}
	return errors.Join(faults...)
}

// admit lets in the rows of an older release, which authenticated none of
// them: those that open, and so were made with the key-encryption key.
func (inv inventory) admit(ctx context.Context) error {
	var faults []error
	for _, row := range inv.keys {
		k, err := openKey(ctx, row, inv.sealer, time.Time{})
		if err == nil && (k.private == nil || row.MAC != nil) {
			err = ErrAltered
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("signing key %s: %w", row.KID, err))
		}
	}
	for _, row := range slices.Concat(inv.secrets, inv.canary) {
		_, err := inv.sealer.Open(ctx, sealedSecretIdentity(row), Sealed{row.Sealed, row.WrappedDEK, row.KEKID})
		if err == nil && row.MAC != nil {
			err = ErrAltered
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("sealed secret %s: %w", row.ID, err))
		}
	}
	return errors.Join(faults...)
}

// follows reports whether what was made for the earlier inventory fits this one.
func (inv inventory) follows(earlier inventory) bool {
	if inv.sealer.Primary.ID() != earlier.sealer.Primary.ID() || len(inv.rows) != len(earlier.rows) ||
		!slices.EqualFunc(inv.canary, earlier.canary, func(a, b storage.SealedSecret) bool { return bytes.Equal(a.Sealed, b.Sealed) }) {
		return false
	}
	if len(inv.rows) == 0 { // what was admitted must be what is there
		return reflect.DeepEqual(inv.draft(), earlier.draft())
	}
	return len(inv.rows) == 1 && inv.rows[0].ID == earlier.rows[0].ID && bytes.Equal(inv.rows[0].Sealed, earlier.rows[0].Sealed)
}

// newSigningKey makes a key pair for a row that has all but that.
func newSigningKey(ctx context.Context, k *storage.SigningKey, sealer *Sealer) error {
	for {
		private, err := newPrivateKey(k.Alg)
		if err == nil {
			err = sealSigningKey(ctx, k, private, sealer)
		}
		if err != nil {
			return fmt.Errorf("make %s key: %w", slotOf(*k), err)
		}
		if k.KID[0] != '-' { // on a command line that would be a flag
			return nil
		}
	}
}

func sealSigningKey(ctx context.Context, k *storage.SigningKey, private crypto.Signer, sealer *Sealer) error {
	kid, err := thumbprint(private.Public())
	if err != nil {
		return err
	}
	public, err := json.Marshal(publicJWK(private.Public(), kid, k.Alg))
	if err != nil {
		return fmt.Errorf("public JWK: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	k.KID, k.PublicJWK = kid, string(public)
	sealed, err := sealer.Seal(ctx, signingKeyIdentity(*k), der)
	if err != nil {
		return err
	}
	k.SealedPrivate, k.WrappedDEK, k.KEKID = sealed.Ciphertext, sealed.WrappedDEK, sealed.KEKID
	return nil
}

// newSealedSecret makes a secret for a row that has all but that.
func newSealedSecret(ctx context.Context, s *storage.SealedSecret, sealer *Sealer) error {
	plaintext := []byte(canaryText)
	if s.Purpose == purposeCanary {
		s.ID = purposeCanary
	} else {
		s.ID = base64.RawURLEncoding.EncodeToString(randomBytes(8))
		plaintext = randomBytes(32)
	}
	sealed, err := sealer.Seal(ctx, sealedSecretIdentity(*s), plaintext)
	if err != nil {
		return fmt.Errorf("make %s secret: %w", s.Purpose, err)
	}
	s.Sealed, s.WrappedDEK, s.KEKID = sealed.Ciphertext, sealed.WrappedDEK, sealed.KEKID
	return nil
}
