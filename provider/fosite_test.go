package provider

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/ory/fosite"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// desk is a provider over a SQLite file, with one service registered.
type desk struct {
	*Provider
	store  *failing
	admin  *Admin
	secret string
}

// failing is a store that can be told to fail.
type failing struct {
	storage.Store
	updates, revocations atomic.Pointer[error]
}

func (f *failing) Update(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	if err := f.updates.Load(); err != nil {
		return *err
	}
	return f.Store.Update(ctx, fn)
}

func (f *failing) Revocations(ctx context.Context, names []storage.RevocationKey, now time.Time) ([]storage.Revocation, error) {
	if err := f.revocations.Load(); err != nil {
		return nil, *err
	}
	return f.Store.Revocations(ctx, names, now)
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "signet.db")
	db, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(ctx, db, migrations.SQLite, nil); err != nil {
		t.Fatal(err)
	}
	db.Close()
	store, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := &desk{store: &failing{Store: store}}
	sealer := &keys.Sealer{Primary: keys.NewKEK([32]byte{1})}
	issuer, err := ParseIssuer(testIssuer)
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Now().UTC() }
	policy := DefaultPolicy()
	if d.Provider, err = New(ctx, Config{
		Issuer: issuer, Store: d.store, Sealer: sealer, Algorithms: []string{keys.ES256}, Policy: policy,
		Outbound: NewOutbound(nil), Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: now,
	}); err != nil {
		t.Fatal(err)
	}
	d.admin = NewAdmin(AdminConfig{
		Store: store, Policy: policy, Now: now, Actor: "operator", Issuer: testIssuer,
		Ring: func(ctx context.Context) (*keys.Ring, error) { return keys.Load(ctx, store, sealer, now()) },
	})
	r := d.admin.DefaultResource()
	r.URI, r.Name, r.Scopes = "https://orders.example", "Orders", []storage.Scope{{Name: "orders:read"}}
	if _, err := d.admin.CreateResource(ctx, r); err != nil {
		t.Fatal(err)
	}
	c := DefaultClient()
	c.ID, c.Name, c.GrantTypes, c.Scopes = "shop", "Shop", []string{grantClientCredentials}, []string{"orders:read"}
	if _, d.secret, err = d.admin.CreateClient(ctx, c); err != nil {
		t.Fatal(err)
	}
	time.Sleep(policy.RegistryPoll) // then the next look sees the resource
	if err := d.registry.refresh(ctx); err != nil {
		t.Fatal(err)
	}
	return d
}

// post sends a form to one of the endpoints.
func (d *desk) post(endpoint http.HandlerFunc, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("shop", d.secret)
	w := httptest.NewRecorder()
	endpoint(w, r)
	return w
}

func (d *desk) ask() *httptest.ResponseRecorder {
	return d.post(d.Token, url.Values{"grant_type": {grantClientCredentials}})
}

// config is the framework's configuration, which tests may change.
func (d *desk) config() *fosite.Config { return d.fosite.Config.(*fosite.Config) }

// counting wraps a grant handler of ours and counts fosite's calls.
type counting struct {
	fosite.TokenEndpointHandler
	handled, populated atomic.Int32
}

func (h *counting) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	h.handled.Add(1)
	return h.TokenEndpointHandler.HandleTokenEndpointRequest(ctx, r)
}

func (h *counting) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, a fosite.AccessResponder) error {
	h.populated.Add(1)
	return h.TokenEndpointHandler.PopulateTokenEndpointResponse(ctx, r, a)
}

