package revocation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/signet-oidc/signet/storage"
)

const (
	// poll is how often the log is looked at when nothing was announced: a
	// replica that hears nothing is at most this late.
	poll = time.Second
	// spacing is the least time between two publications of entries: the first
	// after a quiet time goes out at once, a storm goes out in batches.
	spacing = 250 * time.Millisecond
	// beat is how often a verifier is told that nothing happened.
	beat = 5 * time.Second
	// certain is how old the last complete read of the log may be for that: a
	// replica cut off from its database cannot certify anything.
	certain = 5 * time.Second
	// longestBatch bounds the entries of one signed message.
	longestBatch = 1000
	// tailLength is how many entries a replica keeps in memory, so that a
	// verifier which was away may go on from where it was.
	tailLength = 32 << 10
	// keptFrames is how many signed messages are remembered.
	keptFrames = 128
)

// FeedConfig is what a Feed is made of. All fields but Tracer are required.
type FeedConfig struct {
	Store  storage.Store
	Issuer string
	// Sign returns the claims as a compact JWS of the type, by the feed's key.
	Sign func(typ string, claims []byte) (string, error)
	// Now is this replica's clock, Shared what the database's clock shows at a
	// moment of it, or a little less.
	Now    func() time.Time
	Shared func(time.Time) time.Time
	// CatchUp is called when there are new entries, before a verifier is told of
	// them, so that this replica knows what came with them. That it failed is
	// logged and keeps no entry back.
	CatchUp func(context.Context) error
	Tracer  trace.Tracer // nil: none
	Log     *slog.Logger
}

// Feed follows the revocation log and tells verifiers what is in it. It keeps
// the last entries in memory, their chain checked, and signs each message once
// for all who get it. It is safe for concurrent use.
type Feed struct {
	cfg     FeedConfig
	keep    int // how many entries of the tail
	current atomic.Pointer[head]
	signed  atomic.Int64
	// restarts counts how often the log was not what it had been.
	restarts atomic.Int64
	silent   atomic.Bool // the log could not be read; said once

	mu     sync.Mutex // held while signing, so that each message is signed once
	frames map[frameKey][]byte
	order  []frameKey // of frames, the oldest first

	snapshots snapshots
}

// head is the log as far as this replica has read it. It is immutable but for
// read; another head takes its place when there are new entries.
type head struct {
	feedID string
	life   int64 // another number: not the continuation of what was there before
	first  int64 // the position before the first entry of the tail
	base   []byte
	tail   []storage.Revocation // first+1, first+2, … without a gap
	read   atomic.Pointer[reading]
	// moved is closed when another head has taken this one's place.
	moved chan struct{}
}

// reading is a read of the log that found it to end where a head does.
type reading struct {
	began time.Time // by this replica's clock
	at    time.Time // the same by the database's
}

func (h *head) seq() int64 { return h.first + int64(len(h.tail)) }

// chainAt returns the chain hash of an entry between first and the last.
func (h *head) chainAt(seq int64) []byte {
	if seq == h.first {
		return h.base
	}
	return h.tail[seq-h.first-1].Chain
}

// OpenFeed starts the log if need be and reads its end. Run then follows it.
func OpenFeed(ctx context.Context, cfg FeedConfig) (*Feed, error) {
	if cfg.Tracer == nil {
		cfg.Tracer = noop.Tracer{}
	}
	f := &Feed{cfg: cfg, keep: tailLength, frames: make(map[frameKey][]byte)}
	f.snapshots.building = make(chan struct{}, 1)
	_, err := cfg.Store.RevocationLog(ctx)
	if errors.Is(err, storage.ErrNotFound) {
		err = cfg.Store.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.StartRevocationLog(ctx) })
	}
	if err != nil {
		return nil, fmt.Errorf("revocation log: %w", err)
	}
	if err := f.restart(ctx); err != nil {
		return nil, err
	}
	return f, nil
}

