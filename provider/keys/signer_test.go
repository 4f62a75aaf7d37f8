package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const typAccess = "at+jwt"

var testClaims = []byte(`{"iss":"https://issuer.example","sub":"s6BhdRkqt3","aud":"https://api.example","exp":1790000600}`)

func TestTokensVerifyWithAnotherLibrary(t *testing.T) {
	ring := testRing(t)
	document, _ := ring.JWKS()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(document, &set); err != nil {
		t.Fatal(err)
	}
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			token, err := ring.Sign(alg, typAccess, testClaims, testNow)
			if err != nil {
				t.Fatal(err)
			}
			jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			if err != nil {
				t.Fatal(err)
			}
			payload, err := jws.Verify(set)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(payload, testClaims) {
				t.Errorf("claims changed: %s", payload)
			}
			claims, kid, err := ring.Verify(token, typAccess)
			if err != nil || !bytes.Equal(claims, testClaims) || kid != jws.Signatures[0].Header.KeyID {
				t.Errorf("our own: %s, %s, %v", claims, kid, err)
			}
		})
	}
}

func TestTokensOfAnotherLibraryVerify(t *testing.T) {
	ring := testRing(t)
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			k := ring.signing(slot{PurposeToken, alg}, testNow)
			opts := (&jose.SignerOptions{}).WithType(typAccess)
			signer, err := jose.NewSigner(jose.SigningKey{
				Algorithm: jose.SignatureAlgorithm(alg),
				Key:       jose.JSONWebKey{Key: k.private, KeyID: k.row.KID},
			}, opts)
			if err != nil {
				t.Fatal(err)
			}
			jws, err := signer.Sign(testClaims)
			if err != nil {
				t.Fatal(err)
			}
			token, err := jws.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := ring.Verify(token, typAccess); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHeaderIsAlgTypKidAndNothingElse(t *testing.T) {
	ring := testRing(t)
	for _, alg := range Algorithms() {
		for _, typ := range []string{typAccess, "JWT", "logout+jwt"} {
			token, err := ring.Sign(alg, typ, testClaims, testNow)
			if err != nil {
				t.Fatal(err)
			}
			encoded, _, _ := strings.Cut(token, ".")
			header, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			want := `{"alg":"` + alg + `","typ":"` + typ + `","kid":"` + ring.signing(slot{PurposeToken, alg}, testNow).row.KID + `"}`
			if string(header) != want {
				t.Errorf("got  %s\nwant %s", header, want)
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	ring := testRing(t)
	es := ring.signing(slot{PurposeToken, ES256}, testNow)
	rs := ring.signing(slot{PurposeToken, RS256}, testNow)
	ps := ring.signing(slot{PurposeToken, PS256}, testNow)
	ed := ring.signing(slot{PurposeToken, EdDSA}, testNow)
	token, err := ring.Sign(ES256, typAccess, testClaims, testNow)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	parts := strings.Split(token, ".")
	// signedBy makes a token with any header, correctly signed by our key.
	signedBy := func(k *key, header string) string {
		input := encode([]byte(header)) + "." + encode(testClaims)
		signature, err := k.sign([]byte(input))
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + encode(signature)
	}
	header := func(alg, typ, kid string) string {
		return `{"alg":"` + alg + `","typ":"` + typ + `","kid":"` + kid + `"}`
	}
	if _, _, err := ring.Verify(signedBy(es, header(ES256, typAccess, es.row.KID)), typAccess); err != nil {
		t.Fatalf("the test's own signing is wrong: %v", err)
	}
	stranger, err := newPrivateKey(ES256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ecdsa.SignASN1(rand.Reader, es.private.(*ecdsa.PrivateKey), digest(parts[0]+"."+parts[1]))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(rs.public)
	if err != nil {
		t.Fatal(err)
	}
	confused := encode([]byte(header("HS256", typAccess, rs.row.KID))) + "." + parts[1]
	mac := hmac.New(sha256.New, spki)
	mac.Write([]byte(confused))

	lastBitsSet := func(s string) string { // the same bytes, spelled differently
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])|1])
	}

	for _, tt := range []struct{ name, token, typ string }{
		{"nothing", "", typAccess},
		{"another type expected", token, "JWT"},
		{"another type made", signedBy(es, header(ES256, "JWT", es.row.KID)), typAccess},
		{"type spelled otherwise", signedBy(es, header(ES256, "application/at+jwt", es.row.KID)), typAccess},
		{"no type", signedBy(es, `{"alg":"ES256","kid":"`+es.row.KID+`"}`), typAccess},
		{"alg none without signature", encode([]byte(header("none", typAccess, es.row.KID))) + "." + parts[1] + ".", typAccess},
		{"alg none with a good signature", signedBy(es, header("none", typAccess, es.row.KID)), typAccess},
		{"RS256 by a PS256 key", signedBy(ps, header(RS256, typAccess, ps.row.KID)), typAccess},
		{"PS256 by an RS256 key", signedBy(rs, header(PS256, typAccess, rs.row.KID)), typAccess},
		{"ES256 by an EdDSA key", signedBy(ed, header(ES256, typAccess, ed.row.KID)), typAccess},
		{"HS256 keyed with our public key", confused + "." + encode(mac.Sum(nil)), typAccess},
		{"signed with another of our keys", signedBy(ed, header(ES256, typAccess, es.row.KID)), typAccess},
		{"signed by a stranger", signedBy(&key{row: es.row, public: stranger.Public(), private: stranger}, header(ES256, typAccess, es.row.KID)), typAccess},
		{"unknown kid", signedBy(es, header(ES256, typAccess, "nobody")), typAccess},
		{"no kid", signedBy(es, `{"alg":"ES256","typ":"at+jwt"}`), typAccess},
		{"kid is not text", signedBy(es, `{"alg":"ES256","typ":"at+jwt","kid":1}`), typAccess},
		{"critical header", signedBy(es, `{"alg":"ES256","typ":"at+jwt","kid":"`+es.row.KID+`","crit":["b64"],"b64":false}`), typAccess},
		{"key in the header", signedBy(es, `{"alg":"ES256","typ":"at+jwt","kid":"`+es.row.KID+`","jwk":{}}`), typAccess},
		{"header is not JSON", signedBy(es, "alg=ES256"), typAccess},
		{"claims changed", parts[0] + "." + encode([]byte(`{"sub":"admin"}`)) + "." + parts[2], typAccess},
		{"no signature", parts[0] + "." + parts[1] + ".", typAccess},
		{"two parts", parts[0] + "." + parts[1], typAccess},
		{"four parts", token + ".", typAccess},
		{"five parts", token + "..", typAccess},
		{"signature in ASN.1", parts[0] + "." + parts[1] + "." + encode(der), typAccess},
		{"signature with a byte more", parts[0] + "." + parts[1] + "." + encode(append(signature, 0)), typAccess},
		{"signature of zeros", parts[0] + "." + parts[1] + "." + encode(make([]byte, 64)), typAccess},
		{"padded", token + "=", typAccess},
		{"unused bits set", lastBitsSet(token), typAccess},
		{"line break inside", parts[0] + ".\n" + parts[1] + "." + parts[2], typAccess},
		{"line break at the end", token + "\r\n", typAccess},
		{"space before", " " + token, typAccess},
		{"too long", signedBy(es, header(ES256, typAccess, es.row.KID)+strings.Repeat(" ", maxTokenSize)), typAccess},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims, kid, err := ring.Verify(tt.token, tt.typ)
			if !errors.Is(err, ErrInvalidToken) || claims != nil || kid != "" {
				t.Errorf("got %s, %q, %v", claims, kid, err)
			}
		})
	}
}

