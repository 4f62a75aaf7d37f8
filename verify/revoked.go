package verify

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sort"
	"time"
)

// What a revocation can be about, by the numbers a snapshot uses.
const (
	kindToken   = 1 + iota // jti
	kindGrant              // grant_id
	kindSession            // sid
	kindSubject            // sub
	kindClient             // client_id
	kindKey                // kid
	kindIssuer             // iss
)

// kindNames are the kinds by number as batches spell them.
var kindNames = [...]string{kindToken: "jti", kindGrant: "grant", kindSession: "sid", kindSubject: "sub",
	kindClient: "client", kindKey: "kid", kindIssuer: "iss"}

// What a revocation does.
const (
	effectBlock = 1 + iota // refuse outright
	effectEpoch            // refuse what was issued up to a time
)

// A revocationKey names what a revocation is about: the first 16 bytes of the
// SHA-256 of kind, a zero byte and the value.
type revocationKey struct {
	hi, lo uint64
	kind   uint32
}

func keyOf(kind uint32, value string) revocationKey {
	var buf [128]byte
	b := append(append(append(buf[:0], kindNames[kind]...), 0), value...)
	sum := sha256.Sum256(b)
	return keyOfHash(kind, sum[:16])
}

func keyOfHash(kind uint32, hash []byte) revocationKey {
	return revocationKey{hi: binary.BigEndian.Uint64(hash), lo: binary.BigEndian.Uint64(hash[8:]), kind: kind}
}

// A record is one revocation in 24 bytes. meta holds the minute it may be
// forgotten, by the follower's own monotonic count (0 never), above three bits of
// kind and one that is set for epochs.
type record struct {
	hi, lo    uint64
	notBefore uint32 // Unix seconds, of epochs
	meta      uint32
}

const (
	maxMinute    = 1<<28 - 1
	maxNotBefore = math.MaxUint32
)

// newRecord refuses a time it has no room for, the year 2106 and later.
func newRecord(key revocationKey, effect uint32, notBefore int64, forget uint32) (record, error) {
	if notBefore < 0 || notBefore/1000 > maxNotBefore {
		return record{}, errors.New("not_before is out of range")
	}
	return record{hi: key.hi, lo: key.lo, notBefore: uint32(notBefore / 1000),
		meta: min(forget, maxMinute)<<4 | key.kind<<1 | (effect - effectBlock)}, nil
}

func (r *record) kind() uint32   { return r.meta >> 1 & 7 }
func (r *record) forget() uint32 { return r.meta >> 4 }

// refuses reports whether the record refuses a token of this iat, in seconds. A
// token of an epoch's own second may be older than it.
func (r *record) refuses(issuedAt int64) bool {
	return r.blocks() || issuedAt <= int64(r.notBefore)
}

func (r *record) blocks() bool { return r.meta&1 == 0 }

// stricter is a record that refuses whatever either of two of the same key does,
// for as long as either lasts.
func (r record) stricter(other record) record {
	if other.blocks() {
		r, other = other, r
	}
	if !r.blocks() {
		r.notBefore = max(r.notBefore, other.notBefore)
	}
	if f := other.forget(); f == 0 || r.forget() != 0 && f > r.forget() {
		r.meta = f<<4 | r.meta&15
	}
	return r
}

func (r record) compare(other record) int {
	return cmp.Or(cmp.Compare(r.hi, other.hi), cmp.Compare(r.lo, other.lo), cmp.Compare(r.kind(), other.kind()))
}

// A table holds revocations. It never changes once published: a batch makes a new
// one, which shares with the old one every shard that the batch does not touch,
// so a batch costs the same beside a thousand entries and beside a million.
type table struct {
	shards [1 << shardBits]*shard
	size   int
}

const shardBits = 12

// A shard holds the records whose hash begins with its number, in order.
type shard struct {
	records []record
	soonest uint32 // the first minute at which one may be forgotten; 0 none
}

func shardOf(hi uint64) int { return int(hi >> (64 - shardBits)) }

