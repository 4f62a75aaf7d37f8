package postgres_test

import (
	"fmt"
	"testing"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// durable opens a database on a server whose commits wait for the disk.
func durable(b *testing.B) storage.Store {
	b.Helper()
	_, address := ownServer(b)
	s, err := postgres.Open(b.Context(), address, postgres.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func BenchmarkUpdate(b *testing.B) {
	s := durable(b)
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d at once", n), func(b *testing.B) { storagetest.BenchmarkUpdate(b, s, n) })
	}
}

func BenchmarkRevocations(b *testing.B) { storagetest.BenchmarkRevocations(b, durable(b)) }
