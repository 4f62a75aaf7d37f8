package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io/fs"
	"math/rand/v2"
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
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/storage/storagetest"
	"github.com/signet-oidc/signet/verify"
)

// buildSignet builds the program these checks are for.
func buildSignet(t *testing.T) (binary string) {
	t.Helper()
	readSources(t)
	binary = filepath.Join(t.TempDir(), "signet")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/signet").CombinedOutput(); err != nil {
		t.Fatalf("build signet: %v\n%s", err, out)
	}
	return binary
}

// readSources lets go test know that the result depends on the whole module,
// which nothing here imports: it remembers a pass until a file or folder that
// the test has looked at changes.
func readSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startSignet runs the program over a PostgreSQL database, or with "" over a
// SQLite file, behind a proxy that is the issuer to the world. The proxy gives
// requests to it the addresses that address returns: the checks guess wrong on
// purpose, and the server slows down whoever does that often.
func startSignet(t *testing.T, binary, database string, address func() string) subject {
	t.Helper()
	dir := t.TempDir()
	front := httptest.NewUnstartedServer(nil)
	issuer := "http://" + front.Listener.Addr().String() + "/tenant"
	var said bytes.Buffer
	signet := func(args ...string) *exec.Cmd {
		cmd := exec.Command(binary, args...)
		cmd.Stderr = &said
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SIGNET_DATA="+dir, "SIGNET_ISSUER="+issuer)
		if database != "" {
			cmd.Env = append(cmd.Env, "SIGNET_DATABASE="+database, "SIGNET_KEK="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
		}
		return cmd
	}
	create := func(args ...string) (secret string) {
		t.Helper()
		out, err := signet(append(args, "--json")...).Output()
		var made struct {
			ClientSecret string `json:"client_secret"`
		}
		if err == nil {
			err = json.Unmarshal(out, &made)
		}
		if err != nil {
			t.Fatalf("signet %s: %v\n%s%s", strings.Join(args, " "), err, out, said.String())
		}
		return made.ClientSecret
	}
	key := newECKey(t)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{publicJWK(t, key.Public(), "ES256")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "jwks"), set, 0o600); err != nil {
		t.Fatal(err)
	}
	s := subject{issuer: issuer, public: "public", keyClient: &KeyClient{ID: "keyed", alg: jose.ES256, key: key}, resource: fakeResource, scope: fakeScope}
	api, apiURL := startAPI(t)
	s.protected, s.protectedScope, s.stepUp = apiURL, "shelf:read", apiURL+"/signed-in"
	s.channel = openChannel(t)
	create("resource", "create", s.protected, "--name", "Shelf", "--scope", s.protectedScope)
	create("resource", "create", fakeResource, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write")
	service := []string{"client", "create", "--name", "A", "--grant", "client_credentials", "--scope", "orders:read", "--scope", "orders:write", "--scope", s.protectedScope}
	s.client = Credentials{"main", create(append(service, "--id", "main")...)}
	s.second = Credentials{"second", create(append(service, "--id", "second")...)}
	app := []string{"client", "create", "--grant", "authorization_code", "--grant", "refresh_token", "--scope", "openid", "--scope", "profile",
		"--scope", "email", "--scope", "offline_access", "--scope", "orders:read", "--scope", "orders:write", "--scope", s.protectedScope}
	web := append(slices.Clone(app), "--redirect-uri", appURI, "--post-logout-redirect-uri", appHome)
	s.web = App{Credentials{"web", create(append(web, "--name", "Shop", "--id", "web")...)}, appURI}
	s.frontChannel = appFrame
	s.secondWeb = App{Credentials{"web2", create(append(web, "--name", "Stock", "--id", "web2", "--require-pkce=false",
		"--backchannel-logout-uri", s.channel.uri, "--backchannel-logout-session-required",
		"--frontchannel-logout-uri", s.frontChannel, "--frontchannel-logout-session-required")...)}, appURI}
	s.keyRedirect = appURI
	create("client", "create", "--name", "Signing", "--id", "keyed", "--grant", "client_credentials", "--grant", "authorization_code", "--redirect-uri", appURI,
		"--scope", "openid", "--scope", "profile", "--scope", "email", "--scope", "orders:read", "--auth-method", "private_key_jwt", "--jwks-file", "jwks")
	s.initialToken = createInitialToken(t, signet("client", "initial-access-token", "--uses", "10000", "--expires", "24h", "--json"))
	s.native = App{Credentials{ID: "native"}, "http://127.0.0.1/callback"}
	create(append(app, "--name", "Tool", "--id", "native", "--auth-method", "none", "--redirect-uri", s.native.RedirectURI)...)
	s.postLogout = appHome
	s.person = Person{"alice", createPerson(t, signet("user", "create", "alice", "--email", "alice@example.com", "--email-verified", "--generate-password", "--json"))}
	create("client", "create", "--name", "App", "--id", "public", "--grant", "authorization_code", "--auth-method", "none", "--redirect-uri", "https://app.example/cb")

	serve := signet("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--trusted-proxy", "127.0.0.1/32",
		"--registration", "token", "--outbound-allow", "127.0.0.1/32")
	var log bytes.Buffer
	serve.Stderr = &log
	out, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := serve.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := serve.Wait(); err != nil {
			t.Errorf("signet serve: %v\n%s", err, log.String())
		}
	})
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
			r.Out.Header.Set("X-Forwarded-For", address())
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true},
	}
	front.Start()
	t.Cleanup(front.Close)
	api(issuer)
	s.person.Password = s.choosePassword(t)
	return s
}

