package keys

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// ErrWrongKEK says that the database was sealed with another key-encryption
// key than the ones given. Nothing can be read, and nothing was created.
var ErrWrongKEK = errors.New("wrong key-encryption key")

// KEK is a key-encryption key: it wraps the data keys that encrypt the rows. A
// key management service fits behind it, for it never has to hand out the key.
type KEK interface {
	// ID names the key in the rows it wrapped. It reveals nothing of the key,
	// and no two keys share one.
	ID() string
	// Wrap encrypts a data key and authenticates aad with it.
	Wrap(ctx context.Context, dek, aad []byte) ([]byte, error)
	// Unwrap returns the data key, or an error when wrapped was not made by
	// this key, is damaged, or was wrapped with another aad.
	Unwrap(ctx context.Context, wrapped, aad []byte) ([]byte, error)
}

// Sealer encrypts rows: each with a data key of its own, which the
// key-encryption key wraps (AES-256-GCM on both layers).
type Sealer struct {
	Primary  KEK // wraps every new row
	Previous KEK // still opens old rows while the key is being changed; nil otherwise
}

// Sealed is what a row keeps of its plaintext.
type Sealed struct {
	Ciphertext []byte
	WrappedDEK []byte
	KEKID      string
}

// Seal encrypts plaintext for the row that identity names. Both layers
// authenticate the identity, so that a sealed value opens in no other row.
func (s *Sealer) Seal(ctx context.Context, identity string, plaintext []byte) (Sealed, error) {
	dek := randomBytes(32)
	data, err := newGCM(dek)
	if err != nil {
		return Sealed{}, fmt.Errorf("seal: %w", err)
	}
	wrapped, err := s.Primary.Wrap(ctx, dek, []byte(identity))
	if err != nil {
		return Sealed{}, fmt.Errorf("seal with key-encryption key %s: %w", s.Primary.ID(), err)
	}
	return Sealed{
		Ciphertext: data.Seal(nil, nil, plaintext, []byte(identity)),
		WrappedDEK: wrapped,
		KEKID:      s.Primary.ID(),
	}, nil
}

// Open returns the plaintext that was sealed for this identity. It fails with
// ErrWrongKEK when another key-encryption key is needed, and with another
// error when the value is damaged or was sealed for another row.
func (s *Sealer) Open(ctx context.Context, identity string, v Sealed) ([]byte, error) {
	kek, err := s.kek(v.KEKID)
	if err != nil {
		return nil, err
	}
	dek, err := kek.Unwrap(ctx, v.WrappedDEK, []byte(identity))
	if err != nil {
		return nil, fmt.Errorf("unwrap the data key with key-encryption key %s: %w", v.KEKID, err)
	}
	data, err := newGCM(dek)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	plaintext, err := data.Open(nil, nil, v.Ciphertext, []byte(identity))
	if err != nil {
		return nil, errDamaged
	}
	return plaintext, nil
}

// rewrap returns v with its data key wrapped by the primary key-encryption key.
func (s *Sealer) rewrap(ctx context.Context, identity string, v Sealed) (Sealed, error) {
	kek, err := s.kek(v.KEKID)
	if err != nil {
		return Sealed{}, err
	}
	dek, err := kek.Unwrap(ctx, v.WrappedDEK, []byte(identity))
	if err != nil {
		return Sealed{}, fmt.Errorf("unwrap the data key with key-encryption key %s: %w", v.KEKID, err)
	}
	if v.WrappedDEK, err = s.Primary.Wrap(ctx, dek, []byte(identity)); err != nil {
		return Sealed{}, fmt.Errorf("wrap with key-encryption key %s: %w", s.Primary.ID(), err)
	}
	v.KEKID = s.Primary.ID()
	return v, nil
}

// sealingWith returns a sealer that seals with the key of this id and opens
// whatever s opens; ErrWrongKEK when s has no such key.
func (s *Sealer) sealingWith(id string) (*Sealer, error) {
	kek, err := s.kek(id)
	if err != nil || kek == s.Primary {
		return s, err
	}
	return &Sealer{Primary: kek, Previous: s.Primary}, nil
}

// kek returns the key with this id, or ErrWrongKEK.
func (s *Sealer) kek(id string) (KEK, error) {
	given := s.Primary.ID()
	if id == given {
		return s.Primary, nil
	}
	if s.Previous != nil {
		if id == s.Previous.ID() {
			return s.Previous, nil
		}
		given += " and, as the previous one, " + s.Previous.ID()
	}
	return nil, fmt.Errorf("%w: the database was sealed with key %s, given was %s", ErrWrongKEK, id, given)
}

// String names the keys by id, so that printing a Sealer reveals nothing.
// Like the methods below it also serves a copy of the sealer.
func (s Sealer) String() string {
	if s.Previous == nil {
		return "Sealer(" + s.Primary.ID() + ")"
	}
	return "Sealer(" + s.Primary.ID() + ", " + s.Previous.ID() + ")"
}

// GoString is String, for %#v.
func (s Sealer) GoString() string { return s.String() }

// LogValue is String, for slog.
func (s Sealer) LogValue() slog.Value { return slog.StringValue(s.String()) }

var errDamaged = errors.New("does not decrypt: damaged, or moved from another row")

// identity names a row for Seal. No part of a row we write contains the
// separator, so two rows never share an identity.
func identity(table string, parts ...string) string {
	return "v1|" + table + "|" + strings.Join(parts, "|")
}

// newGCM returns AES-256-GCM that puts a fresh random 96-bit nonce in front of
// each ciphertext.
func newGCM(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("a key of %d bytes where 32 are needed", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it aborts the program instead
	return b
}
