package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

const (
	// soon is how long a test waits for what takes milliseconds on an idle
	// machine; on a busy one it may take long.
	soon = 20 * time.Second
	// someIssuer is for tests that never call the issuer by its name.
	someIssuer = "http://localhost:8080"
	invoices   = "https://api.example.com"
	// behindProxy lets each request of a test come from an address of its own,
	// so that refusals it provokes on purpose do not slow down the next.
	behindProxy = "--trusted-proxy=127.0.0.1/32"
)

// process is a command that runs until it is told to stop.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr lockedBuffer
	ended  chan struct{} // closed once it has, and all it wrote is read
}

// lockedBuffer collects what a process writes while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts signet as a process, which ends with the test.
func (p *place) begin(args ...string) *process {
	p.t.Helper()
	s := &process{t: p.t, cmd: exec.Command(filepath.Join(binaries, "signet"), args...), ended: make(chan struct{})}
	s.cmd.Dir, s.cmd.Env, s.cmd.Stderr = p.dir, p.vars, &s.stderr
	out, stdout, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	s.cmd.Stdout, s.stdout = stdout, bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	stdout.Close()
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait() // its status is read from ProcessState
	}()
	p.t.Cleanup(func() {
		s.signal(syscall.SIGKILL)
		<-s.ended
		out.Close()
		if log := s.stderr.String(); strings.Contains(log, "panic") || strings.Contains(log, "DATA RACE") {
			p.t.Errorf("it panicked:\n%s", log)
		}
	})
	return s
}

func (s *process) signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
}

// wait returns the exit status, -1 when a signal ended it.
func (s *process) wait() int {
	s.t.Helper()
	select {
	case <-s.ended:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(soon):
		s.t.Fatalf("it does not end:\n%s", s.stderr.String())
		return 0
	}
}

// server is a running `signet serve`.
type server struct {
	*process
	issuer     string
	url, admin string // where the listeners are
	http       *http.Client
}

// serve starts a server on free ports and waits until it is ready. Unless
// args say otherwise its issuer is someIssuer.
func (p *place) serve(args ...string) *server {
	p.t.Helper()
	s := p.tryServe(args...)
	if s == nil {
		p.t.Fatal("it ended before it was ready")
	}
	return s
}

