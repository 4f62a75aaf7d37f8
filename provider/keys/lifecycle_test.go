package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func TestScheduleValidate(t *testing.T) {
	if err := DefaultSchedule().Validate(15*time.Minute, 15*time.Minute); err != nil {
		t.Error(err)
	}
	err := Schedule{PublishAhead: 16 * time.Minute, Sign: time.Minute, Retire: 0, Allowance: time.Minute}.Validate(15*time.Minute, 15*time.Minute)
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three faults, reported: %v", err)
	}
}

// life is one run of a deployment: replicas over one database, each with a
// clock of its own and what it last read.
type life struct {
	t        *testing.T
	rng      *rand.Rand
	schedule Schedule
	maxAge   time.Duration // of the JWK Set
	token    time.Duration // longest life of a token
	algs     []string
	now      time.Time // on the database's clock
	replicas []*replica
	operated time.Time // when an operator last changed the keys
	seen     []sighting
	signed   int
	rotated  map[string]bool // kids that signed
}

type replica struct {
	store  storage.Store
	clock  time.Duration // ahead of the database's
	ring   *Ring
	read   time.Time // on the database's clock
	deafTo time.Time // reads nothing until then
	jwks   []publishing
}

// publishing is what a replica answered at /jwks from then on.
type publishing struct {
	from time.Time
	kids []string
}

// sighting is a key that signed.
type sighting struct {
	kid string
	at  time.Time
}

func (l *life) local(r *replica) time.Time { return l.now.Add(r.clock) }

func (l *life) keeper(r *replica) *Keeper {
	return &Keeper{Store: r.store, Sealer: testSealer(), Schedule: l.schedule, Algorithms: l.algs}
}

func (l *life) load(r *replica) {
	ring, err := Load(l.t.Context(), r.store, testSealer(), l.local(r))
	if err != nil {
		l.t.Fatal(err)
	}
	r.ring, r.read = ring, l.now
	r.jwks = append(r.jwks, publishing{l.now, kidsIn(l.t, ring)})
}

// at returns what the replica published at that time; nil when it published
// nothing, because it had not read anything yet, or not for too long.
func (r *replica) at(when time.Time, good time.Duration) []string {
	var last publishing
	for _, p := range r.jwks {
		if p.from.After(when) {
			break
		}
		last = p
	}
	if when.Sub(last.from) > good {
		return nil
	}
	return last.kids
}

// check holds what the replica may sign with now to what others may know.
func (l *life) check(r *replica) {
	fresh := !l.now.After(r.read.Add(l.schedule.Allowance / 2))
	if !fresh && !l.operated.Before(r.read) {
		return // a replica that cannot read issues nothing; only the plan it knows would let it
	}
	for _, s := range slots(l.algs) {
		k := r.ring.signing(s, l.local(r))
		if k == nil {
			if fresh {
				l.t.Fatalf("%v: nothing signs as %s", l.now, s)
			}
			continue
		}
		l.signed++
		l.rotated[k.row.KID] = true
		l.seen = append(l.seen, sighting{k.row.KID, l.now})
		for i, other := range l.replicas {
			if kids := other.at(l.now.Add(-l.maxAge), l.schedule.JWKSGood(l.maxAge)); kids != nil && !slices.Contains(kids, k.row.KID) {
				l.t.Fatalf("%v: %s signs as %s and was not published by replica %d as long ago as caches are old", l.now, k.row.KID, s, i)
			}
		}
	}
	// What was signed within the life of a token is published, and verifies here.
	l.seen = slices.DeleteFunc(l.seen, func(s sighting) bool { return s.at.Add(l.token).Before(l.now) })
	if fresh {
		for _, s := range l.seen {
			if !slices.Contains(r.at(l.now, l.schedule.JWKSGood(l.maxAge)), s.kid) {
				l.t.Fatalf("%v: %s, which signed at %v, is published no more", l.now, s.kid, s.at)
			}
		}
	}
}

