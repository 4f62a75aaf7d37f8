package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const racers = 64

// race calls fn from many goroutines at once and returns their errors.
func race(fn func(i int) error) []error {
	errs := make([]error, racers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWinner wants exactly one success; everybody else gets the given error.
func oneWinner(t *testing.T, errs []error, losers error) {
	t.Helper()
	winners := 0
	for _, err := range errs {
		switch {
		case err == nil:
			winners++
		case !errors.Is(err, losers):
			t.Errorf("error = %v, want %v", err, losers)
		}
	}
	if winners != 1 {
		t.Errorf("%d winners, want 1", winners)
	}
}

func noErrors(t *testing.T, errs []error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func raceUseOnce(t *testing.T, s storage.Store) {
	for round := range 50 {
		// In odd rounds the value was used before, and that has expired.
		now := noon
		if round%2 == 1 {
			now = noon.Add(time.Hour)
		}
		value := storage.OneTime{Kind: "jti", KeyHash: number(round / 2), CreatedAt: now, ExpiresAt: now.Add(time.Minute)}
		oneWinner(t, race(func(int) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.UseOnce(ctx, value, now) })
		}), storage.ErrConsumed)
	}
}

func raceCreateClient(t *testing.T, s storage.Store) {
	oneWinner(t, race(func(i int) error {
		c := testClient("c")
		c.Secrets = []storage.ClientSecret{testSecret(strconv.Itoa(i), "c")}
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.CreateClient(ctx, c) })
	}), storage.ErrExists)
	c, err := s.Client(t.Context(), "c")
	if err != nil || len(c.Secrets) != 1 {
		t.Errorf("%d secrets, %v; want the winner's one", len(c.Secrets), err)
	}
}

func raceCreateUser(t *testing.T, s storage.Store) {
	oneWinner(t, race(func(i int) error {
		u := testUser("u"+strconv.Itoa(i), "ann")
		u.EmailKey = strconv.Itoa(i)
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.CreateUser(ctx, u) })
	}), storage.ErrExists)
}

func raceSecretRotation(t *testing.T, s storage.Store) {
	createClient(t, s, testClient("c"))
	noErrors(t, race(func(i int) error {
		secret := testSecret(strconv.Itoa(i), "c")
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return errors.Join(
				tx.CreateClientSecret(ctx, secret),
				tx.ExpireClientSecrets(ctx, "c", secret.ID, noon.Add(time.Hour), noon),
			)
		})
	}))
	c, err := s.Client(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	forever := 0
	for _, secret := range c.Secrets {
		if secret.ExpiresAt.IsZero() {
			forever++
		}
	}
	if forever != 1 || len(c.Secrets) != racers {
		t.Errorf("%d of %d secrets without end, want 1 of %d", forever, len(c.Secrets), racers)
	}
}

func raceRevocations(t *testing.T, s storage.Store) {
	const each = 4
	keys := make([]storage.RevocationKey, 0, racers*each)
	for i := range racers * each {
		keys = append(keys, storage.RevocationKey{Kind: "jti", Hash: number(i)})
	}
	// Whoever watches must never see an entry before one with a lower number:
	// commit order is sequence order.
	watch, stop := context.WithCancel(t.Context())
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for watch.Err() == nil {
			found, err := s.Revocations(context.WithoutCancel(watch), keys[:64], noon)
			if err != nil {
				t.Error(err)
				return
			}
			low, err := s.Revocations(context.WithoutCancel(watch), keys, noon)
			if err != nil {
				t.Error(err)
				return
			}
			var last int64
			for _, r := range found {
				last = max(last, r.Seq)
			}
			seen := 0
			for _, r := range low {
				if r.Seq <= last {
					seen++
				}
			}
			if int64(seen) != last {
				t.Errorf("saw entry %d, but only %d of those up to it", last, seen)
				return
			}
		}
	})
	var rolledBack atomic.Int64
	noErrors(t, race(func(i int) error {
		for n := range each {
			err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				_, err := tx.AppendRevocation(ctx, revocation("jti", string(number(i*each+n)), "block", noon.Add(time.Hour)))
				return err
			})
			if err != nil {
				return err
			}
			err = s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				_, err := tx.AppendRevocation(ctx, revocation("jti", "undone", "block", noon.Add(time.Hour)))
				return errors.Join(err, errRollback)
			})
			if !errors.Is(err, errRollback) {
				return err
			}
			rolledBack.Add(1)
		}
		return nil
	}))
	stop()
	watcher.Wait()

	log, err := s.Revocations(t.Context(), keys, noon)
	if err != nil || len(log) != len(keys) {
		t.Fatalf("%d entries, %v; want %d", len(log), err, len(keys))
	}
	slices.SortFunc(log, func(a, b storage.Revocation) int { return int(a.Seq - b.Seq) })
	var prev []byte
	for i, r := range log {
		if r.Seq != int64(i+1) {
			t.Fatalf("entry %d has number %d: the sequence has a gap", i+1, r.Seq)
		}
		if !bytes.Equal(r.Chain, r.ChainAfter(prev)) {
			t.Fatalf("the chain is broken at %d", r.Seq)
		}
		prev = r.Chain
	}
}

