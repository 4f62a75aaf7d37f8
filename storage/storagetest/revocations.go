package storagetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func testRevocationLog(t *testing.T, s storage.Store) {
	ctx := t.Context()
	if _, err := s.RevocationLog(ctx); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("before it was started: %v", err)
	}
	start := func() storage.RevocationLog {
		t.Helper()
		update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.StartRevocationLog(ctx) })
		log, err := s.RevocationLog(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	first := start()
	if first.FeedID == "" || first.Seq != 0 || first.Chain != nil {
		t.Errorf("started: %+v", first)
	}
	same(t, "started again", start(), nil, first)

	var chain []byte
	for i := range 5 {
		appendRevocation(t, s, revocation("jti", strconv.Itoa(i), "block", noon.Add(time.Hour)))
		entries, err := s.RevocationsAfter(ctx, int64(i), 10)
		if err != nil || len(entries) != 1 || entries[0].Seq != int64(i+1) {
			t.Fatalf("after %d: %+v, %v", i, entries, err)
		}
		if chain = entries[0].ChainAfter(chain); !bytes.Equal(chain, entries[0].Chain) {
			t.Errorf("the chain is broken at %d", i+1)
		}
	}
	log, err := s.RevocationLog(ctx)
	same(t, "after five entries", log, err, storage.RevocationLog{FeedID: first.FeedID, Seq: 5, Chain: chain})

	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.RestartRevocationLog(ctx) })
	again, err := s.RevocationLog(ctx)
	if again.FeedID == first.FeedID || again.FeedID == "" {
		t.Errorf("started anew as %q", again.FeedID)
	}
	same(t, "started anew", again, err, storage.RevocationLog{FeedID: again.FeedID, Seq: 5, Chain: chain})

	page, err := s.RevocationsAfter(ctx, 1, 2)
	if err != nil || len(page) != 2 || page[0].Seq != 2 || page[1].Seq != 3 {
		t.Errorf("two after 1: %+v, %v", page, err)
	}
	page, err = s.RevocationsAfter(ctx, 5, 2)
	same(t, "after the last", page, err, nil)

	// What was pruned is missing; the log goes on where it was.
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.PruneExpired(ctx, noon.Add(2*time.Hour), 3)
		return err
	})
	page, err = s.RevocationsAfter(ctx, 0, 10)
	if err != nil || len(page) != 2 {
		t.Errorf("after pruning three of five: %+v, %v", page, err)
	}
	after, err := s.RevocationLog(ctx)
	same(t, "after pruning", after, err, again)
}

// The chain is what a verifier can compute itself: the operator's reason is
// not part of it, everything else is.
func testRevocationChain(t *testing.T, _ storage.Store) {
	entry := revocation("sub", "h", "epoch", noon.Add(time.Hour))
	entry.Seq = 7
	chain := entry.ChainAfter([]byte("prev"))
	reworded := entry
	reworded.Reason = "another"
	if !bytes.Equal(reworded.ChainAfter([]byte("prev")), chain) {
		t.Error("the chain depends on the reason")
	}
	for name, change := range map[string]func(*storage.Revocation){
		"seq":        func(r *storage.Revocation) { r.Seq++ },
		"kind":       func(r *storage.Revocation) { r.Key.Kind = "sid" },
		"hash":       func(r *storage.Revocation) { r.Key.Hash = []byte("i") },
		"effect":     func(r *storage.Revocation) { r.Effect = "block" },
		"not_before": func(r *storage.Revocation) { r.NotBefore = noon },
		"until":      func(r *storage.Revocation) { r.Until = time.Time{} },
		"created_at": func(r *storage.Revocation) { r.CreatedAt = noon.Add(time.Second) },
	} {
		changed := entry
		change(&changed)
		if bytes.Equal(changed.ChainAfter([]byte("prev")), chain) {
			t.Errorf("the chain does not depend on %s", name)
		}
	}
	if bytes.Equal(entry.ChainAfter(nil), chain) {
		t.Error("the chain does not depend on the entry before")
	}
}

func testEachRevocation(t *testing.T, s storage.Store) {
	appendRevocation(t, s, revocation("sub", "lifted", "block", noon.Add(2*time.Hour)))
	appendRevocation(t, s, revocation("sub", "lifted", "epoch", noon.Add(time.Hour)))
	appendRevocation(t, s, revocation("jti", "ended", "block", noon))
	appendRevocation(t, s, revocation("jti", "lifted", "block", noon.Add(time.Millisecond)))
	appendRevocation(t, s, revocation("kid", "never", "block", time.Time{}))

	var got []storage.Revocation
	err := s.EachRevocation(t.Context(), func(r storage.Revocation) error {
		got = append(got, r)
		return nil
	})
	slices.SortFunc(got, func(a, b storage.Revocation) int { return int(a.Seq - b.Seq) })
	want := []storage.Revocation{
		revocation("sub", "lifted", "block", noon.Add(2*time.Hour)),
		revocation("sub", "lifted", "epoch", noon.Add(time.Hour)),
		revocation("jti", "ended", "block", noon),
		revocation("jti", "lifted", "block", noon.Add(time.Millisecond)),
		revocation("kid", "never", "block", time.Time{}),
	}
	for i := range want {
		want[i].Seq, want[i].Reason, want[i].CreatedAt = int64(i+1), "", time.Time{}
	}
	same(t, "all of them", got, err, want)

	stop := errors.New("enough")
	seen := 0
	err = s.EachRevocation(t.Context(), func(storage.Revocation) error {
		seen++
		return stop
	})
	if !errors.Is(err, stop) || seen != 1 {
		t.Errorf("stopped after %d with %v", seen, err)
	}
	if log, err := s.RevocationLog(t.Context()); err != nil || log.Seq != 5 { // the connection is good for more
		t.Errorf("afterwards: %+v, %v", log, err)
	}
}