// Run follows the log until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	changes := f.cfg.Store.Changes(ctx)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		case <-tick.C:
		}
		before := f.current.Load()
		switch err := f.follow(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil && !f.silent.Swap(true):
			f.cfg.Log.Error("the revocation log cannot be read: verifiers get no heartbeat until it can", "cause", err.Error())
		case err == nil && f.silent.Swap(false):
			f.cfg.Log.Info("the revocation log can be read again")
		}
		if f.current.Load() != before {
			select {
			case <-ctx.Done():
				return
			case <-time.After(spacing):
			}
		}
	}
}

// follow reads what was appended since the last time.
func (f *Feed) follow(ctx context.Context) error {
	now := f.reading()
	log, err := f.cfg.Store.RevocationLog(ctx)
	if err != nil {
		return fmt.Errorf("revocation log: %w", err)
	}
	h := f.current.Load()
	if log.FeedID != h.feedID || log.Seq < h.seq() || log.Seq == h.seq() && !bytes.Equal(log.Chain, h.chainAt(log.Seq)) {
		f.cfg.Log.Error("the revocation log is not what it was, as after a restore: all verifiers start over",
			"feed_id", log.FeedID, "seq", log.Seq, "feed_id_before", h.feedID, "seq_before", h.seq())
		return f.restart(ctx)
	}
	if log.Seq == h.seq() {
		h.read.Store(now)
		return nil
	}
	ctx, span := f.cfg.Tracer.Start(ctx, "revocations", trace.WithNewRoot(), trace.WithAttributes(attribute.Int64("signet.entries", log.Seq-h.seq())))
	defer span.End()
	entries, err := f.continuation(ctx, h, log.Seq)
	if err != nil {
		span.SetStatus(codes.Error, "")
		return err
	}
	if entries == nil {
		f.cfg.Log.Error("the revocation log has a gap or a broken chain: verifiers that are behind it start over",
			"feed_id", h.feedID, "after", h.seq(), "seq", log.Seq)
		return f.restart(ctx)
	}
	tail, first, base := append(h.tail, entries...), h.first, h.base // nobody reads beyond the length of an older tail
	if len(tail) > 2*f.keep {
		cut := len(tail) - f.keep
		first, base = first+int64(cut), tail[cut-1].Chain
		tail = append([]storage.Revocation(nil), tail[cut:]...)
	}
	f.catchUp(ctx)
	f.publish(&head{feedID: h.feedID, life: h.life, first: first, base: base, tail: tail}, now)
	return nil
}

func (f *Feed) catchUp(ctx context.Context) {
	if err := f.cfg.CatchUp(ctx); err != nil {
		f.cfg.Log.Warn("verifiers learn of revocations before this server knows what came with them", "cause", err.Error())
	}
}

// continuation returns the entries after h, at least up to seq, or nil when
// one is missing or the chain is broken.
func (f *Feed) continuation(ctx context.Context, h *head, seq int64) ([]storage.Revocation, error) {
	var entries []storage.Revocation
	at, chain := h.seq(), h.chainAt(h.seq())
	for at < seq {
		page, err := f.cfg.Store.RevocationsAfter(ctx, at, longestBatch)
		if err != nil {
			return nil, fmt.Errorf("revocation log: %w", err)
		}
		for _, e := range page {
			if e.Seq != at+1 || !bytes.Equal(e.ChainAfter(chain), e.Chain) {
				return nil, nil
			}
			at, chain = e.Seq, e.Chain
			e.Reason = ""
			entries = append(entries, e)
		}
		if len(page) == 0 || len(entries) > f.keep {
			return nil, nil
		}
	}
	return entries, nil
}