func raceRegistryLock(t *testing.T, s storage.Store) {
	before, err := s.RegistryVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	noErrors(t, race(func(int) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			if err := tx.LockRegistry(ctx); err != nil {
				return err
			}
			n := 0
			switch v, err := tx.Setting(ctx, "counter"); {
			case err == nil:
				if n, err = strconv.Atoi(v); err != nil {
					return err
				}
			case !errors.Is(err, storage.ErrNotFound):
				return err
			}
			return tx.SetSetting(ctx, "counter", strconv.Itoa(n+1))
		})
	}))
	got, err := s.Setting(t.Context(), "counter")
	same(t, "counter", got, err, strconv.Itoa(racers))
	after, err := s.RegistryVersion(t.Context())
	same(t, "registry version", after, err, before+racers)
}

func raceSomeFail(t *testing.T, s storage.Store) {
	for range 5 {
		errs := race(func(i int) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			return s.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
				if err := tx.SetSetting(ctx, strconv.Itoa(i), "v"); err != nil {
					return err
				}
				switch i % 4 {
				case 1:
					return errRollback
				case 2:
					return tx.GrantUserRole(ctx, "nobody", "nothing", noon)
				case 3:
					cancel()
					_, err := tx.Setting(ctx, "x")
					return err
				}
				return nil
			})
		})
		for i, err := range errs {
			wantErr(t, err, []error{nil, errRollback, storage.ErrReference, context.Canceled}[i%4])
			_, err = s.Setting(t.Context(), strconv.Itoa(i))
			if i%4 == 0 && err != nil {
				t.Errorf("update %d was answered with success, but: %v", i, err)
			}
			if i%4 != 0 && !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("update %d failed, but its row is there (%v)", i, err)
			}
		}
	}
}

func raceReadYourWrites(t *testing.T, s storage.Store) {
	noErrors(t, race(func(i int) error {
		name := strconv.Itoa(i)
		for n := range 10 {
			value := strconv.Itoa(n)
			err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, name, value) })
			if err != nil {
				return err
			}
			if got, err := s.Setting(t.Context(), name); err != nil || got != value {
				return fmt.Errorf("read %q, %v after %q was written", got, err, value)
			}
		}
		return nil
	}))
}

// Both locks at once, in their order, while others take one of them.
func raceBothLocks(t *testing.T, s storage.Store) {
	noErrors(t, race(func(i int) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			if i%3 != 0 {
				if err := tx.LockRegistry(ctx); err != nil {
					return err
				}
			}
			if i%3 == 1 {
				return nil
			}
			_, err := tx.AppendRevocation(ctx, revocation("jti", string(number(i)), "block", noon.Add(time.Hour)))
			return err
		})
	}))
}

// Deadlocks, which two users changed in opposite orders make, are tried again.
func raceDeadlock(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("a", "ann"))
	createUser(t, s, testUser("b", "bob"))
	noErrors(t, race(func(i int) error {
		if i >= 4 {
			return nil // each deadlock takes PostgreSQL a second to notice
		}
		order := []string{"a", "b"}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			for _, id := range order {
				if err := tx.SetUserEnabled(ctx, id, false, noon); err != nil {
					return err
				}
			}
			return nil
		})
	}))
}
