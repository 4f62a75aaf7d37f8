// Package siege has people and apps that go on whatever happens to the servers:
// they sign in to apps, use codes and refresh tokens, sometimes twice and
// sometimes long after, ask again when an answer is lost, and note all of it for
// package history to judge.
package siege

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
)

// ErrNotSent is the error of a transport that did not send a request at all, so
// that it cannot have taken effect.
var ErrNotSent = errors.New("the request was not sent")

// Siege is what the clients of one test share.
type Siege struct {
	Log   history.Log
	Wrong func(format string, args ...any) // is told of answers that no server may give; for any goroutine

	flows atomic.Int64

	mu       sync.Mutex
	families []family // to look at in the end
}

// family is what an app holds of an authorization.
type family struct {
	client *Client
	flow   int
	tokens []string // the last is the one to use
	access string
}

// String says how much there is to judge.
func (s *Siege) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d authorizations: %s; %d families to look at in the end", s.flows.Load(), s.Log.Count(), len(s.families))
}

// Client is a person at a browser, signed in, and the app they use.
type Client struct {
	siege   *Siege
	Browser *people.Browser
	App     *people.App
	Window  time.Duration // in which the app may repeat a refresh
}

// NewClient returns a client of the siege.
func (s *Siege) NewClient(b *people.Browser, a *people.App, window time.Duration) *Client {
	return &Client{siege: s, Browser: b, App: a, Window: window}
}

func chance(one int) bool { return rand.IntN(one) == 0 }

// breathe lets a server come up.
func breathe() { time.Sleep(time.Duration(5+rand.IntN(20)) * time.Millisecond) }

// Run goes through one authorization after the other until ctx ends.
func (c *Client) Run(ctx context.Context) {
	for ctx.Err() == nil {
		c.authorize(ctx)
	}
}

// authorize goes through one authorization, from the consent to an end.
func (c *Client) authorize(ctx context.Context) {
	flow := int(c.siege.flows.Add(1))
	for {
		if err := c.Browser.Ask(c.App, "prompt", "consent"); err == nil && c.Browser.Status != http.StatusServiceUnavailable {
			break
		}
		if ctx.Err() != nil {
			return
		}
		breathe()
	}
	if _, _, err := c.Browser.Form("allow"); err != nil {
		c.siege.Wrong("a session is lost: %v", err)
		return
	}
	consent := c.Browser.Page
	code := c.approve(ctx, flow)
	if chance(6) && code != "" {
		c.Browser.Page = consent
		code = c.approve(ctx, flow) // a double click
	}
	if code == "" || chance(20) {
		return
	}
	token, access := c.use(ctx, flow, history.Redeem, code, chance(6))
	tokens := []string{token}
	for n := rand.IntN(6); n > 0 && token != ""; n-- {
		if token, access = c.use(ctx, flow, history.Refresh, token, chance(6)); token != "" {
			tokens = append(tokens, token)
		}
	}
	switch rand.IntN(5) {
	case 0: // a thief, or a bug
		c.use(ctx, flow, history.Redeem, code, false)
	case 1:
		if len(tokens) > 2 {
			c.use(ctx, flow, history.Refresh, tokens[rand.IntN(len(tokens)-2)], false)
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
func (c *Client) approve(ctx context.Context, flow int) (code string) {
	consent := c.Browser.Page
	for {
		o := history.Op{Flow: flow, Window: c.Window, Kind: history.Approve, Outcome: history.Unknown, Call: time.Now()}
		c.Browser.Page = consent
		err := c.Browser.Press("allow")
		o.End = time.Now()
		switch code = c.Browser.Answered(c.App).Get("code"); {
		case err != nil || c.Browser.Status == http.StatusServiceUnavailable:
		case code != "":
			o.Outcome, o.Output = history.Granted, code
		case c.Browser.Left == nil && c.Browser.Status >= 400 && c.Browser.Status < 500:
			o.Outcome = history.Refused
		default:
			c.siege.Wrong("an approval is answered %s", c.Browser.Page)
			return ""
		}
		if !errors.Is(err, ErrNotSent) {
			c.siege.Log.Add(o)
		}
		if o.Outcome != history.Unknown || ctx.Err() != nil {
			return code
		}
		breathe()
	}
}

// use sends a code or a token until there is an answer, and returns the refresh
// token and the access token in it. Twice sends each at the same time, perhaps
// to two replicas.
func (c *Client) use(ctx context.Context, flow int, k history.Kind, input string, twice bool) (token, access string) {
	if !twice {
		return c.once(ctx, flow, k, input)
	}
	var other sync.WaitGroup
	other.Go(func() { c.once(ctx, flow, k, input) })
	token, access = c.once(ctx, flow, k, input)
	other.Wait()
	return token, access
}

func (c *Client) once(ctx context.Context, flow int, k history.Kind, input string) (token, access string) {
	for {
		o := history.Op{Flow: flow, Window: c.Window, Kind: k, Input: input, Outcome: history.Unknown, Call: time.Now()}
		send := map[history.Kind]func(string) (people.Reply, error){
			history.Redeem: c.App.TryRedeem, history.Refresh: c.App.TryRefresh,
			history.Revoke: c.App.TryRevoke, history.Look: c.App.TryIntrospect,
		}[k]
		r, err := send(input)
		o.End = time.Now()
		switch {
		case err != nil || r.Status == http.StatusServiceUnavailable:
		case r.Status == http.StatusOK && k == history.Look && r.Member("active") == "false":
			o.Outcome = history.Refused
		case r.Status == http.StatusOK:
			o.Outcome, o.Output = history.Granted, r.Member("refresh_token")
		case r.Status == http.StatusBadRequest && r.Member("error") == "invalid_grant":
			o.Outcome = history.Refused
		default:
			c.siege.Wrong("%s is answered %s", k, r)
			return "", ""
		}
		if !errors.Is(err, ErrNotSent) {
			c.siege.Log.Add(o)
		}
		if o.Outcome != history.Unknown || ctx.Err() != nil {
			return o.Output, r.Member("access_token")
		}
		breathe()
	}
}

// Audit uses what the apps still hold when all is quiet: the newest token of
// each family, which has to be good unless the family is dead, and then one from
// before. An access token that was just issued has to be active by way of each of
// servers.
func (s *Siege) Audit(servers []http.RoundTripper) {
	ctx := context.Background()
	var workers sync.WaitGroup
	next := make(chan family)
	var alive atomic.Int64
	for range 8 {
		workers.Go(func() {
			for f := range next {
				token, access := f.client.once(ctx, f.flow, history.Refresh, f.tokens[len(f.tokens)-1])
				if token == "" {
					continue // the judge knows whether that is right
				}
				alive.Add(1)
				for i, via := range servers {
					a := *f.client.App
					a.Via = via
					if active, err := a.Active(access); err != nil || !active {
						s.Wrong("an access token that was just issued is not active at server %d: %v", i, err)
					}
				}
				if len(f.tokens) > 1 { // R4
					f.client.once(ctx, f.flow, history.Refresh, f.tokens[rand.IntN(len(f.tokens)-1)])
					f.client.once(ctx, f.flow, history.Refresh, token)
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
		s.Wrong("no family is alive in the end")
	}
}