// step lets some time pass and something happen.
func (l *life) step() {
	some := func(most time.Duration) time.Duration {
		return time.Duration(l.rng.Int64N(int64(most)) + 1).Truncate(time.Millisecond)
	}
	r := l.replicas[l.rng.IntN(len(l.replicas))]
	switch l.rng.IntN(12) {
	case 0: // everything stands still for long
		l.now = l.now.Add(some(l.schedule.Sign * 19 / 20))
	case 1: // one hears nothing for a while
		r.deafTo = l.now.Add(some(l.schedule.JWKSGood(l.maxAge)))
	case 2: // one starts again, with another clock
		r.deafTo, r.clock = time.Time{}, time.Duration(l.rng.Int64N(int64(l.schedule.Allowance)))-l.schedule.Allowance/2
		r.clock = r.clock.Truncate(time.Millisecond)
		if err := Ensure(l.t.Context(), r.store, testSealer(), l.now, l.schedule, l.algs); err != nil {
			l.t.Fatal(err)
		}
	case 3: // an operator is impatient
		var early *TooEarlyError
		err := l.keeper(r).Rotate(l.t.Context(), l.now)
		if err != nil && !errors.As(err, &early) {
			l.t.Fatal(err)
		}
		if err == nil {
			l.operated = l.now
		}
	default:
		l.now = l.now.Add(some(l.schedule.PublishAhead / 6))
	}
	// At the worst moments, too: just when a key's time comes.
	if next := l.replicas[0].ring.NextChange(); l.rng.IntN(4) == 0 && next.After(l.now) && next.Before(l.now.Add(l.schedule.PublishAhead)) {
		l.now = next.Add(time.Duration(l.rng.IntN(3)-1) * time.Millisecond)
	}
	for _, r := range l.replicas {
		if l.rng.IntN(3) > 0 && !l.now.Before(r.deafTo) {
			if _, err := l.keeper(r).Advance(l.t.Context(), l.now); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	for _, r := range l.replicas {
		if !l.now.Before(r.deafTo) {
			l.load(r)
		} else if l.now.After(r.read.Add(l.schedule.JWKSGood(l.maxAge))) {
			r.deafTo = time.Time{} // it publishes nothing any more; it is started again
			l.load(r)
		}
	}
	for _, r := range l.replicas {
		l.check(r)
	}
}

// G9: whatever the schedule, the replicas' clocks, restarts, silences and
// operators: what any replica signs with at a time was in every replica's JWK
// Set as long before as anybody caches it, and is there until what it signed
// has expired; and every replica that reads the database can sign.
func TestNoReplicaSignsWithAKeyThatOthersDoNotKnow(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		rng := rand.New(rand.NewPCG(11, 12))
		between := func(least, most time.Duration) time.Duration {
			return (least + time.Duration(rng.Int64N(int64(most-least)))).Truncate(time.Second)
		}
		total, rotated := 0, 0
		stores := []storage.Store{open(), open(), open()}
		for range 6 {
			l := &life{t: t, rng: rng, maxAge: between(time.Minute, 30*time.Minute), token: between(5*time.Minute, 15*time.Minute),
				algs: []string{ES256, EdDSA}, now: testNow, rotated: make(map[string]bool)}
			l.schedule = Schedule{Allowance: between(4*time.Second, 2*time.Minute), Secret: between(24*time.Hour, 90*24*time.Hour)}
			l.schedule.PublishAhead = between(l.maxAge+2*l.schedule.Allowance, 48*time.Hour)
			l.schedule.Retire = between(l.token+2*l.schedule.Allowance, 48*time.Hour)
			l.schedule.Sign = l.schedule.PublishAhead // as tight as may be
			if rng.IntN(2) == 0 {
				l.schedule.Sign = between(l.schedule.PublishAhead, l.schedule.PublishAhead+20*24*time.Hour)
			}
			if err := l.schedule.Validate(l.maxAge, l.token); err != nil {
				t.Fatal(err)
			}
			empty(t, stores[0])
			for _, store := range stores {
				r := &replica{store: store}
				if err := Ensure(t.Context(), store, testSealer(), l.now, l.schedule, l.algs); err != nil {
					t.Fatal(err)
				}
				l.replicas = append(l.replicas, r)
				l.load(r)
			}
			for range 60 {
				l.step()
			}
			total, rotated = total+l.signed, rotated+len(l.rotated)
		}
		if total < 1000 || rotated < 60 {
			t.Errorf("%d signatures by %d keys: the test tests little", total, rotated)
		}
	})
}

