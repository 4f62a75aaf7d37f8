package provider

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// A code and a refresh token are one format: a prefix that says which and lets
// secret scanners find leaks, then base64url of
//
//	version (1) ‖ key id's length (1) ‖ key id ‖ grant id (16) ‖ generation (8) ‖ inner MAC (32) ‖ outer MAC (32)
//
// Each MAC is HMAC-SHA256 over the prefix and everything before it: the inner
// one keyed by the seed in the grant's row, the outer one by a sealed key. The
// outer one is checked before any database work, so garbage costs nothing; the
// inner one after the row was read, so neither a stolen key nor a stolen
// database forges anything. Nothing in it is random but the seed: whoever
// holds both halves makes the same token again, on any replica.
const (
	prefixCode    = "sgc_"
	prefixRefresh = "sgr_"

	tokenVersion = 1
	seedSize     = 32
	// maxGrantToken bounds what is decoded at all.
	maxGrantToken = 512
)

// grantToken is a code or a refresh token whose outer MAC is good.
type grantToken struct {
	prefix     string
	keyID      string
	grantID    string
	generation int64 // 0 for a code, from 1 for refresh tokens

	covered []byte // by the inner MAC
	inner   []byte
}

var errNotGrantToken = errors.New("not a code or refresh token of ours")

// newSeed returns the key of a grant's inner MACs.
func newSeed() []byte {
	seed := make([]byte, seedSize)
	_, _ = rand.Read(seed) // never fails: it aborts the program instead
	return seed
}

// mintGrantToken returns the grant's code (generation 0) or refresh token, with
// the outer MAC of the key that keyID names. The same arguments give the same
// token. It fails when the ring no longer has that key.
func mintGrantToken(ring *keys.Ring, g storage.Grant, generation int64, keyID string) (string, error) {
	prefix := prefixRefresh
	if generation == 0 {
		prefix = prefixCode
	}
	id, err := uuid.Parse(g.ID)
	if err != nil {
		return "", fmt.Errorf("grant id: %w", err)
	}
	b := make([]byte, 0, 128)
	b = append(b, prefix...)
	b = append(b, tokenVersion, byte(len(keyID)))
	b = append(b, keyID...)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(generation))
	b = append(b, innerMAC(g.Seed, b)...)
	mac, ok := ring.MACWith(keys.PurposeGrant, keyID, b)
	if !ok {
		return "", fmt.Errorf("the %s key %s is gone", keys.PurposeGrant, keyID)
	}
	b = append(b, mac[:]...)
	return prefix + base64.RawURLEncoding.EncodeToString(b[len(prefix):]), nil
}

// readGrantToken checks everything about a code or refresh token that can be
// known without the database.
func readGrantToken(ring *keys.Ring, prefix, token string) (*grantToken, error) {
	encoded, ok := strings.CutPrefix(token, prefix)
	if !ok || len(token) > maxGrantToken || strings.ContainsAny(encoded, "\r\n") { // the decoder skips line breaks
		return nil, errNotGrantToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) < 2 || raw[0] != tokenVersion {
		return nil, errNotGrantToken
	}
	keySize := int(raw[1])
	if len(raw) != 2+keySize+16+8+2*sha256.Size {
		return nil, errNotGrantToken
	}
	b := append([]byte(prefix), raw...)
	outerAt := len(b) - sha256.Size
	innerAt := outerAt - sha256.Size
	keyID := string(raw[2 : 2+keySize])
	if !ring.VerifyMAC(keys.PurposeGrant, keyID, b[:outerAt], b[outerAt:]) {
		return nil, errNotGrantToken
	}
	generation := int64(binary.BigEndian.Uint64(b[innerAt-8 : innerAt]))
	if (prefix == prefixCode) != (generation == 0) {
		return nil, errNotGrantToken
	}
	return &grantToken{
		prefix: prefix, keyID: keyID, grantID: uuid.UUID(b[innerAt-24 : innerAt-8]).String(), generation: generation,
		covered: b[:innerAt], inner: b[innerAt:outerAt],
	}, nil
}

// of reports whether the token was made for this grant: whether its inner MAC
// is the row's.
func (t *grantToken) of(g storage.Grant) bool {
	return len(g.Seed) == seedSize && t.grantID == g.ID && hmac.Equal(t.inner, innerMAC(g.Seed, t.covered))
}

func innerMAC(seed, covered []byte) []byte {
	h := hmac.New(sha256.New, seed)
	h.Write(covered)
	return h.Sum(nil)
}