// startAPI has a protected resource, which anybody may write with the package
// verify, at an address of its own. It begins to answer when it is told who
// issues its tokens.
func startAPI(t *testing.T) (begin func(issuer string), address string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	origin := "http://" + srv.Listener.Addr().String()
	address = origin + "/shelf"
	return func(issuer string) {
		v, err := verify.New(t.Context(), issuer, address, verify.WithResourceMetadata(origin+verify.MetadataPath(address)))
		if err != nil {
			t.Fatal(err)
		}
		well := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
		mux := http.NewServeMux()
		mux.Handle("GET "+verify.MetadataPath(address), verify.ResourceMetadata(verify.Metadata{
			Resource: address, AuthorizationServers: []string{issuer}, ScopesSupported: []string{"shelf:read"},
		}))
		mux.Handle("GET /shelf", v.Middleware(verify.RequireScope("shelf:read")(http.HandlerFunc(well))))
		mux.Handle("GET /shelf/signed-in", v.Middleware(verify.RequireACR("urn:signet:acr:password")(http.HandlerFunc(well))))
		srv.Config.Handler = mux
		srv.Start()
		t.Cleanup(srv.Close)
	}, address
}

// createInitialToken runs a command that makes one.
func createInitialToken(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	var made struct {
		Token string `json:"initial_access_token"`
	}
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil || made.Token == "" {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return made.Token
}

// createPerson runs a command that makes one, and returns the password.
func createPerson(t *testing.T, cmd *exec.Cmd) (password string) {
	t.Helper()
	out, err := cmd.Output()
	var made struct{ Password string }
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return made.Password
}

// choosePassword signs the person in for the first time, when they have to
// choose a password of their own.
func (s subject) choosePassword(t *testing.T) (password string) {
	t.Helper()
	const chosen = "what nobody else would think of"
	b, err := s.env(t, nil).newBrowser()
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.begin(t.Context(), s.web)
	if err != nil {
		t.Fatal(err)
	}
	for _, fields := range []map[string]string{
		{"username": s.person.Username, "password": s.person.Password},
		{"new_password": chosen, "repeat_password": chosen},
	} {
		form, _, err := f.question()
		if err != nil || form == nil {
			t.Fatalf("no form: %v, %s", err, f)
		}
		for name, value := range fields {
			form.fields.Set(name, value)
		}
		if err := f.submit(t.Context(), form, "submit"); err != nil {
			t.Fatal(err)
		}
	}
	if _, kind, _ := f.question(); kind != pageConsent {
		t.Fatalf("signed in: got %s, want a page that asks for consent", f)
	}
	return chosen
}

// Where the apps of the tests expect their people; nothing answers there.
const (
	appURI   = "https://app.example/cb?app=shop"
	appHome  = "https://app.example/"
	appFrame = "https://app.example/frame?app=stock"
)

// anyAddress is another one for each request, or as good as.
func anyAddress() string {
	return net.IPv4(198, 18, byte(rand.IntN(256)), byte(rand.IntN(256))).String()
}

var update = flag.Bool("update", false, "write docs/conformance.md anew, of what the checks found")

// loopbackAddress is one that nobody else listens at: all of 127.0.0.0/8 is this
// machine.
func loopbackAddress() string {
	return net.JoinHostPort(net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254))).String(), "8101")
}

// The checker as a user calls it, and the program as a user runs it, on both
// databases; docs/conformance.md says what came of it.
func TestSignetPassesEveryCheck(t *testing.T) {
	t.Parallel()
	binary := buildSignet(t)
	columns := []column{{heading: "SQLite"}, {heading: "PostgreSQL"}}
	database := []func(*testing.T) string{
		func(*testing.T) string { return "" },
		func(t *testing.T) string { return storagetest.Postgres(t) },
	}
	t.Run("on", func(t *testing.T) {
		for i := range columns {
			t.Run(strings.ToLower(columns[i].heading), func(t *testing.T) {
				t.Parallel()
				columns[i].results = passesEveryCheck(t, startSignet(t, binary, database[i](t), func() string { return "192.0.2.1" }))
			})
		}
	})
	if columns[0].results == nil || columns[1].results == nil {
		return // only one of them was to run, or it said what is wrong
	}
	var page bytes.Buffer
	page.WriteString(conformanceIntroduction)
	if err := writeMarkdown(&page, checks(), columns...); err != nil {
		t.Fatal(err)
	}
	comparePage(t, "conformance.md", page.Bytes())
}

