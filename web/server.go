package web

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// Config is what a Server is made of. All fields but TrustedProxies, Tracer and
// Version are required.
type Config struct {
	Issuer         provider.Issuer
	Provider       *provider.Provider
	TrustedProxies []netip.Prefix
	RequestTimeout time.Duration
	Registerer     prometheus.Registerer
	Gatherer       prometheus.Gatherer
	Tracer         trace.Tracer // nil: requests are not traced
	Log            *slog.Logger
	Now            func() time.Time
	Version        string // of the program
}

// Server serves the provider over HTTP.
type Server struct {
	issuer         provider.Issuer
	provider       *provider.Provider
	catalogue      *templates.Catalogue
	cookies        cookies
	crossOrigin    *http.CrossOriginProtection
	requestTimeout time.Duration
	gatherer       prometheus.Gatherer
	metrics        *metrics
	tracer         trace.Tracer // or nil
	log            *slog.Logger
	now            func() time.Time
	version        string
	instance       string // random: which process this is
	trusted        atomic.Pointer[[]netip.Prefix]
	drained        context.Context // ends when draining begins
	drain          context.CancelFunc
	unready        atomic.Bool // as /readyz said last
}

// New returns a Server; Public and Admin are its handlers.
func New(cfg Config) *Server {
	s := &Server{
		issuer:         cfg.Issuer,
		provider:       cfg.Provider,
		catalogue:      templates.NewCatalogue(),
		cookies:        newCookies(cfg.Issuer),
		crossOrigin:    http.NewCrossOriginProtection(),
		requestTimeout: cfg.RequestTimeout,
		gatherer:       cfg.Gatherer,
		metrics:        newMetrics(cfg.Registerer),
		tracer:         cfg.Tracer,
		log:            cfg.Log,
		now:            cfg.Now,
		version:        cfg.Version,
		instance:       rand.Text(),
	}
	s.drained, s.drain = context.WithCancel(context.Background())
	s.crossOrigin.SetDenyHandler(http.HandlerFunc(s.forbidden))
	// Behind a proxy that changes the Host header, our own pages would look
	// like another site's to it.
	if err := s.crossOrigin.AddTrustedOrigin(strings.TrimSuffix(cfg.Issuer.String(), cfg.Issuer.Path())); err != nil {
		panic(err) // an Issuer has an origin
	}
	s.SetTrustedProxies(cfg.TrustedProxies)
	return s
}

// SetTrustedProxies replaces the networks whose X-Forwarded-For is believed.
func (s *Server) SetTrustedProxies(networks []netip.Prefix) { s.trusted.Store(&networks) }

// Drain makes /readyz say no, so that a load balancer sends no more requests;
// those that come all the same are answered, except that the revocation feed's
// streams end, for they would not by themselves.
func (s *Server) Drain() { s.drain() }

// live says that the process runs; it asks nobody else.
func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	writeStatus(w, http.StatusOK, "ok")
}

// ready says whether this replica can answer requests now.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	err := s.provider.Ready(ctx)
	switch {
	case s.drained.Err() != nil:
		writeStatus(w, http.StatusServiceUnavailable, "draining")
	case err != nil:
		if s.unready.CompareAndSwap(false, true) { // balancers ask twice a second
			s.log.Warn("not ready", "cause", err.Error())
		}
		writeStatus(w, http.StatusServiceUnavailable, "unavailable")
	default:
		if s.unready.CompareAndSwap(true, false) {
			s.log.Info("ready again")
		}
		writeStatus(w, http.StatusOK, "ok")
	}
}

func writeStatus(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// HTTPServer wraps a handler with the limits a server on the open internet
// needs: slow senders are cut off, headers are small (RFC 9110 §15.5.14).
func HTTPServer(handler http.Handler, log *slog.Logger, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *http.Server {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if certificate != nil {
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate} // BCP 195
	}
	return srv
}
