// Package feedtest serves a revocation feed out of memory, rightly or with
// faults, for the tests of package verify and of those who use verifytest. It
// shares no code with what it tests.
package feedtest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The types of messages.
const (
	Batch     = "revocation-batch+jwt"
	Heartbeat = "revocation-heartbeat+jwt"
	Snapshot  = "revocation-snapshot+jwt"
)

// Kinds are numbered from 1 in snapshots.
var kinds = []string{"", "jti", "grant", "sid", "sub", "client", "kid", "iss"}

// maxBatch is how many events go into one batch.
const maxBatch = 1000

// An Entry is one line of the log. Times are Unix milliseconds.
type Entry struct {
	Seq       int64  `json:"seq"`
	Kind      string `json:"kind"`
	Effect    string `json:"effect"`
	Hash      string `json:"hash"`
	NotBefore int64  `json:"not_before,omitempty"`
	Until     int64  `json:"until"`
	At        int64  `json:"at"`

	chain string
}

// A Feed is a log and the server of it, an http.Handler below the feed's address.
type Feed struct {
	Issuer string
	Key    jose.JSONWebKey // private, with kid
	Now    func() time.Time

	// Edit, when set, sees every message before it is sent, with its type, and
	// returns what is sent in its place.
	Edit func(typ, message string) []string

	// Intercept, when set, may answer a request itself.
	Intercept func(w http.ResponseWriter, r *http.Request) (answered bool)

	mu       sync.Mutex
	id       string
	entries  []Entry // what the log holds
	tail     int     // how many of the first are no longer offered as batches
	changed  chan struct{}
	cut      chan struct{}
	closed   bool
	requests []string
}

// New makes an empty feed.
func New(issuer, id string, key jose.JSONWebKey) *Feed {
	return &Feed{Issuer: issuer, Key: key, Now: time.Now, id: id, changed: make(chan struct{}), cut: make(chan struct{})}
}

// Hash is how a feed names a value.
func Hash(kind, value string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + value))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// Block appends that whatever value names is refused, for life from now.
func (f *Feed) Block(kind, value string, life time.Duration) int64 {
	return f.Append(Entry{Kind: kind, Effect: "block", Hash: Hash(kind, value)}, life)
}

// Epoch appends that what was issued up to a moment is refused.
func (f *Feed) Epoch(kind, value string, notBefore time.Time, life time.Duration) int64 {
	return f.Append(Entry{Kind: kind, Effect: "epoch", Hash: Hash(kind, value), NotBefore: notBefore.UnixMilli()}, life)
}

// Append appends an entry, which gets its number and, unless it has them, its
// times, and returns the number. A life of 0 is without end.
func (f *Feed) Append(e Entry, life time.Duration) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.append(e, life)
}

func (f *Feed) append(e Entry, life time.Duration) int64 {
	e.Seq = int64(len(f.entries)) + 1
	e.At = cmp.Or(e.At, f.Now().UnixMilli())
	if life != 0 {
		e.Until = e.At + life.Milliseconds()
	}
	e.chain = chainAfter(f.head(), e)
	f.entries = append(f.entries, e)
	close(f.changed)
	f.changed = make(chan struct{})
	return e.Seq
}

func (f *Feed) head() string {
	if len(f.entries) == 0 {
		return ""
	}
	return f.entries[len(f.entries)-1].chain
}

// chainAfter follows storage's encoding, less the reason.
func chainAfter(prev string, e Entry) string {
	var b bytes.Buffer
	number := func(n int64) { _ = binary.Write(&b, binary.BigEndian, n) }
	field := func(v []byte) { number(int64(len(v))); b.Write(v) }
	field(decode(prev))
	number(e.Seq)
	field([]byte(e.Kind))
	field(decode(e.Hash))
	field([]byte(e.Effect))
	number(e.NotBefore)
	number(e.Until)
	number(e.At)
	sum := sha256.Sum256(b.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func decode(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// Restart gives the feed another name and an empty log, as after a restore.
func (f *Feed) Restart(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id, f.entries, f.tail = id, nil, 0
	f.cutAll()
}

// Truncate forgets the entries after seq, as a database that lost commits.
func (f *Feed) Truncate(seq int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = f.entries[:seq]
	f.cutAll()
}

// Rekey signs with another key from now on.
func (f *Feed) Rekey(key jose.JSONWebKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Key = key
}

// Compact offers no batches of what is in the log now: whoever is behind has to
// read a snapshot.
func (f *Feed) Compact() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tail = len(f.entries)
}

// Cut ends all streams.
func (f *Feed) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAll()
}

// Close ends all streams and answers nothing any more.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.cutAll()
}

