package revocation

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

const patience = time.Minute

// fixture is a feed over a real database, which a test can cut off, or make
// deaf to announcements.
type fixture struct {
	storage.Store
	cut, deaf atomic.Bool
	ahead     atomic.Int64 // of the replica's clock
	signed    atomic.Int64
}

func (f *fixture) RevocationLog(ctx context.Context) (storage.RevocationLog, error) {
	if f.cut.Load() {
		return storage.RevocationLog{}, storage.ErrUnavailable
	}
	return f.Store.RevocationLog(ctx)
}

func (f *fixture) Changes(ctx context.Context) <-chan struct{} {
	if f.deaf.Load() {
		return nil
	}
	return f.Store.Changes(ctx)
}

func (f *fixture) now() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())).UTC() }

// sign wraps claims as a JWS does; that real keys sign is tested over HTTP.
func (f *fixture) sign(typ string, claims []byte) (string, error) {
	f.signed.Add(1)
	return encode([]byte(typ)) + "." + encode(claims) + ".", nil
}

func caughtUp(context.Context) error { return nil }

func (f *fixture) open(t testing.TB) *Feed {
	t.Helper()
	feed, err := OpenFeed(t.Context(), FeedConfig{
		Store: f, Issuer: "https://issuer.example", Sign: f.sign, Now: f.now,
		Shared: func(t time.Time) time.Time { return t }, Log: slog.New(slog.DiscardHandler), CatchUp: caughtUp,
	})
	if err != nil {
		t.Fatal(err)
	}
	return feed
}

// run lets the feed follow the log until the test ends.
func run(t testing.TB, feed *Feed) {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { feed.Run(ctx) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

func (f *fixture) append(t testing.TB, entries ...storage.Revocation) {
	t.Helper()
	err := f.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		for _, e := range entries {
			if _, err := tx.AppendRevocation(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) block(value string) storage.Revocation {
	return Block(KindToken, value, "a secret reason", f.now(), f.now().Add(time.Hour))
}

func onEachEngine(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, &fixture{Store: openSQLite(t)})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		store, err := postgres.Open(t.Context(), storagetest.Postgres(t), postgres.Options{MaxConns: 4})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		test(t, &fixture{Store: store})
	})
}

func openSQLite(t testing.TB) storage.Store {
	path := filepath.Join(t.TempDir(), "signet.db")
	db, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := migrations.Up(t.Context(), db, migrations.SQLite, nil); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// claims returns what a message says.
func claims(t testing.TB, m Message) (c struct {
	FeedID   string `json:"feed_id"`
	ReadAt   int64  `json:"read_at"`
	From, To int64
	Seq      int64
	Events   []event
}) {
	t.Helper()
	_, body, _ := strings.Cut(string(m.JWS), ".")
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimSuffix(body, "."))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("secret reason")) {
		t.Error("the reason left the database")
	}
	return c
}

func kinds(messages []Message) string {
	var list []string
	for _, m := range messages {
		list = append(list, m.Kind)
	}
	return strings.Join(list, " ")
}

// awaited polls until the feed is at seq.
func awaited(t testing.TB, feed *Feed, seq int64) {
	t.Helper()
	for end := time.Now().Add(patience); feed.Position().Seq != seq; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the feed is at %s, not at %d", feed.Position(), seq)
		}
	}
}

// A replica that hears nothing sees each entry all the same.
func TestDeafReplica(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.deaf.Store(true)
		feed := f.open(t)
		run(t, feed)
		f.append(t, f.block("one"))
		awaited(t, feed, 1)
	})
}

// Nobody is told of an entry before the replica knows what came with it; when it
// cannot, the entry goes out all the same.
func TestCatchesUpFirst(t *testing.T) {
	for name, outcome := range map[string]error{"caught up": nil, "cannot": storage.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{Store: openSQLite(t)}
			feed := f.open(t)
			var told atomic.Int64
			told.Store(-1)
			feed.cfg.CatchUp = func(context.Context) error {
				told.Store(feed.Position().Seq)
				return outcome
			}
			f.append(t, f.block("1"), f.block("2"))
			run(t, feed)
			awaited(t, feed, 2)
			if told.Load() != 0 {
				t.Errorf("%d entries were published before the replica caught up with them (-1: it never did)", told.Load())
			}
		})
	}
}

