package verify_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
)

const listURI = issuer + "/statuslists/1"

// A statusWorld is an issuer that serves status lists in place of a feed.
type statusWorld struct {
	*world
	mu     sync.Mutex
	claims object
	header object
	edit   func(token string) string
	serve  http.HandlerFunc // in place of it all
	asked  []string
}

func newStatusWorld(t *testing.T) *statusWorld {
	t.Helper()
	w := &statusWorld{world: newWorld(t)}
	w.feed = nil
	w.set(1)
	w.others = w
	return w
}

// set publishes a list of a bit each, with these at 1.
func (w *statusWorld) set(revoked ...int) {
	bits := make([]byte, 128)
	for _, i := range revoked {
		bits[i/8] |= 1 << (i % 8)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claims = object{
		"sub": listURI, "iat": nil, "ttl": 10, "exp": nil,
		"status_list": object{"bits": 1, "lst": deflate(bits)},
	}
	w.header = object{"typ": "statuslist+jwt", "alg": "ES256", "kid": w.key.kid}
}

func deflate(b []byte) string {
	var out bytes.Buffer
	z, err := zlib.NewWriterLevel(&out, 1)
	if err == nil {
		_, err = z.Write(b)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err)
	}
	return b64(out.String())
}

// document is the list token of this moment.
func (w *statusWorld) document() string {
	now := time.Now().Unix()
	c := w.claims
	if c["iat"] == nil {
		c = c.with("iat", now)
	}
	if c["exp"] == nil {
		c = c.with("exp", now+600)
	}
	for name, value := range c {
		if value == "absent" {
			c = c.with(name, nil)
		}
	}
	token := w.key.sign(w.header.text(), c.text())
	if w.edit != nil {
		token = w.edit(token)
	}
	return token
}

func (w *statusWorld) ServeHTTP(a http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.asked = append(w.asked, r.URL.String())
	serve, document := w.serve, w.document()
	w.mu.Unlock()
	if serve != nil {
		serve(a, r)
		return
	}
	a.Header().Set("Content-Type", "application/statuslist+jwt")
	fmt.Fprint(a, document)
}

func (w *statusWorld) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

// change changes what is published.
func (w *statusWorld) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// status names an index of a list.
func status(index any, uri string) edit {
	return set("status", object{"status_list": object{"idx": index, "uri": uri}})
}

