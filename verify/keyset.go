package verify

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxKeys       = 32
	maxKeysPerKID = 2        // tried in turn when two keys share kid and algorithm
	maxDocument   = 64 << 10 // bytes of metadata or key set

	fetchTimeout   = 5 * time.Second
	defaultRefresh = 5 * time.Minute
	maxRefresh     = 15 * time.Minute
	missWait       = time.Second    // how long a token waits for such a fetch
	maxStale       = 24 * time.Hour // how long keys outlive the last good fetch
)

// A publicKey verifies with one algorithm only (RFC 8725 §3.1).
type publicKey struct {
	kid, alg string
	key      crypto.PublicKey
}

// newPublicKey binds a JWK to its algorithm, or says why it must not be used.
func newPublicKey(j *jose.JSONWebKey) (*publicKey, error) {
	if j.Use != "" && j.Use != "sig" {
		return nil, errors.New("not for signatures")
	}
	k := &publicKey{kid: j.KeyID, alg: j.Algorithm, key: j.Key}
	fits := false
	switch key := j.Key.(type) {
	case *ecdsa.PublicKey: // go-jose has checked that the point is on the curve
		k.alg = cmp.Or(k.alg, algES256)
		fits = k.alg == algES256 && key.Curve == elliptic.P256()
	case ed25519.PublicKey:
		k.alg = cmp.Or(k.alg, algEdDSA)
		fits = k.alg == algEdDSA
	case *rsa.PublicKey:
		// RFC 8725 §3.5; go-jose refuses more than 4096 bits.
		if key.N.BitLen() < 2048 || key.E < 3 || key.E%2 == 0 {
			return nil, errors.New("weak RSA key")
		}
		k.alg = cmp.Or(k.alg, algRS256)
		fits = k.alg == algRS256 || k.alg == algPS256
	default:
		return nil, errors.New("not a public key we know")
	}
	if !fits {
		return nil, errors.New("algorithm unknown or not the key's")
	}
	return k, nil
}

// signedBy tries the keys whose algorithm is the token's own.
func (t *jws) signedBy(keys []*publicKey) bool {
	var buf [maxSignature]byte
	signature, ok := decodeBase64(buf[:], t.signature)
	if !ok {
		return false
	}
	for _, k := range keys {
		if k.alg == t.alg && k.verify([]byte(t.signed), signature) {
			return true
		}
	}
	return false
}

func (k *publicKey) verify(signed, signature []byte) bool {
	if k.alg == algEdDSA {
		return ed25519.Verify(k.key.(ed25519.PublicKey), signed, signature)
	}
	digest := sha256.Sum256(signed)
	switch k.alg {
	case algES256:
		return verifyES256(k.key.(*ecdsa.PublicKey), digest[:], signature)
	case algRS256:
		return rsa.VerifyPKCS1v15(k.key.(*rsa.PublicKey), crypto.SHA256, digest[:], signature) == nil
	case algPS256: // RFC 7518 §3.5: the salt is as long as the hash
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(k.key.(*rsa.PublicKey), crypto.SHA256, digest[:], signature, opts) == nil
	}
	return false
}

// verifyES256 checks R || S (RFC 7518 §3.4). crypto/ecdsa wants them in DER, and
// refuses zero and anything not below the order itself.
func verifyES256(key *ecdsa.PublicKey, digest, signature []byte) bool {
	const size = 32
	if len(signature) != 2*size {
		return false
	}
	der := make([]byte, 2, 2+2*(2+1+size))
	for _, n := range [2][]byte{signature[:size], signature[size:]} {
		for len(n) > 1 && n[0] == 0 {
			n = n[1:]
		}
		if n[0] < 0x80 {
			der = append(der, 0x02, byte(len(n)))
		} else {
			der = append(der, 0x02, byte(len(n)+1), 0)
		}
		der = append(der, n...)
	}
	der[0], der[1] = 0x30, byte(len(der)-2)
	return ecdsa.VerifyASN1(key, digest, der)
}

// A keySet is one published document as we read it. It never changes, but for
// the tokens verified with it, which are forgotten with it.
type keySet struct {
	digest   [sha256.Size]byte // of the document
	byKID    map[string][]*publicKey
	only     *publicKey // when the document holds exactly one key
	size     int
	ignored  int
	verified *cache
}