func TestKeySuitsItsAlgorithm(t *testing.T) {
	made := func(alg string) crypto.Signer {
		k, err := newPrivateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, rsa2048, ed := made(ES256), made(RS256), made(EdDSA)
	rsa1024 := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}
	for _, tt := range []struct {
		name string
		key  any
		algs []string
	}{
		{"P-256", ec.Public(), []string{ES256}},
		{"P-384", p384.Public(), nil},
		{"RSA, 2048 bits", rsa2048.Public(), []string{RS256, PS256}},
		{"RSA, 1024 bits", rsa1024, nil},
		{"Ed25519", ed.Public(), []string{EdDSA}},
		{"private P-256", ec, nil},
		{"private RSA", rsa2048, nil},
		{"private Ed25519", ed, nil},
		{"symmetric", []byte("0123456789abcdef0123456789abcdef"), nil},
	} {
		for _, alg := range append(Algorithms(), "none", "HS256", "") {
			if got := suits(alg, tt.key); got != slices.Contains(tt.algs, alg) {
				t.Errorf("%s for %q: %v", tt.name, alg, got)
			}
		}
	}
}

func TestECDSASignatureConversion(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short := 0
	for range 1000 { // about 8 of them have an r or s with a leading zero byte
		der, err := ecdsa.SignASN1(rand.Reader, private, digest("x"))
		if err != nil {
			t.Fatal(err)
		}
		var want struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &want); err != nil {
			t.Fatal(err)
		}
		got, err := joseSignature(der)
		if err != nil {
			t.Fatal(err)
		}
		expected := append(want.R.FillBytes(make([]byte, 32)), want.S.FillBytes(make([]byte, 32))...)
		if !bytes.Equal(got, expected) {
			t.Fatalf("%x became %x", der, got)
		}
		if got[0] == 0 || got[32] == 0 {
			short++
		}
	}
	if short == 0 {
		t.Error("no short integer was seen")
	}
}

