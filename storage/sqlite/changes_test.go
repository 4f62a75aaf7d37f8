package sqlite_test

import (
	"context"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// What another process appends is announced as well: commands work beside a
// server on the same file.
func TestChangesOfOthers(t *testing.T) {
	path := migrated(t)
	here, there := open(t, path), open(t, path)
	changes := here.Changes(t.Context())
	for range 2 {
		err := there.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.AppendRevocation(ctx, storage.Revocation{Key: storage.RevocationKey{Kind: "jti", Hash: []byte("h")}, Effect: "block"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-changes:
		case <-time.After(time.Minute):
			t.Fatal("what another process appended is not announced")
		}
	}
}
