package verify

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	typStatusList = "statuslist+jwt"

	maxStatusLists   = 64
	maxStatusToken   = 2 << 20 // bytes of a status list token
	maxStatusBytes   = 1 << 20 // of a list, inflated: 8 million statuses of one bit
	minStatusTTL     = time.Second
	defaultStatusTTL = time.Minute
	maxStatusTTL     = time.Hour // also of exp, whatever the list says
	statusIdle       = 15 * time.Minute
)

// WithStatusList judges tokens by the Token Status List they name
// (draft-ietf-oauth-status-list-21) in place of the revocation feed, which is then
// not followed. Tokens carry status.status_list where the resource is registered
// for it and a person gave the grant; of others nothing is known, so they are
// treated as while stale, see [Policy].
//
// A list is fetched when the first token names it, which waits for it up to a
// second, and again whenever its ttl is over: so a revoked token is accepted up to
// ttl longer, and each list is held in memory, up to 1 MiB. 15 s after its ttl a
// list is stale, see [Policy]; after its exp, or an hour, tokens are answered with
// 503. A revoked signing key is noticed with the key set, not by a list.
func WithStatusList() Option { return func(o *options) { o.statusList = true } }

// A statusReference is the status claim of a token (§6.2).
type statusReference struct {
	present bool
	index   int64
	uri     string
}

// readStatus reads the status claim. Other mechanisms in it are passed over.
func (s *scanner) readStatus() (ref statusReference) {
	for g := s.object(); s.next(&g); {
		if g.name != "status_list" {
			s.skip()
			continue
		}
		ref.present = true
		hasIndex := false
		for g := s.object(); s.next(&g); {
			switch g.name {
			case "idx":
				hasIndex = true
				ref.index = s.integer()
			case "uri":
				ref.uri = s.text()
			default:
				s.skip()
			}
		}
		if !hasIndex || ref.uri == "" {
			s.fail("status_list lacks idx or uri")
		}
	}
	return ref
}

// statusLists are the lists that tokens have named lately.
type statusLists struct {
	issuer  string
	origin  *url.URL
	skew    time.Duration
	client  *http.Client
	checker messageChecker
	now     func() time.Time
	log     *slog.Logger
	want    chan *statusList // lists to begin fetching

	failures atomic.Uint64

	mu    sync.Mutex
	lists map[string]*statusList
}

// A statusList is one of them.
type statusList struct {
	uri   string
	used  atomic.Int64  // when a token last named it, Unix nanoseconds
	tried chan struct{} // closed after the first attempt to fetch it
	gone  chan struct{} // closed when it is to be forgotten
	held  atomic.Pointer[heldStatuses]
}

// heldStatuses is a list as it was fetched. It never changes.
type heldStatuses struct {
	bits     uint
	statuses []byte
	issued   int64 // NumericDate
	expires  int64 // NumericDate; 0 unless it says so
	fetched  time.Time
	ttl      time.Duration
}

func newStatusLists(issuer string, keys *keySource, o *options) (*statusLists, error) {
	origin, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	return &statusLists{
		issuer:  issuer,
		origin:  origin,
		skew:    o.skew,
		client:  keys.client,
		checker: messageChecker{keys: keys, algorithms: o.algorithms, blocked: func(string) bool { return false }},
		now:     o.now,
		log:     o.log,
		want:    make(chan *statusList),
		lists:   make(map[string]*statusList),
	}, nil
}

// run fetches lists until ctx ends.
func (l *statusLists) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case list := <-l.want:
			go l.keep(ctx, list)
		}
	}
}

// of returns the list a token names, after waiting for its first fetch.
func (l *statusLists) of(ctx context.Context, ref *statusReference) (*statusList, error) {
	list, isNew, err := l.find(ref.uri)
	if err != nil {
		return nil, err
	}
	select {
	case <-list.tried:
		return list, nil
	default:
	}
	timeout := time.NewTimer(missWait)
	defer timeout.Stop()
	if isNew {
		select {
		case l.want <- list:
		case <-timeout.C: // nobody fetches any more
			l.mu.Lock()
			l.drop(list)
			l.mu.Unlock()
			return list, nil
		}
	}
	select {
	case <-list.tried:
	case <-timeout.C:
	case <-ctx.Done():
	}
	return list, nil
}

