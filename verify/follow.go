package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	streamQuiet     = 11 * time.Second // two heartbeats and a little: then another connection is tried
	snapshotQuiet   = 15 * time.Second // without a byte
	snapshotTimeout = 2 * time.Minute
	pollWait        = 5 * time.Second
	pollFor         = 10 * time.Minute // before a stream is tried again
	pollPause       = 250 * time.Millisecond
	maxPoll         = 8 << 20 // bytes of one answer

	reconnectWithin = 2 * time.Second // after a stream that was good
	minRetry        = time.Second
	maxRetry        = 10 * time.Second
	fullRetry       = 30 * time.Second
	maxRetryAfter   = 60 * time.Second
	lookAgain       = 5 * time.Minute // for a feed where none was named

	maxFormerFeeds = 16
)

var (
	errNoFeed  = errors.New("the issuer names no revocation feed")
	errParted  = errors.New("the chain does not continue ours")
	errTooMany = errors.New("more revocations than there is room for")
)

// A resyncError says that the feed has to be read anew from a snapshot.
type resyncError struct {
	reason string
	hint   bool // came unsigned: it is followed, but makes nothing stale
	parted bool // the log is not the one we read: the snapshot may lack what we know
}

func (e *resyncError) Error() string { return "the feed has to be read anew: " + e.reason }

// A retryError is an answer that tells when to come again.
type retryError struct {
	error
	after time.Duration
}

func (e *retryError) Unwrap() error { return e.error }

// followed is what is known of revocations. It never changes.
type followed struct {
	position
	table    *table
	overfull bool // there are more than we hold
}

// A follower keeps the revocations of one issuer. One goroutine reads the feed;
// readers load a pointer.
type follower struct {
	issuer    string
	issuerKey revocationKey
	options   revocationOptions
	skew      time.Duration
	client    *http.Client
	keys      *keySource
	now       func() time.Time
	log       *slog.Logger
	start     time.Time // of the monotonic clock by which entries age

	state   atomic.Pointer[followed] // nil until the first snapshot
	seen    atomic.Int64             // when the feed last showed to be current, on that clock; 0 never
	fresh   atomic.Int64             // the same, 0 while it has to be read anew
	latest  atomic.Int64             // the newest read_at believed, Unix milliseconds
	none    atomic.Bool              // no feed is named
	polling atomic.Bool
	settled chan struct{} // closed after the first success or failure

	batches, heartbeats, snapshots, resyncs, ignored, failures atomic.Uint64

	// Of the reading goroutine.
	checker   messageChecker
	endpoint  *url.URL
	anew      bool     // read a snapshot before going on
	parted    bool     // and keep what is known besides
	former    []string // feeds that another one has taken the place of
	failed    int      // attempts in a row that brought nothing new
	pollUntil time.Time
	pruned    uint32
	wasStale  atomic.Bool
	overdue   *time.Timer

	mu      sync.Mutex
	lastErr error
}

func newFollower(issuer string, keys *keySource, o *options) *follower {
	client := *keys.client
	client.Timeout = 0 // a stream has no end; every request here has bounds of its own
	f := &follower{
		issuer:    issuer,
		issuerKey: keyOf(kindIssuer, issuer),
		options:   o.revocation,
		skew:      o.skew,
		client:    &client,
		keys:      keys,
		now:       o.now,
		log:       o.log,
		start:     time.Now(),
		settled:   make(chan struct{}),
		anew:      true,
	}
	f.checker = messageChecker{keys: keys, algorithms: []string{algES256}, blocked: f.blocked}
	return f
}

// elapsed is the follower's clock: it starts above zero and never goes back.
func (f *follower) elapsed() time.Duration { return time.Since(f.start) + 1 }

// stale goes by the monotonic clock. That may stand still while a machine sleeps,
// so a wall clock far from the last read_at counts too.
func (f *follower) stale() bool {
	at := f.fresh.Load()
	return at == 0 || f.elapsed()-time.Duration(at) > staleAfter ||
		f.now().Sub(time.UnixMilli(f.latest.Load())).Abs() > 2*staleAfter+f.skew
}