// restart reads the end of the log anew: as much of it as is there without a
// gap, up to the entry that feed_state vouches for.
func (f *Feed) restart(ctx context.Context) error {
	now := f.reading()
	h := &head{}
	err := f.cfg.Store.View(ctx, func(ctx context.Context, r storage.Reader) error {
		log, err := r.RevocationLog(ctx)
		if err != nil {
			return err
		}
		h.feedID, h.first, h.base = log.FeedID, max(0, log.Seq-int64(f.keep)), nil
		known := h.first == 0 // whether base is the chain at first
		for at := h.first; at < log.Seq; {
			page, err := r.RevocationsAfter(ctx, at, longestBatch)
			if err != nil {
				return err
			}
			for _, e := range page {
				if !known || e.Seq != at+1 || !bytes.Equal(e.ChainAfter(h.chainAt(at)), e.Chain) {
					h.first, h.base, h.tail, known = e.Seq, e.Chain, nil, true
				} else {
					e.Reason = ""
					h.tail = append(h.tail, e)
				}
				at = e.Seq
			}
			if len(page) == 0 {
				break
			}
		}
		if h.seq() != log.Seq || !bytes.Equal(h.chainAt(log.Seq), log.Chain) {
			h.first, h.base, h.tail = log.Seq, log.Chain, nil
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("revocation log: %w", err)
	}
	f.catchUp(ctx)
	h.life = f.restarts.Add(1)
	f.publish(h, now)
	return nil
}

func (f *Feed) reading() *reading {
	began := f.cfg.Now()
	return &reading{began: began, at: f.cfg.Shared(began)}
}

func (f *Feed) publish(h *head, now *reading) {
	h.moved = make(chan struct{})
	h.read.Store(now)
	if before := f.current.Swap(h); before != nil {
		close(before.moved)
	}
}

// Stats are figures of a Feed for its operator.
type Stats struct {
	Seq      int64         // of the last entry
	ReadAge  time.Duration // since the log was last read to its end
	Signed   int64         // messages signed
	Restarts int64         // how often the log was not the continuation of what it had been
}

// Stats returns the figures of now.
func (f *Feed) Stats() Stats {
	h := f.current.Load()
	return Stats{
		Seq: h.seq(), ReadAge: f.cfg.Now().Sub(h.read.Load().began),
		Signed: f.signed.Load(), Restarts: f.restarts.Load() - 1,
	}
}

// Position is a place in the log, as verifiers remember it.
type Position struct {
	FeedID string
	Seq    int64
}

func (p Position) String() string { return p.FeedID + ":" + strconv.FormatInt(p.Seq, 10) }

// ErrPosition says that a text is not a position.
var ErrPosition = errors.New("not a position of a revocation feed")

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	const longest = 128
	id, number, ok := strings.Cut(s, ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || id == "" || seq < 0 || len(s) > longest || number != strconv.FormatInt(seq, 10) {
		return Position{}, ErrPosition
	}
	for _, c := range id {
		if !('a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80 || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return Position{}, ErrPosition
		}
	}
	return Position{id, seq}, nil
}

// Position returns where the log ends.
func (f *Feed) Position() Position {
	h := f.current.Load()
	return Position{h.feedID, h.seq()}
}

// The kinds of messages a follower gets.
const (
	MessageBatch     = "batch"
	MessageHeartbeat = "heartbeat"
	// MessageWait says nothing, unsigned: there is no news of which this
	// replica could be sure.
	MessageWait = "wait"
)

// Message is what a follower is sent. JWS is shared: it must not be changed.
type Message struct {
	Kind     string
	Position Position // where the verifier is after it
	JWS      []byte
}

// ResyncError says that a verifier cannot go on from its position: it has to
// start over from the snapshot.
type ResyncError struct{ Reason string }

func (e *ResyncError) Error() string { return "revocation feed: " + e.Reason }

// follower is a verifier that is being told.
type follower struct {
	feed  *Feed
	at    Position
	life  int64 // of the log it follows; 0 before the first look
	began time.Time
}

func (f *Feed) follower(at *Position) *follower {
	fo := &follower{feed: f, began: f.cfg.Now()}
	if at == nil {
		fo.at = f.Position()
	} else {
		fo.at = *at
	}
	return fo
}

// catchUp sends what is in h after the follower's position. ahead says that
// the position is beyond what this replica knows.
func (fo *follower) catchUp(h *head, most int, send func(Message) error) (ahead bool, err error) {
	switch {
	case fo.at.FeedID != h.feedID:
		return false, &ResyncError{"this is another feed"}
	case fo.life != 0 && fo.life != h.life:
		return false, &ResyncError{"the log is not what it was"}
	case fo.at.Seq > h.seq():
		// A read that began after the follower came would have seen the entry,
		// had it ever been committed and kept.
		if h.read.Load().began.After(fo.began) {
			return true, &ResyncError{"the position is beyond the end of the log"}
		}
		return true, nil
	case fo.at.Seq < h.first:
		return false, &ResyncError{"the position is too old"}
	}
	fo.life = h.life
	for range most {
		if fo.at.Seq == h.seq() {
			break
		}
		from := fo.at.Seq + 1
		// Batches end at round numbers, so that followers who come from
		// different positions soon get the same ones.
		to := min(h.seq(), (from-1)/longestBatch*longestBatch+longestBatch)
		jws, err := fo.feed.batch(h, from, to)
		if err != nil {
			return false, err
		}
		fo.at.Seq = to
		if err := send(Message{MessageBatch, fo.at, jws}); err != nil {
			return false, err
		}
	}
	return false, nil
}

// heartbeat returns the message that nothing happened beyond the follower's
// position, or one that says nothing when that is not certain.
func (fo *follower) heartbeat(h *head) (Message, error) {
	r := h.read.Load()
	if fo.at.Seq != h.seq() || fo.feed.cfg.Now().Sub(r.began) > certain {
		return Message{Kind: MessageWait, Position: fo.at}, nil
	}
	jws, err := fo.feed.heartbeat(h, r)
	return Message{MessageHeartbeat, fo.at, jws}, err
}

// Follow sends what verifiers have to know after the position at, or from now
// on when at is nil: what there is already and a heartbeat at once, then each
// batch as it comes and a heartbeat every five seconds. It ends with ctx's
// error, with that of send, or with a *ResyncError.
func (f *Feed) Follow(ctx context.Context, at *Position, send func(Message) error) error {
	fo := f.follower(at)
	timer := time.NewTimer(beat)
	defer timer.Stop()
	for due := true; ; {
		h := f.current.Load()
		if _, err := fo.catchUp(h, tailLength, send); err != nil {
			return err
		}
		if due {
			m, err := fo.heartbeat(h)
			if err != nil {
				return err
			}
			if err := send(m); err != nil {
				return err
			}
			due = false
			timer.Reset(beat)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.moved:
		case <-timer.C:
			due = true
		}
	}
}

// longestAnswer is how many batches one Poll returns at most.
const longestAnswer = 8

// Poll returns what is after the position at, with a heartbeat where that is
// all, as soon as there is something; after wait, the heartbeat alone. Where
// nothing is certain the answer is empty. Errors as Follow's.
func (f *Feed) Poll(ctx context.Context, at *Position, wait time.Duration) ([]Message, error) {
	fo := f.follower(at)
	var messages []Message
	collect := func(m Message) error {
		messages = append(messages, m)
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := wait <= 0; ; {
		h := f.current.Load()
		ahead, err := fo.catchUp(h, longestAnswer, collect)
		if err != nil {
			return nil, err
		}
		if len(messages) > 0 || over {
			if ahead {
				return nil, nil
			}
			m, err := fo.heartbeat(h)
			if err == nil && m.Kind == MessageHeartbeat {
				messages = append(messages, m)
			}
			return messages, err
		}
		// What is ahead shows with the next read, which need not move the head.
		var soon <-chan time.Time
		if ahead {
			soon = time.After(poll / 4)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-h.moved:
		case <-soon:
		case <-timer.C:
			over = true
		}
	}
}
