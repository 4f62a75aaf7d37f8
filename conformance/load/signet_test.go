package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/storage/storagetest"
)

// asLoad makes this test's binary the command itself.
const asLoad = "LOAD_TEST_IS_THE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asLoad) != "" {
		main()
	}
	os.Exit(storagetest.Main(m))
}

// served is a running signet, as a user starts it.
type served struct {
	issuer, dir string
	pid         int
	env         []string
}

// serve runs the program over a database; "" is a SQLite file. It stands behind
// a proxy, because the issuer has to be known before a port is.
func serve(t *testing.T, binary, database string) served {
	t.Helper()
	front := httptest.NewUnstartedServer(nil)
	s := served{issuer: "http://" + front.Listener.Addr().String(), dir: t.TempDir()}
	s.env = append(os.Environ(), "SIGNET_DATA="+s.dir, "SIGNET_ISSUER="+s.issuer, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), asLoad+"=1")
	if database != "" {
		kek := filepath.Join(s.dir, "key")
		if err := os.WriteFile(kek, []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))), 0o600); err != nil {
			t.Fatal(err)
		}
		s.env = append(s.env, "SIGNET_DATABASE="+database, "SIGNET_KEK_FILE="+kek)
	}
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	var log bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = s.dir, s.env, &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("signet serve: %v\n%s", err, log.String())
		}
	})
	s.pid = cmd.Process.Pid
	var ready struct{ Listen string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		t.Fatalf("signet serve: %v", err)
	}
	front.Config.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: ready.Listen})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true},
	}
	front.Start()
	t.Cleanup(front.Close)
	return s
}

// The example of --help works as printed, and with what it made every workload
// runs against the program, on both databases.
func TestSignet(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "signet")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/signet").CombinedOutput(); err != nil {
		t.Fatalf("build signet: %v\n%s", err, out)
	}
	_, example, found := strings.Cut(usage, "same database:\n\n")
	example, _, found2 := strings.Cut(example, "\n\n")
	if !found || !found2 {
		t.Fatal("--help has no example")
	}
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			database := ""
			if engine == "postgres" {
				database = storagetest.Postgres(t)
			}
			s := serve(t, binary, database)
			short := " --concurrency 3 --warmup 0s --duration 500ms" // what begins at once counts, however busy the machine is
			script := "set -e\n" + strings.NewReplacer(
				"go run ./conformance/load", self, "http://localhost:8080", s.issuer, "$(pgrep -x signet)", strconv.Itoa(s.pid)).Replace(example) + short
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir, cmd.Env = s.dir, s.env
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "requests/s") || !strings.Contains(string(out), "ID token                 RS256") {
				t.Fatalf("%v\n%s", err, out)
			}
			args := func(w workload, more ...string) []string {
				all := []string{"--issuer", s.issuer, "--workload", w.name, "--client-id", "load", "--client-secret-file", filepath.Join(s.dir, "load.secret"),
					"--user", "load", "--password-file", filepath.Join(s.dir, "load.password"), "--redirect-uri", "https://load.example/cb",
					"--pid", strconv.Itoa(s.pid)}
				if w.needs == aClient {
					all = append(all, "--scope", "load:run")
				}
				return append(append(all, strings.Fields(short)...), more...)
			}
			for _, w := range workloads() {
				var out, errs bytes.Buffer
				if code := run(t.Context(), args(w), strings.NewReader(""), &out, &errs, func(string) string { return "" }); code != exitOK {
					t.Errorf("%s: exit %d\n%s%s", w.name, code, out.String(), errs.String())
				}
			}
			// What is wrong is said, and counted.
			for name, c := range map[string]struct{ flag, value, want string }{
				"password": {"--password-file", filepath.Join(s.dir, "load.secret"), "name and password are refused"},
				"secret":   {"--client-secret-file", filepath.Join(s.dir, "load.password"), "status 401"},
				"redirect": {"--redirect-uri", "https://load.example/other", "want a redirect from /authorize"},
				"scope":    {"--scope", "openid load:walk", "invalid_scope"},
			} {
				w, _ := findWorkload("code")
				var out, errs bytes.Buffer
				code := run(t.Context(), args(w, c.flag, c.value), strings.NewReader(""), &out, &errs, func(string) string { return "" })
				if code != exitFailed || !strings.Contains(errs.String(), c.want) {
					t.Errorf("wrong %s: exit %d, want %q:\n%s%s", name, code, c.want, out.String(), errs.String())
				}
			}
		})
	}
}
