package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// A difference is a check that a provider which others wrote does not pass, and
// why: what they chose, what the checks ask beyond the specification, or a fault.
type difference struct{ ID, Found, Right, Why string }

// What the checks find at oidc-provider is what docs/conformance-peers.md says,
// no more and no less: a check that judged unfairly would show here.
func TestPeer(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("peer/differences.json")
	if err != nil {
		t.Fatal(err)
	}
	var differences []difference
	if err := json.Unmarshal(b, &differences); err != nil {
		t.Fatal(err)
	}
	// It introspects and revokes opaque tokens only.
	items := judgePeer(t, "jwt", ".")
	for _, r := range judgePeer(t, "opaque", aboutTokens) {
		items[slices.IndexFunc(items, func(o jsonResult) bool { return o.ID == r.ID })] = r
	}
	if len(items) != len(checks()) {
		t.Fatalf("%d checks of %d", len(items), len(checks()))
	}
	counts := map[Outcome]int{}
	var skips []string
	for _, r := range items {
		counts[r.Outcome]++
		known := slices.ContainsFunc(differences, func(d difference) bool { return d.ID == r.ID })
		if known != (r.Outcome == Failed) {
			t.Errorf("%s %s: differences.json has it: %t (%s)", r.Outcome, r.ID, known, r.Reason)
		}
		if r.Outcome == Skipped {
			skips = append(skips, fmt.Sprintf("`%s` %s", r.ID, r.Reason))
		}
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, peerIntroduction, peerVersion(t), counts[Passed], counts[Failed], counts[Skipped])
	page.WriteString("| check | what came | who is right |\n|---|---|---|\n")
	for _, d := range differences {
		fmt.Fprintf(&page, "| `%s` | %s | %s: %s |\n", d.ID, d.Found, d.Right, d.Why)
	}
	fmt.Fprintf(&page, "\n## Skipped\n\n- %s\n", strings.Join(skips, "\n- "))
	comparePage(t, "conformance-peers.md", page.Bytes())
}

// aboutTokens are the checks of endpoints that are asked about tokens.
const aboutTokens = "^RFC (7009|7662|9701) "

const peerIntroduction = `# The same checks at another provider

This page is generated. ` + "`go test ./conformance -run TestPeer`" + ` runs the checks at [oidc-provider](https://github.com/panva/node-oidc-provider) %s, a provider in JavaScript that has been tried by many, with what the checks ask for switched on (` + "`conformance/peer/provider.mjs`" + `): %d pass, %d fail, %d are skipped. A check that its authors would call unfair was changed; what is left, and why, is told below. Nothing here says that either provider is the better one.

## Differences

`

// peerVersion is the one that the lock file pins.
func peerVersion(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("peer/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Dependencies map[string]string }
	if err := json.Unmarshal(b, &p); err != nil || p.Dependencies["oidc-provider"] == "" {
		t.Fatal("peer/package.json names no version: ", err)
	}
	return p.Dependencies["oidc-provider"]
}

// peerNode is the Node that .ci/deps takes from npm, for Debian's is older than
// the provider asks for; where npm has none, the one there is.
func peerNode() string {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	node := filepath.Join("clients", "npm", "node_modules", "node-"+runtime.GOOS+"-"+arch, "bin", "node")
	if _, err := os.Stat(node); err != nil {
		return "node"
	}
	return node
}

// judgePeer runs checks at the other provider, whose access tokens for resources
// have a format: jwt or opaque.
func judgePeer(t *testing.T, format string, checks string) []jsonResult {
	t.Helper()
	dir := t.TempDir()
	front := httptest.NewUnstartedServer(nil)
	_, port, _ := strings.Cut(front.Listener.Addr().String(), ":")
	issuer := "http://localhost:" + port
	key := newECKey(t)
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{publicJWK(t, key.Public(), "ES256")}}
	told := loopbackAddress()
	code := []string{"authorization_code", "refresh_token"}
	type client map[string]any
	setup, err := json.Marshal(map[string]any{
		"issuer": issuer, "port": 0, "initialAccessToken": "initial-access-token", "format": format, "resources": map[string]string{fakeResource: fakeScope},
		"clients": []client{
			{"client_id": "main", "client_secret": "secret-of-main", "grant_types": []string{"client_credentials"}, "redirect_uris": []string{}, "response_types": []string{}},
			{"client_id": "second", "client_secret": "secret-of-second", "grant_types": []string{"client_credentials"}, "redirect_uris": []string{}, "response_types": []string{}},
			{"client_id": "keyed", "token_endpoint_auth_method": "private_key_jwt", "jwks": keys, "redirect_uris": []string{appURI},
				"grant_types": []string{"client_credentials", "authorization_code"}},
			{"client_id": "web", "client_secret": "secret-of-web", "grant_types": code, "redirect_uris": []string{appURI},
				"post_logout_redirect_uris": []string{appHome}},
			{"client_id": "web2", "client_secret": "secret-of-web2", "grant_types": code, "redirect_uris": []string{appURI},
				"backchannel_logout_uri": "http://" + told + "/signed-out", "backchannel_logout_session_required": true},
			{"client_id": "native", "token_endpoint_auth_method": "none", "application_type": "native", "grant_types": code,
				"redirect_uris": []string{"http://127.0.0.1/callback"}},
			{"client_id": "public", "token_endpoint_auth_method": "none", "redirect_uris": []string{"https://app.example/cb"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "setup"), setup, 0o600); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}

	peer := exec.Command(peerNode(), "peer/provider.mjs", filepath.Join(dir, "setup"))
	var log bytes.Buffer
	peer.Stderr = &log
	out, err := peer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Start(); err != nil {
		t.Fatalf("oidc-provider: %v; .ci/deps installs what it needs", err)
	}
	t.Cleanup(func() {
		_ = peer.Process.Kill() // it keeps nothing
		_ = peer.Wait()
	})
	var ready struct{ Listen int }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		t.Fatalf("oidc-provider: %v; .ci/deps installs what it needs\n%s", err, log.String())
	}
	front.Config.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", ready.Listen)})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{DisableCompression: true},
	}
	front.Start()
	t.Cleanup(front.Close)

	_, stdout, errs := command(t, "", map[string]string{
		"SIGNET_CONFORMANCE_CLIENT_SECRET": "secret-of-main", "SIGNET_CONFORMANCE_SECOND_CLIENT_SECRET": "secret-of-second",
		"SIGNET_CONFORMANCE_WEB_CLIENT_SECRET": "secret-of-web", "SIGNET_CONFORMANCE_SECOND_WEB_CLIENT_SECRET": "secret-of-web2",
		"SIGNET_CONFORMANCE_PASSWORD": "any", initialTokenVariable: "initial-access-token",
	}, "--issuer", issuer, "--json", "--only", checks,
		"--client-id", "main", "--second-client-id", "second", "--public-client-id", "public",
		"--private-key-client-id", "keyed", "--private-key-file", keyFile, "--private-key-redirect-uri", appURI,
		"--resource", fakeResource, "--scope", fakeScope,
		"--username", "alice", "--username-field", "login", "--deny-button", "abort", "--logout-button", "logout",
		"--web-client-id", "web", "--redirect-uri", appURI, "--post-logout-redirect-uri", appHome,
		"--second-web-client-id", "web2", "--native-client-id", "native",
		"--register", "--backchannel-logout-uri", "http://"+told+"/signed-out")
	var report struct{ Items []jsonResult }
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || errs != "" {
		t.Fatalf("%v\n%s", err, errs)
	}
	return report.Items
}
