//go:build linux

// Command cluster runs three replicas of the provider as it is built, over one
// PostgreSQL and behind HAProxy without stickiness, with the sample API and load,
// to be tried by hand; its tests hold the same cluster to what replicas promise:
//
//	walk_test.go  any replica answers any step
//	roll_test.go  replicas are replaced and keys rotate, and no request fails
//	lost_test.go  answers are lost, and asked for again elsewhere
//	kill_test.go  replicas are killed at random
//
// Each has a short form, for every run of the tests, and a long one:
//
//	go test ./conformance/cluster -long       (or SIGNET_LONG=1)
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `Try three replicas behind a balancer.

  go run ./conformance/cluster

starts PostgreSQL, three providers over it, HAProxy in front of them without stickiness, and the
sample API; then walks through login, consent, token, refresh, account and logout, telling which
replica served each request, and takes commands: kill a replica, roll them all, walk again. Load
goes on meanwhile, and each token it gets is verified. Everything is on this machine only, in a
temporary folder, and gone when it ends (Ctrl-C, or the command quit).

It needs PostgreSQL's server and HAProxy (on Debian: apt-get install postgresql haproxy).

Flags:
`

const commands = `
  walk          sign in to an app, let it act, sign out: which replica served each request
  kill r1       end a replica as a crash does (so does kill -9 with its pid from another terminal)
  start r1      start one in its place
  roll          replace all three, one after the other, as for an upgrade: no request fails
  failover      kill the primary and promote the standby (with --standby)
  status        replicas, and how the load fares
  quit
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings passed in; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
		fmt.Fprint(stderr, "\nCommands, while it runs:\n", commands)
	}
	standby := f.Bool("standby", false, "give PostgreSQL a synchronous standby, which the command failover promotes")
	rate := f.Int("load", 20, "`requests` a second meanwhile; 0: none")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case f.NArg() > 0 || *rate < 0 || *rate > 2000:
		fmt.Fprintln(stderr, "cluster: want no arguments, and --load from 0 to 2000; --help tells more")
		return exitUsage
	}
	if err := try(ctx, *standby, *rate, stdin, stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(stderr, "cluster:", err)
		return exitFailed
	}
	return exitOK
}

const module = "github.com/signet-oidc/signet"

// build builds the provider and the sample API into a folder, as the makefile
// does, and returns the folder of their sources.
func build(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", dir + "/"}, args...), module+"/cmd/signet", module+"/cmd/orders")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, bytes.TrimSpace(out))
	}
	sources, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find the sources: %w", err)
	}
	return string(bytes.TrimSpace(sources)), nil
}

// database is a PostgreSQL, or a primary with a standby.
type database struct {
	server *storagetest.Server
	pair   *storagetest.Pair
}

func startDatabase(standby bool) (database, string, error) {
	if standby {
		pair, err := storagetest.StartPair(storagetest.PairOptions{})
		if err != nil {
			return database{}, "", err
		}
		return database{pair: pair}, pair.URL("postgres"), nil
	}
	server, err := storagetest.StartServer(storagetest.ServerOptions{})
	if err != nil {
		return database{}, "", err
	}
	return database{server: server}, server.URL("postgres"), nil
}

func (d database) close() error {
	if d.pair != nil {
		return d.pair.Close()
	}
	return d.server.Close()
}

// failover kills the primary, lets the standby take its place and makes another
// standby where the primary was.
func (d database) failover() (time.Duration, error) {
	if d.pair == nil {
		return 0, errors.New("there is no standby; start with --standby")
	}
	began := time.Now()
	if err := errors.Join(d.pair.KillPrimary(), d.pair.Promote()); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, d.pair.Rejoin()
}

// trial is a cluster that somebody tries.
type trial struct {
	*cluster
	database database
	ada      *people.Person
	shop     *people.App
	load     *load // nil: none
	out      io.Writer
}

// try starts everything, walks, and does what it is told until ctx or the input
// says that it is over.
func try(ctx context.Context, standby bool, rate int, stdin io.Reader, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "signet-cluster-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintln(out, "Building and starting …")
	sources, err := build(dir)
	if err != nil {
		return err
	}
	const life = 10 * time.Minute // of access tokens
	t := trial{out: out}
	var url string
	if t.database, url, err = startDatabase(standby); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.database.close()) }()
	t.cluster, err = newCluster(settings{dir: dir, binary: filepath.Join(dir, "signet"), orders: filepath.Join(dir, "orders"),
		module: sources, database: url, lanes: 1, drain: 6 * time.Second, life: life})
	if err != nil {
		return err
	}
	if t.shop, err = t.app("shop"); err != nil {
		return err
	}
	service, err := t.service("nightly")
	if err != nil {
		return err
	}
	var bob *people.Person
	if t.ada, err = t.person("ada"); err == nil {
		bob, err = t.person("bob")
	}
	if err != nil {
		return err
	}
	if err := t.start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	if err := t.walk(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if rate > 0 {
		if t.load, err = t.newLoad(ctx, service, t.shop, bob, 8, life); err != nil {
			return err
		}
		loaded := make(chan struct{})
		go func() {
			defer close(loaded)
			t.load.run(ctx, rate)
		}()
		defer func() { stop(); <-loaded }()
	}
	t.explain(service.Secret)
	lines := make(chan string)
	go func() {
		for scanner := bufio.NewScanner(stdin); scanner.Scan(); {
			lines <- scanner.Text()
		}
		// Without a terminal it runs until it is ended.
	}()
	for {
		fmt.Fprint(out, "> ")
		select {
		case <-ctx.Done():
			fmt.Fprintln(out)
			return nil
		case line := <-lines:
			if strings.TrimSpace(line) == "quit" {
				return nil
			}
			if err := t.obey(strings.Fields(line)); err != nil {
				fmt.Fprintln(out, "  "+err.Error())
			}
		}
	}
}

// walk walks, and tells each step.
func (t *trial) walk() error {
	fmt.Fprintln(t.out, "\n  A person signs in to an app and lets it act, the app gets and refreshes tokens, the person signs out:\n ")
	w, browser := t.newWalk(t.ways[1], t.ada, t.shop, t.out)
	if err := w.run(browser); err != nil {
		return err
	}
	if err := w.elsewhere(); err != nil {
		fmt.Fprintf(t.out, "\n  %v.\n", err) // as it must, when the others are dead
		return nil
	}
	fmt.Fprintf(t.out, "\n  %d requests, each to another replica than the one before.\n", len(w.steps))
	return nil
}

// explain tells what there is and what to try.
func (t *trial) explain(secret string) {
	fmt.Fprintf(t.out, `
  Provider      %[1]s, which is the balancer; the replicas are
