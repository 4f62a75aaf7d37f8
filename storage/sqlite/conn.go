package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlstore"
)

// conn is one connection and the statements it keeps prepared. It implements
// sqlstore.DB for one goroutine at a time.
//
// Statements run to their end even when the context is done, because SQLite
// undoes the whole transaction, other callers' work included, when it is
// interrupted. They are short; the context is looked at before each.
type conn struct {
	*sql.Conn
	prepared map[string]*sql.Stmt
}

// maxPrepared bounds the cache; the statements of sqlstore are fewer.
const maxPrepared = 256

var errClosed = fmt.Errorf("%w: closed", storage.ErrUnavailable)

// connect opens a connection. While another process turns a new file into a
// WAL database, SQLite answers "busy" without the usual wait, so this waits.
func connect(db *sql.DB) (*conn, error) {
	for deadline := time.Now().Add(busyTimeout); ; time.Sleep(5 * time.Millisecond) {
		c, err := db.Conn(context.Background())
		if err == nil {
			return &conn{Conn: c, prepared: make(map[string]*sql.Stmt)}, nil
		}
		if !busy(err) || time.Now().After(deadline) {
			return nil, classify(err)
		}
	}
}

// discard closes the connection for good instead of returning it to db.
func (c *conn) discard() {
	for _, s := range c.prepared {
		_ = s.Close()
	}
	_ = c.Conn.Raw(func(any) error { return driver.ErrBadConn }) // which makes database/sql close it
	_ = c.Conn.Close()
}

func (c *conn) prepare(query string) (*sql.Stmt, error) {
	if s := c.prepared[query]; s != nil {
		return s, nil
	}
	s, err := c.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, classify(err)
	}
	if len(c.prepared) >= maxPrepared {
		for old, stmt := range c.prepared {
			_ = stmt.Close()
			delete(c.prepared, old)
			break
		}
	}
	c.prepared[query] = s
	return s, nil
}

// Exec implements sqlstore.DB.
func (c *conn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, classify(err)
	}
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, classify(err)
	}
	return res.RowsAffected()
}

// Query implements sqlstore.DB.
func (c *conn) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	return c.query(ctx, func() {}, query, args)
}

// QueryRow implements sqlstore.DB.
func (c *conn) QueryRow(ctx context.Context, query string, args ...any) sqlstore.Row {
	rows, err := c.Query(ctx, query, args...)
	return row{rows, err}
}

// query calls done once the rows are closed, or on error.
func (c *conn) query(ctx context.Context, done func(), query string, args []any) (sqlstore.Rows, error) {
	err := ctx.Err()
	var s *sql.Stmt
	if err == nil {
		s, err = c.prepare(query)
	}
	var r *sql.Rows
	if err == nil {
		r, err = s.QueryContext(context.Background(), args...)
	}
	if err != nil {
		done()
		return nil, classify(err)
	}
	return &rows{Rows: r, done: done}, nil
}

type rows struct {
	*sql.Rows
	done func()
}

func (r *rows) Scan(dest ...any) error { return classify(r.Rows.Scan(dest...)) }
func (r *rows) Err() error             { return classify(r.Rows.Err()) }

func (r *rows) Close() {
	if r.done != nil {
		_ = r.Rows.Close()
		r.done()
		r.done = nil
	}
}

// row is the first row of a result. It is a write's too (RETURNING), so the
// statement must reach its end before it counts: Close sees to that.
type row struct {
	rows sqlstore.Rows
	err  error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return storage.ErrNotFound
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	for r.rows.Next() {
	}
	return r.rows.Err()
}

// readers is a fixed number of reading connections; it implements sqlstore.DB
// for any number of goroutines.
type readers struct {
	db     *sql.DB
	idle   chan *conn // nil stands for one that is still to be opened
	closed chan struct{}
	waits  waits
}

// waits counts how often callers had to wait for a connection, and how long.
type waits struct{ count, nanoseconds atomic.Int64 }

func (w *waits) add(since time.Time) {
	w.count.Add(1)
	w.nanoseconds.Add(int64(time.Since(since)))
}

func newReaders(db *sql.DB, n int) *readers {
	r := &readers{db: db, idle: make(chan *conn, n), closed: make(chan struct{})}
	for range n {
		r.idle <- nil
	}
	return r
}

// acquire waits for a connection, which the caller puts back into idle.
func (r *readers) acquire(ctx context.Context) (*conn, error) {
	select {
	case c := <-r.idle:
		return r.opened(c)
	case <-r.closed:
		return nil, errClosed
	default:
	}
	defer r.waits.add(time.Now())
	select {
	case c := <-r.idle:
		return r.opened(c)
	case <-ctx.Done():
		return nil, classify(ctx.Err())
	case <-r.closed:
		return nil, errClosed
	}
}

// opened returns c, or, for nil, a connection that is opened now.
func (r *readers) opened(c *conn) (*conn, error) {
	if c != nil {
		return c, nil
	}
	c, err := connect(r.db)
	if err != nil {
		r.idle <- nil
	}
	return c, err
}

func (r *readers) Exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("write outside a transaction")
}

func (r *readers) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	c, err := r.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return c.query(ctx, func() { r.idle <- c }, query, args)
}

func (r *readers) QueryRow(ctx context.Context, query string, args ...any) sqlstore.Row {
	rows, err := r.Query(ctx, query, args...)
	return row{rows, err}
}

// close waits for the reads under way.
func (r *readers) close() error {
	close(r.closed)
	for range cap(r.idle) {
		if c := <-r.idle; c != nil {
			c.discard()
		}
	}
	return r.db.Close()
}
