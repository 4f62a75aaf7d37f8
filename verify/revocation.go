package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// A Policy says what happens to a request while the state of revocations is
// stale: nothing signed and new has come from the issuer's feed for 15 seconds,
// or the issuer names no feed at all.
type Policy int

const (
	Open   Policy = iota // accept: a revoked token may live until it expires
	Soft                 // accept tokens younger than 60 s, else 401: the client's refresh asks the issuer
	Closed               // answer 503 with Retry-After
)

const (
	staleAfter = 15 * time.Second
	softAge    = 60 * time.Second
)

// WithoutRevocation follows no feed even where the issuer names one: tokens count
// until they expire, and [WhenStale] lets everything pass.
func WithoutRevocation() Option { return func(o *options) { o.revocation.off = true } }

// WithRevocationFeed names the feed's address instead of asking the issuer's
// metadata for revocation_feed_endpoint, and is needed with [WithJWKSURI], which
// does not ask it. It may be on another host, but must be https unless on loopback.
func WithRevocationFeed(url string) Option {
	return func(o *options) { o.revocation.endpoint = url }
}

// WithFeedToken gives the access tokens for a feed that demands one: source is
// asked before each request to the feed and should keep a token while it lives.
func WithFeedToken(source func(context.Context) (string, error)) Option {
	return func(o *options) { o.revocation.token = source }
}

// WithColdStart answers requests before the revocations are known for the first
// time, as if they were stale; else they get 503 until then.
func WithColdStart() Option { return func(o *options) { o.revocation.coldStart = true } }

// WithWhenStale sets the policy of [Verifier.Verify] and of every route, Open by
// default. A route can only be stricter: see [WhenStale].
func WithWhenStale(p Policy) Option { return func(o *options) { o.revocation.policy = p } }

// WithMaxRevocations sets how many revocations are held, 2 million by default, of
// some 30 bytes each. Beyond it the state is stale until there are fewer, and
// Open means Soft: none is ever dropped in silence.
func WithMaxRevocations(n int) Option { return func(o *options) { o.revocation.most = n } }

const defaultMaxRevocations = 2_000_000

type revocationOptions struct {
	off, coldStart bool
	endpoint       string
	token          func(context.Context) (string, error)
	policy         Policy
	most           int
}

func (o *revocationOptions) validate() error {
	switch {
	case o.policy < Open || o.policy > Closed:
		return errors.New("unknown policy")
	case o.most < 1:
		return errors.New("room for no revocation")
	case o.off && o.endpoint != "":
		return errors.New("a revocation feed is named, and is not to be followed")
	}
	if o.endpoint != "" {
		u, err := secureURL(o.endpoint)
		if err != nil {
			return fmt.Errorf("revocation feed: %w", err)
		}
		if u.RawQuery != "" || u.Fragment != "" {
			return errors.New("revocation feed: has a query or fragment")
		}
	}
	return nil
}

// revocationKeys are what revocations may be about in one token, computed when it
// is first verified. Of the issuer there is one for all tokens.
type revocationKeys struct {
	keys [kindKey]revocationKey
	n    int
}

func (k *revocationKeys) add(kind uint32, value string) {
	if value != "" {
		k.keys[k.n] = keyOf(kind, value)
		k.n++
	}
}

// revocable computes the keys of claims signed by the key named kid.
func (c *Claims) revocable(kid string) {
	c.revocation.add(kindToken, c.id)
	c.revocation.add(kindGrant, c.grantID)
	c.revocation.add(kindSession, c.sessionID)
	c.revocation.add(kindSubject, c.subject)
	c.revocation.add(kindClient, c.clientID)
	c.revocation.add(kindKey, kid)
}

// refuses reports whether a revocation concerns the token: one is enough.
func (t *table) refuses(c *Claims, issuer *revocationKey) bool {
	if t.size == 0 {
		return false
	}
	for i := range c.revocation.keys[:c.revocation.n] {
		if r := t.find(&c.revocation.keys[i]); r != nil && r.refuses(c.issuedAt) {
			return true
		}
	}
	r := t.find(issuer)
	return r != nil && r.refuses(c.issuedAt)
}

