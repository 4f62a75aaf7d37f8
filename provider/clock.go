package provider

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// clock watches how far this replica's clock is from the database's, which
// all replicas share. A clock that runs ahead would mint tokens that slip past
// a revocation, so beyond MaxClockOffset nothing is issued.
type clock struct {
	store  storage.Store
	policy Policy
	now    func() time.Time
	log    *slog.Logger
	offset atomic.Int64 // nanoseconds, ours minus the database's
	error  atomic.Int64 // nanoseconds, how far off that may be
}

// measure reads the database's clock, assuming that the answer took as long
// to come as the question to go.
func (c *clock) measure(ctx context.Context) error {
	before := c.now()
	theirs, err := c.store.Now(ctx)
	if err != nil {
		return fmt.Errorf("database clock: %w", err)
	}
	after := c.now()
	half := after.Sub(before) / 2
	c.offset.Store(int64(before.Add(half).Sub(theirs)))
	c.error.Store(int64(half))
	return nil
}

// shared returns the moment of our clock as the database's clock had it, or a
// little earlier: what is dated by it compares with entries of the revocation
// log whichever replica made either.
func (c *clock) shared(t time.Time) time.Time {
	return t.Add(-time.Duration(c.offset.Load() + c.error.Load()))
}

// latest returns the moment of our clock as the database's clock had it, or a
// little later.
func (c *clock) latest(t time.Time) time.Time {
	return t.Add(time.Duration(c.error.Load() - c.offset.Load()))
}

// check returns why nothing may be issued, or nil.
func (c *clock) check() error {
	if off := time.Duration(c.offset.Load()); off.Abs() > c.policy.MaxClockOffset {
		return unavailable(fmt.Errorf("this server's clock is %s off the database's: synchronise both", off.Round(time.Millisecond)))
	}
	return nil
}

// run measures until ctx ends.
func (c *clock) run(ctx context.Context) {
	tick := time.NewTicker(c.policy.ClockPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.measure(ctx); err != nil {
			continue // the registry reports that the database is away
		}
		if err := c.check(); err != nil {
			c.log.Error("nothing is issued until the clocks agree", "cause", err.Error())
		}
	}
}
