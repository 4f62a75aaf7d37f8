package proof

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
	"github.com/signet-oidc/signet/storage/storagetest"
	"github.com/signet-oidc/signet/verify"
)

// PostgreSQL crashes and comes back at once, again and again, under the load of
// 18 clients of three replicas. They see nothing but 503 while it is away, and
// that not for long; whatever they were told is true afterwards.
func TestPostgresRestarts(t *testing.T) {
	server, err := storagetest.StartServer(storagetest.ServerOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	besiege(t, server.URL("postgres"), 3*time.Second, often(2, 10), func() outage {
		o := outage{down: time.Now()}
		must(t, server.Restart())
		o.up = time.Now()
		o.counts = o.up // how long PostgreSQL takes is not ours to promise
		return o
	}, func() {})
}

// The primary dies with kill -9 under the same load, and its synchronous standby
// takes its place. The replicas find it by themselves, and nothing that a client
// was told is lost.
func TestPostgresFailover(t *testing.T) {
	pair, err := storagetest.StartPair(storagetest.PairOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, pair.Close()) })
	times := often(1, 10)
	besiege(t, pair.URL("postgres"), 10*time.Second, times, func() outage {
		o := outage{down: time.Now()}
		o.counts = o.down
		must(t, pair.KillPrimary())
		must(t, pair.Promote())
		o.up = time.Now()
		return o
	}, func() {
		if times--; times > 0 {
			must(t, pair.Rejoin())
		}
	})
}

// outage is a time without a database.
type outage struct {
	down, up time.Time // from the command that ended it until one could be written to
	counts   time.Time // since when being turned away counts
}

// besiege has clients at three replicas go on while strike takes the database
// from them so many times, and repair makes it ready for the next time. It then
// judges what the clients noted. How long somebody may be turned away is the
// limit, which -long holds the replicas to.
func besiege(t *testing.T, address string, limit time.Duration, times int, strike func() outage, repair func()) {
	seen := &notes{t: t}
	d := newDeployment(t, onSQLite, over(address), func(d *deployment) { d.noted = seen.add })
	d.signet("", "migrate", "up")
	d.start(d.replicas())
	lenient, strict, nightly := d.app("lenient", "--refresh-window", "60s"), d.app("strict", "--refresh-window", "0s"), d.service("nightly")
	four := []*people.Person{d.person("ada"), d.person("bob"), d.person("cyd"), d.person("dan")}
	f := d.fleet(1)
	s := &siege.Siege{Wrong: t.Errorf}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	signIns, leavers, services := &signIns{d: d}, &leavers{app: lenient}, &services{app: nightly, fleet: f}
	var browsers []*browser
	for i := range 12 {
		browsers = append(browsers, d.browser(four[i%len(four)]))
	}
	var load sync.WaitGroup
	for i, b := range browsers {
		switch {
		case i < 2:
			load.Go(func() { leavers.run(ctx, b) })
			load.Go(func() { signIns.run(ctx, b.Person) })
		case i%4 == 3:
			load.Go(func() { s.NewClient(b.Browser, strict.App, 0).Run(ctx) })
		default:
			load.Go(func() { s.NewClient(b.Browser, lenient.App, time.Minute).Run(ctx) })
		}
	}
	for range 4 {
		load.Go(func() { services.run(ctx) })
	}
	busy := func() {
		t.Helper()
		since := time.Now()
		until(t, "each replica serves clients", func() bool { return t.Failed() || seen.served(since) })
	}
	var outages []outage
	for range times {
		busy()
		outages = append(outages, strike())
		busy()
		repair()
	}
	busy()
	stop()
	load.Wait()
	seen.judge(outages, limit)

	// All is quiet now. What is answered from here on comes from the database.
	d.noted = nil
	for _, server := range d.servers() {
		server.kill()
	}
	var servers []http.RoundTripper
	for _, server := range d.start(d.replicas()) {
		servers = append(servers, d.to(server))
	}
	s.Audit(servers)
	for _, wrong := range history.Judge(s.Log.Ops()) {
		t.Error(wrong)
	}
	signIns.audit()
	leavers.audit()
	services.audit(d.fleet(1))
	t.Log(s)
	t.Logf("%d sign-ins, %d apps that left, %d service tokens kept and %d revoked, %d verified meanwhile: all as they were told",
		len(signIns.browsers), len(leavers.tokens), len(services.kept), len(services.revoked), services.verified.Load())
}

