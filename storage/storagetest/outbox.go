package storagetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func testDelivery(id, client string) storage.Delivery {
	return storage.Delivery{ID: id, Kind: "backchannel_logout", ClientID: client, Payload: `{"sid":"s 1"}`, NextAttemptAt: noon, CreatedAt: noon}
}

func createDelivery(t *testing.T, s storage.Store, deliveries ...storage.Delivery) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		for _, d := range deliveries {
			if err := tx.CreateDelivery(ctx, d); err != nil {
				return err
			}
		}
		return nil
	})
}

// claim returns what was claimed, by id.
func claim(t *testing.T, s storage.Store, c storage.DeliveryClaim) []storage.Delivery {
	t.Helper()
	var list []storage.Delivery
	update(t, s, func(ctx context.Context, tx storage.Tx) (err error) {
		list, err = tx.ClaimDeliveries(ctx, c)
		return err
	})
	slices.SortFunc(list, func(a, b storage.Delivery) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func testOutbox(t *testing.T, s storage.Store) {
	ctx := t.Context()
	createClient(t, s, testClient("c1"))
	early, late, other := testDelivery("d2", "c1"), testDelivery("d1", "c1"), testDelivery("d3", "c2")
	early.NextAttemptAt, late.NextAttemptAt, other.CreatedAt = noon.Add(-time.Second), noon.Add(time.Hour), noon.Add(-time.Minute)
	createDelivery(t, s, early, late, other)
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateDelivery(ctx, early) })
	list, err := s.Deliveries(ctx, storage.DeliveryFilter{Page: all("")})
	same(t, "all", list, err, []storage.Delivery{late, early, other})
	list, err = s.Deliveries(ctx, storage.DeliveryFilter{Page: storage.Page{After: "d1", Limit: 1}})
	same(t, "a page", list, err, []storage.Delivery{early})
	backlog, err := s.Backlog(ctx)
	same(t, "backlog", backlog, err, storage.Backlog{Pending: 3, Oldest: other.CreatedAt})

	// What is due is claimed, the first due first, and not again until its time.
	for at, want := range map[time.Time]bool{noon.Add(-time.Second): true, noon.Add(-2 * time.Second): false} {
		due, err := s.DeliveryDue(ctx, at)
		same(t, "due", due, err, want)
	}
	until := noon.Add(time.Minute)
	same(t, "except", claim(t, s, storage.DeliveryClaim{Now: noon, Until: until, Limit: 9, Except: []string{"c1", "c2"}}), nil, nil)
	early.Attempts, early.NextAttemptAt = 1, until
	same(t, "the first", claim(t, s, storage.DeliveryClaim{Now: noon, Until: until, Limit: 1, Except: []string{"c3"}}), nil, []storage.Delivery{early})
	other.Attempts, other.NextAttemptAt = 1, until
	same(t, "the rest", claim(t, s, storage.DeliveryClaim{Now: noon, Until: until, Limit: 9}), nil, []storage.Delivery{other})
	same(t, "none", claim(t, s, storage.DeliveryClaim{Now: until.Add(-time.Millisecond), Until: until, Limit: 9}), nil, nil)
	due, err := s.DeliveryDue(ctx, until.Add(-time.Millisecond))
	same(t, "due", due, err, false)

	// An attempt that has been overtaken by another says nothing.
	early.Attempts, early.NextAttemptAt = 2, until.Add(time.Minute)
	same(t, "again", claim(t, s, storage.DeliveryClaim{Now: until, Until: early.NextAttemptAt, Limit: 9, Except: []string{"c2"}}), nil, []storage.Delivery{early})
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.RetryDelivery(ctx, "d2", 1, noon, "late") })
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return tx.RetryDelivery(ctx, "d3", 1, time.Time{}, "status 500")
	})
	other.NextAttemptAt, other.LastError = time.Time{}, "status 500"
	list, err = s.Deliveries(ctx, storage.DeliveryFilter{Page: all("")})
	same(t, "all", list, err, []storage.Delivery{late, early, other})
	list, err = s.Deliveries(ctx, storage.DeliveryFilter{Failed: true, Page: all("")})
	same(t, "failed", list, err, []storage.Delivery{other})
	backlog, err = s.Backlog(ctx)
	same(t, "backlog", backlog, err, storage.Backlog{Pending: 2, Failed: 1, Oldest: noon})
	same(t, "failed ones", claim(t, s, storage.DeliveryClaim{Now: noon.Add(30 * time.Minute), Until: until, Limit: 9, Except: []string{"c1"}}), nil, nil)

	// Failed ones go after a while, all with their client.
	end := other.CreatedAt.Add(storage.DeliveryMemory)
	for _, step := range []struct {
		at   time.Time
		want []storage.Delivery
	}{{end.Add(-time.Millisecond), []storage.Delivery{late, early, other}}, {end, []storage.Delivery{late, early}}} {
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PruneExpired(ctx, step.at, 10)
			return err
		})
		list, err = s.Deliveries(ctx, storage.DeliveryFilter{Page: all("")})
		same(t, "left at "+step.at.String(), list, err, step.want)
	}
	createDelivery(t, s, testDelivery("d4", "c2"))
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteClient(ctx, "c1") })
	list, err = s.Deliveries(ctx, storage.DeliveryFilter{Page: all("")})
	same(t, "left without the client", list, err, []storage.Delivery{testDelivery("d4", "c2")})
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteDelivery(ctx, "d4") })
	backlog, err = s.Backlog(ctx)
	same(t, "backlog", backlog, err, storage.Backlog{})
}

