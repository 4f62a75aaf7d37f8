// Command signet is the provider and the tool of the people who run it: serve
// answers the protocol, every other command reads or changes the database that
// serve works on. What they do is decided in package provider; here are flags,
// output and exit codes.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// root is the command line.
type root struct {
	common

	Serve serveCmd `cmd:"" help:"Run the provider."`
	Demo  demoCmd  `cmd:"" help:"Try it: a provider, a shop and its API, gone when you stop it."`

	Client   clientCmd   `cmd:"" help:"Applications and services that get tokens."`
	Resource resourceCmd `cmd:"" help:"APIs that tokens are for, and their scopes."`
	Role     roleCmd     `cmd:"" help:"What scopes may demand of a person or a client."`
	User     userCmd     `cmd:"" help:"People who sign in."`
	Key      keyCmd      `cmd:"" help:"Signing keys."`
	Revoke   revokeCmd   `cmd:"" help:"Take back tokens that are out, at every verifier."`
	Token    tokenCmd    `cmd:"" help:"Look into tokens."`
	Migrate  migrateCmd  `cmd:"" help:"The database schema."`
	Delivery deliveryCmd `cmd:"" help:"What clients are still to be told, and what they missed."`
	Audit    auditCmd    `cmd:"" help:"What happened, by whom."`
	Backup   backupCmd   `cmd:"" help:"Copy a SQLite database while it is served."`
	Restore  restoreCmd  `cmd:"" help:"Put a backup in the place of a database."`
	Doctor   doctorCmd   `cmd:"" help:"Look for what is wrong, and say what to do."`
	Health   healthCmd   `cmd:"" help:"Ask a running server whether it is ready."`
	Version  versionCmd  `cmd:"" help:"Say which version this is."`
}

const description = `OAuth 2 and OpenID Connect provider.

Every setting can also come from the environment as SIGNET_<FLAG> or from the file that --config names; a flag wins over the environment, the environment over the file. Results go to standard output, everything else to standard error.

A SQLite database that is not there yet is made by serve, demo, migrate up and every create command, and by no other.

Exit status: 0 done, 1 failed, 2 usage or configuration, 3 not found, 4 exists already, 5 database or key unavailable.`

// app is what a command works with.
type app struct {
	common   *common
	settings *settings
	args     []string
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	log      *slog.Logger
	logLevel slog.LevelVar // of serve's log
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{args: spellOut(args), stdin: stdin, stdout: stdout, stderr: stderr}
	command, err := a.parse(&root{})
	if err == nil {
		if command.Command() == "serve" {
			a.log = slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: &a.logLevel}))
		}
		a.settings.warn(a.log)
		command.BindTo(ctx, (*context.Context)(nil))
		err = command.Run(a)
	}
	if err == nil {
		return 0
	}
	return report(stderr, err, a.wantsJSON())
}

// spellOut returns the command line that people mean who have not read a word.
func spellOut(args []string) []string {
	if len(args) == 0 {
		return args
	}
	switch {
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case args[0] == "--version":
		return append([]string{"version"}, args[1:]...)
	}
	return args
}

// parse reads the command line into r and points a at what it says. serve
// calls it again to reload its configuration.
func (a *app) parse(r *root) (*kong.Context, error) {
	s, err := newSettings()
	if err != nil {
		return nil, err
	}
	a.common, a.settings = &r.common, s
	a.log = slog.New(slog.NewTextHandler(a.stderr, nil))
	k, err := kong.New(r,
		kong.Name("signet"),
		kong.Description(description),
		kong.Help(printHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Writers(a.stdout, a.stderr),
		kong.Resolvers(s),
		kong.ValueFormatter(s.describe),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.TypeMapper(reflect.TypeFor[int](), kong.MapperFunc(decodeNumber)),
		kong.TypeMapper(reflect.TypeFor[uint16](), kong.MapperFunc(decodeNumber)),
		kong.ExplicitGroups([]kong.Group{{Key: "settings", Title: "Settings of every command:"}}),
	)
	if err != nil {
		return nil, fmt.Errorf("command line: %w", err)
	}
	return k.Parse(a.args)
}

// decodeDuration reads a duration as people write it; kong's own words for a
// mistake are those of a parser.
func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a duration; write it with its unit, as 90s, 15m or 24h", text)
	}
	target.SetInt(int64(d))
	return nil
}

// decodeNumber reads a number that is not negative.
func decodeNumber(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a number from 0 to 65535", text)
	}
	if target.CanInt() {
		target.SetInt(int64(n))
	} else {
		target.SetUint(n)
	}
	return nil
}

// popValue takes the value of a flag off the command line, a negative number too.
func popValue(ctx *kong.DecodeContext) (string, error) {
	next := ctx.Scan.Peek()
	if s := next.String(); len(s) > 1 && s[0] == '-' && '0' <= s[1] && s[1] <= '9' {
		return ctx.Scan.Pop().String(), nil
	}
	t, err := ctx.Scan.PopValue("value")
	return t.String(), err
}

// wantsJSON also holds when the command line could not be understood.
func (a *app) wantsJSON() bool {
	return a.common != nil && a.common.JSON || slices.Contains(a.args, "--json") || strings.EqualFold(os.Getenv("SIGNET_JSON"), "true")
}

// examples is what a command's help ends with: lines that work as printed, in
// this order, on a database that has what the line's own noun commands make.
type examples interface{ Examples() string }

func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	node := ctx.Selected()
	if node == nil {
		node = ctx.Model.Node
	}
	e, ok := node.Target.Addr().Interface().(examples)
	if !ok {
		return nil
	}
	_, err := fmt.Fprintf(ctx.Stdout, "\nExample:\n")
	for line := range strings.Lines(strings.TrimSpace(e.Examples())) {
		if err == nil {
			_, err = fmt.Fprint(ctx.Stdout, "  ", line)
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(ctx.Stdout)
	}
	return err
}

func (*root) Examples() string {
	return `
signet role create orders-clerk
signet resource create https://orders.example.com --name "Orders" --scope orders:read --scope orders:write=orders-clerk
signet client create --id nightly-report --name "Nightly report" --grant client_credentials --scope orders:read`
}
