//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// screen is what somebody sees.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Somebody tries the cluster, and ends it with Ctrl-C: nothing is left behind.
func TestByHand(t *testing.T) {
	temporary := t.TempDir()
	must(t, os.Chmod(filepath.Dir(temporary), 0o755)) // PostgreSQL runs as another user
	t.Setenv("TMPDIR", temporary)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	typed, keyboard := io.Pipe()
	var out, errs screen
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"--load", "5"}, typed, &out, &errs) }()
	// enter types a line once everything before it is done, and waits for what it says.
	prompts := 0
	enter := func(line, want string) {
		t.Helper()
		prompts++
		for began := time.Now(); strings.Count(out.String(), "\n> ") < prompts; time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > 2*patience || len(ended) > 0 {
				t.Fatalf("no prompt:\n%s%s", &out, &errs)
			}
		}
		before := len(out.String())
		_, err := io.WriteString(keyboard, line+"\n")
		must(t, err)
		must(t, await(want, func() (bool, error) { return strings.Contains(out.String()[before:], want), nil }))
	}
	enter("walk", "each to another replica than the one before")
	enter("kill r2", "down")
	enter("walk", "each to another replica than the one before")
	enter("start r2", "0 failed")
	enter("start r4", "which replica?")
	enter("failover", "start with --standby")
	enter("what now", "replace all three")
	addresses := regexp.MustCompile(`127\.\d+\.\d+\.\d+:\d+`).FindAllString(out.String(), -1)
	interrupt()
	select {
	case code := <-ended:
		if code != exitOK {
			t.Errorf("exit %d: %s", code, &errs)
		}
	case <-time.After(2 * patience):
		t.Fatal("it does not end")
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if len(addresses) < 5 {
		t.Errorf("only these addresses are told: %v", addresses)
	}
	for _, address := range addresses {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Errorf("something still listens at %s", address)
		}
	}
}

// Who makes the database fail over is told who turned requests away, and why.
func TestMeanwhile(t *testing.T) {
	t.Parallel()
	said := meanwhile(counts{requests: 500, failed: 2, unavailable: 1}, counts{requests: 620, failed: 103, unavailable: 60, unserved: 40}, 5161*time.Millisecond)
	for _, want := range []string{"load's 120 requests meanwhile 101 failed", "59 were told by a replica", "40 by the balancer", "2 failed in another", "5.161s that PostgreSQL took"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"--help", exitOK, "failover "},
		{"--load -1", exitUsage, "0 to 2000"},
		{"--load x", exitUsage, "invalid value"},
		{"r1", exitUsage, "no arguments"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(test.args), strings.NewReader(""), &out, &errs); code != test.code || !strings.Contains(errs.String(), test.says) {
			t.Errorf("%s: exit %d: %s", test.args, code, errs.String())
		}
	}
}

// A configuration that is not the one this cluster knows how to adapt is refused.
func TestBalancerConfiguration(t *testing.T) {
	t.Parallel()
	s, err := ordinary()
	must(t, err)
	deployed, err := os.ReadFile(filepath.Join(s.module, "docs", "deploy", "haproxy.cfg"))
	must(t, err)
	c := &cluster{ways: []*lane{{bind: "127.0.0.1:1"}}, state: "127.0.0.1:2", replicas: []*replica{{name: "r1"}, {name: "r2"}, {name: "r3"}}}
	if _, err := c.adapt(string(deployed)); err != nil {
		t.Error(err)
	}
	for _, line := range []string{"balance roundrobin", "server signet-2 signet-2:8080", "\nbackend signet\n", "\nfrontend login\n"} {
		if _, err := c.adapt(strings.Replace(string(deployed), line, "", 1)); err == nil {
			t.Errorf("adapted without %q", line)
		}
	}
}
