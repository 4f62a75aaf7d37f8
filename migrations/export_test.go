package migrations

import (
	"context"
	"database/sql"
)

// UpTo applies what is pending up to a version.
func UpTo(ctx context.Context, db *sql.DB, engine Engine, version int64) error {
	m, err := open(db, engine)
	if err == nil {
		_, err = m.provider.UpTo(ctx, version)
	}
	return err
}

// DownTo takes back what was applied after a version.
func DownTo(ctx context.Context, db *sql.DB, engine Engine, version int64) error {
	m, err := open(db, engine)
	if err == nil {
		_, err = m.provider.DownTo(ctx, version)
	}
	return err
}
