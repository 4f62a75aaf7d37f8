package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Why a token was refused. [Verifier.Verify] returns errors which match exactly
// one of these by errors.Is; the texts are fit to be sent to the client.
var (
	ErrMalformed         = errors.New("the access token is malformed")
	ErrType              = errors.New("the token is not an access token")
	ErrAlgorithm         = errors.New("the signature algorithm is not accepted")
	ErrUnknownKey        = errors.New("the signing key is unknown")
	ErrSignature         = errors.New("the signature is wrong")
	ErrIssuer            = errors.New("the access token is from another issuer")
	ErrAudience          = errors.New("the access token is for another audience")
	ErrSenderConstrained = errors.New("the access token needs a proof of possession")
	ErrExpired           = errors.New("the access token has expired")
	ErrNotYetValid       = errors.New("the access token is not valid yet")
	ErrRevoked           = errors.New("the access token has been revoked")
	ErrStatus            = errors.New("the status of the access token cannot be told")                    // see [WithStatusList]
	ErrTooOld            = errors.New("the access token is too old while revocations cannot be followed") // see [Soft]

	// These say nothing about the token: the issuer's keys or revocations are not
	// known, or revocations cannot be followed and the policy is [Closed].
	ErrNotReady = errors.New("the issuer's keys or revocations are not available")
	ErrStale    = errors.New("revocations cannot be followed")
)

// malformed adds what a developer, not the client, wants to know.
func malformed(detail string) error { return fmt.Errorf("%w: %s", ErrMalformed, detail) }

// The signature algorithms there are (RFC 7518 §3.1, RFC 8037). Each is
// asymmetric: a MAC would make every resource server an issuer (RFC 8725 §2.1).
const (
	algES256 = "ES256"
	algRS256 = "RS256"
	algPS256 = "PS256"
	algEdDSA = "EdDSA"
)

const (
	defaultSkew         = 30 * time.Second
	maxSkew             = 60 * time.Second
	defaultCacheEntries = 4096
)

// A Verifier checks the access tokens of one issuer for one audience. It is safe
// for concurrent use.
type Verifier struct {
	issuer, audience string
	algorithms       []string
	skew             int64 // milliseconds
	withoutKID       bool
	now              func() time.Time
	log              *slog.Logger
	resourceMetadata string
	firstScope       string
	keys             *keySource
	feed             *follower    // nil: WithoutRevocation, or lists
	lists            *statusLists // nil unless WithStatusList
	policy           Policy

	verified, repeated, refused, revoked, stale atomic.Uint64
}

// An Option changes a default of [New].
type Option func(*options)

type options struct {
	jwksURI          string
	client           *http.Client
	skew             time.Duration
	algorithms       []string
	withoutKID       bool
	now              func() time.Time
	log              *slog.Logger
	resourceMetadata string
	firstScopes      []string
	cacheEntries     int
	revocation       revocationOptions
	statusList       bool
}

// WithJWKSURI names the key set's address instead of asking the issuer's
// metadata. It may be on another host, but must be https unless on loopback.
func WithJWKSURI(uri string) Option { return func(o *options) { o.jwksURI = uri } }

// WithHTTPClient sets the client for metadata and keys. Its redirect policy is
// replaced by ours; a fetch takes 5 s at most whatever its timeout.
func WithHTTPClient(c *http.Client) Option { return func(o *options) { o.client = c } }

// WithSkew sets how far the issuer's clock and ours may differ: 30 s by default,
// 60 s at most.
func WithSkew(d time.Duration) Option { return func(o *options) { o.skew = d } }

// WithAlgorithms narrows the accepted algorithms, by default ES256, RS256, PS256
// and EdDSA; there are no others.
func WithAlgorithms(names ...string) Option { return func(o *options) { o.algorithms = names } }

// WithSingleKeyWithoutKID accepts a token without kid while the issuer publishes
// exactly one key.
func WithSingleKeyWithoutKID() Option { return func(o *options) { o.withoutKID = true } }

