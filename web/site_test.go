package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
	"github.com/signet-oidc/signet/web"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

// ordersURI is the API that the tests' tokens are for.
const ordersURI = "https://orders.example"

// site is a provider that answers on a loopback port, over a real database.
type site struct {
	t       testing.TB
	issuer  string
	store   storage.Store
	ring    *keys.Ring
	admin   *provider.Admin
	ops     http.Handler // the admin listener
	metrics *prometheus.Registry
	log     *lockedBuffer
}

// options change what a site is made with.
type options struct {
	path    string // the issuer's path
	now     func() time.Time
	policy  func(*provider.Policy)
	proxies []netip.Prefix
	allow   []netip.Prefix // outbound
}

// lockedBuffer collects the log of all goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// onBoth runs the test against a site on each database.
func onBoth(t *testing.T, o options, test func(t *testing.T, s *site)) {
	t.Helper()
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(t, newSite(t, openStore(t, engine), o))
		})
	}
}

func openStore(t testing.TB, engine migrations.Engine) storage.Store {
	t.Helper()
	var store storage.Store
	var err error
	if engine == migrations.Postgres {
		store, err = postgres.Open(t.Context(), storagetest.Postgres(t), postgres.Options{})
	} else {
		store, err = sqlite.Open(t.Context(), sqliteFile(t), sqlite.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// sqliteFile returns the path of a fresh, migrated database file.
func sqliteFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signet.db")
	db, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := migrations.Up(t.Context(), db, migrations.SQLite, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func newSite(t testing.TB, store storage.Store, o options) *site {
	t.Helper()
	if o.now == nil {
		o.now = func() time.Time { return time.Now().UTC() }
	}
	policy := provider.DefaultPolicy()
	if o.policy != nil {
		o.policy(&policy)
	}
	kek, _, err := keys.LoadKEKFile(filepath.Join(t.TempDir(), "kek"), true)
	if err != nil {
		t.Fatal(err)
	}
	sealer := &keys.Sealer{Primary: kek}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, issuer: "http://" + l.Addr().String() + o.path, store: store, metrics: prometheus.NewRegistry(), log: &lockedBuffer{}}
	issuer, err := provider.ParseIssuer(s.issuer)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := provider.New(t.Context(), provider.Config{
		Issuer: issuer, Store: store, Sealer: sealer, Policy: policy,
		Outbound: provider.NewOutbound(o.allow), Metrics: s.metrics, Log: log, Now: o.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.ring, err = keys.Load(t.Context(), store, sealer, o.now()); err != nil {
		t.Fatal(err)
	}
	s.admin = provider.NewAdmin(provider.AdminConfig{
		Store: store, Ring: func(context.Context) (*keys.Ring, error) { return s.ring, nil },
		Policy: policy, Now: o.now, Actor: "operator", Issuer: s.issuer,
	})
	server := web.New(web.Config{
		Issuer: issuer, Provider: p, TrustedProxies: o.proxies, RequestTimeout: policy.RequestTimeout,
		Registerer: s.metrics, Gatherer: s.metrics, Log: log, Now: o.now,
	})
	s.ops = server.Admin()

	work, stop := context.WithCancel(context.Background())
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		p.Run(work)
	}()
	srv := web.HTTPServer(server.Public(), log, nil)
	go srv.Serve(l)
	t.Cleanup(func() {
		srv.Close()
		stop()
		<-worked
	})
	return s
}

// register makes the orders API and returns the secret of a service that may
// use all of it but what needs the role orders-admin.
func (s *site) register(id string, alter ...func(*storage.Client)) (secret string) {
	s.t.Helper()
	ctx := s.t.Context()
	if _, err := s.admin.Resource(ctx, ordersURI); err != nil {
		if _, err := s.admin.CreateRole(ctx, storage.Role{Name: "orders-admin"}); err != nil {
			s.t.Fatal(err)
		}
		r := s.admin.DefaultResource()
		r.URI, r.Name, r.RolesClaim = ordersURI, "Orders", true
		r.Scopes = []storage.Scope{{Name: "orders:read"}, {Name: "orders:write"}, {Name: "orders:report", Role: "orders-admin"}}
		if _, err := s.admin.CreateResource(ctx, r); err != nil {
			s.t.Fatal(err)
		}
	}
	c := provider.DefaultClient()
	c.ID, c.Name, c.GrantTypes = id, id, []string{"client_credentials"}
	c.Scopes = []string{"orders:read", "orders:write", "orders:report"}
	for _, f := range alter {
		f(&c)
	}
	_, secret, err := s.admin.CreateClient(ctx, c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.settle()
	return secret
}

// settle waits until the running provider has noticed what the test changed.
func (s *site) settle() { time.Sleep(300 * time.Millisecond) }

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any // nil when the body is no JSON object
}

func (a answer) member(name string) string {
	v, _ := a.json[name].(string)
	return v
}

// do sends a request and reads the answer.
func (s *site) do(req *http.Request) answer {
	s.t.Helper()
	res, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(body)}
	_ = json.Unmarshal(body, &a.json)
	return a
}

// get asks for a path below the issuer.
func (s *site) get(path string) answer {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.issuer+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(req)
}

// form posts a form, as the client that id and secret name unless id is "".
func (s *site) form(path, id, secret string, values url.Values) answer {
	s.t.Helper()
	req := httptest.NewRequest(http.MethodPost, s.issuer+path, strings.NewReader(values.Encode()))
	req.RequestURI = ""
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
	return s.do(req)
}

// token gets an access token with client credentials.
func (s *site) token(id, secret, scope string) string {
	s.t.Helper()
	a := s.form("/token", id, secret, url.Values{"grant_type": {"client_credentials"}, "scope": {scope}})
	if a.status != http.StatusOK {
		s.t.Fatalf("token: %d %s", a.status, a.body)
	}
	return a.member("access_token")
}
