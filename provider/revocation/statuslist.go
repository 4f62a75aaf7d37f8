package revocation

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// Token Status List (draft-ietf-oauth-status-list-21) for verifiers that know
// nothing of the feed. Each grant for a resource that asks for it has an index,
// and with it one bit in one list: whether its access tokens are invalid.

// StatusListSize is how many indexes share a list.
const StatusListSize = 1 << 20

const (
	// StatusTTL is how long a list may be cached (§13.7).
	StatusTTL = 10 * time.Second
	// statusLifetime is how long a list is good for at all: who withholds newer
	// ones from a verifier cannot do so for longer.
	statusLifetime = 5 * time.Minute
	// statusRest is how long what was read is taken for current.
	statusRest = time.Second
)

// TypStatusList is the typ of a status list (§5.1).
const TypStatusList = "statuslist+jwt"

// ErrNoStatusList says that there is no list of this number.
var ErrNoStatusList = errors.New("no such status list")

// StatusLists makes the lists. It reads which grants are invalid at most once
// a second, and only while somebody asks.
type StatusLists struct {
	cfg StatusConfig

	mu    sync.Mutex
	read  time.Time // by this replica's clock
	at    time.Time // the same by the database's
	count int64     // of lists
	void  int64     // so many lists, the first, have no valid token any more
	lists map[int64]*statusList
}

// StatusConfig is what StatusLists is made of. All fields are required.
type StatusConfig struct {
	Store storage.Store
	// URI returns where the list of this number is served.
	URI func(list int64) string
	// Sign returns the claims as a compact JWS of the type.
	Sign func(typ string, claims []byte) (string, error)
	// Memory is how long after a grant was revoked a token of it may live.
	Memory time.Duration
	// Restored returns when the database was last restored (the zero time:
	// never), and the first index that was given since: it begins a list.
	Restored func() (at time.Time, first int64)
	Now      func() time.Time
	Shared   func(time.Time) time.Time
	Issuer   string
}

// statusList is one list.
type statusList struct {
	void    bool     // all of it is invalid
	invalid []uint32 // sorted; what lst says
	lst     string
	signed  *SignedStatusList // nil: not since lst changed
	made    time.Time         // when it was signed
}

// SignedStatusList is a list as it is served. JWT is shared: it must not be changed.
type SignedStatusList struct {
	JWT  []byte
	ETag string
}

// NewStatusLists returns the lists of a database.
func NewStatusLists(cfg StatusConfig) *StatusLists {
	return &StatusLists{cfg: cfg, lists: make(map[int64]*statusList)}
}

// StatusPlace returns which list an index is in, and where.
func StatusPlace(index int64) (list int64, bit int64) {
	return index / StatusListSize, index % StatusListSize
}

// List returns the list of this number as of at most a moment ago, or
// ErrNoStatusList.
func (s *StatusLists) List(ctx context.Context, number int64) (*SignedStatusList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if age := now.Sub(s.read); s.read.IsZero() || age >= statusRest || age < 0 {
		if err := s.refresh(ctx, now); err != nil {
			return nil, fmt.Errorf("status list: %w", err)
		}
	}
	if number < 0 || number >= s.count {
		return nil, ErrNoStatusList
	}
	l := s.lists[number]
	if l == nil || l.void != (number < s.void) {
		if l = (&statusList{lst: encodeStatusList(nil)}); number < s.void {
			l = &statusList{void: true, lst: encodeVoidList()}
		}
		s.lists[number] = l
	}
	// Signed anew well before a cache would ask again.
	if age := now.Sub(l.made); l.signed == nil || age >= StatusTTL/2 || age < 0 {
		signed, err := s.sign(number, l)
		if err != nil {
			return nil, fmt.Errorf("status list: %w", err)
		}
		l.signed, l.made = signed, now
	}
	return l.signed, nil
}

// refresh reads which grants are invalid and compresses the lists that changed.
func (s *StatusLists) refresh(ctx context.Context, now time.Time) error {
	at := s.cfg.Shared(now)
	invalid := make(map[int64][]uint32)
	var next int64
	err := s.cfg.Store.View(ctx, func(ctx context.Context, r storage.Reader) (err error) {
		if next, err = r.NextStatusIndex(ctx); err != nil {
			return err
		}
		return r.EachInvalidStatus(ctx, at.Add(-s.cfg.Memory), at, func(index int64) error {
			list, bit := StatusPlace(index)
			invalid[list] = append(invalid[list], uint32(bit))
			return nil
		})
	})
	if err != nil {
		return err
	}
	void := int64(0)
	if restored, first := s.cfg.Restored(); !restored.IsZero() && !at.After(restored.Add(s.cfg.Memory)) {
		void, _ = StatusPlace(first)
	}
	for number := range s.lists {
		if _, ok := invalid[number]; !ok {
			invalid[number] = nil
		}
	}
	for number, bits := range invalid {
		if number < void {
			continue // List makes it
		}
		slices.Sort(bits)
		bits = slices.Compact(bits)
		l := s.lists[number]
		if l == nil || l.void || !slices.Equal(l.invalid, bits) {
			s.lists[number] = &statusList{invalid: bits, lst: encodeStatusList(bits)}
		}
	}
	s.read, s.at, s.count, s.void = now, at, (next-1)/StatusListSize+1, void
	return nil
}

func (s *StatusLists) sign(number int64, l *statusList) (*SignedStatusList, error) {
	type list struct {
		Bits int    `json:"bits"`
		Lst  string `json:"lst"`
	}
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
		TTL      int64  `json:"ttl"`
		List     list   `json:"status_list"`
	}{s.cfg.Issuer, s.cfg.URI(number), s.at.Unix(), s.at.Add(statusLifetime).Unix(), int64(StatusTTL.Seconds()), list{1, l.lst}})
	if err != nil {
		return nil, err
	}
	jwt, err := s.cfg.Sign(TypStatusList, claims)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(jwt))
	return &SignedStatusList{[]byte(jwt), `"` + encode(sum[:12]) + `"`}, nil
}

// encodeVoidList returns a list in which every bit is set.
func encodeVoidList() string {
	return compressStatusList(bytes.Repeat([]byte{0xff}, StatusListSize/8))
}

// encodeStatusList returns a list in which the given bits are set (§4.1, §4.2):
// the first is the lowest of the first byte.
func encodeStatusList(invalid []uint32) string {
	raw := make([]byte, StatusListSize/8)
	for _, bit := range invalid {
		raw[bit/8] |= 1 << (bit % 8)
	}
	return compressStatusList(raw)
}

// compressStatusList compresses as little as it can: the highest level takes
// seconds where the lowest takes a millisecond, for half the size.
func compressStatusList(raw []byte) string {
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a buffer takes all there is
	}
	return encode(b.Bytes())
}
