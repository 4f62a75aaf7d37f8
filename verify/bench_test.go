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
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/internal/feedtest"
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

// rawCheck is the part of verifying a token that nobody can save.
func rawCheck(key signingKey, token string) func() bool {
	h, p, s := parts(token)
	signed := []byte(h + "." + p)
	signature, _ := base64.RawURLEncoding.DecodeString(s)
	half := len(signature) / 2
	der, _ := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
	return func() bool {
		switch public := key.private.Public().(type) {
		case ed25519.PublicKey:
			return ed25519.Verify(public, signed, signature)
		case *ecdsa.PublicKey:
			digest := sha256.Sum256(signed)
			return ecdsa.VerifyASN1(public, digest[:], der)
		case *rsa.PublicKey:
			digest := sha256.Sum256(signed)
			if key.alg == "PS256" {
				return rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, nil) == nil
			}
			return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
		}
		return false
	}
}

func BenchmarkRawSignature(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			key := newKey("k1", alg)
			raw := rawCheck(key, typical(key))
			for b.Loop() {
				if !raw() {
					b.Fatal("wrong signature")
				}
			}
		})
	}
}

// BenchmarkFreshOverRaw compares BenchmarkVerifyFresh with BenchmarkRawSignature
// in turns, by the quickest of each, so that a busy machine disturbs it less.
func BenchmarkFreshOverRaw(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			key := newKey("k1", alg)
			token := typical(key)
			raw, v := rawCheck(key, token), newProvider(key).verifier(b, verify.WithCacheEntries(0))
			quickest := func(least time.Duration, f func() bool) time.Duration {
				start := time.Now()
				if !f() {
					b.Fatal("refused")
				}
				return min(least, time.Since(start))
			}
			rawTime, freshTime := time.Hour, time.Hour
			for b.Loop() {
				rawTime = quickest(rawTime, raw)
				freshTime = quickest(freshTime, func() bool { return verdict(v, token) == nil })
			}
			b.ReportMetric(float64(freshTime)/float64(rawTime), "fresh/raw")
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

// BenchmarkVerifyFollowing is the two before with a feed that is followed.
func BenchmarkVerifyFollowing(b *testing.B) {
	for _, n := range []int{1, 1_000_000} {
		for name, entries := range map[string]int{"fresh": 0, "repeated": 4096} {
			b.Run(fmt.Sprintf("%s, %d entries", name, n), func(b *testing.B) {
				key, feedKey := newKey("k1", "ES256"), newKey("f1", "ES256")
				p := newProvider(key, feedKey)
				p.feed = feedtest.New(issuer, "F1", feedKey.jose())
				p.feed.Block("sub", "somebody", 0)
				snapshot := bigSnapshot(p.feed, n)
				p.feed.Intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if strings.HasSuffix(r.URL.Path, "/snapshot") {
						_, _ = w.Write(snapshot())
						return true
					}
					return false
				}
				v := p.verifier(b, verify.WithCacheEntries(entries))
				for v.Revocation().Entries != n {
					time.Sleep(time.Millisecond)
				}
				benchmarkVerify(b, v, typical(key))
			})
		}
	}
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
