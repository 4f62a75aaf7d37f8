package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	orders "github.com/signet-oidc/signet/cmd/orders/app"
	storefront "github.com/signet-oidc/signet/cmd/storefront/app"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/web"
)

type demoCmd struct {
	Port     uint16 `default:"8080" placeholder:"N" help:"Port of the provider (${default}); the API takes the one ten above, the shop twenty. 0 takes free ones."`
	FormPost bool   `help:"Let the provider answer the shop with a POST, so that no code is in a URL."`
}

func (*demoCmd) Help() string {
	return "Starts a provider over a SQLite file in a temporary folder, the sample API \"orders\" and the sample shop \"storefront\", with a person who can sign in and a service that gets tokens, and prints what to try. Everything is on this machine only, and removed when you stop it."
}

func (*demoCmd) Examples() string { return "signet demo" }

// What the demo registers.
const (
	demoService = "nightly-report"
	demoShop    = "storefront"
	demoPublic  = "demo-cli"
	demoRole    = "orders-admin"
	demoUser    = "ada"
)

// demo is what a running demo has to show.
type demo struct {
	Issuer         string      `json:"issuer"`
	StorefrontURL  string      `json:"storefront_url"`
	OrdersURL      string      `json:"orders_url"`
	User           demoPerson  `json:"user"`
	PublicClientID string      `json:"public_client_id"`
	Service        demoAccount `json:"service"`
	Database       string      `json:"database"` // for the operator's commands
}

