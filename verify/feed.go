package verify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Bounds on what a feed may send.
const (
	maxMessage      = 512 << 10 // bytes of one signed message; a full batch has some 180 KiB
	maxBatch        = 1000      // events
	maxFeedID       = 128       // bytes
	maxSnapshotLine = 8 << 10   // bytes of the signed line before a snapshot's records
	hashSize        = 16
)

// The types of signed messages. Each is compared exactly, so that no other token
// of the issuer, and no message of another kind, is taken for one.
const (
	typBatch     = "revocation-batch+jwt"
	typHeartbeat = "revocation-heartbeat+jwt"
	typSnapshot  = "revocation-snapshot+jwt"
)

// A position is how far a feed has been read: the entries up to seq, whose chain
// hash is chain.
type position struct {
	feedID string
	seq    int64
	chain  string // base64url; empty before the first entry
}

func (p position) String() string { return fmt.Sprintf("%s:%d", p.feedID, p.seq) }

// about is what every message says. Times are Unix milliseconds.
type about struct {
	Issuer string `json:"iss"`
	FeedID string `json:"feed_id"`
	ReadAt int64  `json:"read_at"` // when the log was last read, by the database's clock
}

type batch struct {
	about
	From   int64   `json:"from"`
	To     int64   `json:"to"`
	Prev   *string `json:"prev"`
	Chain  string  `json:"chain"`
	Events []event `json:"events"`
}

type event struct {
	Seq       int64  `json:"seq"`
	Kind      string `json:"kind"`
	Effect    string `json:"effect"`
	Hash      string `json:"hash"`
	NotBefore int64  `json:"not_before"`
	Until     int64  `json:"until"`
	At        int64  `json:"at"`

	hash [hashSize]byte
}

type heartbeat struct {
	about
	Seq   *int64 `json:"seq"`
	Chain string `json:"chain"`
}