%[2]s
  Sign in       %[1]s/account as %[3]s, password: %[4]s
  API           %[5]s/orders
  A token       curl -i %[1]s/token -u nightly:%[6]s -d grant_type=client_credentials -d scope=orders:read
  Logs, config  %[7]s
  This process  %[8]d

  The answers' header %[9]s tells who has served them. Reload the account page and look.

  Commands:
%[10]s
`, t.issuer, t.table(), t.ada.Name, t.ada.Password, t.apiURL, secret, t.dir, os.Getpid(), servedBy, commands)
}

// table has a line for each replica.
func (t *trial) table() string {
	var b strings.Builder
	for _, r := range t.replicas {
		state := fmt.Sprintf("pid %d, ready after %s", r.cmd.Process.Pid, r.born.Round(time.Millisecond))
		if !r.up() {
			state = "down"
		}
		fmt.Fprintf(&b, "    %s  http://%s  %s\n", r.name, r.address, state)
	}
	return b.String()
}

// obey does what a line asks for.
func (t *trial) obey(words []string) error {
	if len(words) == 0 {
		return nil
	}
	switch words[0] {
	case "walk":
		return t.walk()
	case "kill", "start":
		r, err := t.named(words[1:])
		if err != nil {
			return err
		}
		switch {
		case words[0] == "kill":
			r.kill()
		case r.up():
			return fmt.Errorf("%s runs already", r.name)
		default:
			if err := r.launch(); err != nil {
				return err
			}
			if err := r.balanced(); err != nil {
				return err
			}
		}
		return t.status()
	case "roll":
		for _, r := range t.replicas {
			if !r.up() {
				return fmt.Errorf("%s is down; start it first", r.name)
			}
			fmt.Fprintf(t.out, "  %s drains, ends and comes back …\n", r.name)
			if err := r.roll(); err != nil {
				return err
			}
		}
		return t.status()
	case "failover":
		var before counts
		if t.load != nil {
			before, _ = t.load.sofar()
		}
		took, err := t.database.failover()
		if err != nil {
			return err
		}
		fmt.Fprintf(t.out, "  The standby took over after %s; the old primary's place has a standby again.\n", took.Round(time.Millisecond))
		if t.load != nil {
			after, _ := t.load.sofar()
			fmt.Fprint(t.out, meanwhile(before, after, took))
		}
		return t.status()
	case "status":
		return t.status()
	default:
		fmt.Fprint(t.out, commands)
		return nil
	}
}

// meanwhile tells why requests failed while there was no primary for as long as
// it took the standby to become one.
func meanwhile(before, after counts, took time.Duration) string {
	failed, unavailable, unserved := after.failed-before.failed, after.unavailable-before.unavailable, after.unserved-before.unserved
	return fmt.Sprintf(`  Of the load's %d requests meanwhile %d failed: %d were told by a replica that has no database,
  with 503 and Retry-After, %d by the balancer that no replica runs; %d failed in another way.
  For the %s that PostgreSQL took to promote nobody could have been served; what failed after
  that is how long the replicas took to find the new primary.
`, after.requests-before.requests, failed, unavailable, unserved, failed-unavailable-unserved, took.Round(time.Millisecond))
}

func (t *trial) named(words []string) (*replica, error) {
	if len(words) == 1 {
		if i := slices.IndexFunc(t.replicas, func(r *replica) bool { return r.name == words[0] }); i >= 0 {
			return t.replicas[i], nil
		}
	}
	return nil, errors.New("which replica? r1, r2 or r3")
}

// status tells how everything fares.
func (t *trial) status() error {
	fmt.Fprint(t.out, t.table())
	if t.load == nil {
		return nil
	}
	n, wrong := t.load.sofar()
	fmt.Fprintf(t.out, "  Load: %s\n", n)
	for what, times := range wrong {
		fmt.Fprintf(t.out, "    %d × %s\n", times, what)
	}
	return nil
}
