package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// noticed is how long a caller may wait to hear that the database is down.
const noticed = 5 * time.Second

// ownServer starts a server for this test alone, and returns it with the
// address of its migrated database.
func ownServer(t testing.TB) (*storagetest.Server, string) {
	t.Helper()
	server, err := storagetest.StartServer(storagetest.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	address := server.URL("postgres")
	migrate(t, address)
	return server, address
}

func migrate(t testing.TB, address string) {
	t.Helper()
	db, err := postgres.DB(address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := migrations.Up(t.Context(), db, migrations.Postgres, nil); err != nil {
		t.Fatal(err)
	}
}

func set(s storage.Store, ctx context.Context, name, value string) error {
	return s.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, name, value) })
}

// The server crashes under load and comes back. Every success was durable,
// every failure says "unavailable", and nobody reopens anything.
func TestCrashAndRecovery(t *testing.T) {
	server, address := ownServer(t)
	s, err := postgres.Open(t.Context(), address, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var kept sync.Map
	var failures, successes atomic.Int64
	for client := range 8 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("%d-%d", client, n)
				began := time.Now()
				err := set(s, context.WithoutCancel(ctx), name, "v")
				if took := time.Since(began); took > noticed+time.Second {
					t.Errorf("an update took %v to return %v", took, err)
				}
				switch {
				case err == nil:
					kept.Store(name, true)
					successes.Add(1)
				case errors.Is(err, storage.ErrUnavailable):
					failures.Add(1)
				default:
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	waitFor := func(what string, n *atomic.Int64) {
		t.Helper()
		want := n.Load() + 50
		for deadline := time.Now().Add(30 * time.Second); n.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s for 30 s", what)
			}
		}
	}
	for range 3 {
		waitFor("success", &successes)
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		waitFor("failure", &failures)
		began := time.Now()
		if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) || time.Since(began) > noticed {
			t.Errorf("Ping: %v after %v", err, time.Since(began))
		}
		if _, err := s.Setting(t.Context(), "x"); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("read: %v", err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	waitFor("success", &successes)
	stop()
	clients.Wait()
	n := 0
	kept.Range(func(name, _ any) bool {
		n++
		if _, err := s.Setting(t.Context(), name.(string)); err != nil {
			t.Errorf("update %v was answered with success, but: %v", name, err)
		}
		return true
	})
	t.Logf("%d successes, all there; %d failures", n, failures.Load())
}

func TestOpenErrors(t *testing.T) {
	address := storagetest.Postgres(t)
	with := func(change func(*url.URL)) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return u.String()
	}
	const secret = "s3cret-password"
	for _, tt := range []struct {
		name, url   string
		unavailable bool
	}{
		{"nobody listens", "postgres://signet:" + secret + "@127.0.0.1:1/x", true},
		{"wrong password", with(func(u *url.URL) { u.User = url.UserPassword("signet", secret) }), true},
		{"no such database", with(func(u *url.URL) { u.Path = "/none" }), true},
		{"malformed", "postgres://signet:" + secret + "@127.0.0.1:port/x", false},
		{"unknown parameter", with(func(u *url.URL) { u.User = url.UserPassword("signet", secret); u.RawQuery += "&pool_max_conns=many" }), false},
	} {
		began := time.Now()
		s, err := postgres.Open(t.Context(), tt.url, postgres.Options{})
		switch {
		case err == nil:
			_ = s.Close()
			t.Errorf("%s: opened", tt.name)
		case errors.Is(err, storage.ErrUnavailable) != tt.unavailable:
			t.Errorf("%s: %v", tt.name, err)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%s: the error tells the password: %v", tt.name, err)
		case time.Since(began) > noticed:
			t.Errorf("%s: it took %v", tt.name, time.Since(began))
		}
	}
}

// A role or database that trades durability for speed does not decide for us,
// and a read-only one is as good as none.
func TestServerSettings(t *testing.T) {
	address := storagetest.Postgres(t)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	admin, err := postgres.DB(address)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(t.Context(), `ALTER DATABASE `+name+` SET synchronous_commit = off`); err != nil {
		t.Fatal(err)
	}
	fresh, err := postgres.DB(address)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	var setting string
	if err := fresh.QueryRowContext(t.Context(), `SHOW synchronous_commit`).Scan(&setting); err != nil || setting != "on" {
		t.Errorf("synchronous_commit = %q, %v", setting, err)
	}

	s, err := postgres.Open(t.Context(), address, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := admin.ExecContext(t.Context(), `ALTER DATABASE `+name+` SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Open(t.Context(), address, postgres.Options{}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("read-only database: %v", err)
	}
}

// A lock that nobody gives up ends in "unavailable", in time.
func TestStatementTimeout(t *testing.T) {
	address := storagetest.Postgres(t)
	s, err := postgres.Open(t.Context(), address, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other, err := postgres.DB(address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `UPDATE registry_state SET version = version`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.LockRegistry(ctx) })
	if !errors.Is(err, storage.ErrUnavailable) || time.Since(began) > noticed+time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	// The caller's own deadline counts, too.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = s.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.LockRegistry(ctx) })
	if !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("caller's deadline: %v", err)
	}
}

// A key too long for its index is the caller's fault, not the server's.
func TestKeyTooLong(t *testing.T) {
	s := open(t)
	var long strings.Builder // incompressible
	for i := range 4000 {
		fmt.Fprintf(&long, "%x", i*7919)
	}
	if err := set(s, t.Context(), long.String(), ""); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("error = %v, want %v", err, storage.ErrInvalid)
	}
}

// A listener whose connection is cut listens again.
func TestChangesAfterACut(t *testing.T) {
	url := storagetest.Postgres(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := postgres.DB(url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	changes := s.Changes(t.Context())
	told := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(time.Minute):
			t.Fatalf("nothing is announced %s", what)
		}
	}
	told("when it listens")
	for range 2 {
		err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.AppendRevocation(ctx, storage.Revocation{Key: storage.RevocationKey{Kind: "jti", Hash: []byte("h")}, Effect: "block"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		told("of an entry")
		var cut int
		if err := db.QueryRowContext(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&cut); err != nil || cut != 1 {
			t.Fatalf("%d listeners cut, %v", cut, err)
		}
		told("when it listens again: something may have been missed")
	}
}