// notes is what all clients of a deployment saw, request by request.
type notes struct {
	t       *testing.T
	mu      sync.Mutex
	answers []answer
}

type answer struct {
	asked, got time.Time
	server     string
	status     int
}

// add notes an answer, and fails the test for one that nobody may get.
func (n *notes) add(asked time.Time, res *http.Response) {
	a := answer{asked, time.Now(), res.Request.URL.Host, res.StatusCode}
	if res.StatusCode >= 500 && (res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "") {
		n.t.Errorf("%s %s is answered %d, Retry-After %q", res.Request.Method, res.Request.URL.Path, res.StatusCode, res.Header.Get("Retry-After"))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers = append(n.answers, a)
}

// served says whether each of three servers answered some requests that were
// made since, and none of the latest had to wait for a database.
func (n *notes) served(since time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	good := make(map[string]int)
	for i := len(n.answers) - 1; i >= 0 && n.answers[i].got.After(since); i-- {
		if a := n.answers[i]; a.asked.After(since) && a.status < 500 {
			good[a.server]++
		}
	}
	if len(good) < 3 {
		return false
	}
	for _, count := range good {
		if count < 30 {
			return false
		}
	}
	return true
}

// judge says for how long clients were turned away in each outage, and holds
// them to limit.
func (n *notes) judge(outages []outage, limit time.Duration) {
	for i, o := range outages {
		next := time.Now()
		if i+1 < len(outages) {
			next = outages[i+1].down
		}
		last, refused := o.down, 0
		for _, a := range n.answers {
			if a.status != http.StatusServiceUnavailable || a.got.Before(o.down) || !a.got.Before(next) {
				continue
			}
			refused++
			if a.asked.After(last) {
				last = a.asked
			}
		}
		n.t.Logf("outage %d: the database was away for %s; %d times 503, the last asked for %s after it went, %s after it was back",
			i+1, o.up.Sub(o.down).Round(time.Millisecond), refused, last.Sub(o.down).Round(time.Millisecond), max(0, last.Sub(o.up)).Round(time.Millisecond))
		// A machine that is busy with other tests has 503 of its own: there,
		// that each replica serves clients again is all that is asked.
		if took := last.Sub(o.counts); *long && took > limit {
			n.t.Errorf("clients were turned away for %s, more than %s", took, limit)
		}
	}
}

// signIns are people who sign in, each time in another browser.
type signIns struct {
	d        *deployment
	mu       sync.Mutex
	browsers []*people.Browser // whose sign-in was answered
}

func (l *signIns) run(ctx context.Context, p *people.Person) {
	for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) { // a password costs much time on purpose
		b := people.NewBrowser(l.d.issuer, p, l.d.to(nil))
		switch err := b.SignIn(); {
		case err == nil:
			l.mu.Lock()
			l.browsers = append(l.browsers, b)
			l.mu.Unlock()
		case b.Status != http.StatusServiceUnavailable:
			l.d.t.Errorf("sign-in: %v", err)
		}
	}
}

// audit looks whether each is signed in still.
func (l *signIns) audit() {
	if len(l.browsers) == 0 {
		l.d.t.Error("nobody has signed in")
	}
	for _, b := range l.browsers {
		if must(l.d.t, b.Open("/account")); b.Status != http.StatusOK || !strings.HasSuffix(b.URL.Path, "/account") {
			l.d.t.Errorf("a session is lost: %s", b.Page)
		}
	}
}

// leavers are people who try an app, which gives back what it was granted.
type leavers struct {
	app    *app
	mu     sync.Mutex
	tokens []string // refresh tokens whose revocation was answered
}

