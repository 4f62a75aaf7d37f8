package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

// onEachEngine runs test on a new database of each kind. open opens it, each
// time as another process would.
func onEachEngine(t *testing.T, test func(t *testing.T, open func() storage.Store)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "signet.db")
		db, err := sqlite.DB(path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := migrations.Up(t.Context(), db, migrations.SQLite, nil); err != nil {
			t.Fatal(err)
		}
		test(t, func() storage.Store {
			store, err := sqlite.Open(t.Context(), path, sqlite.Options{Readers: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			return store
		})
	})
	t.Run("postgres", func(t *testing.T) {
		url := storagetest.Postgres(t)
		test(t, func() storage.Store {
			store, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 2})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			return store
		})
	})
}

func ensure(t *testing.T, store storage.Store, sealer *Sealer, now time.Time, algs ...string) error {
	t.Helper()
	return Ensure(t.Context(), store, sealer, now, DefaultSchedule(), algs)
}

// states counts the keys by slot and state, as in "ES256 token active".
func states(t *testing.T, store storage.Store, now time.Time) map[string]int {
	t.Helper()
	list, err := List(t.Context(), store, now)
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, k := range list {
		count[slot{k.Purpose, k.Alg}.String()+" "+string(k.State)]++
	}
	return count
}

func version(t *testing.T, store storage.Store) int64 {
	t.Helper()
	v, err := store.RegistryVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func secretRows(t *testing.T, store storage.Store) int {
	t.Helper()
	n := 0
	for _, purpose := range sealedPurposes() {
		rows, err := store.SealedSecrets(t.Context(), purpose)
		if err != nil {
			t.Fatal(err)
		}
		n += len(rows)
	}
	return n
}

func TestFirstStartsAtOnceMakeOneSetOfKeys(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		const processes = 16
		algs := []string{ES256, EdDSA} // quick to make, so that the race is close
		var rings [processes]*Ring
		stores := make([]storage.Store, processes)
		for i := range stores {
			stores[i] = open()
		}
		var wg sync.WaitGroup
		for i, store := range stores {
			wg.Go(func() {
				now := testNow.Add(time.Duration(i-processes/2) * 250 * time.Millisecond) // clocks differ
				if err := ensure(t, store, testSealer(), now, algs...); err != nil {
					t.Error(err)
					return
				}
				ring, err := Load(t.Context(), store, testSealer(), now)
				if err != nil {
					t.Error(err)
					return
				}
				rings[i] = ring
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		got := states(t, stores[0], testNow)
		for _, s := range slots(algs) {
			if got[s.String()+" active"] != 1 || got[s.String()+" next"] != 1 {
				t.Errorf("%s: %v", s, got)
			}
		}
		if len(got) != 2*len(slots(algs)) {
			t.Errorf("other keys: %v", got)
		}
		if n := secretRows(t, stores[0]); n != len(sealedPurposes()) {
			t.Errorf("%d sealed secrets", n)
		}
		// What one signs, each other accepts.
		for i, ring := range rings {
			for _, alg := range algs {
				token, err := ring.Sign(alg, typAccess, testClaims, testNow)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := rings[(i+1)%processes].Verify(token, typAccess); err != nil {
					t.Errorf("%s: %v", alg, err)
				}
			}
			id, mac := ring.MAC(PurposeClientSecret, testClaims)
			if !rings[(i+1)%processes].VerifyMAC(PurposeClientSecret, id, testClaims, mac[:]) {
				t.Error("MAC keys differ")
			}
		}
	})
}

func TestEveryAlgorithmSurvivesTheDatabase(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		if err := ensure(t, open(), testSealer(), testNow, Algorithms()...); err != nil {
			t.Fatal(err)
		}
		ring, err := Load(t.Context(), open(), testSealer(), testNow)
		if err != nil {
			t.Fatal(err)
		}
		for _, alg := range Algorithms() {
			token, err := ring.Sign(alg, typAccess, testClaims, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if claims, _, err := ring.Verify(token, typAccess); err != nil || !bytes.Equal(claims, testClaims) {
				t.Errorf("%s: %s, %v", alg, claims, err)
			}
		}
	})
}

func TestLaterStartWritesNothing(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		if err := ensure(t, store, testSealer(), testNow, ES256, EdDSA); err != nil {
			t.Fatal(err)
		}
		before := version(t, store)
		for _, days := range []int{0, 1, 29} { // nothing is due
			if err := ensure(t, store, testSealer(), testNow.AddDate(0, 0, days), ES256, EdDSA); err != nil {
				t.Fatal(err)
			}
		}
		if version(t, store) != before {
			t.Error("the registry changed")
		}
	})
}

