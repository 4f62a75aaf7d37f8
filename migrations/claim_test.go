package migrations

import (
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/signet-oidc/signet/storage/sqlite"
)

// A migration of data has no table that "exists already" to stop a second
// process: only the record does.
func TestDataMigrationOnce(t *testing.T) {
	dir := fstest.MapFS{
		"00001_counter.sql": {Data: []byte("-- +goose Up\nCREATE TABLE counter (n INTEGER NOT NULL);\nINSERT INTO counter VALUES (0);\n")},
		"00002_add.sql":     {Data: []byte("-- +goose Up\nUPDATE counter SET n = n + 1;\n")},
		"00003_add.sql":     {Data: []byte("-- +goose Up\nUPDATE counter SET n = n + 10;\n")},
	}
	for range 10 {
		path := filepath.Join(t.TempDir(), "x.db")
		var running sync.WaitGroup
		for range 8 {
			running.Go(func() {
				db, err := sqlite.DB(path)
				if err != nil {
					t.Error(err)
					return
				}
				defer db.Close()
				m, err := openDir(db, SQLite, dir)
				if err != nil {
					t.Error(err)
					return
				}
				if err := m.up(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		db, err := sqlite.DB(path)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT n FROM counter`).Scan(&n); err != nil || n != 11 {
			t.Errorf("the counter is %d, %v; want 11", n, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
