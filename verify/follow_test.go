package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/internal/feedtest"
)

// edits puts f in the place of whatever the feed sends until it returns true.
func (w *world) edits(f func(typ, message string) (instead []string, done bool)) {
	done := false
	w.feed.Edit = func(typ, message string) []string {
		if done {
			return []string{message}
		}
		var instead []string
		instead, done = f(typ, message)
		return instead
	}
}

// claimsOf reads the payload of a message.
func claimsOf(message string) map[string]any {
	_, payload, _ := parts(message)
	decoder := json.NewDecoder(strings.NewReader(unb64(payload)))
	decoder.UseNumber()
	claims := map[string]any{}
	if err := decoder.Decode(&claims); err != nil {
		panic(err)
	}
	return claims
}

// altered signs a message anew after its claims were changed.
func (w *world) altered(typ, message string, change func(claims map[string]any)) string {
	claims := claimsOf(message)
	change(claims)
	return w.feed.Sign(typ, claims)
}

// Rows "gap, hash chain broken, seq backwards, old iat" of table 5.4: nothing of a
// batch that does not follow on what is known is applied; the state is stale at
// once, and the feed is read anew.
func TestBatchesThatDoNotFit(t *testing.T) {
	change := func(f func(claims map[string]any)) func(w *world, message string) []string {
		return func(w *world, message string) []string { return []string{w.altered(feedtest.Batch, message, f)} }
	}
	firstEvent := func(f func(event map[string]any)) func(w *world, message string) []string {
		return change(func(c map[string]any) { f(c["events"].([]any)[0].(map[string]any)) })
	}
	rows := []struct {
		name   string
		edit   func(w *world, message string) []string
		resync bool // else the connection is given up
	}{
		{"a gap", func(*world, string) []string { return nil }, true},
		{"prev is another", change(func(c map[string]any) { c["prev"] = feedtest.Hash("x", "y") + feedtest.Hash("x", "y")[:21] }), true},
		{"prev is of another entry", change(func(c map[string]any) { c["prev"] = c["chain"] }), true},
		{"prev is empty", change(func(c map[string]any) { c["prev"] = "" }), true},
		{"chain is another", change(func(c map[string]any) { c["chain"] = c["prev"] }), true},
		{"an event was changed", firstEvent(func(e map[string]any) { e["hash"] = feedtest.Hash("jti", "other") }), true},
		{"an event's effect was changed", firstEvent(func(e map[string]any) { e["effect"] = "epoch"; e["not_before"] = 1 }), true},
		{"an event's until was changed", firstEvent(func(e map[string]any) { e["until"] = 0 }), true},
		{"of another feed", change(func(c map[string]any) { c["feed_id"] = "F2" }), true},
		{"seq jumps", change(func(c map[string]any) {
			c["from"], c["to"] = 3, 3
			c["events"].([]any)[0].(map[string]any)["seq"] = 3
		}), true},
		{"seq of an event is not in order", firstEvent(func(e map[string]any) { e["seq"] = 7 }), false},
		{"events are missing", change(func(c map[string]any) { c["events"] = []any{} }), false},
		{"to is before from", change(func(c map[string]any) { c["to"] = 1 }), false},
		{"unknown kind", firstEvent(func(e map[string]any) { e["kind"] = "user" }), false},
		{"unknown effect", firstEvent(func(e map[string]any) { e["effect"] = "allow" }), false},
		{"short hash", firstEvent(func(e map[string]any) { e["hash"] = "AAAA" }), false},
		{"a block with a time", firstEvent(func(e map[string]any) { e["not_before"] = 1 }), false},
		{"until before at", firstEvent(func(e map[string]any) { e["until"] = 1 }), false},
		{"fractions", firstEvent(func(e map[string]any) { e["at"] = 1.5 }), false},
		{"of another issuer", change(func(c map[string]any) { c["iss"] = "https://other.example" }), false},
		{"no read_at", change(func(c map[string]any) { delete(c, "read_at") }), false},
		{"a heartbeat in its place", func(w *world, _ string) []string { return []string{w.feed.Heartbeat()} }, false},
		{"not a JWS", func(*world, string) []string { return []string{"AAAA.BBBB"} }, false},
		{"too large", func(*world, string) []string { return []string{strings.Repeat("A", 600<<10)} }, false},
		{"an access token", func(w *world, _ string) []string { return []string{w.token()} }, false},
		{"signed with a key that is not the issuer's", func(w *world, m string) []string {
			return []string{feedtest.Sign(newKey("f1", "ES256").jose(), feedtest.Batch, claimsOf(m))}
		}, false},
		{"signed with an unknown kid", func(w *world, m string) []string {
			return []string{feedtest.Sign(newKey("f2", "ES256").jose(), feedtest.Batch, claimsOf(m))}
		}, false},
		{"one more header parameter", func(w *world, m string) []string {
			_, payload, _ := parts(m)
			return []string{w.feedKey.sign(w.feedKey.header().with("typ", feedtest.Batch).with("x", 1).text(), unb64(payload))}
		}, false},
		{"no kid", func(w *world, m string) []string {
			_, payload, _ := parts(m)
			return []string{w.feedKey.sign(w.feedKey.header().with("typ", feedtest.Batch).with("kid", nil).text(), unb64(payload))}
		}, false},
		{"typ in other case", func(w *world, m string) []string {
			_, payload, _ := parts(m)
			return []string{w.feedKey.sign(w.feedKey.header().with("typ", strings.ToUpper(feedtest.Batch)).text(), unb64(payload))}
		}, false},
	}
	for _, r := range rows {
		for _, way := range []string{"stream", "poll"} {
			inBubble(t, r.name+" by "+way, func(t *testing.T, ctx context.Context) {
				w := newWorld(t)
				if way == "poll" {
					w.noStreams()
				}
				w.feed.Block("jti", "first", life)
				w.start(ctx)
				w.after(20 * time.Second)
				w.state(verify.RevocationFresh)
				before := w.v.Revocation()
				sent := 0
				w.edits(func(typ, message string) ([]string, bool) {
					if typ != feedtest.Batch {
						return []string{message}, false
					}
					if sent++; sent == 1 {
						return r.edit(w, message), false
					}
					return nil, false // nothing but a snapshot may mend it
				})
				w.feed.Block("jti", "t1", life)
				w.after(0)
				w.accepts(w.token())                                                  // nothing was applied
				w.accepts(w.token(set("jti", "other")))                               // nor made up
				w.refuses(w.token(set("jti", "first")), verify.ErrRevoked)            // nor forgotten
				if s := w.v.Revocation(); s.Seq != 1 || s.Batches != before.Batches { // nor counted
					t.Errorf("%+v", s)
				}
				w.after(70 * time.Second)
				w.state(verify.RevocationFresh)
				w.refuses(w.token(), verify.ErrRevoked)
				s := w.v.Revocation()
				if s.Seq != 2 || s.Snapshots != before.Snapshots+1 {
					t.Errorf("%+v", s)
				}
				if r.resync && s.Resyncs == before.Resyncs || s.Resyncs+s.Failures == before.Resyncs+before.Failures {
					t.Errorf("not counted: %+v", s)
				}
			})
		}
	}
}

