// Package verifytest gives the tests of a resource server an issuer of its own:
//
//	issuer := verifytest.NewIssuer(t)
//	token := issuer.Token("https://orders.example", verifytest.Scope("orders:read"))
//
// The issuer serves metadata, keys and a revocation feed on loopback and signs
// what package verify accepts, or, by an option, what it must refuse; it revokes
// what it is told to. It knows nobody and stores nothing: for tests only.
package verifytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/verify/internal/feedtest"
)

// An Issuer signs access tokens with its newest key.
type Issuer struct {
	URL string // the issuer identifier, for verify.New

	t      testing.TB
	alg    jose.SignatureAlgorithm
	server *httptest.Server

	feed   *feedtest.Feed
	silent atomic.Bool

	mu   sync.Mutex
	keys []jose.JSONWebKey // private; the last one signs
}

// NewIssuer starts an issuer that signs with ES256, or with RS256, PS256 or EdDSA
// if named, and stops it when the test ends.
func NewIssuer(t testing.TB, alg ...string) *Issuer {
	t.Helper()
	i := &Issuer{t: t, alg: jose.ES256}
	if len(alg) > 0 {
		i.alg = jose.SignatureAlgorithm(alg[0])
	}
	i.Rotate()
	feedKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i.must(err)
	i.feed = feedtest.New("", rand.Text(), jose.JSONWebKey{Key: feedKey, KeyID: rand.Text(), Algorithm: string(jose.ES256), Use: "sig"})
	i.feed.Intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if i.silent.Load() {
			<-r.Context().Done()
		}
		return i.silent.Load()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{
			"issuer": i.URL, "jwks_uri": i.URL + "/jwks", "revocation_feed_endpoint": i.URL + "/revocations",
		})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, i.published()) })
	mux.Handle("GET /revocations/", i.feed)
	i.server = httptest.NewUnstartedServer(mux)
	i.URL = "http://" + i.server.Listener.Addr().String()
	i.feed.Issuer = i.URL
	i.server.Start()
	t.Cleanup(i.Stop)
	return i
}

// Rotate publishes a new key and signs with it from now on. The old ones stay
// published until Retire.
func (i *Issuer) Rotate() {
	i.t.Helper()
	key := jose.JSONWebKey{Key: i.generate(), KeyID: rand.Text(), Algorithm: string(i.alg), Use: "sig"}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
}

// Retire withdraws every key but the newest.
func (i *Issuer) Retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[len(i.keys)-1:]
}

// Stop ends the issuer's server, as if the provider were down; it goes on
// signing.
func (i *Issuer) Stop() {
	i.feed.Close()
	i.server.CloseClientConnections()
	i.server.Close()
}

// An Option changes the header or the claims of one token.
type Option func(header, claims map[string]any)

// Scope sets the scope claim.
func Scope(scopes ...string) Option { return Claim("scope", strings.Join(scopes, " ")) }

// Roles sets the roles claim.
func Roles(roles ...string) Option { return Claim("roles", roles) }

// Subject sets the sub claim, "alice" by default.
func Subject(sub string) Option { return Claim("sub", sub) }

// Client sets the client_id claim, "test-client" by default.
func Client(id string) Option { return Claim("client_id", id) }

// SignedIn says that a person signed in at a time and a context class.
func SignedIn(at time.Time, acr string) Option {
	return func(_, claims map[string]any) { claims["auth_time"], claims["acr"] = at.Unix(), acr }
}

// Expired makes a token whose time was over an hour ago.
func Expired() Option {
	return func(_, claims map[string]any) {
		claims["iat"], claims["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	}
}

// Claim sets any claim; a nil value removes it.
func Claim(name string, value any) Option {
	return func(_, claims map[string]any) { set(claims, name, value) }
}

// Header sets any header parameter; a nil value removes it.
func Header(name string, value any) Option {
	return func(header, _ map[string]any) { set(header, name, value) }
}

func set(m map[string]any, name string, value any) {
	if value == nil {
		delete(m, name)
		return
	}
	m[name] = value
}

// Token signs an access token (RFC 9068) for audience, valid for ten minutes.
func (i *Issuer) Token(audience string, opts ...Option) string {
	i.t.Helper()
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	now := time.Now()
	header := map[string]any{"typ": "at+jwt", "kid": key.KeyID}
	claims := map[string]any{
		"iss": i.URL, "aud": audience, "sub": "alice", "client_id": "test-client", "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}
	for _, opt := range opts {
		opt(header, claims)
	}
	extra := make(map[jose.HeaderKey]any, len(header))
	for name, value := range header {
		extra[jose.HeaderKey(name)] = value
	}
	payload, err := json.Marshal(claims)
	i.must(err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: i.alg, Key: key.Key}, &jose.SignerOptions{ExtraHeaders: extra})
	i.must(err)
	signed, err := signer.Sign(payload)
	i.must(err)
	token, err := signed.CompactSerialize()
	i.must(err)
	return token
}

func (i *Issuer) published() (set jose.JSONWebKeySet) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, key := range i.keys {
		set.Keys = append(set.Keys, key.Public())
	}
	set.Keys = append(set.Keys, i.feed.Key.Public())
	return set
}

func (i *Issuer) generate() crypto.Signer {
	i.t.Helper()
	var key crypto.Signer
	var err error
	switch i.alg {
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.RS256, jose.PS256:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		i.t.Fatalf("verifytest: algorithm %q is not one of Signet's", i.alg)
	}
	i.must(err)
	return key
}

func (i *Issuer) must(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatalf("verifytest: %v", err)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error here is the client gone
}
