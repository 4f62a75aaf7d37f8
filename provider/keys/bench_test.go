package keys

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

// BenchmarkSign sets the price of a token beside that of its bare signature.
func BenchmarkSign(b *testing.B) {
	ring := testRing(b)
	for _, alg := range Algorithms() {
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ring.Sign(alg, typAccess, testClaims, testNow); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/raw", func(b *testing.B) {
			private := ring.signing(slot{PurposeToken, alg}, testNow).private
			digest := sha256.Sum256(testClaims)
			message, opts := digest[:], crypto.SignerOpts(crypto.SHA256)
			switch alg {
			case EdDSA:
				message, opts = testClaims, crypto.Hash(0)
			case PS256:
				opts = pssOptions()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := private.Sign(rand.Reader, message, opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	ring := testRing(b)
	for _, alg := range Algorithms() {
		token, err := ring.Sign(alg, typAccess, testClaims, testNow)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := ring.Verify(token, typAccess); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMAC(b *testing.B) {
	ring := testRing(b)
	b.ReportAllocs()
	for b.Loop() {
		ring.MAC(PurposeClientSecret, testClaims)
	}
}

// BenchmarkLoad is what a change of the registry costs, the reads apart.
func BenchmarkLoad(b *testing.B) {
	rows := testRows(b)
	b.ReportAllocs()
	for b.Loop() {
		rows.ring(b, testNow)
	}
}