// parseKeySet reads a JWK Set (RFC 7517 §5), leaving out keys that are weak,
// broken, private, for other uses, or too many. It is an error if none is left.
func parseKeySet(document []byte, cacheEntries int) (*keySet, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, errors.New("key set is not JSON")
	}
	set := &keySet{
		digest:   sha256.Sum256(document),
		byKID:    make(map[string][]*publicKey),
		verified: newCache(cacheEntries),
	}
	for _, raw := range doc.Keys {
		if set.size == maxKeys {
			break
		}
		var j jose.JSONWebKey
		if err := json.Unmarshal(raw, &j); err != nil {
			continue
		}
		k, err := newPublicKey(&j)
		if err != nil || set.count(j.KeyID, k.alg) == maxKeysPerKID {
			continue
		}
		set.byKID[j.KeyID] = append(set.byKID[j.KeyID], k)
		set.size++
		set.only = k
	}
	if set.size == 0 {
		return nil, errors.New("key set holds no usable key")
	}
	set.ignored = len(doc.Keys) - set.size
	if len(doc.Keys) > 1 {
		set.only = nil
	}
	return set, nil
}

func (s *keySet) count(kid, alg string) (n int) {
	for _, k := range s.byKID[kid] {
		if k.alg == alg {
			n++
		}
	}
	return n
}

// A keySource keeps the issuer's keys fresh. One goroutine fetches, on a timer
// and when a token names an unknown key; readers load a pointer.
type keySource struct {
	issuer       string
	jwksURI      string // configured; else it comes from the metadata
	client       *http.Client
	log          *slog.Logger
	cacheEntries int

	held              atomic.Pointer[heldKeys]
	found             atomic.Pointer[metadata] // the issuer's, as last read
	fetches, failures atomic.Uint64

	// Of the fetching goroutine.
	discovered string // jwks_uri from the metadata, until a fetch fails
	failed     int    // fetches in a row

	wake    chan struct{} // asks for a fetch before the timer does
	arrived chan struct{} // closed when there is a first key set

	mu       sync.Mutex
	pending  chan struct{} // closed when the fetch asked for or under way is over
	lastMiss time.Time
	lastErr  error
}

// heldKeys are the last good key set; fetched carries the monotonic clock, so
// that a jump of the wall clock neither refreshes nor expires it.
type heldKeys struct {
	set     *keySet
	fetched time.Time
}

func newKeySource(issuer string, o *options) *keySource {
	client := *o.client
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > 3 || !sameOrigin(r.URL, via[0].URL) {
			return errors.New("redirect to another host, or one too many")
		}
		return nil
	}
	return &keySource{
		issuer:       issuer,
		jwksURI:      o.jwksURI,
		client:       &client,
		log:          o.log,
		cacheEntries: o.cacheEntries,
		wake:         make(chan struct{}, 1),
		arrived:      make(chan struct{}),
	}
}

// start fetches once, tells whether that brought keys, and goes on in the
// background until ctx ends.
func (s *keySource) start(ctx context.Context) bool {
	wait := s.fetch(ctx)
	go s.run(ctx, wait)
	return s.held.Load() != nil
}

func (s *keySource) run(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.begin()
			close(s.pending) // and left so: from now on no token waits for a fetch
			return
		case <-timer.C:
		case <-s.wake:
		}
		s.begin()
		wait = s.fetch(ctx)
		s.finish()
		timer.Reset(wait)
	}
}

// begin lets tokens that meet an unknown key wait for this fetch, and takes back
// a wish for one that came in the same moment.
func (s *keySource) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		s.pending = make(chan struct{})
	}
	select {
	case <-s.wake:
	default:
	}
}

func (s *keySource) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.pending)
	s.pending = nil
}

// current is the key set in force, nil when there is none or it is too old.
func (s *keySource) current() *keySet {
	if held := s.held.Load(); held != nil && time.Since(held.fetched) < maxStale {
		return held.set
	}
	return nil
}

func (s *keySource) notReady() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastErr == nil {
		return ErrNotReady
	}
	return fmt.Errorf("%w: %w", ErrNotReady, s.lastErr)
}

// miss is called for a token with an unknown key. It joins the fetch under way or
// asks for one, at most once per cooldown, so that made-up kids cost the issuer
// nothing; it waits briefly and returns the set then in force.
func (s *keySource) miss(ctx context.Context) *keySet {
	s.mu.Lock()
	if s.pending == nil && (s.lastMiss.IsZero() || time.Since(s.lastMiss) >= missCooldown) {
		s.lastMiss = time.Now()
		s.pending = make(chan struct{})
		s.wake <- struct{}{} // never blocks: begin empties it while pending is set
	}
	pending := s.pending
	s.mu.Unlock()
	if pending != nil {
		timeout := time.NewTimer(missWait)
		defer timeout.Stop()
		select {
		case <-pending:
		case <-timeout.C:
		case <-ctx.Done():
		}
	}
	return s.current()
}