// noStreams lets no stream through, so that the feed is asked by requests.
func (w *world) noStreams() {
	w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/stream") {
			a.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
}

// A gap makes the state stale before anything else happens.
func TestGapIsStaleAtOnce(t *testing.T) {
	inBubble(t, "gap", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.after(time.Second)
		block := make(chan struct{})
		w.feed.Intercept = func(_ http.ResponseWriter, r *http.Request) bool {
			<-block
			return false
		}
		w.edits(func(typ, message string) ([]string, bool) {
			return []string{w.altered(typ, message, func(c map[string]any) { c["prev"] = feedtest.Hash("a", "b") + feedtest.Hash("a", "b")[:21] })}, true
		})
		w.feed.Block("jti", "x", life)
		w.after(0)
		w.state(verify.RevocationStale)
		if got := w.routes(w.token()); got != [3]int{200, 200, 503} {
			t.Errorf("%v", got)
		}
		if w.log.count("read anew") == 0 {
			t.Error("not logged")
		}
		close(block)
		w.after(20 * time.Second)
		w.state(verify.RevocationFresh)
	})
}

// Batches sent again, whole or in part, change nothing and refresh nothing.
func TestReplayedBatches(t *testing.T) {
	inBubble(t, "known entries", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.feed.Block("sub", "u1", life)
		w.feed.Block("sub", "u2", life)
		w.feed.Epoch("sub", "u1", time.Now().Add(-time.Hour), life)
		w.after(0)
		old := w.feed.Batch(1, 2)
		overlap := func(string) string { return w.feed.Batch(2, 4) }
		w.edits(func(typ, message string) ([]string, bool) {
			if typ == feedtest.Batch {
				return []string{old, overlap(message), old}, false
			}
			return []string{message}, false
		})
		w.feed.Block("sub", "u4", life)
		w.after(0)
		w.accepts(w.token(set("sub", "u1"))) // the block of entry 1 did not come back
		w.refuses(w.token(set("sub", "u2")), verify.ErrRevoked)
		w.refuses(w.token(set("sub", "u4")), verify.ErrRevoked)
		if s := w.v.Revocation(); s.Seq != 4 || s.Resyncs != 0 || s.Ignored != 2 || s.Entries != 3 {
			t.Errorf("%+v", s)
		}
		// An overlap that tells another story of what is known is not believed.
		w.edits(func(typ, message string) ([]string, bool) {
			return []string{w.altered(typ, w.feed.Batch(4, 5), func(c map[string]any) { c["prev"] = w.feed.About()["feed_id"] })}, true
		})
		w.feed.Block("sub", "u5", life)
		w.after(0)
		if s := w.v.Revocation(); s.Resyncs != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// Heartbeats that prove nothing: sent again, old, of the future, forged, or not
// signed as they should be. None keeps the state fresh.
func TestHeartbeatsThatProveNothing(t *testing.T) {
	at := func(d time.Duration) func(w *world, m string) string {
		return func(w *world, m string) string {
			return w.altered(feedtest.Heartbeat, m, func(c map[string]any) { c["read_at"] = time.Now().Add(d).UnixMilli() })
		}
	}
	var first string
	rs := newKey("r1", "RS256") // the issuer's, but not fit for a feed
	rows := []struct {
		name string
		edit func(w *world, message string) string
	}{
		{"the same again", func(_ *world, m string) string {
			if first == "" {
				first = m
			}
			return first
		}},
		{"a replica cut off from its database", at(-46 * time.Second)},
		{"of the future", at(46 * time.Second)},
		{"of next year", at(365 * 24 * time.Hour)},
		{"forged", func(w *world, m string) string {
			return feedtest.Sign(newKey("f1", "ES256").jose(), feedtest.Heartbeat, claimsOf(m))
		}},
		{"by another algorithm", func(w *world, m string) string {
			_, payload, _ := parts(m)
			return rs.sign(rs.header().with("typ", feedtest.Heartbeat).text(), unb64(payload))
		}},
		{"none", func(w *world, m string) string {
			_, payload, _ := parts(m)
			return b64(`{"alg":"none","typ":"`+feedtest.Heartbeat+`","kid":"f1"}`) + "." + payload + "."
		}},
		{"said to be a batch", func(w *world, m string) string { return w.feed.Sign(feedtest.Batch, claimsOf(m)) }},
		{"typ of a token", func(w *world, m string) string { return w.feed.Sign("at+jwt", claimsOf(m)) }},
		{"another issuer", func(w *world, m string) string {
			return w.altered(feedtest.Heartbeat, m, func(c map[string]any) { c["iss"] = issuer + "/" })
		}},
		{"another feed", func(w *world, m string) string {
			return w.altered(feedtest.Heartbeat, m, func(c map[string]any) { c["feed_id"] = "F0" })
		}},
		{"no seq", func(w *world, m string) string {
			return w.altered(feedtest.Heartbeat, m, func(c map[string]any) { delete(c, "seq") })
		}},
		{"read_at twice", func(w *world, m string) string {
			_, payload, _ := parts(m)
			return w.feedKey.sign(w.feedKey.header().with("typ", feedtest.Heartbeat).text(), strings.Replace(unb64(payload), "{", `{"read_at":1,`, 1))
		}},
		{"nothing but comments", func(*world, string) string { return "" }},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			w := newWorld(t)
			w.publish(w.key, w.feedKey, rs)
			first = ""
			w.feed.Edit = func(typ, message string) []string {
				if typ != feedtest.Heartbeat {
					return []string{message}
				}
				if m := r.edit(w, message); m != "" {
					return []string{m}
				}
				return nil
			}
			w.start(ctx)
			w.after(16 * time.Second)
			w.state(verify.RevocationStale)
			w.after(10 * time.Minute)
			w.state(verify.RevocationStale)
			if n := w.log.count("revocations are stale"); n != 1 {
				t.Errorf("said %d times", n)
			}
			// Requests stay few: a jittered ten seconds apart in the end.
			if n := len(w.feed.Requests()); n > 200 {
				t.Errorf("%d requests", n)
			}
			w.feed.Edit = nil
			w.after(30 * time.Second)
			w.state(verify.RevocationFresh)
		})
	}
}