func (l *statusLists) find(uri string) (list *statusList, isNew bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if list = l.lists[uri]; list != nil {
		list.used.Store(time.Now().UnixNano())
		return list, false, nil
	}
	// A claim must not choose whom we ask: only the issuer's own host is.
	u, err := url.Parse(uri)
	if err != nil || !sameOrigin(u, l.origin) || u.User != nil || u.Fragment != "" {
		return nil, false, fmt.Errorf("%w: its list is not on the issuer's host", ErrStatus)
	}
	if len(l.lists) >= maxStatusLists {
		var oldest *statusList
		for _, other := range l.lists {
			if oldest == nil || other.used.Load() < oldest.used.Load() {
				oldest = other
			}
		}
		l.drop(oldest)
	}
	list = &statusList{uri: uri, tried: make(chan struct{}), gone: make(chan struct{})}
	list.used.Store(time.Now().UnixNano())
	l.lists[uri] = list
	return list, true, nil
}

// drop forgets a list; l.mu is held.
func (l *statusLists) drop(list *statusList) {
	if l.lists[list.uri] == list {
		delete(l.lists, list.uri)
		close(list.gone)
	}
}

// keep keeps a list fresh until ctx ends, or no token has named it for a while.
func (l *statusLists) keep(ctx context.Context, list *statusList) {
	for failed := 0; ; {
		err := l.fetch(ctx, list)
		var wait time.Duration
		if err == nil {
			failed = 0
			ttl := list.held.Load().ttl
			wait = max(ttl-ttl/10, minStatusTTL)
		} else {
			l.failures.Add(1)
			wait = jitter(min(minBackoff<<min(failed, 10), maxBackoff))
			failed++
			if ctx.Err() == nil {
				l.log.WarnContext(ctx, "verify: fetching a status list failed", "uri", list.uri, "retry_in", wait, "error", err)
			}
		}
		select {
		case <-list.tried:
		default:
			close(list.tried)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-list.gone:
			timer.Stop()
			return
		case <-timer.C:
		}
		if time.Since(time.Unix(0, list.used.Load())) > statusIdle {
			l.mu.Lock()
			l.drop(list)
			l.mu.Unlock()
			return
		}
	}
}

// fetch brings in a list (§8.1, §8.2). On failure the last one stays.
func (l *statusLists) fetch(ctx context.Context, list *statusList) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, list.uri, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/statuslist+jwt")
	res, err := l.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", res.StatusCode)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "application/statuslist+jwt" {
		return errors.New("not a status list token")
	}
	document, err := io.ReadAll(io.LimitReader(res.Body, maxStatusToken+1))
	if err != nil {
		return err
	}
	payload, _, err := l.checker.open(ctx, strings.TrimSpace(string(document)), typStatusList, maxStatusToken)
	if err != nil {
		return err
	}
	held, err := parseStatusList(payload, list.uri, l.issuer, l.now(), l.skew)
	if err != nil {
		return err
	}
	if last := list.held.Load(); last != nil && held.issued < last.issued {
		return errors.New("older than the one before")
	}
	list.held.Store(held)
	return nil
}