func TestEnsureMakesOnlyWhatIsMissing(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		for _, tt := range []struct {
			name string
			now  time.Time
			algs []string
			want map[string]int
		}{
			{"no algorithm: MAC keys only", testNow, nil, map[string]int{}},
			{"one algorithm", testNow, []string{ES256}, map[string]int{
				"ES256 token active": 1, "ES256 token next": 1, "ES256 feed active": 1, "ES256 feed next": 1}},
			{"another joins", testNow.Add(time.Hour), []string{ES256, EdDSA}, map[string]int{
				"ES256 token active": 1, "ES256 token next": 1, "ES256 feed active": 1, "ES256 feed next": 1,
				"EdDSA token active": 1, "EdDSA token next": 1}},
			{"switched off for a year", testNow.AddDate(1, 0, 0), []string{ES256}, map[string]int{
				"ES256 token removed": 2, "ES256 token active": 1, "ES256 token next": 1,
				"ES256 feed removed": 2, "ES256 feed active": 1, "ES256 feed next": 1, "EdDSA token removed": 2}},
		} {
			if err := ensure(t, store, testSealer(), tt.now, tt.algs...); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if got := states(t, store, tt.now); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
			}
			want := len(sealedPurposes())
			if tt.now.Year() > testNow.Year() {
				want += len(secretPurposes()) - 1 // their successors; people keep their pairwise subs
			}
			if n := secretRows(t, store); n != want {
				t.Errorf("%s: %d sealed secrets, want %d", tt.name, n, want)
			}
		}
	})
}