// A batch of a replica that has not read the log since what is known is applied,
// and does not show that the state is current.
func TestBatchesOfOldNews(t *testing.T) {
	inBubble(t, "read_at stands still", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.after(6 * time.Second)
		readAt := time.Now().UnixMilli()
		w.edits(func(typ, message string) ([]string, bool) {
			if typ == feedtest.Heartbeat {
				return nil, false
			}
			return []string{w.altered(typ, message, func(c map[string]any) { c["read_at"] = readAt })}, false
		})
		for i := range 5 {
			w.feed.Block("jti", fmt.Sprint("x", i), life)
			w.after(4 * time.Second)
			w.refuses(w.token(set("jti", fmt.Sprint("x", i))), verify.ErrRevoked)
		}
		w.state(verify.RevocationStale)
	})
}

// A read_at within bounds counts even when the clocks differ a little.
func TestClocksDifferALittle(t *testing.T) {
	for _, shift := range []time.Duration{-44 * time.Second, 44 * time.Second} {
		inBubble(t, shift.String(), func(t *testing.T, ctx context.Context) {
			w := newWorld(t)
			w.shift = shift
			w.start(ctx)
			w.after(time.Minute)
			w.state(verify.RevocationFresh)
		})
	}
}

// Row "server restored / cloned": another feed_id means reading everything anew,
// and the former feed is never believed again.
func TestAnotherFeed(t *testing.T) {
	inBubble(t, "restored", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.feed.Block("jti", "t1", life)
		w.start(ctx)
		w.refuses(w.token(), verify.ErrRevoked)
		former := w.feed.Snapshot()
		formerBeat := w.feed.Heartbeat()
		w.feed.Restart("F2")
		w.feed.Epoch("iss", issuer, time.Now(), life)
		old := w.token(set("jti", "t2"))
		w.after(10 * time.Second)
		w.state(verify.RevocationFresh)
		w.refuses(old, verify.ErrRevoked)
		w.accepts(w.token())
		if s := w.v.Revocation(); s.FeedID != "F2" || s.Seq != 1 {
			t.Errorf("%+v", s)
		}
		// Somebody's cache still has the former feed.
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/snapshot") {
				_, _ = a.Write(former)
				return true
			}
			return false
		}
		w.edits(func(typ, message string) ([]string, bool) { return []string{formerBeat}, true })
		w.after(10 * time.Second)
		w.state(verify.RevocationStale)
		w.after(time.Minute)
		w.state(verify.RevocationStale)
		w.refuses(old, verify.ErrRevoked)
		if s := w.v.Revocation(); s.FeedID != "F2" {
			t.Errorf("%+v", s)
		}
		w.feed.Intercept = nil
		w.after(time.Minute)
		w.state(verify.RevocationFresh)
	})
	inBubble(t, "a replica that still has the former one", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.after(time.Second)
		former := feedtest.New(issuer, "F1", w.feedKey.jose())
		w.feed.Restart("F2")
		w.feed.Block("jti", "t1", life)
		w.after(10 * time.Second)
		w.refuses(w.token(), verify.ErrRevoked)
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			former.ServeHTTP(a, r)
			return true
		}
		w.feed.Cut()
		w.after(time.Minute)
		w.state(verify.RevocationStale)
		w.refuses(w.token(), verify.ErrRevoked)
		if s := w.v.Revocation(); s.FeedID != "F2" {
			t.Errorf("%+v", s)
		}
	})
	inBubble(t, "an older one that was never seen", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		other := feedtest.New(issuer, "F0", w.feedKey.jose())
		older := other.Snapshot()
		w.after(time.Second)
		w.feed.Block("jti", "t1", life)
		w.start(ctx)
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/snapshot") {
				_, _ = a.Write(older)
				return true
			}
			return false
		}
		w.feed.Compact()
		w.feed.Block("jti", "t2", life)
		w.feed.Compact()
		w.feed.Cut()
		w.after(time.Minute)
		w.refuses(w.token(), verify.ErrRevoked)
		w.state(verify.RevocationStale)
	})
}

