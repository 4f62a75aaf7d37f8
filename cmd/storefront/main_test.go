package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// good are arguments that work, wherever the provider is.
func good(t *testing.T) []string {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("sgs_secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--issuer", "http://127.0.0.1:1", "--client-id", "storefront", "--client-secret-file", secret,
		"--orders", "http://127.0.0.1:2", "--url", "http://127.0.0.1:8100", "--listen", "127.0.0.1:0"}
}

func TestServesUntilToldToStop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, stdout := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, good(t), stdout, io.Discard)
		stdout.Close()
	}()
	var ready struct{ Event, Listen string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil || ready.Event != "ready" {
		t.Fatalf("%+v %v", ready, err)
	}
	for path, status := range map[string]int{"/": http.StatusOK, "/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		res, err := http.Get("http://" + ready.Listen + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
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
	ok := good(t)
	with := func(args ...string) []string { return append(ok[:len(ok):len(ok)], args...) }
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("not base64 of 32 bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"--help"}, 0, "storefront --issuer"},
		{"no arguments", nil, 2, "storefront --issuer"},
		{"secret missing", ok[:4], 2, "--client-secret-file"},
		{"unknown flag", with("--color"), 2, "color"},
		{"something extra", with("extra"), 2, "storefront --issuer"},
		{"secret file missing", with("--client-secret-file", "/no/such/file"), 1, "no such file"},
		{"key unusable", with("--key-file", key), 1, "is not base64"},
		{"URL unusable", with("--url", "shop.example"), 1, "want the shop's address"},
		{"address unusable", with("--listen", "127.0.0.1:x"), 1, "listen"},
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
