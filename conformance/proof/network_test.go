package proof

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
)

// metric returns a figure that a server shows its operator.
func (s *server) metric(name string) float64 {
	s.d.t.Helper()
	res, err := http.Get("http://" + s.admin + "/metrics")
	must(s.d.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(s.d.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(s.d.t, err)
			return f
		}
	}
	s.d.t.Fatalf("there is no metric %s", name)
	return 0
}

// slowest returns how long the server worked on the request that took it
// longest, those aside that last as long as the client likes.
func (s *server) slowest() (longest time.Duration, what string) {
	s.d.t.Helper()
	f, err := os.Open(s.log)
	must(s.d.t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Msg, Path string
			Status    int
			Micros    int64
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != "request" || strings.HasPrefix(line.Path, "/revocations") {
			continue
		}
		if took := time.Duration(line.Micros) * time.Microsecond; took > longest {
			longest, what = took, fmt.Sprintf("%s, answered %d", line.Path, line.Status)
		}
	}
	must(s.d.t, lines.Err())
	return longest, what
}

// hangUp closes the connections that clients keep for their next request.
func (d *deployment) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, transport := range d.addresses {
		transport.CloseIdleConnections()
	}
}

// A bad network, between the replicas and their database and then between them
// and their clients: slow, reset, half-open, and losing things. A request ends
// within its time, with what it asked for or with 503; keys and metadata are
// served throughout; when the network is well so is everything, without a
// restart, and no goroutine is left behind. Judged by what the clients noted, no
// code or refresh token was valid twice, and none was lost.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	const bound = 5 * time.Second // provider.Policy.RequestTimeout
	var database *wire
	d := newDeployment(t, onPostgres, func(d *deployment) {
		for i, kv := range d.env {
			if address, ok := strings.CutPrefix(kv, "SIGNET_DATABASE="); ok {
				u, err := url.Parse(address)
				must(t, err)
				database = newWire(t, u.Host)
				u.Host = database.address
				d.env[i] = "SIGNET_DATABASE=" + u.String()
			}
		}
	})
	servers := d.start(3)
	var clientside []*wire
	for _, s := range servers {
		w := newWire(t, s.public)
		s.public = w.address
		clientside = append(clientside, w)
	}
	service, shop := d.service("nightly"), d.app("shop", "--refresh-window", "60s")
	s := &siege.Siege{Wrong: t.Errorf}
	two := []*people.Person{d.person("ada"), d.person("bob")}
	var clients sync.WaitGroup
	run := func(ctx context.Context, n int) {
		for i := range n {
			c := s.NewClient(d.browser(two[i%2]).Browser, shop.App, time.Minute)
			clients.Go(func() { c.Run(ctx) })
		}
	}

	// What a quiet server has that was busy.
	ctx, stop := context.WithCancel(t.Context())
	run(ctx, 6)
	time.Sleep(time.Second)
	stop()
	clients.Wait()
	d.hangUp()
	quiet := make([]float64, len(servers))
	for i, one := range servers {
		quiet[i] = one.metric("go_goroutines")
	}

	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	run(ctx, 6)
	var good, busy, broken, public atomic.Int64
	var clientsSide atomic.Bool // where the network is bad
	for _, at := range servers {
		one := service.by(at)
		clients.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				r, err := one.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
				switch {
				case err != nil:
					if broken.Add(1); !clientsSide.Load() {
						t.Errorf("a token: %v", err)
					}
				case r.Status == http.StatusOK:
					good.Add(1)
				case r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "":
					t.Errorf("a token: %s, Retry-After %q", r, r.Header.Get("Retry-After"))
				default:
					busy.Add(1)
				}
			}
		})
		clients.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				for _, path := range []string{"/jwks", "/.well-known/openid-configuration"} {
					r, err := d.send(at, http.MethodGet, path, nil)
					if err == nil && r.Status == http.StatusOK {
						public.Add(1)
					} else if err == nil || !clientsSide.Load() {
						t.Errorf("%s: %s, %v", path, r, err)
					}
				}
			}
		})
	}
	more := func(n *atomic.Int64, by int64) func() bool {
		from := n.Load()
		return func() bool { return n.Load() >= from+by }
	}
	well := func(what string, since time.Time) {
		t.Helper()
		until(t, "all is well after "+what, func() bool {
			for _, at := range servers {
				if r, err := d.send(at, http.MethodGet, "/readyz", nil); err != nil || r.Status != http.StatusOK {
					return false
				}
			}
			return true
		})
		until(t, "tokens are issued after "+what, more(&good, 30))
		t.Logf("%s: all well %v after its end; so far %d tokens, %d times 503, %d broken connections, slowest answers %v",
			what, time.Since(since).Round(time.Millisecond), good.Load(), busy.Load(), broken.Load(), slowest(servers))
	}
	last := time.Duration(often(3, 30)) * time.Second
	for _, c := range []struct {
		what    string
		state   trouble
		refuses bool
	}{
		{"latency up to 2 s", trouble{latency: 2 * time.Second}, false},
		{"resets", trouble{reset: true}, true},
		{"half-open connections", trouble{silent: true}, true},
		{"loss of 1 %", trouble{loss: 0.01}, false},
	} {
		what := c.what + " towards the database"
		saw503, sawKeys := more(&busy, 10), more(&public, 10)
		database.is(c.state)
		time.Sleep(last) // how bad it is while it lasts is for the clients to note
		if c.refuses {
			until(t, "503 during "+what, saw503)
		}
		until(t, "keys during "+what, sawKeys)
		database.is(trouble{})
		well(what, time.Now())
	}
	clientsSide.Store(true)
	for _, c := range []struct {
		what  string
		state trouble
	}{
		{"latency up to 2 s", trouble{latency: 2 * time.Second}},
		{"resets", trouble{reset: true}},
		{"half-open connections", trouble{silent: true}},
		{"loss of 1 %", trouble{loss: 0.01}},
	} {
		for _, w := range clientside {
			w.is(c.state)
		}
		time.Sleep(last)
		for _, w := range clientside {
			w.is(trouble{})
			w.cut() // clients without patience would wait for ever
		}
		well(c.what+" towards the clients", time.Now())
	}
	stop()
	clients.Wait()
	clientsSide.Store(false)
	for _, one := range servers {
		if took, what := one.slowest(); took > bound+5*time.Second { // the machine is busy
			t.Errorf("a request took %v: %s", took, what)
		}
	}
	s.Audit(d.each())
	for _, wrong := range history.Judge(s.Log.Ops()) {
		t.Error(wrong)
	}
	d.hangUp()
	for i, one := range servers {
		var now float64
		until(t, fmt.Sprintf("no goroutines are left behind (%v before)", quiet[i]), func() bool {
			now = one.metric("go_goroutines")
			return now <= quiet[i]+10
		})
		t.Logf("server %d: goroutines %v before, %v after", i+1, quiet[i], now)
	}
	t.Log(s)
}

// slowest returns the longest any of the servers worked on a request.
func slowest(servers []*server) (longest time.Duration) {
	for _, s := range servers {
		took, _ := s.slowest()
		longest = max(longest, took)
	}
	return longest.Round(time.Millisecond)
}
