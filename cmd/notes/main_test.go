package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
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
		code <- run(ctx, []string{"--issuer", issuer.URL, "--audience", "https://notes.example/mcp", "--listen", "127.0.0.1:0"}, stdout, io.Discard)
		stdout.Close()
	}()

	var ready struct{ Event, Listen string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil || ready.Event != "ready" {
		t.Fatalf("%+v %v", ready, err)
	}
	resp, err := http.Get("http://" + ready.Listen + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
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
	ok := []string{"--issuer", "http://127.0.0.1:1", "--audience", "https://notes.example/mcp"}
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"--help"}, 0, "notes --issuer"},
		{"no arguments", nil, 2, "notes --issuer"},
		{"audience missing", ok[:2], 2, "-audience"},
		{"unknown flag", append(ok[:4:4], "--color"), 2, "color"},
		{"something extra", append(ok[:4:4], "extra"), 2, "notes --issuer"},
		{"audience without TLS", []string{"--issuer", "http://127.0.0.1:1", "--audience", "http://notes.example/mcp"}, 1, "audience"},
		{"address unusable", append(ok[:4:4], "--listen", "127.0.0.1:x"), 1, "listen"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := run(t.Context(), test.args, io.Discard, &stderr); code != test.code || !strings.Contains(stderr.String(), test.says) {
				t.Errorf("exit code %d, want %d; says %s", code, test.code, stderr.String())
			}
		})
	}
}
