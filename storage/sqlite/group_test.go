package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/signet-oidc/signet/storage"
)

// behind runs fn's updates while another one holds the writer, so that all of
// them wait, and then lets them go. It needs a synctest bubble.
func behind(t *testing.T, s storage.Store, updates ...func() error) []error {
	t.Helper()
	errs := make([]error, len(updates))
	var all sync.WaitGroup
	err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		for i, update := range updates {
			all.Go(func() { errs[i] = errors.New("ended without an answer"); errs[i] = update() })
			synctest.Wait() // each in its place in the queue
		}
		return tx.SetSetting(ctx, "first", "v")
	})
	if err != nil {
		t.Fatal(err)
	}
	all.Wait()
	return errs
}

func frames(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size() / 4096
}

// Updates that wait are committed together: the log grows by what one commit writes.
func TestWaitingUpdatesShareACommit(t *testing.T) {
	path := migrated(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		const others = 40
		var updates []func() error
		for i := range others {
			updates = append(updates, func() error { return set(s, t.Context(), fmt.Sprint(i), "v") })
		}
		before := frames(t, path)
		for i, err := range behind(t, s, updates...) {
			if err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		}
		if grew := frames(t, path) - before; grew > others/2 {
			t.Errorf("%d updates wrote %d pages: they were not committed together", others+1, grew)
		}
		for i := range others {
			if _, err := s.Setting(t.Context(), fmt.Sprint(i)); err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		}
	})
}

// One that fails, panics, ends its goroutine or loses its caller takes
// nothing from the others in its batch, and nothing of it stays.
func TestBatchKeepsApart(t *testing.T) {
	path := migrated(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		fails := errors.New("on purpose")
		left, leave := context.WithCancel(t.Context())
		write := func(name string, then func() error) func() error {
			return func() error {
				return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
					return errors.Join(tx.SetSetting(ctx, name, "v"), then())
				})
			}
		}
		fine := func() error { return nil }
		errs := behind(t, s,
			write("good 1", fine),
			write("bad 1", func() error { return fails }),
			write("good 2", fine),
			func() (err error) {
				defer func() { err = fmt.Errorf("panicked: %v", recover()) }()
				return write("bad 2", func() error { panic("on purpose") })()
			},
			write("good 3", fine),
			write("bad 3", func() error { runtime.Goexit(); return nil }),
			write("good 4", fine),
			func() error {
				return s.Update(left, func(ctx context.Context, tx storage.Tx) error {
					defer leave()
					return tx.SetSetting(ctx, "good 5", "v") // its work is done
				})
			},
			write("good 6", fine),
		)
		if !errors.Is(errs[1], fails) {
			t.Errorf("the one that failed: %v", errs[1])
		}
		if errs[3] == nil || errs[3].Error() != "panicked: on purpose" {
			t.Errorf("the one that panicked: %v", errs[3])
		}
		for _, name := range []string{"good 1", "good 2", "good 3", "good 4", "good 5", "good 6", "first"} {
			if _, err := s.Setting(t.Context(), name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"bad 1", "bad 2", "bad 3"} {
			if _, err := s.Setting(t.Context(), name); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// An update whose caller has left before its turn never runs.
func TestCallerLeftWhileWaiting(t *testing.T) {
	path := migrated(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		err := s.Update(t.Context(), func(_ context.Context, tx storage.Tx) error {
			go func() {
				ended <- s.Update(ctx, func(context.Context, storage.Tx) error {
					t.Error("it ran")
					return nil
				})
			}()
			synctest.Wait()
			leave()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("error = %v, want %v", err, context.Canceled)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
