package revocation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const (
	// snapshotTimeout bounds the making of a snapshot.
	snapshotTimeout = time.Minute
	// A snapshot that took long to make serves rests times as long, whatever is
	// appended: under a storm of entries a large one is not made all the time.
	// Who gets an older one catches up from it.
	long        = 250 * time.Millisecond
	rests       = 2
	longestRest = 10 * time.Second

	recordSize      = hashSize
	epochRecordSize = hashSize + 8
)

// Snapshot is all that counts at one moment, for verifiers that start.
type Snapshot struct {
	Position Position
	ETag     string
	Line     []byte // the signed digest of Body, and a line feed
	Body     []byte // the entries, in groups

	life   int64
	minute int64
	made   time.Time
	took   time.Duration
}

// snapshots holds the last one made.
type snapshots struct {
	last     atomic.Pointer[Snapshot]
	building chan struct{} // holds one value while one is made
}

type snapshotClaims struct {
	preamble
	Seq    int64  `json:"seq"`
	Chain  string `json:"chain"`
	Count  int64  `json:"count"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func snapshotTag(at Position, minute int64) string { return fmt.Sprintf(`"%s:%d"`, at, minute) }

// SnapshotTag returns the ETag of what a snapshot would hold now.
func (f *Feed) SnapshotTag() string {
	return snapshotTag(f.Position(), f.minute())
}

// minute numbers the minutes: entries end with them.
func (f *Feed) minute() int64 { return f.cfg.Shared(f.cfg.Now()).Unix() / 60 }

// Snapshot returns what counts now, or did a moment ago. It is made at most
// once for each change, however many ask.
func (f *Feed) Snapshot(ctx context.Context) (*Snapshot, error) {
	if s := f.goodSnapshot(); s != nil {
		return s, nil
	}
	select {
	case f.snapshots.building <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-f.snapshots.building }()
	if s := f.goodSnapshot(); s != nil { // somebody was first
		return s, nil
	}
	// Others wait for it too, so it does not end with whoever asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTimeout)
	defer cancel()
	s, err := f.makeSnapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("revocation snapshot: %w", err)
	}
	f.snapshots.last.Store(s)
	return s, nil
}

// goodSnapshot returns the last snapshot if it may be served now, or nil.
func (f *Feed) goodSnapshot() *Snapshot {
	s, h := f.snapshots.last.Load(), f.current.Load()
	if s == nil || s.life != h.life || s.Position.FeedID != h.feedID {
		return nil
	}
	if s.Position.Seq >= h.seq() && s.minute == f.minute() {
		return s
	}
	age := f.cfg.Now().Sub(s.made)
	if s.took > long && s.Position.Seq >= h.first && age >= 0 && age < min(rests*s.took, longestRest) {
		return s
	}
	return nil
}

var kindCodes = map[string]byte{
	KindToken: 1, KindGrant: 2, KindSession: 3, KindSubject: 4, KindClient: 5, KindKey: 6, KindIssuer: 7,
}

var effectCodes = map[string]byte{EffectBlock: 1, EffectEpoch: 2}

// group is what entries have in common that stand together.
type group struct {
	kind, effect byte
	until        int64
}

// record is a hash and, of an epoch, not_before.
type record [epochRecordSize]byte

func (f *Feed) makeSnapshot(ctx context.Context) (*Snapshot, error) {
	now := f.reading()
	s := &Snapshot{life: f.current.Load().life, minute: f.minute(), made: now.began}
	groups := make(map[group]*[]record)
	var log storage.RevocationLog
	err := f.cfg.Store.View(ctx, func(ctx context.Context, r storage.Reader) (err error) {
		if log, err = r.RevocationLog(ctx); err != nil {
			return err
		}
		return r.EachRevocation(ctx, now.at, func(e storage.Revocation) error {
			// Rounded up, so that groups are large.
			const minute = int64(time.Minute / time.Millisecond)
			g := group{kindCodes[e.Key.Kind], effectCodes[e.Effect], (millis(e.Until) + minute - 1) / minute * minute}
			if g.kind == 0 || g.effect == 0 || len(e.Key.Hash) != hashSize {
				return errors.New("an entry of an unknown form")
			}
			list := groups[g]
			if list == nil {
				list = new([]record)
				groups[g] = list
			}
			var rec record
			copy(rec[:], e.Key.Hash)
			if e.Effect == EffectEpoch {
				binary.BigEndian.PutUint64(rec[hashSize:], uint64(millis(e.NotBefore)))
			}
			*list = append(*list, rec)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	var count int64
	s.Body, count = encodeGroups(groups)
	digest := sha256.Sum256(s.Body)
	line, err := f.sign(typSnapshot, snapshotClaims{
		preamble: f.preamble(log.FeedID, now.at), Seq: log.Seq, Chain: encode(log.Chain),
		Count: count, Size: int64(len(s.Body)), SHA256: encode(digest[:]),
	})
	if err != nil {
		return nil, err
	}
	s.Line = append(line, '\n')
	s.Position = Position{log.FeedID, log.Seq}
	s.ETag = snapshotTag(s.Position, s.minute)
	s.took = f.cfg.Now().Sub(now.began)
	return s, nil
}

// encodeGroups writes the groups one after the other, sorted, each a header
// (kind, effect, until, number of records) and its records, sorted.
func encodeGroups(groups map[group]*[]record) (body []byte, count int64) {
	const headerSize = 1 + 1 + 8 + 4
	order := make([]group, 0, len(groups))
	size := 0
	for g, list := range groups {
		order = append(order, g)
		size += headerSize + len(*list)*g.recordSize()
		count += int64(len(*list))
	}
	slices.SortFunc(order, func(a, b group) int {
		return bytes.Compare(a.header(), b.header())
	})
	body = make([]byte, 0, size)
	for _, g := range order {
		list := *groups[g]
		delete(groups, g) // the memory of one group at a time is needed no more
		slices.SortFunc(list, func(a, b record) int { return bytes.Compare(a[:], b[:]) })
		body = append(body, g.header()...)
		body = binary.BigEndian.AppendUint32(body, uint32(len(list)))
		for _, rec := range list {
			body = append(body, rec[:g.recordSize()]...)
		}
	}
	return body, count
}

func (g group) header() []byte {
	return binary.BigEndian.AppendUint64([]byte{g.kind, g.effect}, uint64(g.until))
}

func (g group) recordSize() int {
	if g.effect == effectCodes[EffectEpoch] {
		return epochRecordSize
	}
	return recordSize
}
