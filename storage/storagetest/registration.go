package storagetest

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func testOneTimes(t *testing.T, s storage.Store) {
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		var fault error
		for key, expires := range map[string]time.Time{"a": noon.Add(time.Hour), "b": noon.Add(time.Minute), "c": {}, "\x00": noon.Add(time.Hour), "\xff": noon.Add(time.Hour)} {
			fault = errors.Join(fault, tx.UseOnce(ctx, storage.OneTime{Kind: "token", KeyHash: []byte(key), Data: "data", CreatedAt: noon, ExpiresAt: expires}, noon))
		}
		return errors.Join(fault, tx.UseOnce(ctx, storage.OneTime{Kind: "jti", KeyHash: []byte("d"), CreatedAt: noon}, noon))
	})
	for _, step := range []struct {
		name, after string
		limit       int
		now         time.Time
		want        []string
	}{
		{"all", "", 10, noon, []string{"\x00", "a", "b", "c", "\xff"}},
		{"some", "", 2, noon, []string{"\x00", "a"}},
		{"more", "a", 2, noon, []string{"b", "c"}},
		{"none that have ended", "\x00", 10, noon.Add(time.Minute), []string{"a", "c", "\xff"}},
		{"after the last", "\xff", 10, noon, nil},
	} {
		values, err := s.OneTimes(t.Context(), "token", []byte(step.after), step.limit, step.now)
		var got []string
		for _, v := range values {
			got = append(got, string(v.KeyHash))
		}
		same(t, step.name, got, err, step.want)
	}
	values, err := s.OneTimes(t.Context(), "token", nil, 2, noon.Add(time.Minute))
	same(t, "whole", values[1], err, storage.OneTime{Kind: "token", KeyHash: []byte("a"), Data: "data", CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)})
}

func testPruneAudit(t *testing.T, s storage.Store) {
	update(t, s, func(ctx context.Context, tx storage.Tx) (fault error) {
		for i := range 5 {
			fault = errors.Join(fault, tx.AppendAudit(ctx, storage.AuditEvent{ID: strconv.Itoa(i), At: noon.Add(time.Duration(i) * time.Minute), Event: "e"}))
		}
		return fault
	})
	for i, want := range []int{2, 1, 0} {
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			n, err := tx.PruneAudit(ctx, noon.Add(2*time.Minute), 2)
			same(t, "round "+strconv.Itoa(i), n, err, want)
			return err
		})
	}
	events, err := s.AuditEvents(t.Context(), storage.AuditFilter{Limit: 10})
	var left []string
	for _, e := range events {
		left = append(left, e.ID)
	}
	same(t, "events left", left, err, []string{"4", "3"})
}

func testVoidRegistrations(t *testing.T, s storage.Store) {
	for id, origin := range map[string]string{"a": "registration", "b": "registration", "c": "another"} {
		c := testClient(id)
		c.Origin, c.RegistrationTokenHash = origin, []byte("hash of "+id)
		createClient(t, s, c)
	}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.LockRegistry(ctx), tx.VoidRegistrations(ctx, "registration"))
	})
	for id, left := range map[string]int{"a": 0, "b": 0, "c": 9} {
		c, err := s.Client(t.Context(), id)
		same(t, id, len(c.RegistrationTokenHash), err, left)
	}
}

func testUnusedClients(t *testing.T, s storage.Store) {
	day := 24 * time.Hour
	createUser(t, s, testUser("u1", "ada"))
	for id, c := range map[string]struct {
		origin        string
		created, used time.Time
		grant         string // "": none
	}{
		"1 operator's":         {"operator", noon, time.Time{}, ""},
		"2 never used":         {"registration", noon, time.Time{}, ""},
		"3 new":                {"registration", noon.Add(3 * day), time.Time{}, ""},
		"4 used long ago":      {"registration", noon, noon.Add(day), ""},
		"5 used lately":        {"registration", noon, noon.Add(3 * day), ""},
		"6 used long ago, yet": {"registration", noon, noon.Add(day), "live"},
		"7 withdrawn":          {"registration", noon, noon.Add(day), "revoked"},
		"8 acts for itself":    {"registration", noon, time.Time{}, ""},
		"9 disabled":           {"registration", noon, time.Time{}, ""},
	} {
		client := testClient(id)
		client.Origin, client.CreatedAt, client.LastUsedAt = c.origin, c.created, c.used
		client.GrantTypes = []string{"authorization_code", "refresh_token"}
		if id == "8 acts for itself" {
			client.GrantTypes = append(client.GrantTypes, "client_credentials")
		}
		client.Enabled = id != "9 disabled"
		createClient(t, s, client)
		if c.grant == "" {
			continue
		}
		createGrant(t, s, testGrant(id, "u1", id))
		if c.grant == "revoked" {
			update(t, s, func(ctx context.Context, tx storage.Tx) error {
				_, err := tx.RevokeGrant(ctx, id, noon, "test")
				return err
			})
		}
	}
	n, err := s.CountClients(t.Context(), "registration")
	same(t, "registered clients", n, err, 8)
	ids, err := s.UnusedClients(t.Context(), "registration", noon.Add(2*day), noon.Add(2*day), 10)
	same(t, "unused clients", ids, err, []string{"2 never used", "4 used long ago", "7 withdrawn"})
	ids, err = s.UnusedClients(t.Context(), "registration", noon.Add(2*day), noon.Add(2*day), 1)
	same(t, "the first of them", ids, err, []string{"2 never used"})

	touch := func(at, unless time.Time) time.Time {
		t.Helper()
		version, err := s.RegistryVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.TouchClient(ctx, "2 never used", at, unless) })
		after, err := s.RegistryVersion(t.Context())
		same(t, "registry version", after, err, version)
		c, err := s.Client(t.Context(), "2 never used")
		if err != nil {
			t.Fatal(err)
		}
		return c.LastUsedAt
	}
	if got := touch(noon, time.Time{}); !got.Equal(noon) {
		t.Errorf("used first at %v", got)
	}
	if got := touch(noon.Add(day), noon.Add(-time.Millisecond)); !got.Equal(noon) {
		t.Errorf("used after what the caller minds, and touched: %v", got)
	}
	if got := touch(noon.Add(day), noon); !got.Equal(noon.Add(day)) {
		t.Errorf("used then at %v", got)
	}
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.TouchClient(ctx, "nobody", noon, noon) })
}
