// Package postgres executes sqlstore's statements on PostgreSQL through a
// native pgx pool, and says which of its failures mean what. It holds no
// statement about our tables.
package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlstore"
)

const (
	defaultMaxConns = 16

	// A call ends within callTimeout whatever the network does, so that "down"
	// is noticed while somebody still waits for the answer; the server gives
	// up a little earlier, which keeps the connection.
	callTimeout      = 5 * time.Second
	statementTimeout = 4 * time.Second
	connectTimeout   = 3 * time.Second
	// viewTimeout bounds View, which may read a million rows.
	viewTimeout = time.Minute

	// Lost races (deadlock, serialization) are tried again this often.
	maxAttempts = 5
)

// Options are settings of a pool. The zero value is a good choice.
type Options struct {
	// MaxConns limits the pool; 0 means the URL's pool_max_conns, or 16.
	MaxConns int
	// Observer, unless nil, is told of what is done.
	Observer storage.Observer
	// Server says that this is a server's pool, for Serving to see.
	Server bool
}

// serverName is the application_name of servers' sessions.
const serverName = "signet serve"

// Store implements storage.Store.
type Store struct {
	*sqlstore.Reader
	pool     *pgxpool.Pool
	observer storage.Observer // or nil
}

// Open connects to the database that the URL (or keyword/value string) names.
// libpq's parameters and environment variables work, as do pgxpool's pool_*
// parameters; behind a transaction-mode pooler that cannot keep prepared
// statements, add default_query_exec_mode=exec. The schema is not touched.
// The error wraps storage.ErrUnavailable when no connection can be made, and
// never contains the password.
func Open(ctx context.Context, url string, opts Options) (*Store, error) {
	cfg, err := poolConfig(url, opts)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{
		Reader: sqlstore.NewReader(sqlstore.Observe(executor{pool, callTimeout}, opts.Observer, storage.OpRead)),
		pool:   pool, observer: opts.Observer,
	}
	if err := s.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// migrationLockTimeout is how long a migration waits for a lock. Requests queue
// up behind it meanwhile, though they would get on with who holds the lock.
const migrationLockTimeout = time.Second

// DB opens the database for the migrations, without time limits but one: a
// statement that does not get its lock within a second fails. The caller closes it.
func DB(url string) (*sql.DB, error) {
	cfg, err := connConfig(url)
	if err != nil {
		return nil, err
	}
	// Whenever a connection is taken, because a migration may have changed it.
	limit := stdlib.OptionResetSession(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf(`SET lock_timeout = %d`, migrationLockTimeout.Milliseconds()))
		return err
	})
	return stdlib.OpenDB(*cfg, limit), nil
}

// Unavailable wraps err in storage.ErrUnavailable when that is what it means.
// It is for errors of the *sql.DB that DB returned.
func Unavailable(err error) error { return classify(err) }

// Serving returns how many sessions of servers, opened with Options.Server,
// there are in the database that DB opened. It does not see those whose URL or
// PGAPPNAME gives an application_name, nor those that a pooler renamed.
func Serving(ctx context.Context, db *sql.DB) (int, error) {
	var n int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, serverName).Scan(&n)
	if err != nil {
		return 0, classify(fmt.Errorf("sessions: %w", err))
	}
	return n, nil
}

func connConfig(url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err) // pgx leaves the password out
	}
	harden(cfg)
	return cfg, nil
}

