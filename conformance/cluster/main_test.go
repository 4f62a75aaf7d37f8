//go:build unix

package main

import (
	"cmp"
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
	programs = sync.OnceValues(func() (string, error) { return binaries, build(binaries) })
	faulty   = sync.OnceValues(func() (string, error) {
		dir := filepath.Join(binaries, "faults")
		return dir, build(dir, "-tags", "faults")
	})
)

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

// newBench starts a cluster of the programs in a folder. more registers what else
// a test needs.
func newBench(t *testing.T, programs func() (string, error), s settings, more ...func(b *bench)) *bench {
	t.Helper()
	dir, err := programs()
	must(t, err)
	s.dir, s.database = t.TempDir(), storagetest.Postgres(t)
	s.binary, s.orders = filepath.Join(dir, "signet"), filepath.Join(dir, "orders")
	s.drain, s.life = cmp.Or(s.drain, 3*time.Second), cmp.Or(s.life, 10*time.Minute)
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
