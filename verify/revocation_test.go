package verify_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/internal/feedtest"
)

// life is that of entries: the longest token, skew and a little.
const life = 17 * time.Minute

// A world is an issuer with a feed, and what verifies its tokens.
type world struct {
	*provider
	t       *testing.T
	key     signingKey // of tokens
	feedKey signingKey
	v       *verify.Verifier
	log     logged
	shift   time.Duration // of the verifier's wall clock
}

// logged keeps the messages of a log.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logged) WithGroup(string) slog.Handler            { return l }
func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Message)
	return nil
}

func (l *logged) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// jose is the key as a feed needs it.
func (k signingKey) jose() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.private, KeyID: k.kid}
}

// newWorld makes an issuer with an empty feed; start makes the verifier.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, key: newKey("k1", "ES256"), feedKey: newKey("f1", "ES256")}
	w.provider = newProvider(w.key, w.feedKey)
	w.feed = feedtest.New(issuer, "F1", w.feedKey.jose())
	return w
}

func (w *world) start(ctx context.Context, opts ...verify.Option) *world {
	w.t.Helper()
	w.v = w.provider.verifierIn(ctx, w.t, append([]verify.Option{
		verify.WithNow(func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(w.shift)
		}),
		verify.WithLogger(slog.New(&w.log)),
	}, opts...)...)
	return w
}

// after lets the time pass and what is due happen, all of which sees what the test
// has set before.
func (w *world) after(d time.Duration) {
	w.mu.Lock()
	feed := w.feed
	w.mu.Unlock()
	if feed != nil {
		feed.Requests()
	}
	after(d)
}

// token signs a token issued now.
func (w *world) token(edits ...edit) string {
	now := time.Now().Add(w.shift)
	return w.key.token(append([]edit{set("iat", now.Unix()), set("exp", now.Add(10*time.Minute).Unix())}, edits...)...)
}

func (w *world) accepts(token string) {
	w.t.Helper()
	if err := verdict(w.v, token); err != nil {
		w.t.Errorf("refused: %v", err)
	}
}

func (w *world) refuses(token string, want error) {
	w.t.Helper()
	if err := verdict(w.v, token); !errors.Is(err, want) {
		w.t.Errorf("got %v, want %v", err, want)
	}
}

func (w *world) state(want string) {
	w.t.Helper()
	if got := w.v.Revocation(); got.State != want {
		w.t.Errorf("state %q, want %q: %+v", got.State, want, got)
	}
}

// route asks a route of a policy and returns the status.
func (w *world) route(p verify.Policy, token string) int {
	w.t.Helper()
	h := w.v.Middleware(verify.WhenStale(p)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	a := httptest.NewRecorder()
	h.ServeHTTP(a, r)
	return a.Code
}

// routes asks one route of each policy: Open, Soft, Closed.
func (w *world) routes(token string) [3]int {
	w.t.Helper()
	return [3]int{w.route(verify.Open, token), w.route(verify.Soft, token), w.route(verify.Closed, token)}
}

func everything() []edit {
	return []edit{set("jti", "t7"), set("grant_id", "g7"), set("sid", "s7"), set("sub", "u7"), set("client_id", "c7")}
}

func TestRevoked(t *testing.T) {
	rows := []struct{ kind, value string }{
		{"jti", "t7"}, {"grant", "g7"}, {"sid", "s7"}, {"sub", "u7"}, {"client", "c7"}, {"kid", "k1"}, {"iss", issuer},
	}
	for _, r := range rows {
		for _, from := range []string{"batch", "snapshot"} {
			for _, effect := range []string{"block", "epoch"} {
				inBubble(t, r.kind+" "+effect+" by "+from, func(t *testing.T, ctx context.Context) {
					w := newWorld(t)
					revoke := func() {
						if effect == "block" {
							w.feed.Block(r.kind, r.value, life)
						} else {
							w.feed.Epoch(r.kind, r.value, time.Now(), life)
						}
					}
					before := w.token(everything()...)
					if from == "batch" {
						w.start(ctx)
						w.accepts(before)
					}
					revoke()
					if from == "snapshot" {
						w.start(ctx)
					}
					w.after(0)
					w.state(verify.RevocationFresh)
					w.refuses(before, verify.ErrRevoked)
					w.refuses(w.token(everything()...), verify.ErrRevoked) // the same second counts as before
					// Another of everything is not concerned, but by key and issuer.
					if other := w.token(); r.kind == "kid" || r.kind == "iss" {
						w.refuses(other, verify.ErrRevoked)
					} else {
						w.accepts(other)
					}
					w.after(2 * time.Second)
					if later := w.token(everything()...); effect == "block" {
						w.refuses(later, verify.ErrRevoked)
					} else {
						w.accepts(later)
					}
					if s := w.v.Stats(); s.Revocation.Entries != 1 || s.Revocation.Seq != 1 || s.Revocation.RefusedRevoked < 2 {
						t.Errorf("%+v", s.Revocation)
					}
				})
			}
		}
	}
}

// The value of one kind is nothing to another.
func TestKindsAreApart(t *testing.T) {
	inBubble(t, "same value", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.feed.Block("sid", "u7", life)
		w.feed.Block("client", "t7", life)
		w.after(0)
		w.accepts(w.token(everything()...))
	})
}

