package provider

import (
	"context"
	"testing"
	"time"

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
