// Package sqlite executes sqlstore's statements on one SQLite file: readers
// side by side, and one writer that commits concurrent updates together, so
// that they share the wait for the disk. Other processes may use the file at
// the same time. It holds no statement about our tables.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlstore"
)

// busyTimeout is how long a connection waits for another process's write.
const busyTimeout = 4 * time.Second

// Options are settings of a store. The zero value is a good choice.
type Options struct {
	// Readers is the number of connections that read; 0 means the number of
	// CPUs, but at least 4.
	Readers int
	// Observer, unless nil, is told of what is done.
	Observer storage.Observer
}

// Store implements storage.Store.
type Store struct {
	*sqlstore.Reader
	readers  *readers
	writer   *writer
	observer storage.Observer // or nil
	close    func() error     // once
}

// Open opens the database file, and creates it, readable by its owner only,
// where there is none; a directory that is missing is made with mode 0700.
// The schema is not touched. The error wraps storage.ErrUnavailable when the
// file cannot be opened.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	if opts.Readers <= 0 {
		opts.Readers = max(4, runtime.NumCPU())
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	write, err := pool(path, false)
	if err != nil {
		return nil, err
	}
	read, err := pool(path, true)
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	s := &Store{readers: newReaders(read, opts.Readers), writer: newWriter(write, opts.Observer), observer: opts.Observer}
	s.close = sync.OnceValue(func() error { return errors.Join(s.writer.close(), s.readers.close()) })
	s.Reader = sqlstore.NewReader(sqlstore.Observe(s.readers, opts.Observer, storage.OpRead))
	// The writer goes first: it makes the file a WAL database.
	if err := s.writer.check(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.Close())
	}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.Close())
	}
	return s, nil
}

// DB opens the database file, as Open does, for the migrations: one connection
// whose transactions are immediate. The caller closes it.
func DB(path string) (*sql.DB, error) {
	if err := create(path); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	db, err := pool(path, false)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	// Two commands that make the file at the same time are in each other's way.
	c, err := connect(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := c.Close(); err != nil { // back to the pool
		return nil, errors.Join(classify(err), db.Close())
	}
	return db, nil
}

// Unavailable wraps err in storage.ErrUnavailable when that is what it means.
// It is for errors of the *sql.DB that DB returned.
func Unavailable(err error) error { return classify(err) }

// pool returns connections to the file with every setting they need.
func pool(path string, readOnly bool) (*sql.DB, error) {
	query := url.Values{
		"_txlock":       {"immediate"},
		"_dqs":          {"0"},
		"_defensive":    {"1"},
		"_busy_timeout": {fmt.Sprint(busyTimeout.Milliseconds())},
		"_pragma":       {"journal_size_limit(67108864)"},
		"_foreign_keys": {"on"},
	}
	if readOnly {
		query.Set("_query_only", "on")
	} else {
		query.Set("_journal_mode", "wal")
	}
	name, err := dataSource(path, query)
	if err != nil {
		return nil, err
	}
	connector, err := sqlite.NewConnector(name)
	if err != nil {
		return nil, fmt.Errorf("database path: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(64) // never close a connection for being idle
	return db, nil
}

// dataSource names the file, which exists, for the driver.
func dataSource(path string, query url.Values) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("database path: %w", err)
	}
	query.Set("mode", "rw")
	query.Set("_synchronous", "full") // a commit that was answered survives a power cut
	slashed := filepath.ToSlash(abs)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/… becomes file:///C:/…
	}
	name := url.URL{Scheme: "file", Path: slashed, RawQuery: query.Encode()}
	return name.String(), nil
}

// create makes the file and its directory, durably, if they do not exist.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// Both names must be on disk before the first commit is.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there, and need not be
	}
	d, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil // not ours, so not made by us either
		}
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, tx storage.Tx) error) error {
	return storage.Observed(ctx, s.observer, storage.OpUpdate, func(ctx context.Context) error { return s.writer.update(ctx, fn) })
}

// View implements storage.Store. A read transaction of SQLite sees the file as
// it was at its first read.
func (s *Store) View(ctx context.Context, fn func(ctx context.Context, r storage.Reader) error) error {
	return storage.Observed(ctx, s.observer, storage.OpView, func(ctx context.Context) error { return s.view(ctx, fn) })
}

func (s *Store) view(ctx context.Context, fn func(ctx context.Context, r storage.Reader) error) error {
	c, err := s.readers.acquire(ctx)
	if err != nil {
		return err
	}
	defer func() { s.readers.idle <- c }()
	if _, err := c.Exec(ctx, `BEGIN`); err != nil {
		c.discard()
		c = nil
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if _, err := c.Exec(context.WithoutCancel(ctx), `COMMIT`); err != nil {
			c.discard()
			c = nil // another is opened in its place
		}
	}()
	return fn(ctx, sqlstore.NewReader(sqlstore.Observe(c, s.observer, storage.OpStatement)))
}

// otherProcesses is how often Changes looks for what others appended.
const otherProcesses = 100 * time.Millisecond

// Changes implements storage.Store: at once for what this Store appends; what
// other processes append is looked for often, for SQLite tells nobody.
func (s *Store) Changes(ctx context.Context) <-chan struct{} {
	changes := make(chan struct{}, 1)
	tell := func() {
		select {
		case changes <- struct{}{}:
		default: // one that is not read yet says as much
		}
	}
	leave := s.writer.onAppend(tell)
	unseen := sqlstore.NewReader(s.readers) // no figures for what is asked so often
	go func() {
		defer leave()
		tick := time.NewTicker(otherProcesses)
		defer tick.Stop()
		var seen storage.RevocationLog
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			log, err := unseen.RevocationLog(ctx)
			if err == nil && (log.Seq != seen.Seq || log.FeedID != seen.FeedID) {
				seen = log
				tell()
			}
		}
	}()
	return changes
}

// Now implements storage.Store. The one process that serves this file shares
// its clock with it.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := s.Ping(ctx); err != nil {
		return time.Time{}, err
	}
	return time.Now().UTC(), nil
}

// Ping implements storage.Store.
func (s *Store) Ping(ctx context.Context) error {
	var n int64
	if err := s.readers.QueryRow(ctx, `SELECT count(*) FROM sqlite_master`).Scan(&n); err != nil {
		return fmt.Errorf("reach the database: %w", err)
	}
	return nil
}

// Load implements storage.Store: of the readers, and of the writer, which every
// update under way waits for or has.
func (s *Store) Load() storage.Load {
	idle := len(s.readers.idle)
	return storage.Load{
		Limit: cap(s.readers.idle) + 1, Open: s.readers.db.Stats().OpenConnections + s.writer.db.Stats().OpenConnections,
		Busy:   cap(s.readers.idle) - idle + int(s.writer.busy.Load()),
		Waits:  s.readers.waits.count.Load() + s.writer.waits.count.Load(),
		Waited: time.Duration(s.readers.waits.nanoseconds.Load() + s.writer.waits.nanoseconds.Load()),
	}
}

// Close implements storage.Store. It waits for the calls under way.
func (s *Store) Close() error {
	return s.close()
}
