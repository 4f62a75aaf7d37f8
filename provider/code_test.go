package provider

import (
	"math/bits"
	"testing"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// A9: what of a code cannot be known has 256 bits, each as often set as not,
// and no two codes share it.
func TestCodesAreRandom(t *testing.T) {
	const many = 10_000
	ring := newHouse(t, migrations.SQLite, nil).p.registry.current.Load().ring
	seen := make(map[string]bool, many)
	var set [256]int
	id := uuid.NewString()
	for range many {
		g := storage.Grant{ID: id, Seed: newSeed()} // the same grant, for all else to be equal
		code, err := mintGrantToken(ring, g, 0, ring.CurrentID(keys.PurposeGrant))
		must(t, err)
		token, err := readGrantToken(ring, prefixCode, code)
		must(t, err)
		if len(token.inner) != 32 || seen[string(token.inner)] {
			t.Fatalf("%x came twice, or is short", token.inner)
		}
		seen[string(token.inner)] = true
		for i, b := range token.inner {
			for ; b != 0; b &= b - 1 {
				set[i*8+bits.TrailingZeros8(b)]++
			}
		}
	}
	for i, n := range set {
		if n < many/2-350 || n > many/2+350 { // seven standard deviations
			t.Errorf("bit %d is set in %d of %d codes", i, n, many)
		}
	}
}
