package verify_test

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/internal/feedtest"
)

const (
	issuer   = "https://id.example"
	audience = "https://orders.example"
)

// epoch is the wall clock of tests that need no other.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A signingKey signs whatever text it is given, well formed or not.
type signingKey struct {
	kid, alg string
	private  crypto.Signer
}

func newKey(kid, alg string) signingKey {
	var private crypto.Signer
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		panic(err)
	}
	return signingKey{kid, alg, private}
}

// rawSignature signs text as k.alg says.
func (k signingKey) rawSignature(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch k.alg {
	case "ES256", "ES384":
		var der []byte
		if der, err = k.private.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
			signature, err = joseECDSA(der, k.private.Public().(*ecdsa.PublicKey).Curve)
		}
	case "EdDSA":
		signature, err = k.private.Sign(nil, []byte(text), crypto.Hash(0))
	case "PS256":
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		signature, err = k.private.Sign(rand.Reader, digest[:], opts)
	default:
		signature, err = k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	if err != nil {
		panic(err)
	}
	return signature
}

func joseECDSA(der []byte, curve elliptic.Curve) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	signature := make([]byte, 2*size)
	rs.R.FillBytes(signature[:size])
	rs.S.FillBytes(signature[size:])
	return signature, nil
}

func (k signingKey) sign(header, payload string) string {
	return k.signParts(b64(header), b64(payload))
}