// empty removes all keys, as for a new deployment.
func empty(t *testing.T, store storage.Store) {
	t.Helper()
	err := store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		have, err := takeInventory(ctx, tx, testSealer())
		if err != nil {
			return err
		}
		for _, k := range have.keys {
			err = errors.Join(err, tx.DeleteSigningKey(ctx, k.KID))
		}
		for _, s := range slices.Concat(have.secrets, have.canary, have.rows) {
			err = errors.Join(err, tx.DeleteSealedSecret(ctx, s.ID))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// When a key's turn comes, 64 at once make one successor for each.
func TestManyAtOnceMakeOneSuccessor(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		var stores []storage.Store
		for range 8 {
			stores = append(stores, open())
		}
		if err := ensure(t, stores[0], testSealer(), testNow, ES256, EdDSA); err != nil {
			t.Fatal(err)
		}
		s := DefaultSchedule()
		for round := 1; round <= 3; round++ {
			now := testNow.Add(time.Duration(round) * s.Sign)
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					if err := ensure(t, stores[i%len(stores)], testSealer(), now, ES256, EdDSA); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			got := states(t, stores[0], now)
			for _, place := range slots([]string{ES256, EdDSA}) {
				if got[place.String()+" active"] != 1 || got[place.String()+" next"] != 1 || got[place.String()+" retired"] != 1 || got[place.String()+" removed"] != round-1 {
					t.Errorf("round %d, %s: %v", round, place, got)
				}
			}
		}
	})
}

// rowsOf returns the rows as they are in the database.
func rowsOf(t *testing.T, store storage.Reader) inventory {
	t.Helper()
	have, err := takeInventory(t.Context(), store, testSealer())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

func (inv inventory) key(t *testing.T, kid string) storage.SigningKey {
	t.Helper()
	i := slices.IndexFunc(inv.keys, func(k storage.SigningKey) bool { return k.KID == kid })
	if i < 0 {
		t.Fatalf("no key %s", kid)
	}
	return inv.keys[i]
}

// A key's private half goes a moment after it signed for the last time, its
// public half when it reads no id_token_hint any more; the MAC holds throughout.
func TestKeysEndInTime(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		var events []string
		k := &Keeper{Store: store, Sealer: testSealer(), Schedule: DefaultSchedule(), Algorithms: []string{ES256},
			Record: func(_ context.Context, _ storage.Tx, e Event) error {
				events = append(events, string(e.Name)+" "+e.Purpose)
				return nil
			}}
		advance := func(now time.Time) time.Time {
			t.Helper()
			next, err := k.Advance(t.Context(), now)
			if err != nil {
				t.Fatal(err)
			}
			if !next.After(now) {
				t.Errorf("at %v there is something to do at %v", now, next)
			}
			return next
		}
		next := advance(testNow)
		i := slices.IndexFunc(rowsOf(t, store).keys, func(k storage.SigningKey) bool { return k.Purpose == PurposeToken && state(k, testNow) == StateActive })
		first := rowsOf(t, store).keys[i]
		if !next.Equal(first.SignUntil) {
			t.Errorf("next due %v, want when the first key's turn ends, %v", next, first.SignUntil)
		}
		if events = nil; !advance(first.SignUntil.Add(-1)).Equal(first.SignUntil) || events != nil {
			t.Errorf("before its time: %v", events)
		}
		advance(first.SignUntil)
		if len(rowsOf(t, store).key(t, first.KID).SealedPrivate) == 0 {
			t.Error("destroyed while a replica whose clock is behind signs with it")
		}
		slices.Sort(events)
		if !slices.Equal(events, []string{"made feed", "made token"}) {
			t.Errorf("at the turn: %v", events)
		}
		events = nil
		advance(first.SignUntil.Add(k.Schedule.Allowance))
		destroyed := rowsOf(t, store).key(t, first.KID)
		if len(destroyed.SealedPrivate)+len(destroyed.WrappedDEK)+len(destroyed.KEKID) != 0 || len(destroyed.MAC) == 0 {
			t.Errorf("not destroyed: %+v", destroyed)
		}
		if slices.Sort(events); !slices.Equal(events, []string{"destroyed feed", "destroyed token"}) {
			t.Errorf("afterwards: %v", events)
		}
		// A year of it, as a job would have it: from one due time to the next.
		for at := first.SignUntil.Add(k.Schedule.Allowance); at.Before(first.RemoveAt.Add(hintMemory)); at = advance(at) {
			if _, err := Load(t.Context(), store, testSealer(), at); err != nil {
				t.Fatalf("at %v: %v", at, err)
			}
		}
		advance(first.RemoveAt.Add(hintMemory))
		if slices.ContainsFunc(rowsOf(t, store).keys, func(k storage.SigningKey) bool { return k.KID == first.KID }) {
			t.Error("still there after a year")
		}
		ring, err := Load(t.Context(), store, testSealer(), first.RemoveAt.Add(hintMemory))
		if err != nil || ring.Altered() != nil || ring.CanSign(k.Algorithms, first.RemoveAt.Add(hintMemory)) != nil {
			t.Error(err, ring.Altered())
		}
	})
}

