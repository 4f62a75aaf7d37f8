package provider

import (
	"fmt"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	th := newThrottle(limit{burst: 20, perSecond: 0.2}, limit{burst: 200, perSecond: 5})
	tries := 0
	for range 10_000 {
		if th.failed("shop", "192.0.2.1", now) {
			break
		}
		tries++
	}
	if tries != int(th.perClient.burst) {
		t.Fatalf("%d failures were answered plainly, want %v", tries, th.perClient.burst)
	}
	if th.failed("shop", "198.51.100.7", now) {
		t.Error("the client elsewhere is throttled too")
	}
	if th.failed("billing", "192.0.2.1", now) {
		t.Error("the neighbour behind the same address is throttled too")
	}
	if th.failed("shop", "192.0.2.1", now.Add(6*time.Second)) {
		t.Error("still throttled after a failure was forgiven")
	}
}

func TestThrottleCountsAnAddressOverAllClients(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	th := newThrottle(limit{burst: 20, perSecond: 0.2}, limit{burst: 200, perSecond: 5})
	for i := range int(th.perAddress.burst) {
		// One holder of an IPv6 network has all its addresses.
		th.failed(fmt.Sprintf("client-%d", i), fmt.Sprintf("2001:db8:1:2::%x", i), now)
	}
	if !th.failed("another", "2001:db8:1:2:ffff::1", now) {
		t.Error("an address that failed as many clients is not throttled")
	}
	if th.failed("another", "2001:db8:1:3::1", now) {
		t.Error("the next network is throttled too")
	}
}

func TestThrottleIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	th := newThrottle(limit{burst: 20, perSecond: 0.2}, limit{burst: 200, perSecond: 5})
	for i := range 2 * maxBuckets {
		th.failed(fmt.Sprint(i), "192.0.2.1", now)
		now = now.Add(time.Microsecond)
	}
	if n := len(th.buckets.newer) + len(th.buckets.older); n > maxBuckets {
		t.Fatalf("%d buckets, want at most %d", n, maxBuckets)
	}
	if !th.failed("late", "192.0.2.1", now) {
		t.Error("the address that failed all along was forgotten")
	}
}
