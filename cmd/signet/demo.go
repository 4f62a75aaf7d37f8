package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	orders "github.com/signet-oidc/signet/cmd/orders/app"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/web"
)

type demoCmd struct {
	Port uint16 `default:"8080" placeholder:"N" help:"Port of the provider (${default}); the API takes the one ten above. 0 takes free ones."`
}

func (*demoCmd) Help() string {
	return "Starts a provider over a SQLite file in a temporary folder, the sample API \"orders\" and a service client, and prints lines to try them with. Everything is on this machine only, and removed when you stop it."
}

func (*demoCmd) Examples() string { return "signet demo" }

// What the demo registers.
const (
	demoService = "nightly-report"
	demoRole    = "orders-admin"
)

// demo is what a running demo has to show.
type demo struct {
	Issuer    string      `json:"issuer"`
	OrdersURL string      `json:"orders_url"`
	Service   demoAccount `json:"service"`
}

type demoAccount struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

func (c *demoCmd) Run(ctx context.Context, a *app) (err error) {
	a.log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	dir, err := os.MkdirTemp("", "signet-demo-")
	if err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	providerAddress, err := a.freeAddress(c.Port)
	if err != nil {
		return err
	}
	var ordersPort uint16
	if c.Port > 0 && c.Port <= math.MaxUint16-10 {
		ordersPort = c.Port + 10
	}
	ordersAddress, err := a.freeAddress(ordersPort)
	if err != nil {
		return err
	}
	// Cookies do not tell ports apart, so provider and API have different hosts.
	_, port, _ := net.SplitHostPort(providerAddress)
	d := demo{Issuer: "http://localhost:" + port, OrdersURL: "http://" + ordersAddress}
	issuer, err := provider.ParseIssuer(d.Issuer)
	if err != nil {
		return err
	}
	cfg := Config{
		Database: databaseURL{sqlite: filepath.Join(dir, "signet.db")}, KEK: kekSource{fd: -1},
		Issuer: issuer, Listen: providerAddress, AdminListen: "127.0.0.1:0", Drain: 2 * time.Second,
	}
	s, err := a.start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(cfg.Drain)) }()
	if d.Service.ClientID, d.Service.ClientSecret, err = a.seed(ctx, s.store, cfg, d.OrdersURL); err != nil {
		return fmt.Errorf("register the sample: %w", err)
	}
	api, err := orders.New(ctx, orders.Config{
		Issuer: d.Issuer, Audience: d.OrdersURL, Database: filepath.Join(dir, "orders.db"), Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("sample API: %w", err)
	}
	server := web.HTTPServer(api.Handler(), a.log, nil)
	defer func() { err = errors.Join(err, server.Close(), api.Close()) }()
	l, err := listen("--port", ordersAddress)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	if err := waitReady(ctx, d.OrdersURL+"/readyz"); err != nil {
		return fmt.Errorf("sample API: %w", err)
	}
	if err := a.print(d, d.explain); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return fmt.Errorf("sample API: %w", err)
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// freeAddress returns the loopback address with this port, or, when something
// has it, says so and returns one that is free.
func (a *app) freeAddress(port uint16) (string, error) {
	l, err := net.Listen("tcp", loopback("127.0.0.1", port))
	if err == nil && taken("::1", port) {
		l.Close()
		err = syscall.EADDRINUSE
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		if l, err = net.Listen("tcp", loopback("127.0.0.1", 0)); err == nil {
			fmt.Fprintf(a.stderr, "Port %d is taken; using %d instead.\n", port, l.Addr().(*net.TCPAddr).Port)
		}
	}
	if err != nil {
		return "", fmt.Errorf("loopback port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// taken says whether something else has the port. "localhost" is ::1 as well,
// and many a client tries that one first.
func taken(host string, port uint16) bool {
	l, err := net.Listen("tcp", loopback(host, port))
	if err == nil {
		l.Close()
	}
	return errors.Is(err, syscall.EADDRINUSE) // else it is free, or there is no IPv6
}

func loopback(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// seed registers the sample API and the service, as the README's commands do.
func (a *app) seed(ctx context.Context, store storage.Store, cfg Config, api string) (id, secret string, err error) {
	i := &instance{Store: store, app: a, db: cfg.Database, kek: cfg.KEK, demo: true}
	admin := i.Admin()
	if _, err := admin.CreateRole(ctx, storage.Role{Name: demoRole}); err != nil {
		return "", "", err
	}
	resource := admin.DefaultResource()
	resource.URI, resource.Name, resource.RolesClaim = api, "Orders", true
	resource.Scopes = []storage.Scope{{Name: "orders:read"}, {Name: "orders:write"}, {Name: "orders:report", Role: demoRole}}
	if _, err := admin.CreateResource(ctx, resource); err != nil {
		return "", "", err
	}
	client := provider.DefaultClient()
	client.ID, client.Name = demoService, "Nightly report"
	client.GrantTypes = []string{"client_credentials"}
	client.Scopes = []string{"orders:read", "orders:write", "orders:report"}
	_, secret, err = admin.CreateClient(ctx, client)
	return demoService, secret, err
}

// waitReady waits until the address answers 200.
func waitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// explain prints what there is and lines to try it with.
func (d demo) explain(w io.Writer) {
	signet := "signet"
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		signet = "go run ./cmd/signet"
	}
	fmt.Fprintf(w, `
  Signet is running. Ctrl-C ends it and removes all it made.

  Provider     %[1]s
  Orders API   %[2]s
  Service      %[3]s
  Its secret   %[4]s

  Get a token for the service:

    TOKEN=$(curl -s %[1]s/token -u %[3]s:%[4]s \
      -d grant_type=client_credentials -d scope='orders:read orders:write' \
      | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

  Call the API with it:

    curl %[2]s/orders -H "Authorization: Bearer $TOKEN" -d '{"item":"Lamp","quantity":2}' -H 'Content-Type: application/json'
    curl %[2]s/orders -H "Authorization: Bearer $TOKEN"

  A missing scope is refused by the API, a missing role by the provider:

    curl -i %[2]s/reports/summary -H "Authorization: Bearer $TOKEN"
    curl %[1]s/token -u %[3]s:%[4]s -d grant_type=client_credentials -d scope=orders:report

  Look into the token:

    echo $TOKEN | %[5]s token inspect --issuer %[1]s

`, d.Issuer, d.OrdersURL, d.Service.ClientID, d.Service.ClientSecret, signet)
}
