package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"

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
	for !strings.Contains(text, "with any port.") {
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
	for i, command := range commands {
		if call, ok := strings.CutPrefix(command, "sleep 1; "); ok { // a busy machine may take longer
			commands[i] = "for i in $(seq 100); do answer=$(" + strings.TrimSpace(call) + "); case $answer in 'HTTP/1.1 401 '*) break;; esac; sleep 0.2; done; echo \"$answer\" # " + command
		}
	}
	const between = "\n~~~ next ~~~\n"
	out, errs, status := p.run("set -e\n" + strings.Join(commands, "printf '"+strings.ReplaceAll(between, "\n", `\n`)+"'\n"))
	answers := strings.Split(out, between)
	want := []struct{ command, answer string }{
		{"token()", `^$`},
		{"TOKEN=", `^$`},
		{"Lamp", `^\{"id":.*"item":"Lamp".*\}\s*$`},
		{"/orders -H", `"item":"Lamp"`},
		{"/reports/summary", `(?s)^HTTP/1.1 403 .*Www-Authenticate: Bearer [^\n]*error="insufficient_scope"`},
		{"scope=orders:report", `"error":"invalid_scope"`},
		{"token inspect", `(?s)signature +valid.*at\+jwt.*orders:read orders:write`},
		{"demo()", `^$`},
		{"revoke --client", `^Revoked: `},
		{"sleep 1; ", `(?s)^HTTP/1.1 401 .*Www-Authenticate: Bearer [^\n]*error="invalid_token"`},
		{"TOKEN=", `^$`},
		{"key rotate", `(?s)ES256 +token +retired .*ES256 +token +active `},
		{"/orders -H", `"item":"Lamp"`},
		{"TOKEN=", `^$`},
		{"key compromise", `ES256 +token +compromised `},
		{"sleep 1; ", `(?s)^HTTP/1.1 401 .*Www-Authenticate: Bearer [^\n]*error="invalid_token"`},
	}
	if status != 0 || len(answers) != len(want) || len(commands) != len(want) {
		t.Fatalf("exit %d, %d commands, %d answers:\n%s\n%s\n%s", status, len(commands), len(answers), text, out, errs)
	}
	for i, w := range want {
		if !strings.Contains(commands[i], w.command) || !regexp.MustCompile(w.answer).MatchString(answers[i]) {
			t.Errorf("$ %s%s\nwant %s and %s", commands[i], answers[i], w.command, w.answer)
		}
	}
	for _, address := range regexp.MustCompile(`(?m)^  (?:Shop|Account) +(\S+)$`).FindAllStringSubmatch(text, -1) {
		if res, err := http.Get(address[1]); err != nil {
			t.Error(err)
		} else if res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", address[1], res.StatusCode)
		}
	}
	if len(p.left()) == 0 {
		t.Error("the demo's folder is not where the test looks for it")
	}
	s.ends(p, syscall.SIGINT)
}

// demoJSON reads what a demo prints for scripts.
func (s *process) demoJSON() (d demo) {
	s.t.Helper()
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.stderr.String())
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	return d
}

// ends ends a demo and sees that nothing of it is left.
func (s *process) ends(p *place, sig syscall.Signal, samples ...string) {
	s.t.Helper()
	s.signal(sig)
	if status := s.wait(); status != 0 {
		s.t.Errorf("exit %d after %s:\n%s", status, sig, s.stderr.String())
	}
	if left := p.left(); len(left) > 0 {
		s.t.Errorf("left behind after %s: %v", sig, left)
	}
	for _, url := range samples {
		if _, err := http.Get(url + "/livez"); err == nil {
			s.t.Errorf("%s still answers", url)
		}
	}
}

func TestDemoForScripts(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	s := p.begin("demo", "--port", "0", "--json")
	d := s.demoJSON()
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
	s.ends(p, syscall.SIGTERM, d.OrdersURL, d.StorefrontURL)
}

// A port that is taken is named, and another used: the provider's and the samples'.
func TestDemoWhereThePortsAreTaken(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	port := neighbours(t)
	s := p.begin("demo", "--json", "--port", strconv.Itoa(port))
	d := s.demoJSON()
	for _, taken := range []struct {
		port int
		url  string
	}{{port, d.Issuer}, {port + 10, d.OrdersURL}, {port + 20, d.StorefrontURL}} {
		u, err := url.Parse(taken.url)
		says := "Port " + strconv.Itoa(taken.port) + " is taken; using " + u.Port() + " instead."
		if err != nil || u.Port() == strconv.Itoa(taken.port) {
			t.Errorf("%s is taken", taken.url)
		}
		until(t, says, func() bool { return strings.Contains(s.stderr.String(), says) })
		res, err := http.Get(taken.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s/readyz: %d", taken.url, res.StatusCode)
		}
	}
	s.ends(p, syscall.SIGTERM, d.OrdersURL, d.StorefrontURL)
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
	if d := s.demoJSON(); strings.HasSuffix(d.Issuer, ":"+strconv.Itoa(port)) {
		t.Errorf("%+v", d)
	}
	until(t, "word of it", func() bool { return strings.Contains(s.stderr.String(), "is taken") })
	s.ends(p, syscall.SIGTERM)
}

