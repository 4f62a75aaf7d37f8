package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The service manager is told when requests are answered, when a reload begins
// and ends, and when the server is about to end (sd_notify(3)).
func TestServeNotifies(t *testing.T) {
	for _, test := range []struct{ name, socket string }{
		{"path", ""},
		{"abstract", fmt.Sprintf("@signet-test-%d", os.Getpid())},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := test.socket
			if path == "" {
				dir, err := os.MkdirTemp("", "signet-") // a test's own may have too long a name
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				path = filepath.Join(dir, "notify")
			}
			manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			next := func() string {
				t.Helper()
				if err := manager.SetReadDeadline(time.Now().Add(soon)); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 4096)
				n, err := manager.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				return string(b[:n])
			}
			monotonic := func() int64 {
				var now unix.Timespec
				if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
					t.Fatal(err)
				}
				return now.Nano() / 1000
			}

			p := newPlace(t, "NOTIFY_SOCKET="+path)
			s := p.serve("--drain", "3m")
			if got := next(); got != "READY=1" {
				t.Fatalf("at the start: %q", got)
			}
			if r := s.get(s.url + "/readyz"); r.status != http.StatusOK {
				t.Errorf("ready, and readyz says: %s", r)
			}

			before := monotonic()
			s.signal(syscall.SIGHUP)
			reloading := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=(\d+)$`).FindStringSubmatch(next())
			if reloading == nil {
				t.Fatal("no reload began")
			}
			if at, err := strconv.ParseInt(reloading[1], 10, 64); err != nil || at < before || at > monotonic() {
				t.Errorf("reloading at %d µs, not after %d", at, before)
			}
			if got := next(); got != "READY=1" {
				t.Errorf("after the reload: %q", got)
			}

			s.signal(syscall.SIGTERM)
			if got := next(); got != "STOPPING=1" {
				t.Errorf("at the end: %q", got)
			}
			if r := s.get(s.url + "/livez"); r.status != http.StatusOK {
				t.Errorf("it is told before the server has drained, and livez says: %s", r)
			}
			s.signal(syscall.SIGTERM) // hurry up
			if status := s.wait(); status != 0 {
				t.Errorf("exit %d:\n%s", status, s.stderr.String())
			}
			if err := manager.SetReadDeadline(time.Now()); err != nil {
				t.Fatal(err)
			}
			if n, err := manager.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("one more message: %d %v", n, err)
			}
		})
	}
}

// A manager that is gone does not keep the server from serving.
func TestServeWithoutManager(t *testing.T) {
	t.Parallel()
	s := newPlace(t, "NOTIFY_SOCKET=/nowhere/notify").serve()
	until(t, "the log says so", func() bool { return strings.Contains(s.stderr.String(), "service manager could not be told") })
	if r := s.get(s.url + "/readyz"); r.status != http.StatusOK {
		t.Errorf("readyz: %s", r)
	}
}