// The log went back under the same name, as after a failover that lost commits.
// What was known to be revoked stays refused while it could still be used.
func TestLogWentBack(t *testing.T) {
	for _, c := range []struct {
		more int
		told bool // by a server that has noticed
	}{{0, true}, {1, false}, {1, true}, {3, false}, {3, true}} {
		more := c.more
		inBubble(t, fmt.Sprintf("then %d entries, told %t", more, c.told), func(t *testing.T, ctx context.Context) {
			w := newWorld(t).start(ctx)
			for _, id := range []string{"a", "b", "lost"} {
				w.feed.Block("jti", id, life)
			}
			w.after(time.Second)
			w.feed.Truncate(2)
			for i := range more {
				w.feed.Block("jti", fmt.Sprint("new", i), life)
			}
			if c.told {
				w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, "/stream") || w.v.Revocation().Snapshots > 1 {
						return false
					}
					a.Header().Set("Content-Type", "text/event-stream")
					fmt.Fprint(a, "event: resync\ndata: {\"reason\":\"gone\"}\n\n")
					return true
				}
			}
			w.after(time.Minute)
			w.state(verify.RevocationFresh)
			if s := w.v.Revocation(); s.Seq != int64(2+more) {
				t.Errorf("%+v", s)
			}
			for _, id := range []string{"a", "b", "lost"} {
				w.refuses(w.token(set("jti", id)), verify.ErrRevoked)
			}
			for i := range more {
				w.refuses(w.token(set("jti", fmt.Sprint("new", i))), verify.ErrRevoked)
			}
			w.accepts(w.token())
			w.after(life + 2*time.Minute)
			if s := w.v.Revocation(); s.Entries != 0 || s.State != verify.RevocationFresh {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Row "until passed / clock backwards": entries go by elapsed time, whatever the
// wall clocks show, and never early.
func TestEntriesAreForgotten(t *testing.T) {
	for _, from := range []string{"batch", "snapshot"} {
		for _, jump := range []time.Duration{0, -time.Hour, time.Hour} {
			inBubble(t, fmt.Sprintf("%s, clock jumps by %v", from, jump), func(t *testing.T, ctx context.Context) {
				w := newWorld(t)
				if from == "batch" {
					w.start(ctx)
				}
				w.feed.Block("jti", "t1", 10*time.Minute)
				w.feed.Epoch("sub", "u2", time.Now(), 10*time.Minute)
				w.feed.Block("jti", "for ever", 0)
				if from == "snapshot" {
					w.start(ctx)
				}
				w.after(time.Second)
				w.shift = jump
				w.feed.Now = func() time.Time { return time.Now().Add(jump) }
				w.after(9*time.Minute + 50*time.Second)
				w.refuses(w.token(), verify.ErrRevoked)
				if s := w.v.Revocation(); s.Entries != 3 {
					t.Errorf("early: %+v", s)
				}
				if jump < 0 {
					w.state(verify.RevocationStale) // read_at goes back, which proves nothing
					return
				}
				w.state(verify.RevocationFresh)
				w.after(2*time.Minute + 15*time.Second)
				if s := w.v.Revocation(); s.Entries != 1 {
					t.Errorf("not forgotten: %+v", s)
				}
				w.accepts(w.token())
				w.refuses(w.token(set("jti", "for ever")), verify.ErrRevoked)
			})
		}
	}
}

// V30: the verifier's own clock jumps. Nothing breaks, decisions follow the wall
// clock: heartbeats an hour off prove nothing.
func TestOwnClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, time.Hour} {
		inBubble(t, jump.String(), func(t *testing.T, ctx context.Context) {
			w := newWorld(t).start(ctx)
			w.feed.Block("jti", "bad", life)
			w.after(time.Second)
			w.shift = jump
			w.state(verify.RevocationStale)
			w.after(time.Minute)
			w.state(verify.RevocationStale)
			w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
			w.accepts(w.token())
			w.shift = 0
			w.after(time.Minute)
			w.state(verify.RevocationFresh)
			w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
		})
	}
}

// Row "event storm": above the cap the state is stale, open is soft, and nothing
// that was known is dropped.
func TestTooManyEntries(t *testing.T) {
	fill := func(w *world, n int) {
		for i := range n {
			w.feed.Block("jti", fmt.Sprint("x", i), 5*time.Minute)
		}
	}
	for _, from := range []string{"batches", "snapshot"} {
		inBubble(t, from, func(t *testing.T, ctx context.Context) {
			w := newWorld(t)
			w.feed.Block("jti", "bad", life)
			if from == "snapshot" {
				fill(w, 100)
			}
			w.start(ctx, verify.WithMaxRevocations(100))
			if from == "batches" {
				fill(w, 100)
			}
			old := w.token()
			w.after(59 * time.Second)
			w.state(verify.RevocationStale)
			if got := w.routes(old); got != [3]int{200, 200, 503} {
				t.Errorf("young: %v", got)
			}
			w.after(2 * time.Second)
			if got := w.routes(old); got != [3]int{401, 401, 401} {
				t.Errorf("old: %v", got)
			}
			if s := w.v.Revocation(); !s.Full || s.Failures == 0 {
				t.Errorf("%+v", s)
			}
			if from == "batches" {
				w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
			}
			if err := w.v.Ready(); err != nil {
				t.Error(err)
			}
			w.after(7 * time.Minute) // the storm is over
			w.state(verify.RevocationFresh)
			w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
			if s := w.v.Revocation(); s.Full || s.Entries != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Row "cold start without snapshot".
func TestColdStart(t *testing.T) {
	inBubble(t, "not ready", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		heal := w.partition()
		w.start(ctx)
		w.state(verify.RevocationCold)
		if err := w.v.Ready(); !errors.Is(err, verify.ErrNotReady) {
			t.Error(err)
		}
		w.refuses(w.token(), verify.ErrNotReady)
		if got := w.routes(w.token()); got != [3]int{503, 503, 503} {
			t.Errorf("%v", got)
		}
		heal()
		w.after(40 * time.Second)
		if err := w.v.Ready(); err != nil {
			t.Error(err)
		}
		w.state(verify.RevocationFresh)
	})
	inBubble(t, "an issuer that comes up later", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		var up atomic.Bool
		w.start(ctx, verify.WithHTTPClient(&http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			if !up.Load() {
				return nil, errors.New("connection refused")
			}
			return w.RoundTrip(r)
		})}))
		w.after(time.Minute)
		up.Store(true)
		for w.v.Stats().Keys == 0 {
			w.after(time.Second)
		}
		w.after(time.Second)
		w.state(verify.RevocationFresh)
		if err := w.v.Ready(); err != nil {
			t.Error(err)
		}
	})
	inBubble(t, "WithColdStart", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.partition()
		w.start(ctx, verify.WithColdStart())
		w.state(verify.RevocationCold)
		old := w.token()
		if got := w.routes(old); got != [3]int{200, 200, 503} {
			t.Errorf("young: %v", got)
		}
		w.after(time.Minute)
		if got := w.routes(old); got != [3]int{200, 401, 503} {
			t.Errorf("old: %v", got)
		}
	})
}

