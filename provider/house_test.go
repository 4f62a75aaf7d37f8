package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

const (
	houseIssuer   = "https://login.example"
	houseAPI      = "https://orders.example"
	houseCallback = "https://shop.example/cb"
	housePassword = "a quiet heron at dawn"
	houseVerifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// house is a provider without its web pages, over a real database, with a
// clock that tests move on.
type house struct {
	t      testing.TB
	p      *Provider
	admin  *Admin
	store  storage.Store
	ahead  atomic.Int64              // nanoseconds
	still  atomic.Pointer[time.Time] // where the clock stands, or nil
	secret string                    // of the client shop
}

func (h *house) now() time.Time {
	if still := h.still.Load(); still != nil {
		return *still
	}
	return time.Now().UTC().Add(time.Duration(h.ahead.Load()))
}

func (h *house) later(by time.Duration) { h.ahead.Add(int64(by)) }

// onBothHouses runs the test against each database.
func onBothHouses(t *testing.T, policy func(*Policy), test func(t *testing.T, h *house)) {
	t.Helper()
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(t, newHouse(t, engine, policy))
		})
	}
}

func newHouse(t testing.TB, engine migrations.Engine, change func(*Policy)) *house {
	t.Helper()
	h := &house{t: t}
	var err error
	if engine == migrations.Postgres {
		h.store, err = postgres.Open(t.Context(), storagetest.Postgres(t), postgres.Options{})
	} else {
		path := filepath.Join(t.TempDir(), "signet.db")
		db, openErr := sqlite.DB(path)
		if openErr != nil {
			t.Fatal(openErr)
		}
		if err := errors.Join(migrations.Up(t.Context(), db, migrations.SQLite, nil), db.Close()); err != nil {
			t.Fatal(err)
		}
		h.store, err = sqlite.Open(t.Context(), path, sqlite.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.store.Close() })
	kek, _, err := keys.LoadKEKFile(filepath.Join(t.TempDir(), "kek"), true)
	if err != nil {
		t.Fatal(err)
	}
	sealer := &keys.Sealer{Primary: kek}
	issuer, err := ParseIssuer(houseIssuer)
	if err != nil {
		t.Fatal(err)
	}
	policy := DefaultPolicy()
	policy.PasswordQueue = 256
	policy.PasswordMemory, policy.PasswordPasses = 64, 1 // so that sign-ins cost tests nothing
	if change != nil {
		change(&policy)
	}
	if h.p, err = New(t.Context(), Config{
		Issuer: issuer, Store: h.store, Sealer: sealer, Algorithms: keys.Algorithms(), Policy: policy, Outbound: NewOutbound(nil),
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: h.now,
	}); err != nil {
		t.Fatal(err)
	}
	h.admin = NewAdmin(AdminConfig{
		Store: h.store, Ring: func(context.Context) (*keys.Ring, error) { return h.p.registry.current.Load().ring, nil },
		// An operator's command is never behind a server's clock, as that was measured.
		Policy: policy, Now: func() time.Time { return h.p.clock.latest(h.now()) }, Actor: "operator", Issuer: houseIssuer,
	})
	ctx := t.Context()
	must(t, func() error { _, err := h.admin.CreateRole(ctx, storage.Role{Name: "orders-admin"}); return err }())
	r := h.admin.DefaultResource()
	r.URI, r.Name = houseAPI, "Orders"
	r.Scopes = []storage.Scope{{Name: "orders:read", Description: "See your orders"}, {Name: "orders:write"}, {Name: "orders:report", Role: "orders-admin"}}
	must(t, func() error { _, err := h.admin.CreateResource(ctx, r); return err }())
	h.secret = h.client("shop", nil)
	for _, name := range []string{"ann", "bob"} {
		u := storage.User{Username: name, Email: name + "@people.example", EmailVerified: true, Profile: `{"name":"` + strings.ToUpper(name) + `"}`}
		must(t, func() error { _, err := h.admin.CreateUser(ctx, u, housePassword); return err }())
	}
	h.settle()
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settle makes the provider see what the operator changed.
func (h *house) settle() {
	h.t.Helper()
	h.later(h.p.policy.RegistryMaxAge + revocation.EpochAhead + time.Second)
	must(h.t, h.p.registry.refresh(h.t.Context()))
}

// client registers a client like shop and returns its secret.
func (h *house) client(id string, alter func(*storage.Client)) string {
	h.t.Helper()
	c := DefaultClient()
	c.ID, c.Name, c.GrantTypes = id, "The "+id, []string{grantCode, grantRefresh}
	c.RedirectURIs = []string{houseCallback}
	c.Scopes = []string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write", "orders:report"}
	if alter != nil {
		alter(&c)
	}
	_, secret, err := h.admin.CreateClient(h.t.Context(), c)
	must(h.t, err)
	return secret
}

func (h *house) signIn(name string) *SignedIn {
	h.t.Helper()
	r, err := h.p.SignIn(h.t.Context(), SignInAttempt{Login: name, Password: housePassword, Address: "192.0.2.1", UserAgent: "test"})
	must(h.t, err)
	return r.SignedIn
}

// ask is the authorization request of the client shop; changes are pairs, and
// an empty value takes a parameter out.
func askShop(changes ...string) url.Values {
	sum := sha256.Sum256([]byte(houseVerifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {"shop"}, "redirect_uri": {houseCallback}, "scope": {"openid orders:read offline_access"},
		"state": {"s t&a=te"}, "nonce": {"n"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(changes); i += 2 {
		if q.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			q.Del(changes[i])
		}
	}
	return q
}

func (h *house) begin(q url.Values) (*Authorization, error) {
	return h.p.BeginAuthorization(h.t.Context(), httptest.NewRequest(http.MethodGet, "/authorize?"+q.Encode(), nil))
}

// carry sends the flow through the browser once.
func (h *house) carry(a *Authorization) *Authorization {
	h.t.Helper()
	sealed, err := h.p.SealFlow(a, "browser")
	must(h.t, err)
	opened, err := h.p.OpenFlow(h.t.Context(), sealed, "browser")
	must(h.t, err)
	return opened
}

// authorize goes through the whole flow, consenting where asked, and returns the answer.
func (h *house) authorize(s *SignedIn, q url.Values) *Redirect {
	h.t.Helper()
	a, err := h.begin(q)
	must(h.t, err)
	step, err := h.p.Next(h.t.Context(), h.carry(a), s)
	must(h.t, err)
	if step.Kind == StepRedirect {
		return step.Redirect
	}
	a, _ = h.begin(q)
	if _, err = h.p.Next(h.t.Context(), a, s); err != nil {
		h.t.Fatal(err)
	}
	r, err := h.p.Approve(h.t.Context(), h.carry(a), s, true)
	must(h.t, err)
	return r
}

func (h *house) code(s *SignedIn, changes ...string) string {
	h.t.Helper()
	r := h.authorize(s, askShop(changes...))
	code := r.Params.Get("code")
	if code == "" {
		h.t.Fatalf("no code: %v", r.Params)
	}
	return code
}

// reply is an answer of one of the provider's endpoints.
type reply struct {
	status int
	header http.Header
	json   map[string]any
}

func (r reply) member(name string) string { s, _ := r.json[name].(string); return s }

func (h *house) post(handler http.HandlerFunc, id, secret string, form url.Values) reply {
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if secret != "" {
		req.SetBasicAuth(id, secret)
	}
	return h.serve(handler, req)
}

func (h *house) serve(handler http.HandlerFunc, req *http.Request) reply {
	w := httptest.NewRecorder()
	handler(w, req)
	r := reply{status: w.Code, header: w.Header()}
	_ = json.Unmarshal(w.Body.Bytes(), &r.json)
	return r
}

func (h *house) redeem(code string, changes ...string) reply {
	form := url.Values{"grant_type": {grantCode}, "code": {code}, "redirect_uri": {houseCallback}, "code_verifier": {houseVerifier}}
	for i := 0; i < len(changes); i += 2 {
		if form.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			form.Del(changes[i])
		}
	}
	return h.post(h.p.Token, "shop", h.secret, form)
}

func (h *house) refresh(token string, more ...string) reply {
	form := url.Values{"grant_type": {grantRefresh}, "refresh_token": {token}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return h.post(h.p.Token, "shop", h.secret, form)
}

// tokens goes all the way to a refresh token.
func (h *house) tokens(s *SignedIn, changes ...string) reply {
	h.t.Helper()
	r := h.redeem(h.code(s, changes...))
	if r.status != http.StatusOK {
		h.t.Fatalf("code: %d %v", r.status, r.json)
	}
	return r
}

// wants fails the test unless the answer is this refusal.
func (h *house) wants(what string, r reply, code string) {
	h.t.Helper()
	if got := r.member("error"); got != code || r.status == http.StatusOK && code != "" {
		h.t.Errorf("%s: %d %v, want %q", what, r.status, r.json, code)
	}
}

// userInfo asks with an access token and returns the status.
func (h *house) userInfo(access string) reply {
	req := httptest.NewRequest(http.MethodGet, "/userinfo", nil)
	req.Header.Set("Authorization", "Bearer "+access)
	return h.serve(h.p.UserInfo, req)
}

// active introspects a token of the client shop.
func (h *house) active(token string) bool {
	return h.post(h.p.Introspect, "shop", h.secret, url.Values{"token": {token}}).json["active"] == true
}
