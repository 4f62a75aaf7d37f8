package sqlstore

import (
	"context"
	"time"
)

// TakeStatusIndexes implements storage.Tx.
func (t *Tx) TakeStatusIndexes(ctx context.Context, n int) (int64, error) {
	var next int64
	err := t.db.QueryRow(ctx, `UPDATE status_state SET next_index = next_index + $1 WHERE id = 1
		RETURNING next_index`, n).Scan(&next)
	return next - int64(n), wrap(err, "take status indexes")
}

// NextStatusIndex implements storage.Reader.
func (r *Reader) NextStatusIndex(ctx context.Context) (int64, error) {
	var next int64
	err := r.db.QueryRow(ctx, `SELECT next_index FROM status_state WHERE id = 1`).Scan(&next)
	return next, wrap(err, "read status indexes")
}

// EachInvalidStatus implements storage.Reader.
func (r *Reader) EachInvalidStatus(ctx context.Context, since, now time.Time, visit func(index int64) error) error {
	rows, err := r.db.Query(ctx, `SELECT status_index FROM grants
			WHERE status_index > 0 AND revoked_at > 0 AND revoked_at > $1
		UNION ALL SELECT g.status_index FROM grants AS g JOIN users AS u ON u.id = g.user_id
			WHERE u.enabled = 0 AND g.status_index > 0 AND g.revoked_at = 0 AND g.absolute_end > $2
		UNION ALL SELECT g.status_index FROM grants AS g JOIN clients AS c ON c.id = g.client_id
			WHERE c.enabled = 0 AND g.status_index > 0 AND g.revoked_at = 0 AND g.absolute_end > $2`, since, now)
	if err != nil {
		return wrap(err, "list invalid grants")
	}
	defer rows.Close()
	for rows.Next() {
		var index int64
		if err := rows.Scan(&index); err != nil {
			return wrap(err, "list invalid grants")
		}
		if err := visit(index); err != nil {
			return err
		}
	}
	return wrap(rows.Err(), "list invalid grants")
}
