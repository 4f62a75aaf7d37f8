package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/verify/verifytest"
)

func TestRunUntilStopped(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, stdout := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{
			"--issuer", issuer.URL, "--audience", "https://orders.example", "--listen", "127.0.0.1:0", "--data", t.TempDir(),
		}, stdout, io.Discard)
		stdout.Close()
	}()

	var ready struct{ Event, Listen string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil || ready.Event != "ready" {
		t.Fatalf("%+v %v", ready, err)
	}
	request, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+ready.Listen+"/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+issuer.Token("https://orders.example", verifytest.Scope("orders:read")))
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}

	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d after being told to stop", got)
	}
	if _, err := http.Get("http://" + ready.Listen + "/livez"); err == nil {
		t.Error("still answers")
	}
}

func TestExitCodes(t *testing.T) {
	ok := []string{"--issuer", "http://127.0.0.1:1", "--audience", "https://orders.example"}
	tests := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"--help"}, 0, "orders --issuer"},
		{"no arguments", nil, 2, "orders --issuer"},
		{"audience missing", ok[:2], 2, "-audience"},
		{"unknown flag", append(ok[:4:4], "--color"), 2, "color"},
		{"something extra", append(ok[:4:4], "extra"), 2, "orders --issuer"},
		{"folder missing", append(ok[:4:4], "--data", t.TempDir()+"/no"), 1, "open database"},
		{"address unusable", append(ok[:4:4], "--data", t.TempDir(), "--listen", "127.0.0.1:x"), 1, "listen"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := run(t.Context(), test.args, io.Discard, &stderr); code != test.code || !strings.Contains(stderr.String(), test.says) {
				t.Errorf("exit code %d, want %d; says %s", code, test.code, stderr.String())
			}
		})
	}
}

// program is a command that runs until the test ends it.
type program struct {
	cmd    *exec.Cmd
	listen string // where it answers
}

// start runs a command and waits until it says that it is ready; nil
// when it ended before.
func start(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready struct{ Event, Listen string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		_ = cmd.Wait()
		t.Logf("%s: %v\n%s", cmd, err, stderr.String())
		return nil
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	if err := json.Unmarshal(line, &ready); err != nil || ready.Event != "ready" {
		t.Fatalf("%s: %s: %v", cmd, line, err)
	}
	return &program{cmd, ready.Listen}
}

// Both programs as they are shipped: the API verifies the provider's tokens,
// and goes on doing so when the provider has ended.
func TestKeepsAnsweringWithoutTheProvider(t *testing.T) {
	const audience = "https://orders.example"
	bin, data := t.TempDir(), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", ".", "../signet").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	signet := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "signet"), args...)
		cmd.Env = append(os.Environ(), "SIGNET_DATA="+data)
		return cmd
	}
	var client struct {
		ClientSecret string `json:"client_secret"`
	}
	for _, args := range []string{
		"resource create " + audience + " --name Orders --scope orders:read --scope orders:write --json",
		"client create --id shop --name Shop --grant client_credentials --scope orders:read --scope orders:write --json",
	} {
		out, err := signet(strings.Fields(args)...).Output()
		if err == nil {
			err = json.Unmarshal(out, &client)
		}
		if err != nil {
			t.Fatalf("signet %s: %v\n%s", args, err, out)
		}
	}
	var provider *program
	for range 5 { // another process may take the port first
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		provider = start(t, signet("serve", "--issuer", "http://"+address, "--listen", address, "--admin-listen", "127.0.0.1:0"))
		if provider != nil {
			break
		}
	}
	if provider == nil {
		t.Fatal("no provider")
	}
	api := start(t, exec.Command(filepath.Join(bin, "orders"),
		"--issuer", "http://"+provider.listen, "--audience", audience, "--listen", "127.0.0.1:0", "--data", t.TempDir()))
	if api == nil {
		t.Fatal("no API")
	}

	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read orders:write"}}
	ask, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+provider.listen+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	ask.SetBasicAuth("shop", client.ClientSecret)
	resp, err := http.DefaultClient.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("token: %d %v", resp.StatusCode, err)
	}
	call := func(method, body, bearer string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+api.listen+"/orders", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const order = `{"item":"Lamp","quantity":2}`
	if status := call("POST", order, token.AccessToken); status != http.StatusCreated {
		t.Errorf("with the provider: %d", status)
	}

	if err := provider.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := provider.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if post, get := call("POST", order, token.AccessToken), call("GET", "", token.AccessToken); post != http.StatusCreated || get != http.StatusOK {
			t.Errorf("without the provider: POST %d, GET %d", post, get)
		}
	}
	forged := token.AccessToken[:len(token.AccessToken)-6] + "AAAAAA"
	if status := call("GET", "", forged); status != http.StatusUnauthorized {
		t.Errorf("a forged token: %d", status)
	}
}
