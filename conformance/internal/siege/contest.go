package siege

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
)

// Contend goes through one authorization after the other until ctx ends. Unlike
// Run, it has the codes and tokens of each used by several at a time, most of
// them lawfully, revoked in between, and looked at. The person must have
// consented: nobody is asked.
func (c *Client) Contend(ctx context.Context) {
	for ctx.Err() == nil {
		c.contest(ctx)
	}
}

// holdings is what rivals for one authorization know of it.
type holdings struct {
	code string

	mu      sync.Mutex
	tokens  []string // refresh tokens, in the order in which they came
	access  []string // access tokens
	refused int
}

// got notes an answer to a code or a refresh token, "" for a refusal.
func (h *holdings) got(token, access string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if token == "" {
		h.refused++
		return
	}
	if !slices.Contains(h.tokens, token) {
		h.tokens = append(h.tokens, token)
	}
	h.access = append(h.access, access)
}

// back returns the refresh token that came n before the newest, or the first.
func (h *holdings) back(n int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tokens[max(0, len(h.tokens)-1-n)]
}

// contest takes one authorization from its code to its end.
func (c *Client) contest(ctx context.Context) {
	const rivals, turns = 4, 16
	flow, h := int(c.siege.flows.Add(1)), new(holdings)
	for h.code == "" {
		o := history.Op{Flow: flow, Window: c.Window, Kind: history.Approve, Outcome: history.Granted, Call: time.Now()}
		err := c.Browser.Ask(c.App)
		o.End, o.Output = time.Now(), c.Browser.Answered(c.App).Get("code")
		switch {
		case err == nil && o.Output != "":
			h.code = o.Output
			c.siege.Log.Add(o)
		case err == nil && c.Browser.Status != http.StatusServiceUnavailable:
			c.siege.Wrong("an authorization request is answered %s", c.Browser.Page)
			return
		case ctx.Err() != nil:
			return
		default: // a code that nobody was told is of no account
			breathe()
		}
	}
	if !chance(5) { // otherwise the code itself is contended for
		h.got(c.once(ctx, flow, history.Redeem, h.code))
	}
	var all sync.WaitGroup
	for i := range rivals {
		all.Go(func() {
			for range turns {
				// Without a window, whoever comes late ends the family: one
				// uses it, and the others only now and then.
				bold := c.Window > 0 || i == 0 || chance(12)
				if ctx.Err() != nil || !c.move(ctx, flow, h, bold) {
					return
				}
			}
		})
	}
	all.Wait()
}

// move makes one operation of any kind; the current refresh token and the one
// before it are for the bold. It says whether there was something left to see.
func (c *Client) move(ctx context.Context, flow int, h *holdings, bold bool) bool {
	h.mu.Lock()
	unused, over, seen := len(h.tokens) == 0, h.refused > 4, slices.Clone(h.access)
	h.mu.Unlock()
	if over {
		return false
	}
	switch p := rand.IntN(200); {
	case unused || p < 2:
		h.got(c.once(ctx, flow, history.Redeem, h.code))
	case p < 4:
		c.once(ctx, flow, history.Revoke, h.back(rand.IntN(3)))
	case p < 6:
		h.got(c.once(ctx, flow, history.Refresh, h.back(2+rand.IntN(3))))
	case p < 30 && bold:
		h.got(c.once(ctx, flow, history.Refresh, h.back(1)))
	case p < 120 && bold:
		h.got(c.once(ctx, flow, history.Refresh, h.back(0)))
	default:
		c.once(ctx, flow, history.Look, seen[rand.IntN(len(seen))])
	}
	return true
}
