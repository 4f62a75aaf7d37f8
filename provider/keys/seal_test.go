package keys

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func testKEK(fill byte) KEK {
	return NewKEK([32]byte(bytes.Repeat([]byte{fill}, 32)))
}

func TestSealedRowOpensOnlyWhereItWasSealed(t *testing.T) {
	sealer := &Sealer{Primary: testKEK(1)}
	id := identity("signing_keys", "kid-1", "ES256", "token")
	genuine, err := sealer.Seal(t.Context(), id, []byte("a private key"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := sealer.Seal(t.Context(), identity("signing_keys", "kid-2", "ES256", "token"), []byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	ct, dek, kek := genuine.Ciphertext, genuine.WrappedDEK, genuine.KEKID

	for _, tt := range []struct {
		name     string
		sealer   *Sealer
		identity string
		sealed   Sealed
		wrongKEK bool
		ok       bool
	}{
		{"as sealed", sealer, id, genuine, false, true},
		{"key is the previous one", &Sealer{Primary: testKEK(2), Previous: testKEK(1)}, id, genuine, false, true},
		{"moved to another kid", sealer, identity("signing_keys", "kid-2", "ES256", "token"), genuine, false, false},
		{"relabelled with another algorithm", sealer, identity("signing_keys", "kid-1", "PS256", "token"), genuine, false, false},
		{"relabelled with another purpose", sealer, identity("signing_keys", "kid-1", "ES256", "feed"), genuine, false, false},
		{"moved to another table", sealer, identity("sealed_secrets", "kid-1", "ES256", "token"), genuine, false, false},
		{"ciphertext of another row", sealer, id, Sealed{other.Ciphertext, dek, kek}, false, false},
		{"data key of another row", sealer, id, Sealed{ct, other.WrappedDEK, kek}, false, false},
		{"both of another row", sealer, id, other, false, false},
		{"ciphertext truncated", sealer, id, Sealed{ct[:len(ct)-1], dek, kek}, false, false},
		{"ciphertext shorter than its nonce", sealer, id, Sealed{ct[:5], dek, kek}, false, false},
		{"ciphertext empty", sealer, id, Sealed{nil, dek, kek}, false, false},
		{"data key truncated", sealer, id, Sealed{ct, dek[:len(dek)-1], kek}, false, false},
		{"data key empty", sealer, id, Sealed{ct, nil, kek}, false, false},
		{"nonce changed", sealer, id, Sealed{flipped(ct, 0), dek, kek}, false, false},
		{"tag changed", sealer, id, Sealed{flipped(ct, len(ct)-1), dek, kek}, false, false},
		{"data key changed", sealer, id, Sealed{ct, flipped(dek, 20), kek}, false, false},
		{"another key-encryption key", &Sealer{Primary: testKEK(2)}, id, genuine, true, false},
		{"neither of two", &Sealer{Primary: testKEK(2), Previous: testKEK(3)}, id, genuine, true, false},
		{"row says it was sealed with another", sealer, id, Sealed{ct, dek, "someone-else"}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.sealer.Open(t.Context(), tt.identity, tt.sealed)
			if tt.ok {
				if err != nil || string(got) != "a private key" {
					t.Fatalf("got %q, %v", got, err)
				}
				return
			}
			if err == nil || got != nil {
				t.Fatalf("opened to %q, %v", got, err)
			}
			if errors.Is(err, ErrWrongKEK) != tt.wrongKEK {
				t.Errorf("wrong-KEK is %v for: %v", !tt.wrongKEK, err)
			}
		})
	}
}

func TestWrongKEKNamesTheOneWantedAndTheOnesGiven(t *testing.T) {
	wanted, given, previous := testKEK(1), testKEK(2), testKEK(3)
	sealed, err := (&Sealer{Primary: wanted}).Seal(t.Context(), "row", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&Sealer{Primary: given, Previous: previous}).Open(t.Context(), "row", sealed)
	for _, id := range []string{wanted.ID(), given.ID(), previous.ID()} {
		if !strings.Contains(err.Error(), id) {
			t.Errorf("%q does not name %s", err, id)
		}
	}
}

func TestEachSealIsFresh(t *testing.T) {
	sealer := &Sealer{Primary: testKEK(1)}
	a, errA := sealer.Seal(t.Context(), "row", []byte("same"))
	b, errB := sealer.Seal(t.Context(), "row", []byte("same"))
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if bytes.Equal(a.Ciphertext, b.Ciphertext) || bytes.Equal(a.WrappedDEK, b.WrappedDEK) {
		t.Error("two rows share a nonce or a data key")
	}
	if bytes.Contains(a.Ciphertext, []byte("same")) {
		t.Error("the plaintext shows")
	}
}
