package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
)

const (
	// feedLifetime is how long a stream goes on, give or take a tenth, so that
	// balancers can spread verifiers anew.
	feedLifetime = 10 * time.Minute
	// feedRetry is how long a verifier waits before it connects again.
	feedRetry = 2 * time.Second
	// longestPoll is how long a poll may wait.
	longestPoll = 25 * time.Second
)

// signFeed signs a message with the feed's own key.
func (p *Provider) signFeed(typ string, claims []byte) (string, error) {
	s := p.registry.current.Load()
	if s == nil {
		return "", errors.New("the keys were not read yet")
	}
	return s.ring.SignFeed(typ, claims, p.now())
}

// openFeed starts following the revocation log, for verifiers.
func (p *Provider) openFeed(ctx context.Context) (*revocation.Feed, error) {
	return revocation.OpenFeed(ctx, revocation.FeedConfig{
		Store: p.store, Issuer: p.issuer.String(), Sign: p.signFeed, Now: p.clock.local, Shared: p.clock.shared, Tracer: p.tracer, Log: p.log,
		// Nothing that verifiers will refuse for an epoch is minted here once
		// one of them knows of it: the client's change came with the epoch.
		CatchUp: p.registry.catchUp,
	})
}

// admitFeed lets a verifier in: with the scope that an operator may have set,
// and while there is room. Whoever is let in calls leave.
func (p *Provider) admitFeed(w http.ResponseWriter, r *http.Request) (leave func(), err error) {
	// net/http reads a body that a handler left, and would wait for it without
	// end once the limits are lifted.
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		return nil, invalidRequest("This endpoint takes no body.")
	}
	if p.feedScope != "" {
		if err := p.mayReadFeed(w, r); err != nil {
			return nil, err
		}
	}
	leave, err = p.feedPlaces.take(r.RemoteAddr)
	if err != nil {
		p.metrics.feedRefused.Inc()
		// Not all at once again.
		return nil, busyFor(time.Duration(5+rand.IntN(10))*time.Second, err)
	}
	// The limits of a request end a stream, so the connection's own are lifted;
	// each write has one (writeFeed). A connection that cannot do this, of a
	// test for one, has none to lift.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
	return leave, nil
}

// feedPlaces counts who reads the feed. One network gets at most half of the
// places, so that no single stranger can keep all verifiers out. It remembers
// no network that holds none, so never more than there are places.
type feedPlaces struct {
	most int

	mu        sync.Mutex // held while counting
	taken     int
	byNetwork map[string]int
}

func newFeedPlaces(most int) *feedPlaces {
	return &feedPlaces{most: most, byNetwork: make(map[string]int)}
}

// take gives a place to an address, until leave is called, once.
func (f *feedPlaces) take(address string) (leave func(), err error) {
	from := network(address)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.taken >= f.most:
		return nil, errors.New("too many feed connections")
	case f.byNetwork[from] >= (f.most+1)/2:
		return nil, errors.New("too many feed connections from one network")
	}
	f.taken++
	f.byNetwork[from]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.taken--
		if f.byNetwork[from]--; f.byNetwork[from] == 0 {
			delete(f.byNetwork, from)
		}
	}, nil
}

// count returns how many places are taken.
func (f *feedPlaces) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taken
}

// mayReadFeed asks for an access token that is meant for the feed and has the
// scope (RFC 6750).
func (p *Provider) mayReadFeed(w http.ResponseWriter, r *http.Request) error {
	token, err := bearerToken(w, r)
	if err != nil {
		return err
	}
	v, err := p.registry.view(r.Context())
	if err != nil {
		return err
	}
	now := p.now()
	t, err := p.readToken(v, token)
	switch {
	case err != nil:
		return invalidToken(err)
	case !now.Before(t.expiresAt):
		return invalidToken(errors.New("expired"))
	case !slices.Contains(t.audience, p.issuer.Endpoint(PathFeed)):
		return invalidToken(errors.New("meant for another resource"))
	case !slices.Contains(strings.Fields(t.scope), p.feedScope):
		return &bearerError{http.StatusForbidden, "insufficient_scope", "The access token needs the scope " + p.feedScope + ".", nil}
	}
	revoked, err := p.revoked(r.Context(), t, now)
	if err == nil && revoked {
		err = invalidToken(errors.New("revoked"))
	}
	return err
}

// readPosition returns where the verifier is, or nil when it does not say.
func readPosition(r *http.Request) (*revocation.Position, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		if !r.URL.Query().Has("after") {
			return nil, nil
		}
		text = r.URL.Query().Get("after")
	}
	at, err := revocation.ParsePosition(text)
	if err != nil {
		return nil, invalidRequest("The position is not of the form feed_id:seq.")
	}
	return &at, nil
}

// FeedSnapshot serves all revocations that count now.
func (p *Provider) FeedSnapshot(w http.ResponseWriter, r *http.Request) {
	if err := p.feedSnapshot(w, r); err != nil {
		p.writeBearerError(w, r, err, p.feedScope)
	}
}

