package web_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
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
	"sync/atomic"
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

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain lets the certificate of httptest pass for one of the public web.
func testMain(m *testing.M) int {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	f, err := os.CreateTemp("", "roots-*.pem")
	if err != nil {
		panic(err)
	}
	defer os.Remove(f.Name())
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), f.Close(), os.Setenv("SSL_CERT_FILE", f.Name())); err != nil {
		panic(err)
	}
	return storagetest.Main(m)
}

// ordersURI is the API that the tests' tokens are for.
const ordersURI = "https://orders.example"

// site is a provider that answers on a loopback port, over a real database.
type site struct {
	t        testing.TB
	issuer   string
	url      string // where it listens: the issuer, but for a replica
	db       database
	store    storage.Store
	sealer   *keys.Sealer
	clock    *movedClock // the real time, until a test moves it
	ring     *keys.Ring
	admin    *provider.Admin
	provider *provider.Provider
	logger   *slog.Logger
	server   *web.Server
	public   http.Handler // what the listener serves
	ops      http.Handler // the admin listener
	metrics  *prometheus.Registry
	log      *lockedBuffer
}

// options change what a site is made with.
type options struct {
	path      string // the issuer's path
	feedScope string
	register  provider.Registration
	documents provider.Documents
	now       func() time.Time
	policy    func(*provider.Policy)
	proxies   []netip.Prefix
	allow     []netip.Prefix // outbound
	quiet     bool           // keeps no log, for benchmarks
	algs      []string       // nil: those whose keys are made in no time
	beside    *site          // the site that this one is another replica of
	foreign   bool           // it shares beside's keys only: its issuer is its own
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
			db := newDatabase(t, engine)
			s := newSite(t, db.open(t), o)
			s.db = db
			test(t, s)
		})
	}
}

func openStore(t testing.TB, engine migrations.Engine) storage.Store {
	t.Helper()
	return newDatabase(t, engine).open(t)
}

// database is a fresh, migrated database. It can be opened more than once, as
// replicas and restarts do.
type database struct {
	engine migrations.Engine
	at     string // a URL or a file
}

func newDatabase(t testing.TB, engine migrations.Engine) database {
	t.Helper()
	if engine == migrations.Postgres {
		return database{engine, storagetest.Postgres(t)}
	}
	return database{engine, sqliteFile(t)}
}