// All that a view reads is of one moment, whatever is committed meanwhile.
func testView(t *testing.T, s storage.Store) {
	appendRevocation(t, s, revocation("jti", "1", "block", noon.Add(time.Hour)))
	appendRevocation(t, s, revocation("jti", "ended", "block", noon.Add(-time.Hour)))
	err := s.View(t.Context(), func(ctx context.Context, r storage.Reader) error {
		log, err := r.RevocationLog(ctx)
		if err != nil {
			return err
		}
		appendRevocation(t, s, revocation("jti", "2", "block", noon.Add(time.Hour)))
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PruneExpired(ctx, noon, 10)
			return err
		})
		var seqs []int64
		err = r.EachRevocation(ctx, func(e storage.Revocation) error {
			seqs = append(seqs, e.Seq)
			return nil
		})
		slices.Sort(seqs)
		if log.Seq != 2 || !slices.Equal(seqs, []int64{1, 2}) {
			t.Errorf("log at %d with entries %v, want 2 with [1 2]", log.Seq, seqs)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if log, err := s.RevocationLog(t.Context()); err != nil || log.Seq != 3 {
		t.Errorf("outside: %+v, %v", log, err)
	}
	failed := errors.New("failed")
	if err := s.View(t.Context(), func(context.Context, storage.Reader) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("error = %v, want that of the function", err)
	}
}

func testChanges(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	changes := s.Changes(ctx)
	const patience = 30 * time.Second
	// The first may be about nothing, and comes when the store listens.
	select {
	case <-changes:
	case <-time.After(time.Second):
	}
	for i := range 3 {
		appendRevocation(t, s, revocation("jti", strconv.Itoa(i), "block", noon.Add(time.Hour)))
		select {
		case <-changes:
		case <-time.After(patience):
			t.Fatal("an entry was not announced")
		}
	}
	cancel()
	appendRevocation(t, s, revocation("jti", "last", "block", noon.Add(time.Hour))) // nobody is in its way
}

// A transaction that appended first and commits late: whoever follows the log
// sees neither entry before it, nor skips it.
func testRevocationOrder(t *testing.T, s storage.Store) {
	appended, commit := make(chan struct{}), make(chan struct{})
	var writers sync.WaitGroup
	write := func(name string, wait func()) {
		writers.Go(func() {
			err := s.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx storage.Tx) error {
				_, err := tx.AppendRevocation(ctx, revocation("jti", name, "block", noon.Add(time.Hour)))
				wait()
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	write("slow", func() {
		close(appended)
		<-commit
	})
	<-appended
	write("quick", func() {})
	time.Sleep(100 * time.Millisecond) // so that it had the time to overtake, if it could
	early, err := s.RevocationsAfter(t.Context(), 0, 10)
	same(t, "before the first committed", early, err, nil)
	close(commit)
	writers.Wait()
	late, err := s.RevocationsAfter(t.Context(), 0, 10)
	if err != nil || len(late) != 2 || string(late[0].Key.Hash) != "slow" || late[1].Seq != 2 {
		t.Errorf("afterwards: %+v, %v", late, err)
	}
}

// Whoever follows the log while many append and some roll back sees each
// number once, in order, with the chain unbroken.
func raceFollowLog(t *testing.T, s storage.Store) {
	const each = 4
	appending, done := context.WithCancel(t.Context())
	var followers sync.WaitGroup
	for range 2 {
		followers.Go(func() {
			var seq int64
			var chain []byte
			for last := false; ; {
				entries, err := s.RevocationsAfter(t.Context(), seq, 5)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range entries {
					if e.Seq != seq+1 || !bytes.Equal(e.ChainAfter(chain), e.Chain) {
						t.Errorf("entry %d follows entry %d, or the chain is broken", e.Seq, seq)
						return
					}
					seq, chain = e.Seq, e.Chain
				}
				if last && len(entries) == 0 {
					break
				}
				last = appending.Err() != nil
			}
			if seq != racers*each {
				t.Errorf("followed to %d of %d", seq, racers*each)
			}
		})
	}
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
		}
		return nil
	}))
	done()
	followers.Wait()
}
