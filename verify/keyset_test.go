package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signet-oidc/signet/verify"
)

// inBubble runs a test with a clock of its own: hours pass at once, and every
// goroutine of the Verifier must end with the test.
func inBubble(t *testing.T, name string, test func(t *testing.T, ctx context.Context)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			test(t, ctx)
		})
	})
}

// after lets the time pass and what is due happen.
func after(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

func verdict(v *verify.Verifier, token string) error {
	_, err := v.Verify(context.Background(), token)
	return err
}

func TestKeysLeftOut(t *testing.T) {
	good := newKey("good", "ES256")
	rsaJWK := func(bits int, e int) string {
		n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1) // nobody factors it here
		return fmt.Sprintf(`{"kty":"RSA","kid":"bad","alg":"RS256","n":%q,"e":%q}`, b64(string(n.Bytes())), b64(string(big.NewInt(int64(e)).Bytes())))
	}
	offCurve := func() string {
		k := newKey("bad", "ES256")
		point, err := k.private.Public().(*ecdsa.PublicKey).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		point[64] ^= 1
		return fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"bad","x":%q,"y":%q}`, b64(string(point[1:33])), b64(string(point[33:])))
	}
	private := func() string {
		k := newKey("bad", "ES256").private.(*ecdsa.PrivateKey)
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		point, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"bad","x":%q,"y":%q,"d":%q}`, b64(string(point[1:33])), b64(string(point[33:])), b64(string(d)))
	}
	edit := func(jwk, old, new string) string { return strings.Replace(jwk, old, new, 1) }
	es, rs := newKey("bad", "ES256").jwk(), newKey("bad", "RS256").jwk()
	rows := []struct{ name, jwk string }{
		{"V18 RSA of 1024 bits", rsaJWK(1024, 65537)},
		{"V18 RSA of 2047 bits", rsaJWK(2047, 65537)},
		{"V18 RSA of 16384 bits", rsaJWK(16384, 65537)},
		{"V18 RSA with e = 1", rsaJWK(2048, 1)},
		{"V18 RSA with e = 2", rsaJWK(2048, 2)},
		{"V18 RSA with an even e", rsaJWK(2048, 65536)},
		{"V18 point off the curve", offCurve()},
		{"V18 point at infinity", fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"bad","x":%q,"y":%[1]q}`, b64(strings.Repeat("\x00", 32)))},
		{"V18 symmetric key", `{"kty":"oct","kid":"bad","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`},
		{"V18 private key", private()},
		{"V18 P-384", newKey("bad", "ES384").jwk()},
		{"V18 unknown kind", `{"kty":"XYZ","kid":"bad"}`},
		{"V18 not an object", `7`},
		{"V3 for encryption", edit(es, `"use":"sig"`, `"use":"enc"`)},
		{"V3 P-256 key said to be for RS256", edit(es, "ES256", "RS256")},
		{"V3 RSA key said to be for ES256", edit(rs, "RS256", "ES256")},
		{"V3 RSA key said to be for HS256", edit(rs, "RS256", "HS256")},
		{"V3 RSA key for encryption by alg", edit(rs, "RS256", "RSA-OAEP")},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := newProvider()
			p.publishRaw(r.jwk, good.jwk())
			v := p.verifier(t)
			if s := v.Stats(); s.Keys != 1 || s.KeysIgnored != 1 {
				t.Errorf("%d keys, %d ignored", s.Keys, s.KeysIgnored)
			}
			accepted(t, v, good.token())
		})
	}
	t.Run("RSA of 2048 bits, e = 3, no alg is RS256", func(t *testing.T) {
		p := newProvider()
		p.publishRaw(edit(rsaJWK(2048, 3), `"alg":"RS256",`, ""))
		if s := p.verifier(t).Stats(); s.Keys != 1 {
			t.Errorf("%d keys", s.Keys)
		}
	})
}

