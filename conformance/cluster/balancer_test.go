//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// With docs/deploy/haproxy.cfg, replicas without a database are in no pool, and
// their keys, their metadata and their own 503 come through all the same; and
// strangers do not choose the trace that their requests are in.
func TestBalancer(t *testing.T) {
	t.Parallel()
	server, err := storagetest.StartServer(storagetest.ServerOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	b := newBench(t, ordinary, func(s *settings) {
		s.database, s.lanes = server.URL("postgres"), 1
		// Nobody is there. The log has the trace of each request nevertheless.
		s.env = append(s.env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+unused)
	})

	t.Run("traceparent", func(t *testing.T) {
		for i, way := range b.ways {
			if id := b.traced(t, b.via(way, nil)); id == strangers {
				t.Errorf("a stranger chose the trace of a request by way %d", i)
			}
		}
		// Not because it is never believed: the replicas trust the balancer's address, which is this test's as well.
		direct := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, b.replicas[0].address)
		}}
		if id := b.traced(t, direct); id != strangers {
			t.Errorf("a trusted proxy's trace is %s, and the request is in %s", strangers, id)
		}
	})

	t.Run("no database", func(t *testing.T) {
		_, tokens := b.begin(1)
		shop := *b.shop
		must(t, server.Kill())
		must(t, await("no replica is in the pool", func() (bool, error) {
			return b.ask("http://"+b.state+"/healthz") == http.StatusServiceUnavailable, nil
		}))
		for _, way := range b.ways {
			shop.Via = b.via(way, nil)
			for _, path := range []string{"/jwks", "/.well-known/openid-configuration"} {
				if r, err := people.Send(shop.Via, http.MethodGet, b.issuer+path, nil); err != nil || r.Status != http.StatusOK {
					t.Errorf("%s by way %s: %v %v", path, way.name, r, err)
				}
			}
			r, err := shop.TryRefresh(tokens[0])
			if err != nil || r.Status != http.StatusServiceUnavailable || r.Member("error") != "temporarily_unavailable" ||
				r.Header.Get("Retry-After") == "" || r.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("/token by way %s: %v %v %v", way.name, r, r.Header, err)
			}
		}
		must(t, server.Start())
		must(t, await("tokens are refreshed again", func() (bool, error) {
			r, err := b.shop.TryRefresh(tokens[0])
			return err == nil && r.Status == http.StatusOK, nil
		}))
	})

	t.Run("no replica", func(t *testing.T) {
		for _, r := range b.replicas {
			r.kill()
		}
		must(t, await("the balancer says when to try again", func() (bool, error) {
			r, err := people.Send(http.DefaultTransport, http.MethodGet, b.issuer+"/jwks", nil)
			return err == nil && r.Status == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != "" && r.Body == "unavailable", nil
		}))
	})
}

const (
	strangers = "0af7651916cd43dd8448eb211c80319c" // a trace
	unused    = "127.0.0.1:9"
)

// traced sends a request in the strangers' trace and returns the one that the
// replica's log has it in.
func (b *bench) traced(t *testing.T, via http.RoundTripper) (trace string) {
	t.Helper()
	r, err := people.Send(via, http.MethodPost, b.issuer+"/token", url.Values{"grant_type": {"client_credentials"}}, "traceparent", "00-"+strangers+"-b7ad6b7169203331-01")
	must(t, err)
	id := r.Header.Get("X-Request-Id")
	must(t, await("the request "+id+" is in a log", func() (bool, error) {
		files, err := filepath.Glob(filepath.Join(b.dir, "r?-*.log"))
		if err != nil {
			return false, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return false, err
			}
			for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
				var line struct {
					Msg     string
					Request string `json:"request_id"`
					Trace   string `json:"trace_id"`
				}
				if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "request" && line.Request == id {
					trace = line.Trace
				}
			}
		}
		return trace != "", nil
	}))
	return trace
}