func TestNoFeed(t *testing.T) {
	inBubble(t, "none is named", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		feed := w.feed
		w.feed = nil
		w.start(ctx)
		w.state(verify.RevocationNone)
		if n := w.log.count("revocations are not followed"); n != 1 {
			t.Errorf("said %d times", n)
		}
		if err := w.v.Ready(); err != nil {
			t.Error(err)
		}
		w.after(time.Minute)
		if got := w.routes(w.token(set("iat", time.Now().Unix()-60))); got != [3]int{200, 401, 503} {
			t.Errorf("%v", got)
		}
		w.after(30 * time.Minute)
		if n := w.log.count("revocations are not followed"); n != 1 {
			t.Errorf("said %d times", n)
		}
		w.mu.Lock()
		w.feed = feed // the provider was upgraded
		w.mu.Unlock()
		feed.Block("jti", "t1", life)
		w.after(6 * time.Minute)
		w.state(verify.RevocationFresh)
		w.refuses(w.token(), verify.ErrRevoked)
		w.mu.Lock()
		w.feed = nil // and set back: what was followed is not silently given up
		w.mu.Unlock()
		feed.Cut()
		w.after(time.Minute)
		w.state(verify.RevocationStale)
		w.refuses(w.token(), verify.ErrRevoked)
	})
	inBubble(t, "WithoutRevocation", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.feed.Block("jti", "t1", life)
		w.start(ctx, verify.WithoutRevocation())
		w.state(verify.RevocationOff)
		if got := w.routes(w.token(set("iat", time.Now().Unix()-300))); got != [3]int{200, 200, 200} {
			t.Errorf("%v", got)
		}
		if len(w.feed.Requests()) != 0 || w.log.count("not followed") != 1 {
			t.Errorf("%v", w.feed.Requests())
		}
	})
	inBubble(t, "WithJWKSURI", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.start(ctx, verify.WithJWKSURI(issuer+"/jwks"))
		w.state(verify.RevocationNone)
		if w.log.count("not followed") != 1 || slices.Contains(w.asked(), "/.well-known/openid-configuration") {
			t.Errorf("%v", w.asked())
		}
	})
}

