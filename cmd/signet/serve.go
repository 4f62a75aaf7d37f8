package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/web"
)

type serveCmd struct{ serveFlags }

func (*serveCmd) Help() string {
	return `Runs the provider. The first start makes the keys it needs; a SQLite database is made and brought up to date by itself, a PostgreSQL one by "signet migrate up" or --migrate.

One line of JSON on standard output says when requests are answered and where. TERM stops taking requests after balancers had time to notice, an interrupt at once; what is under way is finished. HUP reads the certificate and the configuration file again.

Each setting may come from the environment, under the name in brackets. The file of --config has settings under their flags' names:

	issuer: https://login.example.com
	listen: :8080
	database: postgres://signet@db.example.com/signet
	kek-file: /etc/signet/kek
	trusted-proxy: [10.0.0.5/32]`
}

func (*serveCmd) Examples() string {
	return "signet serve --issuer http://localhost:8080"
}

func (c *serveCmd) Run(ctx context.Context, a *app) error {
	cfg, err := c.validate(a)
	if err != nil {
		return err
	}
	a.logLevel.Set(cfg.LogLevel)

	// ctx ends on either as well, but does not say which it was.
	end := make(chan os.Signal, 2)
	signal.Notify(end, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(end)
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)

	if os.Getenv("GOGC") == "" {
		// What a server remembers is small against what requests throw away:
		// half as many collections cost a few megabytes and save a tenth of the
		// processor.
		debug.SetGCPercent(200)
	}
	s, err := a.start(ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(a.stdout).Encode(map[string]any{
		"event": "ready", "issuer": cfg.Issuer.String(),
		"listen": s.public.Addr().String(), "admin_listen": s.admin.Addr().String(), "pid": os.Getpid(),
	}); err != nil {
		return errors.Join(fmt.Errorf("standard output: %w", err), s.stop(0))
	}
	a.notify(notifyReady)
	a.suggest(ctx, cfg, s.store)

	for {
		select {
		case <-reload:
			a.notify(notifyReloading())
			a.reload(s)
			a.notify(notifyReady)
		case err := <-s.failed:
			return errors.Join(err, s.stop(0))
		case sig := <-end:
			a.notify(notifyStopping)
			if sig == os.Interrupt {
				return s.stop(cfg.Drain)
			}
			a.log.Info("draining", "for", cfg.Drain.String())
			s.drain(cfg.Drain/3, end)
			return s.stop(cfg.Drain - cfg.Drain/3)
		}
	}
}

// running is a provider that answers requests.
type running struct {
	store       storage.Store
	web         *web.Server
	certificate atomic.Pointer[tls.Certificate]
	public      net.Listener
	admin       net.Listener
	servers     []*http.Server
	failed      chan error // a listener that broke
	stopWork    context.CancelFunc
	worked      chan struct{} // closed when the background work has ended
	flushTraces func()        // sends the last of them
}

// start wires the whole house together and begins to serve. It is the one
// place that knows every part.
func (a *app) start(ctx context.Context, cfg Config) (_ *running, err error) {
	s := &running{failed: make(chan error, 2), worked: make(chan struct{}), flushTraces: func() {}}
	if cfg.TLSCert != "" {
		if err := s.loadCertificate(cfg); err != nil {
			return nil, err
		}
	}
	if s.public, err = listen("--listen", cfg.Listen); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.admin, err = listen("--admin-listen", cfg.AdminListen); err != nil {
		return nil, err
	}
	var tracer trace.Tracer
	if cfg.Traces {
		if tracer, s.flushTraces, err = startTracing(ctx, a.log); err != nil {
			return nil, err
		}
		a.log = slog.New(tracedLog{a.log.Handler()})
	}
	now, err := a.machineClock()
	if err != nil {
		return nil, err
	}
	registry := newFigures()
	observer := newDatabaseObserver(cfg.Database, registry, tracer, now)
	if s.store, err = a.openStore(ctx, cfg.Database, cfg.Migrate, observer); err != nil {
		return nil, err
	}
	a.log.Info("opened the database", "database", cfg.Database.String())
	registerDatabase(registry, s.store)
	if s.store, err = a.withFailpoints(s.store); err != nil {
		return nil, err
	}
	sealer, err := a.openSealer(ctx, cfg.Database, cfg.KEK, s.store)
	if err != nil {
		return nil, err
	}
	policy, schedule, err := lifetimes()
	if err != nil {
		return nil, err
	}
	policy.AuditRetention = cfg.AuditRetention
	p, err := provider.New(ctx, provider.Config{
		Issuer: cfg.Issuer, Store: s.store, Sealer: sealer, Algorithms: keys.Algorithms(), Policy: policy, Schedule: schedule,
		FeedScope: cfg.FeedScope, Registration: cfg.Registration, Documents: cfg.Documents,
		Outbound: provider.NewOutbound(cfg.OutboundAllow),
		Metrics:  registry, Tracer: tracer, Log: a.log, Now: now,
	})
	if err != nil {
		return nil, err
	}
	s.web = web.New(web.Config{
		Issuer: cfg.Issuer, Provider: p, TrustedProxies: cfg.TrustedProxies, RequestTimeout: policy.RequestTimeout,
		Registerer: registry, Gatherer: registry, Tracer: tracer, Log: a.log, Now: now, Version: serverVersion(),
	})

	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	s.stopWork = stopWork
	go func() {
		defer close(s.worked)
		p.Run(work)
	}()
	var certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	if cfg.TLSCert != "" {
		certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil }
	}
	public := web.HTTPServer(s.web.Public(), a.log, certificate)
	s.web.LimitConnections(public, maxConnections(maxFiles()))
	s.serve(public, s.public)
	s.serve(web.HTTPServer(s.web.Admin(), a.log, nil), s.admin)
	return s, nil
}

