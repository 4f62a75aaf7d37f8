package verify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/verify/internal/feedtest"
)

// A fuzzed feed gives seeds: a log of each kind and effect.
func fuzzedFeed() (*feedtest.Feed, jose.JSONWebKey) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	key := jose.JSONWebKey{Key: private, KeyID: "f1"}
	feed := feedtest.New("https://id.example", "F1", key)
	for kind, value := range map[string]string{"jti": "a", "grant": "b", "sid": "c", "kid": "d", "iss": "https://id.example"} {
		feed.Block(kind, value, time.Hour)
		feed.Epoch(kind, value+"x", time.Now(), time.Hour)
	}
	feed.Block("sub", "for ever", 0)
	return feed, key
}

func payloadOf(message string) []byte {
	b, _ := base64.RawURLEncoding.DecodeString(strings.Split(message, ".")[1])
	return b
}

// FuzzBatch: whatever is taken from a batch follows on the position without a gap
// and ends where the chain of its events does.
func FuzzBatch(f *testing.F) {
	feed, _ := fuzzedFeed()
	f.Add(payloadOf(feed.Batch(1, 11)), int64(0), "")
	f.Add(payloadOf(feed.Batch(3, 5)), int64(2), "x")
	f.Add(payloadOf(feed.Batch(1, 3)), int64(2), "x")
	f.Add([]byte(`{"iss":"https://id.example","feed_id":"F1","read_at":1,"from":1,"to":1,"prev":"","chain":"","events":[null]}`), int64(0), "")
	f.Fuzz(func(t *testing.T, payload []byte, seq int64, chain string) {
		b, err := parseBatch(payload, "https://id.example")
		if err != nil {
			return
		}
		at := position{"F1", seq, chain}
		records, next, err := b.after(at, time.Minute)
		if err != nil || len(records) == 0 {
			if next != at {
				t.Fatal("moved on without records")
			}
			return
		}
		if int64(len(records)) != next.seq-seq || next.seq != b.To || b.From > seq+1 || next.chain != b.Chain || b.FeedID != "F1" {
			t.Fatalf("%d records from %v to %v", len(records), at, next)
		}
		table := (&table{}).with(records)
		for i, r := range records {
			key := revocationKey{r.hi, r.lo, r.kind()}
			if found := table.find(&key); found == nil || i == len(records)-1 && *found != r {
				t.Fatal("the table lost an entry")
			}
		}
	})
}

