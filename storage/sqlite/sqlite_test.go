package sqlite_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// migrated returns the path of a database file with the schema.
func migrated(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signet.db")
	db, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := migrations.Up(t.Context(), db, migrations.SQLite, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return open(t, migrated(t)) })
}

// Commands that begin together make one file, as `signet serve &` and a create
// command after it do: whoever is second waits while the first turns the new
// file into a WAL database, where SQLite itself may answer "busy" at once.
func TestMadeByTwoAtOnce(t *testing.T) {
	for range 150 {
		path := filepath.Join(t.TempDir(), "signet.db")
		begin, ended := make(chan struct{}), make(chan error)
		for range 3 {
			go func() {
				<-begin
				db, err := sqlite.DB(path)
				if err == nil {
					_, err = db.ExecContext(t.Context(), `CREATE TABLE IF NOT EXISTS t (n INTEGER)`)
					err = errors.Join(err, db.Close())
				}
				ended <- err
			}()
		}
		close(begin)
		for range 3 {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
	}
}
