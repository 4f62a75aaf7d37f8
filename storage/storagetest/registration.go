package storagetest

import (
	"context"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

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
