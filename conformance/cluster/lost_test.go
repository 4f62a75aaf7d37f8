//go:build linux

package main

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

var errDropped = errors.New("the answer was lost on the way")

// lossy loses every answer, once it has come as far as here.
type lossy struct {
	passage
	replica string       // that answered last
	lost    people.Reply // what nobody was told
}

// RoundTrip implements http.RoundTripper.
func (p *lossy) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := p.passage.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	p.replica, p.lost = res.Header.Get(servedBy), people.Reply{Status: res.StatusCode, Body: string(body)}
	return nil, errDropped
}

// The answers to 1,000 refreshes are lost. Who asks another replica again gets
// the same successor, and nobody is logged out. A token of a generation before
// that ends its family, and no other.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	const chains = 4
	drops := often(1000, 10_000) / chains
	b := newBench(t, ordinary, func(s *settings) { s.lanes = chains })
	browser, tokens := b.begin(chains)
	histories := make([][]string, chains)
	var repeated atomic.Int64
	var all sync.WaitGroup
	for i, l := range b.ways[1:] {
		all.Go(func() {
			line := &lossy{passage: b.via(l, nil)}
			losing, app := *b.shop, *b.shop
			losing.Via, app.Via = line, line.passage
			token := tokens[i]
			for range drops {
				histories[i] = append(histories[i], token)
				if _, err := losing.TryRefresh(token); !errors.Is(err, errDropped) {
					t.Errorf("the answer was not lost: %v", err)
					return
				}
				r, err := app.TryRefresh(token)
				switch {
				case err != nil || r.Status != http.StatusOK:
					t.Errorf("a repeat: %s, %v", r, err)
					return
				case r.Header.Get(servedBy) == line.replica:
					t.Errorf("a repeat went to %s again", line.replica)
					return
				case r.Member("refresh_token") == "" || r.Member("refresh_token") != line.lost.Member("refresh_token") || r.Member("refresh_token") == token:
					t.Errorf("a repeat got another successor than what was lost: %s", line.lost)
					return
				}
				token = r.Member("refresh_token")
				repeated.Add(1)
			}
			histories[i] = append(histories[i], token)
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if got := repeated.Load(); got != int64(drops*chains) {
		t.Errorf("%d repeats", got)
	}
	must(t, browser.Open("/account"))
	if browser.Status != http.StatusOK || browser.URL.Path != "/account" {
		t.Errorf("logged out: %s", browser.Page)
	}
	for i, history := range histories {
		newest := history[len(history)-1]
		if i%2 == 0 { // a late use: of any generation but this one and the one before
			late := history[(len(history)-3)*i/chains]
			r, err := b.shop.TryRefresh(late)
			must(t, err)
			if r.Member("error") != "invalid_grant" {
				t.Errorf("a late use: %s", r)
			}
		}
		r, err := b.shop.TryRefresh(newest)
		must(t, err)
		if alive := r.Status == http.StatusOK; alive != (i%2 != 0) || !alive && r.Member("error") != "invalid_grant" {
			t.Errorf("family %d, in the end: %s", i, r)
		}
	}
	t.Logf("%d answers lost, %d repeats got the same successor from another replica", drops*chains, repeated.Load())
}