func TestStatusList(t *testing.T) {
	inBubble(t, "revoked within ttl", func(t *testing.T, ctx context.Context) {
		w := newStatusWorld(t)
		w.start(ctx, verify.WithStatusList())
		good, bad := w.token(status(0, listURI)), w.token(status(1, listURI))
		w.accepts(good)
		w.refuses(bad, verify.ErrRevoked)
		w.refuses(bad, verify.ErrRevoked) // a remembered one too
		if n := w.count(); n != 1 {
			t.Errorf("%d requests", n)
		}
		w.set(0)
		after(10 * time.Second)
		w.refuses(good, verify.ErrRevoked)
		w.accepts(w.token(status(1, listURI)))
		if s := w.v.Revocation(); s.State != verify.RevocationLists || s.Lists != 1 || s.RefusedRevoked != 3 {
			t.Errorf("%+v", s)
		}
		after(20 * time.Minute) // nobody asks: it is forgotten
		n := w.count()
		after(10 * time.Minute)
		if w.count() != n {
			t.Error("still fetched")
		}
		w.refuses(w.token(status(0, listURI)), verify.ErrRevoked)
	})
	inBubble(t, "old lists are stale, then gone", func(t *testing.T, ctx context.Context) {
		w := newStatusWorld(t)
		w.start(ctx, verify.WithStatusList())
		token := func() string { return w.token(status(0, listURI)) }
		old := token()
		w.accepts(old)
		w.change(func() { w.serve = func(a http.ResponseWriter, _ *http.Request) { a.WriteHeader(500) } })
		after(24 * time.Second)
		if got := w.routes(old); got != [3]int{200, 200, 200} {
			t.Errorf("within ttl and 15 s: %v", got)
		}
		after(40 * time.Second)
		if got := w.routes(old); got != [3]int{200, 401, 503} {
			t.Errorf("stale: %v", got)
		}
		if got := w.routes(token()); got != [3]int{200, 200, 503} {
			t.Errorf("stale, young: %v", got)
		}
		after(9 * time.Minute)
		if got := w.routes(token()); got != [3]int{503, 503, 503} {
			t.Errorf("past exp: %v", got)
		}
		w.change(func() { w.serve = nil })
		after(time.Minute)
		w.accepts(token())
	})
	inBubble(t, "bounds whatever it says", func(t *testing.T, ctx context.Context) {
		w := newStatusWorld(t)
		w.change(func() { w.claims["ttl"], w.claims["exp"] = int64(1)<<40, "absent" })
		w.start(ctx, verify.WithStatusList())
		w.accepts(w.token(status(0, listURI)))
		w.change(func() { w.serve = func(a http.ResponseWriter, _ *http.Request) { a.WriteHeader(500) } })
		for range 59 {
			after(time.Minute)
			w.accepts(w.token(status(0, listURI)))
		}
		after(2 * time.Minute)
		w.refuses(w.token(status(0, listURI)), verify.ErrNotReady)
		w.set()
		w.change(func() { w.claims["ttl"], w.serve = 1, nil })
		after(time.Minute)
		n := w.count()
		w.accepts(w.token(status(0, listURI)))
		after(time.Minute)
		if got := w.count() - n; got > 61 {
			t.Errorf("%d requests in a minute", got)
		}
	})
	inBubble(t, "older than the one before", func(t *testing.T, ctx context.Context) {
		w := newStatusWorld(t)
		w.set(0)
		before := w.document()
		after(time.Second)
		w.start(ctx, verify.WithStatusList())
		w.refuses(w.token(status(0, listURI)), verify.ErrRevoked)
		w.set()
		first := w.document()
		after(10 * time.Second)
		w.accepts(w.token(status(0, listURI)))
		w.change(func() { w.edit = func(string) string { return before } })
		after(10 * time.Second)
		w.accepts(w.token(status(0, listURI)))
		_ = first
	})
	inBubble(t, "tokens that name none", func(t *testing.T, ctx context.Context) {
		w := newStatusWorld(t)
		w.start(ctx, verify.WithStatusList())
		for _, e := range []edit{set("status", nil), set("status", object{"other": object{"idx": 0}})} {
			if got := w.routes(w.token(e)); got != [3]int{200, 200, 503} {
				t.Errorf("young: %v", got)
			}
			if got := w.routes(w.token(e, set("iat", time.Now().Unix()-60))); got != [3]int{200, 401, 503} {
				t.Errorf("old: %v", got)
			}
		}
		if n := w.count(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
	inBubble(t, "not both", func(t *testing.T, ctx context.Context) {
		for _, opts := range [][]verify.Option{
			{verify.WithStatusList(), verify.WithoutRevocation()},
			{verify.WithStatusList(), verify.WithRevocationFeed(issuer + "/revocations")},
		} {
			if _, err := verify.New(ctx, issuer, audience, opts...); err == nil {
				t.Error("both")
			}
		}
	})
}

func TestStatusClaims(t *testing.T) {
	rows := []struct {
		name string
		edit edit
		want error
	}{
		{"the last index", status(1023, listURI), nil},
		{"out of range", status(1024, listURI), verify.ErrStatus},
		{"far out of range", status(200_000_000_000, listURI), verify.ErrStatus},
		{"negative", status(-1, listURI), verify.ErrMalformed},
		{"a fraction", status(raw("1.0"), listURI), verify.ErrMalformed},
		{"a text", status("1", listURI), verify.ErrMalformed},
		{"no idx", set("status", object{"status_list": object{"uri": listURI}}), verify.ErrMalformed},
		{"no uri", set("status", object{"status_list": object{"idx": 0}}), verify.ErrMalformed},
		{"not an object", set("status", "valid"), verify.ErrMalformed},
		{"another host", status(0, "https://evil.example/statuslists/1"), verify.ErrStatus},
		{"another port", status(0, "https://id.example:444/statuslists/1"), verify.ErrStatus},
		{"http", status(0, "http://id.example/statuslists/1"), verify.ErrStatus},
		{"userinfo", status(0, "https://id.example@evil.example/1"), verify.ErrStatus},
		{"more userinfo", status(0, "https://me@id.example/statuslists/1"), verify.ErrStatus},
		{"relative", status(0, "/statuslists/1"), verify.ErrStatus},
		{"a file", status(0, "file:///etc/passwd"), verify.ErrStatus},
		{"a fragment", status(0, listURI+"#x"), verify.ErrStatus},
		{"sub of another list", status(0, issuer+"/statuslists/2"), verify.ErrNotReady},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			w := newStatusWorld(t)
			elsewhere := 0
			w.start(ctx, verify.WithStatusList(), verify.WithHTTPClient(&http.Client{Transport: transport(func(req *http.Request) (*http.Response, error) {
				if req.URL.Scheme+"://"+req.URL.Host != issuer {
					elsewhere++
				}
				return w.RoundTrip(req)
			})}))
			if err := verdict(w.v, w.token(r.edit)); !errors.Is(err, r.want) {
				t.Errorf("got %v, want %v", err, r.want)
			}
			if elsewhere != 0 {
				t.Error("another host was asked")
			}
		})
	}
}

func TestBrokenStatusLists(t *testing.T) {
	list := func(bits any, lst string) func(w *statusWorld) {
		return func(w *statusWorld) { w.claims["status_list"] = object{"bits": bits, "lst": lst} }
	}
	claim := func(name string, value any) func(w *statusWorld) {
		return func(w *statusWorld) { w.claims[name] = value }
	}
	header := func(name string, value any) func(w *statusWorld) {
		return func(w *statusWorld) { w.header[name] = value }
	}
	past := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() // when bubbles begin
	rows := []struct {
		name string
		edit func(w *statusWorld)
	}{
		{"sub of another", claim("sub", listURI+"/")},
		{"no sub", claim("sub", "absent")},
		{"another issuer", claim("iss", "https://other.example")},
		{"no iat", claim("iat", "absent")},
		{"iat in the future", claim("iat", past+3600)},
		{"expired", claim("exp", past)},
		{"exp is a text", claim("exp", "x")},
		{"ttl 0", claim("ttl", 0)},
		{"ttl negative", claim("ttl", -5)},
		{"no list", claim("status_list", "absent")},
		{"3 bits", list(3, deflate(nil))},
		{"16 bits", list(16, deflate(nil))},
		{"no bits", list(nil, deflate(nil))},
		{"not base64url", list(1, "eNrbuRgAAhcBXQ==")},
		{"not zlib", list(1, b64("plain"))},
		{"cut off", list(1, deflate(make([]byte, 4096))[:10])},
		{"a bomb", list(1, deflate(make([]byte, 64<<20)))},
		{"typ of a token", header("typ", "at+jwt")},
		{"no typ", header("typ", nil)},
		{"alg none", header("alg", "none")},
		{"a symmetric alg", header("alg", "HS256")},
		{"crit", header("crit", []string{"exp"})},
		{"a key in the header", header("jwk", raw(newKey("x", "ES256").jwk()))},
		{"unknown kid", header("kid", "k9")},
		{"wrong signature", func(w *statusWorld) { w.edit = func(token string) string { return token[:len(token)-4] + "AAAA" } }},
		{"not a JWS", func(w *statusWorld) { w.edit = func(string) string { return "lst" } }},
		{"empty", func(w *statusWorld) { w.edit = func(string) string { return "" } }},
		{"too large", func(w *statusWorld) { w.edit = func(token string) string { return strings.Repeat("A", 3<<20) } }},
		{"404", func(w *statusWorld) { w.serve = http.NotFound }},
		{"JSON", func(w *statusWorld) {
			w.serve = func(a http.ResponseWriter, _ *http.Request) {
				a.Header().Set("Content-Type", "application/json")
				fmt.Fprint(a, "{}")
			}
		}},
		{"silent", func(w *statusWorld) { w.serve = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() } }},
		{"redirect to another host", func(w *statusWorld) {
			w.serve = func(a http.ResponseWriter, r *http.Request) {
				http.Redirect(a, r, "https://evil.example/1", http.StatusFound)
			}
		}},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			w := newStatusWorld(t)
			r.edit(w)
			w.start(ctx, verify.WithStatusList())
			began := time.Now()
			for range 3 {
				w.refuses(w.token(status(0, listURI)), verify.ErrNotReady)
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("tokens waited for %v", d)
			}
			after(10 * time.Minute)
			if n := w.count(); n > 60 {
				t.Errorf("%d requests", n)
			}
			w.set()
			w.change(func() { w.edit, w.serve = nil, nil })
			after(time.Minute)
			w.accepts(w.token(status(0, listURI)))
		})
	}
}

