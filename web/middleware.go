package web

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/signet-oidc/signet/provider"
)

// requestID names the request, for the answer and the log. An id that the
// request brought along is not taken over: it could forge log lines.
func (s *Server) requestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var random [12]byte
		_, _ = rand.Read(random[:]) // never fails: it aborts the program instead
		w.Header().Set(provider.RequestIDHeader, hex.EncodeToString(random[:]))
		next.ServeHTTP(w, r)
	})
}

// clientAddress leaves the address of the client, without port, in
// RemoteAddr, where those who have the request already find it too. X-Forwarded-For is believed only as far as trusted proxies
// wrote it: from the right, up to the first address that is none of them.
func (s *Server) clientAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		if r.URL.Path == s.issuer.Path()+provider.PathDoctor {
			r = withPeer(r, host)
		}
		if trusted := s.trusted.Load(); len(*trusted) > 0 && contains(*trusted, host) {
			if rec, ok := w.(*recorder); ok {
				rec.proxied = true
			}
			for _, hop := range slices.Backward(hops(r.Header)) {
				addr, err := netip.ParseAddr(hop)
				if err != nil { // some proxies add the port
					withPort, err := netip.ParseAddrPort(hop)
					if err != nil {
						break
					}
					addr = withPort.Addr()
				}
				host = addr.Unmap().String()
				if !contains(*trusted, host) {
					break
				}
			}
		}
		r.RemoteAddr = host
		next.ServeHTTP(w, r)
	})
}

// hops returns the addresses that X-Forwarded-For names, as they are written.
func hops(h http.Header) []string {
	hops := strings.Split(strings.Join(h.Values("X-Forwarded-For"), ","), ",")
	for i := range hops {
		hops[i] = strings.TrimSpace(hops[i])
	}
	return hops
}

func contains(networks []netip.Prefix, host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// recorder remembers what was answered, for the request's line in the log.
type recorder struct {
	http.ResponseWriter
	status  int
	bytes   int
	notes   []slog.Attr
	quiet   bool // the line is worth nothing when all is well
	proxied bool // a trusted proxy sent the request
}

// Note implements provider.Noter.
func (w *recorder) Note(facts ...slog.Attr) { w.notes = append(w.notes, facts...) }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observe counts and logs each request: the path without its query, which may
// hold what a log must not. The line is written here and now, not buffered: none
// is lost with the process.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.now()
		rec := &recorder{ResponseWriter: w}
		next.ServeHTTP(rec, r)
		took := s.now().Sub(began)
		route := chi.RouteContext(r.Context()).RoutePattern()
		if route == "" {
			route = "none"
		}
		s.metrics.observe(route, rec.status, took)
		level := slog.LevelInfo
		if rec.quiet && rec.status < http.StatusBadRequest {
			level = slog.LevelDebug
		}
		if !s.log.Enabled(r.Context(), level) {
			return
		}
		line := append(make([]slog.Attr, 0, 16),
			slog.String("request_id", w.Header().Get(provider.RequestIDHeader)),
			slog.String("method", r.Method),
			slog.String("path", provider.LogPath(r)),
			slog.Int("status", rec.status),
			slog.Int("bytes", rec.bytes),
			slog.Int64("micros", took.Microseconds()),
			slog.String("address", r.RemoteAddr))
		s.log.LogAttrs(r.Context(), level, "request", append(line, rec.notes...)...)
	})
}

// quiet is for what balancers and relying parties ask all day, and everybody
// gets the same answer: such requests are counted, and logged when they fail.
func quiet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rec, ok := w.(*recorder); ok {
			rec.quiet = true
		}
		next.ServeHTTP(w, r)
	})
}

// trace makes a span of the request, named by its route: never by what somebody
// sent. It is part of a trace that a trusted proxy tells of (W3C Trace Context
// §3.2). Anybody else's is only linked to, for it would decide what is recorded.
func (s *Server) trace(next http.Handler) http.Handler {
	if s.tracer == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, ok := w.(*recorder)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		ctx, route := r.Context(), chi.RouteContext(r.Context()).RoutePattern()
		opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("http.request.method", r.Method), // one of the router's
			attribute.String("http.route", route),
			attribute.String("signet.request_id", w.Header().Get(provider.RequestIDHeader)))}
		told := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))).
			WithTraceState(trace.TraceState{})
		switch {
		case told.IsValid() && rec.proxied:
			ctx = trace.ContextWithRemoteSpanContext(ctx, told)
		case told.IsValid():
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: told}))
		}
		ctx, span := s.tracer.Start(ctx, r.Method+" "+route, opts...)
		rec.Note(slog.String("trace_id", span.SpanContext().TraceID().String()))
		status := http.StatusInternalServerError // of a panic
		defer func() {
			span.SetAttributes(attribute.Int("http.response.status_code", status))
			if status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, "")
			}
			span.End()
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
		status = rec.status
	})
}

// recover turns a panic into a 500 that tells nothing; the log has the stack.
func (s *Server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // net/http's own way to give up a connection
			}
			s.metrics.panics.Inc()
			s.log.Error("panic", "request_id", w.Header().Get(provider.RequestIDHeader),
				"path", provider.LogPath(r), "cause", cause, "stack", string(debug.Stack()))
			if rec, ok := w.(*recorder); ok && rec.status != 0 {
				panic(http.ErrAbortHandler) // too late for another answer
			}
			s.fail(w, r, http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// origin says who asks, for what a request causes: the audit log and the limits
// of strangers go by it.
func (s *Server) origin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := provider.Origin{Address: r.RemoteAddr, RequestID: w.Header().Get(provider.RequestIDHeader)}
		next.ServeHTTP(w, r.WithContext(provider.WithOrigin(r.Context(), o)))
	})
}

// bound gives a request an end. It does not end when its client hangs up: who
// does that on purpose would cut off what the database is at, and with it a
// connection, which costs more than to finish.
func (s *Server) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// untilDrained ends what would go on by itself when the server is to stop.
func (s *Server) untilDrained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.drained.Err() != nil {
			writeStatus(w, http.StatusServiceUnavailable, "draining")
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.drained, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// headers sets what every answer carries, page or not.
func (s *Server) headers(next http.Handler) http.Handler {
	common := http.Header{"X-Content-Type-Options": {"nosniff"}}
	if s.issuer.Secure() {
		common.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), common)
		next.ServeHTTP(w, r)
	})
}

// cors lets scripts of any site call endpoints that no cookie matters to:
// "*", and never with credentials.
func cors(next http.Handler) http.Handler { return corsOf("GET, POST")(next) }

// corsOf is cors for other methods.
func corsOf(methods string) func(http.Handler) http.Handler {
	anybody := http.Header{
		"Access-Control-Allow-Origin":   {"*"},
		"Access-Control-Expose-Headers": {"WWW-Authenticate, Retry-After, " + provider.RequestIDHeader},
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			maps.Copy(h, anybody)
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", methods)
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				h.Set("Access-Control-Max-Age", "7200")
				w.WriteHeader(http.StatusNoContent)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