// maxConnections returns how many connections of strangers the process may
// hold: so many that they take some 200 MB at the most, and leave it files for
// its database and its log.
func maxConnections(files int) int {
	const most, others = 10_000, 128
	return max(min(most, files-others), files/2)
}

func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &failure{status: exitFailed, code: "listen", message: fmt.Sprintf("cannot listen on %s: %v", address, errors.Unwrap(err)),
			fix: "end what uses the address, or choose another with " + flag}
	}
	return l, nil
}

func (s *running) serve(server *http.Server, l net.Listener) {
	s.servers = append(s.servers, server)
	go func() {
		var err error
		if server.TLSConfig != nil {
			err = server.ServeTLS(l, "", "")
		} else {
			err = server.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serving on %s: %w", l.Addr(), err)
		}
	}()
}

func (s *running) loadCertificate(cfg Config) error {
	certificate, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		return &failure{status: exitUsage, code: "certificate", message: "the certificate cannot be used: " + err.Error(),
			fix: "check that --tls-cert and --tls-key are PEM files that belong together"}
	}
	s.certificate.Store(&certificate)
	return nil
}

// reload takes over what may change while the server runs: the certificate,
// the trusted proxies and the level of the log. A configuration with a fault changes nothing.
func (a *app) reload(s *running) {
	log := a.log
	var r root
	_, err := a.parse(&r)
	a.log = log
	if err == nil {
		var cfg Config
		if cfg, err = r.Serve.validate(a); err == nil && cfg.TLSCert != "" {
			err = s.loadCertificate(cfg)
		}
		if err == nil {
			s.web.SetTrustedProxies(cfg.TrustedProxies)
			a.logLevel.Set(cfg.LogLevel)
			a.log.Info("configuration read again: certificate, trusted proxies and log level are in force, other changes need a restart")
			return
		}
	}
	a.log.Error("configuration not taken over, the one before stays in force", "cause", err.Error())
}

// suggest says what is seldom meant in the configuration, and what to do next
// where nobody could get a token yet.
func (a *app) suggest(ctx context.Context, cfg Config, store storage.Reader) {
	unowned, err := cfg.unowned(ctx, store)
	if err != nil {
		return // not worth failing for; requests will tell
	}
	for _, note := range append(cfg.notes(), unowned...) {
		a.log.Warn(note.Field+" "+note.Problem, "fix", note.Fix)
	}
	one := storage.Page{Limit: 1}
	clients, err := store.Clients(ctx, one)
	if err != nil {
		return
	}
	users, err := store.Users(ctx, one)
	if err != nil {
		return
	}
	switch {
	case len(clients) == 0:
		a.log.Info("there are no clients yet: register an API with `signet resource create` and a service with `signet client create`; --help has examples")
	case len(users) == 0:
		a.log.Info("there are no users yet: `signet user create` makes one; services need none")
	}
}

// drain tells balancers to send no more requests and answers what they send
// until they have noticed, or somebody is in a hurry.
func (s *running) drain(wait time.Duration, hurry <-chan os.Signal) {
	s.web.Drain()
	select {
	case <-time.After(wait):
	case <-hurry:
	}
}

// stop lets requests under way finish, for at most limit, and then closes
// everything.
func (s *running) stop(limit time.Duration) error {
	s.web.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var errs []error
	for _, server := range s.servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("requests were cut off: %w", err), server.Close())
		}
	}
	s.stopWork()
	<-s.worked
	s.flushTraces()
	return errors.Join(append(errs, s.store.Close())...)
}

// close undoes a start that failed half-way.
func (s *running) close() {
	_ = s.public.Close()
	if s.admin != nil {
		_ = s.admin.Close()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	s.flushTraces()
}
