package provider

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Sizes of access tokens: from largeToken some proxies begin to refuse them, and
// a client or a person with many roles gets there unnoticed.
const (
	largeToken = 1 << 10
	// warnEvery is how often one client's tokens are warned of.
	warnEvery = time.Hour
)

// largestClaims names the largest claims with their bytes, never their values.
func largestClaims(claims []byte) string {
	const most = 3
	var members map[string]json.RawMessage
	if json.Unmarshal(claims, &members) != nil {
		return "unknown" // they are our own, so this does not happen
	}
	size := func(name string) int { return len(name) + len(members[name]) + 4 } // quotes, colon and comma
	names := slices.SortedFunc(maps.Keys(members), func(a, b string) int {
		return cmp.Or(cmp.Compare(size(b), size(a)), strings.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, size(name))
	}
	return strings.Join(names[:min(most, len(names))], ", ")
}

// checkSize measures an access token and refuses one that is too large. A large
// one is logged, once in a while for each client.
func (p *Provider) checkSize(clientID, token string, claims []byte) error {
	p.metrics.tokenBytes.Observe(float64(len(token)))
	if len(token) > p.policy.MaxTokenBytes {
		return invalidScope(fmt.Sprintf("The access token would have %d bytes, and at most %d are allowed; its largest claims in bytes: %s. Ask for less.",
			len(token), p.policy.MaxTokenBytes, largestClaims(claims)))
	}
	if len(token) < largeToken {
		return nil
	}
	now := p.now()
	if last, ok := p.largeTokens.get(clientID); !ok || now.Sub(last) >= warnEvery {
		p.largeTokens.put(clientID, now)
		p.log.Warn("an access token is so large that some proxies refuse it",
			"client_id", clientID, "bytes", len(token), "largest_claims", largestClaims(claims))
	}
	return nil
}