// A symmetric key's successor is there before it is used, and the key itself
// as long as what it made may be presented; one that hashed a client's secret
// as long as that is in the database.
func TestSymmetricKeysSucceedOneAnother(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		s := DefaultSchedule()
		if err := ensure(t, store, testSealer(), testNow, ES256); err != nil {
			t.Fatal(err)
		}
		load := func(now time.Time) *Ring {
			t.Helper()
			if err := ensure(t, store, testSealer(), now, ES256); err != nil {
				t.Fatal(err)
			}
			ring, err := Load(t.Context(), store, testSealer(), now)
			if err != nil {
				t.Fatal(err)
			}
			return ring
		}
		first := load(testNow)
		old := make(map[string]string)
		macs := make(map[string][32]byte)
		for _, purpose := range secretPurposes() {
			old[purpose], macs[purpose] = first.MAC(purpose, testClaims)
		}
		client := storage.Client{ID: "c", CreatedAt: testNow, UpdatedAt: testNow}
		secret := storage.ClientSecret{ID: "s", ClientID: "c", Scheme: "hmac-sha256", KeyID: old[PurposeClientSecret], Hash: []byte{1}, CreatedAt: testNow}
		err := store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return errors.Join(tx.CreateClient(ctx, client), tx.CreateClientSecret(ctx, secret))
		})
		if err != nil {
			t.Fatal(err)
		}
		due := testNow.Add(s.Secret)
		load(due) // makes the successors
		for _, purpose := range []string{PurposeClientSecret, PurposeGrant, PurposeDevice, PurposeFlow} {
			if got := load(due.Add(s.PublishAhead - time.Minute)).CurrentID(purpose); got != old[purpose] {
				t.Errorf("%s: the successor is used before every replica has it", purpose)
			}
			if got := load(due.Add(s.PublishAhead)).CurrentID(purpose); got == old[purpose] {
				t.Errorf("%s: the successor is not used in time", purpose)
			}
		}
		verifies := func(purpose string, now time.Time) bool {
			mac := macs[purpose]
			return load(now).VerifyMAC(purpose, old[purpose], testClaims, mac[:])
		}
		ends := due.Add(s.PublishAhead)
		for _, purpose := range []string{PurposeFlow, PurposeGrant, PurposeDevice} {
			end := ends.Add(KeptFor(purpose))
			if !verifies(purpose, end.Add(-time.Minute)) || verifies(purpose, end.Add(time.Minute)) {
				t.Errorf("%s: an old key does not verify for %v, and no longer", purpose, KeptFor(purpose))
			}
			if _, ok := load(end.Add(time.Minute)).MACWith(purpose, old[purpose], nil); ok {
				t.Errorf("%s: still there", purpose)
			}
		}
		for _, later := range []time.Time{testNow.AddDate(2, 0, 0), testNow.AddDate(5, 0, 0)} {
			if id, mac := load(later).MAC(PurposePairwise, testClaims); id != old[PurposePairwise] || mac != macs[PurposePairwise] {
				t.Errorf("%v later people have other subs", later.Sub(testNow))
			}
		}
		if !verifies(PurposeClientSecret, testNow.AddDate(5, 0, 0)) {
			t.Error("a client's secret of five years ago is not accepted any more")
		}
		err = store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.DeleteClient(ctx, "c") })
		if err != nil {
			t.Fatal(err)
		}
		if verifies(PurposeClientSecret, testNow.AddDate(5, 0, 1)) {
			t.Error("the key of a secret that is gone is kept")
		}
	})
}

