package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
)

const (
	cacheWays     = 4
	maxCachedSize = 8 << 10 // bytes one entry may hold, so the whole is bounded too
)

// A cache remembers tokens whose signature and fixed claims were right, by the
// SHA-256 of the whole token. It belongs to one key set of one Verifier, so what
// a removed key signed is forgotten with the set, and no policy is shared.
// Whatever can change while a token lives is checked on each use instead.
//
// It is a fixed table, each token having four places; nothing but a valid token
// can enter, and none can make it grow. Readers and writers take no lock.
type cache struct {
	slots []atomic.Pointer[cached]
}

type cached struct {
	sum    [sha256.Size]byte
	claims *Claims
}

// newCache holds up to entries tokens, rounded up to a multiple of four; 0 none.
func newCache(entries int) *cache {
	return &cache{slots: make([]atomic.Pointer[cached], (entries+cacheWays-1)/cacheWays*cacheWays)}
}

// places are the slots a token may be in. SHA-256 spreads them evenly, and
// nobody can choose them without the issuer's signature.
func (c *cache) places(sum *[sha256.Size]byte) []atomic.Pointer[cached] {
	if len(c.slots) == 0 {
		return nil
	}
	i := binary.BigEndian.Uint64(sum[:]) % uint64(len(c.slots)/cacheWays) * cacheWays
	return c.slots[i : i+cacheWays]
}

func (c *cache) get(sum *[sha256.Size]byte) *Claims {
	places := c.places(sum)
	for i := range places {
		if e := places[i].Load(); e != nil && e.sum == *sum {
			return e.claims
		}
	}
	return nil
}

// put remembers claims, in place of an expired token if there is one, else of
// one of the four by chance. now is in Unix seconds.
func (c *cache) put(sum *[sha256.Size]byte, claims *Claims, now int64) {
	places := c.places(sum)
	if places == nil || claims.size() > maxCachedSize {
		return
	}
	at := int(sum[len(sum)-1]) % cacheWays
	for i := range places {
		if e := places[i].Load(); e == nil || e.sum == *sum || e.claims.expiresAt < now {
			at = i
			break
		}
	}
	places[at].Store(&cached{sum: *sum, claims: claims})
}
