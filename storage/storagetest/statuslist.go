package storagetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// Which grants a status list has to call invalid.
func testStatusIndexes(t *testing.T, s storage.Store) {
	for _, id := range []string{"1", "2"} {
		createUser(t, s, testUser("u"+id, "u"+id))
		createClient(t, s, testClient("c"+id))
	}
	indexes := map[string]int64{"revoked": 1, "old": 2, "live": 3, "of the disabled user": 4, "of the disabled client": 1 << 20}
	for id, index := range indexes {
		g := testGrant(id, "u1", "c1")
		g.StatusIndex = index
		if id == "of the disabled user" {
			g.UserID = "u2"
		}
		if id == "of the disabled client" {
			g.ClientID = "c2"
		}
		createGrant(t, s, g)
	}
	createGrant(t, s, testGrant("without", "u1", "c1"))
	since := noon.Add(-20 * time.Minute)
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		for id, at := range map[string]time.Time{"revoked": since.Add(time.Millisecond), "old": since, "without": noon} {
			if _, err := tx.RevokeGrant(ctx, id, at, "test"); err != nil {
				return err
			}
		}
		if err := tx.SetUserEnabled(ctx, "u2", false, noon); err != nil {
			return err
		}
		c := testClient("c2")
		c.Enabled = false
		return tx.UpdateClient(ctx, c)
	})
	invalid := func(now time.Time) (list []int64) {
		t.Helper()
		err := s.EachInvalidStatus(t.Context(), since, now, func(index int64) error {
			list = append(list, index)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(list)
		return list
	}
	if got, want := invalid(noon), []int64{1, 4, 1 << 20}; !slices.Equal(got, want) {
		t.Errorf("invalid: %v, want %v", got, want)
	}
	if got, want := invalid(noon.Add(time.Minute)), []int64{1}; !slices.Equal(got, want) {
		t.Errorf("when the codes have ended: %v, want %v", got, want)
	}
	wantErr(t, s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		g := testGrant("another", "u1", "c1")
		g.StatusIndex = 3
		return tx.CreateGrant(ctx, g)
	}), storage.ErrExists)
}

// No index is handed out twice.
func raceStatusIndexes(t *testing.T, s storage.Store) {
	var mu sync.Mutex
	taken := make(map[int64]bool)
	noErrors(t, race(func(i int) error {
		var first int64
		n := 1 + i%3
		err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) (err error) {
			first, err = tx.TakeStatusIndexes(ctx, n)
			return err
		})
		mu.Lock()
		defer mu.Unlock()
		for index := first; index < first+int64(n); index++ {
			if taken[index] || index < 1 {
				t.Errorf("index %d was taken before, or is none", index)
			}
			taken[index] = true
		}
		return err
	}))
	if next, err := s.NextStatusIndex(t.Context()); err != nil || next != int64(len(taken))+1 {
		t.Errorf("next is %d after %d, %v", next, len(taken), err)
	}
}