func testLogoutTargets(t *testing.T, s storage.Store) {
	both, back, front, none, disabled := testClient("both"), testClient("back"), testClient("front"), testClient("none"), testClient("off")
	back.FrontChannelLogoutURI, front.BackChannelLogoutURI, disabled.Enabled = "", "", false
	none.BackChannelLogoutURI, none.FrontChannelLogoutURI = "", ""
	for _, c := range []storage.Client{both, back, front, none, disabled} {
		createClient(t, s, c)
	}
	for i, g := range []struct {
		client, session, user string
		scopes                []string
		offline               bool
	}{
		{"both", "s1", "u1", []string{"openid"}, false},
		{"both", "s1", "u1", []string{"openid", "orders:read"}, false},
		{"both", "s2", "u1", []string{"orders:read", "openid"}, true},
		{"both", "pairwise", "u1", []string{"openid"}, false},
		{"back", "s2", "u1", []string{"openid"}, false},
		{"front", "s1", "u1", []string{"openid"}, false},
		{"back", "s1", "u1", []string{"orders:read", "openid2"}, false},
		{"back", "s1", "u2", []string{"openid"}, false},
		{"none", "s1", "u1", []string{"openid"}, false},
		{"off", "s1", "u1", []string{"openid"}, false},
		{"back", "revoked", "u1", []string{"openid"}, false},
	} {
		v := testGrant(fmt.Sprintf("g%d", i), g.user, g.client)
		v.SessionID, v.Scopes, v.Offline = g.session, g.scopes, g.offline
		if g.session == "pairwise" {
			v.Subject, v.SID = "_sub", "_sid"
		}
		createGrant(t, s, v)
		if g.session == "revoked" {
			if _, err := revoke(t, s, v.ID, "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := s.LogoutTargets(t.Context(), "u1")
	same(t, "targets", list, err, []storage.LogoutTarget{
		{ClientID: "back", SessionID: "s2", BackChannel: true},
		{ClientID: "both", SessionID: "pairwise", Subject: "_sub", SID: "_sid", BackChannel: true, FrontChannel: true},
		{ClientID: "both", SessionID: "s1", BackChannel: true, FrontChannel: true},
		{ClientID: "both", SessionID: "s2", BackChannel: true, FrontChannel: true},
		{ClientID: "front", SessionID: "s1", FrontChannel: true},
	})
}

// Each delivery is claimed once, however many look for some at once.
func raceClaimDeliveries(t *testing.T, s storage.Store) {
	const each = 2
	for i := range racers * each {
		createDelivery(t, s, testDelivery(fmt.Sprintf("d%03d", i), "c"))
	}
	claimed := make([][]storage.Delivery, racers)
	noErrors(t, race(func(i int) error {
		for range 2 {
			var list []storage.Delivery
			err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) (err error) {
				list, err = tx.ClaimDeliveries(ctx, storage.DeliveryClaim{Now: noon, Until: noon.Add(time.Hour), Limit: each})
				return err
			})
			if err != nil {
				return err
			}
			claimed[i] = append(claimed[i], list...)
		}
		return nil
	}))
	times := make(map[string]int)
	for _, list := range claimed {
		for _, d := range list {
			if times[d.ID]++; times[d.ID] > 1 || d.Attempts != 1 {
				t.Errorf("%s was claimed %d times", d.ID, times[d.ID])
			}
		}
	}
	if len(times) == 0 {
		t.Error("nobody claimed any")
	}
}
