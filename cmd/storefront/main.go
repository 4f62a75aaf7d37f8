// Command storefront runs the sample relying party of package app.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
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

	"github.com/signet-oidc/signet/cmd/storefront/app"
)

const usage = `storefront is a web shop that signs people in with Signet and orders for them.

  storefront --issuer http://localhost:8080 --client-id storefront --client-secret-file secret --orders http://127.0.0.1:8090 --url http://127.0.0.1:8100 --listen 127.0.0.1:8100

The client needs the grants authorization_code and refresh_token, the redirect
URI URL/callback and the post-logout redirect URI URL/signed-out. Where it is
served by https, its initiate_login_uri is URL/initiate.

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
	flags := flag.NewFlagSet("storefront", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	var config app.Config
	flags.StringVar(&config.Issuer, "issuer", "", "`URL` of the provider, as its metadata names it")
	flags.StringVar(&config.ClientID, "client-id", "", "`ID` the shop is registered under")
	flags.StringVar(&config.URL, "url", "", "`URL` browsers reach the shop by, without a path")
	flags.StringVar(&config.Orders, "orders", "", "`URL` of the orders API, which is its resource identifier too")
	flags.StringVar(&config.AccountURL, "account-url", "", "`URL` of the provider's page on which people withdraw access, to link to")
	flags.BoolVar(&config.FormPost, "form-post", false, "take the provider's answers as POST requests")
	secretFile := flags.String("client-secret-file", "", "`file` with the client secret")
	keyFile := flags.String("key-file", "", "`file` with 32 bytes in base64 that seal the cookies; without it a restart signs everybody out")
	listen := flags.String("listen", "127.0.0.1:8100", "`address` to listen on; port 0 takes a free one")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case config.Issuer == "" || config.ClientID == "" || config.URL == "" || config.Orders == "" || *secretFile == "" || flags.NArg() > 0:
		fmt.Fprintln(stderr, "storefront: --issuer, --client-id, --client-secret-file, --orders and --url are required, and nothing but flags is taken")
		flags.Usage()
		return 2
	}

	config.Log = slog.New(slog.NewJSONHandler(stderr, nil))
	if err := serve(ctx, config, *secretFile, *keyFile, *listen, stdout); err != nil {
		config.Log.Error("storefront failed", "error", err)
		return 1
	}
	return 0
}

// readKey returns the key in the file, or a new one without a file.
func readKey(file string) ([]byte, error) {
	if file == "" {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails: it aborts the program instead
		return key, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not base64", file) // not what is in it
	}
	return key, nil
}

// serve answers requests until ctx ends, then lets those under way finish.
func serve(ctx context.Context, config app.Config, secretFile, keyFile, address string, stdout io.Writer) error {
	secret, err := os.ReadFile(secretFile)
	if err != nil {
		return err
	}
	config.ClientSecret = string(bytes.TrimSpace(secret))
	if config.Key, err = readKey(keyFile); err != nil {
		return err
	}
	shop, err := app.New(config)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           shop.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second, // a page may wait for the provider and the API
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10, // the session is in there
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
