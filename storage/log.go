package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// RevocationKey names what a revocation is about: Hash is a truncated digest
// of the value (revocation.Key makes it), Kind says what the value is.
type RevocationKey struct {
	Kind string // "jti", "grant", "sid", "sub", "client", "kid" or "iss"
	Hash []byte
}

// EffectEpoch is the effect of an entry that refuses what was issued up to the
// second of its NotBefore.
const EffectEpoch = "epoch"

// Revocation is one entry of the log that verifiers follow. The latest entry
// for a key is the one that counts.
type Revocation struct {
	Seq       int64
	Key       RevocationKey
	Effect    string    // "block" refuses outright, or EffectEpoch
	NotBefore time.Time // for epochs
	Until     time.Time // when nothing it could concern is still valid; zero: never
	Reason    string    // for operators; it never leaves the database
	Chain     []byte    // SHA-256 over the previous entry's Chain and this entry
	CreatedAt time.Time
}

// ChainAfter returns the entry's chain hash, given that of the entry before it
// (nil for the first entry of a feed). Whoever follows the log computes it
// again, from what a verifier is told and nothing else, so this encoding is
// for ever:
//
//	SHA-256( field(prev) ‖ int(seq) ‖ field(kind) ‖ field(hash) ‖ field(effect)
//	       ‖ int(not_before) ‖ int(until) ‖ int(created_at) )
//
// where int is a signed 64-bit big-endian integer, times are Unix milliseconds
// (0 for the zero time), and field is a value's length in bytes as such an
// integer, followed by the bytes themselves.
func (r Revocation) ChainAfter(prev []byte) []byte {
	var b []byte
	num := func(n int64) { b = binary.BigEndian.AppendUint64(b, uint64(n)) }
	field := func(v []byte) { num(int64(len(v))); b = append(b, v...) }
	when := func(t time.Time) {
		if t.IsZero() {
			num(0)
			return
		}
		num(t.UnixMilli())
	}
	field(prev)
	num(r.Seq)
	field([]byte(r.Key.Kind))
	field(r.Key.Hash)
	field([]byte(r.Effect))
	when(r.NotBefore)
	when(r.Until)
	when(r.CreatedAt)
	sum := sha256.Sum256(b)
	return sum[:]
}

// RevocationLog says how far the log is.
type RevocationLog struct {
	FeedID string // another one is another log: no position in this one means anything there
	Seq    int64  // of the last entry; 0 while there was none
	Chain  []byte // of the last entry; nil while there was none
}

// AuditFilter selects audit events; what is zero selects all.
type AuditFilter struct {
	Since    time.Time // no earlier than this
	UserID   string
	ClientID string
	Before   string // what comes after the event of this id in a listing
	Limit    int    // at least 1
}

// AuditEvent records who did what to whom. It never holds a secret.
type AuditEvent struct {
	ID        string // UUIDv7
	At        time.Time
	Event     string // one of a closed list, e.g. "client.created"
	Actor     string // who did it: "operator", a client's or a user's id
	UserID    string
	ClientID  string
	Address   string
	RequestID string
	Detail    string // a JSON object, or ""
}
