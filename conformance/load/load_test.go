package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startServer starts a server with the four endpoints; token stands for the
// token endpoint where a test wants another.
func startServer(t *testing.T, token http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(v); err != nil {
				t.Error(err)
			}
		}
	}
	if token == nil {
		claims := fmt.Sprintf(`{"iss":%q,"client_id":"main","exp":%d}`, srv.URL, time.Now().Add(time.Hour).Unix())
		good := answer(map[string]any{"access_token": "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig", "token_type": "Bearer"})
		token = func(w http.ResponseWriter, r *http.Request) {
			id, secret, _ := r.BasicAuth()
			if id != "main" || secret != "s3cret" || r.FormValue("scope") != "orders:read" || r.FormValue("resource") != "https://orders.example" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			good(w, r)
		}
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", answer(map[string]string{
		"issuer": srv.URL, "token_endpoint": srv.URL + "/token", "introspection_endpoint": srv.URL + "/introspect", "jwks_uri": srv.URL + "/jwks",
	}))
	mux.HandleFunc("POST /token", token)
	mux.HandleFunc("POST /introspect", answer(map[string]any{"active": true, "client_id": "main"}))
	mux.HandleFunc("GET /jwks", answer(map[string]any{"keys": []any{map[string]string{"kid": "1"}}}))
	return srv.URL
}

// command runs load briefly, as a user does.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"--client-id", "main", "--client-secret-stdin", "--resource", "https://orders.example", "--scope", "orders:read",
		"--concurrency", "4", "--warmup", "10ms", "--duration", "100ms"}, args...)
	code = run(t.Context(), args, strings.NewReader("s3cret\n"), &out, &errs, func(string) string { return "" })
	return code, out.String(), errs.String()
}

func TestEachWorkload(t *testing.T) {
	issuer := startServer(t, nil)
	for _, w := range workloads() {
		if w.needs == aPerson {
			continue // only a real server has people: signet_test.go
		}
		t.Run(w.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.json")
			code, out, errs := command(t, "--issuer", issuer, "--workload", w.name, "--pid", strconv.Itoa(os.Getpid()), "--database-pid", strconv.Itoa(os.Getpid()), "--json", file)
			if code != exitOK || !strings.Contains(out, "requests/s") {
				t.Fatalf("exit %d:\n%s%s", code, out, errs)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r report
			if err := json.Unmarshal(b, &r); err != nil {
				t.Fatal(err)
			}
			f := r.Figures
			if r.Workload != w.name || r.Issuer != issuer || r.Go == "" || r.Date.IsZero() || r.Machine.CPUs == 0 || r.Settings.Concurrency != 4 {
				t.Errorf("the report does not say what ran: %s", b)
			}
			if f.Requests == 0 || f.RequestsPerSecond <= 0 || f.P50 <= 0 || f.P50 > f.P90 || f.P90 > f.P99 || f.P99 > f.Max || len(f.Errors) > 0 {
				t.Errorf("figures: %s", b)
			}
			if f.ServerCPUPer1000 == nil || f.ServerPeakRSS == nil || *f.ServerPeakRSS <= 0 || f.LoadCPUPer1000 == nil {
				t.Errorf("no figures of the process: %s", b)
			}
		})
	}
}

// The yardstick serves what it is compared in.
func TestBare(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--bare", "127.0.0.1:0"}, strings.NewReader(""), in, os.Stderr, os.Getenv)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	issuer := strings.TrimSuffix(strings.Fields(line)[4], ",")
	for _, name := range []string{"client-credentials", "discovery", "jwks"} {
		if code, _, errs := command(t, "--issuer", issuer, "--workload", name, "--client-id", "bare"); code != exitOK {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestFailuresAreCountedByKind(t *testing.T) {
	for name, c := range map[string]struct {
		token http.HandlerFunc
		kind  string
	}{
		"an error status":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "status 503"},
		"another body":      {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"error":"none"}`) }, "wrong answer"},
		"a token too many":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"access_token":"opaque"}`) }, "wrong answer"},
		"a lost connection": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "connection lost"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := command(t, "--issuer", startServer(t, c.token), "--warmup", "0s", "--progress")
			if code != exitFailed || !strings.Contains(out, "errors, "+c.kind) {
				t.Errorf("exit %d, want errors of kind %q:\n%s%s", code, c.kind, out, errs)
			}
		})
	}
}

