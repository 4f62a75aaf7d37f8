package revocation

import (
	"bytes"
	"cmp"
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

// record is an entry on its way into a snapshot.
type record struct {
	hash         [hashSize]byte
	kind, effect byte
	seq          int64
	notBefore    int64 // Unix milliseconds, like until
	until        int64
}

func (f *Feed) makeSnapshot(ctx context.Context) (*Snapshot, error) {
	now := f.reading()
	s := &Snapshot{life: f.current.Load().life, minute: f.minute(), made: now.began}
	var records []record
	var log storage.RevocationLog
	err := f.cfg.Store.View(ctx, func(ctx context.Context, r storage.Reader) (err error) {
		if log, err = r.RevocationLog(ctx); err != nil {
			return err
		}
		return r.EachRevocation(ctx, func(e storage.Revocation) error {
			rec := record{kind: kindCodes[e.Key.Kind], effect: effectCodes[e.Effect], seq: e.Seq, until: millis(e.Until)}
			if rec.kind == 0 || rec.effect == 0 || len(e.Key.Hash) != hashSize {
				return errors.New("an entry of an unknown form")
			}
			copy(rec.hash[:], e.Key.Hash)
			if e.Effect == EffectEpoch {
				rec.notBefore = millis(e.NotBefore)
			}
			records = append(records, rec)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	records = counting(records, now.at.UnixMilli())
	s.Body = encodeRecords(records)
	digest := sha256.Sum256(s.Body)
	line, err := f.sign(typSnapshot, snapshotClaims{
		preamble: f.preamble(log.FeedID, now.at), Seq: log.Seq, Chain: encode(log.Chain),
		Count: int64(len(records)), Size: int64(len(s.Body)), SHA256: encode(digest[:]),
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

// counting returns, in the same memory, the records that count at now: the
// latest of each hash (which covers the kind), unless it has ended. What has
// ended never lets an earlier one count again.
func counting(records []record, now int64) []record {
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(bytes.Compare(a.hash[:], b.hash[:]), cmp.Compare(a.seq, b.seq))
	})
	kept := records[:0]
	for i, rec := range records {
		if i+1 < len(records) && records[i+1].hash == rec.hash || rec.until != 0 && rec.until <= now {
			continue
		}
		// Rounded up, so that groups are large.
		const minute = int64(time.Minute / time.Millisecond)
		rec.until = (rec.until + minute - 1) / minute * minute
		kept = append(kept, rec)
	}
	return kept
}

// encodeRecords writes groups one after the other, sorted, each a header
// (kind, effect, until, number of records) and its records, sorted: a hash
// and, of an epoch, not_before.
func encodeRecords(records []record) []byte {
	const headerSize, largest = 1 + 1 + 8 + 4, hashSize + 8
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(a.compareGroup(b), bytes.Compare(a.hash[:], b.hash[:]))
	})
	body := make([]byte, 0, len(records)*hashSize+headerSize)
	for len(records) > 0 {
		first := records[0]
		n := slices.IndexFunc(records, func(rec record) bool { return rec.compareGroup(first) != 0 })
		if n < 0 {
			n = len(records)
		}
		body = slices.Grow(body, headerSize+n*largest)
		body = append(body, first.kind, first.effect)
		body = binary.BigEndian.AppendUint64(body, uint64(first.until))
		body = binary.BigEndian.AppendUint32(body, uint32(n))
		for _, rec := range records[:n] {
			body = append(body, rec.hash[:]...)
			if rec.effect == effectCodes[EffectEpoch] {
				body = binary.BigEndian.AppendUint64(body, uint64(rec.notBefore))
			}
		}
		records = records[n:]
	}
	return body
}

// compareGroup orders records by the group they belong to.
func (r record) compareGroup(other record) int {
	return cmp.Or(cmp.Compare(r.kind, other.kind), cmp.Compare(r.effect, other.effect), cmp.Compare(r.until, other.until))
}
