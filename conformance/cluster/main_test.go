//go:build linux

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/storage/storagetest"
)

var (
	long = flag.Bool("long", os.Getenv("SIGNET_LONG") != "", "as often as a release deserves, rather than every change")

	// binaries is where the programs under test are.
	binaries string
	// Built when the first test asks for it.
	ordinary = sync.OnceValues(func() (settings, error) { return built("ordinary") })
	faulty   = sync.OnceValues(func() (settings, error) { return built("faulty", "-tags", "faults") })
)

// built builds the programs and returns settings with them.
func built(name string, args ...string) (settings, error) {
	dir := filepath.Join(binaries, name)
	sources, err := build(dir, args...)
	return settings{binary: filepath.Join(dir, "signet"), orders: filepath.Join(dir, "orders"), module: sources}, err
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "signet-cluster-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		return storagetest.Main(m)
	}())
}

// often is how many rounds a claim takes: by default, and with -long.
func often(short, full int) int {
	if *long {
		return full
	}
	return short
}

// bench is a cluster under test, with what was registered for the test before it
// started.
type bench struct {
	*cluster
	t       *testing.T
	shop    *people.App
	service *people.App
	ada     *people.Person
}

// newBench starts a cluster of programs that were built; change changes its
// settings, and more registers what else a test needs.
func newBench(t *testing.T, programs func() (settings, error), change func(s *settings), more ...func(b *bench)) *bench {
	t.Helper()
	s, err := programs()
	must(t, err)
	s.dir, s.database, s.drain, s.life = t.TempDir(), storagetest.Postgres(t), 3*time.Second, 10*time.Minute
	change(&s)
	c, err := newCluster(s)
	must(t, err)
	b := &bench{cluster: c, t: t}
	b.shop, err = c.app("shop", "--refresh-window", "60s")
	must(t, err)
	b.service, err = c.service("nightly")
	must(t, err)
	b.ada, err = c.person("ada")
	must(t, err)
	for _, register := range more {
		register(b)
	}
	t.Cleanup(b.judgeLogs)
	t.Cleanup(func() { must(t, c.stop()) })
	must(t, c.start())
	return b
}

// judgeLogs fails the test for what no server may ever do.
func (b *bench) judgeLogs() {
	files, err := filepath.Glob(filepath.Join(b.dir, "*.log"))
	must(b.t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(b.t, err)
		for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
			if i := strings.Index(string(text), bad); i >= 0 {
				b.t.Errorf("%s has %q: %s", filepath.Base(file), bad, text[i:min(len(text), i+4000)])
			}
		}
	}
}

// begin returns refresh tokens of so many authorizations, which ada gives the
// shop; the browser is one in which she is signed in.
func (b *bench) begin(n int) (*people.Browser, []string) {
	b.t.Helper()
	browser := people.NewBrowser(b.issuer, b.ada, b.shop.Via)
	must(b.t, browser.SignIn())
	var tokens []string
	for range n {
		must(b.t, browser.Ask(b.shop, "prompt", "consent"))
		must(b.t, browser.Press("allow"))
		r, err := b.shop.TryRedeem(browser.Answered(b.shop).Get("code"))
		must(b.t, err)
		if r.Member("refresh_token") == "" {
			b.t.Fatal(r)
		}
		tokens = append(tokens, r.Member("refresh_token"))
	}
	return browser, tokens
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
