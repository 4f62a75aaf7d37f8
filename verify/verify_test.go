package verify_test

import (
	"context"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
)

var sentinels = []error{
	verify.ErrMalformed, verify.ErrType, verify.ErrAlgorithm, verify.ErrUnknownKey, verify.ErrSignature,
	verify.ErrIssuer, verify.ErrAudience, verify.ErrSenderConstrained, verify.ErrExpired, verify.ErrNotYetValid,
	verify.ErrNotReady,
}

// refused checks that a token is refused for exactly one reason, the wanted one,
// and that the error carries nothing of it.
func refused(t *testing.T, v *verify.Verifier, token string, want error) {
	t.Helper()
	c, err := v.Verify(context.Background(), token)
	if c != nil {
		t.Error("claims came with a refused token")
	}
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) != (sentinel == want) {
			t.Fatalf("error is %v, want %v", err, want)
		}
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(err.Error(), part) {
			t.Errorf("the error repeats a part of the token")
		}
	}
}

func accepted(t *testing.T, v *verify.Verifier, token string) *verify.Claims {
	t.Helper()
	c, err := v.Verify(context.Background(), token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAcceptsEachAlgorithm(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256", "PS256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			key := newKey("k1", alg)
			v := newProvider(key).verifier(t)
			for range 2 { // fresh and repeated
				c := accepted(t, v, key.token())
				if c.Subject() != "alice" || c.Issuer() != issuer {
					t.Errorf("subject %q, issuer %q", c.Subject(), c.Issuer())
				}
			}
		})
	}
}

