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
	Now    func() time.Time
	Shared func(time.Time) time.Time
	Issuer string
}

// statusList is one list.
type statusList struct {
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
	if l == nil {
		l = &statusList{lst: encodeStatusList(nil)}
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
	for number := range s.lists {
		if _, ok := invalid[number]; !ok {
			invalid[number] = nil
		}
	}
	for number, bits := range invalid {
		slices.Sort(bits)
		bits = slices.Compact(bits)
		l := s.lists[number]
		if l == nil || !slices.Equal(l.invalid, bits) {
			s.lists[number] = &statusList{invalid: bits, lst: encodeStatusList(bits)}
		}
	}
	s.read, s.at, s.count = now, at, (next-1)/StatusListSize+1
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

// encodeStatusList returns a list in which the given bits are set (§4.1, §4.2):
// the first is the lowest of the first byte. The highest compression takes
// seconds where the lowest takes a millisecond, for half the size.
func encodeStatusList(invalid []uint32) string {
	raw := make([]byte, StatusListSize/8)
	for _, bit := range invalid {
		raw[bit/8] |= 1 << (bit % 8)
	}
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
