package provider

import (
	"testing"
	"time"
)

// An entry outlives what it refuses at the verifier that takes tokens longest:
// package verify allows 60 s of skew, by a clock that may be 15 s and the skew
// behind the feed's before the feed counts as stale.
func TestEntriesOutliveTokensAtVerifiersWithSlowClocks(t *testing.T) {
	const skew, behind = 60 * time.Second, 75 * time.Second
	p, now := DefaultPolicy(), time.Unix(1_800_000_000, 0)
	if last := now.Add(p.MaxAccessTokenLifetime + skew + behind); p.RevokedUntil(now).Before(last) {
		t.Errorf("until %s, and a token is taken until %s", p.RevokedUntil(now), last)
	}
	if p.lastAccepted(now).Before(now.Add(skew + behind)) {
		t.Errorf("a single token is forgotten at %s", p.lastAccepted(now))
	}
}
