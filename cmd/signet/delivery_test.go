package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// The operator sees what clients have not been told, page by page, and why.
func TestDeliveryList(t *testing.T) {
	p := newPlace(t)
	p.must("signet migrate up")
	store, err := sqlite.Open(t.Context(), filepath.Join(p.dir, "data", "signet.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	err = store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		for _, id := range []string{"a", "b"} {
			if err := tx.CreateDelivery(ctx, storage.Delivery{ID: id, Kind: "backchannel_logout", ClientID: "shop",
				Payload: `{"user_id":"somebody","sid":"there"}`, NextAttemptAt: at, CreatedAt: at}); err != nil {
				return err
			}
		}
		if _, err := tx.ClaimDeliveries(ctx, storage.DeliveryClaim{Now: at, Until: at.Add(time.Minute), Limit: 2}); err != nil {
			return err
		}
		return tx.RetryDelivery(ctx, "b", 1, time.Time{}, "outbound post: status 500")
	})
	if err != nil {
		t.Fatal(err)
	}
	all := decode[list[map[string]any]](p, "signet delivery list --json --limit 1")
	if len(all.Items) != 1 || all.Next == nil || *all.Next != "a" || all.Items[0]["state"] != "pending" || all.Items[0]["next_attempt_at"] != "2026-11-25T12:01:00Z" ||
		all.Items[0]["sub"] != "somebody" || all.Items[0]["sid"] != "there" {
		t.Errorf("%+v", all)
	}
	rest := decode[list[map[string]any]](p, "signet delivery list --json --after a")
	failed := decode[list[map[string]any]](p, "signet delivery list --json --failed")
	for _, l := range []list[map[string]any]{rest, failed} {
		if len(l.Items) != 1 || l.Next != nil || l.Items[0]["id"] != "b" || l.Items[0]["state"] != "failed" || l.Items[0]["client_id"] != "shop" ||
			l.Items[0]["last_error"] != "outbound post: status 500" || l.Items[0]["attempts"] != 1.0 || l.Items[0]["next_attempt_at"] != nil {
			t.Errorf("%+v", l)
		}
	}
	out, _, _ := p.run("signet delivery list")
	if !strings.Contains(out, "pending") || !strings.Contains(out, "failed") || !strings.Contains(out, "status 500") {
		t.Errorf("people see\n%s", out)
	}
}
