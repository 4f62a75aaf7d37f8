package proof

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// contenders is how many use the same thing at the same time.
const contenders = 64

// atOnce calls f in as many goroutines as there are contenders, all released
// together, and returns what it returned.
func atOnce(t *testing.T, f func() (reply, error)) []reply {
	t.Helper()
	replies, errs := make([]reply, contenders), make([]error, contenders)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range contenders {
		all.Go(func() {
			<-start
			replies[i], errs[i] = f()
		})
	}
	close(start)
	all.Wait()
	for _, err := range errs {
		must(t, err)
	}
	return replies
}

// winners returns the answers that are 200; each other one has to be a refusal
// by RFC 6749 §5.2.
func winners(t *testing.T, replies []reply) []reply {
	t.Helper()
	return slices.DeleteFunc(replies, func(r reply) bool {
		if r.status != http.StatusOK && (r.status != http.StatusBadRequest || r.member("error") != "invalid_grant") {
			t.Fatalf("a loser is answered %s", r)
		}
		return r.status != http.StatusOK
	})
}

// supply yields n codes, each got while the one before is in use.
func (b *browser) supply(a *app, n int) <-chan string {
	codes := make(chan string, 1)
	go func() {
		defer close(codes)
		for range n {
			err := b.ask(a, "prompt", "consent")
			if err == nil {
				err = b.press("allow")
			}
			if err != nil {
				b.d.t.Error(err)
			}
			codes <- b.answered(a).Get("code")
		}
	}()
	return codes
}

// D4: one code by 64 at once, at all replicas: one gets tokens, and the others
// are replays that end what it got (RFC 6749 §4.1.2).
func TestOneCodeByManyAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		shop, b := d.app("shop"), d.browser(d.person("ada"))
		for code := range b.supply(shop, often(200, 1000)) {
			won := winners(t, atOnce(t, func() (reply, error) { return shop.tryRedeem(code) }))
			if len(won) != 1 {
				t.Fatalf("%d got tokens for one code", len(won))
			}
			if r := shop.refresh(won[0].member("refresh_token")); r.member("error") != "invalid_grant" {
				t.Fatalf("after a replay: %s", r)
			}
			if shop.active(won[0].member("access_token")) {
				t.Fatal("the access token of a replayed code is active")
			}
		}
	})
}

// R2, R3: one refresh token by 64 at once, at all replicas: within the window
// all get the one successor, without a window one does and the family ends.
func TestOneRefreshTokenByManyAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		lenient, strict := d.app("lenient", "--refresh-window", "60s"), d.app("strict", "--refresh-window", "0s")
		ada := d.person("ada")
		for _, a := range []*app{lenient, strict} {
			for code := range d.browser(ada).supply(a, often(200, 1000)) {
				first := a.redeem(code).member("refresh_token")
				won := winners(t, atOnce(t, func() (reply, error) { return a.tryRefresh(first) }))
				if a == strict && len(won) != 1 || a == lenient && len(won) != contenders {
					t.Fatalf("%s: %d of %d are answered", a.id, len(won), contenders)
				}
				successor := won[0].member("refresh_token")
				for _, r := range won {
					if r.member("refresh_token") != successor || !strings.HasPrefix(successor, "sgr_") {
						t.Fatalf("%s: two successors", a.id)
					}
				}
				if successor == first {
					t.Fatalf("%s: the token was not rotated", a.id)
				}
				r := a.refresh(successor)
				if a == lenient && r.status != http.StatusOK || a == strict && r.member("error") != "invalid_grant" {
					t.Fatalf("%s: the successor: %s", a.id, r)
				}
				// The generation went on once, not more often: the first is by now two back.
				if r := a.refresh(first); r.member("error") != "invalid_grant" {
					t.Fatalf("%s: reuse: %s", a.id, r)
				}
			}
		}
	})
}