func (l *leavers) run(ctx context.Context, b *browser) {
	for ; ctx.Err() == nil; breathe() {
		err := b.Ask(l.app.App, "prompt", "consent")
		if err == nil && b.Status == http.StatusOK {
			err = b.Press("allow")
		}
		code := b.Answered(l.app.App).Get("code")
		switch {
		case err == nil && b.Status == http.StatusServiceUnavailable:
			continue
		case err != nil || code == "":
			l.app.d.t.Errorf("no code: %s, %v", b.Page, err)
			return
		}
		r, err := l.app.TryRedeem(code)
		switch {
		case err == nil && r.Status == http.StatusServiceUnavailable:
			continue
		case err != nil || r.Member("refresh_token") == "":
			l.app.d.t.Errorf("no refresh token: %s, %v", r, err)
			return
		}
		if token := r.Member("refresh_token"); l.app.revokes(ctx, token) {
			l.mu.Lock()
			l.tokens = append(l.tokens, token)
			l.mu.Unlock()
		}
	}
}

// breathe is a moment between two requests of a client.
func breathe() { time.Sleep(time.Duration(5+rand.IntN(20)) * time.Millisecond) }

// revokes takes a token back, again and again until that is answered.
func (a *app) revokes(ctx context.Context, token string) bool {
	for ; ctx.Err() == nil; breathe() {
		r, err := a.Post("/revoke", url.Values{"token": {token}})
		switch {
		case err == nil && r.Status == http.StatusOK:
			return true
		case err != nil || r.Status != http.StatusServiceUnavailable:
			a.d.t.Errorf("revocation: %s, %v", r, err)
			return false
		}
	}
	return false
}

// audit tries what was given back.
func (l *leavers) audit() {
	if len(l.tokens) == 0 {
		l.app.d.t.Error("no app has left")
	}
	for _, token := range l.tokens {
		if r := l.app.refresh(token); r.Member("error") != "invalid_grant" {
			l.app.d.t.Errorf("a revoked refresh token is answered %d %s", r.Status, r.Member("error"))
		}
	}
}

// services get tokens of their own, and revoke some. A resource server verifies
// them all the while.
type services struct {
	app      *app
	fleet    *fleet
	verified atomic.Int64

	mu            sync.Mutex
	kept, revoked []string
}

func (v *services) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		r, err := v.app.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		if err != nil || r.Status != http.StatusOK && r.Status != http.StatusServiceUnavailable {
			v.app.d.t.Errorf("client credentials: %s, %v", r, err)
			return
		}
		v.verify(v.someKept())
		if token := r.Member("access_token"); token != "" {
			v.verify(token)
			keep := n%3 > 0
			if !keep && !v.app.revokes(ctx, token) {
				return // whether it took effect is not known
			}
			v.mu.Lock()
			if keep {
				v.kept = append(v.kept, token)
			} else {
				v.revoked = append(v.revoked, token)
			}
			v.mu.Unlock()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (v *services) someKept() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.kept) == 0 {
		return ""
	}
	return v.kept[rand.IntN(len(v.kept))]
}

func (v *services) verify(token string) {
	if token == "" {
		return
	}
	if _, err := v.fleet.verifiers[0].Verify(v.fleet.t.Context(), token); err != nil {
		v.fleet.t.Errorf("a valid token is refused meanwhile: %v", err)
	}
	v.verified.Add(1)
}

// audit asks the resource server that was there, and one that has just started,
// about each token.
func (v *services) audit(fresh *fleet) {
	t := v.fleet.t
	if len(v.revoked) == 0 || len(v.kept) == 0 {
		t.Errorf("%d tokens are revoked and %d are not", len(v.revoked), len(v.kept))
	}
	for _, f := range []*fleet{v.fleet, fresh} {
		until(t, "the verifier follows the feed", func() bool { return f.verifiers[0].Revocation().State == verify.RevocationFresh })
		for _, token := range v.revoked {
			until(t, "each token whose revocation was answered is refused", func() bool { return f.refuses(token) })
		}
		for _, token := range v.kept {
			if f.refuses(token) {
				t.Error("a token is refused that nobody revoked")
			}
		}
	}
	if n := v.fleet.verifiers[0].Revocation().Resyncs; n != 0 {
		t.Errorf("the verifier had to start over %d times", n)
	}
}