func TestRequestsAreBounded(t *testing.T) {
	code, out, _ := command(t, "--issuer", startServer(t, nil), "--warmup", "0s", "--duration", "1m", "--requests", "40")
	if code != exitOK || !strings.Contains(out, "requests                 40\n") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

func TestInterruptedBeforeItMeasured(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"--issuer", startServer(t, nil), "--workload", "jwks"}, strings.NewReader(""), &out, &errs, os.Getenv)
	if code != exitFailed || out.Len() > 0 || !strings.Contains(errs.String(), "nothing was measured") {
		t.Errorf("exit %d:\n%s%s", code, out.String(), errs.String())
	}
}

func TestMistakesAreNamed(t *testing.T) {
	issuer := startServer(t, nil)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"another machine":      {[]string{"--issuer", "http://192.0.2.1:80"}, "not a loopback address"},
		"https":                {[]string{"--issuer", "https://127.0.0.1"}, "want http://"},
		"too long":             {[]string{"--issuer", issuer, "--duration", "1h"}, "--duration"},
		"too wide":             {[]string{"--issuer", issuer, "--concurrency", "100000"}, "--concurrency"},
		"too many":             {[]string{"--issuer", issuer, "--requests", "1000000000"}, "--requests"},
		"an unknown workload":  {[]string{"--issuer", issuer, "--workload", "mining"}, "client-credentials, introspection, login, code, refresh, userinfo, discovery, jwks"},
		"no client":            {[]string{"--issuer", issuer, "--client-id", ""}, "needs --client-id"},
		"no person":            {[]string{"--issuer", issuer, "--workload", "login", "--redirect-uri", "https://a.example/cb"}, "needs --user and the password"},
		"no redirect URI":      {[]string{"--issuer", issuer, "--workload", "login"}, "needs --redirect-uri"},
		"two mistakes at once": {[]string{"--issuer", "ftp://127.0.0.1", "--concurrency", "0"}, "--concurrency: want 1 to 1024\n--issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := command(t, c.args...)
			if code != exitUsage || !strings.Contains(errs, c.want) {
				t.Errorf("exit %d, want %q in:\n%s", code, c.want, errs)
			}
		})
	}
	if code, _, errs := command(t, "--issuer", issuer, "--pid", "2147483647"); code != exitFailed || !strings.Contains(errs, "process 2147483647") {
		t.Errorf("no such process: exit %d: %s", code, errs)
	}
}

func TestHistogramPercentiles(t *testing.T) {
	const n = 20_000
	h := new(histogram)
	exact := make([]time.Duration, n)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range exact {
		exact[i] = time.Duration(random.ExpFloat64() * float64(2*time.Millisecond))
		h.record(exact[i])
	}
	slices.Sort(exact)
	for _, p := range []float64{50, 90, 99, 99.9} {
		want := exact[int(n*p/100)-1]
		if got := h.percentile(p); (got - want).Abs() > want/200 {
			t.Errorf("p%v: got %v, want %v within 0.5 %%", p, got, want)
		}
	}
	if h.percentile(100) != exact[n-1] {
		t.Errorf("p100: got %v, want the maximum %v", h.percentile(100), exact[n-1])
	}
	sum := new(histogram)
	sum.add(h)
	sum.add(h)
	if sum.n != 2*n || sum.percentile(50) != h.percentile(50) {
		t.Error("two histograms added are not twice the one")
	}
}

func TestHistogramHoldsAnyDuration(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 255, 256, time.Second, time.Hour, 1<<63 - 1} {
		h := new(histogram)
		h.record(d)
		if got := h.percentile(50); got > max(d, 0) {
			t.Errorf("%v: got %v", d, got)
		}
	}
	if new(histogram).percentile(50) != 0 {
		t.Error("an empty histogram has a percentile")
	}
}