func (p *place) tryServe(args ...string) *server {
	p.t.Helper()
	s := &server{process: p.begin(append([]string{"serve", "--issuer", someIssuer, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)...)}
	var ready struct {
		Event, Issuer, Listen string
		AdminListen           string `json:"admin_listen"`
		PID                   int
	}
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		p.t.Logf("exit %d:\n%s", s.wait(), s.stderr.String())
		return nil
	}
	if err := json.Unmarshal(line, &ready); err != nil || ready.Event != "ready" || ready.PID != s.cmd.Process.Pid {
		p.t.Fatalf("ready line %s: %v", line, err)
	}
	scheme := "http"
	if slices.Contains(args, "--tls-cert") {
		scheme = "https"
	}
	s.issuer, s.url, s.admin = ready.Issuer, scheme+"://"+ready.Listen, "http://"+ready.AdminListen
	transport := &http.Transport{MaxIdleConnsPerHost: 16, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the tests' own certificate
	s.http = &http.Client{Transport: transport, Timeout: soon, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	p.t.Cleanup(transport.CloseIdleConnections)
	return s
}

// serveNamed starts a server that answers at the address its issuer names.
func (p *place) serveNamed(args ...string) *server {
	p.t.Helper()
	for range 5 { // another process may take the address before it does
		address := freeAddress(p.t)
		if s := p.tryServe(append([]string{"--issuer", "http://" + address, "--listen", address}, args...)...); s != nil {
			return s
		}
	}
	p.t.Fatal("no address to serve on")
	return nil
}

// freeAddress returns an address nobody listens on, with a port below those
// that the kernel gives to outgoing connections.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+mrand.IntN(20_000))))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, strings.TrimSpace(r.body)) }

// member returns a member of a JSON answer as text, "" when it is not there.
func (r reply) member(name string) string {
	var members map[string]any
	_ = json.Unmarshal([]byte(r.body), &members)
	if v, ok := members[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// send sends a request. The error is of the connection.
func (s *server) send(ctx context.Context, method, address string, form url.Values, header ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return reply{}, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("X-Forwarded-For", fmt.Sprintf("198.18.%d.%d", mrand.IntN(256), mrand.IntN(256)))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(body)}, err
}

func (s *server) get(address string, header ...string) reply {
	s.t.Helper()
	r, err := s.send(s.t.Context(), http.MethodGet, address, nil, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *server) post(path string, form url.Values, header ...string) reply {
	s.t.Helper()
	r, err := s.send(s.t.Context(), http.MethodPost, s.url+path, form, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// basic is the header of client_secret_basic (RFC 6749 §2.3.1).
func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// token asks for a token as a client with a secret.
func (s *server) token(id, secret, scope string) reply {
	s.t.Helper()
	return s.post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}, "Authorization", basic(id, secret))
}

// active introspects a token.
func (s *server) active(id, secret, token string) bool {
	s.t.Helper()
	r := s.post("/introspect", url.Values{"token": {token}}, "Authorization", basic(id, secret))
	if r.status != http.StatusOK {
		s.t.Fatalf("introspection: %s", r)
	}
	return r.member("active") == "true"
}

// until waits until something comes true, and returns for how long.
func until(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for ; !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > soon {
			t.Fatalf("not within %s: %s", soon, what)
		}
	}
	return time.Since(began)
}

// onBoth runs a test on a place with a SQLite file and on one with a
// PostgreSQL database, side by side.
func onBoth(t *testing.T, test func(t *testing.T, p *place)) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, newPlace(t))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, newPostgresPlace(t, storagetest.Postgres(t)))
	})
}

func newPostgresPlace(t *testing.T, address string) *place {
	t.Helper()
	p := newPlace(t, "SIGNET_DATABASE="+address, "SIGNET_KEK_FILE=kek")
	p.write("kek", newKEK())
	return p
}

// openSQLite opens the place's database beside whoever works on it.
func (p *place) openSQLite() *sql.DB {
	p.t.Helper()
	db, err := sqlite.DB(filepath.Join(p.dir, "data", "signet.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { db.Close() })
	return db
}

func newKEK() string {
	var kek [32]byte
	_, _ = rand.Read(kek[:])
	return base64.StdEncoding.EncodeToString(kek[:])
}

// furnish registers an API and returns the secret of a service for it.
func (p *place) furnish(service string) (secret string) {
	p.t.Helper()
	p.must(
		`signet role create accounting`,
		`signet resource create `+invoices+` --name API --scope invoices:read --scope invoices:write=accounting`,
	)
	return decode[shownOnce](p, `signet client create --json --name Service --id `+service+
		` --grant client_credentials --scope invoices:read --scope invoices:write`).ClientSecret
}

// shownOnce is what client create and rotate-secret tell of a secret.
type shownOnce struct {
	ClientSecret string `json:"client_secret"`
}

// keyIDs lists the signing keys as the command does.
func (p *place) keyIDs() []string {
	p.t.Helper()
	var kids []string
	for _, k := range decode[struct{ Items []struct{ KID string } }](p, `signet key list --json`).Items {
		kids = append(kids, k.KID)
	}
	return kids
}

// keyed registers a client that authenticates with private_key_jwt.
func (p *place) keyed(id string) *ecdsa.PrivateKey {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: id, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(id+".jwks", string(set))
	p.must(`signet client create --name Keyed --id ` + id + ` --grant client_credentials --scope invoices:read --auth-method private_key_jwt --jwks-file ` + id + `.jwks`)
	return key
}

// assertion is a client assertion (RFC 7523 §3) that was never used.
func (s *server) assertion(id string, key *ecdsa.PrivateKey) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		s.t.Error(err)
		return ""
	}
	now := time.Now()
	a, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: id, Subject: id, Audience: jwt.Audience{s.issuer}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(4 * time.Minute)),
	}).Serialize()
	if err != nil {
		s.t.Error(err)
	}
	return a
}

