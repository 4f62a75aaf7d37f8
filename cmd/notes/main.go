// Command notes runs the sample server of the Model Context Protocol of package app.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/signet-oidc/signet/cmd/notes/app"
)

const usage = `notes is an MCP server protected by Signet: it keeps its callers' notes, until it ends.

  notes --issuer http://localhost:8080 --audience http://127.0.0.1:8110/mcp --listen 127.0.0.1:8110

`

// drain is how long requests under way get to end after a TERM.
const drain = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 ended when asked to, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("notes", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	issuer := flags.String("issuer", "", "`URL` of the provider, as its metadata names it")
	audience := flags.String("audience", "", "`URL` that clients are given, as it is registered with the provider")
	listen := flags.String("listen", "127.0.0.1:8110", "`address` to listen on; port 0 takes a free one")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *issuer == "" || *audience == "" || flags.NArg() > 0:
		fmt.Fprintln(stderr, "notes: --issuer and --audience are required, and nothing but flags is taken")
		flags.Usage()
		return 2
	}

	log := slog.New(slog.NewJSONHandler(stderr, nil))
	if err := serve(ctx, app.Config{Issuer: *issuer, Audience: *audience, Log: log}, *listen, stdout); err != nil {
		log.Error("notes failed", "error", err)
		return 1
	}
	return 0
}

// serve answers requests until ctx ends, then lets those under way finish.
func serve(ctx context.Context, config app.Config, address string, stdout io.Writer) error {
	notes, err := app.New(ctx, config)
	if err != nil {
		return err
	}
	defer notes.Close()

	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           notes.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(config.Log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	if err := json.NewEncoder(stdout).Encode(map[string]any{
		"event": "ready", "listen": listener.Addr().String(), "pid": os.Getpid(),
	}); err != nil {
		server.Close()
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		return server.Shutdown(ending)
	}
}
