package verify_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/signet-oidc/signet/verify"
)

var algorithms = []string{"ES256", "RS256", "PS256", "EdDSA"}

// typical is a person's token as Signet issues it.
func typical(k signingKey) string {
	return k.token(
		set("sub", "0198f2f0-6a7c-7a60-9d5b-0d5c1d8e2f10"), set("client_id", "0198f2f0-6a7c-7a60-9d5b-0d5c1d8e2f11"),
		set("jti", "kD3tq0bC9mYQ1m4h8sVw6A"), set("grant_id", "0198f2f0-6a7c-7a60-9d5b-0d5c1d8e2f12"),
		set("sid", "0198f2f0-6a7c-7a60-9d5b-0d5c1d8e2f13"), set("acr", "urn:signet:acr:mfa"),
		set("amr", []string{"pwd", "otp"}), set("auth_time", epoch.Unix()-60), set("roles", []string{"clerk"}))
}

// BenchmarkRawSignature is the part of BenchmarkVerifyFresh nobody can save.
func BenchmarkRawSignature(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			key := newKey("k1", alg)
			h, p, s := parts(typical(key))
			signed := []byte(h + "." + p)
			signature, _ := base64.RawURLEncoding.DecodeString(s)
			der, _ := asn1.Marshal(struct{ R, S *big.Int }{
				new(big.Int).SetBytes(signature[:len(signature)/2]), new(big.Int).SetBytes(signature[len(signature)/2:]),
			})
			for b.Loop() {
				var ok bool
				switch digest := sha256.Sum256(signed); alg {
				case "ES256":
					ok = ecdsa.VerifyASN1(key.private.Public().(*ecdsa.PublicKey), digest[:], der)
				case "RS256":
					ok = rsa.VerifyPKCS1v15(key.private.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature) == nil
				case "PS256":
					ok = rsa.VerifyPSS(key.private.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature, nil) == nil
				case "EdDSA":
					ok = ed25519.Verify(key.private.Public().(ed25519.PublicKey), signed, signature)
				}
				if !ok {
					b.Fatal("wrong signature")
				}
			}
		})
	}
}

// BenchmarkVerifyFresh verifies a token as if it were seen for the first time.
func BenchmarkVerifyFresh(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			key := newKey("k1", alg)
			benchmarkVerify(b, newProvider(key).verifier(b, verify.WithCacheEntries(0)), typical(key))
		})
	}
}

// BenchmarkVerifyRepeated verifies a token again.
func BenchmarkVerifyRepeated(b *testing.B) {
	key := newKey("k1", "ES256")
	benchmarkVerify(b, newProvider(key).verifier(b), typical(key))
}

func benchmarkVerify(b *testing.B, v *verify.Verifier, token string) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), token); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMiddleware is a request with a token seen before and a scope.
func BenchmarkMiddleware(b *testing.B) {
	key := newKey("k1", "ES256")
	v := newProvider(key).verifier(b)
	h := v.Middleware(verify.RequireScope("orders:read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+typical(key))
	for _, name := range []string{"Accept", "Accept-Encoding", "User-Agent", "X-Request-Id", "X-Forwarded-For", "Traceparent"} {
		r.Header.Set(name, "x")
	}
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
	if w.Code != http.StatusOK {
		b.Fatal(w.Code)
	}
}