func (f *Feed) cutAll() {
	close(f.cut)
	f.cut = make(chan struct{})
}

// Requests are the documents asked for so far, in order. Whatever a test has set
// before is seen by the requests after it.
func (f *Feed) Requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// Sign signs claims as a message of a type.
func (f *Feed) Sign(typ string, claims any) string { return Sign(f.Key, typ, claims) }

// Sign signs claims as a message of a type with any key.
func Sign(key jose.JSONWebKey, typ string, claims any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key.Key}, &jose.SignerOptions{
		ExtraHeaders: map[jose.HeaderKey]any{"typ": typ, "kid": key.KeyID},
	})
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	message, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return message
}

// About are the claims of every message.
func (f *Feed) About() map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.about()
}

func (f *Feed) about() map[string]any {
	now := f.Now()
	return map[string]any{"iss": f.Issuer, "iat": now.Unix(), "feed_id": f.id, "read_at": now.UnixMilli()}
}

// Heartbeat is the message that nothing follows on the last entry.
func (f *Feed) Heartbeat() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heartbeat()
}

func (f *Feed) heartbeat() string {
	claims := f.about()
	claims["seq"], claims["chain"] = len(f.entries), f.head()
	return f.Sign(Heartbeat, claims)
}

// Batch is the message of the entries from one number to another.
func (f *Feed) Batch(from, to int64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batch(from, to)
}

func (f *Feed) batch(from, to int64) string {
	claims := f.about()
	claims["from"], claims["to"], claims["prev"], claims["chain"] = from, to, "", f.entries[to-1].chain
	if from > 1 {
		claims["prev"] = f.entries[from-2].chain
	}
	claims["events"] = f.entries[from-1 : to]
	return f.Sign(Batch, claims)
}

// Snapshot is the document of what counts now: the signed line and the records.
func (f *Feed) Snapshot() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, count := Records(f.entries, f.Now())
	sum := sha256.Sum256(body)
	claims := f.about()
	claims["seq"], claims["chain"], claims["count"], claims["size"] = len(f.entries), f.head(), count, len(body)
	claims["sha256"] = base64.RawURLEncoding.EncodeToString(sum[:])
	return append([]byte(f.Sign(Snapshot, claims)+"\n"), body...)
}

// Records encodes the entries that still count.
func Records(entries []Entry, now time.Time) (body []byte, count int) {
	type group struct {
		kind, effect byte
		until        int64
	}
	latest := map[[2]string]Entry{}
	for _, e := range entries {
		latest[[2]string{e.Kind, e.Hash}] = e
	}
	groups := map[group][][]byte{}
	for _, e := range latest {
		if e.Until != 0 && e.Until <= now.UnixMilli() {
			continue
		}
		g := group{byte(slices.Index(kinds, e.Kind)), 1, e.Until}
		record := decode(e.Hash)
		if e.Effect == "epoch" {
			g.effect = 2
			record = binary.BigEndian.AppendUint64(record, uint64(e.NotBefore))
		} else if g.until != 0 {
			g.until = int64(math.Ceil(float64(g.until)/60_000)) * 60_000
		}
		groups[g] = append(groups[g], record)
		count++
	}
	order := make([]group, 0, len(groups))
	for g := range groups {
		order = append(order, g)
	}
	slices.SortFunc(order, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.effect, b.effect), cmp.Compare(a.until, b.until))
	})
	for _, g := range order {
		records := groups[g]
		slices.SortFunc(records, bytes.Compare)
		body = append(body, g.kind, g.effect)
		body = binary.BigEndian.AppendUint64(body, uint64(g.until))
		body = binary.BigEndian.AppendUint32(body, uint32(len(records)))
		for _, r := range records {
			body = append(body, r...)
		}
	}
	return body, count
}

