package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// deliver sends what is in the outbox until ctx ends. Every replica does, and
// each delivery is claimed by one of them at a time; what a replica that dies has
// claimed is due again when the claim runs out. A client gets its deliveries one
// after the other, so a slow one holds up nobody else.
func (p *Provider) deliver(ctx context.Context) {
	var (
		mu    sync.Mutex
		busy  = make(map[string]bool) // clients that are being told something
		lanes sync.WaitGroup
		freed = make(chan struct{}, 1)
	)
	defer lanes.Wait()
	counted := time.Time{}
	for failing := false; ; {
		mu.Lock()
		except := slices.Sorted(maps.Keys(busy))
		mu.Unlock()
		var claimed map[string][]storage.Delivery
		var err error
		if p.clock.check() == nil && len(except) < p.policy.DeliveryLanes {
			claimed, err = p.claimDeliveries(ctx, except)
		}
		for clientID, batch := range claimed {
			mu.Lock()
			busy[clientID] = true
			mu.Unlock()
			lanes.Go(func() {
				p.deliverAll(ctx, batch)
				mu.Lock()
				delete(busy, clientID)
				mu.Unlock()
				select {
				case freed <- struct{}{}:
				default:
				}
			})
		}
		if now := p.now(); err == nil && now.Sub(counted).Abs() >= p.policy.BacklogEvery {
			counted = now
			err = p.countBacklog(ctx)
		}
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			p.log.Error("clients cannot be told of logouts; it is tried again", "cause", err.Error())
		case err == nil:
			failing = false
			if len(claimed) > 0 {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-freed:
		case <-time.After(p.policy.DeliverEvery):
		}
	}
}

// deliveryBatch is how many deliveries are claimed at once. All of them may be
// for one client that answers none: the claim has to last for so many timeouts.
const deliveryBatch = 8

// claimDeliveries takes deliveries that are due and returns them by client.
func (p *Provider) claimDeliveries(ctx context.Context, except []string) (map[string][]storage.Delivery, error) {
	due, err := p.store.DeliveryDue(ctx, p.now()) // a read: most of the time there is nothing
	if err != nil || !due {
		return nil, err
	}
	byClient := make(map[string][]storage.Delivery)
	err = p.job(ctx, "deliver", func(ctx context.Context) error {
		return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
			now := p.now()
			list, err := tx.ClaimDeliveries(ctx, storage.DeliveryClaim{
				Now: now, Until: now.Add(p.policy.DeliveryLease), Except: except,
				Limit: min(deliveryBatch, p.policy.DeliveryLanes-len(except)),
			})
			clear(byClient) // a transaction may run twice
			for _, d := range list {
				byClient[d.ClientID] = append(byClient[d.ClientID], d)
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return byClient, nil
}

func (p *Provider) deliverAll(ctx context.Context, batch []storage.Delivery) {
	for _, d := range batch {
		if ctx.Err() != nil {
			return
		}
		if err := p.deliverOne(ctx, d); err != nil && ctx.Err() == nil {
			// The claim runs out, and then it is tried again.
			p.log.Warn("what became of a delivery could not be written down; it may come twice", "delivery", d.ID, "cause", err.Error())
		}
	}
}

// deliverOne makes one attempt and writes down what came of it.
func (p *Provider) deliverOne(ctx context.Context, d storage.Delivery) error {
	err := p.sendLogout(ctx, d)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil, errors.Is(err, errUndeliverable):
		if err == nil {
			p.metrics.deliveries.WithLabelValues("delivered").Inc()
		}
		return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteDelivery(ctx, d.ID) })
	}
	now, cause := p.now(), plainASCII(err.Error())
	next := now.Add(p.retryAfter(d.Attempts))
	if next.After(d.CreatedAt.Add(p.policy.DeliveryPatience)) {
		next = time.Time{}
		p.metrics.deliveries.WithLabelValues("given_up").Inc()
		p.log.Warn("a client was not told of a logout, and is not going to be; `signet delivery list --failed` has what it missed",
			"client_id", d.ClientID, "delivery", d.ID, "attempts", d.Attempts, "cause", cause)
	} else {
		p.metrics.deliveries.WithLabelValues("failed").Inc()
		p.log.Debug("a client was not told of a logout; it is tried again", "client_id", d.ClientID, "delivery", d.ID, "cause", cause)
	}
	return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return tx.RetryDelivery(ctx, d.ID, d.Attempts, next, cause)
	})
}

// retryAfter doubles the wait with each attempt.
func (p *Provider) retryAfter(attempts int64) time.Duration {
	wait := p.policy.DeliveryRetry
	for ; attempts > 1 && wait < p.policy.DeliveryLongestRetry; attempts-- {
		wait *= 2
	}
	return min(wait, p.policy.DeliveryLongestRetry)
}

func (p *Provider) countBacklog(ctx context.Context) error {
	b, err := p.store.Backlog(ctx)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	p.metrics.backlog.Store(&b)
	return nil
}