// serveRaw answers each request on a connection with the next of the texts.
func serveRaw(t *testing.T, answers ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		for _, a := range answers {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write([]byte(a)); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

func TestConnReadsHTTP(t *testing.T) {
	c := &conn{address: serveRaw(t,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nfirst",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nsec\r\n3;x=y\r\nond\r\n0\r\nTrailer: t\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nConnection: close\r\n\r\n",
	)}
	defer c.close()
	for _, want := range []struct {
		status int
		body   string
	}{{200, "first"}, {200, "second"}, {304, ""}, {503, ""}} {
		status, body, err := c.do([]byte("GET"), time.Now())
		if err != nil || status != want.status || string(body) != want.body {
			t.Fatalf("got %d %q %v, want %+v", status, body, err, want)
		}
	}
	if c.net != nil {
		t.Error("the connection is kept though the server closes it")
	}
}

func TestConnRefusesWhatIsNotHTTP(t *testing.T) {
	for name, answer := range map[string]string{
		"another protocol": "SSH-2.0-server of some kind\r\n\r\n",
		"no length":        "HTTP/1.1 200 OK\r\n\r\nbody",
		"negative length":  "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"too long":         "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
		"no chunk size":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nbody\r\n",
		"a chunk too long": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := &conn{address: serveRaw(t, answer)}
			defer c.close()
			_, _, err := c.do([]byte("GET"), time.Now())
			if err == nil || !strings.HasPrefix(err.Error(), "malformed answer") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Requests in flight are spread over the replicas, and none goes to the issuer
// itself, where nothing need answer.
func TestReplicas(t *testing.T) {
	const issuer = "http://127.0.0.1:1"
	var asked [3]atomic.Int64
	args := []string{"--issuer", issuer, "--workload", "discovery"}
	for i := range asked {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "127.0.0.1:1" {
				t.Errorf("Host: %s", r.Host)
			}
			asked[i].Add(1)
			fmt.Fprintf(w, `{"issuer":%q}`, issuer)
		}))
		t.Cleanup(srv.Close)
		args = append(args, "--replica", srv.Listener.Addr().String(), "--pid", strconv.Itoa(os.Getpid()))
	}
	if code, out, errs := command(t, args...); code != exitOK {
		t.Fatalf("exit %d:\n%s%s", code, out, errs)
	}
	for i := range asked {
		if asked[i].Load() == 0 {
			t.Errorf("replica %d was not asked", i+1)
		}
	}
	for _, bad := range []string{"192.0.2.1:80", "localhost:80", "127.0.0.1"} {
		if code, _, errs := command(t, "--issuer", issuer, "--workload", "discovery", "--replica", bad); code != exitUsage || !strings.Contains(errs, bad) {
			t.Errorf("replica %s: exit %d, %s", bad, code, errs)
		}
	}
}

// A family's CPU time is that of its children too, while they run and after.
func TestFamily(t *testing.T) {
	family := func() time.Duration {
		t.Helper()
		p, err := readFamily(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return p.cpu
	}
	busy := exec.Command("sh", "-c", "while :; do :; done")
	before, err := readProcess(os.Getpid())
	if err == nil {
		err = busy.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	const enough = 200 * time.Millisecond // of which this process itself takes little
	var child processUsage
	for child.cpu < enough {
		time.Sleep(10 * time.Millisecond)
		if child, err = readProcess(busy.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if running := family(); running < before.cpu+enough {
		t.Errorf("%s while the child runs, which has taken %s, after %s", running, child.cpu, before.cpu)
	}
	if err := busy.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = busy.Wait() // it was killed
	if ended := family(); ended < before.cpu+enough {
		t.Errorf("%s after the child has ended, which took %s, after %s", ended, child.cpu, before.cpu)
	}
	if _, err := readFamily(1<<31 - 1); err == nil {
		t.Error("a process that is not there has a family")
	}
}
