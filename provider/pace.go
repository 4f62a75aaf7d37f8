package provider

import (
	"context"
	"sync"
	"time"
)

// pace lets something begin at most once an interval, and makes whoever comes
// too early wait for their turn. It holds no more of them than fit into its
// patience.
type pace struct {
	interval, patience time.Duration
	now                func() time.Time

	mu   sync.Mutex
	next time.Time // when the next one may begin
}

// turn waits until the caller may begin. It returns false at once when too many
// wait already, and when ctx ends.
func (p *pace) turn(ctx context.Context) bool {
	p.mu.Lock()
	now := p.now()
	at := later(p.next, now)
	wait := at.Sub(now)
	if wait > p.patience {
		p.mu.Unlock()
		return false
	}
	p.next = at.Add(p.interval)
	p.mu.Unlock()
	if wait == 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
