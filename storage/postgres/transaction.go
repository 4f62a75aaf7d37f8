package postgres

import (
	"cmp"
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// transaction is a querier that begins with its first statement, in the same
// round trip: most transactions have one or two.
type transaction struct {
	conn *pgxpool.Conn
	tx   pgx.Tx // nil until then
}

// begin sends the first statement. The results are the statement's; closing
// them leaves the connection to the next one.
func (t *transaction) begin(ctx context.Context, query string, args []any) (pgx.BatchResults, error) {
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	b.Queue(query, args...)
	results := t.conn.SendBatch(ctx, &b)
	t.tx = results.Tx()
	if _, err := results.Exec(); err != nil {
		_ = results.Close() // says the same
		return nil, err
	}
	return results, nil
}

func (t *transaction) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	if t.tx != nil {
		return t.tx.Exec(ctx, query, args...)
	}
	results, err := t.begin(ctx, query, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	return tag, cmp.Or(err, results.Close())
}

func (t *transaction) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	if t.tx != nil {
		return t.tx.Query(ctx, query, args...)
	}
	results, err := t.begin(ctx, query, args)
	if err != nil {
		return nil, err
	}
	r, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return firstRows{r, results}, nil
}

func (t *transaction) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	if t.tx != nil {
		return t.tx.QueryRow(ctx, query, args...)
	}
	results, err := t.begin(ctx, query, args)
	return firstRow{results, err}
}

type firstRows struct {
	pgx.Rows
	results pgx.BatchResults
}

func (r firstRows) Close() {
	r.Rows.Close()
	_ = r.results.Close() // Err has told
}

type firstRow struct {
	results pgx.BatchResults
	err     error
}

func (r firstRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	err := r.results.QueryRow().Scan(dest...)
	return cmp.Or(err, r.results.Close())
}

// commit makes it durable.
func (t *transaction) commit(ctx context.Context) error {
	if t.tx == nil {
		return nil // it did nothing
	}
	return t.tx.Commit(ctx)
}

// end undoes what was not committed and gives the connection back.
func (t *transaction) end(ctx context.Context) {
	if t.tx != nil {
		_ = t.tx.Rollback(ctx) // a connection that cannot do it is closed, which does
	}
	t.conn.Release()
}