// WithNow sets the clock tokens are judged by, time.Now by default. Fetching
// keys follows the monotonic clock in any case.
func WithNow(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithLogger sets where failed fetches (warning) and refused tokens (debug) are
// logged, slog.Default() by default.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.log = l } }

// WithResourceMetadata is the address of the protected resource metadata, told
// to clients in WWW-Authenticate (RFC 9728 §5.1); see [ResourceMetadata].
func WithResourceMetadata(url string) Option { return func(o *options) { o.resourceMetadata = url } }

// WithFirstScope is what a client without a good token is told to ask for first:
// the scope of the challenge (RFC 6750 §3). A client that knows nothing but the
// resource's address, as those of the Model Context Protocol, then asks for no more
// than that, and for what [RequireScope] names when it meets it.
func WithFirstScope(scopes ...string) Option { return func(o *options) { o.firstScopes = scopes } }

// WithCacheEntries sets how many verified tokens are remembered, 4096 by
// default, of 8 KiB each at the most; 0 remembers none.
func WithCacheEntries(n int) Option { return func(o *options) { o.cacheEntries = n } }

// New makes a Verifier for the tokens issuer signs for audience, both compared
// exactly. It tries once to fetch the issuer's metadata, keys and revocations. A
// provider that cannot be reached is not an error: fetching goes on in the
// background until ctx ends, and [Verifier.Ready] tells. An error is a fault in
// the arguments.
func New(ctx context.Context, issuer, audience string, opts ...Option) (*Verifier, error) {
	o := options{
		client:       &http.Client{},
		skew:         defaultSkew,
		algorithms:   []string{algES256, algRS256, algPS256, algEdDSA},
		now:          time.Now,
		log:          slog.Default(),
		cacheEntries: defaultCacheEntries,
		revocation:   revocationOptions{most: defaultMaxRevocations},
	}
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.validate(issuer, audience); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := &Verifier{
		issuer:           issuer,
		audience:         audience,
		algorithms:       o.algorithms,
		skew:             o.skew.Milliseconds(),
		withoutKID:       o.withoutKID,
		now:              o.now,
		log:              o.log,
		resourceMetadata: o.resourceMetadata,
		firstScope:       strings.Join(o.firstScopes, " "),
		keys:             newKeySource(issuer, &o),
		policy:           o.revocation.policy,
	}
	fetched := v.keys.start(ctx)
	if o.statusList {
		var err error
		if v.lists, err = newStatusLists(issuer, v.keys, &o); err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		go v.lists.run(ctx)
		return v, nil
	}
	if o.revocation.off {
		o.log.InfoContext(ctx, "verify: revocations are not followed: tokens count until they expire", "issuer", issuer)
		return v, nil
	}
	v.feed = newFollower(issuer, v.keys, &o)
	v.feed.begin(ctx, fetched)
	return v, nil
}

func (o *options) validate(issuer, audience string) error {
	if audience == "" {
		return errors.New("no audience")
	}
	// RFC 8414 §2: an issuer has neither query nor fragment.
	u, err := secureURL(issuer)
	if err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#") {
		return errors.New("issuer: has a query or fragment")
	}
	if o.jwksURI != "" {
		if _, err := secureURL(o.jwksURI); err != nil {
			return fmt.Errorf("jwks_uri: %w", err)
		}
	}
	if o.resourceMetadata != "" {
		u, err := secureURL(o.resourceMetadata)
		if err != nil {
			return fmt.Errorf("resource metadata: %w", err)
		}
		o.resourceMetadata = u.String() // escaped, so it fits into a quoted string
	}
	for _, scope := range o.firstScopes {
		if !isToken(scope) {
			return fmt.Errorf("first scope: %q is not a scope", scope)
		}
	}
	if o.skew < 0 || o.skew > maxSkew {
		return fmt.Errorf("skew is not between 0 and %v", maxSkew)
	}
	if len(o.algorithms) == 0 {
		return errors.New("no algorithm")
	}
	for _, alg := range o.algorithms {
		if !slices.Contains([]string{algES256, algRS256, algPS256, algEdDSA}, alg) {
			return fmt.Errorf("algorithm %q is not supported", alg)
		}
	}
	if o.client == nil || o.now == nil || o.log == nil || o.cacheEntries < 0 {
		return errors.New("nil client, clock or logger, or negative cache size")
	}
	if o.statusList && (o.revocation.off || o.revocation.endpoint != "") {
		return errors.New("status lists take the place of the revocation feed")
	}
	return o.revocation.validate()
}

// secureURL accepts https, and http on loopback only.
func secureURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Host == "" || u.User != nil:
		return nil, errors.New("not an absolute URL without userinfo")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("not https")
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// Ready is nil when the issuer's keys are known, and its revocations where it has
// a feed, however old; else it wraps [ErrNotReady] and the reason of the last
// failure.
func (v *Verifier) Ready() error {
	if v.keys.current() == nil {
		return v.keys.notReady()
	}
	if v.feed != nil {
		return v.feed.ready()
	}
	return nil
}

// Verify checks an access token (RFC 9068 §4) and returns what it claims. It does
// no I/O, but waits up to a second for a fetch when the signing key is unknown.
// A wrong signature is reported before anything the token says, and whether it is
// revoked is looked up on each use.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	claims, err := v.verify(ctx, token)
	if err != nil && !errors.Is(err, ErrNotReady) && !errors.Is(err, ErrStale) {
		v.refused.Add(1)
	}
	return claims, err
}