func harden(cfg *pgx.ConnConfig) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	// A standby's answer may be older than a revocation: only a primary will do.
	if cfg.ValidateConnect == nil {
		cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	setDefault(cfg, "application_name", "signet")
	// An answered commit must be on disk, whatever this role's default is.
	after := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if after != nil {
			if err := after(ctx, conn); err != nil {
				return err
			}
		}
		return conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false)
			WHERE current_setting('synchronous_commit') = 'off'`).Close()
	}
}

func setDefault(cfg *pgx.ConnConfig, name, value string) {
	if _, set := cfg.RuntimeParams[name]; !set {
		cfg.RuntimeParams[name] = value
	}
}

func poolConfig(url string, opts Options) (*pgxpool.Config, error) {
	conn, err := connConfig(url)
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	_, sized := conn.RuntimeParams["pool_max_conns"]
	switch {
	case opts.MaxConns > 0:
		cfg.MaxConns = int32(opts.MaxConns)
	case !sized:
		cfg.MaxConns = defaultMaxConns
	}
	if opts.Server {
		setDefault(cfg.ConnConfig, "application_name", serverName)
	}
	harden(cfg.ConnConfig)
	cfg.ConnConfig.DialFunc = newDialer(cfg.ConnConfig.DialFunc).DialContext
	// A server that has become read-only is not the primary any more: the next
	// connection finds the one that is.
	before := cfg.ConnConfig.OnPgError
	cfg.ConnConfig.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Code != readOnly && (before == nil || before(conn, err))
	}
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	setDefault(cfg.ConnConfig, "statement_timeout", millis(statementTimeout))
	setDefault(cfg.ConnConfig, "idle_in_transaction_session_timeout", millis(2*callTimeout))
	cfg.MaxConnLifetimeJitter = cfg.MaxConnLifetime / 10
	cfg.MaxConnIdleTime = min(cfg.MaxConnIdleTime, 10*time.Minute)
	cfg.PingTimeout = connectTimeout
	return cfg, nil
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, tx storage.Tx) error) error {
	return storage.Observed(ctx, s.observer, storage.OpUpdate, func(ctx context.Context) error { return s.update(ctx, fn) })
}

func (s *Store) update(ctx context.Context, fn func(ctx context.Context, tx storage.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := s.attempt(ctx, fn)
		if !lostRace(err) {
			return classify(err)
		}
		if attempt == maxAttempts {
			return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
		}
		pause := time.Duration(1+rand.IntN(5<<attempt)) * time.Millisecond
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return classify(ctx.Err())
		}
	}
}

func (s *Store) attempt(ctx context.Context, fn func(ctx context.Context, tx storage.Tx) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	t := &transaction{conn: conn}
	defer t.end(ctx) // whatever fn does
	tx := sqlstore.NewTx(sqlstore.Observe(executor{t, 0}, s.observer, storage.OpStatement))
	err = fn(ctx, tx)
	if err == nil {
		err = tx.Err()
	}
	if err == nil && tx.Appended() {
		err = announce(ctx, t)
	}
	if err != nil {
		return err
	}
	return t.commit(ctx)
}

// View implements storage.Store.
func (s *Store) View(ctx context.Context, fn func(ctx context.Context, r storage.Reader) error) error {
	return storage.Observed(ctx, s.observer, storage.OpView, func(ctx context.Context) error { return s.view(ctx, fn) })
}

func (s *Store) view(ctx context.Context, fn func(ctx context.Context, r storage.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return classify(pgx.BeginTxFunc(ctx, s.pool, opts, func(ptx pgx.Tx) error {
		limit := strconv.FormatInt(viewTimeout.Milliseconds(), 10)
		if _, err := ptx.Exec(ctx, `SELECT set_config('statement_timeout', $1, true)`, limit); err != nil {
			return err
		}
		return fn(ctx, sqlstore.NewReader(sqlstore.Observe(executor{ptx, 0}, s.observer, storage.OpStatement)))
	}))
}

// Now implements storage.Store.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var now time.Time
	if err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return time.Time{}, fmt.Errorf("read the database's clock: %w", classify(err))
	}
	return now.UTC(), nil
}

// Ping implements storage.Store.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("reach the database: %w", classify(err))
	}
	return nil
}

// Load implements storage.Store.
func (s *Store) Load() storage.Load {
	stat := s.pool.Stat()
	return storage.Load{
		Limit: int(stat.MaxConns()), Open: int(stat.TotalConns()), Busy: int(stat.AcquiredConns()),
		Waits: stat.EmptyAcquireCount(), Waited: stat.EmptyAcquireWaitTime(),
	}
}

// Close implements storage.Store.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

// executor implements sqlstore.DB. Each call is limited by timeout, unless it
// is 0 because the context has a limit already.
type executor struct {
	q       querier
	timeout time.Duration
}

func (e executor) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if e.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, e.timeout)
}

func (e executor) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	ctx, cancel := e.limit(ctx)
	defer cancel()
	tag, err := e.q.Exec(ctx, query, args...)
	return tag.RowsAffected(), classify(err)
}

func (e executor) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	ctx, cancel := e.limit(ctx)
	r, err := e.q.Query(ctx, query, args...)
	if err != nil {
		cancel()
		return nil, classify(err)
	}
	return rows{r, cancel}, nil
}

func (e executor) QueryRow(ctx context.Context, query string, args ...any) sqlstore.Row {
	ctx, cancel := e.limit(ctx)
	return row{e.q.QueryRow(ctx, query, args...), cancel}
}

type rows struct {
	pgx.Rows
	cancel context.CancelFunc
}

func (r rows) Scan(dest ...any) error { return classify(r.Rows.Scan(dest...)) }
func (r rows) Err() error             { return classify(r.Rows.Err()) }

func (r rows) Close() {
	r.Rows.Close()
	r.cancel()
}

type row struct {
	pgx.Row
	cancel context.CancelFunc
}

func (r row) Scan(dest ...any) error {
	defer r.cancel()
	return classify(r.Row.Scan(dest...))
}
