package sqlstore

import (
	"context"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const throttleColumns = `key, failures, last_at, blocked_to`

func scanThrottle(row Row, t *storage.Throttle) error {
	return row.Scan(&t.Key, &t.Failures, timeOf{&t.LastAt}, timeOf{&t.BlockedTo})
}

// Throttle implements storage.Reader.
func (r *Reader) Throttle(ctx context.Context, key string) (storage.Throttle, error) {
	var v storage.Throttle
	if err := scanThrottle(r.db.QueryRow(ctx, `SELECT `+throttleColumns+` FROM login_throttle WHERE key = $1`, key), &v); err != nil {
		return storage.Throttle{}, wrap(err, "read throttle")
	}
	return v, nil
}

// AddFailure implements storage.Tx.
func (t *Tx) AddFailure(ctx context.Context, key string, at time.Time) (storage.Throttle, error) {
	var v storage.Throttle
	err := scanThrottle(t.db.QueryRow(ctx, `INSERT INTO login_throttle (`+throttleColumns+`) VALUES ($1, 1, $2, 0)
		ON CONFLICT (key) DO UPDATE SET failures = login_throttle.failures + 1, last_at = excluded.last_at
		RETURNING `+throttleColumns, key, at), &v)
	if err != nil {
		return storage.Throttle{}, wrap(err, "count failure")
	}
	return v, nil
}

// SaveThrottle implements storage.Tx.
func (t *Tx) SaveThrottle(ctx context.Context, v storage.Throttle) error {
	_, err := t.db.Exec(ctx, `INSERT INTO login_throttle (`+throttleColumns+`) VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE SET failures = excluded.failures, last_at = excluded.last_at,
			blocked_to = excluded.blocked_to`, v.Key, v.Failures, v.LastAt, v.BlockedTo)
	return wrap(err, "store throttle")
}

// ClearThrottle implements storage.Tx.
func (t *Tx) ClearThrottle(ctx context.Context, key string) error {
	_, err := t.db.Exec(ctx, `DELETE FROM login_throttle WHERE key = $1`, key)
	return wrap(err, "clear throttle")
}
