package proof

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
)

// Codes, refresh tokens and what was made of them are used by several at once,
// revoked in between, and looked at. Whatever was answered, all of it can have
// happened one after the other: histories of 100,000 operations, half on each
// database (1,000,000 with -long), at the built servers, by HTTP.
func TestLinearizable(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		c := d.contest()
		began := time.Now()
		s := c.run(often(50_000, 500_000))
		took := time.Since(began)
		for _, wrong := range history.Judge(s.Log.Ops()) {
			t.Error(wrong)
		}
		t.Logf("%d operations in %s, judged in %s; %s", s.Log.Size(), took.Round(time.Second), (time.Since(began) - took).Round(time.Second), s)
	})
}

// contest is apps and browsers that contend for authorizations.
type contest struct {
	d               *deployment
	lenient, strict *app
	browsers        []*browser
}

// contest registers apps, and signs people in who consent to all of them.
func (d *deployment) contest() *contest {
	d.t.Helper()
	c := &contest{d: d, lenient: d.app("lenient", "--refresh-window", "60s"), strict: d.app("strict", "--refresh-window", "0s")}
	two := []*people.Person{d.person("ada"), d.person("bob")}
	for i := range 8 {
		b := d.browser(two[i%len(two)])
		b.code(c.lenient)
		b.code(c.strict)
		c.browsers = append(c.browsers, b)
	}
	return c
}

// begin lets them contend until ctx ends. wait waits until all have noticed.
func (c *contest) begin(ctx context.Context) (s *siege.Siege, wait func()) {
	s = &siege.Siege{Wrong: c.d.t.Errorf}
	var all sync.WaitGroup
	for i, b := range c.browsers {
		app, window := c.lenient, time.Minute
		if i%4 == 3 {
			app, window = c.strict, 0
		}
		all.Go(func() { s.NewClient(b.Browser, app.App, window).Contend(ctx) })
	}
	return s, all.Wait
}

// run lets them contend until that many operations were noted.
func (c *contest) run(operations int) *siege.Siege {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s, wait := c.begin(ctx)
	for s.Log.Size() < operations && !c.d.t.Failed() {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	wait()
	return s
}
