package sqlstore

import (
	"context"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// Observe returns db with an observer that is told of each statement, as the
// given operation, until its rows are closed; or db, where there is none.
func Observe(db DB, o storage.Observer, op storage.Operation) DB {
	if o == nil {
		return db
	}
	return observed{db, o, op}
}

type observed struct {
	db DB
	o  storage.Observer
	op storage.Operation
}

// Exec implements DB.
func (d observed) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	ctx, began := d.o.Begin(ctx, d.op, query)
	n, err := d.db.Exec(ctx, query, args...)
	d.o.End(ctx, d.op, began, err)
	return n, err
}

// Query implements DB.
func (d observed) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	ctx, began := d.o.Begin(ctx, d.op, query)
	rows, err := d.db.Query(ctx, query, args...)
	if err != nil {
		d.o.End(ctx, d.op, began, err)
		return nil, err
	}
	return &observedRows{Rows: rows, by: d, ctx: ctx, began: began}, nil
}

// QueryRow implements DB.
func (d observed) QueryRow(ctx context.Context, query string, args ...any) Row {
	ctx, began := d.o.Begin(ctx, d.op, query)
	return observedRow{d.db.QueryRow(ctx, query, args...), d, ctx, began}
}

type observedRows struct {
	Rows
	by     observed
	ctx    context.Context
	began  time.Time
	closed bool
}

func (r *observedRows) Close() {
	r.Rows.Close()
	if !r.closed {
		r.closed = true
		r.by.o.End(r.ctx, r.by.op, r.began, r.Rows.Err())
	}
}

type observedRow struct {
	row   Row
	by    observed
	ctx   context.Context
	began time.Time
}

func (r observedRow) Scan(dest ...any) error {
	err := r.row.Scan(dest...)
	r.by.o.End(r.ctx, r.by.op, r.began, err)
	return err
}