func (v *Verifier) verify(ctx context.Context, token string) (*Claims, error) {
	t, err := cutJWS(token)
	if err != nil {
		return nil, err
	}
	set := v.keys.current()
	if set == nil {
		return nil, v.keys.notReady()
	}
	if v.feed != nil {
		if err := v.feed.ready(); err != nil {
			return nil, err
		}
	}
	now := v.now().UnixMilli()
	sum := sha256.Sum256([]byte(token))
	if claims := set.verified.get(&sum); claims != nil {
		if err := v.live(claims, now); err != nil {
			return nil, err
		}
		if err := v.current(ctx, claims); err != nil {
			return nil, err
		}
		v.repeated.Add(1)
		return claims, nil
	}
	if err := t.parseHeader(); err != nil {
		return nil, err
	}
	keys, set, err := v.keysFor(ctx, set, &t)
	if err != nil {
		return nil, err
	}
	if !t.signedBy(keys) {
		return nil, ErrSignature
	}
	claims, err := v.claims(&t)
	if err != nil {
		return nil, err
	}
	claims.revocable(keys[0].kid)
	if err := v.live(claims, now); err != nil {
		return nil, err
	}
	if err := v.current(ctx, claims); err != nil {
		return nil, err
	}
	set.verified.put(&sum, claims, now/1000)
	v.verified.Add(1)
	return claims, nil
}

// keysFor finds the keys a token may be signed with, and the set they are of: a
// newer one than set when the kid had to be fetched.
func (v *Verifier) keysFor(ctx context.Context, set *keySet, t *jws) ([]*publicKey, *keySet, error) {
	if !slices.Contains(v.algorithms, t.alg) {
		return nil, nil, ErrAlgorithm
	}
	if t.kid == "" {
		if !v.withoutKID || set.only == nil {
			return nil, nil, ErrUnknownKey
		}
		return []*publicKey{set.only}, set, nil
	}
	keys := set.byKID[t.kid]
	if keys == nil {
		if set = v.keys.miss(ctx); set == nil {
			return nil, nil, v.keys.notReady()
		}
		if keys = set.byKID[t.kid]; keys == nil {
			return nil, nil, ErrUnknownKey
		}
	}
	return keys, set, nil
}

// claims decodes the payload of a token whose signature is right and compares
// what cannot change while it lives.
func (v *Verifier) claims(t *jws) (*Claims, error) {
	var buf [maxToken / 4 * 3]byte
	payload, ok := decodeBase64(buf[:], t.payload)
	if !ok {
		return nil, malformed("payload is not canonical base64url")
	}
	c, err := parseClaims(string(payload))
	switch {
	case err != nil:
		return nil, err
	case c.issuer != v.issuer:
		return nil, ErrIssuer
	case !slices.Contains(c.audience, v.audience):
		return nil, ErrAudience
	case c.bound: // RFC 7800 §3: we check no proof, so the bearer is not the holder
		return nil, ErrSenderConstrained
	}
	return c, nil
}

// live checks what may change between two uses of a token; now in Unix
// milliseconds.
func (v *Verifier) live(c *Claims, now int64) error {
	switch {
	case now >= c.expiresAt*1000+v.skew: // RFC 7519 §4.1.4: on or after
		return ErrExpired
	case now < c.notBefore*1000-v.skew, now < c.issuedAt*1000-v.skew:
		return ErrNotYetValid
	}
	return nil
}

// Stats are counters since the start and the state of the keys, for metrics.
type Stats struct {
	Verified uint64 // tokens whose signature was checked and accepted
	Repeated uint64 // tokens accepted from memory
	Refused  uint64 // tokens refused, for whatever reason

	Fetches       uint64        // attempts to fetch the key set
	FetchFailures uint64        // how many of them brought no usable set
	Keys          int           // usable keys now
	KeysIgnored   int           // keys of the current set we refuse to use
	KeyAge        time.Duration // since the last successful fetch; 0 before it

	Revocation RevocationStats
}

// Stats returns the figures of this moment.
func (v *Verifier) Stats() Stats {
	s := Stats{
		Verified:      v.verified.Load(),
		Repeated:      v.repeated.Load(),
		Refused:       v.refused.Load(),
		Fetches:       v.keys.fetches.Load(),
		FetchFailures: v.keys.failures.Load(),
		Revocation:    v.Revocation(),
	}
	if held := v.keys.held.Load(); held != nil {
		s.Keys, s.KeysIgnored, s.KeyAge = held.set.size, held.set.ignored, time.Since(held.fetched)
	}
	return s
}
