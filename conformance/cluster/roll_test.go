//go:build linux

package main

import (
	"context"
	"testing"
	"time"
)

// All three replicas are replaced, one after the other, while keys live for
// seconds and 200 requests a second come in: none fails, and no verifier refuses
// a token.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const rate, life = 200, 3 * time.Second
	b := newBench(t, faulty, func(s *settings) {
		s.drain, s.life = 12*time.Second, life
		s.env = []string{"SIGNET_FAULT_KEY_SCHEDULE=publish=10s,sign=10s,retire=15s,secret=12s,max-age=1s,token=3s,allowance=4s"}
	})
	l, err := b.newLoad(t.Context(), b.service, b.shop, b.ada, 32, life)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	loaded := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(loaded)
		l.run(ctx, rate)
	}()
	rounds := 0
	for want := time.Duration(often(0, 30)) * time.Minute; !t.Failed(); rounds++ {
		n, _ := l.sofar()
		if rounds > 0 && len(n.kids) > 2 && time.Since(began) > want || n.failed+n.refused > 0 {
			break
		}
		if time.Since(began) > want+10*time.Minute {
			t.Error("keys do not rotate")
		}
		for _, r := range b.replicas {
			must(t, r.roll())
		}
	}
	stop()
	<-loaded
	took := time.Since(began)
	time.Sleep(life) // those that are judged once more
	n, wrong := l.sofar()
	t.Logf("%.0f requests a second for %s, every replica replaced %d times: %s", float64(n.requests)/took.Seconds(), took.Round(time.Second), rounds, n)
	for what, times := range wrong {
		t.Errorf("%d times %s", times, what)
	}
	if n.failed+n.refused > 0 || n.requests == 0 || len(n.served) != 3 {
		t.Errorf("%d requests failed, %d tokens were refused, of %d; served by %v", n.failed, n.refused, n.requests, n.served)
	}
}
