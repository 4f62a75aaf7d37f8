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