func TestHeader(t *testing.T) {
	key, rsaKey, p384 := newKey("k1", "ES256"), newKey("r1", "RS256"), newKey("p384", "ES384")
	p := newProvider(key, rsaKey)
	noAlg := strings.Replace(p384.jwk(), `"alg":"ES384",`, "", 1)
	p.publishRaw(key.jwk(), rsaKey.jwk(), noAlg)
	v := p.verifier(t)
	accepted(t, v, key.token())

	with := func(name string, value any) string { return key.sign(key.header().with(name, value).text(), claims()) }
	type row struct {
		name, token string
		want        error
	}
	var rows []row
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		header := b64(key.header().with("alg", alg).text()) + "." + b64(claims()) + "."
		rows = append(rows,
			row{fmt.Sprintf("V1 alg %q without signature", alg), header, verify.ErrAlgorithm},
			row{fmt.Sprintf("V1 alg %q with a right signature", alg), with("alg", alg), verify.ErrAlgorithm})
	}
	rows = append(rows, row{"V1 alg missing", with("alg", nil), verify.ErrAlgorithm})
	for name, secret := range publicForms(t, rsaKey) {
		for alg, h := range map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New} {
			signed := b64(rsaKey.header().with("alg", alg).text()) + "." + b64(claims())
			mac := hmac.New(h, secret)
			mac.Write([]byte(signed))
			rows = append(rows, row{"V2 " + alg + " keyed with the public key as " + name,
				signed + "." + b64(string(mac.Sum(nil))), verify.ErrAlgorithm})
		}
	}
	as := func(k signingKey, alg string) string {
		k.alg = alg // signs that way too
		return k.token()
	}
	rows = append(rows,
		row{"V3 PS256 with an RS256 key", as(rsaKey, "PS256"), verify.ErrSignature},
		row{"V3 ES256 said of an RSA key", rsaKey.sign(rsaKey.header().with("alg", "ES256").text(), claims()), verify.ErrSignature},
		row{"V3 RS256 said of a P-256 key", with("alg", "RS256"), verify.ErrSignature},
		row{"V3 ES256 said of a P-384 key", as(p384, "ES256"), verify.ErrUnknownKey},
		row{"V3 ES384", p384.token(), verify.ErrAlgorithm},
		row{"V3 alg in another case", with("alg", "es256"), verify.ErrAlgorithm},
		row{"V3 alg is a list", with("alg", []string{"ES256"}), verify.ErrMalformed},

		row{"V4 jwk", with("jwk", raw(newKey("k1", "ES256").jwk())), verify.ErrMalformed},
		row{"V4 jku", with("jku", "https://evil.example/jwks"), verify.ErrMalformed},
		row{"V4 x5u", with("x5u", "https://evil.example/x"), verify.ErrMalformed},
		row{"V4 x5c", with("x5c", []string{"MII"}), verify.ErrMalformed},
		row{"V4 x5t", with("x5t", "abc"), verify.ErrMalformed},
		row{"V4 x5t#S256", with("x5t#S256", "abc"), verify.ErrMalformed},

		row{"V5 kid is a path", with("kid", "../../../../dev/null"), verify.ErrUnknownKey},
		row{"V5 kid is SQL", with("kid", "' OR 1=1 --"), verify.ErrUnknownKey},
		row{"V5 kid in another case", with("kid", "K1"), verify.ErrUnknownKey},
		row{"V5 kid of 1 MiB", with("kid", strings.Repeat("k", 1<<20)), verify.ErrMalformed},
		row{"V5 kid is an array", with("kid", []string{"k1"}), verify.ErrMalformed},
		row{"V5 kid is null", with("kid", raw("null")), verify.ErrMalformed},
		row{"V5 kid is empty", with("kid", ""), verify.ErrMalformed},
		row{"V5 kid missing", with("kid", nil), verify.ErrUnknownKey},

		row{"V6 crit with an extension", with("crit", []string{"exp"}), verify.ErrMalformed},
		row{"V6 crit empty", with("crit", []string{}), verify.ErrMalformed},
		row{"V6 b64 false", with("b64", false), verify.ErrMalformed},
		row{"V6 b64 false and critical", key.sign(key.header().with("b64", false).with("crit", []string{"b64"}).text(), claims()), verify.ErrMalformed},

		row{"V7 typ missing", with("typ", nil), verify.ErrType},
		row{"V7 typ at+jwt with a space", with("typ", "at+jwt "), verify.ErrType},
		row{"V7 typ is a number", with("typ", 1), verify.ErrMalformed},

		row{"V13 duplicate alg", key.sign(`{"alg":"none","alg":"ES256","kid":"k1","typ":"at+jwt"}`, claims()), verify.ErrMalformed},
		row{"V13 duplicate alg, escaped", key.sign(`{"\u0061lg":"none","alg":"ES256","kid":"k1","typ":"at+jwt"}`, claims()), verify.ErrMalformed},
		row{"V19 nested token", with("cty", "JWT"), verify.ErrMalformed},
		row{"V19 compressed", with("zip", "DEF"), verify.ErrMalformed},
		row{"V19 enc in a JWS", with("enc", "A256GCM"), verify.ErrMalformed},
	)
	for _, typ := range []string{"JWT", "jwt", "logout+jwt", "dpop+jwt", "client-authentication+jwt", "statuslist+jwt", "secevent+jwt", "text/at+jwt", ""} {
		rows = append(rows, row{fmt.Sprintf("V7 typ %q", typ), with("typ", typ), verify.ErrType})
	}
	before := len(p.asked())
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { refused(t, v, r.token, r.want) })
	}
	for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+JWT"} {
		t.Run("V7 typ "+typ+" is right", func(t *testing.T) { accepted(t, v, with("typ", typ)) })
	}
	t.Run("unknown parameters are ignored", func(t *testing.T) { accepted(t, v, with("x-note", object{"a": 1})) })
	t.Run("V4 nothing but the key set was asked for", func(t *testing.T) {
		for _, path := range p.asked()[before:] {
			if path != "/jwks" {
				t.Errorf("outbound request to %s", path)
			}
		}
	})
}

