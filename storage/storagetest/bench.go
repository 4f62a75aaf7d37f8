package storagetest

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// BenchmarkUpdate measures one-row transactions, atOnce of them side by side.
func BenchmarkUpdate(b *testing.B, s storage.Store, atOnce int) {
	first := time.Now().UnixNano() // keys that no earlier run has used
	var next atomic.Int64
	var workers sync.WaitGroup
	b.ResetTimer()
	for range atOnce {
		workers.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				err := s.Update(b.Context(), func(ctx context.Context, tx storage.Tx) error {
					return tx.UseOnce(ctx, storage.OneTime{Kind: "jti", KeyHash: strconv.AppendInt(nil, first+n, 36), ExpiresAt: noon.Add(time.Hour)}, noon)
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

// BenchmarkRevocations measures the look-up that each introspection makes:
// five keys, none of them revoked, among 10,000 that are.
func BenchmarkRevocations(b *testing.B, s storage.Store) {
	for range 10 {
		err := s.Update(b.Context(), func(ctx context.Context, tx storage.Tx) error {
			for range 1000 {
				r := revocation("jti", strconv.FormatInt(time.Now().UnixNano(), 36), "block", noon.Add(time.Hour))
				if _, err := tx.AppendRevocation(ctx, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	var keys []storage.RevocationKey
	for _, kind := range []string{"jti", "grant", "client", "sub", "sid"} {
		keys = append(keys, storage.RevocationKey{Kind: kind, Hash: []byte("no such " + kind)})
	}
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if found, err := s.Revocations(b.Context(), keys, noon); err != nil || len(found) > 0 {
				b.Fatal(found, err)
			}
		}
	})
}
