package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

// open returns a connection as the programs make it; address is a URL or a path.
func open(t testing.TB, engine migrations.Engine, address string) *sql.DB {
	t.Helper()
	connect := postgres.DB
	if engine == migrations.SQLite {
		connect = sqlite.DB
	}
	db, err := connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// empty returns the address of an empty database.
func empty(t testing.TB, engine migrations.Engine) string {
	t.Helper()
	if engine == migrations.SQLite {
		return filepath.Join(t.TempDir(), "signet.db")
	}
	return storagetest.EmptyPostgres(t)
}

func both(t *testing.T, test func(t *testing.T, engine migrations.Engine)) {
	for _, engine := range []migrations.Engine{migrations.Postgres, migrations.SQLite} {
		t.Run(string(engine), func(t *testing.T) { test(t, engine) })
	}
}

func TestUp(t *testing.T) {
	both(t, func(t *testing.T, engine migrations.Engine) {
		db := open(t, engine, empty(t, engine))
		before, err := migrations.Status(t.Context(), db, engine)
		if err != nil || before.Current != 0 || before.Target < 1 || len(before.Pending) == 0 || before.Pending[0] != "00001_foundation.sql" {
			t.Fatalf("status before: %+v, %v", before, err)
		}
		if tables := schema(t, engine, db); len(tables) != 0 {
			t.Errorf("asking for the status made %v", tables)
		}
		var applied []string
		var told []migrations.ProgressState
		progress := func(p migrations.Progress) {
			if told = append(told, p.State); p.State == migrations.Applied {
				applied = append(applied, p.Name)
			}
		}
		for range 2 { // the second time there is nothing to do
			if err := migrations.Up(t.Context(), db, engine, progress); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(applied, before.Pending) {
			t.Errorf("applied %v, want %v", applied, before.Pending)
		}
		if want := slices.Repeat([]migrations.ProgressState{migrations.Begun, migrations.Applied}, len(applied)); !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		after, err := migrations.Status(t.Context(), db, engine)
		if err != nil || after.Current != after.Target || after.Current != before.Target || len(after.Pending) != 0 {
			t.Errorf("status after: %+v, %v", after, err)
		}
	})
}

func TestNewer(t *testing.T) {
	both(t, func(t *testing.T, engine migrations.Engine) {
		db := open(t, engine, empty(t, engine))
		if err := migrations.Up(t.Context(), db, engine, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)`); err != nil {
			t.Fatal(err)
		}
		before := schema(t, engine, db)
		state, err := migrations.Status(t.Context(), db, engine)
		if !errors.Is(err, migrations.ErrNewer) || state.Current != 99 {
			t.Errorf("status: %+v, %v", state, err)
		}
		err = migrations.Up(t.Context(), db, engine, nil)
		if !errors.Is(err, migrations.ErrNewer) {
			t.Fatalf("up: %v", err)
		}
		for _, part := range []string{"version 99", fmt.Sprintf("version %d", state.Target)} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error does not say %q: %v", part, err)
			}
		}
		if after := schema(t, engine, db); !slices.Equal(before, after) {
			t.Errorf("a newer database was changed")
		}
	})
}

// Goroutines with connections of their own, and other processes, migrate one
// database at once: all succeed, and each migration is applied by one of them.
func TestTogether(t *testing.T) {
	if engine := migrations.Engine(os.Getenv("SIGNET_TEST_ENGINE")); engine != "" { // one of the processes
		db := open(t, engine, os.Getenv("SIGNET_TEST_DATABASE"))
		if err := migrations.Up(t.Context(), db, engine, func(p migrations.Progress) { fmt.Println(p.State, p.Name) }); err != nil {
			t.Fatal(err)
		}
		return
	}
	both(t, func(t *testing.T, engine migrations.Engine) {
		address := empty(t, engine)
		want, err := migrations.Status(t.Context(), open(t, engine, address), engine)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var applied []string
		record := func(names ...string) {
			mu.Lock()
			defer mu.Unlock()
			applied = append(applied, names...)
		}
		var running sync.WaitGroup
		for range 4 {
			db := open(t, engine, address)
			running.Go(func() {
				if err := migrations.Up(t.Context(), db, engine, func(p migrations.Progress) {
					if p.State == migrations.Applied {
						record(p.Name)
					}
				}); err != nil {
					t.Error(err)
				}
			})
		}
		for range 2 {
			running.Go(func() {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTogether$", "-test.v")
				cmd.Env = append(os.Environ(), "SIGNET_TEST_ENGINE="+string(engine), "SIGNET_TEST_DATABASE="+address)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				for _, m := range regexp.MustCompile(`applied (\S+)`).FindAllStringSubmatch(string(out), -1) {
					record(m[1])
				}
			})
		}
		running.Wait()
		slices.Sort(applied)
		if !slices.Equal(applied, want.Pending) {
			t.Errorf("applied %v, want each of %v once", applied, want.Pending)
		}
	})
}

// Both engines have the same tables, columns and indexes, in the same order.
func TestEnginesAgree(t *testing.T) {
	schemas := map[migrations.Engine][]string{}
	both(t, func(t *testing.T, engine migrations.Engine) {
		db := open(t, engine, empty(t, engine))
		if err := migrations.Up(t.Context(), db, engine, nil); err != nil {
			t.Fatal(err)
		}
		schemas[engine] = schema(t, engine, db)
	})
	a, b := schemas[migrations.Postgres], schemas[migrations.SQLite]
	if len(a) < 100 {
		t.Errorf("the schema has only %d lines: %v", len(a), a)
	}
	for _, line := range a {
		if !slices.Contains(b, line) {
			t.Errorf("only in PostgreSQL: %s", line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			t.Errorf("only in SQLite: %s", line)
		}
	}
}

// schema describes tables and indexes, a line each, in words that both engines share.
func schema(t *testing.T, engine migrations.Engine, db *sql.DB) []string {
	t.Helper()
	queries := []string{
		`SELECT 'column ' || m.name || '.' || c.cid || ' ' || c.name || ' ' || CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'BLOB' THEN 'bytea' ELSE lower(c.type) END
			|| CASE WHEN c."notnull" = 1 OR c.pk > 0 THEN ' not null' ELSE '' END
		FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table' AND m.name NOT LIKE 'goose%' AND m.name NOT LIKE 'sqlite%'`,
		`SELECT 'index on ' || m.name || CASE i."unique" WHEN 1 THEN ' unique' ELSE '' END || CASE i.partial WHEN 1 THEN ' partial' ELSE '' END || ' ('
			|| (SELECT group_concat(x.name, ', ') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno) AS x) || ')'
		FROM sqlite_master AS m, pragma_index_list(m.name) AS i WHERE m.type = 'table' AND m.name NOT LIKE 'goose%'`,
		// The key of an INTEGER PRIMARY KEY table is the table itself.
		`SELECT 'index on ' || m.name || ' unique (' || c.name || ')'
		FROM sqlite_master AS m, pragma_table_info(m.name) AS c
		WHERE m.type = 'table' AND m.name NOT LIKE 'goose%' AND m.name NOT LIKE 'sqlite%' AND c.pk = 1 AND c.type = 'INTEGER'`,
		`SELECT 'reference ' || m.name || '.' || f."from" || ' ' || f."table" || '.' || f."to" || ' ' || lower(f.on_delete)
		FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'`,
	}
	if engine == migrations.Postgres {
		queries = []string{
			`SELECT 'column ' || c.relname || '.' || (row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum) - 1) || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
				|| CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
			FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
			WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND c.relname NOT LIKE 'goose%'`,
			`SELECT 'index on ' || c.relname || CASE WHEN i.indisunique THEN ' unique' ELSE '' END || CASE WHEN i.indpred IS NOT NULL THEN ' partial' ELSE '' END || ' ('
				|| (SELECT string_agg(a.attname, ', ' ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY AS k(num, n)
					JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.num) || ')'
			FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
			WHERE c.relnamespace = current_schema()::regnamespace AND c.relname NOT LIKE 'goose%'`,
			`SELECT 'reference ' || conrelid::regclass || '.' || a.attname || ' ' || confrelid::regclass || '.' || b.attname
				|| CASE confdeltype WHEN 'c' THEN ' cascade' ELSE ' no action' END
			FROM pg_constraint JOIN pg_attribute AS a ON a.attrelid = conrelid AND a.attnum = conkey[1]
			JOIN pg_attribute AS b ON b.attrelid = confrelid AND b.attnum = confkey[1]
			WHERE contype = 'f' AND connamespace = current_schema()::regnamespace`,
		}
	}
	var lines []string
	for _, query := range queries {
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(lines)
	return lines
}

// The files have the same numbers and names.
func TestFilesAgree(t *testing.T) {
	names := func(engine string) (names []string) {
		files, err := filepath.Glob(engine + "/*.sql")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", engine, files, err)
		}
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		return names
	}
	if a, b := names("postgres"), names("sqlite"); !slices.Equal(a, b) {
		t.Errorf("postgres has %v, sqlite has %v", a, b)
	}
}

func TestCancelled(t *testing.T) {
	both(t, func(t *testing.T, engine migrations.Engine) {
		db := open(t, engine, empty(t, engine))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := migrations.Up(ctx, db, engine, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("up: %v", err)
		}
		if err := migrations.Up(t.Context(), db, engine, nil); err != nil {
			t.Errorf("up, after one that was cancelled: %v", err)
		}
	})
}