type snapshotHeader struct {
	about
	Seq    *int64 `json:"seq"`
	Chain  string `json:"chain"`
	Count  int64  `json:"count"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func (a *about) check(issuer string) error {
	switch {
	case a.Issuer != issuer:
		return errors.New("message of another issuer")
	case a.FeedID == "" || len(a.FeedID) > maxFeedID || strings.ContainsFunc(a.FeedID, notURLSafe):
		return errors.New("feed_id is not URL-safe text")
	case a.ReadAt <= 0:
		return errors.New("read_at is missing")
	}
	return nil
}

func notURLSafe(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.~", c)
}

// digest decodes a chain hash, nil for the empty one before the first entry.
func digest(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var buf [sha256.Size]byte
	b, ok := decodeBase64(buf[:], s)
	if !ok || len(b) != sha256.Size {
		return nil, errors.New("not a SHA-256 in base64url")
	}
	return slices.Clone(b), nil
}

// parseBatch reads the payload of a batch and checks all that does not depend on
// where the reader stands.
func parseBatch(payload []byte, issuer string) (*batch, error) {
	var b batch
	if err := json.Unmarshal(payload, &b); err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	if err := b.check(issuer); err != nil {
		return nil, err
	}
	if b.Prev == nil || b.From < 1 || len(b.Events) == 0 || len(b.Events) > maxBatch || b.To-b.From != int64(len(b.Events)-1) {
		return nil, errors.New("batch: from, to, prev and events do not fit together")
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Seq != b.From+int64(i) {
			return nil, errors.New("batch: the events are not contiguous")
		}
		if err := e.parse(); err != nil {
			return nil, fmt.Errorf("batch: event %d: %w", e.Seq, err)
		}
	}
	return &b, nil
}

func (e *event) parse() error {
	var buf [hashSize]byte
	hash, ok := decodeBase64(buf[:], e.Hash)
	switch {
	case !ok || len(hash) != hashSize:
		return errors.New("hash is not 16 bytes in base64url")
	case e.kind() == 0:
		return errors.New("unknown kind")
	case e.Effect != "block" && e.Effect != "epoch":
		return errors.New("unknown effect")
	case (e.Effect == "epoch") != (e.NotBefore != 0) || e.NotBefore < 0:
		return errors.New("not_before does not fit the effect")
	case e.At <= 0 || e.Until != 0 && e.Until < e.At:
		return errors.New("at or until is out of range")
	}
	e.hash = buf
	return nil
}

// kind is the number of the event's kind, 0 if there is none.
func (e *event) kind() uint32 {
	if i := slices.Index(kindNames[:], e.Kind); i > 0 {
		return uint32(i)
	}
	return 0
}

// chainAfter computes the chain hash of the event after that of the one before.
// Each value is a 64-bit big-endian integer, texts after their length.
func (e *event) chainAfter(prev []byte) []byte {
	var b []byte
	number := func(n int64) { b = binary.BigEndian.AppendUint64(b, uint64(n)) }
	field := func(v []byte) { number(int64(len(v))); b = append(b, v...) }
	field(prev)
	number(e.Seq)
	field([]byte(e.Kind))
	field(e.hash[:])
	field([]byte(e.Effect))
	number(e.NotBefore)
	number(e.Until)
	number(e.At)
	sum := sha256.Sum256(b)
	return sum[:]
}

// record is the event with the minute it may be forgotten: its whole life after
// now, for it is not known how long it was under way.
func (e *event) record(now time.Duration) (record, error) {
	effect := uint32(effectBlock)
	if e.Effect == "epoch" {
		effect = effectEpoch
	}
	return newRecord(keyOfHash(e.kind(), e.hash[:]), effect, e.NotBefore, forgetAt(now, e.Until, e.At))
}

// forgetAt is the minute, by a monotonic clock that shows now, when what ends at
// until may be forgotten; at is the moment of now by the clock of until, or
// earlier. Both in Unix milliseconds; an until of 0 is never.
func forgetAt(now time.Duration, until, at int64) uint32 {
	life := until - at
	if until == 0 || life > int64(100*365*24*time.Hour/time.Millisecond) {
		return 0
	}
	return minutes(now + time.Duration(max(life, 0))*time.Millisecond)
}

// after returns the records a batch adds to a log read up to at, and the position
// then. No records without an error: there is nothing new in it. The error says
// that the batch does not follow on what was read.
func (b *batch) after(at position, now time.Duration) ([]record, position, error) {
	if b.FeedID != at.feedID {
		return nil, at, errors.New("another feed")
	}
	if b.To <= at.seq {
		return nil, at, nil
	}
	if b.From > at.seq+1 {
		return nil, at, fmt.Errorf("entries %d to %d are missing", at.seq+1, b.From-1)
	}
	chain, err := digest(*b.Prev)
	if err != nil {
		return nil, at, errors.New("prev is malformed")
	}
	var records []record
	for i := range b.Events {
		e := &b.Events[i]
		if e.Seq == at.seq+1 && base64.RawURLEncoding.EncodeToString(chain) != at.chain {
			return nil, at, errParted
		}
		chain = e.chainAfter(chain)
		if e.Seq <= at.seq {
			continue
		}
		r, err := e.record(now)
		if err != nil {
			return nil, at, err
		}
		records = append(records, r)
	}
	if end := base64.RawURLEncoding.EncodeToString(chain); end == b.Chain {
		return records, position{at.feedID, b.To, end}, nil
	}
	return nil, at, errors.New("the chain is not that of the events")
}

func parseHeartbeat(payload []byte, issuer string) (*heartbeat, error) {
	var h heartbeat
	if err := json.Unmarshal(payload, &h); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	if err := h.check(issuer); err != nil {
		return nil, err
	}
	if err := checkHead(h.Seq, h.Chain); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	return &h, nil
}

// checkHead holds a head to its form: there is a chain hash once there is an entry.
func checkHead(seq *int64, chain string) error {
	if seq == nil || *seq < 0 || (*seq == 0) != (chain == "") {
		return errors.New("seq and chain do not fit together")
	}
	_, err := digest(chain)
	return err
}

func parseSnapshotHeader(payload []byte, issuer string, most int) (*snapshotHeader, error) {
	var h snapshotHeader
	if err := json.Unmarshal(payload, &h); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if err := h.check(issuer); err != nil {
		return nil, err
	}
	if err := checkHead(h.Seq, h.Chain); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	switch {
	case h.Count < 0 || h.Size < 0:
		return nil, errors.New("snapshot: count or size is negative")
	case h.Count > int64(most):
		return nil, fmt.Errorf("%w: %d, and %d is the most", errTooMany, h.Count, most)
	// A group holds one record at least; no more is read whatever comes.
	case h.Size > h.Count*(groupSize+epochSize):
		return nil, errors.New("snapshot: size is too large for count")
	}
	if sum, err := digest(h.SHA256); err != nil || sum == nil {
		return nil, errors.New("snapshot: sha256 is malformed")
	}
	return &h, nil
}

const (
	groupSize = 1 + 1 + 8 + 4 // kind, effect, until, number of records
	blockSize = hashSize
	epochSize = hashSize + 8 // not_before
)

// readRecords reads the body of a snapshot as it streams in, at now of the
// follower's clock. Nothing of it counts unless the whole is as h says.
func (h *snapshotHeader) readRecords(body io.Reader, now time.Duration) (*table, error) {
	sum := sha256.New()
	in := &io.LimitedReader{R: body, N: h.Size}
	build := newTableBuilder(int(h.Count))
	var buf [epochSize]byte
	for left := h.Count; left > 0; {
		group := buf[:groupSize]
		if _, err := io.ReadFull(in, group); err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		sum.Write(group)
		kind, effect := uint32(group[0]), uint32(group[1])
		until, n := int64(binary.BigEndian.Uint64(group[2:])), int64(binary.BigEndian.Uint32(group[10:]))
		if kind < kindToken || kind > kindIssuer || effect < effectBlock || effect > effectEpoch || until < 0 || n < 1 || n > left {
			return nil, errors.New("snapshot: group of an unknown kind or effect, or of a wrong size")
		}
		left -= n
		forget := forgetAt(now, until, h.ReadAt)
		size := blockSize
		if effect == effectEpoch {
			size = epochSize
		}
		for ; n > 0; n-- {
			if _, err := io.ReadFull(in, buf[:size]); err != nil {
				return nil, fmt.Errorf("snapshot: %w", err)
			}
			sum.Write(buf[:size])
			var notBefore int64
			if effect == effectEpoch {
				notBefore = int64(binary.BigEndian.Uint64(buf[hashSize:]))
			}
			r, err := newRecord(keyOfHash(kind, buf[:hashSize]), effect, notBefore, forget)
			if err != nil {
				return nil, fmt.Errorf("snapshot: %w", err)
			}
			build.add(r)
		}
	}
	if in.N != 0 {
		return nil, errors.New("snapshot: size is not that of its records")
	}
	if _, err := io.ReadFull(body, buf[:1]); err != io.EOF {
		return nil, errors.New("snapshot: something follows it")
	}
	if base64.RawURLEncoding.EncodeToString(sum.Sum(nil)) != h.SHA256 {
		return nil, errors.New("snapshot: sha256 is another")
	}
	return build.finish()
}

// A messageChecker finds the issuer's keys for a message.
type messageChecker struct {
	keys       *keySource
	algorithms []string
	blocked    func(kid string) bool
}

// open returns the payload of a compact JWS of this typ by one of the issuer's
// keys, and the kid. Its header has exactly alg, typ and kid.
func (c *messageChecker) open(ctx context.Context, message, typ string, limit int) (payload []byte, kid string, err error) {
	t, err := cutParts(message, limit)
	if err != nil {
		return nil, "", err
	}
	if err := t.parseMessageHeader(typ); err != nil {
		return nil, "", err
	}
	if !slices.Contains(c.algorithms, t.alg) {
		return nil, "", ErrAlgorithm
	}
	if c.blocked(t.kid) {
		return nil, "", fmt.Errorf("message signed with a revoked key: %w", ErrRevoked)
	}
	set := c.keys.current()
	if set == nil {
		return nil, "", c.keys.notReady()
	}
	keys := set.byKID[t.kid]
	if keys == nil {
		if set = c.keys.miss(ctx); set == nil {
			return nil, "", c.keys.notReady()
		}
		keys = set.byKID[t.kid]
	}
	if keys == nil {
		return nil, "", ErrUnknownKey
	}
	if !t.signedBy(keys) {
		return nil, "", ErrSignature
	}
	payload, ok := decodeBase64(make([]byte, base64.RawURLEncoding.DecodedLen(len(t.payload))), t.payload)
	if !ok {
		return nil, "", malformed("payload is not canonical base64url")
	}
	return payload, t.kid, nil
}

// A snapshotReader reads the signed line and then the records.
type snapshotReader struct{ *bufio.Reader }

func newSnapshotReader(body io.Reader) snapshotReader {
	return snapshotReader{bufio.NewReaderSize(body, 64<<10)}
}

// openSnapshot reads the line a snapshot begins with.
func (f *follower) openSnapshot(ctx context.Context, in snapshotReader) (*snapshotHeader, string, error) {
	line, err := readLine(in.Reader, maxSnapshotLine)
	if err != nil {
		return nil, "", fmt.Errorf("snapshot: %w", err)
	}
	payload, kid, err := f.checker.open(ctx, line, typSnapshot, maxSnapshotLine)
	if err != nil {
		return nil, "", fmt.Errorf("snapshot: %w", err)
	}
	header, err := parseSnapshotHeader(payload, f.issuer, f.options.most)
	return header, kid, err
}

// isHeartbeat tells a heartbeat from a batch by what its header says it is; that
// the header says the truth is checked with the signature.
func isHeartbeat(message string) bool {
	header, _, _ := strings.Cut(message, ".")
	var buf [maxHeader]byte
	text, _ := decodeBase64(buf[:], header)
	return bytes.Contains(text, []byte(typHeartbeat))
}

// readLine reads up to a line feed, which it takes away, and no more than limit
// bytes.
func readLine(in *bufio.Reader, limit int) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return "", fmt.Errorf("line longer than %d bytes", limit)
		}
		line = append(line, part...)
		if err == nil {
			return string(bytes.TrimSuffix(line, []byte("\n"))), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}