// older writes what the release before authenticated rows left behind.
func older(t *testing.T, store storage.Store, change func(*firstRows)) {
	t.Helper()
	made, err := newRows()
	if err != nil {
		t.Fatal(err)
	}
	active, next := testRows(t).of(ES256)
	rows := firstRows{keys: []storage.SigningKey{*active, *next}}
	for _, s := range made.secrets {
		if s.Purpose != purposeRows {
			rows.secrets = append(rows.secrets, s)
		}
	}
	for i := range rows.keys {
		rows.keys[i].MAC = nil
	}
	for i := range rows.secrets {
		rows.secrets[i].MAC = nil
		if rows.secrets[i].Purpose == purposeCanary {
			rows.secrets[i] = canaryOfBefore(t, rows.secrets[i])
		}
	}
	if change != nil {
		change(&rows)
	}
	err = store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		var faults []error
		for _, k := range rows.keys {
			faults = append(faults, tx.CreateSigningKey(ctx, k))
		}
		for _, s := range rows.secrets {
			faults = append(faults, tx.CreateSealedSecret(ctx, s))
		}
		return errors.Join(faults...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// canaryOfBefore returns the row with the text that does not say that rows are
// authenticated.
func canaryOfBefore(t *testing.T, s storage.SealedSecret) storage.SealedSecret {
	t.Helper()
	sealed, err := testSealer().Seal(t.Context(), sealedSecretIdentity(s), []byte(canaryBefore))
	if err != nil {
		t.Fatal(err)
	}
	s.Sealed, s.WrappedDEK, s.KEKID = sealed.Ciphertext, sealed.WrappedDEK, sealed.KEKID
	return s
}

// A database of the release before gets the feed's keys and MACs, once; its
// keys stay. Any number of processes may do it at once.
func TestOlderDatabaseIsAdopted(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		older(t, store, nil)
		if _, err := Load(t.Context(), store, testSealer(), testNow); err == nil {
			t.Error("loaded before it was adopted")
		}
		var wg sync.WaitGroup
		for range 8 {
			store := open()
			wg.Go(func() {
				if err := ensure(t, store, testSealer(), testNow, ES256); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := map[string]int{"ES256 token active": 1, "ES256 token next": 1, "ES256 feed active": 1, "ES256 feed next": 1}
		if got := states(t, store, testNow); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v", got)
		}
		ring, err := Load(t.Context(), store, testSealer(), testNow)
		if err != nil || ring.Altered() != nil {
			t.Fatal(err, ring.Altered())
		}
		if _, err := ring.SignFeed("revocation-heartbeat+jwt", testClaims, testNow); err != nil {
			t.Error(err)
		}
		token, err := testRing(t).Sign(ES256, typAccess, testClaims, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ring.Verify(token, typAccess); err != nil {
			t.Errorf("what was signed before: %v", err)
		}
		before := version(t, store)
		if err := ensure(t, store, testSealer(), testNow, ES256); err != nil || version(t, store) != before {
			t.Errorf("adopted again: %v", err)
		}

		// An earlier build authenticated rows and had the canary of before.
		have := rowsOf(t, store)
		err = store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.UpdateSealedSecret(ctx, canaryOfBefore(t, have.canary[0]))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := ensure(t, store, testSealer(), testNow, ES256); err != nil {
			t.Fatal(err)
		}
		// Nothing is adopted again.
		err = store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			have = rowsOf(t, tx)
			return unauthenticated(ctx, tx, have, have.rows[0].ID)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := ensure(t, store, testSealer(), testNow, ES256); !errors.Is(err, ErrAltered) {
			t.Errorf("adopted a second time: %v", err)
		}
	})
}

// Adoption lets nothing in that was not made with the key-encryption key, and
// taking away what authenticates rows does not bring it back.
func TestAdoptionAdmitsNoStrangersKey(t *testing.T) {
	stranger := func(t *testing.T) storage.SigningKey {
		k := storage.SigningKey{Alg: ES256, Purpose: PurposeToken, PublishAt: testNow, SignFrom: testNow, SignUntil: testNow.Add(time.Hour), RemoveAt: testNow.Add(2 * time.Hour), CreatedAt: testNow}
		if err := newSigningKey(t.Context(), &k, &Sealer{Primary: testKEK(9)}); err != nil {
			t.Fatal(err)
		}
		return k
	}
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		for _, tt := range []struct {
			name   string
			change func(*firstRows)
		}{
			{"public half only", func(rows *firstRows) {
				k := stranger(t)
				destroyPrivate(&k)
				rows.keys = append(rows.keys, k)
			}},
			{"sealed with another key under our key's name", func(rows *firstRows) {
				k := stranger(t)
				k.KEKID = testKEK(1).ID()
				rows.keys = append(rows.keys, k)
			}},
			{"a MAC, but nothing to check it with", func(rows *firstRows) { rows.keys[0].MAC = []byte{1} }},
			{"a secret of theirs", func(rows *firstRows) { rows.secrets[0].Sealed = rows.secrets[1].Sealed }},
		} {
			store := open()
			clear := func() {
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
			clear()
			older(t, store, tt.change)
			before := version(t, store)
			if err := ensure(t, store, testSealer(), testNow, ES256); err == nil {
				t.Errorf("%s: admitted", tt.name)
			}
			if version(t, store) != before {
				t.Errorf("%s: something was written", tt.name)
			}
		}
	})
}

func TestWrongKEKStartsNothingAndMakesNothing(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		right, wrong := testKEK(1), testKEK(2)
		if err := ensure(t, store, &Sealer{Primary: right}, testNow, ES256); err != nil {
			t.Fatal(err)
		}
		before := version(t, store)
		for _, algs := range [][]string{nil, {ES256}, {ES256, EdDSA}} {
			err := ensure(t, store, &Sealer{Primary: wrong}, testNow, algs...)
			if !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), right.ID()) || !strings.Contains(err.Error(), wrong.ID()) {
				t.Errorf("%v: got %v", algs, err)
			}
			// Nor when every key is over and new ones are due.
			if err := ensure(t, store, &Sealer{Primary: wrong}, testNow.AddDate(1, 0, 0), algs...); !errors.Is(err, ErrWrongKEK) {
				t.Errorf("a year later, %v: got %v", algs, err)
			}
		}
		if _, err := Load(t.Context(), store, &Sealer{Primary: wrong}, testNow); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("load: %v", err)
		}
		if version(t, store) != before {
			t.Error("something was made")
		}

		changing := &Sealer{Primary: wrong, Previous: right}
		if err := ensure(t, store, changing, testNow, ES256, EdDSA); err != nil {
			t.Errorf("with the right one as the previous: %v", err)
		}
		if _, err := Load(t.Context(), store, changing, testNow); err != nil {
			t.Errorf("load with the right one as the previous: %v", err)
		}
	})
}

