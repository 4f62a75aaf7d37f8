package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/signet-oidc/signet/storage/storagetest"
)

// newDemoPlace is a place where whatever a demo makes can be seen.
func newDemoPlace(t *testing.T) *place {
	t.Helper()
	p := newPlace(t)
	tmp := filepath.Join(p.dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	p.vars = append(p.vars, "TMPDIR="+tmp)
	return p
}

// left lists what is in the place beside what the test put there.
func (p *place) left() (names []string) {
	p.t.Helper()
	err := filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
		if name, _ := filepath.Rel(p.dir, path); name != "." && name != "tmp" && name != "token.jwt" {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return names
}

// printed reads what a demo prints to read, and takes out the indented lines:
// those to copy into a shell, one command each.
func (s *process) printed() (text string, commands []string) {
	s.t.Helper()
	for !strings.Contains(text, "token inspect") {
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%v after:\n%s\n%s", err, text, s.stderr.String())
		}
		text += line
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case !indented:
		case len(commands) > 0 && strings.HasSuffix(commands[len(commands)-1], "\\\n"):
			commands[len(commands)-1] += code
		default:
			commands = append(commands, code)
		}
	}
	return text, commands
}

// The demo as it is printed: every line does what the text above it says.
func TestDemo(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	s := p.begin("demo")
	text, commands := s.printed()
	const between = "\n~~~ next ~~~\n"
	out, errs, status := p.run("set -e\n" + strings.Join(commands, "printf '"+strings.ReplaceAll(between, "\n", `\n`)+"'\n"))
	answers := strings.Split(out, between)
	want := []struct{ command, answer string }{
		{"TOKEN=", `^$`},
		{"Lamp", `^\{"id":.*"item":"Lamp".*\}\s*$`},
		{"/orders -H", `"item":"Lamp"`},
		{"/reports/summary", `(?s)^HTTP/1.1 403 .*Www-Authenticate: Bearer [^\n]*error="insufficient_scope"`},
		{"scope=orders:report", `"error":"invalid_scope"`},
		{"token inspect", `(?s)signature +valid.*at\+jwt.*orders:read orders:write`},
	}
	if status != 0 || len(answers) != len(want) || len(commands) != len(want) {
		t.Fatalf("exit %d, %d commands, %d answers:\n%s\n%s\n%s", status, len(commands), len(answers), text, out, errs)
	}
	for i, w := range want {
		if !strings.Contains(commands[i], w.command) || !regexp.MustCompile(w.answer).MatchString(answers[i]) {
			t.Errorf("$ %s%s\nwant %s and %s", commands[i], answers[i], w.command, w.answer)
		}
	}
	if len(p.left()) == 0 {
		t.Error("the demo's folder is not where the test looks for it")
	}
	s.ends(p, syscall.SIGINT, "")
}

// ends ends a demo and sees that nothing of it is left.
func (s *process) ends(p *place, sig syscall.Signal, api string) {
	s.t.Helper()
	s.signal(sig)
	if status := s.wait(); status != 0 {
		s.t.Errorf("exit %d after %s:\n%s", status, sig, s.stderr.String())
	}
	if left := p.left(); len(left) > 0 {
		s.t.Errorf("left behind after %s: %v", sig, left)
	}
	if api != "" {
		if _, err := http.Get(api + "/livez"); err == nil {
			s.t.Error("the API still answers")
		}
	}
}

func TestDemoForScripts(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	s := p.begin("demo", "--port", "0", "--json")
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, s.stderr.String())
	}
	var d demo
	if err := json.Unmarshal(line, &d); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	res, err := http.PostForm(d.Issuer+"/token", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	provider := &server{process: s, url: d.Issuer, http: http.DefaultClient}
	token := provider.token(d.Service.ClientID, d.Service.ClientSecret, "orders:read")
	if token.status != http.StatusOK {
		t.Fatalf("token: %s", token)
	}
	if r := provider.get(d.OrdersURL+"/orders", "Authorization", "Bearer "+token.member("access_token")); r.status != http.StatusOK {
		t.Errorf("orders: %s", r)
	}
	if u, err := url.Parse(d.Issuer); err != nil || u.Hostname() != "localhost" {
		t.Errorf("issuer %s", d.Issuer)
	}
	s.ends(p, syscall.SIGTERM, d.OrdersURL)
}

// A port that is taken is named, and another used: the provider's and the API's.
func TestDemoWhereThePortsAreTaken(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	first, l := neighbours(t)
	defer first.Close()
	defer l.Close()
	port, api := first.Addr().(*net.TCPAddr).Port, l.Addr().(*net.TCPAddr).Port
	s := p.begin("demo", "--json", "--port", strconv.Itoa(port))
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, s.stderr.String())
	}
	var d demo
	if err := json.Unmarshal(line, &d); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for _, taken := range []struct {
		port int
		url  string
	}{{port, d.Issuer}, {api, d.OrdersURL}} {
		u, err := url.Parse(taken.url)
		says := "Port " + strconv.Itoa(taken.port) + " is taken; using " + u.Port() + " instead."
		if err != nil || u.Port() == strconv.Itoa(taken.port) || !strings.Contains(s.stderr.String(), says) {
			t.Errorf("%s: no word of %q in\n%s", taken.url, says, s.stderr.String())
		}
		res, err := http.Get(taken.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s/readyz: %d", taken.url, res.StatusCode)
		}
	}
	s.ends(p, syscall.SIGTERM, d.OrdersURL)
}

// "localhost" is an address of either family: a port that only the other one's
// has is as taken, for a client may try that one first.
func TestDemoWhereTheOtherFamilyHasThePort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Logf("no IPv6 here, so nothing can be in the way: %v", err)
		return
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	p := newDemoPlace(t)
	s := p.begin("demo", "--json", "--port", strconv.Itoa(port))
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, s.stderr.String())
	}
	if strings.Contains(string(line), "localhost:"+strconv.Itoa(port)) || !strings.Contains(s.stderr.String(), "is taken") {
		t.Errorf("%s%s", line, s.stderr.String())
	}
	s.ends(p, syscall.SIGTERM, "")
}

// neighbours listens on two ports that are ten apart, as the demo's are.
func neighbours(t *testing.T) (a, b net.Listener) {
	t.Helper()
	for range 100 {
		a, err := net.Listen("tcp", freeAddress(t))
		if err != nil {
			continue
		}
		b, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Addr().(*net.TCPAddr).Port+10)))
		if err == nil {
			return a, b
		}
		a.Close()
	}
	t.Fatal("no two free ports")
	return nil, nil
}

// A demo is its own: settings of a real server in the environment do not
// reach it, and it does not reach that server's data.
func TestDemoLeavesTheRealServerAlone(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	address := storagetest.EmptyPostgres(t)
	p.vars = append(p.vars, "SIGNET_DATABASE="+address, "SIGNET_ISSUER=https://login.example.com", "SIGNET_KEK="+newKEK())
	s := p.begin("demo", "--port", "0", "--json")
	line, err := s.stdout.ReadBytes('\n')
	var d demo
	if err := json.Unmarshal(line, &d); err != nil || !strings.HasPrefix(d.Issuer, "http://localhost:") {
		t.Errorf("%s: %v", line, err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, s.stderr.String())
	}
	s.ends(p, syscall.SIGTERM, d.OrdersURL)
	if m := decode[migrationJSON](p, `signet migrate status --json`); m.Current != 0 {
		t.Errorf("the demo touched the database: %+v", m)
	}
}