// An operator's rotation waits until everybody may have the next keys, unless
// that was always so; nothing signed before is refused.
func TestRotate(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		k := &Keeper{Store: store, Sealer: testSealer(), Schedule: DefaultSchedule(), Algorithms: []string{ES256, EdDSA}}
		if err := ensure(t, store, testSealer(), testNow, k.Algorithms...); err != nil {
			t.Fatal(err)
		}
		load := func(now time.Time) *Ring {
			t.Helper()
			ring, err := Load(t.Context(), store, testSealer(), now)
			if err != nil {
				t.Fatal(err)
			}
			return ring
		}
		now := testNow
		for round, wait := range []time.Duration{0, k.Schedule.PublishAhead, k.Schedule.PublishAhead} {
			if round > 0 {
				var early *TooEarlyError
				if err := k.Rotate(t.Context(), now.Add(wait-time.Millisecond)); !errors.As(err, &early) || !early.Ready.Equal(now.Add(wait)) {
					t.Errorf("round %d, too early: %v", round, err)
				}
			}
			now = now.Add(wait)
			before := load(now)
			token, err := before.Sign(ES256, typAccess, testClaims, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Rotate(t.Context(), now); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			after := load(now)
			for _, place := range slots(k.Algorithms) {
				was, is := before.signing(place, now), after.signing(place, now)
				if was.row.KID == is.row.KID || !slices.Contains(kidsIn(t, before), is.row.KID) {
					t.Errorf("round %d, %s: not the next key signs", round, place)
				}
				// A replica that has not heard of it yet, and one whose clock is behind.
				if stale := before.signing(place, now); !slices.Contains(kidsIn(t, after), stale.row.KID) {
					t.Errorf("round %d, %s: what a replica signs with a moment later is gone", round, place)
				}
				if behind := now.Add(-2 * time.Second); load(behind).signing(place, behind) == nil {
					t.Errorf("round %d, %s: a replica two seconds behind cannot sign", round, place)
				}
			}
			if _, _, err := after.Verify(token, typAccess); err != nil {
				t.Errorf("round %d: a token signed before: %v", round, err)
			}
		}
		got := states(t, store, now)
		for _, place := range slots(k.Algorithms) {
			if got[place.String()+" active"] != 1 || got[place.String()+" next"] != 1 {
				t.Errorf("%s: %v", place, got)
			}
		}
	})
}

