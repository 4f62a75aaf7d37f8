// Command broken stands between the conformance checker and an issuer and makes
// the issuer break one rule, to show that the check of that rule can fail:
//
//	go run ./conformance/broken --upstream http://localhost:8080 --break rfc9068-typ
//	go run ./conformance --issuer http://localhost:8080 --connect-to 127.0.0.1:PORT …
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/breakage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "broken:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends; it says on stdout where it listens.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("broken", flag.ContinueOnError)
	f.SetOutput(stderr)
	upstream := f.String("upstream", "", "issuer `URL` behind the proxy, plain http")
	listen := f.String("listen", "127.0.0.1:0", "`address` to listen on")
	resource := f.String("resource", "", "protected resource's `URL`, plain http, which the checker then reaches with --resource-connect-to")
	relay := f.String("relay-to", "", "where the checker listens for logouts, a `URL`; register /relay of this proxy as the backchannel_logout_uri")
	id := f.String("break", "", "rule to break, by the `id` of its check")
	list := f.Bool("list", false, "list the rules it can break and end")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, b := range breakage.All() {
			fmt.Fprintf(stdout, "%-32s %s\n", b.ID, b.What)
		}
		return nil
	}
	proxy, err := breakage.New(ctx, *upstream, *resource, *id)
	if err != nil {
		return err
	}
	told, err := url.Parse(*relay)
	if err != nil {
		return errors.New("relay-to: want an http URL")
	}
	handler := http.NewServeMux()
	handler.Handle("/", proxy)
	if *relay != "" {
		handler.Handle("POST /relay", proxy.Relay(told))
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	fmt.Fprintf(stdout, "%s breaks %s; give the checker --connect-to %s\n", *upstream, *id, l.Addr())
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
