package proof

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// patience is how long a test waits for what takes moments on an idle machine.
const patience = time.Minute

const (
	onSQLite   = "SQLite"
	onPostgres = "PostgreSQL"
)

// deployment is a database and the servers that run over it.
type deployment struct {
	t      *testing.T
	engine string
	issuer string
	binary string
	dir    string   // where the processes run
	env    []string // of every process
	args   []string // of every server

	// noted is told of each answer that a client got, and when it had asked.
	noted     func(asked time.Time, res *http.Response)
	addresses map[string]*http.Transport // connections to servers, by their address
	started   atomic.Int32

	mu  sync.Mutex
	all []*server // those that answer
}

// onBoth runs a test on a deployment on each database.
func onBoth(t *testing.T, test func(t *testing.T, d *deployment), options ...func(*deployment)) {
	t.Helper()
	for _, engine := range []string{onSQLite, onPostgres} {
		t.Run(engine, func(t *testing.T) { test(t, newDeployment(t, engine, options...)) })
	}
}

// faulty makes a deployment one of the program that is built with failpoints.
func faulty(d *deployment) {
	var err error
	if d.binary, err = withTag(); err != nil {
		d.t.Fatal(err)
	}
}

// over makes a deployment one over a PostgreSQL of the test's own, which it has
// to migrate.
func over(address string) func(*deployment) {
	return func(d *deployment) {
		d.engine = onPostgres
		d.env = append(d.env, "SIGNET_DATABASE="+address)
	}
}

func newDeployment(t *testing.T, engine string, options ...func(*deployment)) *deployment {
	t.Helper()
	binary, err := ordinary()
	if err != nil {
		t.Fatal(err)
	}
	d := &deployment{t: t, engine: engine, binary: binary, dir: t.TempDir(), addresses: make(map[string]*http.Transport)}
	// Each request says where it comes from, so that refusals which a test
	// provokes on purpose do not slow down the next.
	d.args = []string{"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--trusted-proxy", "127.0.0.1/32"}
	var kek [32]byte
	_, _ = rand.Read(kek[:])
	d.write("kek", base64.StdEncoding.EncodeToString(kek[:]))
	d.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "LC_ALL=C.UTF-8", "GORACE=halt_on_error=1",
		"SIGNET_KEK_FILE=kek", "SIGNET_DATA=" + filepath.Join(d.dir, "data")}
	if engine == onPostgres {
		d.env = append(d.env, "SIGNET_DATABASE="+storagetest.Postgres(t))
	}
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", r.In.Host, r.In.Host
			r.Out.Header.Set("X-Forwarded-For", someAddress())
		},
		Transport:     d.to(nil),
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // that servers die is the point
	})
	t.Cleanup(front.Close)
	d.issuer = front.URL
	d.env = append(d.env, "SIGNET_ISSUER="+d.issuer)
	for _, o := range options {
		o(d)
	}
	t.Cleanup(d.judgeLogs)
	return d
}

// judgeLogs fails the test for what no server may ever do.
func (d *deployment) judgeLogs() {
	for _, transport := range d.addresses {
		transport.CloseIdleConnections()
	}
	for name, text := range d.logs() {
		for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
			if i := strings.Index(text, bad); i >= 0 {
				d.t.Errorf("%s has %q: %s", name, bad, text[i:min(len(text), i+4000)])
			}
		}
	}
}

// logs returns what each server has written to standard error, by its name.
func (d *deployment) logs() map[string]string {
	files, err := filepath.Glob(filepath.Join(d.dir, "*.log"))
	if err != nil {
		d.t.Fatal(err)
	}
	all := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			d.t.Fatal(err)
		}
		all[filepath.Base(file)] = string(text)
	}
	return all
}

// replicas is how many servers may run over the database.
func (d *deployment) replicas() int {
	if d.engine == onPostgres {
		return 3
	}
	return 1
}