// publicForms are the spellings of a public key an attacker might MAC with.
func publicForms(t *testing.T, k signingKey) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"DER": der,
		"JWK": []byte(k.jwk()),
		"n":   k.private.Public().(*rsa.PublicKey).N.Bytes(),
	}
}

func TestTokenWithoutKID(t *testing.T) {
	one, two := newKey("k1", "ES256"), newKey("k2", "ES256")
	token := one.sign(one.header().with("kid", nil).text(), claims())
	unnamed := one
	unnamed.kid = ""
	weak := `{"kty":"oct","kid":"w","k":"c2VjcmV0"}`
	rows := []struct {
		name string
		keys []string
		opts []verify.Option
		ok   bool
	}{
		{"V5 one key and the option", []string{one.jwk()}, []verify.Option{verify.WithSingleKeyWithoutKID()}, true},
		{"V5 one key without kid and the option", []string{unnamed.jwk()}, []verify.Option{verify.WithSingleKeyWithoutKID()}, true},
		{"V5 one key without kid, no option", []string{unnamed.jwk()}, nil, false},
		{"V5 one key, no option", []string{one.jwk()}, nil, false},
		{"V5 two keys and the option", []string{one.jwk(), two.jwk()}, []verify.Option{verify.WithSingleKeyWithoutKID()}, false},
		{"V5 one usable key of two and the option", []string{weak, one.jwk()}, []verify.Option{verify.WithSingleKeyWithoutKID()}, false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := newProvider()
			p.publishRaw(r.keys...)
			v := p.verifier(t, r.opts...)
			if r.ok {
				accepted(t, v, token)
			} else {
				refused(t, v, token, verify.ErrUnknownKey)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(t)
	now := epoch.Unix()
	many := func(n int, format string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(list, ",")
	}
	bad := verify.ErrMalformed
	rows := []struct {
		name string
		edit edit
		want error // nil: accepted
	}{
		{"V8 issuer is another", set("iss", "https://evil.example"), verify.ErrIssuer},
		{"V8 issuer with a trailing slash", set("iss", issuer+"/"), verify.ErrIssuer},
		{"V8 issuer in another case", set("iss", "https://ID.example"), verify.ErrIssuer},
		{"V8 issuer missing", set("iss", nil), verify.ErrIssuer},
		{"V8 issuer is a list", set("iss", []string{issuer}), bad},

		{"V9 audience is a list with ours", set("aud", []string{"https://a.example", audience}), nil},
		{"V9 audience is another", set("aud", "https://other.example"), verify.ErrAudience},
		{"V9 audience is a prefix", set("aud", audience[:len(audience)-1]), verify.ErrAudience},
		{"V9 audience has ours as prefix", set("aud", audience+"/x"), verify.ErrAudience},
		{"V9 audience is empty", set("aud", ""), verify.ErrAudience},
		{"V9 audience is an empty list", set("aud", []string{}), verify.ErrAudience},
		{"V9 audience is a number", set("aud", 7), bad},
		{"V9 audience is an object", set("aud", object{"0": audience}), bad},
		{"V9 audience is a list with a number", set("aud", []any{audience, 7}), bad},
		{"V9 audience is null", set("aud", raw("null")), bad},
		{"V9 audience missing", set("aud", nil), verify.ErrAudience},

		{"V11 exp missing", set("exp", nil), bad},
		{"V11 exp is a string", set("exp", "1900000000"), bad},
		{"V11 exp is a fraction", set("exp", raw("1900000000.5")), bad},
		{"V11 exp has an exponent", set("exp", raw("19e8")), bad},
		{"V11 exp is 1e400", set("exp", raw("1e400")), bad},
		{"V11 exp is negative", set("exp", -1), bad},
		{"V11 exp has a leading zero", set("exp", raw("01900000000")), bad},
		{"V11 exp beyond the year 9999", set("exp", raw("253402300800")), bad},
		{"V11 exp overflows", set("exp", raw("18446744073709551616")), bad},
		{"V11 exp is null", set("exp", raw("null")), bad},
		{"V11 expired within the skew", set("exp", now-29), nil},
		{"V11 expired by the skew", set("exp", now-30), verify.ErrExpired},

		{"V12 nbf ahead within the skew", set("nbf", now+30), nil},
		{"V12 nbf ahead past the skew", set("nbf", now+31), verify.ErrNotYetValid},
		{"V12 iat ahead within the skew", set("iat", now+30), nil},
		{"V12 iat ahead past the skew", set("iat", now+31), verify.ErrNotYetValid},
		{"V12 nbf is a string", set("nbf", "0"), bad},

		{"V15 nested 15 deep within the claims", set("x", raw(strings.Repeat("[", 15)+strings.Repeat("]", 15))), nil},
		{"V15 nested 16 deep within the claims", set("x", raw(strings.Repeat("[", 16)+strings.Repeat("]", 16))), bad},
		{"V15 nested 2,000 deep", set("x", raw(strings.Repeat(`[`, 2000)+strings.Repeat("]", 2000))), bad},
		{"V15 256 members in all", set("x", raw("{"+many(247, `"m%d":1`)+"}")), nil},
		{"V15 257 members in all", set("x", raw("{"+many(248, `"m%d":1`)+"}")), bad},
		{"V15 64 audiences", set("aud", raw(`["`+audience+`",`+many(63, `"a%d"`)+"]")), nil},
		{"V15 65 audiences", set("aud", raw(`["`+audience+`",`+many(64, `"a%d"`)+"]")), bad},

		{"V33 cnf.jkt", set("cnf", object{"jkt": "x"}), verify.ErrSenderConstrained},
		{"V33 cnf.x5t#S256", set("cnf", object{"x5t#S256": "x"}), verify.ErrSenderConstrained},
		{"V33 cnf empty", set("cnf", object{}), verify.ErrSenderConstrained},
		{"V33 cnf null", set("cnf", raw("null")), verify.ErrSenderConstrained},

		{"required: sub", set("sub", nil), bad},
		{"required: sub not empty", set("sub", ""), bad},
		{"required: client_id", set("client_id", nil), bad},
		{"required: jti", set("jti", nil), bad},
		{"required: iat", set("iat", nil), bad},
		{"scope is a list", set("scope", []string{"a"}), bad},
		{"roles is a string", set("roles", "admin"), bad},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			token := key.token(r.edit)
			start := time.Now()
			if r.want == nil {
				accepted(t, v, token)
				return
			}
			refused(t, v, token, r.want)
			if took := time.Since(start); strings.HasPrefix(r.name, "V15") && took > 50*time.Millisecond { // under 1 ms; the machine is shared
				t.Errorf("took %v", took)
			}
		})
	}
}

// Every token here is signed by the right key; only its form is wrong.
func TestForm(t *testing.T) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(t)
	header, good := key.header().text(), claims()
	token := key.token()
	h, p, s := parts(token)
	insert := func(s string) string { return good[:len(good)-1] + s + "}" }
	bad := verify.ErrMalformed
	rows := []struct {
		name, token string
		want        error
	}{
		{"V13 duplicate aud", key.sign(header, insert(`,"aud":"https://evil.example"`)), bad},
		{"V13 duplicate aud, escaped", key.sign(header, insert(`,"\u0061ud":"https://evil.example"`)), bad},
		{"V13 duplicate member inside", key.sign(header, insert(`,"x":[{"a":1,"b":2,"a":1}]`)), bad},
		{"V13 byte order mark", key.sign(header, "\ufeff"+good), bad},
		{"V13 trailing bytes", key.sign(header, good+"x"), bad},
		{"V13 second object", key.sign(header, good+good), bad},
		{"V13 trailing NUL", key.sign(header, good+"\x00"), bad},
		{"V13 invalid UTF-8", key.sign(header, insert(",\"x\":\"\xff\"")), bad},
		{"V13 overlong UTF-8", key.sign(header, insert(",\"x\":\"\xc0\x80\"")), bad},
		{"V13 raw NUL", key.sign(header, insert(",\"x\":\"\x00\"")), bad},
		{"V13 escaped NUL", key.sign(header, insert(`,"x":"\u0000"`)), bad},
		{"V13 lone surrogate", key.sign(header, insert(`,"x":"\ud800"`)), bad},
		{"V13 surrogates in the wrong order", key.sign(header, insert(`,"x":"\udc00\ud800"`)), bad},
		{"V13 unknown escape", key.sign(header, insert(`,"x":"\x41"`)), bad},
		{"V13 unfinished escape", key.sign(header, insert(`,"x":"\u12"`)), bad},
		{"V13 raw line break", key.sign(header, insert(",\"x\":\"a\nb\"")), bad},
		{"V13 trailing comma", key.sign(header, insert(",")), bad},
		{"V13 missing comma", key.sign(header, insert(`"x":1`)), bad},
		{"V13 comment", key.sign(header, insert("/* */")), bad},
		{"V13 number with a leading zero", key.sign(header, insert(`,"x":01`)), bad},
		{"V13 number without digits", key.sign(header, insert(`,"x":-`)), bad},
		{"V13 minus apart from its digits", key.sign(header, insert(`,"x":- 1`)), bad},
		{"V13 NaN", key.sign(header, insert(`,"x":NaN`)), bad},
		{"V13 cut off", key.sign(header, good[:len(good)-1]), bad},
		{"V13 payload is a list", key.sign(header, "["+good+"]"), bad},
		{"V13 payload is null", key.sign(header, "null"), bad},
		{"V13 payload is empty", key.sign(header, ""), bad},

		{"V14 longer than 8 KiB", key.token(set("x", strings.Repeat("x", 6<<10))), bad},
		{"V14 header longer than 1 KiB", key.sign(key.header().with("x", strings.Repeat("x", 1<<10)).text(), good), bad},
		{"V14 signature longer than 512 bytes", h + "." + p + "." + b64(strings.Repeat("x", 513)), bad},
		{"V14 empty", "", bad},
		{"V14 no dot", h, bad},
		{"V14 one dot", h + "." + p, bad},
		{"V14 three dots", token + ".", bad},
		{"V14 8,000 dots", strings.Repeat(".", 8000), bad},
		{"V14 100 MB", strings.Repeat("x", 100<<20), bad},

		{"V16 header padded", key.signParts(padded(header), p), bad},
		{"V16 payload padded", key.signParts(h, padded(good)), bad},
		{"V16 standard alphabet", key.signParts(h, strings.NewReplacer("-", "+", "_", "/").Replace(b64(insert(`,"x":"ÿ~~~ÿÿ>>>???"`)))), bad},
		{"V16 trailing bits set", key.signParts(h, trailingBits(good)), bad},
		{"V16 line break in the payload", key.signParts(h, p[:8]+"\n"+p[8:]), bad},
		{"V16 carriage return in the header", key.signParts(h[:8]+"\r"+h[8:], p), bad},
		{"V16 signature padded", token + "==", verify.ErrSignature},
		{"V16 signature with trailing bits", h + "." + p + "." + nextLetter(s), verify.ErrSignature},
		{"V16 signature with a line break", token + "\n", verify.ErrSignature},

		{"V19 JWE of five parts", h + ".a.b.c.d", bad},
		{"V19 JSON serialization", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, h, p, s), bad},
		{"V19 JSON serialization with dots", fmt.Sprintf(`{"protected":%q,"payload":%q.".signature":%q}`, h, p, s), bad},
		{"V19 token as the payload", key.sign(header, token), bad},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { refused(t, v, r.token, r.want) })
	}
	t.Run("escapes and white space are JSON", func(t *testing.T) {
		c := accepted(t, v, key.sign(header, " "+strings.Replace(insert(`,"acr":"\ud83d\ude00\n\/\u00e9" `), `"alice"`, `"\u0061lice"`, 1)+"\n"))
		if c.Subject() != "alice" || c.ACR() != "😀\n/é" {
			t.Errorf("sub %q, acr %q", c.Subject(), c.ACR())
		}
	})
	t.Run("V14 nothing is allocated in proportion", func(t *testing.T) {
		for _, token := range []string{strings.Repeat("x", 100<<20), h + "." + strings.Repeat("x", 100<<20) + "." + s, strings.Repeat(".", 8000), b64(strings.Repeat("x", 2<<10)) + ".." + s} {
			const runs = 100
			before := allocated()
			for range runs {
				verdict(v, token)
			}
			if perRun := (allocated() - before) / runs; perRun > 512 {
				t.Errorf("%d bytes allocated for a token of %d", perRun, len(token))
			}
		}
	})
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func parts(token string) (header, payload, signature string) {
	list := strings.Split(token, ".")
	return list[0], list[1], list[2]
}

