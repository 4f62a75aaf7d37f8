package proof

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// contenders is how many use the same thing at the same time.
const contenders = 64

// atOnce calls f in as many goroutines as there are contenders, all released
// together, and returns what it returned.
func atOnce(t *testing.T, f func() (people.Reply, error)) []people.Reply {
	t.Helper()
	replies, errs := make([]people.Reply, contenders), make([]error, contenders)
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
func winners(t *testing.T, replies []people.Reply) []people.Reply {
	t.Helper()
	return slices.DeleteFunc(replies, func(r people.Reply) bool {
		if r.Status != http.StatusOK && (r.Status != http.StatusBadRequest || r.Member("error") != "invalid_grant") {
			t.Fatalf("a loser is answered %s", r)
		}
		return r.Status != http.StatusOK
	})
}

// supply yields n codes, each got while the one before is in use.
func (b *browser) supply(a *app, n int) <-chan string {
	codes := make(chan string, 1)
	go func() {
		defer close(codes)
		for range n {
			err := b.Ask(a.App, "prompt", "consent")
			if err == nil {
				err = b.Press("allow")
			}
			if err != nil {
				b.d.t.Error(err)
			}
			codes <- b.Answered(a.App).Get("code")
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
			won := winners(t, atOnce(t, func() (people.Reply, error) { return shop.TryRedeem(code) }))
			if len(won) != 1 {
				t.Fatalf("%d got tokens for one code", len(won))
			}
			if r := shop.refresh(won[0].Member("refresh_token")); r.Member("error") != "invalid_grant" {
				t.Fatalf("after a replay: %s", r)
			}
			if shop.active(won[0].Member("access_token")) {
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
				first := a.redeem(code).Member("refresh_token")
				won := winners(t, atOnce(t, func() (people.Reply, error) { return a.TryRefresh(first) }))
				if a == strict && len(won) != 1 || a == lenient && len(won) != contenders {
					t.Fatalf("%s: %d of %d are answered", a.ID, len(won), contenders)
				}
				successor := won[0].Member("refresh_token")
				for _, r := range won {
					if r.Member("refresh_token") != successor || !strings.HasPrefix(successor, "sgr_") {
						t.Fatalf("%s: two successors", a.ID)
					}
				}
				if successor == first {
					t.Fatalf("%s: the token was not rotated", a.ID)
				}
				r := a.refresh(successor)
				if a == lenient && r.Status != http.StatusOK || a == strict && r.Member("error") != "invalid_grant" {
					t.Fatalf("%s: the successor: %s", a.ID, r)
				}
				// The generation went on once, not more often: the first is by now two back.
				if r := a.refresh(first); r.Member("error") != "invalid_grant" {
					t.Fatalf("%s: reuse: %s", a.ID, r)
				}
			}
		}
	})
}
