//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
)

// load asks for tokens at a steady rate, half of them for a service and half by
// refreshing, and gives each to verifiers: go-oidc and, if it is an access token,
// package verify in the sample API. Some are looked at again when half their life
// is over.
type load struct {
	service, app *people.App
	tokens       []string // a refresh token for each worker
	again        time.Duration

	apiURL  string // the sample API, which has package verify
	foreign *oidc.IDTokenVerifier

	mu     sync.Mutex
	counts counts
	wrong  map[string]int // what went wrong, and how often
}

// counts is what a load has done so far.
type counts struct {
	requests, verifications int
	failed, refused         int // requests that were not answered as they have to be; tokens that a verifier did not accept
	unavailable, unserved   int // of the failed: a replica said 503; the balancer had none to send them to
	kids                    map[string]int
	served                  map[string]int
}

func (c counts) String() string {
	var served []string
	for _, replica := range slices.Sorted(maps.Keys(c.served)) {
		served = append(served, fmt.Sprintf("%s %d", replica, c.served[replica]))
	}
	return fmt.Sprintf("%d requests, %d failed; %d verifications, %d tokens refused; keys that signed: %d; served by %s",
		c.requests, c.failed, c.verifications, c.refused, len(c.kids), strings.Join(served, ", "))
}

// newLoad prepares a load with so many requests in flight at most: an app in
// which the person signs in once for each. life is how long access tokens live.
func (c *cluster) newLoad(ctx context.Context, service, app *people.App, p *people.Person, workers int, life time.Duration) (*load, error) {
	l := &load{again: life / 2, apiURL: c.apiURL, counts: counts{kids: make(map[string]int), served: make(map[string]int)}, wrong: make(map[string]int)}
	via := c.via(c.ways[0], func(_ *http.Request, _ *http.Response, replica string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.counts.served[replica]++
	})
	asService, asApp := *service, *app
	asService.Via, asApp.Via = via, via
	l.service, l.app = &asService, &asApp
	b := people.NewBrowser(c.issuer, p, app.Via)
	if err := b.SignIn(); err != nil {
		return nil, err
	}
	for range workers {
		if err := b.Ask(app, "prompt", "consent"); err != nil {
			return nil, err
		}
		if err := b.Press("allow"); err != nil {
			return nil, err
		}
		r, err := app.TryRedeem(b.Answered(app).Get("code"))
		if err == nil && r.Member("refresh_token") == "" {
			err = fmt.Errorf("no refresh token: %s", r)
		}
		if err != nil {
			return nil, err
		}
		l.tokens = append(l.tokens, r.Member("refresh_token"))
	}
	l.foreign = oidc.NewVerifier(c.issuer, oidc.NewRemoteKeySet(ctx, c.issuer+"/jwks"), &oidc.Config{
		SkipClientIDCheck: true, SkipExpiryCheck: true, SupportedSigningAlgs: []string{oidc.ES256, oidc.RS256}})
	return l, nil
}

// run asks so often a second, or as often as answers come, until ctx ends, and
// then waits for the answers under way.
func (l *load) run(ctx context.Context, rate int) {
	turns := make(chan int)
	var workers sync.WaitGroup
	for i := range l.tokens {
		workers.Go(func() {
			for turn := range turns {
				l.once(i, turn)
			}
		})
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for turn := 0; ctx.Err() == nil; turn++ {
		select {
		case <-ctx.Done():
		case <-tick.C:
			select {
			case <-ctx.Done():
			case turns <- turn:
			}
		}
	}
	close(turns)
	workers.Wait()
}

// once makes a worker's request of a turn.
func (l *load) once(worker, turn int) {
	refreshing := turn%2 == 0
	var r people.Reply
	var err error
	if refreshing {
		r, err = l.app.TryRefresh(l.tokens[worker])
	} else {
		r, err = l.service.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
	}
	unavailable := err == nil && r.Status == http.StatusServiceUnavailable
	if err == nil && (r.Status != http.StatusOK || r.Member("access_token") == "" || refreshing && r.Member("refresh_token") == "") {
		err = errors.New(r.String())
	}
	l.mu.Lock()
	l.counts.requests++
	if err != nil {
		l.counts.failed++
		switch {
		case unavailable:
			l.counts.unavailable++
		case errors.Is(err, siege.ErrNotSent):
			l.counts.unserved++
		}
		l.wrong[fmt.Sprintf("refreshing %t: %v", refreshing, err)]++
	}
	l.mu.Unlock()
	if err != nil {
		return
	}
	if refreshing {
		l.tokens[worker] = r.Member("refresh_token")
		l.judge("an ID token", r.Member("id_token"), false)
	}
	access := r.Member("access_token")
	l.judge("an access token", access, true)
	if turn%16 == 1 { // at another time of day for the keys
		time.AfterFunc(l.again, func() { l.judge("an older access token", access, true) })
	}
}

// judge gives a token to the verifiers.
func (l *load) judge(what, token string, access bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n := 1
	_, err := l.foreign.Verify(ctx, token)
	if err == nil && access {
		n++
		var r people.Reply
		r, err = people.Send(http.DefaultTransport, http.MethodGet, l.apiURL+"/orders", nil, "Authorization", "Bearer "+token)
		if err == nil && r.Status != http.StatusOK {
			err = fmt.Errorf("the API, with package verify: %s", r)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.verifications += n
	if err != nil {
		l.counts.refused++
		l.wrong[fmt.Sprintf("%s: %v", what, err)]++
	} else if access {
		l.counts.kids[keyOf(token)]++
	}
}

// sofar returns what was done until now, and what went wrong how often.
func (l *load) sofar() (counts, map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.kids, c.served = maps.Clone(c.kids), maps.Clone(c.served)
	return c, maps.Clone(l.wrong)
}

// keyOf returns the kid of a token that was verified.
func keyOf(token string) string {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return ""
	}
	return jws.Signatures[0].Header.KeyID
}