// fetch brings in the published key set and returns when to do so again. On
// failure the last good set stays.
func (s *keySource) fetch(ctx context.Context) (wait time.Duration) {
	s.fetches.Add(1)
	set, wait, err := s.load(ctx)
	if err == nil {
		held := s.held.Load()
		if held != nil && held.set.digest == set.digest {
			set = held.set // unchanged: keep what it has verified
		} else if set.ignored > 0 {
			s.log.WarnContext(ctx, "verify: keys ignored", "issuer", s.issuer, "ignored", set.ignored, "usable", set.size)
		}
		if held == nil {
			defer close(s.arrived)
		}
		s.held.Store(&heldKeys{set: set, fetched: time.Now()})
		s.failed = 0
	} else {
		s.failures.Add(1)
		s.discovered = "" // it may have moved
		wait = jitter(min(minBackoff<<min(s.failed, 10), maxBackoff))
		s.failed++
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "verify: fetching keys failed", "issuer", s.issuer, "retry_in", wait, "error", err)
		}
	}
	s.mu.Lock()
	s.lastErr = err
	s.mu.Unlock()
	return wait
}

// jitter shortens d by a tenth at most, so that many servers do not ask in step.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }

// load gets the key set within fetchTimeout, and how long it may be kept.
func (s *keySource) load(ctx context.Context) (*keySet, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	uri := cmp.Or(s.jwksURI, s.discovered)
	if uri == "" {
		found, err := s.discover(ctx)
		if err != nil {
			return nil, 0, err
		}
		uri = found.JWKSURI
	}
	document, header, err := s.get(ctx, uri)
	if err != nil {
		return nil, 0, err
	}
	set, err := parseKeySet(document, s.cacheEntries)
	if err != nil {
		return nil, 0, err
	}
	s.discovered = uri
	return set, refreshAfter(header), nil
}

// metadata is what we read of the issuer's.
type metadata struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
	Feed    string `json:"revocation_feed_endpoint"`
}

// discover reads the issuer's metadata. The follower of the feed calls it too.
func (s *keySource) discover(ctx context.Context) (*metadata, error) {
	issuer, err := url.Parse(s.issuer)
	if err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(issuer.Path, "/")
	var errs []error
	for _, place := range []string{
		path + "/.well-known/openid-configuration",       // OpenID Connect Discovery §4
		"/.well-known/oauth-authorization-server" + path, // RFC 8414 §3.1
	} {
		at := url.URL{Scheme: issuer.Scheme, Host: issuer.Host, Path: place}
		found, err := s.metadata(ctx, issuer, at.String())
		if err == nil {
			s.found.Store(found)
			return found, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (s *keySource) metadata(ctx context.Context, issuer *url.URL, at string) (*metadata, error) {
	document, _, err := s.get(ctx, at)
	if err != nil {
		return nil, err
	}
	var m metadata
	if err := json.Unmarshal(document, &m); err != nil {
		return nil, fmt.Errorf("%s is not JSON", at)
	}
	if m.Issuer != s.issuer { // RFC 8414 §3.3
		return nil, fmt.Errorf("%s names another issuer", at)
	}
	// The keys must come from whom the tokens come; another place is the
	// operator's decision, not the network's.
	if uri, err := url.Parse(m.JWKSURI); err != nil || !sameOrigin(uri, issuer) {
		return nil, fmt.Errorf("%s: jwks_uri is not on the issuer's host", at)
	}
	return &m, nil
}

// get fetches one small document.
func (s *keySource) get(ctx context.Context, uri string) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", "application/json")
	res, err := s.client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answered %d", uri, res.StatusCode)
	}
	document, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", uri, err)
	}
	if len(document) > maxDocument {
		return nil, nil, fmt.Errorf("%s is larger than 64 KiB", uri)
	}
	return document, res.Header, nil
}

// refreshAfter is the max-age of a response (RFC 9111 §5.2.2.1) within bounds.
func refreshAfter(header http.Header) time.Duration {
	age := defaultRefresh
	for directive := range strings.SplitSeq(strings.Join(header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return minRefresh
		case "max-age":
			if n, err := strconv.Atoi(value); err == nil {
				age = time.Duration(min(max(n, 0), int(maxRefresh/time.Second))) * time.Second
			}
		}
	}
	return max(jitter(max(age, minRefresh)), minRefresh)
}

// sameOrigin compares scheme, host and port; as the issuer is https or on
// loopback, so is whatever shares its origin.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}
