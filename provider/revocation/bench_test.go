package revocation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/storagetest"
)

var benchEntries = flag.Int("entries", 20_000, "how many revocations count in BenchmarkSnapshot; a million for the figures in docs")

// signer signs as the feed's key does.
func signer(b *testing.B) func(typ string, claims []byte) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return func(typ string, claims []byte) (string, error) {
		input := encode([]byte(typ)) + "." + encode(claims)
		digest := sha256.Sum256([]byte(input))
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return input + "." + encode(signature), err
	}
}

func benchFeed(b *testing.B, f *fixture) *Feed {
	feed, err := OpenFeed(b.Context(), FeedConfig{
		Store: f, Issuer: "https://issuer.example", Sign: signer(b), Now: f.now,
		Shared: func(t time.Time) time.Time { return t }, Log: slog.New(slog.DiscardHandler), CatchUp: caughtUp,
	})
	if err != nil {
		b.Fatal(err)
	}
	return feed
}

// fill appends n entries of three kinds.
func (f *fixture) fill(b *testing.B, n int) {
	now := time.Now()
	for done := 0; done < n; {
		err := f.Update(b.Context(), func(ctx context.Context, tx storage.Tx) error {
			for range min(500, n-done) {
				entry := Block(KindToken, fmt.Sprint(done), "", now, now.Add(10*time.Minute+time.Duration(done)*time.Millisecond))
				switch done % 10 {
				case 8:
					entry = Block(KindSession, fmt.Sprint(done), "", now, now.Add(time.Hour))
				case 9:
					entry = Epoch(KindSubject, fmt.Sprint(done), "", now, now.Add(time.Hour))
				}
				if _, err := tx.AppendRevocation(ctx, entry); err != nil {
					return err
				}
				done++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSnapshot makes the snapshot for verifiers that start.
func BenchmarkSnapshot(b *testing.B) {
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		b.Run(string(engine), func(b *testing.B) {
			f := &fixture{}
			if engine == migrations.SQLite {
				f.Store = openSQLite(b)
			} else {
				store, err := postgres.Open(b.Context(), storagetest.Postgres(b), postgres.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { store.Close() })
				f.Store = store
			}
			f.fill(b, *benchEntries)
			feed := benchFeed(b, f)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var s *Snapshot
			var peak uint64
			for b.Loop() {
				done := make(chan struct{})
				var watch sync.WaitGroup
				watch.Go(func() {
					for {
						select {
						case <-done:
							return
						case <-time.After(20 * time.Millisecond):
							runtime.ReadMemStats(&after)
							peak = max(peak, after.HeapInuse)
						}
					}
				})
				var err error
				s, err = feed.makeSnapshot(b.Context())
				close(done)
				watch.Wait()
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(s.Body)), "bytes")
			if peak > before.HeapInuse {
				b.ReportMetric(float64(peak-before.HeapInuse)/(1<<20), "MiB-more")
			}
		})
	}
}

// BenchmarkBatch makes and signs a batch.
func BenchmarkBatch(b *testing.B) {
	f := &fixture{Store: openSQLite(b)}
	f.fill(b, longestBatch)
	feed := benchFeed(b, f)
	h := feed.current.Load()
	for _, n := range []int64{1, 10, longestBatch} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var jws []byte
			for b.Loop() {
				clear(feed.frames)
				feed.order = nil
				var err error
				if jws, err = feed.batch(h, 1, n); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(jws))/float64(n), "bytes/entry")
		})
	}
}

// BenchmarkFollowers publishes one entry to many followers, the cost for each
// without its connection.
func BenchmarkFollowers(b *testing.B) {
	const followers = 1000
	f := &fixture{Store: openSQLite(b)}
	feed := benchFeed(b, f)
	at := feed.Position()
	var got, ended sync.WaitGroup
	ctx, stop := context.WithCancel(b.Context())
	for range followers {
		ended.Go(func() {
			_ = feed.Follow(ctx, &at, func(m Message) error {
				if m.Kind == MessageBatch {
					got.Done()
				}
				return nil
			})
		})
	}
	for b.Loop() {
		got.Add(followers)
		f.fill(b, 1)
		if err := feed.follow(b.Context()); err != nil {
			b.Fatal(err)
		}
		got.Wait()
	}
	stop()
	ended.Wait()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/followers, "ns/follower")
}