// asserting is the form of a token request with an assertion.
func asserting(assertion string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "scope": {"invoices:read"},
		"client_assertion": {assertion}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.serve()
	if s.issuer != someIssuer || strings.HasSuffix(s.url, ":0") || strings.HasSuffix(s.admin, ":0") {
		t.Errorf("issuer %s, listen %s, admin %s", s.issuer, s.url, s.admin)
	}
	for _, at := range []struct {
		url    string
		status int
	}{
		{s.url + "/livez", 200}, {s.url + "/readyz", 200}, {s.url + "/metrics", 404},
		{s.admin + "/livez", 200}, {s.admin + "/readyz", 200}, {s.admin + "/metrics", 200},
		{s.admin + "/token", 404}, {s.admin + "/jwks", 404},
	} {
		if r := s.get(at.url); r.status != at.status {
			t.Errorf("%s: %d, want %d", at.url, r.status, at.status)
		}
	}
	p.must(`signet health --admin-listen ` + strings.TrimPrefix(s.admin, "http://"))
	if m := s.get(s.admin + "/metrics").body; !strings.Contains(m, "signet_") || !strings.Contains(m, "process_cpu_seconds_total") {
		t.Errorf("metrics:\n%s", m)
	}

	// Every line of the log is JSON; each request's has the id it was answered with.
	r := s.get(s.url+"/nowhere?code=do-not-log-me", "X-Request-Id", "forged")
	id := r.header.Get("X-Request-Id")
	if len(id) < 16 {
		t.Fatalf("request id %q", id)
	}
	until(t, "the request is in the log", func() bool { return strings.Contains(s.stderr.String(), id) })
	type line struct {
		Time, Level, Msg, Path, Method string
		RequestID                      string `json:"request_id"`
		Status                         int
	}
	var logged line
	for text := range strings.Lines(s.stderr.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Time == "" || l.Level == "" || l.Msg == "" {
			t.Errorf("log line %s: %v", text, err)
		}
		if l.RequestID == id {
			logged = l
		}
	}
	if logged.Path != "/nowhere" || logged.Method != "GET" || logged.Status != 404 {
		t.Errorf("logged as %+v", logged)
	}
	if log := s.stderr.String(); strings.Contains(log, "do-not-log-me") || strings.Contains(log, "forged") {
		t.Errorf("log holds what the requester sent:\n%s", log)
	}

	// It says what to do next, and ends at once when interrupted.
	if log := s.stderr.String(); !strings.Contains(log, "signet client create") {
		t.Errorf("no word that there are no clients:\n%s", log)
	}
	s.signal(syscall.SIGINT)
	if status := s.wait(); status != 0 {
		t.Errorf("exit %d:\n%s", status, s.stderr.String())
	}
	if rest, _ := io.ReadAll(s.stdout); len(rest) > 0 {
		t.Errorf("more on standard output: %s", rest)
	}

	// The keys of the first start are those of the second.
	p.furnish("nightly")
	before := p.keyIDs()
	s = p.serve()
	until(t, "word that there are no users", func() bool { return strings.Contains(s.stderr.String(), "signet user create") })
	if strings.Contains(s.stderr.String(), "no clients") {
		t.Errorf("there is a client:\n%s", s.stderr.String())
	}
	if after := p.keyIDs(); len(before) == 0 || !slices.Equal(after, before) {
		t.Errorf("keys %v became %v", before, after)
	}
}

// slowPost is a request of which the server has all but the last byte.
type slowPost struct {
	conn net.Conn
	last string
}

