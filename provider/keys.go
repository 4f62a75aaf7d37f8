package provider

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// actorSignet is who does what nobody asked for, in the audit log.
const actorSignet = "signet"

// compromisedFor is how long verifiers refuse what a compromised key signed:
// far longer than any of them goes on with a JWK Set it cannot renew. What an
// attacker signs with it may expire whenever they like.
const compromisedFor = 365 * 24 * time.Hour

// sharedNow returns the time of the clock all replicas share.
func (p *Provider) sharedNow() time.Time { return p.clock.shared(p.clock.local()) }

// keepKeys carries the keys through their lives until ctx ends. Every replica
// does; of those that come to the same change one makes it.
func (p *Provider) keepKeys(ctx context.Context) {
	const least = 100 * time.Millisecond
	// Replicas come a little apart, so that they seldom make keys for nothing.
	spread := min(p.policy.KeysEvery/10, p.keeper.Schedule.PublishAhead/100)
	wait := least
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait + rand.N(spread)):
		}
		if p.clock.check() != nil {
			wait = p.policy.ClockPoll
			continue // whose turn it is is for those to say whose clocks agree
		}
		var next time.Time
		err := p.job(ctx, "keys", func(ctx context.Context) (err error) {
			next, err = p.keeper.Advance(ctx, p.sharedNow())
			return err
		})
		switch {
		case err == nil:
			failing = false
			p.metrics.keysKept.Store(p.now().UnixMilli())
			wait = min(max(next.Sub(p.sharedNow()), least), p.policy.KeysEvery)
			continue
		case ctx.Err() == nil && !failing:
			failing = true
			p.log.Error("keys could not be looked after; it is tried again", "cause", err.Error())
		}
		wait = p.policy.ClockPoll
	}
}

func (p *Provider) recordKey(ctx context.Context, tx storage.Tx, e keys.Event) error {
	return recordKey(ctx, tx, p.sharedNow(), actorSignet, e)
}

// recordKey writes down what happened to a key.
func recordKey(ctx context.Context, tx storage.Tx, now time.Time, actor string, e keys.Event) error {
	detail := map[string]any{"key": e.Key}
	if e.Purpose != "" {
		detail["purpose"] = e.Purpose
	}
	if e.Alg != "" {
		detail["alg"] = e.Alg
	}
	return audit(ctx, tx, now, eventKey+string(e.Name), actor, "", "", detail)
}

// RotateKeys lets the next signing keys sign at once, and makes successors. A
// *keys.TooEarlyError says when that can be done.
func (a *Admin) RotateKeys(ctx context.Context) error {
	k, err := a.keeper(ctx)
	if err != nil {
		return err
	}
	return k.Rotate(ctx, a.now())
}

// CompromiseKey takes a signing key out of use for good: its private half is
// destroyed, it leaves the JWK Set, verifiers are told to refuse it, and if it
// was signing, the next one does.
func (a *Admin) CompromiseKey(ctx context.Context, kid string) error {
	k, err := a.keeper(ctx)
	if err != nil {
		return err
	}
	record := k.Record
	k.Record = func(ctx context.Context, tx storage.Tx, e keys.Event) error {
		if e.Name == keys.EventCompromised {
			if _, err := a.entries.block(ctx, tx, revocation.KindKey, e.Key, "key compromised", a.now().Add(compromisedFor)); err != nil {
				return err
			}
		}
		return record(ctx, tx, e)
	}
	err = k.Compromise(ctx, kid, a.now())
	if errors.Is(err, storage.ErrNotFound) {
		return object("key", kid, err)
	}
	return err
}

// RewrapKeys lets the primary key-encryption key open everything that the
// previous one does now, tells progress after each row, and returns how many
// there were.
func (a *Admin) RewrapKeys(ctx context.Context, progress func(done, of int)) (int, error) {
	k, err := a.keeper(ctx)
	if err != nil {
		return 0, err
	}
	return k.Rewrap(ctx, progress)
}

func (a *Admin) keeper(ctx context.Context) (*keys.Keeper, error) {
	sealer, err := a.sealer(ctx)
	if err != nil {
		return nil, err
	}
	return &keys.Keeper{
		Store: a.store, Sealer: sealer, Schedule: a.schedule, Algorithms: keys.Algorithms(),
		Record: func(ctx context.Context, tx storage.Tx, e keys.Event) error {
			return recordKey(ctx, tx, a.now(), a.actor, e)
		},
	}, nil
}
