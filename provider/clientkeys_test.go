package provider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A key that the client withdrew ends within the hour, however long its
// server stays out of reach, and fetching costs one try per cool-down.
func TestRemoteKeysEnd(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "a", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	var fetches atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(document)
	}))
	defer srv.Close()
	remote := newRemoteKeys(NewOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), 10)
	begin := time.Now()
	if _, err := remote.get(t.Context(), srv.URL, "a", begin); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	var last time.Duration
	for after := time.Duration(0); after < 3*time.Hour; after += time.Minute {
		if _, err := remote.get(t.Context(), srv.URL, "a", begin.Add(after)); err == nil {
			last = after
		} else if !errors.Is(err, errKeysUnavailable) {
			t.Fatal(err)
		}
	}
	if last >= clientKeysMaxAge || last < clientKeysMaxAge-5*time.Minute {
		t.Errorf("the last use was %s after the fetch, want up to %s", last, clientKeysMaxAge)
	}
	before := fetches.Load()
	for range 1000 {
		_, _ = remote.get(t.Context(), srv.URL, "unknown", begin.Add(4*time.Hour))
	}
	if n := fetches.Load() - before; n != 1 {
		t.Errorf("%d fetches for 1,000 requests within the cool-down, want 1", n)
	}
}