// A replica that is cut off from its database certifies nothing, and goes on
// where it was afterwards.
func TestCutOffReplica(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		feed := f.open(t)
		run(t, feed)
		at := feed.Position()
		if m, err := feed.Poll(t.Context(), &at, 0); err != nil || kinds(m) != "heartbeat" {
			t.Fatalf("at first: %q, %v", kinds(m), err)
		}
		f.cut.Store(true)
		f.ahead.Store(int64(certain + time.Second))
		if m, err := feed.Poll(t.Context(), &at, 0); err != nil || len(m) != 0 {
			t.Errorf("cut off: %q, %v, want nothing", kinds(m), err)
		}
		ctx, stop := context.WithCancel(t.Context())
		err := feed.Follow(ctx, &at, func(m Message) error {
			if m.Kind != MessageWait {
				t.Errorf("cut off: a stream sends a %s", m.Kind)
			}
			stop()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		f.cut.Store(false)
		f.append(t, f.block("one"))
		m, err := feed.Poll(t.Context(), &at, patience)
		if err != nil || kinds(m) != "batch heartbeat" {
			t.Errorf("back again: %q, %v", kinds(m), err)
		}
	})
}

// A heartbeat never speaks of a later time than that of a read that found the
// log to end where the heartbeat says.
func TestHeartbeatReadAt(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		feed := f.open(t)
		began := f.now()
		at := feed.Position()
		f.append(t, f.block("unseen")) // by nobody yet: the feed does not run
		m, err := feed.Poll(t.Context(), &at, 0)
		if err != nil || kinds(m) != "heartbeat" {
			t.Fatalf("%q, %v", kinds(m), err)
		}
		if c := claims(t, m[0]); c.Seq != 0 || c.ReadAt > began.UnixMilli() {
			t.Errorf("a heartbeat at %d as of %d, after the read", c.Seq, c.ReadAt-began.UnixMilli())
		}
		// Batches that are not the end of the log do not speak of now.
		var many []storage.Revocation
		for i := range 1200 {
			many = append(many, f.block(fmt.Sprint(i)))
		}
		for part := range slices.Chunk(many, 100) {
			f.append(t, part...)
		}
		if err := feed.follow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m, err = feed.Poll(t.Context(), &at, 0); err != nil || kinds(m) != "batch batch heartbeat" {
			t.Fatalf("%q, %v", kinds(m), err)
		}
		first, second := claims(t, m[0]), claims(t, m[1])
		if first.From != 1 || first.To != 1000 || second.From != 1001 || second.To != 1201 || len(second.Events) != 201 {
			t.Errorf("batches %d..%d, %d..%d", first.From, first.To, second.From, second.To)
		}
		if last := first.Events[999].At; first.ReadAt > last {
			t.Errorf("the first batch speaks of %d, its last event is of %d", first.ReadAt, last)
		}
	})
}