func TestManyKeys(t *testing.T) {
	t.Run("V28 a set of 1,000", func(t *testing.T) {
		var keys []string
		for range 1000 {
			keys = append(keys, `{"kty":"oct","kid":"x","k":"AA"}`)
		}
		p := newProvider()
		p.publishRaw(keys...)
		if s := p.verifier(t).Stats(); s.Keys != 0 || s.FetchFailures != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("V28 at most 32 are kept", func(t *testing.T) {
		var keys []signingKey
		for i := range 40 {
			keys = append(keys, newKey(fmt.Sprint("k", i), "EdDSA"))
		}
		v := newProvider(keys...).verifier(t)
		if s := v.Stats(); s.Keys != 32 || s.KeysIgnored != 8 {
			t.Errorf("%d keys, %d ignored", s.Keys, s.KeysIgnored)
		}
		accepted(t, v, keys[31].token())
		refused(t, v, keys[32].token(), verify.ErrUnknownKey)
	})
	t.Run("V28 two keys of one kid, both tried", func(t *testing.T) {
		a, b := newKey("same", "ES256"), newKey("same", "ES256")
		v := newProvider(a, b).verifier(t)
		accepted(t, v, a.token())
		accepted(t, v, b.token())
	})
	t.Run("V28 one kid, two algorithms", func(t *testing.T) {
		a, b := newKey("same", "ES256"), newKey("same", "RS256")
		v := newProvider(a, b).verifier(t)
		accepted(t, v, a.token())
		accepted(t, v, b.token())
		b.alg = "PS256"
		refused(t, v, b.token(), verify.ErrSignature)
	})
	t.Run("V28 no third key of one kid and algorithm", func(t *testing.T) {
		a, b, c := newKey("same", "ES256"), newKey("same", "ES256"), newKey("same", "ES256")
		v := newProvider(a, b, c).verifier(t)
		refused(t, v, c.token(), verify.ErrSignature)
		if s := v.Stats(); s.KeysIgnored != 1 {
			t.Errorf("%d ignored", s.KeysIgnored)
		}
	})
}

func TestStampede(t *testing.T) {
	key, next := newKey("k1", "ES256"), newKey("k2", "ES256")
	inBubble(t, "V23 cold start, 1,000 at once", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		v := p.verifierIn(ctx, t)
		atOnce(t, 1000, func() error { return verdict(v, key.token()) }, nil)
		if n := p.fetches(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
	inBubble(t, "V23 a new key, 1,000 at once", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		v := p.verifierIn(ctx, t)
		p.respond(func(w http.ResponseWriter, r *http.Request) { // takes a while
			time.Sleep(200 * time.Millisecond)
			fmt.Fprintf(w, `{"keys":[%s]}`, next.jwk())
		})
		atOnce(t, 1000, func() error { return verdict(v, next.token()) }, nil)
		if n := p.fetches(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
	inBubble(t, "V23 a request waits a second at most", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		v := p.verifierIn(ctx, t)
		p.respond(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		start := time.Now()
		atOnce(t, 10, func() error { return verdict(v, next.token()) }, verify.ErrUnknownKey)
		if took := time.Since(start); took != time.Second {
			t.Errorf("waited %v", took)
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := v.Verify(canceled, next.token()); !errors.Is(err, verify.ErrUnknownKey) || time.Since(start) != time.Second {
			t.Errorf("after its client had gone: %v at %v", err, time.Since(start))
		}
	})
	inBubble(t, "after the context ends no request waits or fetches", func(t *testing.T, ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		p := newProvider(key)
		v := p.verifierIn(ctx, t)
		cancel()
		synctest.Wait()
		start := time.Now()
		for range 3 {
			if err := verdict(v, next.token()); !errors.Is(err, verify.ErrUnknownKey) {
				t.Error(err)
			}
		}
		if time.Since(start) != 0 || p.fetches() != 1 {
			t.Errorf("waited %v, %d fetches", time.Since(start), p.fetches())
		}
	})
}

// atOnce calls f n times together; each must answer want.
func atOnce(t *testing.T, n int, f func() error, want error) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := f(); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
	wg.Wait()
}

func TestMadeUpKIDs(t *testing.T) {
	key := newKey("k1", "ES256")
	inBubble(t, "V24 a minute of random kids", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		v := p.verifierIn(ctx, t)
		_, payload, signature := parts(key.token())
		flood := func(n int) {
			for range n {
				header := b64(key.header().with("kid", rand.Text()).text())
				if err := verdict(v, header+"."+payload+"."+signature); !errors.Is(err, verify.ErrUnknownKey) {
					t.Fatal(err)
				}
			}
		}
		flood(100)
		before := heap()
		const seconds, perSecond = 60, 500
		for range seconds {
			flood(perSecond)
			accepted(t, v, key.token())
			after(time.Second)
		}
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("memory grew by %d bytes", grown)
		}
		if n := p.fetches(); n < 2 || n > 4 { // at the start, and at 0, 30 and perhaps 60 s
			t.Errorf("%d fetches", n)
		}
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestRollover(t *testing.T) {
	old, new := newKey("k1", "ES256"), newKey("k2", "ES256")
	inBubble(t, "V25 first token of a new key", func(t *testing.T, ctx context.Context) {
		p := newProvider(old)
		v := p.verifierIn(ctx, t)
		p.publish(old, new)
		accepted(t, v, new.token())
		accepted(t, v, old.token())
		if n := p.fetches(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
	inBubble(t, "V25 published beforehand: no token waits", func(t *testing.T, ctx context.Context) {
		p := newProvider(old)
		v := p.verifierIn(ctx, t)
		p.publish(old, new)
		after(16 * time.Minute)
		fetched, start := p.fetches(), time.Now()
		accepted(t, v, new.token())
		if p.fetches() != fetched || time.Since(start) != 0 {
			t.Error("the token had to wait for a fetch")
		}
	})
	inBubble(t, "V26 a removed key is refused after the next refresh, tokens seen before too", func(t *testing.T, ctx context.Context) {
		p := newProvider(old, new)
		v := p.verifierIn(ctx, t)
		token := old.token()
		accepted(t, v, token)
		p.publish(new)
		after(10 * time.Minute)
		accepted(t, v, token)
		after(5 * time.Minute)
		refused(t, v, token, verify.ErrUnknownKey)
		accepted(t, v, new.token())
	})
	inBubble(t, "V26 a kid given to another key", func(t *testing.T, ctx context.Context) {
		p := newProvider(old)
		v := p.verifierIn(ctx, t)
		token := old.token()
		accepted(t, v, token)
		p.publish(newKey("k1", "ES256"))
		after(15 * time.Minute)
		refused(t, v, token, verify.ErrSignature)
	})
}

func TestRefreshInterval(t *testing.T) {
	key := newKey("k1", "ES256")
	rows := []struct {
		name, cacheControl string
		min, max           time.Duration
	}{
		{"max-age", "public, max-age=600", 540 * time.Second, 600 * time.Second},
		{"max-age in capitals", "Max-Age=600", 540 * time.Second, 600 * time.Second},
		{"max-age too short", "max-age=1", 30 * time.Second, 30 * time.Second},
		{"max-age negative", "max-age=-5", 30 * time.Second, 30 * time.Second},
		{"max-age of years", "max-age=999999999999", 810 * time.Second, 900 * time.Second},
		{"no-store", "no-store", 30 * time.Second, 30 * time.Second},
		{"none", "", 270 * time.Second, 300 * time.Second},
		{"nonsense", "max-age=soon", 270 * time.Second, 300 * time.Second},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			p := newProvider(key)
			p.respond(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", r.cacheControl)
				fmt.Fprintf(w, `{"keys":[%s]}`, key.jwk())
			})
			p.verifierIn(ctx, t)
			after(r.min - time.Second)
			if n := p.fetches(); n != 1 {
				t.Errorf("%d fetches before %v", n, r.min)
			}
			after(r.max - r.min + time.Second)
			if n := p.fetches(); n != 2 {
				t.Errorf("%d fetches at %v", n, r.max)
			}
		})
	}
}

func TestProviderTrouble(t *testing.T) {
	key, evil := newKey("k1", "ES256"), newKey("evil", "ES256")
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	rows := []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"V27 500", say(500, "")},
		{"V27 500 with keys", say(500, `{"keys":[`+evil.jwk()+`]}`)},
		{"V27 HTML", say(200, "<html>Sign in</html>")},
		{"V27 empty set", say(200, `{"keys":[]}`)},
		{"V27 no set", say(200, `{}`)},
		{"V27 keys is null", say(200, `{"keys":null}`)},
		{"V27 no usable key", say(200, `{"keys":[{"kty":"oct","kid":"k1","k":"AA"}]}`)},
		{"V27 10 MiB", say(200, `{"keys":[`+evil.jwk()+`],"x":"`+strings.Repeat("x", 10<<20)+`"}`)},
		{"V27 64 KiB and a byte", say(200, `{"keys":[`+evil.jwk()+`]}`+strings.Repeat(" ", 64<<10))},
		{"V27 hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"V27 redirect to another host", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/other", http.StatusFound)
		}},
		{"V27 redirect to http", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://id.example/other", http.StatusFound)
		}},
		{"V27 redirect in a circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/jwks", http.StatusFound) }},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			p := newProvider(key)
			v := p.verifierIn(ctx, t)
			p.respond(r.answer)
			after(time.Hour)
			accepted(t, v, key.token())
			if err := verdict(v, evil.token()); !errors.Is(err, verify.ErrUnknownKey) {
				t.Error(err)
			}
			if err := v.Ready(); err != nil {
				t.Error(err)
			}
			for _, path := range p.asked() {
				if path == "/other" {
					t.Error("the redirect was followed")
				}
			}
			// Backing off: about one try in half a minute, no more.
			if s := v.Stats(); s.FetchFailures < 80 || s.FetchFailures > 150 || s.KeyAge < 40*time.Minute {
				t.Errorf("%+v", s)
			}
			p.respond(nil)
			after(time.Minute)
			if s := v.Stats(); s.KeyAge > time.Minute {
				t.Errorf("not recovered: %+v", s)
			}
		})
	}
	inBubble(t, "V27 last good keys are kept for 24 h", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		v := p.verifierIn(ctx, t)
		p.respond(say(500, ""))
		after(24*time.Hour - time.Second)
		accepted(t, v, key.token())
		after(time.Second)
		if err := verdict(v, key.token()); !errors.Is(err, verify.ErrNotReady) {
			t.Errorf("after 24 h: %v", err)
		}
		if err := v.Ready(); !errors.Is(err, verify.ErrNotReady) {
			t.Errorf("Ready after 24 h: %v", err)
		}
		p.respond(nil)
		after(time.Minute)
		accepted(t, v, key.token())
	})
	inBubble(t, "V27 down at the start, then there", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		p.respond(say(503, ""))
		v := p.verifierIn(ctx, t)
		if err := verdict(v, key.token()); !errors.Is(err, verify.ErrNotReady) {
			t.Error(err)
		}
		if err := v.Ready(); !errors.Is(err, verify.ErrNotReady) || !strings.Contains(err.Error(), "503") {
			t.Error(err)
		}
		after(10 * time.Minute)
		p.respond(nil)
		after(30 * time.Second)
		if err := v.Ready(); err != nil {
			t.Error(err)
		}
		accepted(t, v, key.token())
	})
	inBubble(t, "redirect on the same host", func(t *testing.T, ctx context.Context) {
		p := newProvider(key)
		p.respond(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "" {
				http.Redirect(w, r, "/jwks?v=2", http.StatusFound)
				return
			}
			fmt.Fprintf(w, `{"keys":[%s]}`, key.jwk())
		})
		accepted(t, p.verifierIn(ctx, t), key.token())
	})
}

