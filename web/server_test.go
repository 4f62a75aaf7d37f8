package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/web"
)

// T4: whoever sends slowly is cut off, and large headers are refused.
func TestSlowSenders(t *testing.T) {
	t.Parallel()
	s := newSite(t, openStore(t, migrations.SQLite), options{})
	for _, tc := range []struct{ name, begin string }{
		{"T4 headers", "POST /token HTTP/1.1\r\nHost: x\r\nX-Slow: "},
		{"T4 body", "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: " + formType + "\r\nContent-Length: 1000\r\n\r\n"},
		{"T4 nothing", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.Copy(io.Discard, conn) // ends when the server closes
			}()
			_, _ = io.WriteString(conn, tc.begin)
			trickle := time.NewTicker(500 * time.Millisecond)
			defer trickle.Stop()
			for {
				select {
				case <-done:
					if took := time.Since(began); took > 12*time.Second {
						t.Errorf("closed after %s", took)
					}
					return
				case <-trickle.C:
					if tc.begin != "" {
						_, _ = io.WriteString(conn, "x")
					}
					if time.Since(began) > 20*time.Second {
						t.Fatal("not closed after 20 s")
					}
				}
			}
		})
	}
	t.Run("T4 headers over 16 KiB", func(t *testing.T) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", 32<<10))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}

// A person whose request took too long, or who left, is shown a page all the same.
func TestPageOutOfTime(t *testing.T) {
	s := newSite(t, openStore(t, migrations.SQLite), options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, path := range []string{"/login", "/account", "/authorize", "/nowhere"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, s.issuer+path, nil)
		r.Header.Set("Accept", "text/html")
		r.AddCookie(&http.Cookie{Name: "any", Value: "thing"})
		s.public.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || w.Code >= 400 && !strings.Contains(w.Body.String(), "</html>") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// T5: a panic is a 500 that tells nothing; the log and a counter do, and the
// server goes on.
func TestPanic(t *testing.T) {
	issuer, err := provider.ParseIssuer("https://login.example")
	if err != nil {
		t.Fatal(err)
	}
	log, reg := &lockedBuffer{}, prometheus.NewRegistry()
	// With an empty provider behind it, every endpoint panics.
	h := web.New(web.Config{
		Issuer: issuer, Provider: &provider.Provider{}, RequestTimeout: time.Second, Registerer: reg, Gatherer: reg,
		Log: slog.New(slog.NewJSONHandler(log, nil)), Now: time.Now,
	}).Public()
	for name, accept := range map[string]string{"T5 a program": "application/json", "T5 a person": "text/html"} {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader("grant_type=x"))
			req.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != http.StatusInternalServerError {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			for _, inside := range []string{"nil pointer", "goroutine", ".go", "runtime"} {
				if strings.Contains(w.Body.String(), inside) {
					t.Errorf("the answer tells of the inside: %s", w.Body)
				}
			}
			id := w.Header().Get("X-Request-Id")
			if id == "" || !strings.Contains(w.Body.String(), id) || !strings.Contains(log.String(), id) {
				t.Errorf("request id %q is not in answer and log", id)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Error("the answer may be kept")
			}
		})
	}
	if !strings.Contains(log.String(), "nil pointer") {
		t.Error("the log does not tell the cause")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
	if w.Code != http.StatusOK {
		t.Errorf("livez: %d", w.Code)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, family := range families {
		if family.GetName() == "signet_panics_total" {
			counted = family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if counted != 2 {
		t.Errorf("signet_panics_total = %v", counted)
	}
}

// Q4, Q5: whatever a request holds, the debug log has no secret of it, and
// each event stays one line of JSON.
func TestLogKeepsSecretsOut(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		key := newSigner(t, jose.ES256)
		secret := s.register("shop")
		posted := s.client("post", asPost)
		s.client("robot", key.registers(t))
		rotated, _, err := s.admin.RotateClientSecret(t.Context(), "shop", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		wrong := "sgs_wrong-but-almost-right"
		token := s.token("shop", secret, "orders:read")
		assertion, refused := key.assertion(t, claimsFor(s, "robot")), key.assertion(t, map[string]any{"sub": "robot"})

		s.form("/token", "shop", rotated, clientCredentials())
		s.form("/token", "shop", wrong, clientCredentials())
		s.form("/token", "nobody", wrong, clientCredentials())
		s.form("/token", "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {"post"}, "client_secret": {posted}})
		s.form("/token", "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {"post"}, "client_secret": {wrong}})
		s.form("/token", "shop", secret, url.Values{"grant_type": {secret}})
		s.form("/token", "", "", clientCredentials(), "Authorization", "Bearer "+token)
		s.form("/token?client_secret="+secret, "shop", secret, clientCredentials())
		s.get("/livez?access_token=" + token)
		s.get("/nowhere?client_secret=" + secret)
		s.assert(assertion)
		s.assert(assertion) // replayed
		s.assert(refused)
		s.assert(tamper(assertion))
		for _, path := range []string{"/introspect", "/revoke"} {
			s.form(path, "shop", secret, url.Values{"token": {token}})
			s.form(path, "shop", secret, url.Values{"token": {tamper(token)}})
			s.form(path, "shop", secret, url.Values{"token": {token}, "token_type_hint": {secret}})
		}
		hostile := "evil\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\n\x1b[31mred\x00"
		s.form("/token", strings.TrimSuffix(hostile, "\x00"), "x", clientCredentials())
		s.form("/token", "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {hostile}})
		s.get("/" + url.PathEscape(hostile))
		s.get("/livez", "X-Forwarded-For", "evil")

		log := s.log.String()
		signature := func(jwt string) string { return jwt[strings.LastIndexByte(jwt, '.')+1:] }
		for name, value := range map[string]string{
			"secret": secret, "rotated secret": rotated, "posted secret": posted, "wrong secret": wrong,
			"token": token, "token's signature": signature(token), "assertion": assertion, "assertion's signature": signature(assertion),
			"refused assertion": refused, "basic credentials": strings.TrimPrefix(basic("shop", secret), "Basic "), "Authorization": "Authorization",
		} {
			if strings.Contains(log, value) {
				t.Errorf("Q4 the log holds the %s", name)
			}
		}
		requests := 0
		for line := range strings.Lines(log) {
			var event map[string]any
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("Q5 a line of the log is not JSON: %v: %q", err, line)
			}
			if event["msg"] == "forged" || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\r\x00\x1b") {
				t.Errorf("Q5 forged: %q", line)
			}
			if event["msg"] == "request" {
				requests++
				if id, _ := event["request_id"].(string); len(id) != 24 {
					t.Errorf("a request without id: %q", line)
				}
			}
		}
		if requests < 20 {
			t.Errorf("%d requests in the log", requests)
		}
	})
}

// The answer's request id is the log's.
func TestRequestID(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		first, second := s.get("/livez").header.Get("X-Request-Id"), s.form("/token", "nobody", "x", clientCredentials()).header.Get("X-Request-Id")
		if first == second || len(first) != 24 || len(second) != 24 {
			t.Fatalf("request ids %q and %q", first, second)
		}
		if n := strings.Count(s.log.String(), `"request_id":"`+second+`"`); n != 2 { // refused, and answered
			t.Errorf("%d events tell of the refused request, want 2", n)
		}
	})
}

// A token's facts are in its request's line, which is the only one.
func TestTokenIsOneLineOfTheLog(t *testing.T) {
	s := newSite(t, openStore(t, migrations.SQLite), options{})
	a := s.form("/token", "shop", s.register("shop"), url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
	var lines []map[string]any
	for line := range strings.Lines(s.log.String()) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event["request_id"] == a.header.Get("X-Request-Id") {
			lines = append(lines, event)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	for name, want := range map[string]any{
		"msg": "request", "status": 200.0, "grant_type": "client_credentials", "client_id": "shop", "sub": "shop", "aud": ordersURI, "scope": "orders:read",
	} {
		if lines[0][name] != want {
			t.Errorf("%s = %v, want %v", name, lines[0][name], want)
		}
	}
	if jti, _ := lines[0]["jti"].(string); jti == "" {
		t.Error("no jti")
	}
}

// What everybody is told alike is logged for those who debug; a refusal always.
func TestQuietLines(t *testing.T) {
	s := newSite(t, openStore(t, migrations.SQLite), options{})
	for path, want := range map[string]string{
		"/jwks": "DEBUG", "/.well-known/openid-configuration": "DEBUG", "/livez": "DEBUG", "/readyz": "DEBUG",
		"/userinfo": "INFO", "/login": "INFO", "/nowhere": "INFO",
	} {
		id := s.get(path).header.Get("X-Request-Id")
		if !slices.ContainsFunc(strings.Split(s.log.String(), "\n"), func(line string) bool {
			return strings.Contains(line, id) && strings.Contains(line, `"msg":"request"`) && strings.Contains(line, `"level":"`+want+`"`)
		}) {
			t.Errorf("%s is not logged as %s", path, want)
		}
	}
	id := s.send(http.MethodPost, "/jwks", "").header.Get("X-Request-Id")
	if log := s.log.String(); !strings.Contains(log[strings.LastIndex(log, `"level"`):], `"level":"INFO","msg":"request","request_id":"`+id) {
		t.Errorf("a refused request is not logged: %s", log)
	}
}

// N tokens and N introspections add no row to any table.
func TestTokensLeaveNoRow(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		token := s.token("shop", secret, "orders:read")
		before := s.db.rows(t)
		if before["clients"] != 1 || len(before) < 20 {
			t.Fatalf("the count sees too little: %v", before)
		}
		for range 500 {
			if a := s.form("/token", "shop", secret, clientCredentials()); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if a := s.introspect("shop", secret, token); a.json["active"] != true {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if after := s.db.rows(t); !maps.Equal(before, after) {
			t.Errorf("rows before %v\nrows after %v", before, after)
		}
	})
}
