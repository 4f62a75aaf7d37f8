package proof

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/web"
)

// The judge convicts servers whose store breaks its contract, by what clients
// note in the same contest that TestLinearizable is; and not the one whose
// store keeps it. These run in the test's own process.
func TestBrokenStoresAreCaught(t *testing.T) {
	d := newDeployment(t, onSQLite)
	d.signet("", "migrate", "up")
	var c *contest
	for _, test := range []struct {
		name  string
		under func(storage.Store) storage.Store
		sound bool
	}{
		{"nothing is broken", func(s storage.Store) storage.Store { return s }, true},
		{"a code is read, judged and written", withTx(func(tx storage.Tx) storage.Tx { return blindRedeem{tx} }), false},
		{"a refresh token is read, judged and written", withTx(func(tx storage.Tx) storage.Tx { return blindRotate{tx} }), false},
		{"a revocation is lost", withTx(func(tx storage.Tx) storage.Tx { return lostRevocation{tx} }), false},
		{"a rotation is lost", withTx(func(tx storage.Tx) storage.Tx { return lostRotation{tx} }), false},
		{"an older successor is read", func(s storage.Store) storage.Store {
			return &lagging{Store: s, rows: make(map[string][2]storage.Standing)}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			stop := d.serve(test.under)
			defer stop()
			if c == nil {
				c = d.contest()
			}
			for range 100 {
				s := c.run(500)
				wrong := history.Judge(s.Log.Ops())
				if test.sound && len(wrong) > 0 {
					t.Fatal(strings.Join(wrong, "\n"))
				}
				if test.sound || len(wrong) > 0 {
					t.Logf("%d cannot have gone like that of %s", len(wrong), s)
					return
				}
			}
			t.Error("nothing is wrong in 50,000 operations")
		})
	}
}

// serve serves in this process, over what under makes of the store, until stop
// is called.
func (d *deployment) serve(under func(storage.Store) storage.Store) (stop func()) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := sqlite.Open(ctx, filepath.Join(d.dir, "data", "signet.db"), sqlite.Options{})
	must(d.t, err)
	kek, _, err := keys.LoadKEKFile(filepath.Join(d.dir, "kek"), false)
	must(d.t, err)
	issuer, err := provider.ParseIssuer(d.issuer)
	must(d.t, err)
	registry, policy, log := prometheus.NewRegistry(), provider.DefaultPolicy(), slog.New(slog.NewTextHandler(io.Discard, nil))
	now := func() time.Time { return time.Now().UTC() }
	p, err := provider.New(ctx, provider.Config{
		Issuer: issuer, Store: under(store), Sealer: &keys.Sealer{Primary: kek}, Algorithms: keys.Algorithms(), Policy: policy,
		Schedule: keys.DefaultSchedule(), Outbound: provider.NewOutbound(nil), Metrics: registry, Log: log, Now: now,
	})
	must(d.t, err)
	pages := web.New(web.Config{
		Issuer: issuer, Provider: p, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		RequestTimeout: policy.RequestTimeout, Registerer: registry, Gatherer: registry, Log: log, Now: now,
	})
	var background sync.WaitGroup
	background.Go(func() { p.Run(ctx) })
	listener := httptest.NewServer(pages.Public())
	s := &server{d: d, public: listener.Listener.Addr().String()}
	d.mu.Lock()
	d.all = append(d.all, s)
	d.mu.Unlock()
	return func() {
		d.forget(s)
		listener.Close()
		cancel()
		background.Wait()
		if err := store.Close(); err != nil {
			d.t.Error(err)
		}
	}
}

// withTx puts another transaction before each of a store's.
func withTx(another func(storage.Tx) storage.Tx) func(storage.Store) storage.Store {
	return func(s storage.Store) storage.Store { return otherTx{s, another} }
}

type otherTx struct {
	storage.Store
	another func(storage.Tx) storage.Tx
}

func (s otherTx) Update(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	return s.Store.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return fn(ctx, s.another(tx)) })
}

// blindRedeem redeems a code that somebody else has redeemed since the provider
// read that nobody had.
type blindRedeem struct{ storage.Tx }

func (tx blindRedeem) RedeemCode(ctx context.Context, id string, now time.Time, r storage.Redemption) error {
	return blind(tx.Tx.RedeemCode(ctx, id, now, r))
}

// blindRotate rotates a grant that has moved on since the provider read it.
type blindRotate struct{ storage.Tx }

func (tx blindRotate) RotateGrant(ctx context.Context, id string, from int64, now time.Time, keyVersion string, idleEnd time.Time) error {
	return blind(tx.Tx.RotateGrant(ctx, id, from, now, keyVersion, idleEnd))
}

// blind makes of a conditional write one that does not look whether it was first.
func blind(err error) error {
	if errors.Is(err, storage.ErrConsumed) {
		return nil
	}
	return err
}

// lostRevocation says that a grant is revoked and, now and then, does nothing.
type lostRevocation struct{ storage.Tx }

func (tx lostRevocation) RevokeGrant(ctx context.Context, id string, at time.Time, reason string) (bool, error) {
	if rand.IntN(8) == 0 {
		return true, nil
	}
	return tx.Tx.RevokeGrant(ctx, id, at, reason)
}

// lostRotation says that a grant has moved on and, now and then, leaves it.
type lostRotation struct{ storage.Tx }

func (tx lostRotation) RotateGrant(ctx context.Context, id string, from int64, now time.Time, keyVersion string, idleEnd time.Time) error {
	if rand.IntN(8) == 0 {
		return nil
	}
	return tx.Tx.RotateGrant(ctx, id, from, now, keyVersion, idleEnd)
}

// lagging reads, now and then, what a grant was before it last changed, as a
// copy of the database that is behind would: the successor that it knows of a
// refresh token is an older one.
type lagging struct {
	storage.Store
	mu   sync.Mutex
	rows map[string][2]storage.Standing // of each grant, the last and the one before
}

func (s *lagging) Standing(ctx context.Context, id string) (storage.Standing, error) {
	now, err := s.Store.Standing(ctx, id)
	if err != nil {
		return now, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.rows[id]
	if was[0].Grant.Generation < now.Grant.Generation {
		s.rows[id] = [2]storage.Standing{now, was[0]}
	}
	if old := s.rows[id][1]; old.Grant.Generation > 0 && rand.IntN(32) == 0 {
		return old, nil
	}
	return now, nil
}
