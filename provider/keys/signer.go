package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// The algorithms tokens are signed with (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	ES256 = "ES256"
	RS256 = "RS256"
	PS256 = "PS256"
	EdDSA = "EdDSA"
)

// Algorithms lists every algorithm a Ring can sign with.
func Algorithms() []string { return []string{ES256, RS256, PS256, EdDSA} }

var (
	// ErrNoKey says that no key of the algorithm may sign at this time.
	ErrNoKey = errors.New("no signing key")
	// ErrInvalidToken says that a token was not signed by a published key, or
	// is not of the expected type.
	ErrInvalidToken = errors.New("not a token of ours")
)

const rsaBits = 2048

// newPrivateKey makes a key pair for the algorithm.
func newPrivateKey(alg string) (crypto.Signer, error) {
	switch alg {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256, PS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("unknown signature algorithm %q", alg)
}

// suits reports whether a key is a public one of the algorithm's type and strength.
func suits(alg string, key any) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return alg == ES256 && k.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return (alg == RS256 || alg == PS256) && k.N.BitLen() >= rsaBits
	case ed25519.PublicKey:
		return alg == EdDSA
	}
	return false
}

// Sign returns claims, a JSON object, as a compact JWS of the given type,
// signed by the key of the algorithm whose turn it is at now; ErrNoKey when
// there is none. The header holds alg, typ and kid and nothing else.
// It signs tokens: not the messages of the revocation feed.
func (r *Ring) Sign(alg, typ string, claims []byte, now time.Time) (string, error) {
	if isFeedType(typ) {
		return "", fmt.Errorf("a token of type %q would pass for a message of the revocation feed", typ)
	}
	return r.signWith(slot{PurposeToken, alg}, typ, claims, now)
}

// SignFeed returns claims, a JSON object, as a message of the revocation feed:
// a compact JWS (ES256) by the feed's own key whose turn it is at now, of a
// type revocation-…+jwt and no other; ErrNoKey when there is none. The header
// holds alg, typ and kid and nothing else.
func (r *Ring) SignFeed(typ string, claims []byte, now time.Time) (string, error) {
	if !isFeedType(typ) {
		return "", fmt.Errorf("the revocation feed has no messages of type %q", typ)
	}
	return r.signWith(slot{PurposeFeed, ES256}, typ, claims, now)
}

// isFeedType reports whether a typ is one of the feed's: what its key signs
// and no other key does, so that neither passes for the other (RFC 8725 §3.11).
func isFeedType(typ string) bool {
	name, ok := strings.CutSuffix(typ, "+jwt")
	return ok && strings.HasPrefix(name, "revocation-")
}

func (r *Ring) signWith(s slot, typ string, claims []byte, now time.Time) (string, error) {
	k := r.signing(s, now)
	if k == nil {
		return "", fmt.Errorf("%w for %s", ErrNoKey, s)
	}
	var room [256]byte
	header := k.appendHeader(room[:0], typ)

	enc := base64.RawURLEncoding
	size := enc.EncodedLen(len(header)) + 1 + enc.EncodedLen(len(claims)) + 1 + enc.EncodedLen(k.signatureSize())
	token := make([]byte, 0, size)
	token = enc.AppendEncode(token, header)
	token = append(token, '.')
	token = enc.AppendEncode(token, claims)
	signature, err := k.sign(token)
	if err != nil {
		return "", fmt.Errorf("sign with %s key %s: %w", s, k.row.KID, err)
	}
	token = append(token, '.')
	token = enc.AppendEncode(token, signature)
	return string(token), nil
}

// appendHeader appends the JOSE header (RFC 7515 §4.1, RFC 9068 §2.1). typ is
// a media type of ours, for which Go's quoting is JSON's.
func (k *key) appendHeader(b []byte, typ string) []byte {
	b = append(b, `{"alg":"`...)
	b = append(b, k.row.Alg...)
	b = append(b, `","typ":`...)
	b = strconv.AppendQuote(b, typ)
	b = append(b, `,"kid":"`...)
	b = append(b, k.row.KID...)
	return append(b, `"}`...)
}

func (k *key) signatureSize() int {
	if public, ok := k.public.(*rsa.PublicKey); ok {
		return public.Size()
	}
	return 64
}

// sign signs the JWS signing input with whatever holds the private key.
func (k *key) sign(input []byte) ([]byte, error) {
	if k.row.Alg == EdDSA {
		return k.private.Sign(nil, input, crypto.Hash(0)) // RFC 8037 §3.1
	}
	digest := sha256.Sum256(input)
	switch k.row.Alg {
	case ES256:
		der, err := k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		return joseSignature(der)
	case PS256:
		return k.private.Sign(rand.Reader, digest[:], pssOptions())
	default: // RS256
		return k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
}

// pssOptions: the salt is as long as the hash (RFC 7518 §3.5).
func pssOptions() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
}

