//go:build unix

package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
)

func set(s storage.Store, ctx context.Context, name, value string) error {
	return s.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, name, value) })
}

// The disk fills up under load, and space comes back. A limit on the size of
// files stands in for the disk: it fails the same writes, and needs no rights.
func TestDiskFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	t.Cleanup(func() { signal.Reset(syscall.SIGXFSZ) })
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(n uint64) {
		t.Helper()
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: min(n, before.Cur), Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { limit(before.Cur) })

	path := migrated(t)
	s := open(t, path)
	var kept []string
	value := strings.Repeat("x", 2000)
	fill := func(round int) (failed int) {
		var mu sync.Mutex
		var writers sync.WaitGroup
		for writer := range 16 {
			writers.Go(func() {
				for n := range 40 {
					name := fmt.Sprintf("%d-%d-%d", round, writer, n)
					err := set(s, t.Context(), name, value)
					mu.Lock()
					switch {
					case err == nil:
						kept = append(kept, name)
					case errors.Is(err, storage.ErrUnavailable):
						failed++
					default:
						t.Errorf("update: %v", err)
					}
					mu.Unlock()
				}
			})
		}
		writers.Wait()
		return failed
	}
	for round := range 3 {
		limit(300_000 * uint64(round+1))
		if fill(round) == 0 {
			t.Fatal("the disk never was full")
		}
		if _, err := s.Setting(t.Context(), kept[0]); err != nil {
			t.Errorf("a read while the disk is full: %v", err)
		}
		limit(before.Cur)
		if err := set(s, t.Context(), "recovered", fmt.Sprint(round)); err != nil {
			t.Fatalf("after space came back: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	for _, name := range kept {
		if v, err := s.Setting(t.Context(), name); err != nil || v != value {
			t.Fatalf("update %s was answered with success, but: %v", name, err)
		}
	}
	integrity(t, path)
	t.Logf("%d successes, all there", len(kept))
}

func integrity(t *testing.T, path string) {
	t.Helper()
	db, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity check: %s, %v", verdict, err)
	}
}

// Another process holds the file's write lock: short is waited for, long is
// "unavailable", and the store goes on afterwards.
func TestLockedByAnother(t *testing.T) {
	path := migrated(t)
	s := open(t, path)
	other, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	tx, err := other.BeginTx(t.Context(), nil) // immediate: takes the lock
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ended := make(chan error)
	for range 8 {
		go func() { ended <- set(s, t.Context(), "n", "v") }()
	}
	for range 8 {
		if err := <-ended; !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("error = %v, want %v", err, storage.ErrUnavailable)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("8 updates took %v to give up: they wait one after the other", took)
	}
	if _, err := s.RegistryVersion(t.Context()); err != nil {
		t.Errorf("a read meanwhile: %v", err)
	}

	go func() { ended <- set(s, t.Context(), "n", "v") }()
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after the lock was given up: %v", err)
	}
}

// Several processes write to one file at once, as the commands do beside serve.
func TestManyProcesses(t *testing.T) {
	const processes, each = 4, 100
	if path := os.Getenv("SIGNET_TEST_DATABASE"); path != "" { // one of them
		s := open(t, path)
		for n := range each {
			err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				if err := tx.LockRegistry(ctx); err != nil {
					return err
				}
				_, err := tx.AppendRevocation(ctx, storage.Revocation{
					Key:    storage.RevocationKey{Kind: "jti", Hash: fmt.Appendf(nil, "%d-%d", os.Getpid(), n)},
					Effect: "block",
				})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	path := migrated(t)
	s := open(t, path)
	before, err := s.RegistryVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for range processes {
		running.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyProcesses$")
			cmd.Env = append(os.Environ(), "SIGNET_TEST_DATABASE="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	running.Wait()
	after, err := s.RegistryVersion(t.Context())
	if err != nil || after-before != processes*each {
		t.Errorf("the registry's version grew by %d, %v; want %d", after-before, err, processes*each)
	}
	integrity(t, path)
}

// A new file may be opened by several at once.
func TestOpenTogether(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "new", "signet.db")
		var opening sync.WaitGroup
		for range 8 {
			opening.Go(func() {
				s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		opening.Wait()
	}
}

func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b", "100%?#&=+ü")
	path := filepath.Join(dir, "signet.db")
	s := open(t, path)
	if err := s.Update(t.Context(), func(context.Context, storage.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{
		dir: 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600,
	} {
		info, err := os.Stat(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path  string
		unavailable bool
	}{
		{"a directory", dir, true},
		{"below a file", filepath.Join(garbage, "x"), true},
		{"not a database", garbage, false},
	} {
		s, err := sqlite.Open(t.Context(), tt.path, sqlite.Options{})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", tt.name)
		} else if errors.Is(err, storage.ErrUnavailable) != tt.unavailable {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	before, err := os.ReadFile(garbage)
	if err != nil || !strings.HasPrefix(string(before), "not a database") {
		t.Errorf("somebody's file was changed: %v", err)
	}
}

// Every setting that durability and integrity rest on, as SQLite reports it.
func TestSettings(t *testing.T) {
	db, err := sqlite.DB(filepath.Join(t.TempDir(), "signet.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := db.QueryRowContext(t.Context(), `PRAGMA `+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", pragma, got, err, want)
		}
	}
}
