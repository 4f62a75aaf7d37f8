// Package migrations holds the schema of both engines as numbered files, the
// same numbers and names for each, and applies them. A migration leaves the
// previous release working.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Engine is a kind of database: Postgres or SQLite.
type Engine string

// The engines, named after the folders of their files.
const (
	Postgres Engine = "postgres"
	SQLite   Engine = "sqlite"
)

// ErrNewer says that the database was migrated by a newer release.
var ErrNewer = errors.New("the database's schema is newer than this program")

const versionTable = "goose_db_version"

// State says how far a database's schema is.
type State struct {
	Current int64    // the newest migration it has; 0 for an empty database
	Target  int64    // the newest migration this program has
	Pending []string // file names, in the order in which Up applies them
}

// Progress is what Up tells of one migration, as soon as it knows.
type Progress struct {
	Name     string
	State    ProgressState
	Duration time.Duration // once it is Applied
}

// ProgressState is how far a migration is.
type ProgressState string

// A migration is Begun, may be Waiting for a lock that a transaction of
// somebody else's holds, any number of times, and is Applied in the end.
const (
	Begun   ProgressState = "begun"
	Waiting ProgressState = "waiting"
	Applied ProgressState = "applied"
)

// Status reads how far the schema is and changes nothing. The error wraps
// ErrNewer, beside a complete State, when the database is ahead of this program.
func Status(ctx context.Context, db *sql.DB, engine Engine) (State, error) {
	m, err := open(db, engine)
	if err != nil {
		return State{}, err
	}
	return m.status(ctx)
}

// Up applies what is pending, one migration after the other, and tells progress,
// unless it is nil. Any number of processes may call it at once: each migration
// is applied by one of them. A migration that does not get a lock soon is tried
// again until ctx ends, so that requests do not have to wait behind it. ErrNewer
// when the database is ahead of this program, which then changes nothing.
func Up(ctx context.Context, db *sql.DB, engine Engine, progress func(Progress)) error {
	m, err := open(db, engine)
	if err != nil {
		return err
	}
	return m.up(ctx, progress)
}

func (m *migrator) up(ctx context.Context, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	var begun int64
	for {
		before, err := m.status(ctx)
		if err != nil || len(before.Pending) == 0 {
			return err
		}
		name := before.Pending[0]
		if begun <= before.Current {
			begun = before.Current + 1
			progress(Progress{Name: name, State: Begun})
		}
		result, err := m.provider.UpByOne(ctx)
		switch {
		case errors.Is(err, goose.ErrNoNextVersion):
			return nil
		case err == nil:
			progress(Progress{path.Base(result.Source.Path), Applied, result.Duration})
			continue
		case lockTimedOut(err):
			progress(Progress{Name: name, State: Waiting})
			select {
			case <-ctx.Done():
				return fmt.Errorf("migrate: %w", ctx.Err())
			case <-time.After(time.Second): // for those who queued up behind it
			}
			continue
		}
		// On SQLite another process may have been first (see claim): then the
		// schema is further than it was, and we go on from there.
		now, statusErr := m.status(ctx)
		if statusErr != nil || now.Current <= before.Current {
			return fmt.Errorf("migrate to version %d: %w", before.Target, err)
		}
	}
}

// lockTimedOut says that PostgreSQL's lock_timeout has passed.
func lockTimedOut(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && e.SQLState() == "55P03" // lock_not_available
}

// migrator is a database seen through its migrations.
type migrator struct {
	db       *sql.DB
	store    store
	provider *goose.Provider
}

// store is goose's record of what was applied.
type store interface {
	database.Store
	TableExists(ctx context.Context, db database.DBTxConn) (bool, error)
}

func open(db *sql.DB, engine Engine) (*migrator, error) {
	dir, err := fs.Sub(files, string(engine))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return openDir(db, engine, dir)
}

func openDir(db *sql.DB, engine Engine, dir fs.FS) (*migrator, error) {
	dialect := goose.DialectPostgres
	if engine == SQLite {
		dialect = goose.DialectSQLite3
	}
	record, err := database.NewStore(dialect, versionTable)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	extended, ok := record.(store)
	if !ok {
		return nil, errors.New("migrations: the version table cannot be looked up")
	}
	m := &migrator{db: db, store: extended}
	var exclusion goose.ProviderOption
	if engine == Postgres {
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600))
		if err != nil {
			return nil, fmt.Errorf("migrations: %w", err)
		}
		exclusion = goose.WithSessionLocker(locker)
	} else {
		m.store = claim{extended}
	}
	options := []goose.ProviderOption{goose.WithStore(m.store), goose.WithDisableGlobalRegistry(true)}
	if exclusion != nil {
		options = append(options, exclusion)
	}
	// With a store of our own, goose wants no dialect.
	m.provider, err = goose.NewProvider("", db, dir, options...)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return m, nil
}

func (m *migrator) status(ctx context.Context) (State, error) {
	var s State
	exists, err := m.store.TableExists(ctx, m.db)
	if err != nil {
		return State{}, fmt.Errorf("read schema version: %w", err)
	}
	if exists {
		s.Current, err = m.store.GetLatestVersion(ctx, m.db)
		if err != nil && !errors.Is(err, database.ErrVersionNotFound) {
			return State{}, fmt.Errorf("read schema version: %w", err)
		}
	}
	for _, source := range m.provider.ListSources() {
		s.Target = source.Version
		if source.Version > s.Current {
			s.Pending = append(s.Pending, path.Base(source.Path))
		}
	}
	if s.Current > s.Target {
		return s, fmt.Errorf("%w: the database is at version %d, this program knows version %d",
			ErrNewer, s.Current, s.Target)
	}
	return s, nil
}

// claim is goose's record in SQLite. It makes the record of a migration unique in SQLite, which has no session
// locks. A migration and its record are one transaction, and transactions that
// write exclude each other, so of two processes that apply the same migration
// the second fails at the record, at the latest, and leaves nothing behind.
type claim struct{ store }

func (c claim) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	if err := c.store.CreateVersionTable(ctx, db); err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, `CREATE UNIQUE INDEX goose_db_version_once ON `+versionTable+` (version_id)`)
	return err
}

func (c claim) TableExists(ctx context.Context, db database.DBTxConn) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1`, versionTable).Scan(&n)
	return n > 0, err
}

// WriteTo writes the text of an engine's migrations, in order, so that a copy
// of a migrated database can be told from one of another schema.
func WriteTo(w io.Writer, engine Engine) error {
	names, err := fs.Glob(files, string(engine)+"/*.sql")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}
