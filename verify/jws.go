package verify

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxToken     = 8 << 10 // bytes of a whole token
	maxHeader    = 1 << 10 // bytes of its decoded header
	maxSignature = 512     // bytes: RSA with 4096 bits, the largest key we keep
)

// A jws is a token cut at its dots (RFC 7515 §3.1). Its payload stays encoded, for
// nothing in it counts before the signature is right.
type jws struct {
	header, payload, signature string // base64url

	signed   string // header and payload as the signature covers them
	alg, kid string // once the header is read
}

// cutJWS refuses whatever has not the outer form of a token, before anything
// whose size the sender chose is hashed or decoded.
func cutJWS(token string) (jws, error) { return cutParts(token, maxToken) }

// cutParts is cutJWS for what may be longer than a token, limit bytes.
func cutParts(token string, limit int) (jws, error) {
	if len(token) > limit {
		return jws{}, malformed(fmt.Sprintf("longer than %d KiB", limit>>10))
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return jws{}, malformed("not three parts") // five parts would be a JWE
	}
	if len(header) > base64.RawURLEncoding.EncodedLen(maxHeader) {
		return jws{}, malformed("header longer than 1 KiB")
	}
	if len(signature) > base64.RawURLEncoding.EncodedLen(maxSignature) {
		return jws{}, malformed("signature longer than 512 bytes")
	}
	return jws{
		header:    header,
		payload:   payload,
		signature: signature,
		signed:    token[:len(header)+1+len(payload)],
	}, nil
}

// parseHeader takes alg and kid and refuses whatever would change how the token
// is to be read. Other parameters are ignored (RFC 7515 §4).
func (t *jws) parseHeader() error {
	var buf [maxHeader]byte
	text, ok := decodeBase64(buf[:], t.header)
	if !ok {
		return malformed("header is not canonical base64url")
	}
	var names [8]string
	var typ, refused string
	s := scan(string(text), names[:])
	for g := s.object(); s.next(&g); {
		switch g.name {
		case "alg":
			t.alg = s.text()
		case "kid":
			if t.kid = s.text(); t.kid == "" {
				s.fail("empty kid")
			}
		case "typ":
			typ = s.text()
		case "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", // keys come from the issuer only (RFC 8725 §3.10)
			"crit", "b64", // we understand no extension (RFC 7515 §4.1.11, RFC 7797)
			"cty", "zip", "enc": // no nested, compressed or encrypted token
			refused = g.name
			s.skip()
		default:
			s.skip()
		}
	}
	switch fault := s.end(); {
	case fault != "":
		return malformed("header: " + fault)
	case refused != "":
		return malformed("header parameter " + refused + " is not accepted")
	// RFC 9068 §4; a media type is compared without case (RFC 7515 §4.1.9).
	case !strings.EqualFold(typ, "at+jwt") && !strings.EqualFold(typ, "application/at+jwt"):
		return ErrType
	}
	return nil
}

// parseMessageHeader takes the header of what the issuer signs for verifiers: alg,
// kid and exactly this typ, and nothing else.
func (t *jws) parseMessageHeader(typ string) error {
	var buf [maxHeader]byte
	text, ok := decodeBase64(buf[:], t.header)
	if !ok {
		return malformed("header is not canonical base64url")
	}
	var names [4]string
	var is string
	s := scan(string(text), names[:])
	for g := s.object(); s.next(&g); {
		switch g.name {
		case "alg":
			t.alg = s.text()
		case "kid":
			t.kid = s.text()
		case "typ":
			is = s.text()
		default:
			s.fail("unexpected parameter " + strconv.Quote(g.name))
		}
	}
	switch fault := s.end(); {
	case fault != "":
		return malformed("header: " + fault)
	case is != typ:
		return fmt.Errorf("the message is not of type %s", typ)
	case t.kid == "":
		return ErrUnknownKey
	}
	return nil
}

// decodeBase64 decodes s into dst, refusing every spelling but the canonical one
// (RFC 7515 §2): no padding, no line breaks, no stray trailing bits.
func decodeBase64(dst []byte, s string) ([]byte, bool) {
	if len(s) == 0 || base64.RawURLEncoding.DecodedLen(len(s)) > len(dst) || strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(dst, []byte(s))
	return dst[:n], err == nil
}
