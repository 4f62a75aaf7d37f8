// Package app is a small server of the Model Context Protocol, the example to
// copy: it keeps its callers' notes in memory and lets Signet say who the callers
// are. Start reading at Handler.
//
// A client that is given its URL alone finds the rest: the answer to its first
// request names the resource metadata and the scope to begin with, the metadata
// names Signet, and a tool that needs a further scope says which.
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
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/signet-oidc/signet/verify"
)

const (
	scopeRead  = "notes:read"
	scopeWrite = "notes:write"

	maxBody = 64 << 10 // bytes of a request
)

// Config says what the server needs to run. Issuer and Audience are required.
type Config struct {
	Issuer   string // the provider's URL, exactly as its metadata has it
	Audience string // the URL clients are given, as it is registered with the provider

	Log        *slog.Logger     // nil: no logs
	HTTPClient *http.Client     // fetches the provider's keys and revocations; nil: a new one
	Now        func() time.Time // nil: time.Now
}

// App is the running server.
type App struct {
	path     string // where clients send requests
	resource verify.Metadata
	verifier *verify.Verifier
	stop     context.CancelFunc // ends the fetching of keys and revocations
	mcp      *mcp.Server
	scopes   map[string]string // what a tool needs, by its name
	notes    *notebooks
	log      *slog.Logger
}

// New begins to fetch the provider's keys and revocations, which are kept fresh
// until Close or the end of ctx. A provider that is down is no error: the server is
// not ready until it has been seen once.
func New(ctx context.Context, config Config) (*App, error) {
	metadata, err := verify.MetadataURL(config.Audience)
	if err != nil {
		return nil, fmt.Errorf("audience: %w", err)
	}
	at, err := url.Parse(config.Audience)
	if err != nil || at.RawQuery != "" {
		return nil, fmt.Errorf("audience: %q has a query", config.Audience)
	}
	a := &App{
		path: cmp.Or(at.EscapedPath(), "/"),
		resource: verify.Metadata{
			Resource:             config.Audience,
			AuthorizationServers: []string{config.Issuer},
			ScopesSupported:      []string{scopeRead, scopeWrite},
			ResourceName:         "Notes",
		},
		notes: newNotebooks(config.Now),
		log:   cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
	}
	options := []verify.Option{
		verify.WithHTTPClient(cmp.Or(config.HTTPClient, &http.Client{})),
		verify.WithLogger(a.log),
		verify.WithResourceMetadata(metadata),
		verify.WithFirstScope(scopeRead),
	}
	if config.Now != nil {
		options = append(options, verify.WithNow(config.Now))
	}
	ctx, a.stop = context.WithCancel(ctx)
	if a.verifier, err = verify.New(ctx, config.Issuer, config.Audience, options...); err != nil {
		a.stop()
		return nil, err
	}
	a.addTools()
	return a, nil
}

// Close stops the background work. Requests must have ended.
func (a *App) Close() { a.stop() }

// Handler returns the whole server. Requests are independent of each other, so
// that any number of it could run behind a balancer if notes were kept elsewhere.
func (a *App) Handler() http.Handler {
	requests := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return a.mcp },
		&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true, Logger: a.log, MaxRequestBodyBytes: maxBody})

	var h http.Handler = auth.RequireBearerToken(caller, &auth.RequireBearerTokenOptions{ClockSkew: time.Minute})(requests)
	h = a.requireScopes(h)
	h = verify.WhenStale(verify.Soft)(h) // while revocations cannot be followed, a token of the last minute
	h = a.verifier.Middleware(h)         // from here on every caller has shown a valid token

	mux := http.NewServeMux()
	mux.Handle(a.path, h)
	mux.Handle(verify.MetadataPath(a.resource.Resource), verify.ResourceMetadata(a.resource))
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", a.ready)
	return mux
}

// ready says whether tokens can be checked.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	if err := a.verifier.Ready(); err != nil {
		a.log.WarnContext(r.Context(), "not ready", "error", err)
		http.Error(w, "Tokens cannot be checked yet; the log says why.", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// caller tells the SDK, and through it the tools, what the verified token says.
func caller(ctx context.Context, _ string, _ *http.Request) (*auth.TokenInfo, error) {
	claims := verify.ClaimsFrom(ctx)
	return &auth.TokenInfo{
		UserID: claims.Subject(), Scopes: claims.Scopes(), Expiration: claims.ExpiresAt(),
		Extra: map[string]any{"client_id": claims.ClientID()},
	}, nil
}

// requireScopes answers 403 with the scope that the tool called needs, by which a
// client learns what to ask the person for: within the protocol's own errors it
// would not look for that. It reads the request's body for it; what it cannot make
// out, the SDK judges, and each tool looks at the scopes once more.
func (a *App) requireScopes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			http.Error(w, fmt.Sprintf("The request is longer than %d bytes.", maxBody), http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "The request is incomplete.", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h := next
		if needed := a.scopesOf(body); len(needed) > 0 {
			// Some clients forget what they had when they are asked for more, so it
			// is named again.
			held := verify.ClaimsFrom(r.Context())
			for _, scope := range a.resource.ScopesSupported {
				if held.HasScope(scope) && !slices.Contains(needed, scope) {
					needed = append(needed, scope)
				}
			}
			slices.Sort(needed)
			h = verify.RequireScope(needed...)(next)
		}
		h.ServeHTTP(w, r)
	})
}

// scopesOf lists what the tools called in a message, or in a batch of them, need.
func (a *App) scopesOf(body []byte) (scopes []string) {
	type message struct {
		Method string `json:"method"`
		Params struct {
			Name string `json:"name"`
		} `json:"params"`
	}
	var batch []message
	if json.Unmarshal(body, &batch) != nil {
		batch = make([]message, 1)
		if json.Unmarshal(body, &batch[0]) != nil {
			return nil
		}
	}
	for _, m := range batch {
		if scope := a.scopes[m.Params.Name]; m.Method == "tools/call" && scope != "" && !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}