func FuzzHeartbeat(f *testing.F) {
	feed, _ := fuzzedFeed()
	f.Add(payloadOf(feed.Heartbeat()))
	f.Add(payloadOf(feedtest.New("https://id.example", "F1", feed.Key).Heartbeat()))
	f.Add([]byte(`{"iss":"https://id.example","feed_id":"a","read_at":9223372036854775807,"seq":0,"chain":""}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		h, err := parseHeartbeat(payload, "https://id.example")
		if err == nil && (h.Seq == nil || *h.Seq < 0 || h.FeedID == "" || h.ReadAt <= 0 || !json.Valid(payload)) {
			t.Fatalf("%+v", h)
		}
	})
}

// FuzzSnapshot: what is read has as many entries as the signed line says, each of
// which is found again, and costs no more than was sent.
func FuzzSnapshot(f *testing.F) {
	feed, _ := fuzzedFeed()
	_, body, _ := bytes.Cut(feed.Snapshot(), []byte("\n"))
	f.Add(body, int64(11))
	f.Add([]byte{}, int64(0))
	f.Add(bytes.Repeat([]byte{1}, 30), int64(1))
	f.Fuzz(func(t *testing.T, body []byte, count int64) {
		sum := sha256.Sum256(body)
		seq := int64(1)
		claims, err := json.Marshal(map[string]any{"iss": "https://id.example", "feed_id": "F1", "read_at": time.Now().UnixMilli(), "seq": seq,
			"chain": base64.RawURLEncoding.EncodeToString(sum[:]), "count": count, "size": len(body), "sha256": base64.RawURLEncoding.EncodeToString(sum[:])})
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseSnapshotHeader(claims, "https://id.example", 10_000)
		if err != nil {
			return
		}
		read, err := h.readRecords(bytes.NewReader(body), time.Minute)
		if err != nil {
			return
		}
		if int64(read.size) != count {
			t.Fatalf("%d of %d", read.size, count)
		}
		n := 0
		for i, s := range read.shards {
			if s == nil {
				continue
			}
			for _, r := range s.records {
				key := revocationKey{r.hi, r.lo, r.kind()}
				if n++; shardOf(r.hi) != i || read.find(&key) == nil {
					t.Fatal("an entry is not where it is looked for")
				}
			}
		}
		if n != read.size {
			t.Fatalf("%d entries, said to be %d", n, read.size)
		}
	})
}

// FuzzEvents: a stream of server-sent events yields the same however it is cut up.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("retry: 5\n\nid: 1\nevent: batch\ndata: a\ndata: b\n\n: wait\n\ndata: c\n\n"))
	f.Add([]byte("\xef\xbb\xbfevent:heartbeat\r\ndata:x\r\n\r\nevent: lost\n\ndata\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		read := func(r *eventReader) (all []streamEvent) {
			for {
				e, err := r.next()
				if err != nil {
					return all
				}
				if len(e.data) > maxMessage || strings.ContainsAny(e.name, "\r\n") || strings.Contains(e.data, "\r") {
					t.Fatalf("%q", e)
				}
				all = append(all, e)
			}
		}
		whole, parts := read(newEventReader(bytes.NewReader(stream))), read(newEventReader(&oneByte{stream}))
		if len(whole) != len(parts) {
			t.Fatalf("%d events, %d in parts", len(whole), len(parts))
		}
		for i := range whole {
			if whole[i] != parts[i] {
				t.Fatalf("%q, %q in parts", whole[i], parts[i])
			}
		}
	})
}

type oneByte struct{ rest []byte }

func (r *oneByte) Read(b []byte) (int, error) {
	n, err := bytes.NewReader(r.rest).Read(b[:1])
	r.rest = r.rest[n:]
	return n, err
}

// FuzzMessage: nothing is opened that an independent verifier does not open, or
// whose header says more than alg, typ and kid.
func FuzzMessage(f *testing.F) {
	feed, key := fuzzedFeed()
	public := key.Public()
	document, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}})
	if err != nil {
		f.Fatal(err)
	}
	set, err := parseKeySet(document, 0)
	if err != nil {
		f.Fatal(err)
	}
	source := &keySource{wake: make(chan struct{}, 1), pending: make(chan struct{})}
	close(source.pending) // no fetch is waited for
	source.held.Store(&heldKeys{set: set, fetched: time.Now().Add(time.Hour)})
	checker := messageChecker{keys: source, algorithms: []string{algES256}, blocked: func(string) bool { return false }}
	for _, m := range []string{feed.Heartbeat(), feed.Batch(1, 2)} {
		header, rest, _ := strings.Cut(m, ".")
		text, _ := base64.RawURLEncoding.DecodeString(header)
		f.Add(string(text), rest)
	}
	f.Add(`{"alg":"none","typ":"`+typHeartbeat+`","kid":"f1"}`, "e30.")
	f.Fuzz(func(t *testing.T, header, rest string) {
		message := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
		payload, kid, err := checker.open(context.Background(), message, typHeartbeat, maxMessage)
		if err != nil {
			return
		}
		parsed, err := jose.ParseSignedCompact(message, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		again, err := parsed.Verify(public.Key)
		if err != nil || !bytes.Equal(again, payload) || kid != "f1" || parsed.Signatures[0].Protected.ExtraHeaders["typ"] != typHeartbeat {
			t.Fatalf("opened %q: %v", message, err)
		}
		var members map[string]any
		if err := json.Unmarshal([]byte(header), &members); err != nil || len(members) != 3 {
			t.Fatalf("header %s", header)
		}
	})
}