var errMalformed = errors.New("malformed ECDSA signature")

// joseSignature turns an ASN.1 signature, SEQUENCE { r, s INTEGER }, into the
// 64 bytes r‖s of RFC 7518 §3.4.
func joseSignature(der []byte) ([]byte, error) {
	if len(der) < 2 || der[0] != 0x30 || int(der[1]) != len(der)-2 {
		return nil, errMalformed
	}
	rest := der[2:]
	signature := make([]byte, 64)
	for _, half := range [][]byte{signature[:32], signature[32:]} {
		if len(rest) < 2 || rest[0] != 0x02 || int(rest[1]) > len(rest)-2 {
			return nil, errMalformed
		}
		n := bytes.TrimLeft(rest[2:2+int(rest[1])], "\x00")
		if len(n) > len(half) {
			return nil, errMalformed
		}
		copy(half[len(half)-len(n):], n)
		rest = rest[2+int(rest[1]):]
	}
	if len(rest) != 0 {
		return nil, errMalformed
	}
	return signature, nil
}

// maxTokenSize bounds what Verify looks at; tokens of ours are a quarter of it.
const maxTokenSize = 16 << 10

// Verify checks that a compact JWS was signed by a published key of ours, with
// the one algorithm of that key, and is of the given type. It returns the
// claims as signed and the key's id, or ErrInvalidToken. Times, audience and
// revocation are for the caller to check.
func (r *Ring) Verify(token, typ string) (claims []byte, kid string, err error) {
	return verify(r.published, token, typ)
}

// VerifyHint is Verify for a token that only says who somebody was, an
// id_token_hint: keys removed from the JWK Set within a year count as well,
// compromised ones never.
func (r *Ring) VerifyHint(token, typ string) (claims []byte, err error) {
	claims, _, err = verify(r.hints, token, typ)
	return claims, err
}

func verify(keys map[string]*key, token, typ string) (claims []byte, kid string, err error) {
	invalid := func(why string) ([]byte, string, error) {
		return nil, "", fmt.Errorf("%w: %s", ErrInvalidToken, why)
	}
	// The decoder skips line breaks, which would let one token have many spellings.
	if len(token) > maxTokenSize || strings.ContainsAny(token, "\r\n") {
		return invalid("too long or has line breaks")
	}
	encodedHeader, rest, _ := strings.Cut(token, ".")
	encodedClaims, encodedSignature, ok := strings.Cut(rest, ".")
	if !ok {
		return invalid("not a compact JWS")
	}
	enc := base64.RawURLEncoding.Strict()
	header, err := enc.DecodeString(encodedHeader)
	if err != nil {
		return invalid("header is not base64url")
	}
	var h struct{ Alg, Typ, Kid string }
	d := json.NewDecoder(bytes.NewReader(header))
	d.DisallowUnknownFields() // a header of ours has no others; crit above all
	if err := d.Decode(&h); err != nil {
		return invalid("header is not one of ours")
	}
	k := keys[h.Kid]
	switch {
	case k == nil:
		return invalid("unknown kid")
	case h.Alg != k.row.Alg: // RFC 8725 §3.1
		return invalid("alg is not the key's")
	case h.Typ != typ: // RFC 8725 §3.11
		return invalid("typ is not " + typ)
	}
	signature, err := enc.DecodeString(encodedSignature)
	if err != nil {
		return invalid("signature is not base64url")
	}
	input := token[:len(encodedHeader)+1+len(encodedClaims)]
	if !k.verify([]byte(input), signature) {
		return invalid("wrong signature")
	}
	claims, err = enc.DecodeString(encodedClaims)
	if err != nil {
		return invalid("claims are not base64url")
	}
	return claims, k.row.KID, nil
}

func (k *key) verify(input, signature []byte) bool {
	if k.row.Alg == EdDSA {
		return ed25519.Verify(k.public.(ed25519.PublicKey), input, signature)
	}
	digest := sha256.Sum256(input)
	switch k.row.Alg {
	case ES256:
		if len(signature) != 64 {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		return ecdsa.Verify(k.public.(*ecdsa.PublicKey), digest[:], r, s)
	case PS256:
		return rsa.VerifyPSS(k.public.(*rsa.PublicKey), crypto.SHA256, digest[:], signature, pssOptions()) == nil
	default: // RS256
		return rsa.VerifyPKCS1v15(k.public.(*rsa.PublicKey), crypto.SHA256, digest[:], signature) == nil
	}
}
