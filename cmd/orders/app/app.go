// Package app is a small resource server, the example to copy: an API that
// keeps its callers' orders in SQLite and lets Signet say who the callers are.
// Start reading at routes.
//
// It checks access tokens with package verify, in memory, and so goes on
// answering while the provider is down; what each route then still accepts is
// its choice, made in Handler. It knows no sessions: the bearer token
// in the Authorization header is all it looks at.
package app

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/signet-oidc/signet/verify"
)

// maxBody is the longest request body read, in bytes.
const maxBody = 64 << 10

// Config says what the API needs to run. Issuer, Audience and Database are
// required.
type Config struct {
	Issuer   string // the provider's URL, exactly as its metadata has it
	Audience string // this API's URL, as it is registered with the provider
	Database string // path of the SQLite file, made when missing

	Log        *slog.Logger     // nil: no logs
	HTTPClient *http.Client     // fetches the provider's keys and revocations; nil: a new one
	Now        func() time.Time // nil: time.Now
}

// App is the running API.
type App struct {
	store    *store
	verifier *verify.Verifier
	stop     context.CancelFunc // ends the fetching of keys and revocations
	resource verify.Metadata    // how the API describes itself
	log      *slog.Logger
	now      func() time.Time
}

// New opens the database and begins to fetch the provider's keys and revocations,
// which it keeps fresh until Close or the end of ctx. A provider that is down is no error: the
// API is not ready until it has been seen once.
func New(ctx context.Context, config Config) (*App, error) {
	a := &App{
		resource: verify.Metadata{
			Resource:             config.Audience,
			AuthorizationServers: []string{config.Issuer},
			ScopesSupported:      []string{"orders:read", "orders:write", "orders:report"},
			ResourceName:         "Orders",
		},
		log: cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
		now: config.Now,
	}
	if a.now == nil {
		a.now = time.Now
	}
	metadata, err := verify.MetadataURL(config.Audience)
	if err != nil {
		return nil, fmt.Errorf("audience: %w", err)
	}
	ctx, a.stop = context.WithCancel(ctx)
	a.verifier, err = verify.New(ctx, config.Issuer, config.Audience,
		verify.WithHTTPClient(cmp.Or(config.HTTPClient, &http.Client{})),
		verify.WithLogger(a.log),
		verify.WithNow(a.now),
		verify.WithResourceMetadata(metadata))
	if err != nil {
		a.stop()
		return nil, err
	}
	if a.store, err = openStore(ctx, config.Database); err != nil {
		a.stop()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return a, nil
}

// Close stops the background work and closes the database. Requests must have
// ended.
func (a *App) Close() error {
	a.stop()
	return a.store.close()
}

// Handler returns the whole API.
func (a *App) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(a.record, defaultHeaders, limitBody, middleware.GetHead)
	r.NotFound(notFound)
	r.MethodNotAllowed(methodNotAllowed(r))

	r.Get("/livez", live)
	r.Get("/readyz", a.ready)
	r.Method(http.MethodGet, verify.MetadataPath(a.resource.Resource), verify.ResourceMetadata(a.resource))

	r.Group(func(r chi.Router) {
		r.Use(a.verifier.Middleware) // from here on every caller has shown a valid token

		r.With(verify.RequireScope("orders:read")).Get("/orders", a.list)
		r.With(verify.RequireScope("orders:read")).Get("/orders/{id}", a.get)

		// Whoever changes something while revocations cannot be followed has to
		// show a token of the last minute, which the provider has just judged.
		soft := verify.WhenStale(verify.Soft)
		r.With(soft, verify.RequireScope("orders:write")).Post("/orders", a.create)
		r.With(soft, verify.RequireScope("orders:write")).Delete("/orders/{id}", a.delete)

		// Everybody's orders at once can wait.
		closed := verify.WhenStale(verify.Closed)
		r.With(closed, verify.RequireRole("orders-admin", "orders:report")).Get("/reports/summary", a.summary)
	})
	return r
}

// live answers whenever the process can.
func live(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready says whether requests can be served: with keys and revocations to check
// tokens with, and a database. A provider that is down is no reason to be unready.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := errors.Join(a.verifier.Ready(), a.store.ready(ctx)); err != nil {
		a.log.WarnContext(ctx, "not ready", "error", err)
		problem(w, http.StatusServiceUnavailable, "The service can't answer requests yet; its log says why.")
		return
	}
	// How revocations are followed is told, and is no reason to be unready: the
	// routes know what to do.
	answer(w, http.StatusOK, map[string]string{"status": "ok", "revocations": a.verifier.Revocation().State})
}

// record logs each request and turns a panic into a 500. It logs the route, not
// the path, and no header: nothing secret can get in.
func (a *App) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			if fault := recover(); fault != nil {
				if fault == http.ErrAbortHandler {
					panic(fault)
				}
				a.log.ErrorContext(r.Context(), "panic", "fault", fault)
				if seen.Status() == 0 {
					problem(seen, http.StatusInternalServerError, "Something went wrong here.")
				}
			}
			a.log.InfoContext(r.Context(), "request", "method", r.Method,
				"route", chi.RouteContext(r.Context()).RoutePattern(), "status", seen.Status(), "seconds", time.Since(began).Seconds())
		}()
		next.ServeHTTP(seen, r)
	})
}

// defaultHeaders fit every answer that doesn't say otherwise: it is one caller's
// own, and exactly the type it says.
func defaultHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func limitBody(next http.Handler) http.Handler { return http.MaxBytesHandler(next, maxBody) }

func notFound(w http.ResponseWriter, _ *http.Request) {
	problem(w, http.StatusNotFound, "There is nothing at this address.")
}

// methodNotAllowed names the methods that are allowed, RFC 9110 §15.5.6.
func methodNotAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// HEAD goes where GET does, see middleware.GetHead.
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
				w.Header().Add("Allow", strings.Replace(method, "GET", "GET, HEAD", 1))
			}
		}
		problem(w, http.StatusMethodNotAllowed, "This address doesn't take "+r.Method+" requests.")
	}
}

// fail answers an error of our own making; its cause goes to the log only.
func (a *App) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.log.ErrorContext(r.Context(), "request failed", "error", err)
	problem(w, http.StatusInternalServerError, "Something went wrong here.")
}

// problem answers an error as RFC 9457 describes, with a sentence for people.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, status, body)
}

func write(w http.ResponseWriter, status int, body any) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // a caller that has gone is the only way to fail
}

// decode reads a JSON body into v. It answers the caller itself, and returns
// false, when the body isn't exactly one object with the fields of v.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "Send the body as application/json.")
		return false
	}
	body, err := io.ReadAll(r.Body)
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is longer than %d bytes.", maxBody))
		return false
	}
	if err != nil || !utf8.Valid(body) {
		problem(w, http.StatusBadRequest, "The body is incomplete or not UTF-8.")
		return false
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(v)
	if err == nil && decoder.Decode(&struct{}{}) != io.EOF {
		err = errors.New("something follows it")
	}
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && mismatch.Field != "" {
		problem(w, http.StatusBadRequest, fmt.Sprintf("%s can't be a %s.", mismatch.Field, mismatch.Value))
		return false
	}
	if err != nil {
		problem(w, http.StatusBadRequest, "The body isn't the JSON object expected here: "+strings.TrimPrefix(err.Error(), "json: ")+".")
		return false
	}
	return true
}
