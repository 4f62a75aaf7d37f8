package provider

import (
	"context"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// What an operator takes from a person ends their sessions and grants, in the
// same transaction.
func TestAdministrationEndsSessionsAndGrants(t *testing.T) {
	for _, test := range []struct {
		name               string
		act                func(t *testing.T, o *office) error
		wantSession, grant bool // whether it is left
	}{
		{"password set", func(t *testing.T, o *office) error {
			_, err := o.SetPassword(t.Context(), "alice", "nine purple kettles sing")
			return err
		}, false, false},
		{"disabled", func(t *testing.T, o *office) error {
			_, err := o.DisableUser(t.Context(), "alice")
			return err
		}, false, true},
		{"role granted", func(t *testing.T, o *office) error {
			_, err := o.GrantUserRole(t.Context(), "alice", "accounting")
			return err
		}, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			o := newOffice(t)
			client, user := o.furnish()
			now := o.clock
			err := o.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
				if err := tx.CreateSession(ctx, storage.Session{
					ID: "s", SecretHash: []byte("secret"), UserID: user.ID, AuthTime: now, CreatedAt: now, LastSeenAt: now,
					IdleEnd: now.Add(time.Hour), AbsoluteEnd: now.Add(time.Hour),
				}); err != nil {
					return err
				}
				return tx.CreateGrant(ctx, storage.Grant{
					ID: "g", ClientID: client.ID, UserID: user.ID, SessionID: "s", Seed: []byte("seed"),
					CodeExpiresAt: now.Add(time.Hour), CreatedAt: now,
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := test.act(t, o); err != nil {
				t.Fatal(err)
			}
			s, err := o.store.Session(ctx, "s")
			if err != nil {
				t.Fatal(err)
			}
			g, err := o.store.Grant(ctx, "g")
			if err != nil {
				t.Fatal(err)
			}
			if s.EndedAt.IsZero() != test.wantSession || g.RevokedAt.IsZero() != test.grant {
				t.Errorf("session ended %v, grant revoked %v", s.EndedAt, g.RevokedAt)
			}
		})
	}
}

// A client counts as changed no earlier than the entry that is appended about it,
// however long the transaction takes: what is minted from it as it is then, once
// its second is over, no verifier refuses (registry.settled).
func TestClientsChangeWithTheirEpochs(t *testing.T) {
	for name, act := range map[string]func(o *office, id string) error{
		"tokens revoked": func(o *office, id string) error { _, err := o.RevokeClient(t.Context(), id); return err },
		"enabled again": func(o *office, id string) error {
			if _, err := o.DisableClient(t.Context(), id); err != nil {
				return err
			}
			_, err := o.EnableClient(t.Context(), id)
			return err
		},
		"role lost": func(o *office, id string) error {
			_, err := o.UpdateClient(t.Context(), id, func(c *storage.Client) { c.Roles = nil })
			return err
		},
		"made anew": func(o *office, id string) error {
			if err := o.DeleteClient(t.Context(), id); err != nil {
				return err
			}
			c := DefaultClient()
			c.ID, c.Name, c.GrantTypes = id, "Again", []string{"client_credentials"}
			_, _, err := o.CreateClient(t.Context(), c)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			service, _ := o.furnish()
			// Each look at the clock is a while after the one before.
			tick := func() time.Time {
				o.clock = o.clock.Add(300 * time.Millisecond)
				return o.clock
			}
			o.now, o.entries.now = tick, tick
			if err := act(o, service.ID); err != nil {
				t.Fatal(err)
			}
			c, err := o.Client(t.Context(), service.ID)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := o.store.Revocations(t.Context(), []storage.RevocationKey{revocation.Key(revocation.KindClient, service.ID)}, o.clock)
			if err != nil || len(entries) != 1 || entries[0].Effect != revocation.EffectEpoch {
				t.Fatalf("%+v, %v", entries, err)
			}
			if settled := c.UpdatedAt.Add(revocation.EpochAhead); settled.Before(entries[0].NotBefore) {
				t.Errorf("changed at %s, an epoch refuses what is minted until %s", c.UpdatedAt, entries[0].NotBefore)
			}
		})
	}
}