// No number of lists makes a verifier hold more than 64.
func TestManyStatusLists(t *testing.T) {
	inBubble(t, "64", func(t *testing.T, ctx context.Context) {
		w := newStatusWorld(t)
		w.others = http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
			a.Header().Set("Content-Type", "application/statuslist+jwt")
			c := object{"sub": issuer + r.URL.Path, "iat": time.Now().Unix(), "ttl": 600, "status_list": object{"bits": 1, "lst": deflate([]byte{2})}}
			fmt.Fprint(a, w.key.sign(w.header.text(), c.text()))
		})
		w.start(ctx, verify.WithStatusList())
		for i := range 200 {
			time.Sleep(time.Millisecond)
			uri := fmt.Sprintf("%s/statuslists/%d", issuer, i)
			w.accepts(w.token(status(0, uri)))
			w.refuses(w.token(status(1, uri)), verify.ErrRevoked)
		}
		if s := w.v.Revocation(); s.Lists != 64 {
			t.Errorf("%+v", s)
		}
	})
}

func TestStatusListsEndWithTheContext(t *testing.T) {
	inBubble(t, "ended", func(t *testing.T, ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		w := newStatusWorld(t)
		w.start(ctx, verify.WithStatusList())
		cancel()
		after(0)
		w.refuses(w.token(status(0, listURI)), verify.ErrNotReady)
	})
}
