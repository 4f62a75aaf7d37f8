package issuer

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// Build builds the program into a folder and returns where it is.
func Build(dir string) (program string, err error) {
	program = filepath.Join(dir, "signet")
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, "github.com/signet-oidc/signet/cmd/signet")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build signet: %w\n%s", err, bytes.TrimSpace(out))
	}
	return program, nil
}

// Issuer is a running `signet serve`. It ends with the test, and fails it if it
// answered anything with a server error.
type Issuer struct {
	URL     string       // the issuer identifier
	CAFile  string       // PEM, what signed its certificate
	Via     *http.Client // trusts that
	t       *testing.T
	program string
	dir     string
	env     []string
	front   *front
	tls     tls.Certificate
}

// Start runs the program over a PostgreSQL database that is up to date, or with
// "" over a SQLite file. flags are for `signet serve`.
func Start(t *testing.T, program, database string, flags ...string) *Issuer {
	t.Helper()
	return StartUnder(t, "", program, database, flags...)
}

// StartUnder is Start for an issuer whose identifier has a path.
func StartUnder(t *testing.T, path, program, database string, flags ...string) *Issuer {
	t.Helper()
	i := &Issuer{t: t, program: program, dir: t.TempDir()}
	i.CAFile = filepath.Join(i.dir, "ca.pem")
	var roots *x509.CertPool
	i.tls, roots = certify(t, i.CAFile)
	var err error
	if i.front, err = newFront(); err != nil {
		t.Fatal(err)
	}
	// A proxy speaks TLS for the program, as most deployments have it.
	server := httptest.NewUnstartedServer(i.front.handler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{i.tls}}
	i.URL = "https://" + server.Listener.Addr().String() + path
	i.Via = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	var kek [32]byte
	_, _ = rand.Read(kek[:]) // never fails
	i.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + i.dir, "LC_ALL=C.UTF-8", "SSL_CERT_FILE=" + i.CAFile,
		"SIGNET_KEK=" + base64.StdEncoding.EncodeToString(kek[:]), "SIGNET_DATA=" + filepath.Join(i.dir, "data"), "SIGNET_ISSUER=" + i.URL}
	if database != "" {
		i.env = append(i.env, "SIGNET_DATABASE="+database)
	}
	log, err := os.Create(filepath.Join(i.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--drain", "30s",
		"--trusted-proxy", "127.0.0.1/32", "--outbound-allow", "127.0.0.0/8"}, flags...)...)
	cmd.Dir, cmd.Env, cmd.Stderr = i.dir, i.env, log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("signet serve: %v", err)
		}
		i.judgeLog()
	})
	var ready struct{ Issuer, Listen string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil || ready.Issuer != i.URL {
		t.Fatalf("signet serve: %q, %v\n%s", line, err, i.Log())
	}
	i.front.upstream = ready.Listen
	server.StartTLS()
	t.Cleanup(func() {
		i.Via.CloseIdleConnections()
		server.Close()
	})
	return i
}

// Publish serves a site that the issuer's certificate is good for, as long as the
// test takes, and returns its origin.
func (i *Issuer) Publish(site http.Handler) string {
	server := httptest.NewUnstartedServer(site)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{i.tls}}
	server.StartTLS()
	i.t.Cleanup(server.Close)
	return server.URL
}

// Log is what the program has logged.
func (i *Issuer) Log() string {
	text, err := os.ReadFile(filepath.Join(i.dir, "log"))
	if err != nil {
		i.t.Error(err)
	}
	return string(text)
}

var broken = regexp.MustCompile(`.*("status":5\d\d|panic|DATA RACE).*`)

func (i *Issuer) judgeLog() {
	if lines := broken.FindAllString(i.Log(), 5); lines != nil {
		i.t.Errorf("the issuer failed:\n%s", strings.Join(lines, "\n"))
	}
	if i.t.Failed() {
		i.t.Logf("the issuer's log:\n%s", i.Log())
	}
}

// Signet runs a command of the program that tells JSON into a value, nil for
// nowhere.
func (i *Issuer) Signet(into any, args ...string) {
	i.t.Helper()
	cmd := exec.CommandContext(i.t.Context(), i.program, append(args, "--json")...)
	var said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = i.dir, i.env, &said
	out, err := cmd.Output()
	if err == nil && into != nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		i.t.Fatalf("signet %s: %v\n%s%s", strings.Join(args, " "), err, out, said.String())
	}
}

// Client registers a client that people sign in to, with more flags for `signet
// client create`, and returns its secret if it has one. It may ask for openid,
// profile, email and offline_access, and PKCE is demanded of it.
func (i *Issuer) Client(id, redirectURI string, flags ...string) (secret string) {
	i.t.Helper()
	var made struct {
		ClientSecret string `json:"client_secret"`
	}
	i.Signet(&made, append([]string{"client", "create", "--id", id, "--name", id, "--redirect-uri", redirectURI,
		"--grant", "authorization_code", "--grant", "refresh_token",
		"--scope", "openid", "--scope", "profile", "--scope", "email", "--scope", "offline_access"}, flags...)...)
	return made.ClientSecret
}

// Person makes somebody with an account, who chooses a password of their own at
// the first sign-in.
func (i *Issuer) Person(name string) *people.Person {
	i.t.Helper()
	var made struct{ Password string }
	i.Signet(&made, "user", "create", name, "--email", name+"@example.com", "--email-verified", "--generate-password")
	return &people.Person{Name: name, Password: made.Password}
}

// Browser is a person's, in which nobody has signed in. It goes on to apps at
// these origins, and stops where it would have to go anywhere else.
func (i *Issuer) Browser(p *people.Person, apps ...string) *people.Browser {
	b := people.NewBrowser(i.URL, p, i.Via.Transport)
	b.Apps = apps
	return b
}

// FreeAddress returns a loopback address that nobody listens on. It is below
// the ports that outgoing connections take.
func FreeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+mrand.IntN(20_000))))
		if err != nil {
			continue // taken
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}