// However many follow, each message is signed once.
func TestSignedOnce(t *testing.T) {
	f := &fixture{Store: openSQLite(t)}
	feed := f.open(t)
	run(t, feed)
	at := feed.Position()
	const followers = 200
	var ready, got sync.WaitGroup
	ready.Add(followers)
	got.Add(followers)
	ctx, stop := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	for range followers {
		ended.Go(func() {
			first, batches := true, 0
			_ = feed.Follow(ctx, &at, func(m Message) error {
				if first {
					first = false
					ready.Done()
				}
				if m.Kind == MessageBatch {
					batches++
					if m.Position.Seq == 3 {
						got.Done()
					}
				}
				return nil
			})
		})
	}
	ready.Wait()
	before := f.signed.Load()
	f.append(t, f.block("1"), f.block("2"), f.block("3"))
	got.Wait()
	stop()
	ended.Wait()
	// One batch; and heartbeats, one for each second at most, on a slow machine.
	if n := f.signed.Load() - before; n > 20 {
		t.Errorf("%d signatures for one batch to %d followers", n, followers)
	}
	before = f.signed.Load()
	for range followers {
		if _, err := feed.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.signed.Load() - before; n > 3 { // the minute may end meanwhile
		t.Errorf("%d signatures for one snapshot", n)
	}
}

// lost is a log whose end was lost, as by a failover to a standby that lagged,
// or that became another one.
type lost struct {
	*fixture
	log atomic.Pointer[storage.RevocationLog]
}

func (l *lost) RevocationLog(ctx context.Context) (storage.RevocationLog, error) {
	if log := l.log.Load(); log != nil {
		return *log, nil
	}
	return l.fixture.RevocationLog(ctx)
}

func (l *lost) View(ctx context.Context, fn func(context.Context, storage.Reader) error) error {
	return l.fixture.View(ctx, func(ctx context.Context, r storage.Reader) error {
		return fn(ctx, lostView{r, l})
	})
}

type lostView struct {
	storage.Reader
	l *lost
}

func (v lostView) RevocationLog(ctx context.Context) (storage.RevocationLog, error) {
	if log := v.l.log.Load(); log != nil {
		return *log, nil
	}
	return v.Reader.RevocationLog(ctx)
}

func TestLogIsNotWhatItWas(t *testing.T) {
	for name, change := range map[string]func(storage.RevocationLog) storage.RevocationLog{
		"another feed": func(log storage.RevocationLog) storage.RevocationLog {
			log.FeedID = "another"
			return log
		},
		"the end was lost": func(log storage.RevocationLog) storage.RevocationLog {
			log.Seq--
			return log
		},
		"other entries": func(log storage.RevocationLog) storage.RevocationLog {
			log.Chain = []byte("another")
			return log
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{Store: openSQLite(t)}
			l := &lost{fixture: f}
			feed, err := OpenFeed(t.Context(), FeedConfig{
				Store: l, Issuer: "https://issuer.example", Sign: f.sign, Now: f.now,
				Shared: func(t time.Time) time.Time { return t }, Log: slog.New(slog.DiscardHandler), CatchUp: caughtUp,
			})
			if err != nil {
				t.Fatal(err)
			}
			f.append(t, f.block("1"), f.block("2"))
			run(t, feed)
			awaited(t, feed, 2)
			at := feed.Position()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err = feed.Follow(ctx, &at, func(m Message) error {
				log, err := f.Store.RevocationLog(t.Context())
				if err != nil {
					return err
				}
				log = change(log)
				l.log.Store(&log)
				return nil
			})
			var resync *ResyncError
			if !errors.As(err, &resync) {
				t.Errorf("the stream ended with %v", err)
			}
			if feed.Stats().Restarts == 0 {
				t.Error("nobody counted it")
			}
		})
	}
}

// What a replica keeps is bounded, and a verifier that is behind it starts over.
func TestTailIsBounded(t *testing.T) {
	f := &fixture{Store: openSQLite(t)}
	feed := f.open(t)
	feed.keep = 100
	start := feed.Position()
	for n := 0; n <= 3*feed.keep; {
		entries := make([]storage.Revocation, 30)
		for i := range entries {
			entries[i] = f.block(fmt.Sprint(n))
			n++
		}
		f.append(t, entries...)
		if err := feed.follow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h := feed.current.Load(); len(h.tail) > 2*feed.keep || cap(h.tail) > 4*feed.keep {
			t.Fatalf("%d entries are kept, in room for %d", len(h.tail), cap(h.tail))
		}
	}
	var resync *ResyncError
	if _, err := feed.Poll(t.Context(), &start, 0); !errors.As(err, &resync) {
		t.Errorf("from the beginning: %v", err)
	}
	if err := feed.restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One less than it may keep: the first it reads has nothing to be checked against.
	if h := feed.current.Load(); len(h.tail) != feed.keep-1 || h.seq() != feed.Position().Seq {
		t.Errorf("a replica that starts keeps %d entries and is at %d", len(h.tail), h.seq())
	}
}

func TestParsePosition(t *testing.T) {
	for _, good := range []string{"a:0", "K3J-_x:42", "A:9223372036854775807"} {
		if p, err := ParsePosition(good); err != nil || p.String() != good {
			t.Errorf("%q: %v, %v", good, p, err)
		}
	}
	for _, bad := range []string{"", "a", ":1", "a:", "a:x", "a:-1", "a:+1", "a:01", "a:1:2", "a b:1", "ä:1", "a:9223372036854775808", "a:1\n", "a\r:1"} {
		if p, err := ParsePosition(bad); err == nil {
			t.Errorf("%q is read as %v", bad, p)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add("feed:1")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePosition(s); err == nil && p.String() != s {
			t.Errorf("%q is read as %q", s, p)
		}
	})
}
