package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// ownPair starts a primary and a standby for this test alone.
func ownPair(t testing.TB, opts storagetest.PairOptions) (*storagetest.Pair, string) {
	t.Helper()
	pair, err := storagetest.StartPair(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	})
	address := pair.URL("postgres")
	migrate(t, address)
	return pair, address
}

// must fails the test for an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The primary dies under load and its synchronous standby takes its place;
// another standby joins it. Every success is there afterwards, every failure says "unavailable",
// and nobody reopens anything.
func TestFailover(t *testing.T) {
	pair, address := ownPair(t, storagetest.PairOptions{ServerOptions: storagetest.ServerOptions{NoSync: true}})
	s, err := postgres.Open(t.Context(), address, postgres.Options{})
	must(t, err)
	defer s.Close()

	var successes, failures atomic.Int64
	var kept sync.Map
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("%d-%d", client, n)
				switch err := set(s, context.WithoutCancel(ctx), name, "v"); {
				case err == nil:
					kept.Store(name, true)
					successes.Add(1)
				case errors.Is(err, storage.ErrUnavailable):
					failures.Add(1)
					time.Sleep(10 * time.Millisecond)
				default:
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	more := func(what string, n *atomic.Int64) {
		t.Helper()
		want := n.Load() + 50
		for deadline := time.Now().Add(time.Minute); n.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s for a minute", what)
			}
		}
	}
	more("success", &successes)
	must(t, pair.KillPrimary())
	more("failure", &failures)
	must(t, pair.Promote())
	more("success", &successes)
	must(t, pair.Rejoin())
	more("success", &successes)
	stop()
	clients.Wait()
	kept.Range(func(name, _ any) bool {
		if _, err := s.Setting(t.Context(), name.(string)); err != nil {
			t.Errorf("update %v was answered with success, but: %v", name, err)
		}
		return true
	})
	t.Logf("%d successes, all there; %d failures", successes.Load(), failures.Load())
}

// A commit that the synchronous standby does not confirm is not answered with
// success, and nobody who asks afterwards is told that it happened: an answer
// which rests on it would be lost with the primary. It does not take up the
// connection of those who ask, either.
func TestCommitThatNoStandbyHas(t *testing.T) {
	t.Parallel()
	pair, address := ownPair(t, storagetest.PairOptions{ServerOptions: storagetest.ServerOptions{NoSync: true}})
	s, err := postgres.Open(t.Context(), address, postgres.Options{MaxConns: 1})
	must(t, err)
	defer s.Close()
	must(t, set(s, t.Context(), "before", "v"))
	must(t, pair.PauseReceiving())
	if err := set(s, t.Context(), "meanwhile", "v"); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("a commit that no standby has: %v", err)
	}
	for range 20 { // what the caller left behind has its effect within moments, if it has one
		if v, err := s.Setting(t.Context(), "meanwhile"); !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("it is told: %q, %v", v, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	must(t, pair.Rejoin())
	if v, err := s.Setting(t.Context(), "meanwhile"); err != nil || v != "v" {
		t.Errorf("once a standby has it: %q, %v", v, err)
	}
	must(t, set(s, t.Context(), "after", "v"))
}

// A server that becomes read-only under a connection, as one that is about to be
// a standby, is "unavailable", and the connection goes: the next may find another.
func TestServerBecomesReadOnly(t *testing.T) {
	t.Parallel()
	_, address := ownServer(t)
	s, err := postgres.Open(t.Context(), address, postgres.Options{MaxConns: 1})
	must(t, err)
	defer s.Close()
	must(t, set(s, t.Context(), "k", "v"))
	admin, err := postgres.DB(address)
	must(t, err)
	defer admin.Close()
	admin.SetMaxOpenConns(1)
	readOnly := func(value string) {
		t.Helper()
		for _, query := range []string{`ALTER SYSTEM SET default_transaction_read_only = ` + value, `SELECT pg_reload_conf()`} {
			_, err := admin.ExecContext(t.Context(), query)
			must(t, err)
		}
	}
	// others is how many connections there are besides the administrator's.
	others := func() (n int) {
		t.Helper()
		must(t, admin.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename IS NOT NULL
			AND backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&n))
		return n
	}
	readOnly("on")
	// The server tells its sessions of the change when it gets to it.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err = set(s, t.Context(), "k", "v"); err != nil || time.Now().After(deadline) {
			break
		}
	}
	if !errors.Is(err, storage.ErrUnavailable) {
		t.Fatalf("read-only: %v", err)
	}
	for deadline := time.Now().Add(time.Minute); others() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection to a read-only server is kept")
		}
	}
	readOnly("off")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err = set(s, t.Context(), "k", "v"); err == nil || time.Now().After(deadline) {
			break
		}
	}
	must(t, err)
}

// A primary that falls silent, its connections open, holds nobody up for long:
// when one connection is silent, the others are given up with it.
func TestPrimaryFallsSilent(t *testing.T) {
	t.Parallel()
	pair, address := ownPair(t, storagetest.PairOptions{ServerOptions: storagetest.ServerOptions{NoSync: true}})
	const connections = 16
	s, err := postgres.Open(t.Context(), address+"&connect_timeout=1", postgres.Options{MaxConns: connections})
	must(t, err)
	defer s.Close()
	// All connections at once, each in use until the last one is.
	var ready, users sync.WaitGroup
	ready.Add(connections)
	for range connections {
		users.Go(func() {
			err := s.View(t.Context(), func(context.Context, storage.Reader) error {
				ready.Done()
				ready.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
				ready.Done()
			}
		})
	}
	users.Wait()
	must(t, pair.Primary().Freeze())
	frozen := pair.Primary()
	defer func() { must(t, frozen.Kill()) }()
	must(t, pair.Promote())
	began, refused := time.Now(), 0
	for ; ; refused++ {
		err := set(s, t.Context(), "k", "v")
		if err == nil {
			break
		}
		if !errors.Is(err, storage.ErrUnavailable) || refused == connections {
			t.Fatalf("after %d others: %v", refused, err)
		}
	}
	t.Logf("%d calls were refused, for %s", refused, time.Since(began).Round(time.Millisecond))
	if refused > 2 {
		t.Error("too many: each waits for other connections")
	}
}