func (s *server) slowPost(path string, form url.Values, authorization string) slowPost {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	body := form.Encode()
	// 100 Continue says that the handler has begun to read the body.
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
		path, authorization, len(body))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "100") {
		s.t.Fatalf("got %q, %v", line, err)
	}
	if _, err := io.WriteString(conn, body[:len(body)-1]); err != nil {
		s.t.Fatal(err)
	}
	return slowPost{conn, body[len(body)-1:]}
}

func (p slowPost) finish() (status int, err error) {
	if _, err := io.WriteString(p.conn, p.last); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(bufio.NewReader(p.conn), nil)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	secret := p.furnish("nightly")
	form := url.Values{"grant_type": {"client_credentials"}}
	reachable := func(s *server) bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}

	// TERM: not ready any more, yet it answers; then the door is closed, and
	// who is inside is served.
	s := p.serve("--drain", "6s")
	began := time.Now()
	under := s.slowPost("/token", form, basic("nightly", secret))
	s.signal(syscall.SIGTERM)
	until(t, "readyz says no", func() bool { return s.get(s.url+"/readyz").status == http.StatusServiceUnavailable })
	if r := s.get(s.admin + "/readyz"); r.status != http.StatusServiceUnavailable || r.body != "draining\n" {
		t.Errorf("admin readyz while draining: %s", r)
	}
	if r := s.get(s.url + "/livez"); r.status != http.StatusOK {
		t.Errorf("livez while draining: %s", r)
	}
	if r := s.token("nightly", secret, ""); r.status != http.StatusOK {
		t.Errorf("token while draining: %s", r)
	}
	until(t, "no more connections", func() bool { return !reachable(s) })
	if status, err := under.finish(); status != http.StatusOK || err != nil {
		t.Errorf("the request under way: %d %v", status, err)
	}
	if status := s.wait(); status != 0 {
		t.Errorf("exit %d:\n%s", status, s.stderr.String())
	}
	t.Logf("drained in %s of 6s", time.Since(began).Round(time.Millisecond))

	// An interrupt: the door closes at once; who is inside is served.
	s = p.serve("--drain", "60s")
	under = s.slowPost("/token", form, basic("nightly", secret))
	s.signal(syscall.SIGINT)
	took := until(t, "no more connections", func() bool { return !reachable(s) })
	if status, err := under.finish(); status != http.StatusOK || err != nil {
		t.Errorf("the request under way: %d %v", status, err)
	}
	if status := s.wait(); status != 0 {
		t.Errorf("exit %d:\n%s", status, s.stderr.String())
	}
	t.Logf("closed %s after an interrupt", took.Round(time.Millisecond))

	// An interrupt in the middle of a drain: no more waiting for balancers.
	s = p.serve("--drain", "90s")
	s.signal(syscall.SIGTERM)
	until(t, "readyz says no", func() bool { return s.get(s.url+"/readyz").status == http.StatusServiceUnavailable })
	s.signal(syscall.SIGINT)
	if status := s.wait(); status != 0 {
		t.Errorf("exit %d:\n%s", status, s.stderr.String())
	}

	// Who is inside too long is cut off, and the exit status says so.
	s = p.serve("--drain", "50ms")
	s.slowPost("/token", form, basic("nightly", secret))
	s.signal(syscall.SIGINT)
	if status := s.wait(); status != exitFailed || !strings.Contains(s.stderr.String(), "cut off") {
		t.Errorf("exit %d:\n%s", status, s.stderr.String())
	}
}