func (k signingKey) signParts(header, payload string) string {
	text := header + "." + payload
	return text + "." + b64(string(k.rawSignature(text)))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func (k signingKey) header() object {
	return object{"typ": "at+jwt", "alg": k.alg, "kid": k.kid}
}

// token signs the usual claims after edits.
func (k signingKey) token(edits ...edit) string {
	return k.sign(k.header().text(), claims(edits...))
}

func (k signingKey) jwk() string {
	text, err := jose.JSONWebKey{Key: k.private.Public(), KeyID: k.kid, Algorithm: k.alg, Use: "sig"}.MarshalJSON()
	if err != nil {
		panic(err)
	}
	return string(text)
}

type object map[string]any

// text is o in JSON; a json.RawMessage stands as it is, well formed or not.
func (o object) text() string {
	var members []string
	for _, name := range slices.Sorted(maps.Keys(o)) {
		value, isRaw := o[name].(json.RawMessage)
		if !isRaw {
			var err error
			if value, err = json.Marshal(o[name]); err != nil {
				panic(err)
			}
		}
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// with copies o with one member set; a nil value removes it.
func (o object) with(name string, value any) object {
	c := maps.Clone(o)
	c[name] = value
	if value == nil {
		delete(c, name)
	}
	return c
}

type edit struct {
	name  string
	value any
}

// set replaces a claim; json.RawMessage is written as it is, nil removes it.
func set(name string, value any) edit { return edit{name, value} }

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func claims(edits ...edit) string {
	c := object{
		"iss": issuer, "aud": audience, "sub": "alice", "client_id": "shop", "jti": "t1",
		"iat": epoch.Unix(), "exp": epoch.Add(10 * time.Minute).Unix(), "scope": "orders:read orders:write",
	}
	for _, e := range edits {
		c = c.with(e.name, e.value)
	}
	return c.text()
}

// A provider serves metadata and keys in process, so that it works inside a
// synctest bubble too. answer, when set, takes the place of the key set.
type provider struct {
	mu       sync.Mutex
	issuer   string
	keys     []string
	answer   http.HandlerFunc
	feed     *feedtest.Feed // nil: the metadata names none
	endpoint string         // of the feed, if not where it belongs
	others   http.Handler   // answers other paths
	requests []string       // paths, in order
}

func newProvider(keys ...signingKey) *provider {
	p := &provider{issuer: issuer}
	p.publish(keys...)
	return p
}

func (p *provider) publish(keys ...signingKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = nil
	for _, k := range keys {
		p.keys = append(p.keys, k.jwk())
	}
}

func (p *provider) publishRaw(keys ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func (p *provider) respond(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// asked are the paths asked for so far.
func (p *provider) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// fetches is how often the key set was asked for.
func (p *provider) fetches() (n int) {
	for _, path := range p.asked() {
		if path == "/jwks" {
			n++
		}
	}
	return n
}

func (p *provider) document() string {
	return `{"keys":[` + strings.Join(p.keys, ",") + `]}`
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	answer, document, feed, others := p.answer, p.document(), p.feed, p.others
	endpoint := cmp.Or(p.endpoint, p.issuer+"/revocations")
	p.requests = append(p.requests, r.URL.Path)
	p.mu.Unlock()
	switch {
	case r.URL.Path == "/.well-known/openid-configuration" && feed != nil:
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"revocation_feed_endpoint":%q}`, p.issuer, p.issuer+"/jwks", endpoint)
	case r.URL.Path == "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.issuer, p.issuer+"/jwks")
	case feed != nil && strings.HasPrefix(r.URL.Path, "/revocations/"):
		feed.ServeHTTP(w, r)
	case r.URL.Path != "/jwks" && others != nil:
		others.ServeHTTP(w, r)
	case r.URL.Path != "/jwks":
		http.NotFound(w, r)
	case answer != nil:
		answer(w, r)
	default:
		w.Header().Set("Cache-Control", "public, max-age=900")
		fmt.Fprint(w, document)
	}
}

// RoundTrip calls the provider without a network.
func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	return roundTrip(p, r)
}

// roundTrip calls h, which may go on writing while the answer is read. What h has
// not flushed is not seen, as with a real server.
func roundTrip(h http.Handler, r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	in, out := io.Pipe()
	w := &streamWriter{header: http.Header{}, out: out, begun: make(chan struct{})}
	go func() {
		defer cancel()
		defer out.Close()
		h.ServeHTTP(w, r.WithContext(ctx))
		w.Flush()
	}()
	stop := context.AfterFunc(r.Context(), func() { out.CloseWithError(context.Cause(r.Context())) })
	select {
	case <-w.begun:
		return &http.Response{StatusCode: w.status, Header: w.sent, Request: r,
			Body: streamBody{in, func() { stop(); cancel() }}}, nil
	case <-r.Context().Done():
		in.Close()
		return nil, r.Context().Err()
	}
}

type streamWriter struct {
	header, sent http.Header
	status       int
	out          *io.PipeWriter
	pending      []byte
	begun        chan struct{}
}

func (w *streamWriter) Header() http.Header { return w.header }

func (w *streamWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *streamWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.pending = append(w.pending, b...)
	return len(b), nil
}

func (w *streamWriter) Flush() {
	w.WriteHeader(http.StatusOK)
	select {
	case <-w.begun:
	default:
		close(w.begun)
	}
	_, _ = w.out.Write(w.pending) // an error here is the reader gone
	w.pending = nil
}

type streamBody struct {
	*io.PipeReader
	ended func()
}

func (b streamBody) Close() error {
	b.ended()
	return b.PipeReader.Close()
}

func (p *provider) client() *http.Client { return &http.Client{Transport: p} }

// verifier makes a Verifier for p's tokens at the time epoch.
func (p *provider) verifier(t testing.TB, opts ...verify.Option) *verify.Verifier {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return p.verifierIn(ctx, t, opts...)
}

func (p *provider) verifierIn(ctx context.Context, t testing.TB, opts ...verify.Option) *verify.Verifier {
	t.Helper()
	opts = append([]verify.Option{
		verify.WithHTTPClient(p.client()),
		verify.WithNow(func() time.Time { return epoch }),
		verify.WithLogger(slog.New(slog.DiscardHandler)),
	}, opts...)
	v, err := verify.New(ctx, p.issuer, audience, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func unb64(s string) string {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return b64(string(sum[:]))
}