// trailingBits encodes payload so that its last letter carries unused bits, and
// sets one.
func trailingBits(payload string) string {
	for len(payload)%3 == 0 {
		payload += " "
	}
	return nextLetter(b64(payload))
}

// padded encodes text, made long enough to need it, with padding.
func padded(text string) string {
	for len(text)%3 == 0 {
		text += " "
	}
	return base64.URLEncoding.EncodeToString([]byte(text))
}

func nextLetter(s string) string { return s[:len(s)-1] + string(s[len(s)-1]+1) }

func TestECDSASignature(t *testing.T) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(t)
	token := key.token()
	h, p, s := parts(token)
	good, _ := base64.RawURLEncoding.DecodeString(s)
	zero, n := make([]byte, 32), elliptic.P256().Params().N
	rPlusN := func() []byte { // the same point, if r is reduced first
		r := new(big.Int).SetBytes(good[:32])
		return append(r.Add(r, n).FillBytes(make([]byte, 33)), good[32:]...)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(good[:32]), new(big.Int).SetBytes(good[32:])})
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name      string
		signature []byte
	}{
		{"V17 r and s zero", make([]byte, 64)},
		{"V17 r zero", append(zero[:32:32], good[32:]...)},
		{"V17 s zero", append(good[:32:32], zero...)},
		{"V17 r is the order", append(n.FillBytes(make([]byte, 32)), good[32:]...)},
		{"V17 s is the order", append(good[:32:32], n.FillBytes(make([]byte, 32))...)},
		{"V17 r plus the order", rPlusN()},
		{"V17 all ones", []byte(strings.Repeat("\xff", 64))},
		{"V17 63 bytes", good[:63]},
		{"V17 65 bytes", append(good[:64:64], 0)},
		{"V17 r of 33 bytes", append(zero[:1:1], good...)},
		{"V17 s of 33 bytes", append(append(good[:32:32], 0), good[32:]...)},
		{"V17 DER", der},
		{"V17 one byte", []byte{0}},
		{"V17 another message's", key.rawSignature("other")},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			refused(t, v, h+"."+p+"."+b64(string(r.signature)), verify.ErrSignature)
		})
	}
	t.Run("V17 empty", func(t *testing.T) { refused(t, v, h+"."+p+".", verify.ErrSignature) })
	t.Run("right ones of every length of r and s", func(t *testing.T) {
		short := 0
		for i := 0; i < 2000 && short < 3; i++ {
			token := key.token(set("jti", fmt.Sprint(i)))
			_, _, s := parts(token)
			sig, _ := base64.RawURLEncoding.DecodeString(s)
			if sig[0] == 0 || sig[32] == 0 {
				short++
			}
			accepted(t, v, token)
		}
	})
}