func TestCompromise(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		k := &Keeper{Store: store, Sealer: testSealer(), Schedule: DefaultSchedule(), Algorithms: []string{ES256}}
		if err := ensure(t, store, testSealer(), testNow, ES256); err != nil {
			t.Fatal(err)
		}
		now := testNow.Add(time.Hour)
		load := func(now time.Time) *Ring {
			t.Helper()
			ring, err := Load(t.Context(), store, testSealer(), now)
			if err != nil || ring.Altered() != nil {
				t.Fatal(err, ring.Altered())
			}
			return ring
		}
		place := slot{PurposeToken, ES256}
		if err := k.Compromise(t.Context(), "nobody", now); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("an unknown key: %v", err)
		}
		// The one that signs: the next does at once, on slow clocks too.
		before := load(now)
		token, err := before.Sign(ES256, typAccess, testClaims, now)
		if err != nil {
			t.Fatal(err)
		}
		bad := before.signing(place, now).row
		if err := k.Compromise(t.Context(), bad.KID, now); err != nil {
			t.Fatal(err)
		}
		after := load(now)
		if is := after.signing(place, now.Add(-2*time.Second)); is == nil || is.row.KID == bad.KID || !slices.Contains(kidsIn(t, before), is.row.KID) {
			t.Error("the next key does not sign at once")
		}
		if slices.Contains(kidsIn(t, after), bad.KID) {
			t.Error("it is still published")
		}
		if _, _, err := after.Verify(token, typAccess); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("its tokens are accepted: %v", err)
		}
		if _, err := load(bad.RemoveAt.Add(time.Hour)).VerifyHint(token, typAccess); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("its tokens are accepted as hints: %v", err)
		}
		if row := rowsOf(t, store).key(t, bad.KID); len(row.SealedPrivate)+len(row.WrappedDEK) != 0 {
			t.Error("its private half is not destroyed")
		}
		unchanged := version(t, store)
		if err := k.Compromise(t.Context(), bad.KID, now.Add(time.Minute)); err != nil || version(t, store) != unchanged {
			t.Errorf("again: %v", err)
		}
		// The next one: another is made, and what signs goes on until it may.
		i := slices.IndexFunc(rowsOf(t, store).keys, func(k storage.SigningKey) bool { return slotOf(k) == place && state(k, now) == StateNext })
		next := rowsOf(t, store).keys[i]
		late := next.SignFrom.Add(-time.Minute)
		if err := k.Compromise(t.Context(), next.KID, late); err != nil {
			t.Fatal(err)
		}
		if got := states(t, store, late); got["ES256 token active"] != 1 || got["ES256 token next"] != 1 || got["ES256 token compromised"] != 2 {
			t.Errorf("%v", got)
		}
		for _, at := range []time.Time{late, next.SignFrom, late.Add(k.Schedule.PublishAhead - 1), late.Add(k.Schedule.PublishAhead)} {
			ring := load(at)
			signer := ring.signing(place, at)
			if signer == nil || signer.row.PublishAt.After(at.Add(-k.Schedule.PublishAhead)) && at.After(late) && signer.row.PublishAt.Equal(late) && at.Before(late.Add(k.Schedule.PublishAhead)) {
				t.Errorf("at %v: %+v", at, signer)
			}
		}
	})
}

// Whoever can write to the database can neither publish a key of their own nor
// let one sign longer: such a row is not used, and nothing starts.
// unauthenticated makes the rows look like those of a release that authenticated
// none of them, and deletes secrets.
func unauthenticated(ctx context.Context, tx storage.Tx, inv inventory, secrets ...string) error {
	var faults []error
	for _, id := range secrets {
		faults = append(faults, tx.DeleteSealedSecret(ctx, id))
	}
	for _, k := range inv.keys {
		k.MAC = nil
		faults = append(faults, tx.UpdateSigningKey(ctx, k))
	}
	for _, s := range slices.Concat(inv.secrets, inv.canary, inv.rows) {
		if s.MAC = nil; !slices.Contains(secrets, s.ID) {
			faults = append(faults, tx.UpdateSealedSecret(ctx, s))
		}
	}
	return errors.Join(faults...)
}

