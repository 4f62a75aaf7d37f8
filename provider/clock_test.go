package provider

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// slowClock is a database whose clock is ahead, and whose answers take time to
// come.
type slowClock struct {
	storage.Store
	ahead, takes time.Duration
	local        *time.Time
}

func (s *slowClock) Now(context.Context) (time.Time, error) {
	answer := s.local.Add(s.ahead + s.takes/2)
	*s.local = s.local.Add(s.takes)
	return answer, nil
}

// Time is the database's, whatever this machine's clock says; and an answer
// that took seconds is no better than what is known.
func TestClock(t *testing.T) {
	local := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &slowClock{ahead: time.Hour, takes: 100 * time.Millisecond, local: &local}
	c := &clock{store: s, policy: DefaultPolicy(), local: func() time.Time { return local }}
	must(t, c.measure(t.Context()))
	for range 2 {
		if got := c.now(); !got.Equal(local.Add(time.Hour)) {
			t.Errorf("it is %v, an hour after %v", got, local)
		}
		if c.offset() != -time.Hour || c.check() == nil {
			t.Errorf("offset %v, and %v", c.offset(), c.check())
		}
		if early, late := c.shared(local), c.latest(local); !early.Equal(c.now().Add(-50*time.Millisecond)) || !late.Equal(c.now().Add(50*time.Millisecond)) {
			t.Errorf("between %v and %v", early, late)
		}
		local = local.Add(10 * time.Second)
	}
	s.takes, s.ahead = 3*time.Second, 0
	must(t, c.measure(t.Context()))
	if c.offset() != -time.Hour {
		t.Errorf("an answer that took 3 s is believed: offset %v", c.offset())
	}
	s.takes = 100 * time.Millisecond
	must(t, c.measure(t.Context()))
	if c.offset() != 0 || c.check() != nil {
		t.Errorf("offset %v, and %v", c.offset(), c.check())
	}
}

// A replica whose clock and the database's disagree leaves it to others to say
// what has expired and which key's turn it is: it may be the database's clock
// that is wrong.
func TestNothingEndsWhileClocksDisagree(t *testing.T) {
	h := newHouse(t, "sqlite", func(p *Policy) {
		p.PruneEvery, p.KeysEvery, p.ClockPoll = time.Millisecond, time.Millisecond, time.Millisecond
	})
	const kind = "test"
	put := func(hash string, life time.Duration) {
		must(t, h.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.UseOnce(ctx, storage.OneTime{Kind: kind, KeyHash: []byte(hash), CreatedAt: h.now(), ExpiresAt: h.now().Add(life)}, h.now())
		}))
	}
	there := func(hash string) bool {
		_, err := h.store.OneTime(t.Context(), kind, []byte(hash), time.Time{})
		return err == nil
	}
	put("good", 30*time.Minute)
	looked := &lookedAt{Store: h.store}
	h.p.keeper.Store = looked
	h.p.clock.last.Store(&clockReading{ours: h.now(), theirs: h.now().Add(time.Hour)})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go h.p.prune(ctx)
	go h.p.keepKeys(ctx)
	time.Sleep(300 * time.Millisecond)
	if !there("good") || looked.times.Load() > 0 {
		t.Errorf("what is good is there: %t; keys were looked after %d times", there("good"), looked.times.Load())
	}
	put("over", time.Millisecond)
	h.p.clock.last.Store(&clockReading{ours: h.now(), theirs: h.now()})
	for began := time.Now(); there("over") || looked.times.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("not even when they agree")
		}
	}
	if !there("good") {
		t.Error("what is good was removed")
	}
}

// lookedAt is a database that counts how often keys are looked after.
type lookedAt struct {
	storage.Store
	times atomic.Int64
}

func (l *lookedAt) RegistryVersion(ctx context.Context) (int64, error) {
	l.times.Add(1)
	return l.Store.RegistryVersion(ctx)
}