func TestSignatureBeforeEverythingElse(t *testing.T) {
	key := newKey("k1", "ES256")
	stranger := newKey("k1", "ES256")
	v := newProvider(key).verifier(t)
	rows := []struct {
		name string
		edit edit
	}{
		{"V20 bad signature and expired", set("exp", 1)},
		{"V20 bad signature and other issuer", set("iss", "https://evil.example")},
		{"V20 bad signature and other audience", set("aud", "x")},
		{"V20 bad signature and broken claims", set("exp", "x")},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { refused(t, v, stranger.token(r.edit), verify.ErrSignature) })
	}
	t.Run("V20 payload exchanged after signing", func(t *testing.T) {
		h, _, s := parts(key.token())
		refused(t, v, h+"."+b64(claims(set("sub", "root")))+"."+s, verify.ErrSignature)
	})
}

func TestTwoIssuers(t *testing.T) {
	a, b := newKey("ka", "ES256"), newKey("kb", "ES256")
	pa, pb := newProvider(a), newProvider(b)
	pb.issuer = "https://other.example"
	va, vb := pa.verifier(t), pb.verifier(t)
	fromB := set("iss", pb.issuer)
	accepted(t, va, a.token())
	accepted(t, vb, b.token(fromB))

	borrowed := a
	borrowed.kid = b.kid
	rows := []struct {
		name  string
		v     *verify.Verifier
		token string
		want  error
	}{
		{"V35 A's token with the kid of B's key, at B", vb, borrowed.token(), verify.ErrSignature},
		{"V35 A's token with the kid of B's key, at A", va, borrowed.token(), verify.ErrUnknownKey},
		{"V35 A's key signs as B, at B", vb, a.token(fromB), verify.ErrUnknownKey},
		{"V35 A's key signs as B, at A", va, a.token(fromB), verify.ErrIssuer},
		{"V35 B's key signs as A, at B", vb, b.token(), verify.ErrIssuer},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { refused(t, r.v, r.token, r.want) })
	}
}

