package proof

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/verify"
)

// fleet is many resource servers, each with a verifier and connections of its
// own to the issuer.
type fleet struct {
	t         *testing.T
	verifiers []*verify.Verifier
	api       *httptest.Server
	routes    []http.Handler
	cut       atomic.Bool // nothing comes from the issuer any more
}

// fleet starts n resource servers that follow the deployment's revocations.
func (d *deployment) fleet(n int) *fleet {
	d.t.Helper()
	f := &fleet{t: d.t, verifiers: make([]*verify.Verifier, n)}
	mux := http.NewServeMux()
	var starts sync.WaitGroup
	for i := range n {
		transport := &http.Transport{}
		d.t.Cleanup(transport.CloseIdleConnections)
		starts.Go(func() {
			v, err := verify.New(d.t.Context(), d.issuer, ordersAPI,
				verify.WithHTTPClient(&http.Client{Transport: partition{transport, &f.cut}}),
				verify.WithLogger(slog.New(slog.DiscardHandler)))
			if err != nil {
				d.t.Error(err)
				return
			}
			f.verifiers[i] = v
		})
	}
	starts.Wait()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, verify.ClaimsFrom(r.Context()).Subject())
	})
	for i, v := range f.verifiers {
		if v == nil {
			d.t.Fatal("no verifier")
		}
		until(d.t, "a verifier follows the feed", func() bool { return v.Revocation().State == verify.RevocationFresh })
		f.routes = append(f.routes, v.Middleware(verify.RequireScope("orders:read")(hello)))
		mux.Handle(fmt.Sprintf("/%d", i), f.routes[i])
		for name, policy := range map[string]verify.Policy{"open": verify.Open, "soft": verify.Soft, "closed": verify.Closed} {
			mux.Handle(fmt.Sprintf("/%d/%s", i, name), v.Middleware(verify.WhenStale(policy)(hello)))
		}
	}
	f.api = httptest.NewServer(mux)
	d.t.Cleanup(f.api.Close)
	return f
}

// partition is a transport that can be cut.
type partition struct {
	to  http.RoundTripper
	cut *atomic.Bool
}

func (p partition) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.cut.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	res, err := p.to.RoundTrip(r)
	if err == nil {
		res.Body = cutBody{res.Body, p.cut, r.Context().Done()}
	}
	return res, err
}

type cutBody struct {
	io.ReadCloser
	cut   *atomic.Bool
	ended <-chan struct{}
}