// comparePage holds a generated page of docs to what came of the checks.
func comparePage(t *testing.T, name string, page []byte) {
	t.Helper()
	file := filepath.Join("..", "docs", name)
	if *update {
		if err := os.WriteFile(file, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if written, err := os.ReadFile(file); err != nil || !bytes.Equal(written, page) {
		t.Errorf("docs/%s is not what came of the checks (%v): go test ./conformance -run %s -update", name, err, t.Name())
	}
}

const conformanceIntroduction = `# What is judged from the outside

This page is generated: each line is a check of ` + "`go run ./conformance`" + `, which imports nothing of the provider, and what came of it at a Signet that was started as a user starts it. ` + "`go test ./conformance`" + ` runs all of them on both databases and fails when this page says anything else; with ` + "`-update`" + ` it writes the page anew. That test also has a proxy break each requirement in turn, and expects its check to notice.

Requirements are told in our own words; the section is where to read them. "skip" means that the issuer does not offer what a check is about. Nobody but this project has judged anything here. [conformance-peers.md](conformance-peers.md) has what the same checks find at another provider.
`

// A password that is wrong is told once and tried little, so that nobody's
// account is throttled for the sake of a typing error.
func TestWrongPasswordIsTriedOnce(t *testing.T) {
	t.Parallel()
	s := startSignet(t, buildSignet(t), "", func() string { return "192.0.2.1" })
	env := map[string]string{"SIGNET_CONFORMANCE_PASSWORD": "not the password of this person", "SIGNET_CONFORMANCE_WEB_CLIENT_SECRET": s.web.Secret}
	args := []string{"--issuer", s.issuer, "--username", s.person.Username, "--web-client-id", s.web.ID, "--redirect-uri", s.web.RedirectURI, "--only", "^rfc7636-plain|^oidc-code-flow"}
	code, out, errs := command(t, "", env, args...)
	if code != exitFailed || lastLine(out) != "0 passed, 2 failed, 0 skipped" || strings.Count(errs, "signing in: ") != 1 || strings.Count(out, ": signing in: ") != 2 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	env["SIGNET_CONFORMANCE_PASSWORD"] = s.person.Password
	if code, out, errs := command(t, "", env, args...); code != exitOK || errs != "" {
		t.Errorf("the right password: exit %d\n%s%s", code, out, errs)
	}
}

// passesEveryCheck returns what came of the checks.
func passesEveryCheck(t *testing.T, s subject) map[string]Outcome {
	der, err := x509.MarshalPKCS8PrivateKey(s.keyClient.key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"SIGNET_CONFORMANCE_PASSWORD": s.person.Password, "SIGNET_CONFORMANCE_WEB_CLIENT_SECRET": s.web.Secret,
		"SIGNET_CONFORMANCE_SECOND_WEB_CLIENT_SECRET": s.secondWeb.Secret, "SIGNET_CONFORMANCE_INITIAL_ACCESS_TOKEN": s.initialToken,
	}
	listenAt := loopbackAddress()
	s.channel.join(t, "http://"+listenAt+"/")
	code, out, errs := command(t, s.client.Secret+"\n"+s.second.Secret+"\n", secrets, "--issuer", s.issuer,
		"--client-id", s.client.ID, "--client-secret-stdin", "--second-client-id", s.second.ID, "--second-client-secret-stdin",
		"--public-client-id", s.public, "--private-key-client-id", s.keyClient.ID, "--private-key-file", keyFile,
		"--resource", s.resource, "--scope", s.scope,
		"--username", s.person.Username, "--web-client-id", s.web.ID, "--redirect-uri", s.web.RedirectURI, "--post-logout-redirect-uri", s.postLogout,
		"--second-web-client-id", s.secondWeb.ID, "--native-client-id", s.native.ID,
		"--private-key-redirect-uri", s.keyRedirect, "--register", "--frontchannel-logout-uri", s.frontChannel,
		"--backchannel-logout-uri", s.channel.uri, "--backchannel-listen", listenAt,
		"--protected-resource", s.protected, "--protected-scope", s.protectedScope, "--step-up", s.stepUp, "--json")
	var report struct{ Items []jsonResult }
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK || len(report.Items) != len(checks()) || errs != "" {
		t.Errorf("exit %d, %d checks of %d, %v\n%s", code, len(report.Items), len(checks()), err, errs)
	}
	results := map[string]Outcome{}
	for _, r := range report.Items {
		if results[r.ID] = r.Outcome; r.Outcome != Passed {
			t.Errorf("%s %s: %s", r.Outcome, r.ID, r.Reason)
		}
	}
	return results
}