// parseStatusList reads the claims of a status list token (§5.1, §8.3).
func parseStatusList(payload []byte, uri, issuer string, now time.Time, skew time.Duration) (*heldStatuses, error) {
	var c struct {
		Issuer     *string `json:"iss"`
		Subject    string  `json:"sub"`
		IssuedAt   int64   `json:"iat"`
		Expires    *int64  `json:"exp"`
		TTL        *int64  `json:"ttl"`
		StatusList *struct {
			Bits uint   `json:"bits"`
			List string `json:"lst"`
		} `json:"status_list"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("status list: %w", err)
	}
	switch {
	case c.Subject != uri:
		return nil, errors.New("status list: sub is another list")
	case c.Issuer != nil && *c.Issuer != issuer:
		return nil, errors.New("status list of another issuer")
	case c.IssuedAt <= 0 || c.IssuedAt > maxInteger || time.Unix(c.IssuedAt, 0).After(now.Add(skew)):
		return nil, errors.New("status list: iat is missing or in the future")
	case c.Expires != nil && (*c.Expires <= 0 || *c.Expires > maxInteger):
		return nil, errors.New("status list: exp is out of range")
	case c.TTL != nil && *c.TTL <= 0:
		return nil, errors.New("status list: ttl is not positive")
	case c.StatusList == nil || !slices.Contains([]uint{1, 2, 4, 8}, c.StatusList.Bits):
		return nil, errors.New("status list: bits is not 1, 2, 4 or 8")
	}
	h := &heldStatuses{bits: c.StatusList.Bits, issued: c.IssuedAt, fetched: time.Now(), ttl: defaultStatusTTL}
	if c.TTL != nil {
		h.ttl = max(minStatusTTL, time.Duration(min(*c.TTL, int64(maxStatusTTL/time.Second)))*time.Second)
	}
	if c.Expires != nil {
		if h.expires = *c.Expires; h.expired(now) {
			return nil, errors.New("status list: it has expired")
		}
	}
	var err error
	h.statuses, err = inflate(c.StatusList.List)
	return h, err
}

// inflate decodes a compressed list (§4.2), no further than maxStatusBytes.
func inflate(lst string) ([]byte, error) {
	compressed, err := base64.RawURLEncoding.Strict().DecodeString(lst)
	if err != nil || strings.ContainsAny(lst, "\r\n") {
		return nil, errors.New("status list: lst is not base64url")
	}
	z, err := zlib.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("status list: %w", err)
	}
	statuses, err := io.ReadAll(io.LimitReader(z, maxStatusBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("status list: %w", err)
	case len(statuses) > maxStatusBytes:
		return nil, errors.New("status list: larger than 1 MiB")
	}
	return slices.Clip(statuses), nil
}

// expired goes by the wall clock for what the list says of itself, and by the
// monotonic one for our own bound.
func (h *heldStatuses) expired(now time.Time) bool {
	return h.expires != 0 && !now.Before(time.Unix(h.expires, 0)) || time.Since(h.fetched) >= maxStatusTTL
}

// stale lists are older than they want to become.
func (h *heldStatuses) stale() bool { return time.Since(h.fetched) > h.ttl+staleAfter }

// at is the status of an index, the lowest bits of a byte coming first (§4.1).
func (h *heldStatuses) at(index int64) (status byte, ok bool) {
	perByte := int64(8 / h.bits)
	if index < 0 || index/perByte >= int64(len(h.statuses)) {
		return 0, false
	}
	shift := uint(index%perByte) * h.bits
	return h.statuses[index/perByte] >> shift & byte(1<<h.bits-1), true
}

// judge looks a token up in its list.
func (l *statusLists) judge(ctx context.Context, c *Claims) error {
	if !c.status.present {
		return nil // and stale
	}
	list, err := l.of(ctx, &c.status)
	if err != nil {
		return err
	}
	held := list.held.Load()
	if held == nil || held.expired(l.now()) {
		return fmt.Errorf("%w: status list", ErrNotReady)
	}
	switch status, ok := held.at(c.status.index); {
	case !ok:
		return fmt.Errorf("%w: its list has no such index", ErrStatus)
	case status != 0: // INVALID, SUSPENDED, or something that is not VALID (§7.1)
		return ErrRevoked
	}
	return nil
}

// staleFor reports whether the list of a token is older than it wants to become,
// or there is none.
func (l *statusLists) staleFor(c *Claims) bool {
	if !c.status.present {
		return true
	}
	l.mu.Lock()
	list := l.lists[c.status.uri]
	l.mu.Unlock()
	if list == nil {
		return true
	}
	held := list.held.Load()
	return held == nil || held.stale()
}

func (l *statusLists) stats(s *RevocationStats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.State, s.Failures = RevocationLists, l.failures.Load()
	for _, list := range l.lists {
		if held := list.held.Load(); held != nil {
			s.Lists++
			s.Age = max(s.Age, time.Since(held.fetched))
		}
	}
}