func (b cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.cut.Load() {
		<-b.ended
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// get asks one of the API's routes over HTTP.
func (f *fleet) get(path, token string) people.Reply {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.api.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := f.api.Client().Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return people.Reply{Status: res.StatusCode, Header: res.Header, Body: string(body)}
}

// latencies revokes something the token rests on and returns how long after the
// answer each resource server first refused the token, in order. The route's own
// handler is asked every few milliseconds; that it refuses over HTTP too is
// checked afterwards.
func (f *fleet) latencies(what, token string, revoke func()) []time.Duration {
	f.t.Helper()
	for i := range f.routes {
		if r := f.get(fmt.Sprintf("/%d", i), token); r.Status != http.StatusOK {
			f.t.Fatalf("%s: before it is revoked: %s", what, r)
		}
	}
	refused := make([]time.Time, len(f.routes))
	var asking sync.WaitGroup
	for i, route := range f.routes {
		asking.Go(func() {
			for began := time.Now(); time.Since(began) < patience+patience/2; time.Sleep(4 * time.Millisecond) {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("Authorization", "Bearer "+token)
				w := httptest.NewRecorder()
				route.ServeHTTP(w, r)
				if w.Code == http.StatusUnauthorized {
					refused[i] = time.Now()
					return
				}
			}
		})
	}
	revoke()
	answered := time.Now()
	asking.Wait()
	all := make([]time.Duration, len(refused))
	for i, at := range refused {
		if at.IsZero() {
			f.t.Fatalf("%s: server %d never refuses: %+v", what, i, f.verifiers[i].Revocation())
		}
		all[i] = max(0, at.Sub(answered))
		if r := f.get(fmt.Sprintf("/%d", i), token); r.Status != http.StatusUnauthorized ||
			!strings.Contains(r.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
			f.t.Errorf("%s: server %d answers %s", what, i, r)
		}
	}
	slices.Sort(all)
	return all
}

// rank is the value that so large a part of sorted values does not exceed.
func rank(sorted []time.Duration, part float64) time.Duration {
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

// sighting is somebody who has signed in, and the tokens the app got.
type sighting struct {
	b      *browser
	tokens people.Reply
	code   string
}

// claim returns a claim of the access token, header a parameter of its header.
func (s *sighting) claim(name string) string  { return s.part(1, name) }
func (s *sighting) header(name string) string { return s.part(0, name) }

func (s *sighting) part(i int, name string) string {
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(s.tokens.Member("access_token"), ".")[i])
	if err != nil {
		s.b.d.t.Fatal(err)
	}
	return people.Reply{Body: string(text)}.Member(name)
}

// Whatever is revoked, 100 resource servers that have accepted the token refuse
// it soon after the revocation was answered: half within 300 ms, 99 of 100 within
// a second on a machine that has nothing else to do, which -long holds them to.
func TestRevocationReachesVerifiers(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		shop := d.app("shop")
		d.signet("", "role", "create", "clerk")
		f := d.fleet(100)
		joined := 0
		// somebody signs in and the app gets tokens.
		somebody := func(scope, role string) *sighting {
			joined++
			p := d.person(fmt.Sprintf("person-%d", joined))
			if role != "" {
				d.signet("", "user", "grant-role", p.Name, role)
			}
			b := d.browser(p)
			code := b.code(shop, "scope", scope)
			s := &sighting{b, shop.redeem(code), code}
			if s.tokens.Status != http.StatusOK {
				t.Fatal(s.tokens)
			}
			return s
		}
		answered := func(r people.Reply, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		const offline, session = "openid offline_access orders:read", "openid orders:read"
		rows := []struct {
			name, scope string
			revoke      func(s *sighting)
		}{
			{"token revoked", offline, func(s *sighting) {
				answered(shop.Post("/revoke", url.Values{"token": {s.tokens.Member("access_token")}}))
			}},
			{"refresh token revoked", offline, func(s *sighting) {
				answered(shop.Post("/revoke", url.Values{"token": {s.tokens.Member("refresh_token")}}))
			}},
			{"refresh token used twice", offline, func(s *sighting) {
				next := shop.refresh(s.tokens.Member("refresh_token"))
				shop.refresh(next.Member("refresh_token"))
				if r := shop.refresh(s.tokens.Member("refresh_token")); r.Member("error") != "invalid_grant" {
					t.Errorf("reuse: %s", r)
				}
			}},
			{"code used twice", offline, func(s *sighting) {
				if r := shop.redeem(s.code); r.Member("error") != "invalid_grant" {
					t.Errorf("replay: %s", r)
				}
			}},
			{"signed out", session, func(s *sighting) {
				must(t, s.b.Open("/logout"))
				must(t, s.b.Press("submit"))
			}},
			{"app withdrawn", offline, func(s *sighting) {
				must(t, s.b.Open("/account"))
				must(t, s.b.Press("app-1-withdraw"))
			}},
			{"password set by an operator", offline, func(s *sighting) {
				d.signet("a wholly other heron at dusk\n", "user", "set-password", s.b.Person.Name, "--password-stdin")
			}},
			{"role lost", offline, func(s *sighting) { d.signet("", "user", "revoke-role", s.b.Person.Name, "clerk") }},
			{"user disabled", offline, func(s *sighting) { d.signet("", "user", "disable", s.b.Person.Name) }},
			{"user deleted", offline, func(s *sighting) { d.signet("", "user", "delete", s.b.Person.Name) }},
			{"signet revoke --jti", offline, func(s *sighting) { d.signet("", "revoke", "--jti", s.claim("jti")) }},
			{"signet revoke --grant", offline, func(s *sighting) { d.signet("", "revoke", "--grant", s.claim("grant_id")) }},
			{"signet revoke --sid", session, func(s *sighting) { d.signet("", "revoke", "--sid", s.claim("sid")) }},
			{"signet revoke --sub", offline, func(s *sighting) { d.signet("", "revoke", "--sub", s.claim("sub")) }},
			{"key compromised", offline, func(s *sighting) { d.signet("", "key", "compromise", s.header("kid")) }},
			{"signet revoke --client", offline, func(*sighting) { d.signet("", "revoke", "--client", shop.ID) }},
			{"client disabled", offline, func(*sighting) { d.signet("", "client", "disable", shop.ID) }},
		}
		bystander := somebody(session, "").tokens.Member("access_token")
		var total []time.Duration
		for _, r := range rows {
			var all []time.Duration
			for range often(1, 5) {
				if r.name == "client disabled" && len(all) > 0 {
					break
				}
				role := ""
				if r.name == "role lost" {
					role = "clerk"
				}
				s := somebody(r.scope, role)
				all = append(all, f.latencies(r.name, s.tokens.Member("access_token"), func() { r.revoke(s) })...)
			}
			slices.Sort(all)
			total = append(total, all...)
			t.Logf("%-28s p50 %4d ms, p99 %4d ms", r.name, rank(all, .5).Milliseconds(), rank(all, .99).Milliseconds())
			if *long && (rank(all, .5) > 300*time.Millisecond || rank(all, .99) > time.Second) {
				t.Errorf("%s: too late", r.name)
			}
			if r.name == "user deleted" {
				if a := f.get("/0", bystander); a.Status != http.StatusOK {
					t.Errorf("somebody else's token: %s", a)
				}
			}
		}
		slices.Sort(total)
		t.Logf("%-28s p50 %4d ms, p99 %4d ms, most %4d ms", "all", rank(total, .5).Milliseconds(), rank(total, .99).Milliseconds(), total[len(total)-1].Milliseconds())
		for i, v := range f.verifiers {
			if s := v.Revocation(); s.Resyncs != 0 || s.Snapshots != 1 {
				t.Errorf("server %d read the feed anew: %+v", i, s)
			}
		}
	})
}

// Cut off from the issuer, each policy keeps its bound: closed answers 503 after
// 15 s, soft refuses what is older than 60 s, open accepts.
func TestPoliciesInAPartition(t *testing.T) {
	d := newDeployment(t, onSQLite)
	d.start(1)
	shop := d.app("shop")
	f := d.fleet(1)
	b := d.browser(d.person("ada"))
	tokens := shop.redeem(b.code(shop))
	token := tokens.Member("access_token")
	issued := time.Now()
	ask := func() [3]int {
		return [3]int{f.get("/0/open", token).Status, f.get("/0/soft", token).Status, f.get("/0/closed", token).Status}
	}
	if got := ask(); got != [3]int{200, 200, 200} {
		t.Fatalf("%v", got)
	}
	f.cut.Store(true)
	silent := time.Now()
	if _, err := shop.Post("/revoke", url.Values{"token": {token}}); err != nil {
		t.Fatal(err)
	}
	closed, soft := time.Duration(0), time.Duration(0)
	for until := time.Now().Add(time.Duration(often(18, 75)) * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		asked := time.Now()
		got := ask()
		if got[0] != http.StatusOK {
			t.Fatalf("open: %v", got)
		}
		switch got[1] {
		case http.StatusOK:
			soft = asked.Sub(issued)
		case http.StatusUnauthorized:
		default:
			t.Fatalf("soft: %v", got)
		}
		switch got[2] {
		case http.StatusOK:
			closed = asked.Sub(silent)
		case http.StatusServiceUnavailable:
		default:
			t.Fatalf("closed: %v", got)
		}
	}
	t.Logf("after the feed fell silent, closed accepted a revoked token for %v; soft until it was %v old", closed.Round(100*time.Millisecond), soft.Round(100*time.Millisecond))
	if closed > 15500*time.Millisecond {
		t.Errorf("closed accepted for %v", closed)
	}
	if soft > 61*time.Second {
		t.Errorf("soft accepted what was %v old", soft)
	}
	f.cut.Store(false)
	until(t, "the revocation is known once the issuer is back", func() bool { return f.get("/0/open", token).Status == http.StatusUnauthorized })
	until(t, "closed answers again", func() bool { return f.get("/0/closed", token).Status == http.StatusUnauthorized })
}

// A verifier that judges by status lists refuses what the list says once it has
// fetched it again.
func TestStatusListReachesVerifiers(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		d.signet("", "resource", "create", ordersAPI, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write", "--status-list")
		shop := d.app("shop")
		v, err := verify.New(t.Context(), d.issuer, ordersAPI, verify.WithStatusList(), verify.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		b := d.browser(d.person("ada"))
		tokens, others := shop.redeem(b.code(shop)), shop.redeem(b.code(shop))
		judge := func(r people.Reply) error {
			_, err := v.Verify(t.Context(), r.Member("access_token"))
			return err
		}
		until(t, "a token is accepted by its list", func() bool { return judge(tokens) == nil })
		if s := v.Revocation(); s.Lists != 1 {
			t.Errorf("%+v", s)
		}
		if _, err := shop.Post("/revoke", url.Values{"token": {tokens.Member("refresh_token")}}); err != nil {
			t.Fatal(err)
		}
		answered := time.Now()
		until(t, "the list says that it is revoked", func() bool { return errors.Is(judge(tokens), verify.ErrRevoked) })
		t.Logf("refused after %v", time.Since(answered).Round(time.Millisecond))
		if err := judge(others); err != nil {
			t.Errorf("another grant: %v", err)
		}
	})
}

// A feed that demands a scope is followed with tokens for it, and not without.
func TestFeedForAScope(t *testing.T) {
	d := newDeployment(t, onSQLite, func(d *deployment) { d.args = append(d.args, "--revocation-feed-scope", "revocations:read") })
	d.start(1)
	shop := d.app("shop")
	d.signet("", "resource", "create", d.issuer+"/revocations", "--name", "Revocation feed", "--scope", "revocations:read")
	api := d.client("orders-api", "--name", "Orders API", "--grant", "client_credentials", "--scope", "revocations:read")
	follow := func(more ...verify.Option) *verify.Verifier {
		v, err := verify.New(t.Context(), d.issuer, ordersAPI, append(more, verify.WithLogger(slog.New(slog.DiscardHandler)))...)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := follow().Ready(); err == nil || !strings.Contains(err.Error(), "WithFeedToken") {
		t.Errorf("without a token: %v", err)
	}
	v := follow(verify.WithFeedToken(func(context.Context) (string, error) {
		r, err := api.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"revocations:read"}})
		if err == nil && r.Status != http.StatusOK {
			err = errors.New(r.String())
		}
		return r.Member("access_token"), err
	}))
	until(t, "the feed is followed", func() bool { return v.Revocation().State == verify.RevocationFresh })
	tokens := shop.redeem(d.browser(d.person("ada")).code(shop))
	judge := func() error {
		_, err := v.Verify(t.Context(), tokens.Member("access_token"))
		return err
	}
	if err := judge(); err != nil {
		t.Error(err)
	}
	if _, err := shop.Post("/revoke", url.Values{"token": {tokens.Member("refresh_token")}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the revocation is heard", func() bool { return errors.Is(judge(), verify.ErrRevoked) })
}