func TestWhereTheFeedMayBe(t *testing.T) {
	for _, endpoint := range []string{"https://other.example/revocations", "http://id.example/revocations", "https://id.example:8443/revocations", "/revocations", "https://user@id.example/revocations"} {
		inBubble(t, endpoint, func(t *testing.T, ctx context.Context) {
			w := newWorld(t)
			w.endpoint = endpoint
			w.start(ctx)
			w.after(time.Minute)
			w.state(verify.RevocationCold)
			if n := len(w.feed.Requests()); n != 0 {
				t.Errorf("%d requests", n)
			}
			accepted := w.v.Verify
			if _, err := accepted(ctx, w.token()); !errors.Is(err, verify.ErrNotReady) {
				t.Error(err)
			}
		})
	}
	inBubble(t, "another host by option", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.start(ctx, verify.WithRevocationFeed("https://feed.example/revocations"), verify.WithJWKSURI(issuer+"/jwks"))
		w.state(verify.RevocationFresh)
	})
	inBubble(t, "redirect to another host", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			http.Redirect(a, r, "https://evil.example"+r.URL.Path, http.StatusFound)
			return true
		}
		evil := 0
		client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "id.example" {
				evil++
			}
			return w.RoundTrip(r)
		})}
		w.start(ctx, verify.WithHTTPClient(client))
		w.after(time.Minute)
		w.state(verify.RevocationCold)
		if evil != 0 {
			t.Errorf("%d requests to another host", evil)
		}
	})
}

func TestFeedToken(t *testing.T) {
	inBubble(t, "sent with each request", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		want, given := "Bearer secret-1", 0
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == want {
				return false
			}
			a.WriteHeader(http.StatusUnauthorized)
			return true
		}
		w.start(ctx, verify.WithFeedToken(func(context.Context) (string, error) {
			given++
			if given == 2 {
				return "", errors.New("no token today")
			}
			return "secret-1", nil
		}))
		w.after(20 * time.Second)
		w.state(verify.RevocationFresh)
		if given < 3 {
			t.Errorf("asked %d times", given)
		}
	})
	inBubble(t, "demanded, and none to send", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			a.WriteHeader(http.StatusUnauthorized)
			return true
		}
		w.start(ctx)
		if err := w.v.Ready(); err == nil || !strings.Contains(err.Error(), "WithFeedToken") {
			t.Error(err)
		}
	})
}

// A stream is taken up where it ended.
func TestReconnect(t *testing.T) {
	inBubble(t, "from the position", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		var ids []string
		w.feed.Intercept = func(_ http.ResponseWriter, r *http.Request) bool {
			if id := r.Header.Get("Last-Event-ID"); id != "" {
				ids = append(ids, id)
			}
			return false
		}
		w.start(ctx)
		for i := range 5 {
			w.feed.Block("jti", fmt.Sprint("x", i), life)
			w.after(6 * time.Second)
			w.feed.Cut()
			w.feed.Block("jti", fmt.Sprint("y", i), life)
			w.after(2 * time.Second)
			w.state(verify.RevocationFresh)
			w.refuses(w.token(set("jti", fmt.Sprint("y", i))), verify.ErrRevoked)
		}
		if want := []string{"F1:0", "F1:1", "F1:3", "F1:5", "F1:7", "F1:9"}; !slices.Equal(ids, want) {
			t.Errorf("%v", ids)
		}
		if s := w.v.Revocation(); s.Snapshots != 1 || s.Resyncs != 0 || s.Failures != 0 {
			t.Errorf("%+v", s)
		}
	})
	inBubble(t, "too far behind", func(t *testing.T, ctx context.Context) {
		w := newWorld(t).start(ctx)
		w.feed.Block("jti", "t1", life)
		w.feed.Compact()
		w.feed.Cut()
		w.after(10 * time.Second)
		w.refuses(w.token(), verify.ErrRevoked)
		if s := w.v.Revocation(); s.Snapshots != 2 || s.State != verify.RevocationFresh {
			t.Errorf("%+v", s)
		}
	})
}

