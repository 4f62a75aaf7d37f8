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

	"modernc.org/sqlite"
)

var (
	// ErrInUse says that another process has the database file open.
	ErrInUse = errors.New("another process uses the database")
	// ErrDamaged says that a file is no SQLite database, or a damaged one.
	ErrDamaged = errors.New("not a whole SQLite database")
)

// Copy writes a copy of the database file from, which others may go on using,
// to the file to, which must not exist: all of it of one moment, readable by
// its owner only. It calls progress with the pages done. What an error leaves
// behind is to be removed; Settle makes the copy durable.
func Copy(ctx context.Context, from, to string, progress func(done, of int)) error {
	if err := reserve(to); err != nil {
		return err
	}
	source, err := pool(from, true)
	if err != nil {
		return err
	}
	defer source.Close()
	c, err := source.Conn(ctx)
	if err != nil {
		return classify(err)
	}
	defer c.Close()
	// One transaction around all steps: otherwise each write by another process
	// would make the copy begin again. It ends with the connection.
	for _, statement := range []string{`BEGIN`, `SELECT count(*) FROM sqlite_master`} {
		if _, err := c.ExecContext(ctx, statement); err != nil {
			return classify(err)
		}
	}
	return copyOut(ctx, c, to, progress)
}

// reserve makes an empty file that was not there before.
func reserve(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// copier is what the driver's connections can do beside SQL.
type copier interface {
	NewBackup(to string) (*sqlite.Backup, error)
	NewRestore(from string) (*sqlite.Backup, error)
}

func copyOut(ctx context.Context, c *sql.Conn, to string, progress func(done, of int)) error {
	return copyPages(ctx, c, to, copier.NewBackup, progress)
}

func copyPages(ctx context.Context, c *sql.Conn, other string, begin func(copier, string) (*sqlite.Backup, error), progress func(done, of int)) error {
	const step = 1024 // pages between looks at the context
	name, err := dataSource(other, url.Values{})
	if err != nil {
		return err
	}
	return classify(c.Raw(func(driver any) error {
		b, err := begin(driver.(copier), name)
		if err != nil {
			return err
		}
		for more := true; more; {
			err := ctx.Err()
			if err == nil {
				more, err = b.Step(step)
			}
			if err != nil {
				return errors.Join(err, b.Finish())
			}
			progress(b.PageCount()-b.Remaining(), b.PageCount())
		}
		return b.Finish()
	}))
}

// alone returns a connection to a database file that nobody else has open, nor
// can open until done is called, or ErrInUse. What was in the log beside the
// file is in it then.
func alone(ctx context.Context, path string) (c *sql.Conn, done func() error, err error) {
	name, err := dataSource(path, url.Values{"_busy_timeout": {"1000"}})
	if err != nil {
		return nil, nil, err
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, nil, err
	}
	if c, err = db.Conn(ctx); err == nil {
		_, err = c.ExecContext(ctx, `PRAGMA locking_mode=exclusive`)
	}
	mode := "delete"
	if err == nil { // to leave the mode in which readers keep the file open, they have to be gone
		err = c.QueryRowContext(ctx, `PRAGMA journal_mode=delete`).Scan(&mode)
	}
	for _, statement := range []string{`BEGIN EXCLUSIVE`, `COMMIT`} {
		if err == nil {
			_, err = c.ExecContext(ctx, statement)
		}
	}
	switch {
	case busy(err) || err == nil && mode != "delete":
		err = ErrInUse
	case err == nil:
		return c, func() error { return errors.Join(c.Close(), db.Close()) }, nil
	}
	if c != nil {
		_ = c.Close()
	}
	return nil, nil, errors.Join(classify(err), db.Close())
}

// Settle checks every page and reference of a database file, or returns
// ErrDamaged, and leaves it durable and in one piece, without a log beside it.
// ErrInUse when another process has it open.
func Settle(ctx context.Context, path string) error {
	c, done, err := alone(ctx, path)
	if err != nil {
		return err
	}
	if err := errors.Join(check(ctx, c), done()); err != nil {
		return err
	}
	return syncFile(path)
}

func check(ctx context.Context, c *sql.Conn) error {
	var verdict string
	if err := c.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return classify(err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, verdict)
	}
	var table string
	err := c.QueryRowContext(ctx, `SELECT "table" FROM pragma_foreign_key_check LIMIT 1`).Scan(&table)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return classify(err)
	}
	return fmt.Errorf("%w: a row of %s refers to one that is not there", ErrDamaged, table)
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}

// Publish gives a durable file its name, unless something has that: then the
// error is fs.ErrExist.
func Publish(from, to string) error {
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		if _, err := os.Lstat(to); err == nil {
			return fs.ErrExist
		}
		err = os.Rename(from, to)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// Replace puts what is in the database file from, which nobody else has open,
// in the place of what is in the file path, in one transaction, undone if the
// process or the machine dies. What was there is kept in the file aside, which
// must not exist; kept is false when nothing was there. ErrInUse when another
// process has path open.
func Replace(ctx context.Context, path, from, aside string) (kept bool, err error) {
	if err := create(path); err != nil {
		return false, err
	}
	c, done, err := alone(ctx, path)
	if errors.Is(err, ErrDamaged) { // so nobody can be using it
		if err := moveAside(path, aside); err != nil {
			return false, err
		}
		if err := create(path); err != nil {
			return true, err
		}
		kept = true
		c, done, err = alone(ctx, path)
	}
	if err != nil {
		return kept, err
	}
	defer func() { err = errors.Join(err, done()) }()
	var tables int
	if err := c.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master`).Scan(&tables); err != nil {
		return kept, classify(err)
	}
	silent := func(int, int) {}
	if tables > 0 {
		if err := reserve(aside); err != nil {
			return false, err
		}
		if err := errors.Join(copyOut(ctx, c, aside, silent), syncFile(aside)); err != nil {
			return false, errors.Join(err, os.Remove(aside))
		}
		kept = true
	}
	return kept, copyPages(ctx, c, from, copier.NewRestore, silent)
}

// moveAside renames the file and the log that belongs to it.
func moveAside(path, aside string) error {
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// InUse returns ErrInUse when another process has the database file open.
func InUse(ctx context.Context, path string) error {
	_, done, err := alone(ctx, path)
	if err != nil {
		return err
	}
	return done()
}