// These need real connections: over net.Pipe, so that time can still be skipped.
func TestSlowServers(t *testing.T) {
	rows := []struct {
		name string
		talk func(net.Conn)
	}{
		{"V27 silent after accepting", func(c net.Conn) { io.Copy(io.Discard, c) }},
		{"V27 a byte a second", func(c net.Conn) {
			go io.Copy(io.Discard, c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
			for {
				if _, err := io.WriteString(c, " "); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"V27 endless headers", func(c net.Conn) {
			go io.Copy(io.Discard, c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X-A: b\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			client := &http.Client{Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() { defer theirs.Close(); r.talk(theirs) }()
					return ours, nil
				},
			}}
			ctx, cancel := context.WithCancel(ctx)
			start := time.Now()
			v, err := verify.New(ctx, "http://localhost", audience, verify.WithHTTPClient(client),
				verify.WithLogger(slog.New(slog.DiscardHandler)))
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != 5*time.Second {
				t.Errorf("the first fetch took %v", took)
			}
			if err := v.Ready(); !errors.Is(err, verify.ErrNotReady) {
				t.Error(err)
			}
			cancel()
			after(2 * time.Second) // lets the servers see that we have gone
		})
	}
}

func TestWrongTLS(t *testing.T) {
	key := newKey("k1", "ES256")
	p := newProvider(key)
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	p.issuer = server.URL
	quiet := verify.WithLogger(slog.New(slog.DiscardHandler))
	now := verify.WithNow(func() time.Time { return epoch })

	v, err := verify.New(t.Context(), server.URL, audience, quiet, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Ready(); !errors.Is(err, verify.ErrNotReady) {
		t.Errorf("V27 unknown authority: %v", err)
	}
	v, err = verify.New(t.Context(), server.URL, audience, quiet, now, verify.WithHTTPClient(server.Client()))
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, v, key.token(set("iss", server.URL)))
}

func TestDiscovery(t *testing.T) {
	key := newKey("k1", "ES256")
	// world answers by full URL; whatever is not in it is 404.
	rows := []struct {
		name, issuer string
		opts         []verify.Option
		world        map[string]string
		ok           bool
	}{
		{"OpenID Connect Discovery", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example","jwks_uri":"https://id.example/k"}`,
			"https://id.example/k":                                "keys"}, true},
		{"an issuer with a path", issuer + "/t1", nil, map[string]string{
			"https://id.example/t1/.well-known/openid-configuration": `{"issuer":"https://id.example/t1","jwks_uri":"https://id.example/t1/k"}`,
			"https://id.example/t1/k":                                "keys"}, true},
		{"an issuer with a trailing slash", issuer + "/", nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example/","jwks_uri":"https://id.example/k"}`,
			"https://id.example/k":                                "keys"}, true},
		{"RFC 8414 insertion", issuer + "/t1", nil, map[string]string{
			"https://id.example/.well-known/oauth-authorization-server/t1": `{"issuer":"https://id.example/t1","jwks_uri":"https://id.example/k"}`,
			"https://id.example/k": "keys"}, true},
		{"V29 metadata of another issuer", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://evil.example","jwks_uri":"https://id.example/k"}`,
			"https://id.example/k":                                "keys"}, false},
		{"V29 metadata issuer with a trailing slash", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example/","jwks_uri":"https://id.example/k"}`,
			"https://id.example/k":                                "keys"}, false},
		{"V29 metadata without issuer", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"jwks_uri":"https://id.example/k"}`,
			"https://id.example/k":                                "keys"}, false},
		{"V29 jwks_uri on another host", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example","jwks_uri":"https://evil.example/k"}`,
			"https://evil.example/k":                              "keys"}, false},
		{"V29 jwks_uri on another port", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example","jwks_uri":"https://id.example:8443/k"}`,
			"https://id.example:8443/k":                           "keys"}, false},
		{"V29 jwks_uri over http", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example","jwks_uri":"http://id.example/k"}`,
			"http://id.example/k": "keys"}, false},
		{"V29 jwks_uri missing", issuer, nil, map[string]string{
			"https://id.example/.well-known/openid-configuration": `{"issuer":"https://id.example"}`}, false},
		{"V29 jwks_uri configured on another host", issuer, []verify.Option{verify.WithJWKSURI("https://keys.example/k")}, map[string]string{
			"https://keys.example/k": "keys"}, true},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			world := transport(func(req *http.Request) (*http.Response, error) {
				return roundTrip(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					switch body := r.world[req.URL.String()]; body {
					case "":
						http.NotFound(w, req)
					case "keys":
						fmt.Fprintf(w, `{"keys":[%s]}`, key.jwk())
					default:
						io.WriteString(w, body)
					}
				}), req)
			})
			v, err := verify.New(ctx, r.issuer, audience, append(r.opts, verify.WithHTTPClient(&http.Client{Transport: world}),
				verify.WithNow(func() time.Time { return epoch }), verify.WithLogger(slog.New(slog.DiscardHandler)))...)
			if err != nil {
				t.Fatal(err)
			}
			if !r.ok {
				if err := v.Ready(); !errors.Is(err, verify.ErrNotReady) {
					t.Errorf("ready: %v", err)
				}
				return
			}
			accepted(t, v, key.token(set("iss", r.issuer)))
		})
	}
	inBubble(t, "keys that moved are found again", func(t *testing.T, ctx context.Context) {
		var place atomic.Value
		place.Store("/old")
		world := transport(func(req *http.Request) (*http.Response, error) {
			return roundTrip(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch req.URL.Path {
				case "/.well-known/openid-configuration":
					fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, issuer, issuer+place.Load().(string))
				case place.Load():
					fmt.Fprintf(w, `{"keys":[%s]}`, key.jwk())
				default:
					http.NotFound(w, req)
				}
			}), req)
		})
		v, err := verify.New(ctx, issuer, audience, verify.WithHTTPClient(&http.Client{Transport: world}),
			verify.WithNow(func() time.Time { return epoch }), verify.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		place.Store("/new")
		after(6 * time.Minute)
		if s := v.Stats(); s.FetchFailures != 1 || s.KeyAge > 2*time.Minute {
			t.Errorf("%+v", s)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClockJumps(t *testing.T) {
	key := newKey("k1", "ES256")
	inBubble(t, "V30 an hour forth and back", func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		var jump time.Duration
		now := func() time.Time { mu.Lock(); defer mu.Unlock(); return epoch.Add(jump) }
		p := newProvider(key)
		v := p.verifierIn(ctx, t, verify.WithNow(now))
		token := key.token()
		for i, r := range []struct {
			jump time.Duration
			want error
		}{{0, nil}, {time.Hour, verify.ErrExpired}, {0, nil}, {-time.Hour, verify.ErrNotYetValid}, {0, nil}} {
			mu.Lock()
			jump = r.jump
			mu.Unlock()
			for range 2 {
				if err := verdict(v, token); !errors.Is(err, r.want) || (err == nil) != (r.want == nil) {
					t.Errorf("jump %d to %v: %v", i, r.jump, err)
				}
			}
			after(time.Minute)
		}
		if n := p.fetches(); n != 1 {
			t.Errorf("%d fetches: a jump of the clock caused one", n)
		}
		after(15 * time.Minute)
		if n := p.fetches(); n != 2 {
			t.Errorf("%d fetches after max-age", n)
		}
	})
}