// current checks what revocations say of a verified token now, and the default
// policy.
func (v *Verifier) current(ctx context.Context, c *Claims) error {
	if v.lists != nil {
		if err := v.lists.judge(ctx, c); err != nil {
			if errors.Is(err, ErrRevoked) {
				v.revoked.Add(1)
			}
			return err
		}
		return v.whenStale(c, v.policy)
	}
	if v.feed == nil {
		return nil
	}
	if state := v.feed.state.Load(); state != nil && state.table.refuses(c, &v.feed.issuerKey) {
		v.revoked.Add(1)
		return ErrRevoked
	}
	return v.whenStale(c, v.policy)
}

// whenStale is nil when the state is not stale, or the policy accepts the token
// in spite of it.
func (v *Verifier) whenStale(c *Claims, p Policy) error {
	switch {
	case v.lists != nil:
		if p == Open || !v.lists.staleFor(c) {
			return nil
		}
	case v.feed == nil:
		return nil
	default:
		state := v.feed.state.Load()
		if p == Open && (state == nil || !state.overfull) || !v.feed.stale() {
			return nil
		}
	}
	var err error
	switch {
	case p == Closed:
		err = ErrStale
	case v.now().Sub(time.Unix(c.issuedAt, 0)) >= softAge:
		err = ErrTooOld
	default:
		return nil
	}
	v.stale.Add(1)
	return err
}

// WhenStale sets the policy of a route for the time the state of revocations is
// stale; the stricter of this and the default counts. It goes inside
// [Verifier.Middleware].
//
// Where the issuer names no feed the state is always stale, so Soft and Closed
// want one; [WithoutRevocation] turns them off.
func WhenStale(p Policy) func(http.Handler) http.Handler {
	if p < Open || p > Closed {
		panic("verify: WhenStale of an unknown policy")
	}
	return require(func(a *authenticated) *refusal {
		if err := a.verifier.whenStale(a.claims, p); err != nil {
			a.verifier.log.Debug("verify: token refused", slog.Any("error", err))
			return refusalOf(err)
		}
		return nil
	})
}

// The states of a verifier towards revocations.
const (
	RevocationOff   = "off"   // by WithoutRevocation
	RevocationNone  = "none"  // the issuer names no feed: tokens count until they expire
	RevocationCold  = "cold"  // not known yet
	RevocationFresh = "fresh" // followed
	RevocationLists = "lists" // judged by WithStatusList
	RevocationStale = "stale" // nothing new from the feed for 15 s, or it has to be read anew
)

// RevocationStats tell how the feed is followed, for metrics. Counters are since
// the start.
type RevocationStats struct {
	State   string        // one of the Revocation constants
	FeedID  string        // of the feed read last
	Seq     int64         // the last entry known
	Age     time.Duration // since the feed last showed to be current; 0 before it
	Entries int           // revocations held
	Full    bool          // there are more than WithMaxRevocations allows
	Polling bool          // by requests, since streams do not get through
	Lists   int           // status lists held; Age is then of the oldest

	Batches    uint64 // applied
	Heartbeats uint64 // accepted
	Snapshots  uint64 // loaded
	Resyncs    uint64 // how often the feed had to be read anew, for a gap or a break
	Ignored    uint64 // messages with nothing new in them, or too old to tell anything
	Failures   uint64 // requests, streams and messages that failed

	RefusedRevoked uint64 // tokens refused by a revocation
	RefusedStale   uint64 // tokens refused by Soft or Closed
}

// Revocation returns how revocations are followed at this moment.
func (v *Verifier) Revocation() RevocationStats {
	s := RevocationStats{State: RevocationOff, RefusedRevoked: v.revoked.Load(), RefusedStale: v.stale.Load()}
	switch {
	case v.lists != nil:
		v.lists.stats(&s)
	case v.feed != nil:
		v.feed.stats(&s)
	}
	return s
}