// writeCertificate makes a certificate with that serial number.
func (p *place) writeCertificate(serial int64) {
	p.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // RSA, so that old key exchanges could be agreed on
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "login.example.com"}, DNSNames: []string{"login.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	p.write("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func TestServeReloads(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.writeCertificate(1)
	p.write("signet.yaml", "trusted-proxy: [192.0.2.0/24]\n")
	s := p.serve("--issuer", "https://login.example.com", "--config", "signet.yaml", "--tls-cert", "tls.crt", "--tls-key", "tls.key")
	serial := func() int64 {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	// address is whom the server takes a request to come from.
	address := func() string {
		id := s.get(s.url+"/nowhere", "X-Forwarded-For", "203.0.113.9").header.Get("X-Request-Id")
		line := regexp.MustCompile(`.*"request_id":"` + id + `".*"address":"(.*?)"`)
		until(t, "the request is in the log", func() bool { return line.MatchString(s.stderr.String()) })
		return line.FindStringSubmatch(s.stderr.String())[1]
	}
	reloads := 0
	reload := func(says string) {
		t.Helper()
		reloads = strings.Count(s.stderr.String(), says)
		s.signal(syscall.SIGHUP)
		until(t, says, func() bool { return strings.Count(s.stderr.String(), says) > reloads })
	}
	const taken, refused = "configuration read again", "configuration not taken over"
	want := func(wantSerial int64, wantAddress string) {
		t.Helper()
		if n, a := serial(), address(); n != wantSerial || a != wantAddress {
			t.Errorf("certificate %d, address %s; want %d, %s", n, a, wantSerial, wantAddress)
		}
	}
	want(1, "127.0.0.1")

	p.writeCertificate(2)
	p.write("signet.yaml", "trusted-proxy: [127.0.0.0/8]\nlog-level: debug\n")
	healthy := s.get(s.url + "/livez").header.Get("X-Request-Id")
	want(1, "127.0.0.1")
	reload(taken)
	want(2, "203.0.113.9")
	debugged := s.get(s.url + "/livez").header.Get("X-Request-Id")
	until(t, "a health check is in the log", func() bool { return strings.Contains(s.stderr.String(), debugged) })
	if strings.Contains(s.stderr.String(), healthy) {
		t.Error("a health check is in the log at level info")
	}

	// A fault anywhere leaves everything as it was.
	p.writeCertificate(3)
	p.write("signet.yaml", "trusted-proxy: [everywhere]\n")
	reload(refused)
	want(2, "203.0.113.9")
	p.write("signet.yaml", "trusted-proxy: [192.0.2.0/24]\n")
	p.write("tls.key", "torn")
	reload(refused)
	want(2, "203.0.113.9")
	p.write("signet.yaml", "trusted-prox: [192.0.2.0/24]\n")
	reload(refused)
	want(2, "203.0.113.9")

	p.writeCertificate(4)
	p.write("signet.yaml", "")
	reload(taken)
	want(4, "127.0.0.1")
}

// BCP 195 (RFC 9325 §3.1.1, §4.1).
func TestServeSpeaksOnlyGoodTLS(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.writeCertificate(1)
	s := p.serve("--issuer", "https://login.example.com", "--tls-cert", "tls.crt", "--tls-key", "tls.key")
	tests := []struct {
		name     string
		min, max uint16
		suites   []uint16
		ok       bool
	}{
		{"TLS 1.3", tls.VersionTLS13, tls.VersionTLS13, nil, true},
		{"TLS 1.2", tls.VersionTLS12, tls.VersionTLS12, nil, true},
		{"TLS 1.2, forward secret and authenticated", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, true},
		{"TLS 1.1", tls.VersionTLS10, tls.VersionTLS11, nil, false},
		{"TLS 1.0", tls.VersionTLS10, tls.VersionTLS10, nil, false},
		{"RSA key exchange", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_CBC_SHA}, false},
		{"3DES", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}, false},
		{"RC4", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA}, false},
	}
	for _, test := range tests {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"),
			&tls.Config{InsecureSkipVerify: true, MinVersion: test.min, MaxVersion: test.max, CipherSuites: test.suites})
		if err == nil {
			conn.Close()
		}
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if h := s.get(s.url + "/livez").header.Get("Strict-Transport-Security"); !strings.Contains(h, "max-age=") {
		t.Errorf("Strict-Transport-Security: %q", h)
	}
}