// A proxy that holds a stream back is noticed before anything is stale for long,
// and the feed is asked by requests; later a stream is tried again.
func TestBufferedStream(t *testing.T) {
	inBubble(t, "poll", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		buffers := true
		w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
			if !buffers || !strings.HasSuffix(r.URL.Path, "/stream") {
				return false
			}
			a.Header().Set("Content-Type", "text/event-stream")
			a.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		}
		w.start(ctx)
		w.after(30 * time.Second)
		w.state(verify.RevocationFresh)
		if !w.v.Revocation().Polling {
			t.Error("not polling")
		}
		w.feed.Block("jti", "t1", life)
		w.after(0)
		w.refuses(w.token(), verify.ErrRevoked)
		for range 300 {
			w.after(time.Second)
			w.state(verify.RevocationFresh)
		}
		buffers = false
		w.after(10 * time.Minute)
		w.state(verify.RevocationFresh)
		if w.v.Revocation().Polling {
			t.Error("still polling")
		}
	})
}

// Servers that are slow, mad or rude cost neither time nor memory without bound,
// and the verifier is back when they are.
func TestRudeFeeds(t *testing.T) {
	garbage := bytes.Repeat([]byte("\x00\xffgarbage"), 1<<17)
	drip := func(a http.ResponseWriter, r *http.Request, text string) {
		for {
			if _, err := a.Write([]byte(text)); err != nil || r.Context().Err() != nil {
				return
			}
			a.(http.Flusher).Flush()
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			}
		}
	}
	rows := []struct {
		name  string
		serve func(a http.ResponseWriter, r *http.Request)
	}{
		{"500", func(a http.ResponseWriter, _ *http.Request) { a.WriteHeader(500) }},
		{"204", func(a http.ResponseWriter, _ *http.Request) { a.WriteHeader(204) }},
		{"empty", func(http.ResponseWriter, *http.Request) {}},
		{"HTML", func(a http.ResponseWriter, _ *http.Request) { fmt.Fprint(a, "<html>log in to the hotel</html>") }},
		{"garbage", func(a http.ResponseWriter, _ *http.Request) {
			a.Header().Set("Content-Type", "text/event-stream")
			_, _ = a.Write(garbage)
		}},
		{"endless", func(a http.ResponseWriter, r *http.Request) {
			a.Header().Set("Content-Type", "text/event-stream")
			for r.Context().Err() == nil {
				_, _ = a.Write(garbage)
				a.(http.Flusher).Flush()
			}
		}},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"slowloris", func(a http.ResponseWriter, r *http.Request) {
			a.Header().Set("Content-Type", "text/event-stream")
			drip(a, r, "d")
		}},
		{"endless comments", func(a http.ResponseWriter, r *http.Request) {
			a.Header().Set("Content-Type", "text/event-stream")
			drip(a, r, ": wait\n\n")
		}},
		{"endless wishes to resync", func(a http.ResponseWriter, r *http.Request) {
			a.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(a, "event: resync\ndata: {\"reason\":\"so\"}\n\n")
		}},
	}
	for _, r := range rows {
		for _, what := range []string{"all", "all but the snapshot"} {
			inBubble(t, r.name+", "+what, func(t *testing.T, ctx context.Context) {
				w := newWorld(t)
				rude := true
				w.feed.Intercept = func(a http.ResponseWriter, request *http.Request) bool {
					if !rude || what != "all" && strings.HasSuffix(request.URL.Path, "/snapshot") {
						return false
					}
					r.serve(a, request)
					return true
				}
				w.feed.Block("jti", "bad", life)
				began := time.Now()
				w.start(ctx)
				if d := time.Since(began); d > 5*time.Second {
					t.Errorf("New took %v", d)
				}
				w.after(20 * time.Second)
				if what == "all" {
					w.state(verify.RevocationCold)
				} else {
					w.state(verify.RevocationStale)
					w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
				}
				w.after(10 * time.Minute)
				if n := len(w.feed.Requests()); n > 200 {
					t.Errorf("%d requests in ten minutes", n)
				}
				rude = false
				w.after(3 * time.Minute) // a snapshot may drip that long
				w.state(verify.RevocationFresh)
				w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
			})
		}
	}
}

