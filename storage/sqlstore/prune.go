package sqlstore

import (
	"context"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// pruning deletes up to $2 rows that ended at or before $1.
type pruning struct {
	query string
	ended time.Time
}

// PruneExpired implements storage.Tx.
func (t *Tx) PruneExpired(ctx context.Context, now time.Time, limit int) (int, error) {
	// Secrets are part of the registry, so the lock (and the new version that
	// empties every cache) is taken only when there is one to remove.
	expired, err := collect(ctx, t.db, scanText,
		`SELECT id FROM client_secrets WHERE expires_at > 0 AND expires_at <= $1 LIMIT 1`, now)
	if err != nil {
		return 0, wrap(err, "find expired client secrets")
	}
	statements := []pruning{
		{`DELETE FROM one_time WHERE (kind, key_hash) IN (
			SELECT kind, key_hash FROM one_time
			WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2)`, now},
		// An entry stays while an earlier one for its key has not ended, which
		// would otherwise count again.
		{`DELETE FROM revocations WHERE seq IN (
			SELECT r.seq FROM revocations AS r
			WHERE r.until > 0 AND r.until <= $1 AND NOT EXISTS (SELECT 1 FROM revocations AS earlier
				WHERE earlier.hash = r.hash AND earlier.kind = r.kind
				AND earlier.seq < r.seq AND (earlier.until > $1 OR earlier.until = 0))
			ORDER BY r.until LIMIT $2)`, now},
		{`DELETE FROM sessions WHERE id IN (
			SELECT id FROM sessions WHERE absolute_end <= $1 ORDER BY absolute_end LIMIT $2)`, now},
		{`DELETE FROM grants WHERE id IN (
			SELECT id FROM grants WHERE absolute_end <= $1 ORDER BY absolute_end LIMIT $2)`, now.Add(-storage.GrantMemory)},
		{`DELETE FROM login_throttle WHERE key IN (
			SELECT key FROM login_throttle WHERE last_at <= $1 AND blocked_to <= $1 ORDER BY last_at LIMIT $2)`,
			now.Add(-storage.ThrottleMemory)},
		{`DELETE FROM outbox WHERE id IN (
			SELECT id FROM outbox WHERE next_attempt_at = 0 AND created_at <= $1 ORDER BY id LIMIT $2)`,
			now.Add(-storage.DeliveryMemory)},
	}
	if len(expired) > 0 {
		if err := t.LockRegistry(ctx); err != nil {
			return 0, err
		}
		statements = append(statements, pruning{`DELETE FROM client_secrets WHERE id IN (
			SELECT id FROM client_secrets WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2)`, now})
	}
	var total int64
	for _, p := range statements {
		n, err := t.db.Exec(ctx, p.query, p.ended, limit)
		if err != nil {
			return 0, wrap(err, "prune")
		}
		total += n
	}
	return int(total), nil
}
