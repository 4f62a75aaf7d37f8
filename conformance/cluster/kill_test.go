//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
)

// Replicas are killed at random while 32 browsers and apps go on through the
// balancer. Judged by what those noted, no code or refresh token is valid twice
// and nothing that was answered is lost; and after each kill somebody has a good
// answer within 2 s.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Second
	var strict *people.App
	var four []*people.Person
	b := newBench(t, ordinary, func(*settings) {}, func(b *bench) {
		var err error
		strict, err = b.app("strict", "--refresh-window", "0s")
		must(t, err)
		for _, name := range []string{"bob", "cyd", "dan", "eve"} {
			p, err := b.person(name)
			must(t, err)
			four = append(four, p)
		}
	})
	s := &siege.Siege{Wrong: t.Errorf}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var browsers []*people.Browser
	for i := range 32 {
		browser := people.NewBrowser(b.issuer, four[i%len(four)], b.shop.Via)
		must(t, browser.SignIn())
		browsers = append(browsers, browser)
	}
	for i, browser := range browsers {
		app, window := b.shop, time.Minute
		if i%4 == 3 {
			app, window = strict, 0
		}
		c := s.NewClient(browser, app, window)
		clients.Go(func() { c.Run(ctx) })
	}
	var kills []time.Time
	var births []time.Duration
	for range often(20, 500) {
		time.Sleep(time.Duration(100+rand.IntN(600)) * time.Millisecond) // any moment
		r := b.replicas[rand.IntN(len(b.replicas))]
		kills = append(kills, time.Now())
		r.kill()
		must(t, r.launch())
		births = append(births, r.born)
		must(t, r.balanced())
		if t.Failed() {
			break
		}
	}
	stop()
	clients.Wait()

	// All is quiet now. What is answered from here on comes from the database.
	var direct []http.RoundTripper
	for _, r := range b.replicas {
		r.kill()
		must(t, r.launch())
		must(t, r.balanced())
		direct = append(direct, &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.address)
		}})
	}
	ops := s.Log.Ops()
	s.Audit(direct)
	for _, wrong := range history.Judge(s.Log.Ops()) {
		t.Error(wrong)
	}
	waits := recoveries(kills, ops)
	slices.Sort(waits)
	slices.Sort(births)
	middle, worst := waits[len(waits)/2], waits[len(waits)-1]
	t.Logf("%d kills; the first good answer to what was sent after one came after %s at the median and %s at most; replicas were ready after %s at the median and %s at most",
		len(kills), middle.Round(time.Millisecond), worst.Round(time.Millisecond), births[len(births)/2].Round(time.Millisecond), births[len(births)-1].Round(time.Millisecond))
	t.Log(s)
	// A machine that is busy with all the other tests may stand still for a
	// while: the worst case is judged where there is time to measure it.
	if middle > within || *long && worst > within {
		t.Errorf("want a good answer within %s of each kill", within)
	}
}

// recoveries returns how long after each moment the first good answer came to a
// request that was sent later.
func recoveries(moments []time.Time, ops []history.Op) []time.Duration {
	var all []time.Duration
	for _, at := range moments {
		first := time.Duration(1<<63 - 1) // never
		for _, o := range ops {
			if o.Outcome == history.Granted && o.Call.After(at) {
				first = min(first, o.End.Sub(at))
			}
		}
		all = append(all, first)
	}
	return all
}
