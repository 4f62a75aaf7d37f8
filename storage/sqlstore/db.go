// Package sqlstore holds every SQL statement, once, for both engines: `$1`
// parameters in order, RETURNING, ON CONFLICT, integers, text and bytes. An
// engine gives it something that executes statements and translates errors,
// and gets a storage.Reader and a storage.Tx in return.
package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signet-oidc/signet/storage"
)

// DB executes statements: on any connection of a pool, or in a transaction.
// Every error it and its rows return wraps the storage sentinel that applies:
// ErrNotFound when a single row was asked for and there is none, ErrExists and
// ErrReference for a violated unique or foreign key, ErrInvalid for a value
// the database refuses, ErrUnavailable when it could not answer. Arguments are
// string, []byte (never nil) or int64.
type DB interface {
	// Exec returns the number of rows affected.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	Query(ctx context.Context, query string, args ...any) (Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) Row
}

// Rows is the outcome of a query. It must be closed; closing it twice is fine.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

// Row is the outcome of a query for one row.
type Row interface {
	Scan(dest ...any) error
}

// Reader implements storage.Reader.
type Reader struct {
	db guard
}

// NewReader returns the reads, executed by db.
func NewReader(db DB) *Reader {
	return &Reader{guard{DB: db, failed: new(error)}}
}

// Tx implements storage.Tx.
type Tx struct {
	Reader
	// Whether this transaction has these locks.
	registryLocked, logLocked bool
}

// NewTx returns the operations of a transaction that db executes.
func NewTx(db DB) *Tx {
	return &Tx{Reader: Reader{guard{DB: db, failed: new(error), sticky: true}}}
}

// Appended reports whether the transaction added to the revocation log.
func (t *Tx) Appended() bool { return t.logLocked }

// Err returns the error after which the transaction must not be committed.
func (t *Tx) Err() error { return *t.db.failed }

// guard stands before a DB: it turns arguments into what both engines store
// alike, and, in a transaction, refuses to go on after a statement failed
// (as PostgreSQL does anyway, and SQLite does not).
type guard struct {
	DB
	failed *error
	sticky bool
}

func (g guard) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := g.prepare(args); err != nil {
		return 0, err
	}
	n, err := g.DB.Exec(ctx, query, args...)
	return n, g.keep(err)
}

func (g guard) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	if err := g.prepare(args); err != nil {
		return nil, err
	}
	rows, err := g.DB.Query(ctx, query, args...)
	if err != nil {
		return nil, g.keep(err)
	}
	return guardedRows{rows, g}, nil
}

type guardedRows struct {
	Rows
	g guard
}

func (r guardedRows) Err() error { return r.g.keep(r.Rows.Err()) }

func (g guard) QueryRow(ctx context.Context, query string, args ...any) Row {
	if err := g.prepare(args); err != nil {
		return failedRow{err}
	}
	return guardedRow{g, g.DB.QueryRow(ctx, query, args...)}
}

type guardedRow struct {
	g   guard
	row Row
}

func (r guardedRow) Scan(dest ...any) error { return r.g.keep(r.row.Scan(dest...)) }

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

// keep remembers the first error that ends the transaction.
func (g guard) keep(err error) error {
	if g.sticky && err != nil && *g.failed == nil && !errors.Is(err, storage.ErrNotFound) {
		*g.failed = err
	}
	return err
}

// prepare replaces each argument by what is stored for it.
func (g guard) prepare(args []any) error {
	if g.sticky && *g.failed != nil {
		return *g.failed
	}
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			if err := valid(v); err != nil {
				return g.keep(err)
			}
		case []string:
			list, err := encodeList(v)
			if err != nil {
				return g.keep(err)
			}
			args[i] = list
		case []byte:
			if v == nil {
				args[i] = []byte{}
			}
		case time.Time:
			args[i] = millis(v)
		case time.Duration:
			args[i] = v.Milliseconds()
		case bool:
			args[i] = int64(0)
			if v {
				args[i] = int64(1)
			}
		case int:
			args[i] = int64(v)
		}
	}
	return nil
}

// valid refuses the strings that PostgreSQL cannot hold.
func valid(s string) error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return fmt.Errorf("%w: text is not UTF-8 or holds a NUL", storage.ErrInvalid)
	}
	return nil
}

func encodeList(list []string) (string, error) {
	if len(list) == 0 {
		return "[]", nil
	}
	for _, s := range list {
		if err := valid(s); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(list)
	return string(b), err
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Scan targets, the counterparts of prepare.

type timeOf struct{ to *time.Time }

func (d timeOf) Scan(v any) error {
	ms, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time stored as %T", v)
	}
	*d.to = time.Time{}
	if ms != 0 {
		*d.to = time.UnixMilli(ms).UTC()
	}
	return nil
}

type durationOf struct{ to *time.Duration }

func (d durationOf) Scan(v any) error {
	ms, ok := v.(int64)
	if !ok {
		return fmt.Errorf("duration stored as %T", v)
	}
	*d.to = time.Duration(ms) * time.Millisecond
	return nil
}

type boolOf struct{ to *bool }

func (d boolOf) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("boolean stored as %T", v)
	}
	*d.to = n != 0
	return nil
}

type bytesOf struct{ to *[]byte }

func (d bytesOf) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok && v != nil {
		return fmt.Errorf("bytes stored as %T", v)
	}
	*d.to = append([]byte(nil), b...) // the driver's memory is lent
	return nil
}

type listOf struct{ to *[]string }

func (d listOf) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("list stored as %T", v)
	}
	*d.to = nil
	if s == "[]" {
		return nil
	}
	return json.Unmarshal([]byte(s), d.to)
}

// packedOf reads a list that a statement packed into one column: each string as
// its length in characters, a colon and itself, one behind the other. That
// brings the rows that belong to another with it, in both engines.
type packedOf struct{ to *[]string }

func (d packedOf) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("packed list read as %T", v)
	}
	*d.to = nil
	for s != "" {
		length, rest, _ := strings.Cut(s, ":")
		n, err := strconv.Atoi(length)
		if err != nil {
			return fmt.Errorf("packed list: %w", err)
		}
		end := 0
		for ; n > 0 && end < len(rest); n-- {
			_, size := utf8.DecodeRuneInString(rest[end:])
			end += size
		}
		*d.to = append(*d.to, rest[:end])
		s = rest[end:]
	}
	return nil
}

// collect runs a query and gathers its rows.
func collect[T any](ctx context.Context, db DB, scan func(Row, *T) error, query string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return list, nil
}

// scanText scans a row of one text column.
func scanText(row Row, s *string) error { return row.Scan(s) }

// affected turns "no row changed" into ErrNotFound.
func affected(n int64, err error) error {
	if err == nil && n == 0 {
		return storage.ErrNotFound
	}
	return err
}

// consumed turns "no row changed" into ErrConsumed.
func consumed(n int64, err error) error {
	if err == nil && n == 0 {
		return storage.ErrConsumed
	}
	return err
}

// placeholders returns "$first, $first+1, …", n of them.
func placeholders(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(first + i))
	}
	return b.String()
}

// wrap adds what was being done to an error, if there is one.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