func (d *deployment) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// signet runs a command of the program, which has to succeed, and returns what
// it writes to standard output. input is its standard input.
func (d *deployment) signet(input string, args ...string) string {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.binary, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = d.dir, d.env, strings.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil {
		d.t.Fatalf("signet %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// signetJSON is signet for what the command tells as JSON.
func signetJSON[T any](d *deployment, args ...string) T {
	d.t.Helper()
	var v T
	out := d.signet("", append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		d.t.Fatalf("signet %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return v
}

// server is a running `signet serve`.
type server struct {
	d             *deployment
	pid           int
	public, admin string        // where it listens
	log           string        // the file it writes its log to
	birth         time.Duration // from its start until it was ready

	process *os.Process
	ended   chan struct{} // closed once it has
	state   *os.ProcessState
}

// start starts n servers and waits until they are ready.
func (d *deployment) start(n int, env ...string) []*server {
	d.t.Helper()
	servers := make([]*server, n)
	for i := range servers {
		var err error
		if servers[i], err = d.launch(env...); err != nil {
			d.t.Fatal(err)
		}
	}
	return servers
}

// launch starts a server, with variables besides those of every process. It
// ends with the test. For any goroutine.
func (d *deployment) launch(env ...string) (*server, error) {
	logfile, err := os.Create(filepath.Join(d.dir, fmt.Sprintf("server-%d.log", d.started.Add(1))))
	if err != nil {
		return nil, err
	}
	defer logfile.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(d.binary, append([]string{"serve"}, d.args...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = d.dir, slices.Concat(d.env, env), stdout, logfile
	began, birth := make(chan error), time.Now()
	s := &server{d: d, log: logfile.Name(), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		err := cmd.Start()
		stdout.Close()
		began <- err
		if err == nil {
			_ = cmd.Wait() // its status is in ProcessState
			s.state = cmd.ProcessState
			d.forget(s)
		}
	}()
	if err := <-began; err != nil {
		return nil, err
	}
	s.process, s.pid = cmd.Process, cmd.Process.Pid
	d.t.Cleanup(s.kill)
	var ready struct {
		Event, Issuer, Listen string
		AdminListen           string `json:"admin_listen"`
		PID                   int
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil || ready.Event != "ready" || ready.PID != s.pid || ready.Issuer != d.issuer {
		s.kill()
		text, _ := os.ReadFile(s.log)
		return nil, fmt.Errorf("it is not ready: %q, %w\n%s", line, err, text)
	}
	s.public, s.admin, s.birth = ready.Listen, ready.AdminListen, time.Since(birth)
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-s.ended: // already
	default:
		d.all = append(d.all, s)
	}
	return s, nil
}

func (d *deployment) forget(s *server) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = slices.DeleteFunc(d.all, func(other *server) bool { return other == s })
	if transport := d.addresses[s.public]; transport != nil {
		transport.CloseIdleConnections()
		delete(d.addresses, s.public)
	}
}

// servers returns those that are up.
func (d *deployment) servers() []*server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// kill ends the server as a crash does, and waits for its end.
func (s *server) kill() { s.end(syscall.SIGKILL) }

// end sends the server a signal and waits for its end.
func (s *server) end(sig syscall.Signal) {
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.d.t.Error(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.d.t.Errorf("process %d does not end", s.pid)
	}
}

// keep runs n servers and starts another in place of each that ends, until
// stop is called; those that are up then stay up. arm says where the next is to
// die: at a failpoint, or so long after it is ready; buried is told of each
// that has.
func (d *deployment) keep(n int, arm func() (failpoint string, after time.Duration), buried func(*server)) (stop func()) {
	done := make(chan struct{})
	var keepers sync.WaitGroup
	for range n {
		keepers.Go(func() {
			for failures := 0; failures < 10; {
				failpoint, after := arm()
				s, err := d.launch("SIGNET_FAILPOINT=" + failpoint)
				if err != nil {
					failures++
					d.t.Log(err)
					continue
				}
				failures = 0
				var kill <-chan time.Time
				if failpoint == "" {
					kill = time.After(after)
				}
				select {
				case <-done:
					return
				case <-kill:
					s.kill()
				case <-s.ended:
				}
				buried(s)
			}
			d.t.Error("a server does not start any more")
		})
	}
	return func() {
		close(done)
		keepers.Wait()
	}
}

// errDown says that a request was not sent, because nobody is there to take it.
var errDown = fmt.Errorf("no server is up: %w", siege.ErrNotSent)

// to carries requests for the issuer to a server: the one that at is, or any
// that is up when it is nil. They arrive as a proxy would send them.
func (d *deployment) to(at *server) http.RoundTripper { return route{d, at} }

// each returns to for every server that is up.
func (d *deployment) each() (ways []http.RoundTripper) {
	for _, s := range d.servers() {
		ways = append(ways, d.to(s))
	}
	return ways
}

type route struct {
	d  *deployment
	at *server
}

// RoundTrip implements http.RoundTripper.
func (r route) RoundTrip(req *http.Request) (*http.Response, error) {
	d := r.d
	d.mu.Lock()
	s := r.at
	if s == nil && len(d.all) > 0 {
		s = d.all[mrand.IntN(len(d.all))]
	}
	var transport *http.Transport
	if s != nil {
		if transport = d.addresses[s.public]; transport == nil {
			transport = &http.Transport{MaxIdleConnsPerHost: 64, DialContext: (&net.Dialer{}).DialContext}
			d.addresses[s.public] = transport
		}
	}
	d.mu.Unlock()
	if s == nil {
		return nil, errDown
	}
	sent := req.Clone(req.Context())
	sent.Host = req.URL.Host
	sent.URL.Scheme, sent.URL.Host = "http", s.public
	if sent.Header.Get("X-Forwarded-For") == "" {
		sent.Header.Set("X-Forwarded-For", someAddress())
	}
	asked := time.Now()
	res, err := transport.RoundTrip(sent)
	if res != nil && d.noted != nil {
		d.noted(asked, res)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("%w: %w", errDown, err)
	}
	if res != nil {
		res.Request = req
	}
	return res, err
}

// someAddress is an address for a client to come from.
func someAddress() string {
	return fmt.Sprintf("198.18.%d.%d", mrand.IntN(256), mrand.IntN(256))
}

// send sends a request for a path below the issuer, to at or to any server. The
// error is of the connection: whether it took effect is then unknown, unless
// the error is errDown. header holds names and values in turn.
func (d *deployment) send(at *server, method, path string, form url.Values, header ...string) (people.Reply, error) {
	return people.Send(d.to(at), method, d.issuer+path, form, header...)
}

// until waits until something comes true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