// ready is nil when tokens can be judged.
func (f *follower) ready() error {
	if f.state.Load() != nil || f.options.coldStart || f.none.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lastErr == nil {
		return ErrNotReady
	}
	return fmt.Errorf("%w: revocations: %w", ErrNotReady, f.lastErr)
}

func (f *follower) stats(s *RevocationStats) {
	state := f.state.Load()
	switch {
	case f.none.Load():
		s.State = RevocationNone
	case state == nil:
		s.State = RevocationCold
	case f.stale():
		s.State = RevocationStale
	default:
		s.State = RevocationFresh
	}
	if state != nil {
		s.FeedID, s.Seq, s.Entries, s.Full = state.feedID, state.seq, state.table.size, state.overfull
	}
	if at := f.seen.Load(); at != 0 {
		s.Age = f.elapsed() - time.Duration(at)
	}
	s.Polling = f.polling.Load()
	s.Batches, s.Heartbeats, s.Snapshots = f.batches.Load(), f.heartbeats.Load(), f.snapshots.Load()
	s.Resyncs, s.Ignored, s.Failures = f.resyncs.Load(), f.ignored.Load(), f.failures.Load()
}

// blocked reports whether messages signed with a key count for nothing.
func (f *follower) blocked(kid string) bool {
	state := f.state.Load()
	return state != nil && state.table.blocksKey(kid)
}

func (t *table) blocksKey(kid string) bool {
	key := keyOf(kindKey, kid)
	r := t.find(&key)
	return r != nil && r.blocks()
}

// begin starts following until ctx ends. With wait it returns after a first
// success or failure, or fetchTimeout.
func (f *follower) begin(ctx context.Context, wait bool) {
	f.overdue = time.AfterFunc(staleAfter, func() {
		if ctx.Err() == nil && f.stale() && !f.none.Load() && !f.wasStale.Swap(true) {
			f.log.WarnContext(ctx, "verify: revocations are stale: nothing new from the feed", "issuer", f.issuer, "seconds", staleAfter.Seconds())
		}
	})
	go f.run(ctx)
	if !wait {
		return
	}
	timeout := time.NewTimer(fetchTimeout)
	defer timeout.Stop()
	select {
	case <-f.settled:
	case <-timeout.C:
	case <-ctx.Done():
	}
}

