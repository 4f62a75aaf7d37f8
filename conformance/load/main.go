// Command load asks a server on this machine as fast as it answers, with a fixed
// number of requests in flight, and reports rates, latencies and what the server
// spent. It shares the machine's processors with the server, so it is built to
// cost little: requests are prepared bytes on kept connections, and of the
// answers only one in a thousand is read closely.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/clientsecret"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // nothing measured, or some requests failed
	exitUsage  = 2
)

const usage = `Measure a server on this machine.

  go run ./conformance/load --issuer http://localhost:8080 --workload discovery --pid $(pgrep -x signet)

Tokens need a client, and logins a person too, made beside a server that runs on the same database:

  signet resource create https://load.example --name Load --scope load:run
  signet client create --id load --name Load --grant client_credentials --grant authorization_code --grant refresh_token \
      --redirect-uri https://load.example/cb --scope load:run --scope openid --scope profile --scope email --scope offline_access \
      --json | sed -n 's/.*"client_secret": *"\([^"]*\)".*/\1/p' > load.secret
  head -c 15 /dev/urandom | base64 > load.password
  signet user create load --email load@load.example --password-stdin < load.password
  go run ./conformance/load --issuer http://localhost:8080 --workload code --redirect-uri https://load.example/cb \
      --client-id load --client-secret-file load.secret --user load --password-file load.password --pid $(pgrep -x signet)

Secrets come from a file, standard input (the client's first), or from SIGNET_CONFORMANCE_CLIENT_SECRET and
SIGNET_CONFORMANCE_PASSWORD. The redirect URI is never called; with a loopback one people are asked for their
consent each time. The client's id_token_signed_response_alg (--id-token-alg) decides what a code costs.

Workloads:
`

// options are the command line, read and validated.
type options struct {
	target   target
	workload workload
	settings settings
	jsonFile string
	progress io.Writer // nil: none
	bare     string    // the address to serve the yardstick at, instead of measuring
}

// run is main with its surroundings passed in; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	o, err := parse(args, stdin, stderr, getenv)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return exitUsage
	}
	if o.bare != "" {
		if err := serveBare(ctx, o.bare, stdout); err != nil {
			fmt.Fprintln(stderr, "load:", err)
			return exitFailed
		}
		return exitOK
	}
	rep, err := measure(ctx, o)
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return exitFailed
	}
	rep.print(stdout)
	if o.jsonFile != "" {
		if err := rep.save(o.jsonFile); err != nil {
			fmt.Fprintln(stderr, "load:", err)
			return exitFailed
		}
	}
	if len(rep.Figures.Errors) > 0 || rep.Figures.Requests == 0 {
		return exitFailed
	}
	return exitOK
}

// The bounds of a run, so that a slip of the hand ends by itself. Tokens that a
// workload prepares outlive the longest run.
const (
	maxConcurrency = 1024
	maxTime        = 4 * time.Minute // warm-up and duration
	maxRequests    = 50_000_000
)

// parse reads the command line; its error names everything that is wrong.
func parse(args []string, stdin io.Reader, stderr io.Writer, getenv func(string) string) (options, error) {
	var (
		o        options
		secret   clientsecret.Source
		password clientsecret.Source
		name     string
		progress bool
	)
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		for _, w := range workloads() {
			fmt.Fprintf(stderr, "  %-20s %s\n", w.name, w.about)
		}
		fmt.Fprintln(stderr, "\nFlags:")
		f.PrintDefaults()
	}
	f.StringVar(&o.target.issuer, "issuer", "", "issuer `URL`, http on a loopback address")
	f.StringVar(&name, "workload", "client-credentials", "what to ask for: "+workloadNames())
	f.StringVar(&o.target.clientID, "client-id", "", "confidential client that may use the grant in question")
	secret.Flags(f, "")
	f.StringVar(&o.target.redirectURI, "redirect-uri", "", "`URI` that the client registered, for workloads with a person")
	f.StringVar(&o.target.user, "user", "", "`name` of a person who may sign in")
	password.Named(f, "password", "--user")
	f.StringVar(&o.target.resource, "resource", "", "resource `URI` to ask the client's own tokens for")
	f.StringVar(&o.target.scope, "scope", "", "scope to ask for; for people openid and what the workload needs unless given")
	f.IntVar(&o.settings.concurrency, "concurrency", 16, "requests in flight")
	f.DurationVar(&o.settings.duration, "duration", 10*time.Second, "time measured")
	f.DurationVar(&o.settings.warmup, "warmup", 2*time.Second, "time before it that does not count")
	f.IntVar(&o.settings.requests, "requests", maxRequests, "end after so many requests, warm-up among them")
	f.Func("pid", "process of the server, to tell its CPU time and peak memory; again for each replica", func(v string) error {
		pid, err := strconv.Atoi(v)
		o.settings.pids = append(o.settings.pids, pid)
		return err
	})
	f.IntVar(&o.settings.database, "database-pid", 0, "the PostgreSQL server's first process, to tell CPU time apart that all of its processes take")
	f.Func("replica", "`HOST:PORT` that answers for the issuer in its stead; again for each replica, over which requests in flight are spread", func(v string) error {
		o.target.replicas = append(o.target.replicas, v)
		return nil
	})
	f.StringVar(&o.bare, "bare", "", "do not measure, but serve at the `address` what net/http alone can do, to be measured for comparison")
	f.StringVar(&o.jsonFile, "json", "", "write the report as JSON to the `file`")
	f.BoolVar(&progress, "progress", false, "tell every second how it goes, even where standard error is no terminal")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if o.bare != "" {
		return o, nil
	}
	var faults []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	require(f.NArg() == 0, "unexpected argument %q", f.Arg(0))
	s := o.settings
	require(s.concurrency >= 1 && s.concurrency <= maxConcurrency, "--concurrency: want 1 to %d", maxConcurrency)
	require(s.duration > 0 && s.warmup >= 0 && s.duration+s.warmup <= maxTime, "--duration and --warmup: want %s at most together", maxTime)
	require(s.requests >= s.concurrency && s.requests <= maxRequests, "--requests: want --concurrency to %d", maxRequests)
	for _, pid := range append(s.pids, s.database) {
		require(pid >= 0 && (pid == 0 || runtime.GOOS == "linux"), "--pid, --database-pid: want a process of this machine, on Linux")
	}
	require(s.concurrency >= len(o.target.replicas), "--concurrency: want one for each --replica at least")
	var err error
	lines := bufio.NewReader(stdin)
	if o.target.secret, err = secret.Read(lines, getenv); err != nil {
		faults = append(faults, err)
	}
	if o.target.password, err = password.Read(lines, getenv); err != nil {
		faults = append(faults, err)
	}
	w, ok := findWorkload(name)
	require(ok, "--workload: want one of %s", workloadNames())
	require(w.needs < aClient || o.target.clientID != "" && o.target.secret != "", "%s needs --client-id and its secret", name)
	require(w.needs < aPerson || o.target.user != "" && o.target.password != "", "%s needs --user and the password", name)
	require(w.needs < aPerson || o.target.redirectURI != "", "%s needs --redirect-uri", name)
	require(!strings.ContainsAny(o.target.clientID+o.target.secret, "\r\n"), "--client-id or its secret holds a line break")
	if err := o.target.locate(); err != nil {
		faults = append(faults, fmt.Errorf("--issuer: %w", err))
	}
	o.workload = w
	if progress || isTerminal(stderr) {
		o.progress = stderr
	}
	return o, errors.Join(faults...)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