// ServeHTTP answers …/snapshot, …/stream and …/poll.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	document := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	f.mu.Lock()
	f.requests = append(f.requests, document)
	closed, intercept := f.closed, f.Intercept
	f.mu.Unlock()
	if closed {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if intercept != nil && intercept(w, r) {
		return
	}
	switch document {
	case "snapshot":
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(f.Snapshot())
	case "stream":
		f.stream(w, r)
	case "poll":
		f.poll(w, r)
	default:
		http.NotFound(w, r)
	}
}

// A reader is one connection's place in the log.
type reader struct {
	feed *Feed
	id   string
	seq  int64
}

func (f *Feed) reader(r *http.Request) *reader {
	after := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"))
	id, seq, _ := strings.Cut(after, ":")
	n, _ := strconv.ParseInt(seq, 10, 64)
	return &reader{f, id, n}
}

type message struct{ typ, text string }

// next returns the messages after the reader's place and, if asked for, a
// heartbeat; whether it has to read a snapshot; and what tells that there is more.
func (r *reader) next(beat bool) (messages []message, resync string, ahead bool, changed, cut <-chan struct{}) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, cut = f.changed, f.cut
	last := int64(len(f.entries))
	switch {
	case r.id != f.id:
		return nil, "another feed", false, changed, cut
	case r.seq < int64(f.tail):
		return nil, "too old", false, changed, cut
	case r.seq > last:
		return nil, "", true, changed, cut
	}
	for r.seq < last {
		to := min(r.seq+maxBatch, last)
		messages = append(messages, message{Batch, f.batch(r.seq+1, to)})
		r.seq = to
	}
	if beat {
		messages = append(messages, message{Heartbeat, f.heartbeat()})
	}
	return messages, "", false, changed, cut
}

func (f *Feed) edited(m message) []string {
	f.mu.Lock()
	edit := f.Edit
	f.mu.Unlock()
	if edit == nil {
		return []string{m.text}
	}
	return edit(m.typ, m.text)
}

func (f *Feed) stream(w http.ResponseWriter, r *http.Request) {
	at := f.reader(r)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	fmt.Fprint(w, "retry: 2000\n\n")
	beat := time.NewTicker(5 * time.Second)
	defer beat.Stop()
	due := true
	for {
		messages, resync, ahead, changed, cut := at.next(due)
		if resync != "" {
			fmt.Fprintf(w, "event: resync\ndata: {\"reason\":%q}\n\n", resync)
			return
		}
		if ahead {
			fmt.Fprint(w, ": wait\n\n")
		} else {
			due = false
		}
		for _, m := range messages {
			name := "batch"
			if m.typ == Heartbeat {
				name = "heartbeat"
			}
			for _, text := range f.edited(m) {
				fmt.Fprintf(w, "id: %s:%d\nevent: %s\ndata: %s\n\n", at.id, at.seq, name, text)
			}
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-cut:
			return
		case <-changed:
		case <-beat.C:
			due = true
		}
	}
}

func (f *Feed) poll(w http.ResponseWriter, r *http.Request) {
	at := f.reader(r)
	seconds, _ := strconv.Atoi(r.URL.Query().Get("wait"))
	timeout := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timeout.Stop()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	for waiting := true; ; {
		messages, resync, ahead, changed, _ := at.next(false)
		if resync != "" {
			_ = json.NewEncoder(w).Encode(map[string]string{"resync": resync})
			return
		}
		if len(messages) == 0 && waiting {
			select {
			case <-r.Context().Done():
				return
			case <-changed:
			case <-timeout.C:
				waiting = false
			}
			continue
		}
		if !ahead {
			more, _, _, _, _ := at.next(true)
			messages = append(messages, more...)
		}
		answer := struct {
			Messages []string `json:"messages"`
		}{[]string{}}
		for _, m := range messages {
			answer.Messages = append(answer.Messages, f.edited(m)...)
		}
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
}
