package browser

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Signing out shows the browser, which runs no script, the page of the app that
// signs the person out there, and then takes it back to the app.
func TestFrontChannelLogout(t *testing.T) {
	t.Parallel()
	shown := make(chan url.Values, 10)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/out" {
			shown <- r.URL.Query()
		}
		_, _ = w.Write([]byte(`<!DOCTYPE html><p id="` + strings.Trim(r.URL.Path, "/") + `">here</p>`))
	}))
	t.Cleanup(app.Close)
	env := []string{"SIGNET_DATA=" + t.TempDir()}
	signet := func(into any, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(binaries, "signet"), append(args, "--json")...)
		cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, into)
		}
		if err != nil {
			t.Fatalf("signet %v: %v\n%s", args, err, out)
		}
	}
	address := freeAddresses(t, 1)[0]
	_, port, _ := net.SplitHostPort(address)
	issuer := "http://localhost:" + port
	var ignored struct{}
	start(t, &ignored, env, "signet", "serve", "--issuer", issuer, "--listen", address, "--admin-listen", "127.0.0.1:0", "--drain", "1s")
	signet(&ignored, "client", "create", "--id", "app", "--name", "App", "--grant", "authorization_code", "--auth-method", "none", "--scope", "openid",
		"--redirect-uri", app.URL+"/callback", "--post-logout-redirect-uri", app.URL+"/bye",
		"--frontchannel-logout-uri", app.URL+"/out?x=1", "--frontchannel-logout-session-required")
	signet(&ignored, "user", "create", "grace", "--email", "grace@example.com", "--generate-password")
	var invitation struct {
		SetupURL string `json:"setup_url"`
	}
	signet(&invitation, "user", "invite", "grace")

	const chosen = "four herons under one bridge"
	b := newTab(t).withoutScripts()
	b.open(invitation.SetupURL).sees("set-up").types("new-password", chosen).types("repeat-password", chosen).click("submit").sees("notice")
	b.open(issuer + "/authorize?" + url.Values{"response_type": {"code"}, "client_id": {"app"}, "redirect_uri": {app.URL + "/callback"}, "scope": {"openid"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}.Encode())
	b.sees("consent").click("allow").sees("callback")
	b.open(issuer + "/logout?" + url.Values{"client_id": {"app"}, "post_logout_redirect_uri": {app.URL + "/bye"}, "state": {"s"}}.Encode())
	b.sees("logout").click("submit").sees("bye")
	if at := b.address(); at != app.URL+"/bye?state=s" {
		t.Errorf("the browser is at %s", at)
	}
	select {
	case query := <-shown:
		if query.Get("x") != "1" || query.Get("iss") != issuer || query.Get("sid") == "" {
			t.Errorf("shown with %v", query)
		}
	case <-time.After(soon):
		t.Error("the app's page is not shown")
	}
}
