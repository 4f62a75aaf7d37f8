package proof

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
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
		people := []*person{d.person("ada"), d.person("bob"), d.person("cyd"), d.person("dan")}
		s := &siege{d: d, log: new(history.Log), stop: make(chan struct{})}
		var clients sync.WaitGroup
		var browsers []*browser
		for i := range 32 {
			browsers = append(browsers, d.browser(people[i%len(people)]))
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
			c := &client{siege: s, browser: b, app: app, window: window}
			clients.Go(c.run)
		}
		for !r.done() && !t.Failed() {
			time.Sleep(10 * time.Millisecond)
			if time.Since(began) > 9*time.Minute && !*long {
				t.Errorf("it takes too long: %v", r.deaths)
			}
		}
		close(s.stop)
		clients.Wait()
		lift()
		took := time.Since(began)

		// All is quiet now. What is answered from here on comes from the database.
		for _, server := range d.servers() {
			server.kill()
		}
		d.start(d.replicas())
		s.audit()
		for _, wrong := range history.Judge(s.log.Ops()) {
			t.Error(wrong)
		}
		t.Logf("%d lives in %s, ready after %s at the median and %s at most; deaths: %v", len(r.births), took.Round(time.Second),
			slices.Sorted(slices.Values(r.births))[len(r.births)/2].Round(time.Millisecond), slices.Max(r.births).Round(time.Millisecond), r.deaths)
		t.Logf("%d authorizations: %s; %d families looked at in the end", s.flows.Load(), s.log.Count(), len(s.families))
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

// siege is what the clients of one test share.
type siege struct {
	d     *deployment
	log   *history.Log
	flows atomic.Int64
	stop  chan struct{}

	mu       sync.Mutex
	families []family // to look at in the end
}

// family is what an app holds of an authorization.
type family struct {
	client *client
	flow   int
	tokens []string // the last is the one to use
	access string
}

func (s *siege) over() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// client is a person at a browser and the app they use.
type client struct {
	siege   *siege
	browser *browser
	app     *app
	window  time.Duration
}

func chance(one int) bool { return rand.IntN(one) == 0 }

// breathe lets a server come up.
func breathe() { time.Sleep(time.Duration(5+rand.IntN(20)) * time.Millisecond) }

func (c *client) run() {
	for !c.siege.over() {
		c.authorize()
	}
}

// authorize goes through one authorization, from the consent to an end.
func (c *client) authorize() {
	flow := int(c.siege.flows.Add(1))
	for {
		if err := c.browser.ask(c.app, "prompt", "consent"); err == nil && c.browser.status != http.StatusServiceUnavailable {
			break
		}
		if c.siege.over() {
			return
		}
		breathe()
	}
	if _, _, err := c.browser.form("allow"); err != nil {
		c.siege.d.t.Errorf("a session is lost: %v", err)
		return
	}
	consent := c.browser.page
	code := c.approve(flow)
	if chance(6) && code != "" {
		c.browser.page = consent
		code = c.approve(flow) // a double click
	}
	if code == "" || chance(20) {
		return
	}
	token, access := c.use(flow, history.Redeem, code, chance(6))
	tokens := []string{token}
	for n := rand.IntN(6); n > 0 && token != ""; n-- {
		if token, access = c.use(flow, history.Refresh, token, chance(6)); token != "" {
			tokens = append(tokens, token)
		}
	}
	switch rand.IntN(5) {
	case 0: // a thief, or a bug
		c.use(flow, history.Redeem, code, false)
	case 1:
		if len(tokens) > 2 {
			c.use(flow, history.Refresh, tokens[rand.IntN(len(tokens)-2)], false)
		}
	}
	if token == "" || chance(3) {
		return
	}
	c.siege.mu.Lock()
	defer c.siege.mu.Unlock()
	c.siege.families = append(c.siege.families, family{c, flow, tokens, access})
}

// approve presses the button of the consent page until there is an answer, and
// returns the code in it.
func (c *client) approve(flow int) (code string) {
	consent := c.browser.page
	for {
		o := history.Op{Flow: flow, Window: c.window, Kind: history.Approve, Outcome: history.Unknown, Call: time.Now()}
		c.browser.page = consent
		err := c.browser.press("allow")
		o.End = time.Now()
		switch code = c.browser.answered(c.app).Get("code"); {
		case err != nil || c.browser.status == http.StatusServiceUnavailable:
		case code != "":
			o.Outcome, o.Output = history.Granted, code
		case c.browser.left == nil && c.browser.status >= 400 && c.browser.status < 500:
			o.Outcome = history.Refused
		default:
			c.siege.d.t.Errorf("an approval is answered %s", c.browser.page)
			return ""
		}
		if !errors.Is(err, errDown) {
			c.siege.log.Add(o)
		}
		if o.Outcome != history.Unknown || c.siege.over() {
			return code
		}
		breathe()
	}
}

// use sends a code or a refresh token until there is an answer, and returns
// the refresh token and the access token in it. Twice sends each at the same
// time, perhaps to two replicas.
func (c *client) use(flow int, k history.Kind, input string, twice bool) (token, access string) {
	if !twice {
		return c.once(flow, k, input)
	}
	var other sync.WaitGroup
	other.Go(func() { c.once(flow, k, input) })
	token, access = c.once(flow, k, input)
	other.Wait()
	return token, access
}

func (c *client) once(flow int, k history.Kind, input string) (token, access string) {
	for {
		o := history.Op{Flow: flow, Window: c.window, Kind: k, Input: input, Outcome: history.Unknown, Call: time.Now()}
		send := c.app.tryRefresh
		if k == history.Redeem {
			send = c.app.tryRedeem
		}
		r, err := send(input)
		o.End = time.Now()
		switch {
		case err != nil || r.status == http.StatusServiceUnavailable:
		case r.status == http.StatusOK:
			o.Outcome, o.Output = history.Granted, r.member("refresh_token")
		case r.status == http.StatusBadRequest && r.member("error") == "invalid_grant":
			o.Outcome = history.Refused
		default:
			c.siege.d.t.Errorf("%s is answered %s", k, r)
			return "", ""
		}
		if !errors.Is(err, errDown) {
			c.siege.log.Add(o)
		}
		if o.Outcome != history.Unknown || c.siege.over() {
			return o.Output, r.member("access_token")
		}
		breathe()
	}
}

// audit uses what the apps still hold: the newest token of each family, which
// has to be good unless the family is dead, and then one from before.
func (s *siege) audit() {
	s.stop = make(chan struct{})
	var workers sync.WaitGroup
	next := make(chan family)
	var alive atomic.Int64
	for range 8 {
		workers.Go(func() {
			for f := range next {
				token, access := f.client.once(f.flow, history.Refresh, f.tokens[len(f.tokens)-1])
				if token == "" {
					continue // the judge knows whether that is right
				}
				alive.Add(1)
				for _, at := range s.d.servers() {
					a := *f.client.app
					a.at = at
					if !a.active(access) {
						s.d.t.Errorf("an access token that was just issued is not active at %s", at.public)
					}
				}
				if len(f.tokens) > 1 { // R4
					f.client.once(f.flow, history.Refresh, f.tokens[rand.IntN(len(f.tokens)-1)])
					f.client.once(f.flow, history.Refresh, token)
				}
			}
		})
	}
	for _, f := range s.families {
		next <- f
	}
	close(next)
	workers.Wait()
	if alive.Load() == 0 {
		s.d.t.Error("no family is alive in the end")
	}
}
