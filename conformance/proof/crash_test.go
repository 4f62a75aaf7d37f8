package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
)

// The servers are killed without end, at the worst moments and at any, while
// 32 browsers and apps go on. Judged by what those noted, no code or refresh
// token is valid twice, nothing that was answered is lost, and a lost answer to
// an approval or a refresh can be had again.
func TestKilled(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		deaths := often(20, 63) // at each failpoint: 160, or 500 in all
		d.start(d.replicas())
		lenient, strict := d.app("lenient", "--refresh-window", "60s"), d.app("strict", "--refresh-window", "0s")
		four := []*people.Person{d.person("ada"), d.person("bob"), d.person("cyd"), d.person("dan")}
		s := &siege.Siege{Wrong: t.Errorf}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var clients sync.WaitGroup
		var browsers []*browser
		for i := range 32 {
			browsers = append(browsers, d.browser(four[i%len(four)]))
		}
		for _, server := range d.servers() {
			server.kill()
		}
		began := time.Now()
		r := newReaper(deaths)
		lift := d.keep(d.replicas(), r.arm, r.buried)
		for i, b := range browsers {
			app, window := lenient, time.Minute
			if i%4 == 3 {
				app, window = strict, 0
			}
			c := s.NewClient(b.Browser, app.App, window)
			clients.Go(func() { c.Run(ctx) })
		}
		for !r.done() && !t.Failed() {
			time.Sleep(10 * time.Millisecond)
			if time.Since(began) > 9*time.Minute && !*long {
				t.Errorf("it takes too long: %v", r.deaths)
			}
		}
		stop()
		clients.Wait()
		lift()
		took := time.Since(began)

		// All is quiet now. What is answered from here on comes from the database.
		for _, server := range d.servers() {
			server.kill()
		}
		d.start(d.replicas())
		s.Audit(d.each())
		for _, wrong := range history.Judge(s.Log.Ops()) {
			t.Error(wrong)
		}
		t.Logf("%d lives in %s, ready after %s at the median and %s at most; deaths: %v", len(r.births), took.Round(time.Second),
			slices.Sorted(slices.Values(r.births))[len(r.births)/2].Round(time.Millisecond), slices.Max(r.births).Round(time.Millisecond), r.deaths)
		t.Log(s)
	}, faulty)
}

// reaper decides where the next server dies.
type reaper struct {
	want   int
	mu     sync.Mutex
	deaths map[string]int
	births []time.Duration // from start to ready
}

func newReaper(want int) *reaper { return &reaper{want: want, deaths: make(map[string]int)} }

// anyMoment is no failpoint: the server is killed from outside.
const anyMoment = "any moment"

// arm chooses the failpoint with the fewest deaths, or no failpoint at all.
func (r *reaper) arm() (string, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	points := append(failpoints(), anyMoment)
	rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	point := slices.MinFunc(points, func(a, b string) int { return r.deaths[a] - r.deaths[b] })
	if point == anyMoment {
		return "", time.Duration(50+rand.IntN(500)) * time.Millisecond
	}
	nth := 1 + rand.IntN(8)
	if strings.HasPrefix(point, "revoke") { // rare
		nth = 1 + rand.IntN(2)
	}
	return fmt.Sprintf("%s=kill@%d", point, nth), 0
}

// buried notes how a server died.
func (r *reaper) buried(s *server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, err := os.ReadFile(s.log)
	if err != nil {
		s.d.t.Error(err)
	}
	point := anyMoment
	if _, after, found := strings.Cut(string(text), "failpoint "); found {
		point, _, _ = strings.Cut(after, "\n")
	}
	r.deaths[point]++
	r.births = append(r.births, s.birth)
}

func (r *reaper) done() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, point := range failpoints() {
		if r.deaths[point] < r.want {
			return false
		}
	}
	return true
}