// neighbours listens on three ports that are ten apart, as the demo's are, and
// returns the first.
func neighbours(t *testing.T) (port int) {
	t.Helper()
	for range 100 {
		address := freeAddress(t)
		var held []net.Listener
		for range 3 {
			l, err := net.Listen("tcp", address)
			if err != nil {
				break
			}
			held = append(held, l)
			address = net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port+10))
		}
		if len(held) == 3 {
			t.Cleanup(func() {
				for _, l := range held {
					l.Close()
				}
			})
			return held[0].Addr().(*net.TCPAddr).Port
		}
		for _, l := range held {
			l.Close()
		}
	}
	t.Fatal("no three free ports")
	return 0
}

// The demo's person signs in with the printed password, which nobody makes them
// change, and a program on this machine gets a token that the API takes.
func TestDemoSignsPeopleIn(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	s := p.begin("demo", "--port", "0", "--json")
	d := s.demoJSON()
	ctx := t.Context()
	found, err := oidc.NewProvider(ctx, d.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	app := oauth2.Config{
		ClientID: d.PublicClientID, Endpoint: found.Endpoint(), RedirectURL: "http://127.0.0.1:49152/callback",
		Scopes: []string{oidc.ScopeOpenID, "profile", oidc.ScopeOfflineAccess, "orders:read"},
	}
	app.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	verifier := oauth2.GenerateVerifier()

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var back *url.URL // where the app gets its answer
	client := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), app.RedirectURL) {
			back = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := client.Get(app.AuthCodeURL("a-state", oauth2.S256ChallengeOption(verifier)))
	for _, answers := range []url.Values{{"username": {d.User.Username}, "password": {d.User.Password}}, {"decision": {"allow"}}} {
		if err != nil {
			t.Fatal(err)
		}
		page, err := html.Parse(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		action, form := formOf(page)
		for name, value := range answers {
			form[name] = value
		}
		at, err := res.Request.URL.Parse(action)
		if err != nil {
			t.Fatal(err)
		}
		res, err = client.PostForm(at.String(), form)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	if back == nil || back.Query().Get("state") != "a-state" || back.Query().Get("code") == "" {
		t.Fatalf("the app got %v; the browser is at %s", back, res.Request.URL)
	}
	token, err := app.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	if _, err := found.VerifierContext(ctx, &oidc.Config{ClientID: d.PublicClientID}).Verify(ctx, raw); err != nil {
		t.Error(err)
	}
	provider := &server{process: s, url: d.Issuer, http: http.DefaultClient}
	if r := provider.get(d.OrdersURL+"/orders", "Authorization", "Bearer "+token.AccessToken); r.status != http.StatusOK {
		t.Errorf("orders: %s", r)
	}
	s.ends(p, syscall.SIGINT, d.OrdersURL, d.StorefrontURL)
}

// formOf returns the page's one form, as a browser would post it.
func formOf(page *html.Node) (action string, fields url.Values) {
	fields = make(url.Values)
	for n := range page.Descendants() {
		of := make(map[string]string)
		for _, a := range n.Attr {
			of[a.Key] = a.Val
		}
		switch n.Data {
		case "form":
			action = of["action"]
		case "input":
			fields.Set(of["name"], of["value"])
		}
	}
	return action, fields
}

// A demo is its own: settings of a real server in the environment do not
// reach it, and it does not reach that server's data.
func TestDemoLeavesTheRealServerAlone(t *testing.T) {
	t.Parallel()
	p := newDemoPlace(t)
	address := storagetest.EmptyPostgres(t)
	p.vars = append(p.vars, "SIGNET_DATABASE="+address, "SIGNET_ISSUER=https://login.example.com", "SIGNET_KEK="+newKEK())
	s := p.begin("demo", "--port", "0", "--json")
	d := s.demoJSON()
	if !strings.HasPrefix(d.Issuer, "http://localhost:") {
		t.Errorf("%+v", d)
	}
	s.ends(p, syscall.SIGTERM, d.OrdersURL, d.StorefrontURL)
	if m := decode[migrationJSON](p, `signet migrate status --json`); m.Current != 0 {
		t.Errorf("the demo touched the database: %+v", m)
	}
}