func TestMalformedECDSASignatureIsAnError(t *testing.T) {
	long := append([]byte{0x30, 0x26, 0x02, 0x21}, bytes.Repeat([]byte{1}, 33)...)
	for name, der := range map[string][]byte{
		"empty":            {},
		"not a sequence":   {0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01},
		"wrong length":     {0x30, 0x07, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01},
		"one integer":      {0x30, 0x03, 0x02, 0x01, 0x01},
		"three integers":   {0x30, 0x09, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01},
		"no integer":       {0x30, 0x06, 0x04, 0x01, 0x01, 0x04, 0x01, 0x01},
		"integer too long": {0x30, 0x06, 0x02, 0x05, 0x01, 0x02, 0x01, 0x01},
		"r of 33 bytes":    append(long, 0x02, 0x01, 0x01),
	} {
		if got, err := joseSignature(der); err == nil {
			t.Errorf("%s: became %x", name, got)
		}
	}
}

// remoteSigner stands for a hardware module: it signs and shows no key.
type remoteSigner struct {
	crypto.Signer
	fails error
}

func (s remoteSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.fails != nil {
		return nil, s.fails
	}
	return s.Signer.Sign(rand, digest, opts)
}

func TestAnyCryptoSignerSigns(t *testing.T) {
	for _, alg := range Algorithms() {
		ring := testRing(t)
		k := ring.signing(slot{PurposeToken, alg}, testNow)
		inner := k.private
		k.private = remoteSigner{Signer: inner}
		token, err := ring.Sign(alg, typAccess, testClaims, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ring.Verify(token, typAccess); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		down := errors.New("module is down")
		k.private = remoteSigner{Signer: inner, fails: down}
		if _, err := ring.Sign(alg, typAccess, testClaims, testNow); !errors.Is(err, down) {
			t.Errorf("%s: got %v", alg, err)
		}
	}
}

func TestSignWithoutAKeyOfTheAlgorithm(t *testing.T) {
	for _, alg := range []string{"", "none", "HS256", "ES384"} {
		if token, err := testRing(t).Sign(alg, typAccess, testClaims, testNow); !errors.Is(err, ErrNoKey) || token != "" {
			t.Errorf("%q: got %q, %v", alg, token, err)
		}
	}
}

// FuzzVerify asks another library to agree with every token that is accepted.
func FuzzVerify(f *testing.F) {
	ring := testRing(f)
	for _, alg := range Algorithms() {
		token, err := ring.Sign(alg, typAccess, testClaims, testNow)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Add("..")
	document, _ := ring.JWKS()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(document, &set); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		claims, _, err := ring.Verify(token, typAccess)
		if err != nil {
			return
		}
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
		if err != nil {
			t.Fatalf("accepted what cannot be parsed: %v", err)
		}
		payload, err := jws.Verify(set)
		if err != nil || !bytes.Equal(payload, claims) {
			t.Fatalf("accepted what does not verify: %v", err)
		}
	})
}

func digest(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

var testNow = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