// An asynchronous standby takes the place of its primary before it has all that
// clients were told. This is what that loses, how verifiers hear of it, and what
// an operator has to do then; docs/replicas.md says the same.
func TestAsynchronousFailoverLoses(t *testing.T) {
	t.Parallel()
	pair, err := storagetest.StartPair(storagetest.PairOptions{ServerOptions: storagetest.ServerOptions{NoSync: true}, Async: true})
	must(t, err)
	t.Cleanup(func() { must(t, pair.Close()) })
	d := newDeployment(t, onSQLite, over(pair.URL("postgres")))
	d.signet("", "migrate", "up")
	d.start(d.replicas())
	shop, nightly := d.app("shop", "--refresh-window", "0s"), d.service("nightly")
	ada, bob := d.browser(d.person("ada")), d.browser(d.person("bob"))
	f := d.fleet(1)
	first, other := shop.redeem(ada.code(shop)).Member("refresh_token"), shop.redeem(ada.code(shop)).Member("refresh_token")
	token := nightly.token()
	if first == "" || other == "" || token == "" || f.refuses(token) {
		t.Fatal("nothing to lose")
	}

	must(t, pair.PauseReceiving())
	second, others := shop.refresh(first).Member("refresh_token"), shop.refresh(other).Member("refresh_token")
	granted := shop.redeem(bob.code(shop)).Member("refresh_token")
	if second == "" || others == "" || granted == "" || !nightly.revoke(token) {
		t.Fatal("something is refused")
	}
	until(t, "the revocation reaches the verifier", func() bool { return f.refuses(token) })
	must(t, pair.KillPrimary())
	must(t, pair.Promote())
	for _, server := range d.servers() {
		until(t, "each replica has found the new primary", func() bool {
			at := *nightly.App
			at.Via = d.to(server)
			_, err := at.Active(token)
			return err == nil
		})
	}

	// What an answer had promised is gone, and what was used up is back.
	if r := shop.refresh(granted); r.Member("error") != "invalid_grant" {
		t.Errorf("a grant that the standby has never heard of: %s", r)
	}
	if !nightly.active(token) {
		t.Error("introspection knows of the revocation")
	}
	until(t, "a replica that had read the entry says that the log was cut", func() bool {
		for _, text := range d.logs() {
			if strings.Contains(text, "the revocation log is not what it was") {
				return true
			}
		}
		return false
	})
	if r := shop.refresh(first); r.Member("refresh_token") != second {
		t.Errorf("a refresh token whose use was lost: %s", r)
	}
	// Unless the app comes first with what it was given instead: that shows what
	// was lost, and ends the family.
	for _, token := range []string{others, other} {
		if r := shop.refresh(token); r.Member("error") != "invalid_grant" {
			t.Errorf("a family of which a later token is known than the database has: %s", r)
		}
	}
	// A verifier that had heard of the revocation starts over and keeps to it;
	// one that had not accepts the token.
	until(t, "the verifier starts over", func() bool { return f.verifiers[0].Revocation().Snapshots > 1 })
	fresh := d.fleet(1)
	if !f.refuses(token) || fresh.refuses(token) {
		t.Errorf("the token is refused: %t where it was, %t elsewhere", f.refuses(token), fresh.refuses(token))
	}

	// The cure: everything from before is void.
	for _, server := range d.servers() {
		server.kill()
	}
	d.signet("", "restore", "--in-place", "--yes")
	d.start(d.replicas())
	if r := shop.refresh(second); r.Member("error") != "invalid_grant" {
		t.Errorf("a refresh token from before the restore: %s", r)
	}
	until(t, "every verifier refuses the token", func() bool { return f.refuses(token) && fresh.refuses(token) })
	if next := shop.redeem(d.browser(bob.Person).code(shop)).Member("refresh_token"); next == "" || shop.refresh(next).Status != http.StatusOK {
		t.Error("nothing new is granted")
	}
}
