package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// UseOnce implements storage.Tx. One conditional statement decides: it
// changes a row for exactly one of any number of callers.
func (t *Tx) UseOnce(ctx context.Context, v storage.OneTime, now time.Time) error {
	if !v.ExpiresAt.IsZero() && millis(v.ExpiresAt) <= millis(now) {
		return t.db.keep(fmt.Errorf("use once: %w: expired already", storage.ErrInvalid))
	}
	n, err := t.db.Exec(ctx, `INSERT INTO one_time (kind, key_hash, subject, data, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (kind, key_hash) DO UPDATE SET subject = excluded.subject, data = excluded.data,
			created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE one_time.expires_at > 0 AND one_time.expires_at <= $7`,
		v.Kind, v.KeyHash, v.Subject, v.Data, v.CreatedAt, v.ExpiresAt, now)
	if err == nil && n == 0 {
		err = storage.ErrConsumed
	}
	return wrap(err, "use once")
}
