package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// entries appends to the log that verifiers follow. It is the one place that
// dates what is appended: by the database's clock, which all replicas share,
// and when the transaction is under way. now never returns less than that clock
// shows: an epoch that is dated early would let pass what was minted before it.
type entries struct {
	now    func() time.Time
	policy Policy
}

// Revoked is an entry of the revocation log that was appended.
type Revoked struct {
	Seq   int64
	Until time.Time // when it may go: nothing it refuses is still valid then
	at    time.Time
}

// makeEntry is revocation.Block or revocation.Epoch.
type makeEntry func(kind, value, reason string, now, until time.Time) storage.Revocation

// append adds an entry about tokens that were issued until now.
func (e entries) append(ctx context.Context, tx storage.Tx, entry makeEntry, kind, value, reason string) (Revoked, error) {
	now := e.now()
	return e.add(ctx, tx, entry(kind, value, reason, now, e.policy.RevokedUntil(now)))
}

// person appends the same entry for every sub by which clients know the person.
func (e entries) person(ctx context.Context, tx storage.Tx, entry makeEntry, userID, reason string) (Revoked, error) {
	now := e.now()
	subs, err := tx.PairwiseSubjects(ctx, userID)
	if err != nil {
		return Revoked{}, fmt.Errorf("subjects: %w", err)
	}
	var first Revoked
	for i, sub := range append([]string{userID}, subs...) {
		r, err := e.add(ctx, tx, entry(revocation.KindSubject, sub, reason, now, e.policy.RevokedUntil(now)))
		if err != nil {
			return Revoked{}, err
		}
		if i == 0 {
			first = r
		}
	}
	return first, nil
}

// block refuses the value until until, whatever other tokens' lifetimes are.
func (e entries) block(ctx context.Context, tx storage.Tx, kind, value, reason string, until time.Time) (Revoked, error) {
	return e.add(ctx, tx, revocation.Block(kind, value, reason, e.now(), until))
}

func (entries) add(ctx context.Context, tx storage.Tx, r storage.Revocation) (Revoked, error) {
	seq, err := tx.AppendRevocation(ctx, r)
	if err != nil {
		return Revoked{}, fmt.Errorf("revocation log: %w", err)
	}
	return Revoked{seq, r.Until, r.CreatedAt}, nil
}
