package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestServesABrokenIssuerUntilStopped(t *testing.T) {
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	defer issuer.Close()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer.URL, "token_endpoint": issuer.URL + "/token"})
	})

	ctx, stop := context.WithCancel(t.Context())
	said, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--upstream", issuer.URL, "--break", "oidc-discovery-issuer"}, stdout, io.Discard)
	}()
	line := make([]byte, 512)
	n, err := said.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`--connect-to (\S+)`).FindSubmatch(line[:n])
	if address == nil {
		t.Fatalf("no address in %q", line[:n])
	}
	resp, err := http.Get("http://" + string(address[1]) + "/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var metadata map[string]string
	if err := json.NewDecoder(resp.Body).Decode(&metadata); err != nil || metadata["issuer"] != issuer.URL+"/" {
		t.Errorf("got %v, %v, want the issuer with a slash", metadata, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped: %v", err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`no breakage is called "nothing"`: {"--upstream", "http://127.0.0.1:1", "--break", "nothing"},
		"want an http URL":                {"--upstream", "https://issuer.example", "--break", "rfc9068-typ"},
		"no metadata":                     {"--upstream", "http://127.0.0.1:1", "--break", "rfc9068-typ"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestList(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--list"}, &out, io.Discard); err != nil || !strings.Contains(out.String(), "rfc9068-typ ") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}
