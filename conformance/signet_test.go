package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/rand/v2"
	"net"
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

	"github.com/go-jose/go-jose/v4"
)

// buildSignet builds the program these checks are for.
func buildSignet(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "signet")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/signet").CombinedOutput(); err != nil {
		t.Fatalf("build signet: %v\n%s", err, out)
	}
	return binary
}

// startSignet runs the program over a SQLite file, behind a proxy that is the
// issuer to the world. The proxy gives requests to it the addresses that
// address returns: the checks guess wrong on purpose, and the server slows
// down whoever does that often.
func startSignet(t *testing.T, binary string, address func() string) subject {
	t.Helper()
	dir := t.TempDir()
	front := httptest.NewUnstartedServer(nil)
	issuer := "http://" + front.Listener.Addr().String() + "/tenant"
	signet := func(args ...string) *exec.Cmd {
		cmd := exec.Command(binary, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SIGNET_DATA="+dir, "SIGNET_ISSUER="+issuer)
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
			t.Fatalf("signet %s: %v\n%s", strings.Join(args, " "), err, out)
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
	create("resource", "create", fakeResource, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write")
	service := []string{"client", "create", "--name", "A", "--grant", "client_credentials", "--scope", "orders:read", "--scope", "orders:write"}
	s.client = Credentials{"main", create(append(service, "--id", "main")...)}
	s.second = Credentials{"second", create(append(service, "--id", "second")...)}
	create(append(service, "--id", "keyed", "--auth-method", "private_key_jwt", "--jwks-file", "jwks")...)
	create("client", "create", "--name", "App", "--id", "public", "--grant", "authorization_code", "--auth-method", "none", "--redirect-uri", "https://app.example/cb")

	serve := signet("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--trusted-proxy", "127.0.0.1/32")
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
	return s
}

// anyAddress is another one for each request, or as good as.
func anyAddress() string {
	return net.IPv4(198, 18, byte(rand.IntN(256)), byte(rand.IntN(256))).String()
}

// The checker as a user calls it, and the program as a user runs it.
func TestSignetPassesEveryCheck(t *testing.T) {
	t.Parallel()
	s := startSignet(t, buildSignet(t), func() string { return "192.0.2.1" })
	der, err := x509.MarshalPKCS8PrivateKey(s.keyClient.key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := command(t, s.client.Secret+"\n"+s.second.Secret+"\n", nil, "--issuer", s.issuer,
		"--client-id", s.client.ID, "--client-secret-stdin", "--second-client-id", s.second.ID, "--second-client-secret-stdin",
		"--public-client-id", s.public, "--private-key-client-id", s.keyClient.ID, "--private-key-file", keyFile,
		"--resource", s.resource, "--scope", s.scope)
	if code != exitOK {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	for line := range strings.Lines(out) {
		// What it does not offer yet; every credential was given.
		if strings.HasPrefix(line, "SKIP ") && !strings.Contains(line, "in the metadata") && !strings.Contains(line, "_supported") {
			t.Errorf("not run: %s", line)
		}
	}
	last := lastLine(out)
	passed, _, _ := strings.Cut(last, " ")
	if n, err := strconv.Atoi(passed); err != nil || n < 80 || !strings.Contains(last, ", 0 failed, ") {
		t.Errorf("%s", out)
	}
	t.Log(last)
}