// A token request really runs through fosite: its parsing, its client
// authentication hook, its chain of handlers.
func TestFositeIsNotBypassed(t *testing.T) {
	t.Run("handler chain", func(t *testing.T) {
		d := newDesk(t)
		h := &counting{TokenEndpointHandler: &clientCredentials{d.Provider}}
		d.config().TokenEndpointHandlers = fosite.TokenEndpointHandlers{h}
		if w := d.ask(); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if h.handled.Load() != 1 || h.populated.Load() != 1 {
			t.Errorf("handled %d times, populated %d times", h.handled.Load(), h.populated.Load())
		}
	})
	t.Run("no handler, no token", func(t *testing.T) {
		d := newDesk(t)
		d.config().TokenEndpointHandlers = nil
		if w := d.ask(); w.Code != http.StatusBadRequest {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("client authentication hook", func(t *testing.T) {
		for name, endpoint := range map[string]func(*Provider) http.HandlerFunc{
			"token":         func(p *Provider) http.HandlerFunc { return p.Token },
			"introspection": func(p *Provider) http.HandlerFunc { return p.Introspect },
			"revocation":    func(p *Provider) http.HandlerFunc { return p.Revoke },
		} {
			d := newDesk(t)
			var calls atomic.Int32
			ours := d.config().ClientAuthenticationStrategy
			d.config().ClientAuthenticationStrategy = func(ctx context.Context, r *http.Request, form url.Values) (fosite.Client, error) {
				calls.Add(1)
				return ours(ctx, r, form)
			}
			form := url.Values{"grant_type": {grantClientCredentials}, "token": {"x"}}
			if w := d.post(endpoint(d.Provider), form); w.Code != http.StatusOK || calls.Load() != 1 {
				t.Errorf("%s: %d %s, hook called %d times", name, w.Code, w.Body, calls.Load())
			}
		}
	})
	t.Run("the handler's second half decides the answer", func(t *testing.T) {
		d := newDesk(t)
		d.config().TokenEndpointHandlers = fosite.TokenEndpointHandlers{mute{&clientCredentials{d.Provider}}}
		if w := d.ask(); w.Code != http.StatusInternalServerError { // fosite misses the token
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// mute is a grant handler that never answers.
type mute struct{ fosite.TokenEndpointHandler }

func (mute) PopulateTokenEndpointResponse(context.Context, fosite.AccessRequester, fosite.AccessResponder) error {
	return nil
}

// F10, F11, F15: fosite's own judges of secrets and assertions are out of
// reach: were they asked, they would refuse.
func TestFositeStockAuthenticationRefuses(t *testing.T) {
	d := newDesk(t)
	d.config().ClientAuthenticationStrategy = nil // as if our hook were lost
	if w := d.ask(); w.Code == http.StatusOK {
		t.Errorf("F15 the stock strategy let the client in: %s", w.Body)
	}
	cfg := d.config()
	if err := cfg.GetSecretsHasher(t.Context()).Compare(t.Context(), nil, nil); !errors.Is(err, errStockHasher) {
		t.Errorf("F15 hasher: %v", err)
	}
	if _, err := cfg.GetSecretsHasher(t.Context()).Hash(t.Context(), nil); !errors.Is(err, errStockHasher) {
		t.Errorf("F15 hasher: %v", err)
	}
	store := d.fosite.Store
	if err := store.ClientAssertionJWTValid(t.Context(), "x"); !errors.Is(err, errStockAssertion) {
		t.Errorf("F10 assertion: %v", err)
	}
	if err := store.SetClientAssertionJWT(t.Context(), "x", time.Now()); !errors.Is(err, errStockAssertion) {
		t.Errorf("F10 assertion: %v", err)
	}
	if _, err := cfg.GetJWKSFetcherStrategy(t.Context()).Resolve(t.Context(), "https://client.example/jwks", false); !errors.Is(err, errStockFetch) {
		t.Errorf("F11 fetch: %v", err)
	}
	if c, err := store.GetClient(t.Context(), "shop"); err != nil || len(c.GetHashedSecret()) != 0 {
		t.Errorf("F15 fosite sees the client's hash: %v", err)
	}
}

// F6, F7: no stock handler is in the chain, above all none for introspection
// and revocation.
func TestFositeHandlers(t *testing.T) {
	cfg := newDesk(t).config()
	if n := len(cfg.TokenIntrospectionHandlers) + len(cfg.RevocationHandlers) + len(cfg.PushedAuthorizeEndpointHandlers); n != 0 {
		t.Errorf("F6 F7 %d handlers of fosite's own endpoints", n)
	}
	var handlers []any
	for _, h := range cfg.AuthorizeEndpointHandlers {
		handlers = append(handlers, h)
	}
	for _, h := range cfg.TokenEndpointHandlers {
		handlers = append(handlers, h)
	}
	for _, h := range handlers {
		if pkg := reflect.TypeOf(h).Elem().PkgPath(); !strings.HasPrefix(pkg, "github.com/signet-oidc/signet/") {
			t.Errorf("a handler of %s", pkg)
		}
	}
	if cfg.SendDebugMessagesToClients {
		t.Error("fosite's debug messages go to clients")
	}
}

// Getters of fosite.Config fill in what is missing, unsynchronised: each must
// find its field filled (fosite v0.49 config_default.go).
func TestFositeConfigIsComplete(t *testing.T) {
	d := newDesk(t)
	before := *d.config()
	v := reflect.ValueOf(d.config())
	for i := range v.NumMethod() {
		m := v.Type().Method(i)
		if !strings.HasPrefix(m.Name, "Get") || m.Type.NumIn() != 2 {
			continue
		}
		v.Method(i).Call([]reflect.Value{reflect.ValueOf(t.Context())})
		after := *d.config()
		for f := range reflect.TypeFor[fosite.Config]().NumField() {
			a, b := reflect.ValueOf(before).Field(f), reflect.ValueOf(after).Field(f)
			if a.IsZero() != b.IsZero() {
				t.Errorf("%s filled in %s", m.Name, reflect.TypeFor[fosite.Config]().Field(f).Name)
			}
		}
		before = after
	}
}

// F22: the first requests come all at once; nothing shared is written to.
func TestFirstRequestsAtOnce(t *testing.T) {
	d := newDesk(t)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if w := d.ask(); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
}

// F22: a session is a request's own: a clone shares nothing that is written.
func TestSessionClone(t *testing.T) {
	s := &session{subject: "shop"}
	c := s.Clone().(*session)
	c.subject = "other"
	if s.subject != "shop" {
		t.Error("F22 a clone writes to its original")
	}
}

// F14: even a handler that is reached without our reader's work finds a form
// already parsed, so that fosite's ParseMultipartForm reads no body.
func TestFositeReadsNoBody(t *testing.T) {
	d := newDesk(t)
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("grant_type="+grantClientCredentials))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if err := readForm(httptest.NewRecorder(), r); err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(unreadable{t})
	r.SetBasicAuth("shop", d.secret)
	if _, err := d.fosite.NewAccessRequest(t.Context(), r, &session{}); err != nil {
		t.Error(err)
	}
}

type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("F14 fosite read the body")
	return 0, io.EOF
}

// I3, CVE-2020-15223: when the store fails, revocation and introspection say
// so, and the token is what it was.
func TestStoreFailure(t *testing.T) {
	away := errors.Join(storage.ErrUnavailable, errors.New("dial tcp: SELECT secret"))
	strange := errors.New("pq: syntax error in SELECT")
	for _, tc := range []struct {
		name   string
		err    error
		status int
	}{
		{"I3 the database is away", away, http.StatusServiceUnavailable},
		{"I3 a fault of the program", strange, http.StatusInternalServerError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDesk(t)
			var token string
			if w := d.ask(); w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			} else {
				token = strings.Split(w.Body.String(), `"`)[3]
			}
			form := url.Values{"token": {token}}
			failed := func(w *httptest.ResponseRecorder) {
				t.Helper()
				if w.Code != tc.status || strings.Contains(w.Body.String(), "SELECT") || strings.Contains(w.Body.String(), "active") {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				if (w.Header().Get("Retry-After") != "") != (w.Code == http.StatusServiceUnavailable) {
					t.Errorf("Retry-After = %q with status %d", w.Header().Get("Retry-After"), w.Code)
				}
			}
			d.store.updates.Store(&tc.err)
			failed(d.post(d.Revoke, form))
			d.store.updates.Store(nil)
			if w := d.post(d.Introspect, form); !strings.Contains(w.Body.String(), `"active":true`) {
				t.Errorf("a failed revocation changed the token: %s", w.Body)
			}
			d.store.revocations.Store(&tc.err)
			failed(d.post(d.Introspect, form))
			d.store.revocations.Store(nil)
			if w := d.post(d.Revoke, form); w.Code != http.StatusOK {
				t.Errorf("the next revocation: %d %s", w.Code, w.Body)
			}
			if w := d.post(d.Introspect, form); w.Body.String() != `{"active":false}` {
				t.Errorf("after it: %s", w.Body)
			}
		})
	}
}

// E7: an assertion whose use cannot be recorded lets nobody in, and the
// client is told to try again, not that it failed.
func TestAssertionNeedsTheStore(t *testing.T) {
	d := newDesk(t)
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public()}}})
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultClient()
	c.ID, c.Name, c.GrantTypes, c.Scopes = "robot", "Robot", []string{grantClientCredentials}, []string{"orders:read"}
	c.AuthMethod, c.JWKS = authPrivateKeyJWT, string(set)
	if _, _, err := d.admin.CreateClient(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	jws, err := signer.Sign(fmt.Appendf(nil, `{"iss":"robot","sub":"robot","aud":%q,"iat":%d,"exp":%d,"jti":"1"}`, testIssuer, now, now+60))
	if err != nil {
		t.Fatal(err)
	}
	assertion, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	ask := func() int {
		form := url.Values{"grant_type": {grantClientCredentials}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		d.Token(w, r)
		return w.Code
	}
	d.store.updates.Store(&storage.ErrUnavailable)
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("with the database away: %d", code)
	}
	d.store.updates.Store(nil)
	if code := ask(); code != http.StatusOK {
		t.Errorf("E7 a use that was not recorded counts: %d", code)
	}
	if code := ask(); code != http.StatusUnauthorized {
		t.Errorf("E7 the second use: %d", code)
	}
}

// RFC 6749 §2.3.1: both halves of Basic credentials are form-encoded, as
// identifiers of clients registered elsewhere may need.
func TestReadBasic(t *testing.T) {
	for _, tc := range []struct{ name, pair, id, secret string }{
		{"plain", "shop:secret", "shop", "secret"},
		{"a colon in the id", "https%3A%2F%2Fshop.example:secret", "https://shop.example", "secret"},
		{"a colon in the secret", "shop:a:b", "shop", "a:b"},
		{"a plus is a space", "my+shop:a+b", "my shop", "a b"},
		{"an encoded plus", "my%2Bshop:a%2Bb", "my+shop", "a+b"},
		{"beyond ASCII", "caf%C3%A9:%F0%9F%94%91", "café", "🔑"},
		{"an empty secret", "shop:", "shop", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{}}
			id, secret, _ := strings.Cut(tc.pair, ":")
			r.SetBasicAuth(id, secret)
			gotID, gotSecret, err := readBasic(r.Header.Get("Authorization"))
			if err != nil || gotID != tc.id || gotSecret != tc.secret {
				t.Errorf("%q, %q, %v", gotID, gotSecret, err)
			}
		})
	}
}