func TestAlteredRowsAreNotUsed(t *testing.T) {
	stranger, err := func() (storage.SigningKey, error) {
		k := storage.SigningKey{Alg: ES256, Purpose: PurposeToken, PublishAt: testNow, SignFrom: testNow.Add(-time.Minute), SignUntil: testNow.Add(time.Hour), RemoveAt: testNow.Add(2 * time.Hour), CreatedAt: testNow}
		err := newSigningKey(context.Background(), &k, &Sealer{Primary: testKEK(9)})
		destroyPrivate(&k)
		k.MAC = bytes.Repeat([]byte{7}, 32)
		return k, err
	}()
	if err != nil {
		t.Fatal(err)
	}
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		for _, tt := range []struct {
			name    string
			alter   func(ctx context.Context, tx storage.Tx, inv inventory) error
			skipped func(inv inventory) string // a kid that is not published
		}{
			{"a key of theirs", func(ctx context.Context, tx storage.Tx, _ inventory) error { return tx.CreateSigningKey(ctx, stranger) },
				func(inventory) string { return stranger.KID }},
			{"without a MAC", func(ctx context.Context, tx storage.Tx, _ inventory) error {
				k := stranger
				k.MAC = nil
				return tx.CreateSigningKey(ctx, k)
			}, func(inventory) string { return stranger.KID }},
			{"the MAC of another row", func(ctx context.Context, tx storage.Tx, inv inventory) error {
				k := stranger
				k.MAC = inv.keys[0].MAC
				return tx.CreateSigningKey(ctx, k)
			}, func(inventory) string { return stranger.KID }},
			{"signs longer", func(ctx context.Context, tx storage.Tx, inv inventory) error {
				k := inv.keys[0]
				k.SignUntil = k.SignUntil.Add(time.Hour)
				return tx.UpdateSigningKey(ctx, k)
			}, func(inv inventory) string { return inv.keys[0].KID }},
			{"a symmetric key is kept longer", func(ctx context.Context, tx storage.Tx, inv inventory) error {
				s := inv.secrets[0]
				s.RemoveAt = testNow.AddDate(9, 0, 0)
				return tx.UpdateSealedSecret(ctx, s)
			}, nil},
			{"what authenticates rows is gone", func(ctx context.Context, tx storage.Tx, inv inventory) error {
				return tx.DeleteSealedSecret(ctx, inv.rows[0].ID)
			}, nil},
			{"and with it every MAC", func(ctx context.Context, tx storage.Tx, inv inventory) error {
				return unauthenticated(ctx, tx, inv, inv.rows[0].ID)
			}, nil},
			{"and the canary", func(ctx context.Context, tx storage.Tx, inv inventory) error {
				return unauthenticated(ctx, tx, inv, inv.rows[0].ID, inv.canary[0].ID)
			}, nil},
		} {
			store := open()
			empty(t, store)
			if err := ensure(t, store, testSealer(), testNow, ES256); err != nil {
				t.Fatal(err)
			}
			have := rowsOf(t, store)
			if err := store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tt.alter(ctx, tx, have) }); err != nil {
				t.Fatal(err)
			}
			before := version(t, store)
			if err := ensure(t, store, testSealer(), testNow, ES256); !errors.Is(err, ErrAltered) {
				t.Errorf("%s: starts: %v", tt.name, err)
			}
			if version(t, store) != before {
				t.Errorf("%s: something was written", tt.name)
			}
			ring, err := Load(t.Context(), store, testSealer(), testNow)
			if tt.skipped == nil {
				if err == nil {
					t.Errorf("%s: loaded", tt.name)
				}
				continue
			}
			if err != nil || !errors.Is(ring.Altered(), ErrAltered) {
				t.Errorf("%s: %v, %v", tt.name, err, ring.Altered())
				continue
			}
			kid := tt.skipped(have)
			if _, _, known := ring.PublicKey(kid); known || slices.Contains(kidsIn(t, ring), kid) {
				t.Errorf("%s: it is published", tt.name)
			}
			for place := range ring.signers {
				if k := ring.signing(place, testNow); k != nil && k.row.KID == kid {
					t.Errorf("%s: it signs", tt.name)
				}
			}
		}
	})
}

