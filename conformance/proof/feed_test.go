package proof

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage/storagetest"
	"github.com/signet-oidc/signet/verify"
)

// service registers an app that acts for itself.
func (d *deployment) service(id string) *app {
	d.t.Helper()
	d.app("beside-" + id) // and the API
	return d.client(id, "--name", id, "--grant", "client_credentials", "--scope", "orders:read")
}

// token gets a token of the service's own; "" when there is none to be had now.
func (a *app) token() string {
	r, err := a.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
	if err != nil || r.Status != http.StatusOK {
		return ""
	}
	return r.Member("access_token")
}

// revoke takes a token back and says whether that was answered.
func (a *app) revoke(token string) bool {
	r, err := a.Post("/revoke", url.Values{"token": {token}})
	return err == nil && r.Status == http.StatusOK
}

func (f *fleet) refuses(token string) bool {
	_, err := f.verifiers[0].Verify(f.t.Context(), token)
	return errors.Is(err, verify.ErrRevoked)
}

// A server that dies between the commit of a revocation and telling anybody of
// it takes nothing along: the log has it, and verifiers learn of it from the
// next server. One that dies before the commit has revoked nothing.
func TestRevocationOutlivesItsServer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(1)
		nightly, f := d.service("nightly"), d.fleet(1)
		for _, test := range []struct {
			point   string
			revoked bool
		}{{"append.before_commit", false}, {"append.after_commit", true}} {
			for _, s := range d.servers() {
				s.kill()
			}
			d.start(1, "SIGNET_FAILPOINT="+test.point+"=kill@1")
			var token string
			until(t, "a token", func() bool {
				token = nightly.token()
				return token != ""
			})
			if f.refuses(token) {
				t.Fatal("a new token is refused")
			}
			if nightly.revoke(token) {
				t.Fatalf("%s: the server lives", test.point)
			}
			d.start(1)
			if test.revoked {
				until(t, "the verifier refuses what the dead server revoked", func() bool { return f.refuses(token) })
				continue
			}
			until(t, "the verifier follows the next server", func() bool { return f.verifiers[0].Revocation().State == verify.RevocationFresh })
			if nightly.active(token); f.refuses(token) {
				t.Error("refused, though nothing was committed")
			}
			if !nightly.revoke(token) {
				t.Error("it cannot be revoked afterwards")
			}
			until(t, "the verifier refuses it then", func() bool { return f.refuses(token) })
		}
	}, faulty)
}

// PostgreSQL restarts, losing every connection, while tokens are revoked at two
// replicas: no revocation that was answered is lost on a verifier, none is
// invented, and while the database is away no replica certifies anything.
func TestRevocationsWhilePostgresRestarts(t *testing.T) {
	t.Parallel()
	server, err := storagetest.StartServer(storagetest.ServerOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	d := newDeployment(t, onSQLite, over(server.URL("postgres")))
	d.signet("", "migrate", "up")
	replicas := d.start(2)
	nightly, f := d.service("nightly"), d.fleet(1)

	var mu sync.Mutex
	var answered, kept []string
	revoking, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for n := 0; revoking.Err() == nil; n++ {
				token := nightly.token()
				if token == "" {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				keep := n%4 == 3
				if !keep && !nightly.revoke(token) {
					continue // whether it took effect is not known
				}
				mu.Lock()
				if keep {
					kept = append(kept, token)
				} else {
					answered = append(answered, token)
				}
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(answered)
	}
	stream := d.watch(replicas[0])
	for range often(2, 10) {
		before := count()
		until(t, "revocations are answered", func() bool { return count() >= before+10 })
		must(t, server.Stop())
		// The replica says that it is sure of nothing, at the latest when
		// its last read is five seconds old and the next heartbeat is due.
		until(t, "a stream without heartbeats", func() bool { return stream.last() == ": wait" })
		must(t, server.Start())
		until(t, "heartbeats again", func() bool { return stream.last() == "event: heartbeat" })
	}
	before := count()
	until(t, "revocations are answered again", func() bool { return count() >= before+10 })
	stop()
	load.Wait()
	for _, token := range answered {
		until(t, "the verifier refuses each token whose revocation was answered", func() bool { return f.refuses(token) })
	}
	for _, token := range kept {
		if f.refuses(token) {
			t.Error("a token is refused that nobody revoked")
		}
	}
	t.Logf("%d revocations, %d tokens kept", len(answered), len(kept))
}

// watched is a stream of the feed that is read to see what is in it.
type watched struct {
	mu   sync.Mutex
	line string
}

func (w *watched) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}

// watch follows the feed at one server, for as long as the test runs.
func (d *deployment) watch(s *server) *watched {
	w := &watched{}
	ctx, stop := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.public+"/revocations/stream", nil)
			if err != nil {
				return
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				continue
			}
			lines := bufio.NewScanner(res.Body)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				if text := lines.Text(); strings.HasPrefix(text, ": ") || text == "event: heartbeat" {
					w.mu.Lock()
					w.line = text
					w.mu.Unlock()
				}
			}
			res.Body.Close()
		}
	})
	d.t.Cleanup(func() {
		stop()
		reading.Wait()
	})
	return w
}
