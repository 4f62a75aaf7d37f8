//go:build linux

package main

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// Each request of a sign-in, of the app's and of a sign-out goes to another
// replica than the one before, in every order that the three can come in.
func TestAnyReplicaAnyStep(t *testing.T) {
	t.Parallel()
	b := newBench(t, ordinary, func(s *settings) { s.lanes = 6 })
	orders := make(map[string]bool)
	for i, l := range b.ways[1:] { // three go one way round, three the other
		w, browser := b.newWalk(l, b.ada, b.shop, io.Discard)
		for range i / 2 { // and each begins elsewhere
			_, err := people.Send(b.via(l, nil), http.MethodGet, b.issuer+"/livez", nil)
			must(t, err)
		}
		if err := w.run(browser); err != nil {
			t.Fatalf("%v\n%v", err, w.steps)
		}
		if err := w.elsewhere(); err != nil {
			t.Errorf("%v\n%v", err, w.steps)
		}
		orders[w.steps[0].replica+w.steps[1].replica+w.steps[2].replica] = true
		if i == 0 {
			t.Logf("%d requests in each walk", len(w.steps))
		}
	}
	if len(orders) != 6 {
		t.Errorf("only these orders: %v", slices.Sorted(maps.Keys(orders)))
	}
}
