package provider

import (
	"net/netip"
	"sync"
	"time"
)

// throttle tells guessers of client credentials, and strangers who have much
// kept or fetched for them, to slow down. It counts per client and address, and
// per address alone. The count is this replica's own, and never stands in the way
// of right credentials: secrets of 256 bits are not guessed, and checking one
// costs a microsecond (RFC 6749 §10.10).
type throttle struct {
	perClient  limit
	perAddress limit

	mu      sync.Mutex // held from reading a bucket to writing it
	buckets *cache[throttleKey, bucket]
}

// throttleKey has no client for the bucket of an address as a whole.
type throttleKey struct{ client, address string }

// bucket is a token bucket of failures: each takes one, time gives them back.
type bucket struct {
	spent float64
	at    time.Time
}

// limit says how many failures a bucket holds and how fast they are forgiven.
type limit struct{ burst, perSecond float64 }

// maxBuckets bounds what guessers can make this replica remember.
const maxBuckets = 50_000

// newThrottle returns a throttle. A client that fails on and on fills its own
// bucket, not that of its neighbours behind the same address, which should
// forgive faster.
func newThrottle(perClient, perAddress limit) *throttle {
	return &throttle{perClient: perClient, perAddress: perAddress, buckets: newCache[throttleKey, bucket](maxBuckets)}
}

// failed records a failure and reports whether there were too many before it.
func (t *throttle) failed(client, address string, now time.Time) (tooMany bool) {
	address = network(address)
	one, all := throttleKey{client, address}, throttleKey{"", address}
	t.mu.Lock()
	defer t.mu.Unlock()
	byClient, byAddress := t.spent(one, t.perClient, now), t.spent(all, t.perAddress, now)
	if byClient >= t.perClient.burst || byAddress >= t.perAddress.burst {
		return true
	}
	t.buckets.put(one, bucket{byClient + 1, now})
	t.buckets.put(all, bucket{byAddress + 1, now})
	return false
}

// spent is what time has left of the key's failures. The caller holds the lock.
func (t *throttle) spent(key throttleKey, l limit, now time.Time) float64 {
	b, _ := t.buckets.get(key)
	return max(0, b.spent-now.Sub(b.at).Seconds()*l.perSecond)
}

// network is what one party can be assumed to hold: an IPv4 address or an
// IPv6 /64.
func network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Unmap().Is4() {
		return address
	}
	prefix, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}
