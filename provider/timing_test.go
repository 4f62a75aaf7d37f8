package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
)

// costly makes passwords cost what they do in production.
func costly(p *Policy) {
	d := DefaultPolicy()
	p.PasswordMemory, p.PasswordPasses, p.PasswordHashes, p.PasswordQueue = d.PasswordMemory, d.PasswordPasses, d.PasswordHashes, d.PasswordQueue
}

// L9: a flood of sign-ins takes bounded memory; who does not fit into the queue
// hears at once when to come back. With SIGNET_LONG they are 10,000.
func TestFloodOfSignIns(t *testing.T) {
	many := 1000
	if os.Getenv("SIGNET_LONG") != "" {
		many = 10_000
	}
	h := newHouse(t, migrations.SQLite, costly)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := heap()
	var most atomic.Uint64
	watched, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				most.Store(max(most.Load(), heap()))
			}
		}
	}()
	var busy, refused atomic.Int32
	var flood sync.WaitGroup
	for i := range many {
		flood.Go(func() {
			_, err := h.attempt(fmt.Sprint("nobody", i), "a guess", fmt.Sprintf("10.%d.%d.1", i>>8, i&255), "")
			var b *BusyError
			switch {
			case errors.As(err, &b) && b.RetryAfter > 0:
				busy.Add(1)
			case errors.Is(err, ErrBadCredentials):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	flood.Wait()
	close(stop)
	<-watched
	t.Logf("%d sign-ins at once: %d checked, %d told to come back; heap %d MiB, %d MiB before", many, refused.Load(), busy.Load(), most.Load()>>20, before>>20)
	if refused.Load() < 30 || busy.Load() == 0 {
		t.Error("the queue is not used, or has no end")
	}
	if most.Load() > before+256<<20 {
		t.Error("too much memory")
	}
	if _, err := h.attempt("ann", housePassword, "192.0.2.1", ""); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

// compareTimes runs one and other in random order, each after prepare, and
// says how far their medians are apart, and how likely they would be as far
// apart by chance (Mann–Whitney). It means something on a quiet machine and
// with -benchtime 1000x or more.
func compareTimes(b *testing.B, prepare, one, other func()) (apart, p float64) {
	b.Helper()
	took := func(f func()) time.Duration {
		prepare()
		began := time.Now()
		f()
		return time.Since(began)
	}
	type sample struct {
		took  time.Duration
		other bool
	}
	var samples []sample
	var times [2][]time.Duration
	for b.Loop() {
		var x, y time.Duration
		if rand.IntN(2) == 0 {
			x = took(one)
			y = took(other)
		} else {
			y = took(other)
			x = took(one)
		}
		samples = append(samples, sample{x, false}, sample{y, true})
		times[0], times[1] = append(times[0], x), append(times[1], y)
	}
	slices.SortFunc(samples, func(a, b sample) int { return cmp.Compare(a.took, b.took) })
	ranks := 0.0
	for rank, s := range samples {
		if s.other {
			ranks += float64(rank + 1)
		}
	}
	n := float64(len(times[0]))
	z := (ranks - n*(n+1)/2 - n*n/2) / math.Sqrt(n*n*(2*n+1)/12)
	p = math.Erfc(math.Abs(z) / math.Sqrt2)
	median := func(t []time.Duration) float64 {
		slices.Sort(t)
		return float64(t[len(t)/2])
	}
	apart = math.Abs(median(times[0])/median(times[1]) - 1)
	b.ReportMetric(median(times[0]), "median-ns")
	b.ReportMetric(100*apart, "%-apart")
	b.ReportMetric(p, "p")
	return apart, p
}

// L2: the time of a failed sign-in does not tell who has an account.
func BenchmarkSignInTiming(b *testing.B) {
	for name, login := range map[string]string{"unknown": "zoe", "disabled": "bob", "without a password": "carol"} {
		b.Run(name, func(b *testing.B) {
			h := newHouse(b, migrations.SQLite, costly)
			_, err := h.admin.CreateUser(b.Context(), storage.User{Username: "carol"}, "")
			must(b, err)
			_, err = h.admin.DisableUser(b.Context(), "bob")
			must(b, err)
			try := func(login string) func() {
				return func() {
					if _, err := h.p.SignIn(context.Background(), SignInAttempt{Login: login, Password: "a wrong heron at dawn", Address: "192.0.2.1"}); !errors.Is(err, ErrBadCredentials) {
						b.Fatal(err)
					}
				}
			}
			apart, p := compareTimes(b, func() { h.later(time.Hour) }, try("ann"), try(login)) // no throttle
			if b.N >= 1000 && (apart > 0.05 || p < 0.01) {
				b.Errorf("they differ: medians %.1f %% apart, p = %.4f", 100*apart, p)
			}
		})
	}
}

// E11: the time of a refusal does not tell which clients there are: what is
// left is less than a microsecond, about identifiers that are in every URL of an
// app's.
func BenchmarkClientTiming(b *testing.B) {
	h := newHouse(b, migrations.SQLite, nil)
	try := func(id string) func() {
		return func() {
			if r := h.post(h.p.Token, id, "sgs_"+h.secret[4:39]+"AAAAAAAA", url.Values{"grant_type": {grantRefresh}, "refresh_token": {"x"}}); r.status != http.StatusUnauthorized {
				b.Fatal(r.status, r.json)
			}
		}
	}
	prepare := func() {
		h.later(time.Hour) // no throttle
		must(b, h.p.registry.refresh(b.Context()))
		h.post(h.p.Token, "shop", h.secret, url.Values{"grant_type": {grantRefresh}, "refresh_token": {"x"}}) // what is remembered is warm
	}
	if apart, _ := compareTimes(b, prepare, try("shop"), try("nobody")); b.N >= 1000 && apart > 0.1 {
		b.Errorf("medians %.1f %% apart", 100*apart)
	}
}