func (f *follower) run(ctx context.Context) {
	defer f.overdue.Stop()
	select {
	case <-f.keys.arrived: // without keys no message can be checked
	case <-ctx.Done():
		f.settle(ctx.Err())
		return
	}
	for {
		before := f.seen.Load()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			f.settle(ctx.Err())
			return
		}
		wait := f.after(ctx, err, f.seen.Load() != before)
		f.settle(err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// settle keeps the reason of the last failure, and lets New go on.
func (f *follower) settle(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastErr = err
	select {
	case <-f.settled:
	default:
		close(f.settled)
	}
}

// follow finds the feed, reads a snapshot where one is needed, and then what the
// feed says until that ends.
func (f *follower) follow(ctx context.Context) error {
	if f.endpoint == nil {
		if err := f.locate(ctx); err != nil {
			return err
		}
	}
	if f.anew {
		if err := f.readSnapshot(ctx); err != nil {
			return err
		}
	}
	if f.polling.Load() {
		return f.poll(ctx)
	}
	return f.stream(ctx)
}

// after draws the conclusions from the end of an attempt and returns how long to
// wait before the next.
func (f *follower) after(ctx context.Context, err error, progress bool) time.Duration {
	if errors.Is(err, errNoFeed) {
		if !f.none.Swap(true) {
			f.log.WarnContext(ctx, "verify: revocations are not followed: the issuer names no feed; tokens count until they expire", "issuer", f.issuer)
		}
		return jitter(lookAgain)
	}
	if progress {
		f.failed = 0
	} else {
		f.failed++
	}
	again, isResync := errors.AsType[*resyncError](err)
	switch {
	case isResync:
		f.anew = true
		// An issuer that says so itself may have lost entries in a failover and
		// written others since, which the number of the last does not show.
		f.parted = f.parted || again.parted || again.hint
		if again.hint {
			f.log.InfoContext(ctx, "verify: reading the revocation feed anew", "issuer", f.issuer, "reason", again.reason)
			break
		}
		f.resyncs.Add(1)
		f.makeStale(ctx, again.reason)
	case errors.Is(err, io.ErrUnexpectedEOF) && progress: // the usual end of a stream
		return rand.N(reconnectWithin)
	default:
		f.failures.Add(1)
		f.log.WarnContext(ctx, "verify: following revocations failed", "issuer", f.issuer, "attempt", f.failed, "error", err)
	}
	if !progress && !f.anew {
		// Streams, or requests, do not get through: try the other.
		f.polling.Store(!f.polling.Load())
		f.pollUntil = time.Now().Add(pollFor)
	}
	if f.failed > 2 {
		f.endpoint = nil // it may have moved
	}
	wait := min(minRetry<<min(f.failed, 10), maxRetry)
	if errors.Is(err, errTooMany) {
		wait = fullRetry
	}
	wait = rand.N(wait/2) + wait/2
	if told, ok := errors.AsType[*retryError](err); ok {
		wait += told.after
	}
	return wait
}

func (f *follower) makeStale(ctx context.Context, reason string) {
	f.fresh.Store(0)
	if !f.wasStale.Swap(true) {
		f.log.WarnContext(ctx, "verify: revocations are stale: the feed has to be read anew", "issuer", f.issuer, "reason", reason)
	}
}

// locate finds the feed's address.
func (f *follower) locate(ctx context.Context) error {
	named := f.options.endpoint
	if named == "" {
		if f.keys.jwksURI != "" {
			return errNoFeed // the metadata is not to be asked
		}
		found := f.keys.found.Load()
		if found == nil || f.none.Load() || f.failed > 0 {
			ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
			defer cancel()
			var err error
			if found, err = f.keys.discover(ctx); err != nil {
				return err
			}
		}
		if named = found.Feed; named == "" {
			if f.state.Load() != nil {
				return errors.New("the issuer's metadata names no revocation feed any more")
			}
			return errNoFeed
		}
	}
	u, err := secureURL(named)
	if err != nil {
		return fmt.Errorf("revocation_feed_endpoint: %w", err)
	}
	if f.options.endpoint == "" {
		// As with the keys: another place is the operator's decision.
		if issuer, err := url.Parse(f.issuer); err != nil || !sameOrigin(u, issuer) {
			return errors.New("revocation_feed_endpoint is not on the issuer's host")
		}
	}
	f.endpoint = u
	if f.none.Swap(false) {
		f.log.InfoContext(ctx, "verify: the issuer names a revocation feed now", "issuer", f.issuer)
	}
	return nil
}

// get asks for a document of the feed. The caller closes the body.
func (f *follower) get(ctx context.Context, document string, query url.Values, accept string) (*http.Response, error) {
	at := f.endpoint.JoinPath(document)
	at.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Cache-Control", "no-cache")
	if document == "stream" {
		r.Header.Set("Last-Event-ID", query.Get("after"))
	}
	if f.options.token != nil {
		token, err := f.options.token(ctx)
		if err != nil {
			return nil, fmt.Errorf("token for the revocation feed: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := f.client.Do(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	res.Body.Close()
	err = fmt.Errorf("%s answered %d", f.endpoint.JoinPath(document), res.StatusCode)
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
		err = fmt.Errorf("%w: the feed wants an access token (WithFeedToken) with the scope it is set to", err)
	}
	if n, convErr := strconv.Atoi(res.Header.Get("Retry-After")); convErr == nil && n > 0 {
		return nil, &retryError{err, min(time.Duration(min(n, 3600))*time.Second, maxRetryAfter)}
	}
	return nil, err
}

// watched cancels what it gives a context to when reset is not called for so long.
func watched(ctx context.Context, quiet time.Duration) (watched context.Context, reset, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(quiet, func() { cancel(fmt.Errorf("nothing came for %v", quiet)) })
	return ctx, func() { timer.Reset(quiet) }, func() { timer.Stop(); cancel(nil) }
}

// A watchedReader tells of every read that brought something.
type watchedReader struct {
	in    io.Reader
	reset func()
}

func (r watchedReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	if n > 0 {
		r.reset()
	}
	return n, err
}

// readSnapshot loads what is revoked and makes it the state.
func (f *follower) readSnapshot(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	ctx, reset, stop := watched(ctx, snapshotQuiet)
	defer stop()
	defer func() { err = causeOf(ctx, err) }()
	res, err := f.get(ctx, "snapshot", nil, "application/octet-stream")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	in := newSnapshotReader(watchedReader{res.Body, reset})
	now := f.elapsed()
	header, kid, err := f.openSnapshot(ctx, in)
	if errors.Is(err, errTooMany) {
		f.overflow()
	}
	if err != nil {
		return err
	}
	held := f.state.Load()
	if err := f.believe(held, header); err != nil {
		return err
	}
	next, err := header.readRecords(in, now)
	if err != nil {
		return err
	}
	if next.blocksKey(kid) {
		return fmt.Errorf("snapshot signed with a revoked key: %w", ErrRevoked)
	}
	if held != nil {
		if held.feedID != header.FeedID || *header.Seq < held.seq {
			f.makeStale(ctx, "the snapshot does not go on from what is known") // until the stream has
		}
		if held.feedID == header.FeedID && (f.parted || *header.Seq < held.seq) {
			// The issuer has lost entries, or an older copy of its log was served. What
			// is known to be revoked stays so.
			if next = stricterOf(next, held.table.at(f.minute())); next.size > f.options.most {
				f.overflow()
				return errTooMany
			}
		}
		if held.feedID != header.FeedID && held.feedID != "" {
			f.former = append(f.former, held.feedID)
			f.former = f.former[max(0, len(f.former)-maxFormerFeeds):]
		}
	}
	f.state.Store(&followed{position: position{header.FeedID, *header.Seq, header.Chain}, table: next})
	f.anew, f.parted = false, false
	f.snapshots.Add(1)
	return nil
}

// causeOf is err, or why its context was cancelled.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// believe refuses a snapshot of a feed that another one has followed. After a
// restore the feed has a new name; the old one may still be in somebody's cache.
func (f *follower) believe(held *followed, h *snapshotHeader) error {
	switch {
	case held == nil || held.feedID == h.FeedID:
		return nil
	case slices.Contains(f.former, h.FeedID):
		return errors.New("snapshot of a former feed")
	case h.ReadAt <= f.latest.Load():
		return errors.New("snapshot of another feed, but older than what is known")
	}
	return nil
}

// overflow marks the state as one that lacks entries.
func (f *follower) overflow() {
	next := followed{table: &table{}}
	if held := f.state.Load(); held != nil {
		next = *held
	}
	next.overfull = true
	f.anew = true
	f.fresh.Store(0)
	f.state.Store(&next)
}

func (f *follower) minute() uint32 { return uint32(f.elapsed() / time.Minute) }

// stream reads server-sent events until they end.
func (f *follower) stream(ctx context.Context) (err error) {
	ctx, reset, stop := watched(ctx, streamQuiet)
	defer stop()
	defer func() { err = causeOf(ctx, err) }()
	after := f.state.Load().position.String()
	res, err := f.get(ctx, "stream", url.Values{"after": {after}}, "text/event-stream")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "text/event-stream" {
		return errors.New("the stream is not one of server-sent events")
	}
	in := newEventReader(res.Body)
	for {
		e, err := in.next()
		if err != nil {
			return err
		}
		before := f.seen.Load()
		switch e.name {
		case "batch":
			err = f.message(ctx, typBatch, e.data)
		case "heartbeat":
			err = f.message(ctx, typHeartbeat, e.data)
		case "resync":
			err = resyncHint(e.data)
		}
		if err != nil {
			return err
		}
		if f.seen.Load() != before {
			reset()
		}
	}
}

// resyncHint is the error of an unsigned wish that the feed be read anew.
func resyncHint(data string) error {
	var hint struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal([]byte(data), &hint); err != nil {
		hint.Reason = ""
	}
	return &resyncError{reason: fmt.Sprintf("the issuer says so: %.100q", hint.Reason), hint: true}
}

// poll asks again and again, for where streams do not get through.
func (f *follower) poll(ctx context.Context) error {
	for {
		before, began := f.seen.Load(), time.Now()
		if err := f.pollOnce(ctx); err != nil {
			return err
		}
		if f.seen.Load() == before {
			return errors.New("the answer tells nothing new")
		}
		if began.After(f.pollUntil) {
			f.polling.Store(false)
			return io.ErrUnexpectedEOF
		}
		f.failed = 0
		pause := time.NewTimer(pollPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

func (f *follower) pollOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pollWait+fetchTimeout)
	defer cancel()
	res, err := f.get(ctx, "poll", url.Values{
		"after": {f.state.Load().position.String()}, "wait": {strconv.Itoa(int(pollWait / time.Second))},
	}, "application/json")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	document, err := io.ReadAll(io.LimitReader(res.Body, maxPoll+1))
	if err != nil {
		return err
	}
	var answer struct {
		Messages []string `json:"messages"`
		Resync   *string  `json:"resync"`
	}
	if len(document) > maxPoll {
		return errors.New("the answer is too large")
	}
	if err := json.Unmarshal(document, &answer); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	if answer.Resync != nil {
		return &resyncError{reason: fmt.Sprintf("the issuer says so: %.100q", *answer.Resync), hint: true}
	}
	for _, message := range answer.Messages {
		typ := typBatch
		if isHeartbeat(message) {
			typ = typHeartbeat
		}
		if err := f.message(ctx, typ, message); err != nil {
			return err
		}
	}
	return nil
}

// message applies one signed message, or says why the feed has to be left.
func (f *follower) message(ctx context.Context, typ, text string) error {
	payload, _, err := f.checker.open(ctx, text, typ, maxMessage)
	if err != nil {
		return err
	}
	if typ == typHeartbeat {
		h, err := parseHeartbeat(payload, f.issuer)
		if err != nil {
			return err
		}
		return f.heartbeat(ctx, h)
	}
	b, err := parseBatch(payload, f.issuer)
	if err != nil {
		return err
	}
	return f.batch(ctx, b)
}

func (f *follower) batch(ctx context.Context, b *batch) error {
	held := f.state.Load()
	records, at, err := b.after(held.position, f.elapsed())
	if err != nil {
		return &resyncError{reason: err.Error(), parted: errors.Is(err, errParted)}
	}
	if len(records) == 0 {
		f.ignored.Add(1)
		return nil
	}
	next := held.table.with(records)
	if next.size > f.options.most {
		if next = next.at(f.minute()); next.size > f.options.most {
			f.overflow()
			return errTooMany
		}
	}
	f.state.Store(&followed{position: at, table: next})
	f.batches.Add(1)
	f.refresh(ctx, b.ReadAt)
	return nil
}

func (f *follower) heartbeat(ctx context.Context, h *heartbeat) error {
	held := f.state.Load()
	switch {
	case h.FeedID != held.feedID:
		return &resyncError{reason: "another feed"}
	case *h.Seq == held.seq && h.Chain != held.chain:
		return &resyncError{reason: "the chain is another", parted: true}
	case *h.Seq > held.seq:
		return &resyncError{reason: fmt.Sprintf("entries %d to %d are missing", held.seq+1, *h.Seq)}
	case h.ReadAt <= f.latest.Load(): // sent again
		f.ignored.Add(1)
		return nil
	case *h.Seq < held.seq:
		return &resyncError{parted: true, reason: fmt.Sprintf("the log went back from entry %d to %d", held.seq, *h.Seq)}
	}
	if minute := f.minute(); minute != f.pruned {
		f.pruned = minute
		if next := held.table.at(minute); next != held.table {
			f.state.Store(&followed{position: held.position, table: next})
		}
	}
	if f.refresh(ctx, h.ReadAt) {
		f.heartbeats.Add(1)
	} else {
		f.ignored.Add(1)
	}
	return nil
}

// refresh makes the state fresh if the log was read at a time later than any
// before, so that nothing sent twice counts, and near to ours.
func (f *follower) refresh(ctx context.Context, readAt int64) bool {
	off := f.now().Sub(time.UnixMilli(readAt))
	if readAt <= f.latest.Load() || off.Abs() > staleAfter+f.skew {
		return false
	}
	f.latest.Store(readAt)
	at := int64(f.elapsed())
	f.seen.Store(at)
	f.fresh.Store(at)
	f.overdue.Reset(staleAfter + time.Millisecond)
	if f.wasStale.Swap(false) {
		f.log.InfoContext(ctx, "verify: revocations are followed again", "issuer", f.issuer)
	}
	f.settle(nil)
	return true
}
