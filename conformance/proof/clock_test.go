package proof

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// setClock sets a server's clock off, as SIGNET_FAULT_CLOCK of that server says.
func (d *deployment) setClock(name string, off time.Duration) {
	d.t.Helper()
	d.write(name+".new", off.String())
	must(d.t, os.Rename(filepath.Join(d.dir, name+".new"), filepath.Join(d.dir, name)))
}

// times returns when a token was issued and expires.
func times(token string) (issued, expires time.Time, err error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return issued, expires, err
	}
	var claims struct{ Iat, Exp int64 }
	err = json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &claims)
	return time.Unix(claims.Iat, 0), time.Unix(claims.Exp, 0), err
}

// The clock of one of three replicas is set wrong, by minutes and by an hour,
// ahead and back, while keys replace one another and expired rows are removed
// every second. It leaves the pool and issues nothing; the others go on. No token
// lives longer than it should, and nothing that is not over ends: no key signs,
// leaves or is destroyed before its time, what was revoked stays revoked, what is
// good stays good, at the replica with the wrong clock as well. When the clock is
// right it is back.
func TestClockSetWrong(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onPostgres, faulty, func(d *deployment) {
		d.env = append(d.env, "SIGNET_FAULT_KEY_SCHEDULE=publish=10s,sign=10s,retire=20m,secret=20m,max-age=1s,allowance=4s,prune=1s")
	})
	others := d.start(2)
	wrong := d.start(1, "SIGNET_FAULT_CLOCK=clock")[0]
	service, shop := d.service("nightly"), d.app("shop")
	b := d.browser(d.person("ada"))
	ask, strict := d.sampleAPI(), &strictKeys{uri: d.issuer + "/jwks"}
	issue := func(a *app, at *server) (people.Reply, error) {
		return a.by(at).Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
	}
	active := func(at *server, token string) bool {
		return service.by(at).active(token)
	}
	everybody := append(others, wrong)
	ready := func() bool {
		r, err := d.send(wrong, http.MethodGet, "/readyz", nil)
		return err == nil && r.Status == http.StatusOK
	}

	// Things that end within the hour.
	var revoked, good string
	until(t, "tokens are issued and accepted", func() bool {
		revoked, good = service.token(), service.token()
		status, err := ask(good)
		return revoked != "" && err == nil && status == http.StatusOK
	})
	if !service.revoke(revoked) {
		t.Fatal("the revocation is refused")
	}
	before := service.by(nil)
	service.Secret = signetJSON[struct {
		ClientSecret string `json:"client_secret"`
	}](d, "client", "rotate-secret", "nightly", "--overlap", "30m").ClientSecret
	for _, at := range everybody {
		until(t, "the new secret is known", func() bool {
			r, err := issue(service, at)
			return err == nil && r.Status == http.StatusOK
		})
	}
	refreshed := shop.redeem(b.code(shop))

	// Whatever anybody is issued, at any moment, by whoever still issues.
	stop := make(chan struct{})
	var load sync.WaitGroup
	var issued, refused [3]atomic.Int64
	var kids sync.Map
	for i, at := range everybody {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				r, err := issue(service, at)
				switch {
				case err != nil:
					t.Errorf("server %d: %v", i, err)
				case r.Status == http.StatusServiceUnavailable && at == wrong:
					refused[i].Add(1)
					if r.Header.Get("Retry-After") == "" {
						t.Errorf("503 without Retry-After: %s", r)
					}
				case r.Status != http.StatusOK:
					t.Errorf("server %d: %s", i, r)
				default:
					issued[i].Add(1)
					token, now := r.Member("access_token"), time.Now()
					from, to, err := times(token)
					if err == nil && (from.After(now.Add(time.Second)) || to.After(now.Add(10*time.Minute+time.Second))) {
						err = fmt.Errorf("good from %v until %v", from, to)
					}
					if err == nil {
						err = strict.verify(token)
					}
					if status, aerr := ask(token); err == nil && (aerr != nil || status != http.StatusOK) {
						err = fmt.Errorf("package verify: status %d, %v", status, aerr)
					}
					if err != nil {
						t.Errorf("a token of server %d at %v: %v", i, now, err)
					}
					kids.Store(keyOf(token), true)
				}
			}
		})
	}
	ended := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer ended()

	steps := []time.Duration{time.Hour, -time.Hour}
	if *long {
		steps = append(steps, 5*time.Minute, -5*time.Minute, 3*time.Second, -3*time.Second, 24*time.Hour, -24*time.Hour)
	}
	for _, off := range steps {
		d.setClock("clock", off)
		began := time.Now()
		until(t, "it is not ready", func() bool { return !ready() })
		left := time.Since(began)
		r, err := issue(service, wrong)
		if err != nil || r.Status != http.StatusServiceUnavailable {
			t.Errorf("%v off: a token: %s, %v", off, r, err)
		}
		// Long enough for keys to turn, and for a replica that goes by its own
		// clock to remove what the others still need.
		turned := func() (n int) {
			kids.Range(func(any, any) bool { n++; return true })
			return n
		}
		for have := turned(); turned() < have+1 || time.Since(began) < 5*time.Second; time.Sleep(50 * time.Millisecond) {
			if time.Since(began) > patience {
				t.Fatal("keys do not turn")
			}
		}
		for _, at := range everybody {
			if active(at, revoked) {
				t.Errorf("%v off: a revoked token is active", off)
			}
			if !active(at, good) {
				t.Errorf("%v off: a good token is not active", off)
			}
			b.Via = d.to(at)
			must(t, b.Open("/account"))
			if b.Status != http.StatusOK || b.URL.Path != "/account" {
				t.Errorf("%v off: the session has ended: %s", off, b.Page)
			}
			if r, err := issue(before, at); err != nil || r.Status != http.StatusOK && at != wrong || r.Status == http.StatusUnauthorized {
				t.Errorf("%v off: the secret of before, still good for half an hour: %s, %v", off, r, err)
			}
		}
		if status, err := ask(revoked); err != nil || status != http.StatusUnauthorized {
			t.Errorf("%v off: a revoked token at the API: %d, %v", off, status, err)
		}
		if refreshed = shop.by(others[0]).refresh(refreshed.Member("refresh_token")); refreshed.Status != http.StatusOK {
			t.Fatalf("%v off: refresh: %s", off, refreshed)
		}
		// What is revoked where the clock is wrong is revoked.
		token := refreshed.Member("access_token")
		if !shop.by(wrong).revoke(token) {
			t.Errorf("%v off: a revocation is refused", off)
		}
		until(t, "the API refuses what was revoked there", func() bool {
			status, err := ask(token)
			return err == nil && status == http.StatusUnauthorized
		})
		if shop.by(others[1]).active(token) {
			t.Errorf("%v off: a token that was revoked there is active", off)
		}
		d.setClock("clock", 0)
		began = time.Now()
		until(t, "it is ready", ready)
		until(t, "it issues", func() bool {
			r, err := issue(service, wrong)
			return err == nil && r.Status == http.StatusOK
		})
		t.Logf("%v off: left the pool after %v, back after %v", off, left.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	ended()
	text, err := os.ReadFile(wrong.log)
	must(t, err)
	if !strings.Contains(string(text), "off the database's: synchronise both") {
		t.Error("the log does not say what is wrong and what to do")
	}
	if refused[2].Load() == 0 {
		t.Error("the wrong clock refused nobody")
	}
	t.Logf("issued by the others %d and %d, by the one with the wrong clock %d, which refused %d", issued[0].Load(), issued[1].Load(), issued[2].Load(), refused[2].Load())
}