func TestNewRefuses(t *testing.T) {
	rows := []struct {
		name, issuer, audience string
		opts                   []verify.Option
	}{
		{"V10 no issuer", "", audience, nil},
		{"V10 no audience", issuer, "", nil},
		{"V10 issuer without a scheme", "id.example", audience, nil},
		{"V10 issuer without a host", "https://", audience, nil},
		{"V10 issuer over http", "http://id.example", audience, nil},
		{"V10 issuer over http at a name that looks like loopback", "http://127.0.0.1.example", audience, nil},
		{"V10 issuer over ftp", "ftp://id.example", audience, nil},
		{"V10 issuer with userinfo", "https://a@id.example", audience, nil},
		{"V10 issuer with a query", issuer + "?a", audience, nil},
		{"V10 issuer with a fragment", issuer + "#a", audience, nil},
		{"V11 skew over 60 s", issuer, audience, []verify.Option{verify.WithSkew(61 * time.Second)}},
		{"V11 negative skew", issuer, audience, []verify.Option{verify.WithSkew(-1)}},
		{"V1 algorithm none", issuer, audience, []verify.Option{verify.WithAlgorithms("ES256", "none")}},
		{"V2 algorithm HS256", issuer, audience, []verify.Option{verify.WithAlgorithms("HS256")}},
		{"no algorithm", issuer, audience, []verify.Option{verify.WithAlgorithms()}},
		{"V29 key set over http", issuer, audience, []verify.Option{verify.WithJWKSURI("http://id.example/jwks")}},
		{"resource metadata is no URL", issuer, audience, []verify.Option{verify.WithResourceMetadata("x")}},
		{"first scope with a quote", issuer, audience, []verify.Option{verify.WithFirstScope(`a", realm="b`)}},
		{"first scope is two", issuer, audience, []verify.Option{verify.WithFirstScope("a b")}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if v, err := verify.New(t.Context(), r.issuer, r.audience, r.opts...); err == nil || v != nil {
				t.Fatal("accepted")
			}
		})
	}
}