type demoPerson struct {
	Username string `json:"username"`
	Password string `json:"password"`
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

	// All three ports are held until all three are known.
	var listeners [3]net.Listener
	for i := range listeners {
		var port uint16
		if above := uint16(10 * i); c.Port > 0 && c.Port <= math.MaxUint16-above {
			port = c.Port + above
		}
		if listeners[i], err = a.freeListener(port); err != nil {
			return err
		}
		defer listeners[i].Close()
	}
	// Cookies do not tell ports apart, so the provider has another host than the rest.
	address := listeners[0].Addr().String()
	_, port, _ := net.SplitHostPort(address)
	d := demo{
		Issuer:    "http://localhost:" + port,
		OrdersURL: "http://" + listeners[1].Addr().String(), StorefrontURL: "http://" + listeners[2].Addr().String(),
	}
	database := filepath.Join(dir, "signet.db")
	d.Database = (&url.URL{Scheme: "sqlite", Path: database}).String()
	issuer, err := provider.ParseIssuer(d.Issuer)
	if err != nil {
		return err
	}
	cfg := Config{
		Database: databaseURL{sqlite: database}, KEK: kekSource{fd: -1},
		Issuer: issuer, Listen: address, AdminListen: "127.0.0.1:0", Drain: 2 * time.Second,
	}
	// Before the provider starts: a running one notices within a second only.
	shopSecret, err := a.seed(ctx, cfg, &d)
	if err != nil {
		return fmt.Errorf("register the samples: %w", err)
	}
	listeners[0].Close()
	s, err := a.start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(cfg.Drain)) }()
	api, err := orders.New(ctx, orders.Config{
		Issuer: d.Issuer, Audience: d.OrdersURL, Database: filepath.Join(dir, "orders.db"), Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("sample API: %w", err)
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it aborts the program instead
	shop, err := storefront.New(storefront.Config{
		Issuer: d.Issuer, ClientID: demoShop, ClientSecret: shopSecret, URL: d.StorefrontURL, Orders: d.OrdersURL,
		Key: key, FormPost: c.FormPost, AccountURL: d.Issuer + "/account", Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("sample shop: %w", err)
	}
	failed := make(chan error, 2)
	for _, sample := range []struct {
		name, url string
		handler   http.Handler
		on        net.Listener
	}{{"API", d.OrdersURL, api.Handler(), listeners[1]}, {"shop", d.StorefrontURL, shop.Handler(), listeners[2]}} {
		server := web.HTTPServer(sample.handler, a.log, nil)
		defer server.Close()
		go func() { failed <- fmt.Errorf("sample %s: %w", sample.name, server.Serve(sample.on)) }()
		if err := waitReady(ctx, sample.url+"/readyz"); err != nil {
			return fmt.Errorf("sample %s: %w", sample.name, err)
		}
	}
	if err := a.print(d, d.explain); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// freeListener listens on the loopback address with this port, or, when
// something has it, says so and takes one that is free.
func (a *app) freeListener(port uint16) (net.Listener, error) {
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
		return nil, fmt.Errorf("loopback port: %w", err)
	}
	return l, nil
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

// seed registers the samples, as the README's commands do, writes down in d
// what people need of them, and returns the shop's secret.
func (a *app) seed(ctx context.Context, cfg Config, d *demo) (shopSecret string, err error) {
	store, err := a.openStore(ctx, cfg.Database, false, nil)
	if err != nil {
		return "", err
	}
	i := &instance{Store: store, app: a, db: cfg.Database, kek: cfg.KEK, demo: true}
	defer i.Close()
	if i.policy, i.schedule, err = lifetimes(); err != nil {
		return "", err
	}
	admin := i.Admin()
	if _, err := admin.CreateRole(ctx, storage.Role{Name: demoRole}); err != nil {
		return "", err
	}
	resource := admin.DefaultResource()
	resource.URI, resource.Name, resource.RolesClaim = d.OrdersURL, "Orders", true
	resource.Scopes = []storage.Scope{
		{Name: "orders:read", Description: "See what you have ordered"},
		{Name: "orders:write", Description: "Place and cancel orders"},
		{Name: "orders:report", Role: demoRole, Description: "Add up the orders of everybody"},
	}
	if _, err := admin.CreateResource(ctx, resource); err != nil {
		return "", err
	}

	service := provider.DefaultClient()
	service.ID, service.Name = demoService, "Nightly report"
	service.GrantTypes = []string{"client_credentials"}
	service.Scopes = []string{"orders:read", "orders:write", "orders:report"}
	d.Service.ClientID = service.ID
	if _, d.Service.ClientSecret, err = admin.CreateClient(ctx, service); err != nil {
		return "", err
	}

	shop := provider.DefaultClient()
	shop.ID, shop.Name = demoShop, "Harbour Street Goods"
	shop.GrantTypes = []string{"authorization_code", "refresh_token"}
	shop.RedirectURIs = []string{d.StorefrontURL + "/callback"}
	shop.PostLogoutRedirectURIs = []string{d.StorefrontURL + "/signed-out"}
	shop.Scopes = []string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write"}
	if _, shopSecret, err = admin.CreateClient(ctx, shop); err != nil {
		return "", err
	}

	// A public client for experiments, as a program on this machine would be.
	public := provider.DefaultClient()
	public.ID, public.Name, public.AuthMethod = demoPublic, "Demo command line", "none"
	public.GrantTypes, public.Scopes = shop.GrantTypes, shop.Scopes
	public.RedirectURIs = []string{"http://127.0.0.1/callback"} // any port will do, RFC 8252 §7.3
	d.PublicClientID = public.ID
	if _, _, err := admin.CreateClient(ctx, public); err != nil {
		return "", err
	}

	d.User = demoPerson{demoUser, provider.GeneratePassword()}
	_, err = admin.CreateUser(ctx, storage.User{
		Username: demoUser, Email: "ada@example.com", EmailVerified: true,
		Profile: `{"name":"Ada Lovelace","given_name":"Ada","family_name":"Lovelace"}`,
	}, d.User.Password)
	return shopSecret, err
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

  Shop          %[1]s
  Account       %[2]s/account
  Sign in as    %[3]s
  Password      %[4]s

  In a browser:

  1. Open the shop, sign in, allow it to act for you, order something.
  2. Open the account page and withdraw the shop's access.
  3. Back in the shop, order something: the API refuses it, and the shop says so.
  4. Sign in again, and out: of the shop, and of the provider.

  In a terminal, as the service %[6]s. A token for it, and orders with it:

    token() { curl -s %[2]s/token -u %[6]s:%[7]s \
      -d grant_type=client_credentials -d scope='orders:read orders:write' \
      | sed 's/.*"access_token":"\([^"]*\)".*/\1/'; }
    TOKEN=$(token)
    curl %[5]s/orders -H "Authorization: Bearer $TOKEN" -d '{"item":"Lamp","quantity":2}' -H 'Content-Type: application/json'
    curl %[5]s/orders -H "Authorization: Bearer $TOKEN"

  A missing scope is refused by the API, a missing role by the provider:

    curl -i %[5]s/reports/summary -H "Authorization: Bearer $TOKEN"
    curl %[2]s/token -u %[6]s:%[7]s -d grant_type=client_credentials -d scope=orders:report

  Look into the token:

    echo $TOKEN | %[9]s token inspect --issuer %[2]s

  Take it back, as an operator does, and within a second the API refuses it:

    demo() { %[9]s "$@" --database %[10]s; }
    demo revoke --client %[6]s
    sleep 1; curl -i %[5]s/orders -H "Authorization: Bearer $TOKEN"

  Change the signing keys, and tokens stay good. That works once; then the keys
  that come next have to be published for a day:

    TOKEN=$(token)
    demo key rotate
    curl %[5]s/orders -H "Authorization: Bearer $TOKEN"

  Give up a key as if it were stolen, that of the token, and its tokens are refused:

    TOKEN=$(token)
    demo key compromise "$(echo $TOKEN | demo token inspect | sed -n 's/.*"kid":"\([^"]*\)".*/\1/p')"
    sleep 1; curl -i %[5]s/orders -H "Authorization: Bearer $TOKEN"

  Signed in at the shop, order again: it gets a new token, and nobody signs in again.

  Your own code can sign in as the public client %[8]s: PKCE, no secret,
  http://127.0.0.1:PORT/callback with any port.

`, d.StorefrontURL, d.Issuer, d.User.Username, d.User.Password, d.OrdersURL,
		d.Service.ClientID, d.Service.ClientSecret, d.PublicClientID, signet, d.Database)
}
