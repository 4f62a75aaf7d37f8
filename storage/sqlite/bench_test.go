package sqlite_test

import (
	"fmt"
	"testing"

	"github.com/signet-oidc/signet/storage/storagetest"
)

// Updates side by side share commits: time per update falls as they become more.
func BenchmarkUpdate(b *testing.B) {
	s := open(b, migrated(b))
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d at once", n), func(b *testing.B) {
			storagetest.BenchmarkUpdate(b, s, n)
		})
	}
}

func BenchmarkRevocations(b *testing.B) {
	storagetest.BenchmarkRevocations(b, open(b, migrated(b)))
}
