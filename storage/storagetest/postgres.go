//go:build unix

package storagetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/signet-oidc/signet/migrations"
)

// Environment names the variable with the URL of a throwaway server whose user
// may create databases. Main and the command storagetest/pg set it.
const Environment = "SIGNET_TEST_POSTGRES"

// Main runs a package's tests with one throwaway PostgreSQL for all of them,
// unless Environment names one. For use in TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }
//
// Its commits do not wait for the disk: these tests are about behaviour. Those
// about durability, and benchmarks, start a server of their own.
func Main(m *testing.M) int {
	if os.Getenv(Environment) != "" {
		return m.Run()
	}
	server, err := StartServer(ServerOptions{NoSync: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if err := os.Setenv(Environment, server.URL("postgres")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Postgres returns the URL of a fresh, migrated database, which goes when the
// test ends. It is on the server that Environment names; without one it starts
// a server for this test alone, and fails the test where it cannot.
func Postgres(t testing.TB) string {
	t.Helper()
	server := serverFor(t)
	template, err := migratedTemplate(t.Context(), server)
	if err != nil {
		t.Fatalf("prepare PostgreSQL: %v", err)
	}
	return createDatabase(t, server, template)
}

// EmptyPostgres is Postgres without the schema.
func EmptyPostgres(t testing.TB) string {
	t.Helper()
	return createDatabase(t, serverFor(t), "template0")
}

func serverFor(t testing.TB) string {
	t.Helper()
	if u := os.Getenv(Environment); u != "" {
		return u
	}
	server, err := StartServer(ServerOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server.URL("postgres")
}

func createDatabase(t testing.TB, server, template string) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	if err := command(t.Context(), server, `CREATE DATABASE `+name+` TEMPLATE `+template); err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	t.Cleanup(func() {
		// The test's context is done by now.
		if err := command(context.Background(), server, `DROP DATABASE `+name+` WITH (FORCE)`); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return withDatabase(server, name)
}

// migratedTemplate returns the name of a database with the current schema, to
// copy; whichever test process comes first makes it.
func migratedTemplate(ctx context.Context, server string) (string, error) {
	sum := sha256.New()
	if err := migrations.WriteTo(sum, migrations.Postgres); err != nil {
		return "", err
	}
	name := fmt.Sprintf("template_%x", sum.Sum(nil)[:8])

	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx) // and with it the lock
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(crc32.ChecksumIEEE([]byte(name)))); err != nil {
		return "", err
	}
	var ready bool
	if err := conn.QueryRow(ctx, `SELECT count(*) > 0 FROM pg_database WHERE datname = $1`, name).Scan(&ready); err != nil || ready {
		return name, err
	}
	draft := name + "_draft"
	for _, query := range []string{`DROP DATABASE IF EXISTS ` + draft, `CREATE DATABASE ` + draft + ` TEMPLATE template0`} {
		if _, err := conn.Exec(ctx, query); err != nil {
			return "", err
		}
	}
	if err := migrate(ctx, withDatabase(server, draft)); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, `ALTER DATABASE `+draft+` RENAME TO `+name)
	return name, err
}

func migrate(ctx context.Context, address string) error {
	cfg, err := pgx.ParseConfig(address)
	if err != nil {
		return err
	}
	var db *sql.DB = stdlib.OpenDB(*cfg)
	defer db.Close()
	return migrations.Up(ctx, db, migrations.Postgres, nil)
}

func command(ctx context.Context, server, query string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, query)
	return err
}

func withDatabase(server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		panic(err) // pgx has connected with it
	}
	u.Path = "/" + name
	return u.String()
}