// What serve cannot work with it refuses, and says what to do.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	serve := `signet serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --issuer ` + someIssuer
	refuses := func(t *testing.T, p *place, status int, line string, says ...string) {
		t.Helper()
		out, errs, got := p.run(line)
		if got != status || out != "" {
			t.Errorf("$ %s\n%s%s[exit %d], want exit %d", line, out, errs, got, status)
		}
		for _, s := range says {
			if !strings.Contains(errs, s) {
				t.Errorf("$ %s: no word of %q in\n%s", line, s, errs)
			}
		}
	}
	t.Run("what is wrong with SQLite's files", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		p.must(`signet client create --name A --id a --grant client_credentials`)
		p.must(`chmod 644 data/signet.kek`)
		refuses(t, p, exitUnavailable, serve, "0644", "chmod 600")
		p.must(`chmod 600 data/signet.kek`)
		p.write("other", newKEK())
		refuses(t, p, exitUnavailable, serve+` --kek-file other`, "wrong key-encryption key", "--kek-file")
		p.must(`mv data/signet.kek kept`)
		refuses(t, p, exitUnavailable, serve, "signet.kek", "put back the file")
		p.must(`mv kept data/signet.kek`)
	})
	t.Run("what is wrong with PostgreSQL", func(t *testing.T) {
		t.Parallel()
		address := storagetest.EmptyPostgres(t)
		p := newPostgresPlace(t, address)
		refuses(t, p, exitUnavailable, serve, "version 0", "signet migrate up")
		s := p.serve("--migrate")
		s.signal(syscall.SIGTERM)
		p.write("other", newKEK())
		refuses(t, p, exitUnavailable, serve+` --kek-file other`, "wrong key-encryption key", "--kek-file")
		db, err := postgres.DB(address)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`); err != nil {
			t.Fatal(err)
		}
		refuses(t, p, exitUnavailable, serve, "newer")
		refuses(t, p, exitUnavailable, serve+` --migrate`, "newer")
		refuses(t, p, exitUnavailable, serve+` --database postgres://u:find-me@127.0.0.1:1/db`, "--database")
	})
	t.Run("a schema that is newer, on SQLite", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		p.must(`signet migrate up`)
		db := p.openSQLite()
		if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
			t.Fatal(err)
		}
		refuses(t, p, exitUnavailable, serve, "newer")
	})
	t.Run("an address that is taken", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refuses(t, p, exitFailed, serve+` --listen `+l.Addr().String(), l.Addr().String(), "--listen")
		refuses(t, p, exitFailed, serve+` --admin-listen `+l.Addr().String(), l.Addr().String(), "--admin-listen")
	})
	t.Run("every mistake, wherever it was made", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		refuses(t, p, exitUsage, `signet serve --issuer http://login.example.com --listen nonsense --drain soon --tls-cert no.crt --log-level loud`,
			"--issuer", "--listen", "--drain", "--tls-cert", "--tls-key", "--log-level")
		refuses(t, p, exitUsage, `SIGNET_ISSUER=ftp://x SIGNET_LISTEN=nonsense SIGNET_MIGRATE=perhaps SIGNET_TRUSTED_PROXY=10.0.0.0/33 signet serve`,
			"issuer", "listen", "SIGNET_MIGRATE", "trusted-proxy")
		p.write("bad.yaml", "issuer: login.example.com\nlissten: 127.0.0.1:1\ndrain: [1s]\noutbound-allow: [nowhere]\n")
		refuses(t, p, exitUsage, `signet serve --config bad.yaml`, "issuer", "lissten", "drain", "outbound-allow")
		p.write("one.yaml", "trusted-proxy: [here]\n")
		refuses(t, p, exitUsage, `SIGNET_DRAIN=soon signet serve --config one.yaml --issuer login.example.com`, "--issuer", "drain", "trusted-proxy")
		refuses(t, p, exitUsage, `signet serve`, "--issuer")
		if out, _, _ := p.run(`ls data`); out != "" {
			t.Errorf("a refused start made %s", out)
		}
	})
}