// find returns the record of a key, or nil.
func (t *table) find(key *revocationKey) *record {
	s := t.shards[shardOf(key.hi)]
	if s == nil {
		return nil
	}
	low, high := 0, len(s.records)
	for low < high {
		middle := int(uint(low+high) >> 1)
		r := &s.records[middle]
		switch {
		case r.hi < key.hi, r.hi == key.hi && (r.lo < key.lo || r.lo == key.lo && r.kind() < key.kind):
			low = middle + 1
		case r.hi == key.hi && r.lo == key.lo && r.kind() == key.kind:
			return r
		default:
			high = middle
		}
	}
	return nil
}

// with returns a table in which each of records takes the place of an earlier one
// of the same key.
func (t *table) with(records []record) *table {
	next := *t
	var own [1 << shardBits]bool
	for _, r := range records {
		i := shardOf(r.hi)
		s := next.shards[i]
		if !own[i] {
			copied := &shard{}
			if s != nil {
				copied.records = append(make([]record, 0, len(s.records)+1), s.records...)
			}
			own[i], next.shards[i], s = true, copied, copied
		}
		at, found := sort.Find(len(s.records), func(k int) int { return r.compare(s.records[k]) })
		if found {
			s.records[at] = r
			continue
		}
		s.records = slices.Insert(s.records, at, r)
		next.size++
	}
	for i, changed := range own {
		if changed {
			next.shards[i].look()
		}
	}
	return &next
}

// look finds soonest.
func (s *shard) look() {
	s.soonest = 0
	for i := range s.records {
		if f := s.records[i].forget(); f != 0 && (s.soonest == 0 || f < s.soonest) {
			s.soonest = f
		}
	}
}

// at returns the table without what may be forgotten at this minute; t itself
// when that is nothing.
func (t *table) at(minute uint32) *table {
	next := t
	for i, s := range t.shards {
		if s == nil || s.soonest == 0 || s.soonest > minute {
			continue
		}
		if next == t {
			copied := *t
			next = &copied
		}
		kept := &shard{records: make([]record, 0, len(s.records))}
		for _, r := range s.records {
			if f := r.forget(); f == 0 || f > minute {
				kept.records = append(kept.records, r)
			}
		}
		next.size -= len(s.records) - len(kept.records)
		if next.shards[i] = kept; len(kept.records) == 0 {
			next.shards[i] = nil
		}
		kept.look()
	}
	return next
}

// stricterOf holds what either table holds, of each key what refuses more.
func stricterOf(a, b *table) *table {
	var more []record
	for _, s := range b.shards {
		if s == nil {
			continue
		}
		for _, r := range s.records {
			key := revocationKey{r.hi, r.lo, r.kind()}
			if mine := a.find(&key); mine != nil {
				r = r.stricter(*mine)
			}
			more = append(more, r)
		}
	}
	return a.with(more)
}

// A tableBuilder takes the records of a snapshot in any order.
type tableBuilder struct {
	table table
	room  int // records to expect in a shard
}

// newTableBuilder expects count records, so that the shards seldom have to grow:
// a hash spreads them evenly.
func newTableBuilder(count int) *tableBuilder {
	mean := float64(count) / (1 << shardBits)
	return &tableBuilder{room: int(mean+3*math.Sqrt(mean)) + 1}
}

func (b *tableBuilder) add(r record) {
	s := b.table.shards[shardOf(r.hi)]
	if s == nil {
		s = &shard{records: make([]record, 0, b.room)}
		b.table.shards[shardOf(r.hi)] = s
	}
	s.records = append(s.records, r)
	b.table.size++
}

// finish returns the table, or an error when two records had one key.
func (b *tableBuilder) finish() (*table, error) {
	for _, s := range b.table.shards {
		if s == nil {
			continue
		}
		slices.SortFunc(s.records, record.compare)
		for i := 1; i < len(s.records); i++ {
			if s.records[i].compare(s.records[i-1]) == 0 {
				return nil, errors.New("two entries are about the same")
			}
		}
		s.look()
	}
	return &b.table, nil
}

// minutes counts a duration in whole minutes, rounded up, from 1.
func minutes(d time.Duration) uint32 {
	return uint32(min(max((d+time.Minute-1)/time.Minute, 1), maxMinute))
}
