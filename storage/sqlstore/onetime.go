package sqlstore

import (
	"context"
	"errors"
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
	return wrap(consumed(t.db.Exec(ctx, `INSERT INTO one_time (`+oneTimeColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (kind, key_hash) DO UPDATE SET subject = excluded.subject, data = excluded.data,
			created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE one_time.expires_at > 0 AND one_time.expires_at <= $7`,
		v.Kind, v.KeyHash, v.Subject, v.Data, v.CreatedAt, v.ExpiresAt, now)), "use once")
}

const oneTimeColumns = `kind, key_hash, subject, data, created_at, expires_at`

func scanOneTime(row Row, v *storage.OneTime) error {
	return row.Scan(&v.Kind, bytesOf{&v.KeyHash}, &v.Subject, &v.Data, timeOf{&v.CreatedAt}, timeOf{&v.ExpiresAt})
}

// OneTime implements storage.Reader.
func (r *Reader) OneTime(ctx context.Context, kind string, keyHash []byte, now time.Time) (storage.OneTime, error) {
	var v storage.OneTime
	err := scanOneTime(r.db.QueryRow(ctx, `SELECT `+oneTimeColumns+` FROM one_time
		WHERE kind = $1 AND key_hash = $2 AND (expires_at = 0 OR expires_at > $3)`, kind, keyHash, now), &v)
	if err != nil {
		return storage.OneTime{}, wrap(err, "read single-use value")
	}
	return v, nil
}

// OneTimes implements storage.Reader.
func (r *Reader) OneTimes(ctx context.Context, kind string, after []byte, limit int, now time.Time) ([]storage.OneTime, error) {
	if after == nil {
		after = []byte{} // which every key hash comes after
	}
	values, err := collect(ctx, r.db, scanOneTime, `SELECT `+oneTimeColumns+` FROM one_time
		WHERE kind = $1 AND key_hash > $2 AND (expires_at = 0 OR expires_at > $3) ORDER BY key_hash LIMIT $4`, kind, after, now, limit)
	return values, wrap(err, "list single-use values")
}

// TakeOnce implements storage.Tx. One conditional statement decides.
func (t *Tx) TakeOnce(ctx context.Context, kind string, keyHash []byte, now time.Time) (storage.OneTime, error) {
	var v storage.OneTime
	err := scanOneTime(t.db.QueryRow(ctx, `DELETE FROM one_time
		WHERE kind = $1 AND key_hash = $2 AND (expires_at = 0 OR expires_at > $3)
		RETURNING `+oneTimeColumns, kind, keyHash, now), &v)
	if errors.Is(err, storage.ErrNotFound) {
		err = storage.ErrConsumed
	}
	if err != nil {
		return storage.OneTime{}, wrap(err, "take single-use value")
	}
	return v, nil
}