func (d database) open(t testing.TB) storage.Store {
	t.Helper()
	var store storage.Store
	var err error
	if d.engine == migrations.Postgres {
		store, err = postgres.Open(t.Context(), d.at, postgres.Options{})
	} else {
		store, err = sqlite.Open(t.Context(), d.at, sqlite.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// raw returns a connection that knows nothing of the schema.
func (d database) raw(t testing.TB) *sql.DB {
	t.Helper()
	open := sqlite.DB
	if d.engine == migrations.Postgres {
		open = postgres.DB
	}
	db, err := open(d.at)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// rows counts the rows of every table.
func (d database) rows(t testing.TB) map[string]int {
	t.Helper()
	tables := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
	if d.engine == migrations.Postgres {
		tables = `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`
	}
	db := d.raw(t)
	defer db.Close()
	names, err := db.QueryContext(t.Context(), tables)
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	counts := make(map[string]int)
	for names.Next() {
		var name string
		if err := names.Scan(&name); err != nil {
			t.Fatal(err)
		}
		counts[name] = 0
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	names.Close() // the SQLite pool has one connection
	for name := range counts {
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM "`+name+`"`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		counts[name] = n
	}
	return counts
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
	clock := &movedClock{}
	if o.beside != nil {
		clock = o.beside.clock
	}
	if o.now == nil {
		o.now = clock.now
	}
	if o.algs == nil {
		o.algs = []string{keys.ES256, keys.EdDSA}
	}
	policy := provider.DefaultPolicy()
	policy.RegistryPoll = 20 * time.Millisecond          // so that tests need not wait long
	policy.ClockPoll = time.Hour                         // they move the clock, which the next measurement would find wrong
	policy.PasswordMemory, policy.PasswordPasses = 64, 1 // and sign-ins cost nothing
	if o.policy != nil {
		o.policy(&policy)
	}
	sealer := &keys.Sealer{}
	if o.beside != nil {
		sealer = o.beside.sealer
	} else {
		kek, _, err := keys.LoadKEKFile(filepath.Join(t.TempDir(), "kek"), true)
		if err != nil {
			t.Fatal(err)
		}
		sealer.Primary = kek
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, issuer: "http://" + l.Addr().String() + o.path, store: store, sealer: sealer, clock: clock, metrics: prometheus.NewRegistry(), log: &lockedBuffer{}}
	s.url = s.issuer
	if o.beside != nil {
		s.db = o.beside.db
		if !o.foreign {
			s.issuer = o.beside.issuer
		}
	}
	issuer, err := provider.ParseIssuer(s.issuer)
	if err != nil {
		t.Fatal(err)
	}
	var sink io.Writer = s.log
	if o.quiet {
		sink = io.Discard
	}
	log := slog.New(slog.NewJSONHandler(sink, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := provider.New(t.Context(), provider.Config{
		Issuer: issuer, Store: store, Sealer: sealer, Algorithms: o.algs, Policy: policy,
		Outbound: provider.NewOutbound(o.allow), FeedScope: o.feedScope, Registration: o.register, Documents: o.documents, Metrics: s.metrics, Log: log, Now: o.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.provider, s.logger = p, log
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
	s.server, s.public, s.ops = server, server.Public(), server.Admin()

	work, stop := context.WithCancel(context.Background())
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		p.Run(work)
	}()
	srv := web.HTTPServer(s.public, log, nil)
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
	secret = s.client(id, alter...)
	s.settle()
	return secret
}

// client makes one more client, once register was called: it works at once,
// because nobody has asked for it before. Its last change is an hour old, or its
// first token would wait until no epoch could refuse it.
func (s *site) client(id string, alter ...func(*storage.Client)) (secret string) {
	s.t.Helper()
	c := provider.DefaultClient()
	c.ID, c.Name, c.GrantTypes = id, id, []string{"client_credentials"}
	c.Scopes = []string{"orders:read", "orders:write", "orders:report"}
	for _, f := range alter {
		f(&c)
	}
	made, secret, err := s.admin.CreateClient(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	made.UpdatedAt = made.UpdatedAt.Add(-time.Hour)
	err = s.store.Update(s.t.Context(), func(ctx context.Context, tx storage.Tx) error {
		if err := tx.LockRegistry(ctx); err != nil {
			return err
		}
		return tx.UpdateClient(ctx, made)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return secret
}

// movedClock is a clock that a test can set ahead of the real one.
type movedClock struct{ ahead atomic.Int64 }

func (c *movedClock) now() time.Time {
	return time.Now().Add(time.Duration(c.ahead.Load())).UTC()
}

func (c *movedClock) set(ahead time.Duration) { c.ahead.Store(int64(ahead)) }

// settle waits until the running provider has noticed what the test changed:
// until it has looked at the registry after this began.
func (s *site) settle() {
	s.t.Helper()
	began := time.Now()
	for time.Since(began) < 30*time.Second {
		waited := time.Since(began).Seconds() // before it is gathered, which may take a while
		families, err := s.metrics.Gather()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "signet_registry_age_seconds" && f.GetMetric()[0].GetGauge().GetValue() < waited {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.t.Fatal("the provider does not look at the registry")
}

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

// isRefusal checks the status and the OAuth error, and what every refusal has
// in common (D9): JSON that no cache keeps, in the characters of RFC 6749 §5.2,
// without a word about the inside.
func (a answer) isRefusal(t testing.TB, status int, code string) {
	t.Helper()
	if a.status != status || a.member("error") != code {
		t.Fatalf("got %d %s, want %d %s", a.status, a.body, status, code)
	}
	if len(a.json) != 2 || a.member("error_description") == "" {
		t.Errorf("members beside error and error_description, or one missing: %s", a.body)
	}
	for _, c := range a.member("error_description") {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			t.Errorf("error_description holds %q", c)
		}
	}
	for _, inside := range []string{"goroutine", ".go:", "SQL", "sql:", "SELECT", "pgx", "fosite"} {
		if strings.Contains(a.body, inside) {
			t.Errorf("the answer tells of the inside: %s", a.body)
		}
	}
	if got := a.header.Get("Content-Type"); got != "application/json;charset=UTF-8" {
		t.Errorf("Content-Type = %q", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q", got)
	}
	if got := a.header.Get("WWW-Authenticate"); (status == http.StatusUnauthorized) != strings.HasPrefix(got, "Basic realm=") {
		t.Errorf("WWW-Authenticate = %q with status %d (RFC 6749 §5.2)", got, status)
	}
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
func (s *site) get(path string, header ...string) answer {
	s.t.Helper()
	return s.send(http.MethodGet, path, "", header...)
}

// send sends a request with a body for a path below the issuer. header holds
// names and values in turn.
func (s *site) send(method, path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return s.do(req)
}

// form posts a form, as the client that id and secret name unless id is "".
func (s *site) form(path, id, secret string, values url.Values, header ...string) answer {
	s.t.Helper()
	header = append([]string{"Content-Type", formType}, header...)
	if id != "" {
		header = append(header, "Authorization", basic(id, secret))
	}
	return s.send(http.MethodPost, path, values.Encode(), header...)
}

// formType is the one media type protocol endpoints take.
const formType = "application/x-www-form-urlencoded"

// basic returns the Authorization header of RFC 6749 §2.3.1.
func basic(id, secret string) string {
	pair := url.QueryEscape(id) + ":" + url.QueryEscape(secret)
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
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