// Commands change the database that a server works on: it notices.
func TestCommandsWhileServing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, p *place) {
		s := p.serve(behindProxy)
		slowest := time.Duration(0)
		noticed := func(what string, ok func() bool) {
			t.Helper()
			took := until(t, what, ok)
			slowest = max(slowest, took)
			t.Logf("%-32s after %3d ms", what, took.Milliseconds())
		}
		answers := func(status int, id, secret, scope string) func() bool {
			return func() bool { return s.token(id, secret, scope).status == status }
		}
		first := s.token("nightly", "guess", "")
		if first.status != http.StatusUnauthorized {
			t.Fatalf("before there is a client: %s", first)
		}
		secret := p.furnish("nightly")
		noticed("client created", answers(200, "nightly", secret, "invoices:read"))
		p.must(`signet client disable nightly`)
		noticed("client disabled", answers(401, "nightly", secret, "invoices:read"))
		p.must(`signet client enable nightly`)
		noticed("client enabled", answers(200, "nightly", secret, "invoices:read"))

		second := decode[shownOnce](p, `signet client rotate-secret nightly --json`).ClientSecret
		noticed("secret rotated: new one", answers(200, "nightly", second, ""))
		if r := s.token("nightly", secret, ""); r.status != 200 {
			t.Errorf("the old secret, in the overlap: %s", r)
		}
		third := decode[shownOnce](p, `signet client rotate-secret nightly --overlap 0s --json`).ClientSecret
		noticed("secret rotated: no overlap", answers(401, "nightly", second, ""))
		noticed("secret rotated: the third", answers(200, "nightly", third, ""))
		secret = third

		p.must(`signet resource update ` + invoices + ` --scope invoices:read --scope invoices:write=accounting --scope invoices:void`)
		p.must(`signet client update nightly --scope invoices:read --scope invoices:write --scope invoices:void`)
		noticed("scope added", answers(200, "nightly", secret, "invoices:void"))
		if r := s.token("nightly", secret, "invoices:write"); r.member("error") != "invalid_scope" {
			t.Errorf("scope whose role it lacks: %s", r)
		}

		p.must(`signet client update nightly --role accounting`)
		noticed("role given", answers(200, "nightly", secret, "invoices:write"))
		granted := s.token("nightly", secret, "invoices:write").member("access_token")
		if !s.active("nightly", secret, granted) {
			t.Error("a token with the role is not active")
		}
		p.write("token", granted)
		var tokenOfRole inspection
		inspect := func(revoked bool) {
			t.Helper()
			tokenOfRole = decode[inspection](p, `signet token inspect --json < token || test $? = 1`)
			if tokenOfRole.Signature != signatureValid || tokenOfRole.Revoked == nil || *tokenOfRole.Revoked != revoked {
				t.Errorf("inspected: %s, revoked %v; want %v", tokenOfRole.Signature, tokenOfRole.Revoked, revoked)
			}
		}
		inspect(false)
		p.must(`signet client update nightly --role ""`)
		noticed("role revoked, at introspection", func() bool { return !s.active("nightly", secret, granted) })
		inspect(true)
		noticed("role revoked, at the token endpoint", answers(400, "nightly", secret, "invoices:write"))

		keys := p.keyIDs()
		var set jose.JSONWebKeySet
		if err := json.Unmarshal([]byte(s.get(s.url+"/jwks").body), &set); err != nil {
			t.Fatal(err)
		}
		for _, kid := range keys {
			if len(set.Key(kid)) != 1 {
				t.Errorf("key %s is not in the JWK Set", kid)
			}
		}
		if len(keys) != 10 || len(set.Keys) != 10 { // four algorithms and the feed, each with its next
			t.Errorf("%d keys listed, %d published", len(keys), len(set.Keys))
		}
		p.must(`signet client delete nightly`)
		noticed("client deleted", answers(401, "nightly", secret, ""))
		t.Logf("slowest: %d ms", slowest.Milliseconds())
	})
}