func (p *Provider) feedSnapshot(w http.ResponseWriter, r *http.Request) error {
	leave, err := p.admitFeed(w, r)
	if err != nil {
		return err
	}
	defer leave()
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if tag := p.feed.SnapshotTag(); etagMatches(r.Header.Get("If-None-Match"), tag) {
		h.Set("Etag", tag)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	s, err := p.feed.Snapshot(r.Context())
	if err != nil {
		return err
	}
	h.Set("Etag", s.ETag)
	if etagMatches(r.Header.Get("If-None-Match"), s.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(s.Line)+len(s.Body)))
	if r.Method == http.MethodHead {
		return nil
	}
	const chunk = 256 << 10
	if p.writeFeed(w, s.Line) != nil {
		return nil
	}
	for part := range slices.Chunk(s.Body, chunk) {
		if p.writeFeed(w, part) != nil {
			return nil
		}
	}
	return nil
}

// writeFeed sends parts of an answer at once. It fails when the verifier is
// gone or does not read.
func (p *Provider) writeFeed(w http.ResponseWriter, parts ...[]byte) error {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(p.policy.FeedPatience)) // the kernel's clock, not the policy's
	var err error
	for _, part := range parts {
		if err == nil {
			_, err = w.Write(part)
		}
	}
	if err == nil {
		err = control.Flush()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.metrics.feedSlow.Inc()
	}
	return err
}

// FeedStream serves revocations as they happen, as server-sent events (HTML
// §9.2).
func (p *Provider) FeedStream(w http.ResponseWriter, r *http.Request) {
	if err := p.feedStream(w, r); err != nil {
		p.writeBearerError(w, r, err, p.feedScope)
	}
}

func (p *Provider) feedStream(w http.ResponseWriter, r *http.Request) error {
	at, err := readPosition(r)
	if err != nil {
		return err
	}
	leave, err := p.admitFeed(w, r)
	if err != nil {
		return err
	}
	defer leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or nginx would hold events back
	if r.Method == http.MethodHead {
		return nil
	}
	if p.writeFeed(w, fmt.Appendf(nil, "retry: %d\n\n", feedRetry.Milliseconds())) != nil {
		return nil
	}
	life := feedLifetime - feedLifetime/10 + rand.N(feedLifetime/5)
	ctx, cancel := context.WithTimeout(r.Context(), life)
	defer cancel()
	err = p.feed.Follow(ctx, at, func(m revocation.Message) error {
		if m.Kind == revocation.MessageWait {
			return p.writeFeed(w, []byte(": wait\n\n"))
		}
		return p.writeFeed(w, fmt.Appendf(nil, "id: %s\nevent: %s\ndata: ", m.Position, m.Kind), m.JWS, []byte("\n\n"))
	})
	var resync *revocation.ResyncError
	switch {
	case errors.As(err, &resync):
		p.metrics.feedResyncs.Inc()
		reason, _ := json.Marshal(resyncHint{resync.Reason}) // a string always marshals
		_ = p.writeFeed(w, []byte("event: resync\ndata: "), reason, []byte("\n\n"))
	case ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded):
		// Too late for another answer: the stream ends, and the verifier comes again.
		p.log.Warn("a revocation stream ended", "request_id", h.Get(RequestIDHeader), "cause", err.Error())
	}
	return nil
}

// resyncHint tells a verifier to start over. It is not signed: all it can
// cause is one request for the snapshot.
type resyncHint struct {
	Reason string `json:"reason"`
}

// FeedPoll serves revocations after a position, for networks that let no
// stream through.
func (p *Provider) FeedPoll(w http.ResponseWriter, r *http.Request) {
	if err := p.feedPoll(w, r); err != nil {
		p.writeBearerError(w, r, err, p.feedScope)
	}
}

func (p *Provider) feedPoll(w http.ResponseWriter, r *http.Request) error {
	at, err := readPosition(r)
	if err != nil {
		return err
	}
	var wait time.Duration
	if text := r.URL.Query().Get("wait"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 16)
		if wait = time.Duration(seconds) * time.Second; err != nil || wait > longestPoll {
			return invalidRequest(fmt.Sprintf("wait is not a number of seconds from 0 to %d.", int(longestPoll.Seconds())))
		}
	}
	leave, err := p.admitFeed(w, r)
	if err != nil {
		return err
	}
	defer leave()
	messages, err := p.feed.Poll(r.Context(), at, wait)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.policy.FeedPatience))
	var resync *revocation.ResyncError
	if errors.As(err, &resync) {
		p.metrics.feedResyncs.Inc()
		writeJSON(w, http.StatusOK, struct {
			Resync string `json:"resync"`
		}{resync.Reason})
		return nil
	}
	if err != nil && r.Context().Err() != nil {
		return busyFor(feedRetry, err) // it left, or this replica stops
	}
	if err != nil {
		return err
	}
	answer := struct {
		Messages []string `json:"messages"`
	}{[]string{}}
	for _, m := range messages {
		answer.Messages = append(answer.Messages, string(m.JWS))
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}