func TestCanaryThatDoesNotOpenStopsTheStart(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		// The id is the right one, the key behind it is not.
		canary := storage.SealedSecret{Purpose: purposeCanary, UseFrom: testNow, CreatedAt: testNow}
		if err := newSealedSecret(t.Context(), &canary, testSealer()); err != nil {
			t.Fatal(err)
		}
		canary.Sealed = bytes.Clone(canary.Sealed)
		canary.Sealed[len(canary.Sealed)-1] ^= 1
		err := store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateSealedSecret(ctx, canary)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := ensure(t, store, testSealer(), testNow, ES256); err == nil {
			t.Error("started")
		}
		if got := states(t, store, testNow); len(got) != 0 {
			t.Errorf("made %v", got)
		}
	})
}

func TestFirstStartsWithDifferentKEKsLeaveOneInCharge(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		const processes = 8
		var faults [processes]error
		stores := make([]storage.Store, processes)
		for i := range stores {
			stores[i] = open()
		}
		var wg sync.WaitGroup
		for i, store := range stores {
			wg.Go(func() {
				faults[i] = ensure(t, store, &Sealer{Primary: testKEK(byte(1 + i%2))}, testNow, ES256)
			})
		}
		wg.Wait()
		won := [2]int{}
		for i, err := range faults {
			switch {
			case err == nil:
				won[i%2]++
			case !errors.Is(err, ErrWrongKEK):
				t.Error(err)
			}
		}
		if won != [2]int{processes / 2, 0} && won != [2]int{0, processes / 2} {
			t.Errorf("started with either key: %v", won)
		}
		if got := states(t, stores[0], testNow); got["ES256 token active"] != 1 || got["ES256 token next"] != 1 || len(got) != 4 {
			t.Errorf("keys: %v", got)
		}
	})
}

func TestListNeedsNoKEKAndFollowsTheSchedule(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func() storage.Store) {
		store := open()
		if err := ensure(t, store, testSealer(), testNow, ES256); err != nil {
			t.Fatal(err)
		}
		list, err := List(t.Context(), store, testNow)
		if err != nil || len(list) != 4 {
			t.Fatalf("got %v, %v", list, err)
		}
		list = slices.DeleteFunc(list, func(k KeyInfo) bool { return k.Purpose != PurposeToken })
		s := DefaultSchedule()
		active, next := list[0], list[1]
		if active.State != StateActive || !active.SignUntil.Equal(testNow.Add(s.Sign)) || !active.RemoveAt.Equal(active.SignUntil.Add(s.Retire)) {
			t.Errorf("active: %+v", active)
		}
		if next.State != StateNext || next.PublishAt.After(testNow) || !next.SignFrom.Equal(active.SignUntil) || !next.SignUntil.Equal(next.SignFrom.Add(s.Sign)) {
			t.Errorf("next: %+v", next)
		}
	})
}