// Libraries that others wrote, against the program as it is shipped.
func TestClientLibraries(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, p *place) {
		secret := p.furnish("nightly")
		s := p.serveNamed()
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, s.http)
		config := clientcredentials.Config{
			ClientID: "nightly", ClientSecret: secret, TokenURL: s.issuer + "/token",
			Scopes: []string{"invoices:read"}, EndpointParams: url.Values{"resource": {invoices}},
		}
		token, err := config.Token(ctx)
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := oidc.NewProvider(oidc.ClientContext(ctx, s.http), s.issuer)
		if err != nil {
			t.Fatal(err)
		}
		verifier := issuer.Verifier(&oidc.Config{ClientID: invoices, SupportedSigningAlgs: []string{oidc.ES256}})
		verified, err := verifier.Verify(ctx, token.AccessToken)
		if err != nil || verified.Subject != "nightly" || !slices.Equal(verified.Audience, []string{invoices}) {
			t.Errorf("go-oidc: %+v, %v", verified, err)
		}
		if _, err := issuer.Verifier(&oidc.Config{ClientID: "https://other.example", SupportedSigningAlgs: []string{oidc.ES256}}).Verify(ctx, token.AccessToken); err == nil {
			t.Error("verified for another audience")
		}
		config.ClientSecret = "sgs_wrong"
		var refused *oauth2.RetrieveError
		if _, err := config.Token(ctx); !errors.As(err, &refused) || refused.ErrorCode != "invalid_client" {
			t.Errorf("wrong secret: %v", err)
		}

		// The key set is remembered: verification goes on without the provider.
		s.signal(syscall.SIGTERM)
		s.signal(syscall.SIGINT)
		s.wait()
		if _, err := verifier.Verify(ctx, token.AccessToken); err != nil {
			t.Errorf("with the provider stopped: %v", err)
		}
	})
}

// However many processes migrate at once, the schema is made once.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	migrate := func(t *testing.T, p *place) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if out, errs, status := p.run(`signet migrate up --json`); status != 0 {
					t.Errorf("exit %d: %s%s", status, out, errs)
				}
			})
		}
		all.Wait()
		if m := decode[migrationJSON](p, `signet migrate status --json`); m.Current != m.Target || m.Current == 0 || len(m.Pending) != 0 {
			t.Errorf("schema: %+v", m)
		}
		p.furnish("nightly")
	}
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		migrate(t, newPlace(t))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		migrate(t, newPostgresPlace(t, storagetest.EmptyPostgres(t)))
	})
}

// Replicas that start for the first time at once agree on one set of keys,
// and each accepts what another issued.
func TestFirstStartsAtOnce(t *testing.T) {
	t.Parallel()
	const replicas = 3
	p := newPostgresPlace(t, storagetest.EmptyPostgres(t))
	var servers [replicas]*server
	var all sync.WaitGroup
	for i := range replicas {
		all.Go(func() { servers[i] = p.tryServe("--migrate") })
	}
	all.Wait()
	if slices.Contains(servers[:], nil) {
		t.Fatal("not all started")
	}
	if keys := p.keyIDs(); len(keys) != 10 {
		t.Errorf("%d keys, want two for each of four algorithms and the feed: %v", len(keys), keys)
	}
	secret := p.furnish("nightly")
	for i, s := range servers {
		if a, b := s.get(s.url+"/jwks"), servers[0].get(servers[0].url+"/jwks"); a.body != b.body || a.header.Get("ETag") != b.header.Get("ETag") {
			t.Errorf("replica %d publishes other keys", i)
		}
		until(t, "the client is known", func() bool { return s.token("nightly", secret, "").status == 200 })
		token := s.token("nightly", secret, "invoices:read").member("access_token")
		for _, other := range servers {
			if !other.active("nightly", secret, token) {
				t.Errorf("a token of replica %d is not active at another", i)
			}
		}
	}
}