// After a rewrap the previous key-encryption key opens nothing; during one, as
// after an interruption, both are needed and nothing is lost.
func TestRewrap(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		old, fresh := testKEK(1), testKEK(2)
		if err := ensure(t, store, &Sealer{Primary: old}, testNow, ES256); err != nil {
			t.Fatal(err)
		}
		both := &Sealer{Primary: fresh, Previous: old}
		before, err := Load(t.Context(), store, &Sealer{Primary: old}, testNow)
		if err != nil {
			t.Fatal(err)
		}
		// While it is being changed, new rows are such as every replica can read.
		turn := testNow.Add(DefaultSchedule().Sign)
		if err := ensure(t, store, both, turn, ES256); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(t.Context(), store, &Sealer{Primary: old}, turn); err != nil {
			t.Errorf("a replica that has only the old one: %v", err)
		}
		k := &Keeper{Store: store, Sealer: both, Schedule: DefaultSchedule(), Algorithms: []string{ES256}}
		ctx, interrupt := context.WithCancel(t.Context())
		n, err := k.Rewrap(ctx, func(done, of int) {
			if done == 3 {
				interrupt()
			}
		})
		if err == nil || n != 3 {
			t.Errorf("interrupted after %d: %v", n, err)
		}
		for _, alone := range []KEK{old, fresh} {
			if err := ensure(t, store, &Sealer{Primary: alone}, turn, ES256); !errors.Is(err, ErrWrongKEK) {
				t.Errorf("half-way, with one of them: %v", err)
			}
		}
		if _, err := Load(t.Context(), store, both, turn); err != nil {
			t.Errorf("half-way, with both: %v", err)
		}
		// It goes on where it was, several at once, while keys are being made.
		counts := make([]int, 4)
		last := 0
		var wg sync.WaitGroup
		for i := range counts {
			wg.Go(func() {
				worker := *k
				var err error
				if counts[i], err = worker.Rewrap(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := ensure(t, store, both, turn.Add(DefaultSchedule().Sign), ES256); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if last, err = k.Rewrap(t.Context(), nil); err != nil {
			t.Error(err)
		}
		sum := n + last
		for _, c := range counts {
			sum += c
		}
		if sum == 0 {
			t.Error("nothing was rewrapped")
		}
		if again, err := k.Rewrap(t.Context(), nil); err != nil || again != 0 {
			t.Errorf("nothing left, but %d: %v", again, err)
		}
		now := turn.Add(DefaultSchedule().Sign)
		after, err := Load(t.Context(), store, &Sealer{Primary: fresh}, now)
		if err != nil || after.Altered() != nil {
			t.Fatal(err, after.Altered())
		}
		id, mac := before.MAC(PurposeGrant, testClaims)
		if !after.VerifyMAC(PurposeGrant, id, testClaims, mac[:]) {
			t.Error("another key than before")
		}
		wasID, was := before.MAC(PurposePairwise, testClaims)
		if isID, is := after.MAC(PurposePairwise, testClaims); isID != wasID || is != was {
			t.Error("people have other pairwise subs")
		}
		if err := ensure(t, store, &Sealer{Primary: old}, now, ES256); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("the old one is still accepted: %v", err)
		}
		have, err := takeInventory(t.Context(), store, &Sealer{Primary: fresh})
		if err != nil {
			t.Fatal(err)
		}
		ids := make(map[string]bool)
		for _, k := range have.keys {
			if len(k.SealedPrivate) > 0 {
				ids[k.KEKID] = true
			}
		}
		if !maps.Equal(ids, map[string]bool{fresh.ID(): true}) {
			t.Errorf("wrapped by %v", fmt.Sprint(ids))
		}
	})
}
