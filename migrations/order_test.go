package migrations_test

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
)

// Each migration can be taken back, and applied again to the same schema.
func TestUpDownUp(t *testing.T) {
	both(t, func(t *testing.T, engine migrations.Engine) {
		db := open(t, engine, empty(t, engine))
		state, err := migrations.Status(t.Context(), db, engine)
		if err != nil {
			t.Fatal(err)
		}
		var before []string
		for version := int64(1); version <= state.Target; version++ {
			if err := migrations.UpTo(t.Context(), db, engine, version); err != nil {
				t.Fatal(err)
			}
			after := schema(t, engine, db)
			if err := migrations.DownTo(t.Context(), db, engine, version-1); err != nil {
				t.Fatalf("version %d down: %v", version, err)
			}
			if again := schema(t, engine, db); !slices.Equal(before, again) {
				t.Errorf("version %d taken back leaves another schema: %v", version, differences(before, again))
			}
			if err := migrations.UpTo(t.Context(), db, engine, version); err != nil {
				t.Fatalf("version %d up again: %v", version, err)
			}
			if again := schema(t, engine, db); !slices.Equal(after, again) {
				t.Errorf("version %d applied again makes another schema: %v", version, differences(after, again))
			}
			before = after
		}
	})
}

// differences returns the lines that only one of two schemas has.
func differences(want, got []string) (lines []string) {
	for _, line := range want {
		if !slices.Contains(got, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return lines
}

// A migration that was cut short outside a transaction, its record not
// written, is completed: an index that is not valid is made anew.
func TestCutShort(t *testing.T) {
	db := open(t, migrations.Postgres, empty(t, migrations.Postgres))
	if err := migrations.Up(t.Context(), db, migrations.Postgres, nil); err != nil {
		t.Fatal(err)
	}
	want := schema(t, migrations.Postgres, db)
	for _, statement := range []string{
		`DELETE FROM goose_db_version WHERE version_id >= 4`,
		`UPDATE status_state SET next_index = 7`,
		`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'grants_status_revoked'::regclass`,
		`DROP INDEX users_disabled`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := migrations.UpTo(t.Context(), db, migrations.Postgres, 4); err != nil {
		t.Fatal(err)
	}
	if got := schema(t, migrations.Postgres, db); !slices.Equal(got, want) {
		t.Errorf("another schema: %v", differences(want, got))
	}
	var invalid, next int
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM pg_index WHERE NOT indisvalid), next_index FROM status_state`).Scan(&invalid, &next); err != nil {
		t.Fatal(err)
	}
	if invalid != 0 || next != 7 {
		t.Errorf("%d invalid indexes, next place %d; want 0 and 7", invalid, next)
	}
}

// While a long transaction, a backup's for example, keeps a migration from a
// table, requests that want to read it do not wait behind the migration.
func TestNobodyWaitsBehindAMigration(t *testing.T) {
	address := empty(t, migrations.Postgres)
	db, other := open(t, migrations.Postgres, address), open(t, migrations.Postgres, address)
	if err := migrations.UpTo(t.Context(), db, migrations.Postgres, 2); err != nil {
		t.Fatal(err)
	}
	backup, err := other.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backup.Rollback() }()
	const count = `SELECT count(*) FROM signing_keys`
	var n int
	if err := backup.QueryRowContext(t.Context(), count).Scan(&n); err != nil {
		t.Fatal(err)
	}
	server, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := server.ExecContext(t.Context(), `SET lock_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	waiting, done := make(chan string, 1000), make(chan error, 1)
	go func() {
		done <- migrations.Up(t.Context(), db, migrations.Postgres, func(p migrations.Progress) {
			if p.State == migrations.Waiting {
				waiting <- p.Name
			}
		})
	}()
	for range 2 {
		select {
		case name := <-waiting:
			if name != "00003_key_row_macs.sql" {
				t.Errorf("%s waits", name)
			}
		case err := <-done:
			t.Fatalf("the migration did not wait: %v", err)
		case <-time.After(time.Minute):
			t.Fatal("the migration waits for the lock, and everybody behind it")
		}
		if err := server.QueryRowContext(t.Context(), count).Scan(&n); err != nil {
			t.Errorf("read while the migration waits: %v", err)
		}
	}
	if err := backup.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the migration, once it can: %v", err)
	}
}
