// Package revocation says what each revoking event means for tokens that are
// already out: which entries it appends to the log that introspection reads
// and offline verifiers follow. Keeping the log is storage's work; changing
// the truth the log is a projection of is the caller's, in the same transaction.
package revocation

import (
	"crypto/sha256"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// What a log entry can be about.
const (
	KindToken   = "jti"    // one access token
	KindGrant   = "grant"  // everything one authorization gave
	KindSession = "sid"    // a browser session
	KindSubject = "sub"    // a person, or a client acting for itself
	KindClient  = "client" // a client
	KindKey     = "kid"    // a signing key
	KindIssuer  = "iss"    // everything
)

// What a log entry does.
const (
	EffectBlock = "block"             // refuse outright
	EffectEpoch = storage.EffectEpoch // refuse what was issued up to the second of NotBefore
)

// hashSize is how many bytes of the digest identify a value: 128 bits keep
// accidental and sought collisions out of reach at a third of the size.
const hashSize = 16

// Key returns the log key of a value. The kind is part of the digest, so
// that a session and a client of the same name are different things.
func Key(kind, value string) storage.RevocationKey {
	sum := sha256.Sum256([]byte(kind + "\x00" + value))
	return storage.RevocationKey{Kind: kind, Hash: sum[:hashSize]}
}

// Block returns the entry that refuses everything the value names until until,
// the time by which nothing that was signed before now is still valid.
func Block(kind, value, reason string, now, until time.Time) storage.Revocation {
	return storage.Revocation{Key: Key(kind, value), Effect: EffectBlock, Until: until, Reason: reason, CreatedAt: now}
}

// EpochAhead is how far ahead of its transaction's clock an epoch is dated:
// what the transaction may take from reading the clock to its commit. Until
// then others see the old truth, and what they mint from it is younger than
// that clock; it must not be younger than the epoch.
const EpochAhead = time.Second

// Epoch returns the entry that refuses what was issued for the value until
// EpochAhead after now, the time of the transaction that appends it, and
// accepts what is issued later. It lifts an earlier block.
func Epoch(kind, value, reason string, now, until time.Time) storage.Revocation {
	return storage.Revocation{Key: Key(kind, value), Effect: EffectEpoch, NotBefore: now.Add(EpochAhead), Until: until, Reason: reason, CreatedAt: now}
}

// Refuses reports whether the entry refuses a token issued at issuedAt, which
// has the whole seconds of a NumericDate (RFC 7519 §2): a token of the same
// second as an epoch may be older than it, so it is refused.
func Refuses(r storage.Revocation, issuedAt time.Time) bool {
	return r.Effect == EffectBlock || !issuedAt.After(r.NotBefore.Truncate(time.Second))
}