func TestWithAlgorithms(t *testing.T) {
	es, rs := newKey("e", "ES256"), newKey("r", "RS256")
	v := newProvider(es, rs).verifier(t, verify.WithAlgorithms("ES256"))
	accepted(t, v, es.token())
	refused(t, v, rs.token(), verify.ErrAlgorithm)
}

func TestWithSkew(t *testing.T) {
	key := newKey("e", "ES256")
	v := newProvider(key).verifier(t, verify.WithSkew(0))
	accepted(t, v, key.token(set("exp", epoch.Unix()+1)))
	refused(t, v, key.token(set("exp", epoch.Unix())), verify.ErrExpired)
}

func TestClaimsAccessors(t *testing.T) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(t)
	token := key.token(
		set("aud", []string{audience, issuer}), set("scope", "orders:read  openid"), set("roles", []string{"clerk", "buyer"}),
		set("grant_id", "g1"), set("sid", "s1"), set("acr", "mfa"), set("amr", []string{"pwd", "otp"}),
		set("auth_time", epoch.Add(-time.Minute).Unix()), set("tenant", "north"), set("Tenant", "south"))
	c := accepted(t, v, token)
	got := []any{c.Issuer(), c.Subject(), c.ClientID(), c.Audience(), c.Scopes(), c.Roles(), c.ID(), c.GrantID(),
		c.SessionID(), c.ACR(), c.AMR(), c.AuthTime(), c.IssuedAt(), c.ExpiresAt()}
	want := []any{issuer, "alice", "shop", []string{audience, issuer}, []string{"orders:read", "openid"}, []string{"clerk", "buyer"},
		"t1", "g1", "s1", "mfa", []string{"pwd", "otp"}, epoch.Add(-time.Minute), epoch, epoch.Add(10 * time.Minute)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if !c.HasRole("clerk") || c.HasRole("cler") || !c.HasScope("openid") || c.HasScope("") {
		t.Error("HasRole or HasScope is not exact")
	}
	var more struct {
		Tenant string `json:"Tenant"`
	}
	if err := c.Decode(&more); err != nil || more.Tenant != "south" {
		t.Errorf("Decode: %+v, %v", more, err)
	}
	if err := c.Decode(new(int)); err == nil {
		t.Error("Decode into an int")
	}
	t.Run("V39 immutable", func(t *testing.T) {
		c.Scopes()[0], c.Roles()[0], c.Audience()[0], c.AMR()[0] = "admin", "admin", "admin", "admin"
		again := accepted(t, v, token)
		if again.HasScope("admin") || again.HasRole("admin") || again.Audience()[0] == "admin" || again.AMR()[0] == "admin" {
			t.Error("a caller changed the claims of the next")
		}
	})
	if at := accepted(t, v, key.token()).AuthTime(); !at.IsZero() {
		t.Errorf("auth_time of nobody is %v", at)
	}
	t.Run("V32 no name or address is offered as identity", func(t *testing.T) {
		for m := range reflect.TypeFor[*verify.Claims]().Methods() {
			if name := strings.ToLower(m.Name); strings.Contains(name, "mail") || strings.Contains(name, "name") {
				t.Errorf("method %s", m.Name)
			}
		}
	})
}

// A service that imports verify builds the standard library and go-jose only; its
// tests, with verifytest, packages below verify besides.
func TestDependencies(t *testing.T) {
	const self, jose = "github.com/signet-oidc/signet/verify", "github.com/go-jose/go-jose/v4"
	for pkg, mine := range map[string][]string{self: {self}, self + "/verifytest": {self, self + "/verifytest", self + "/internal/feedtest"}} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			if !slices.Contains(mine, dep) && dep != jose && !strings.HasPrefix(dep, jose+"/") {
				t.Errorf("%s depends on %s", pkg, dep)
			}
		}
	}
}