func TestLatestEntryCounts(t *testing.T) {
	inBubble(t, "an epoch lifts a block", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.feed.Block("sub", "alice", life)
		w.after(time.Minute)
		w.refuses(w.token(), verify.ErrRevoked)
		old := w.token()
		w.feed.Epoch("sub", "alice", time.Now(), life)
		w.after(time.Second)
		w.refuses(old, verify.ErrRevoked)
		w.accepts(w.token())
		w.feed.Block("sub", "alice", life)
		w.after(0)
		w.refuses(w.token(), verify.ErrRevoked)
		if s := w.v.Revocation(); s.Entries != 1 || s.Seq != 3 || s.Batches != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// V36: a token verified before is judged again on each use.
func TestRememberedTokenIsRevoked(t *testing.T) {
	inBubble(t, "V36", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		token := w.token()
		w.accepts(token)
		w.accepts(token)
		if s := w.v.Stats(); s.Repeated != 1 {
			t.Fatalf("not remembered: %+v", s)
		}
		w.feed.Block("jti", "t1", life)
		w.after(0)
		w.refuses(token, verify.ErrRevoked)
		if got := w.route(verify.Open, token); got != http.StatusUnauthorized {
			t.Errorf("status %d", got)
		}
	})
}

func TestRevokedAnswer(t *testing.T) {
	inBubble(t, "401 invalid_token", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.feed.Block("jti", "t1", life)
		w.after(0)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+w.token())
		a := httptest.NewRecorder()
		w.v.Middleware(http.NotFoundHandler()).ServeHTTP(a, r)
		if a.Code != http.StatusUnauthorized || a.Header().Get("WWW-Authenticate") != `Bearer error="invalid_token", error_description="the access token has been revoked"` {
			t.Errorf("%d %q", a.Code, a.Header())
		}
	})
}

// partition lets nothing of the feed through until it is healed.
func (w *world) partition() (heal func()) {
	var mu sync.Mutex
	cut := true
	w.feed.Intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if cut {
			mu.Unlock()
			<-r.Context().Done()
			mu.Lock()
		}
		return cut
	}
	w.feed.Cut()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		cut = false
	}
}

// Row "feed silent" and the three policies of table 5.4, and what each may still
// let through.
func TestWhenStale(t *testing.T) {
	inBubble(t, "partition", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.after(time.Second)
		first := w.token()
		heal := w.partition()
		w.feed.Block("jti", "t1", life) // nobody hears of it
		silent := time.Now()
		lastOpen, lastSoft, lastClosed := time.Duration(0), time.Duration(0), time.Duration(0)
		for range 11 * 60 {
			w.after(time.Second)
			young := w.token(set("jti", "t2"))
			switch w.route(verify.Open, first) {
			case http.StatusOK:
				lastOpen = time.Since(silent)
			}
			switch w.route(verify.Soft, first) {
			case http.StatusOK:
				lastSoft = time.Since(silent)
			case http.StatusUnauthorized:
			default:
				t.Fatal("soft answers neither")
			}
			if got := w.route(verify.Soft, young); got != http.StatusOK {
				t.Fatalf("soft refuses a young token: %d", got)
			}
			switch w.route(verify.Closed, first) {
			case http.StatusOK:
				lastClosed = time.Since(silent)
			}
		}
		const second = time.Second
		if lastClosed > 15*second || lastClosed < 9*second {
			t.Errorf("closed let through for %v", lastClosed)
		}
		if lastSoft > 60*second || lastSoft < 58*second {
			t.Errorf("soft let through for %v", lastSoft)
		}
		if lastOpen > 10*time.Minute+30*second || lastOpen < 10*time.Minute {
			t.Errorf("open let through for %v", lastOpen)
		}
		w.state(verify.RevocationStale)
		if n := w.log.count("revocations are stale"); n != 1 {
			t.Errorf("said %d times", n)
		}
		if err := w.v.Ready(); err != nil {
			t.Errorf("stale is not unready: %v", err)
		}
		heal()
		w.after(30 * time.Second)
		w.state(verify.RevocationFresh)
		w.refuses(w.token(), verify.ErrRevoked)
		if w.log.count("followed again") != 1 {
			t.Error("the end is not told")
		}
		if s := w.v.Revocation(); s.RefusedStale == 0 || s.Failures == 0 {
			t.Errorf("%+v", s)
		}
	})
	inBubble(t, "answers", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		old := w.token()
		w.partition()
		w.after(70 * time.Second)
		ask := func(p verify.Policy) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+old)
			a := httptest.NewRecorder()
			w.v.Middleware(verify.WhenStale(p)(http.NotFoundHandler())).ServeHTTP(a, r)
			return a
		}
		if a := ask(verify.Closed); a.Code != 503 || a.Header().Get("Retry-After") == "" || a.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("closed: %d %q", a.Code, a.Header())
		}
		if a := ask(verify.Soft); a.Code != 401 || !strings.Contains(a.Header().Get("WWW-Authenticate"), `error="invalid_token"`) {
			t.Errorf("soft: %d %q", a.Code, a.Header())
		}
	})
	inBubble(t, "the stricter of default and route counts", func(t *testing.T, ctx context.Context) {
		rows := []struct {
			policy verify.Policy
			want   [3]int
			err    error
		}{
			{verify.Open, [3]int{200, 401, 503}, nil},
			{verify.Soft, [3]int{401, 401, 401}, verify.ErrTooOld},
			{verify.Closed, [3]int{503, 503, 503}, verify.ErrStale},
		}
		for _, r := range rows {
			ctx, stop := context.WithCancel(ctx)
			w := newWorld(t).start(ctx, verify.WithWhenStale(r.policy))
			old := w.token()
			if got := w.routes(old); got != [3]int{200, 200, 200} {
				t.Errorf("default %d, fresh: %v", r.policy, got)
			}
			w.partition()
			w.after(70 * time.Second)
			if got := w.routes(old); got != r.want {
				t.Errorf("default %d, stale: %v", r.policy, got)
			}
			if err := verdict(w.v, old); !errors.Is(err, r.err) {
				t.Errorf("default %d: %v", r.policy, err)
			}
			stop()
			synctest.Wait()
		}
	})
}
