package app

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	_ "modernc.org/sqlite" // the driver named "sqlite"
)

// An owner is whose order it is. A subject is unique only within its issuer
// (OpenID Connect Core §5.7), so it takes both to name somebody.
type owner struct {
	issuer, subject string
}

// An order as it is stored and as it is shown.
type order struct {
	ID        string    `json:"id"` // UUIDv7, so ids sort by time
	Item      string    `json:"item"`
	Quantity  int       `json:"quantity"`
	CreatedAt time.Time `json:"created_at"`
}

// A summary adds up the orders of all owners.
type summary struct {
	Owners   int `json:"owners"`
	Orders   int `json:"orders"`
	Quantity int `json:"quantity"`
}

var (
	errNotFound  = errors.New("no such order")
	errKeyReused = errors.New("idempotency key reused for another order")
)

// keyLifetime is how long an Idempotency-Key is remembered.
const keyLifetime = 24 * time.Hour

const schema = `
CREATE TABLE IF NOT EXISTS orders (
	id         TEXT    NOT NULL PRIMARY KEY,
	issuer     TEXT    NOT NULL,
	subject    TEXT    NOT NULL,
	item       TEXT    NOT NULL,
	quantity   INTEGER NOT NULL,
	created_at INTEGER NOT NULL -- Unix milliseconds
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orders_by_owner ON orders (issuer, subject, id);

CREATE TABLE IF NOT EXISTS idempotency_keys (
	issuer     TEXT    NOT NULL,
	subject    TEXT    NOT NULL,
	key        TEXT    NOT NULL,
	answer     BLOB    NOT NULL, -- the order as it was created, JSON
	created_at INTEGER NOT NULL,
	PRIMARY KEY (issuer, subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);`

// The store keeps orders in one SQLite file. Every query names the owner, so
// no handler can forget to ask whose order it is.
type store struct {
	db *sql.DB
}

// openStore opens the file at path, making it (readable by this user only) and
// its tables when they are missing.
func openStore(ctx context.Context, path string) (*store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	file.Close()

	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)"},
		"_txlock": {"immediate"}, // transactions here write: queue for the lock before reading
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		db.Close()
		return nil, fmt.Errorf("create tables in %s: %w", path, err)
	}
	return &store{db}, nil
}

func (s *store) close() error { return s.db.Close() }

// ready reports whether the database answers.
func (s *store) ready(ctx context.Context) error {
	var n int
	return s.db.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM orders LIMIT 1)`).Scan(&n)
}

// create stores a new order. With a key that the owner used before it stores
// nothing and returns the order made then; if that was a different order it
// fails with errKeyReused.
func (s *store) create(ctx context.Context, by owner, key, item string, quantity int, now time.Time) (order, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return order{}, err
	}
	created := order{ID: id.String(), Item: item, Quantity: quantity, CreatedAt: now.UTC().Truncate(time.Millisecond)}

	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return order{}, err
	}
	defer tx.Rollback()
	if key != "" {
		first, err := claimKey(ctx, tx, by, key, created)
		if err != nil {
			return order{}, err
		}
		if first.ID != created.ID {
			if first.Item != item || first.Quantity != quantity {
				return order{}, errKeyReused
			}
			return first, nil
		}
	}
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO orders (id, issuer, subject, item, quantity, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		created.ID, by.issuer, by.subject, item, quantity, created.CreatedAt.UnixMilli()); err != nil {
		return order{}, err
	}
	return created, tx.Commit()
}

// claimKey returns the order that owns the key: created, if the key was free.
func claimKey(ctx context.Context, tx *sql.Tx, by owner, key string, created order) (order, error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE created_at < $1`,
		created.CreatedAt.Add(-keyLifetime).UnixMilli()); err != nil {
		return order{}, err
	}
	answer, err := json.Marshal(created)
	if err != nil {
		return order{}, err
	}
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO idempotency_keys (issuer, subject, key, answer, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT DO NOTHING`,
		by.issuer, by.subject, key, answer, created.CreatedAt.UnixMilli()); err != nil {
		return order{}, err
	}
	if err := tx.QueryRowContext(ctx,
		`SELECT answer FROM idempotency_keys WHERE issuer = $1 AND subject = $2 AND key = $3`,
		by.issuer, by.subject, key).Scan(&answer); err != nil {
		return order{}, err
	}
	var first order
	return first, json.Unmarshal(answer, &first)
}

// list returns up to limit of the owner's orders, newest first, starting below
// the id after ("" for the newest).
func (s *store) list(ctx context.Context, by owner, after string, limit int) ([]order, error) {
	rows, err := s.db.QueryContext(ctx,
		`SELECT id, item, quantity, created_at FROM orders
		WHERE issuer = $1 AND subject = $2 AND ($3 = '' OR id < $3)
		ORDER BY id DESC LIMIT $4`,
		by.issuer, by.subject, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	orders := []order{}
	for rows.Next() {
		o, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}

// get returns the owner's order, or errNotFound.
func (s *store) get(ctx context.Context, by owner, id string) (order, error) {
	o, err := scan(s.db.QueryRowContext(ctx,
		`SELECT id, item, quantity, created_at FROM orders WHERE issuer = $1 AND subject = $2 AND id = $3`,
		by.issuer, by.subject, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return order{}, errNotFound
	}
	return o, err
}

// delete removes the owner's order, or fails with errNotFound.
func (s *store) delete(ctx context.Context, by owner, id string) error {
	result, err := s.db.ExecContext(ctx,
		`DELETE FROM orders WHERE issuer = $1 AND subject = $2 AND id = $3`,
		by.issuer, by.subject, id)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		return errNotFound
	}
	return err
}

// summarise adds up the orders of all owners.
func (s *store) summarise(ctx context.Context) (summary, error) {
	var sum summary
	err := s.db.QueryRowContext(ctx,
		`SELECT (SELECT count(*) FROM (SELECT DISTINCT issuer, subject FROM orders)),
		count(*), coalesce(sum(quantity), 0) FROM orders`).
		Scan(&sum.Owners, &sum.Orders, &sum.Quantity)
	return sum, err
}

func scan(columns func(...any) error) (order, error) {
	var o order
	var created int64
	err := columns(&o.ID, &o.Item, &o.Quantity, &created)
	o.CreatedAt = time.UnixMilli(created).UTC()
	return o, err
}