// Retry-After is heeded, within bounds.
func TestRetryAfter(t *testing.T) {
	for value, most := range map[string]int{"40": 3, "100000": 2, "-1": 20, "x": 20, "0": 20} {
		inBubble(t, value, func(t *testing.T, ctx context.Context) {
			w := newWorld(t)
			w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
				a.Header().Set("Retry-After", value)
				a.WriteHeader(503)
				return true
			}
			w.start(ctx)
			w.after(110 * time.Second)
			if n := len(w.feed.Requests()); n > most || n < 2 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// Snapshots that are not what their signed line says, or not signed rightly, leave
// things as they were.
func TestBrokenSnapshots(t *testing.T) {
	cut := func(f func(line, body []byte) []byte) func(w *world, snapshot []byte) []byte {
		return func(_ *world, snapshot []byte) []byte {
			line, body, _ := bytes.Cut(snapshot, []byte("\n"))
			return f(append(line, '\n'), body)
		}
	}
	// body signs another body.
	body := func(f func(body []byte) ([]byte, int)) func(w *world, snapshot []byte) []byte {
		return func(w *world, snapshot []byte) []byte {
			line, old, _ := bytes.Cut(snapshot, []byte("\n"))
			changed, count := f(slices.Clone(old))
			message := w.altered(feedtest.Snapshot, string(line), func(c map[string]any) {
				c["size"], c["count"], c["sha256"] = len(changed), count, sha(changed)
			})
			return append([]byte(message+"\n"), changed...)
		}
	}
	claim := func(name string, value any) func(w *world, snapshot []byte) []byte {
		return func(w *world, snapshot []byte) []byte {
			line, rest, _ := bytes.Cut(snapshot, []byte("\n"))
			return append([]byte(w.altered(feedtest.Snapshot, string(line), func(c map[string]any) {
				if c[name] = value; value == nil {
					delete(c, name)
				}
			})+"\n"), rest...)
		}
	}
	rows := []struct {
		name string
		edit func(w *world, snapshot []byte) []byte
	}{
		{"a bit of the body", cut(func(line, body []byte) []byte { body[len(body)-1] ^= 1; return append(line, body...) })},
		{"one byte short", cut(func(line, body []byte) []byte { return append(line, body[:len(body)-1]...) })},
		{"one byte more", cut(func(line, body []byte) []byte { return append(append(line, body...), 0) })},
		{"no body", cut(func(line, _ []byte) []byte { return line })},
		{"no line", cut(func(_, body []byte) []byte { return body })},
		{"no line feed", cut(func(line, body []byte) []byte { return bytes.Repeat([]byte("A"), 20<<10) })},
		{"unknown kind", body(func(b []byte) ([]byte, int) { b[0] = 8; return b, 3 })},
		{"kind 0", body(func(b []byte) ([]byte, int) { b[0] = 0; return b, 3 })},
		{"unknown effect", body(func(b []byte) ([]byte, int) { b[1] = 3; return b, 3 })},
		{"an until before 1970", body(func(b []byte) ([]byte, int) { b[2] = 0x80; return b, 3 })},
		{"an empty group", body(func(b []byte) ([]byte, int) { b[13] = 0; return b, 3 })},
		{"fewer than count", body(func(b []byte) ([]byte, int) { return b, 4 })},
		{"more than count", body(func(b []byte) ([]byte, int) { return b, 2 })},
		{"an entry twice", body(func(b []byte) ([]byte, int) { return append(b, b...), 6 })},
		{"count is negative", claim("count", -1)},
		{"size is negative", claim("size", -1)},
		{"size is huge", claim("size", int64(1)<<60)},
		{"count is a text", claim("count", "3")},
		{"no digest", claim("sha256", nil)},
		{"no seq", claim("seq", nil)},
		{"seq without chain", claim("chain", "")},
		{"no feed_id", claim("feed_id", nil)},
		{"feed_id with a line feed", claim("feed_id", "a\nb")},
		{"another issuer", claim("iss", "https://other.example")},
		{"not of this type", func(w *world, s []byte) []byte {
			line, rest, _ := bytes.Cut(s, []byte("\n"))
			return append([]byte(w.feed.Sign(feedtest.Heartbeat, claimsOf(string(line)))+"\n"), rest...)
		}},
		{"by another's key", func(w *world, s []byte) []byte {
			line, rest, _ := bytes.Cut(s, []byte("\n"))
			return append([]byte(feedtest.Sign(newKey("f1", "ES256").jose(), feedtest.Snapshot, claimsOf(string(line)))+"\n"), rest...)
		}},
	}
	for _, r := range rows {
		inBubble(t, r.name, func(t *testing.T, ctx context.Context) {
			w := newWorld(t)
			w.feed.Block("jti", "bad", life)
			w.feed.Block("jti", "worse", life)
			w.feed.Block("jti", "worst", life)
			broken := true
			w.feed.Intercept = func(a http.ResponseWriter, request *http.Request) bool {
				if !broken || !strings.HasSuffix(request.URL.Path, "/snapshot") {
					return false
				}
				_, _ = a.Write(r.edit(w, w.feed.Snapshot()))
				return true
			}
			w.start(ctx)
			w.after(time.Minute)
			w.state(verify.RevocationCold)
			broken = false
			w.after(time.Minute)
			w.state(verify.RevocationFresh)
			w.refuses(w.token(set("jti", "bad")), verify.ErrRevoked)
		})
	}
	inBubble(t, "by a key it says is revoked", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		w.feed.Block("kid", "f1", 0)
		w.start(ctx)
		w.after(time.Minute)
		w.state(verify.RevocationCold)
	})
}

// A key is revoked by the feed at once, though the key set at hand still has it
// (V26); and the feed's own key as well.
func TestRevokedKeys(t *testing.T) {
	inBubble(t, "of the feed", func(t *testing.T, ctx context.Context) {
		w := newWorld(t)
		next := newKey("f2", "ES256")
		w.publish(w.key, w.feedKey, next)
		w.start(ctx)
		w.feed.Block("kid", "f1", 0)
		w.after(20 * time.Second)
		w.state(verify.RevocationStale) // what f1 signs counts for nothing now
		w.feed.Rekey(next.jose())
		w.after(30 * time.Second)
		w.state(verify.RevocationFresh)
		w.accepts(w.token())
	})
}

// Everything ends with the context.
func TestFollowingEnds(t *testing.T) {
	inBubble(t, "goroutines", func(t *testing.T, ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		w := newWorld(t).start(ctx)
		cancel()
		synctest.Wait()
		w.feed.Block("jti", "t1", life)
		w.after(time.Minute)
		w.state(verify.RevocationStale)
		w.accepts(w.token())
	})
}
