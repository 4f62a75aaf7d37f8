package sqlstore

import (
	"context"
	"errors"
)

// RegistryVersion implements storage.Reader.
func (r *Reader) RegistryVersion(ctx context.Context) (int64, error) {
	var v int64
	err := r.db.QueryRow(ctx, `SELECT version FROM registry_state WHERE id = 1`).Scan(&v)
	return v, wrap(err, "read registry version")
}

// LockRegistry implements storage.Tx. Updating the one row is the lock: the
// row's in PostgreSQL, the database's in SQLite.
func (t *Tx) LockRegistry(ctx context.Context) error {
	if t.registryLocked {
		return nil
	}
	if t.logLocked {
		return t.db.keep(errors.New("lock registry: must come before the revocation log's lock"))
	}
	var v int64
	err := t.db.QueryRow(ctx, `UPDATE registry_state SET version = version + 1 WHERE id = 1 RETURNING version`).Scan(&v)
	t.registryLocked = err == nil
	return wrap(err, "lock registry")
}

// Setting implements storage.Reader.
func (r *Reader) Setting(ctx context.Context, name string) (string, error) {
	var v string
	err := r.db.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&v)
	return v, wrap(err, "read setting")
}

// SetSetting implements storage.Tx.
func (t *Tx) SetSetting(ctx context.Context, name, value string) error {
	_, err := t.db.Exec(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return wrap(err, "store setting")
}
