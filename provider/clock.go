package provider

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// clock is the database's clock, which all replicas share: read now and then,
// and carried on in between by how much time has passed here, which setting
// this machine's clock does not change. What a replica dates or finds expired
// goes by it alone. A machine whose own clock says something else is out of
// order, and beyond MaxClockOffset issues nothing and leaves time to others.
type clock struct {
	store  storage.Store
	policy Policy
	local  func() time.Time // this machine's, with its monotonic reading if it has one
	log    *slog.Logger
	last   atomic.Pointer[clockReading]
}

// clockReading is what the database's clock said at a moment of ours.
type clockReading struct {
	ours   time.Time
	theirs time.Time
	error  time.Duration // how far off theirs may be
}

// measure reads the database's clock, assuming that the answer took as long
// to come as the question to go. An answer that took so long that it says little
// counts only if there is no better one.
func (c *clock) measure(ctx context.Context) error {
	before := c.local()
	theirs, err := c.store.Now(ctx)
	if err != nil {
		return fmt.Errorf("database clock: %w", err)
	}
	half := c.local().Sub(before) / 2
	if c.last.Load() != nil && half > c.policy.MaxClockOffset/4 {
		return nil
	}
	c.last.Store(&clockReading{ours: before.Add(half), theirs: theirs.UTC(), error: half})
	return nil
}

// now returns the time.
func (c *clock) now() time.Time { return c.last.Load().at(c.local()) }

func (r *clockReading) at(local time.Time) time.Time { return r.theirs.Add(local.Sub(r.ours)) }

// shared returns a moment of this machine's clock as the database's had it, or
// a little earlier: what is dated by it compares with entries of the revocation
// log whichever replica made either.
func (c *clock) shared(local time.Time) time.Time {
	r := c.last.Load()
	return r.at(local).Add(-r.error)
}

// latest is shared, or a little later.
func (c *clock) latest(local time.Time) time.Time {
	r := c.last.Load()
	return r.at(local).Add(r.error)
}

// offset returns how far this machine's clock is ahead, as of this moment: a
// step of it shows at once.
func (c *clock) offset() time.Duration {
	local := c.local()
	return local.Round(0).Sub(c.last.Load().at(local))
}

// check returns why nothing may be issued, or nil.
func (c *clock) check() error {
	if off := c.offset(); off.Abs() > c.policy.MaxClockOffset {
		return unavailable(fmt.Errorf("this server's clock is %s off the database's: synchronise both", off.Round(time.Millisecond)))
	}
	return nil
}

// run measures until ctx ends.
func (c *clock) run(ctx context.Context) {
	tick := time.NewTicker(c.policy.ClockPoll)
	defer tick.Stop()
	for off := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_ = c.measure(ctx) // the registry reports that the database is away
		err := c.check()
		if err != nil {
			c.log.Error("nothing is issued until the clocks agree", "cause", err.Error())
		} else if off {
			c.log.Info("the clocks agree again")
		}
		off = err != nil
	}
}
