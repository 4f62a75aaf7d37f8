package provider

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// office is an Admin over a new SQLite database, and the clock it goes by.
type office struct {
	*Admin
	t     *testing.T
	store storage.Store
	ring  *keys.Ring
	clock time.Time
}

func newOffice(t *testing.T) *office {
	t.Helper()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "signet.db")
	db, err := sqlite.DB(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(ctx, db, migrations.SQLite, nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	o := &office{t: t, store: store, clock: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	sealer := &keys.Sealer{Primary: keys.NewKEK(secret)}
	if err := keys.Ensure(ctx, store, sealer, o.clock, keys.DefaultSchedule(), nil); err != nil {
		t.Fatal(err)
	}
	if o.ring, err = keys.Load(ctx, store, sealer, o.clock); err != nil {
		t.Fatal(err)
	}
	o.Admin = NewAdmin(AdminConfig{
		Store:  store,
		Ring:   func(context.Context) (*keys.Ring, error) { return o.ring, nil },
		Policy: DefaultPolicy(),
		Now:    func() time.Time { return o.clock },
		Actor:  "operator",
		Issuer: "https://login.example.com",
	})
	return o
}

// furnish makes a role, a resource with a scope of each kind, a service and a person.
func (o *office) furnish() (service storage.Client, person storage.User) {
	o.t.Helper()
	ctx := o.t.Context()
	if _, err := o.CreateRole(ctx, storage.Role{Name: "accounting"}); err != nil {
		o.t.Fatal(err)
	}
	r := o.DefaultResource()
	r.URI, r.Name = "https://api.example.com", "API"
	r.Scopes = []storage.Scope{{Name: "invoices:write", Role: "accounting"}, {Name: "invoices:read"}}
	if _, err := o.CreateResource(ctx, r); err != nil {
		o.t.Fatal(err)
	}
	c := DefaultClient()
	c.ID, c.Name, c.GrantTypes = "nightly", "Nightly", []string{"client_credentials"}
	c.Scopes, c.Roles = []string{"invoices:read", "invoices:write"}, []string{"accounting"}
	service, _, err := o.CreateClient(ctx, c)
	if err != nil {
		o.t.Fatal(err)
	}
	person, err = o.CreateUser(ctx, storage.User{Username: "Alice", Email: "Alice@example.com", Roles: []string{"accounting"}}, "correct horse battery")
	if err != nil {
		o.t.Fatal(err)
	}
	return service, person
}

// latest returns what the revocation log says of a value, or "".
func (o *office) latest(kind, value string) string {
	o.t.Helper()
	entries, err := o.store.Revocations(o.t.Context(), []storage.RevocationKey{revocation.Key(kind, value)}, o.clock)
	if err != nil {
		o.t.Fatal(err)
	}
	if len(entries) == 0 {
		return ""
	}
	e := entries[0]
	if want := DefaultPolicy().RevokedUntil(o.clock); !e.Until.Equal(want) {
		o.t.Errorf("the entry stays until %s, want %s", e.Until, want)
	}
	if want := o.clock.Add(revocation.EpochAhead); e.Effect == revocation.EffectEpoch && !e.NotBefore.Equal(want) {
		o.t.Errorf("the epoch begins at %s, want %s", e.NotBefore, want)
	}
	return e.Effect
}

// events returns the audit log, without what furnish wrote.
func (o *office) events(since int) []string {
	o.t.Helper()
	rows, err := o.store.AuditEvents(o.t.Context(), storage.AuditFilter{Limit: 1000})
	if err != nil {
		o.t.Fatal(err)
	}
	slices.Reverse(rows) // the first comes first
	var names []string
	for _, e := range rows {
		if e.Actor != "operator" || !e.At.Equal(o.clock) && len(names) >= since {
			o.t.Errorf("event %s: actor %q at %s", e.Event, e.Actor, e.At)
		}
		names = append(names, e.Event)
	}
	return names[since:]
}

// The table of the design: what each act of administration tells verifiers,
// and that it is in the audit log.
func TestAdministrationRevokes(t *testing.T) {
	service := func(c storage.Client, _ storage.User) (string, string) { return revocation.KindClient, c.ID }
	person := func(_ storage.Client, u storage.User) (string, string) { return revocation.KindSubject, u.ID }
	tests := []struct {
		name   string
		act    func(context.Context, *office) error
		about  func(storage.Client, storage.User) (kind, value string)
		effect string
		events []string
	}{
		{"client disabled", func(ctx context.Context, o *office) error {
			_, err := o.DisableClient(ctx, "nightly")
			return err
		}, service, "block", []string{eventClientDisabled}},
		{"client disabled twice", func(ctx context.Context, o *office) error {
			_, err := o.DisableClient(ctx, "nightly")
			_, again := o.DisableClient(ctx, "nightly")
			return errors.Join(err, again)
		}, service, "block", []string{eventClientDisabled}},
		{"client enabled again", func(ctx context.Context, o *office) error {
			_, err := o.DisableClient(ctx, "nightly")
			_, again := o.EnableClient(ctx, "nightly")
			return errors.Join(err, again)
		}, service, "epoch", []string{eventClientDisabled, eventClientEnabled}},
		{"client that was never disabled enabled", func(ctx context.Context, o *office) error {
			_, err := o.EnableClient(ctx, "nightly")
			return err
		}, service, "", []string{}},
		{"client deleted", func(ctx context.Context, o *office) error {
			return o.DeleteClient(ctx, "nightly")
		}, service, "block", []string{eventClientDeleted}},
		{"client renamed", func(ctx context.Context, o *office) error {
			_, err := o.UpdateClient(ctx, "nightly", func(c *storage.Client) { c.Name = "Daily" })
			return err
		}, service, "", []string{eventClientUpdated}},
		{"client loses a role", func(ctx context.Context, o *office) error {
			_, err := o.UpdateClient(ctx, "nightly", func(c *storage.Client) { c.Roles = nil })
			return err
		}, service, "epoch", []string{eventClientUpdated}},
		{"secret rotated", func(ctx context.Context, o *office) error {
			_, _, err := o.RotateClientSecret(ctx, "nightly", time.Hour)
			return err
		}, service, "", []string{eventClientSecretRotated}},
		{"user disabled", func(ctx context.Context, o *office) error {
			_, err := o.DisableUser(ctx, "alice")
			return err
		}, person, "block", []string{eventUserDisabled}},
		{"user enabled again", func(ctx context.Context, o *office) error {
			_, err := o.DisableUser(ctx, "alice")
			_, again := o.EnableUser(ctx, "ALICE@example.com")
			return errors.Join(err, again)
		}, person, "epoch", []string{eventUserDisabled, eventUserEnabled}},
		{"user deleted", func(ctx context.Context, o *office) error {
			_, err := o.DeleteUser(ctx, "alice")
			return err
		}, person, "block", []string{eventUserDeleted}},
		{"password changed", func(ctx context.Context, o *office) error {
			_, err := o.SetPassword(ctx, "alice", "another horse battery")
			return err
		}, person, "epoch", []string{eventUserPasswordSet}},
		{"user loses a role", func(ctx context.Context, o *office) error {
			_, err := o.RevokeUserRole(ctx, "alice", "accounting")
			return err
		}, person, "epoch", []string{eventUserRoleRevoked}},
		{"user has the role already", func(ctx context.Context, o *office) error {
			_, err := o.GrantUserRole(ctx, "alice", "accounting")
			return err
		}, person, "", []string{}},
		{"role deleted, person", dropRole, person, "epoch", []string{eventResourceUpdated, eventClientUpdated, eventRoleDeleted}},
		{"role deleted, client", dropRole, service, "epoch", []string{eventResourceUpdated, eventClientUpdated, eventRoleDeleted}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := newOffice(t)
			client, user := o.furnish()
			before := len(o.events(0))
			o.clock = o.clock.Add(time.Hour)
			if err := test.act(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			kind, value := test.about(client, user)
			if got := o.latest(kind, value); got != test.effect {
				t.Errorf("the log says %q, want %q", got, test.effect)
			}
			if got := o.events(before); !slices.Equal(got, test.events) {
				t.Errorf("audit events %q, want %q", got, test.events)
			}
		})
	}
}

func dropRole(ctx context.Context, o *office) error {
	_, err := o.UpdateResource(ctx, "https://api.example.com", func(r *storage.Resource) {
		r.Scopes = []storage.Scope{{Name: "invoices:read"}}
	})
	return errors.Join(err, o.DeleteRole(ctx, "accounting"))
}

// A resource takes its own roles with it, and whoever had them is told.
func TestDeleteResourceTakesItsRoles(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.furnish()
	if _, err := o.CreateRole(ctx, storage.Role{Name: "api:admin", Resource: "https://api.example.com"}); err != nil {
		t.Fatal(err)
	}
	u, err := o.GrantUserRole(ctx, "alice", "api:admin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.DeleteResource(ctx, "https://api.example.com"); err != nil {
		t.Fatal(err)
	}
	if u, err = o.User(ctx, u.ID); err != nil || !slices.Equal(u.Roles, []string{"accounting"}) {
		t.Errorf("roles %q, %v; want only the global one", u.Roles, err)
	}
	if got := o.latest(revocation.KindSubject, u.ID); got != "epoch" {
		t.Errorf("the log says %q of the person who lost it, want an epoch", got)
	}
}

// A scope that goes is taken from every client at once, so that whoever owns
// its name next has to give it anew; the clients stay as good as they were.
func TestScopesThatGoAreTakenFromClients(t *testing.T) {
	for name, drop := range map[string]func(context.Context, *office) ([]LostScopes, error){
		"resource updated": func(ctx context.Context, o *office) ([]LostScopes, error) {
			change, err := o.UpdateResource(ctx, "https://api.example.com", func(r *storage.Resource) {
				r.Scopes = []storage.Scope{{Name: "invoices:read"}}
			})
			return change.Lost, err
		},
		"resource deleted": func(ctx context.Context, o *office) ([]LostScopes, error) {
			return o.DeleteResource(ctx, "https://api.example.com")
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			ctx := t.Context()
			o.furnish()
			other := o.DefaultResource()
			other.URI, other.Name, other.Scopes = "https://other.example.com", "Other", []storage.Scope{{Name: "other"}}
			if _, err := o.CreateResource(ctx, other); err != nil {
				t.Fatal(err)
			}
			const clients = 501 // more than a page
			want := []string{}
			for i := range clients {
				c := DefaultClient()
				c.ID, c.Name, c.GrantTypes = fmt.Sprintf("c%03d", i), "Client", []string{"client_credentials"}
				if c.Scopes = []string{"other"}; i == 0 || i == clients-1 {
					c.Scopes = []string{"invoices:write", "other"}
					want = append(want, c.ID)
				}
				if _, _, err := o.CreateClient(ctx, c); err != nil {
					t.Fatal(err)
				}
			}
			want = append(want, "nightly")
			o.clock = o.clock.Add(time.Hour)
			lost, err := drop(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			var losers []string
			for _, l := range lost {
				if losers = append(losers, l.ClientID); !slices.Contains(l.Scopes, "invoices:write") || slices.Contains(l.Scopes, "other") {
					t.Errorf("%s lost %q", l.ClientID, l.Scopes)
				}
			}
			if !slices.Equal(losers, want) {
				t.Errorf("told that %q lost scopes, want %q", losers, want)
			}
			// The name comes back, of another API: nobody has it.
			again := o.DefaultResource()
			again.URI, again.Name, again.Scopes = "https://new.example.com", "New", []storage.Scope{{Name: "invoices:write"}}
			if _, err := o.CreateResource(ctx, again); err != nil {
				t.Fatal(err)
			}
			for _, id := range want {
				c, err := o.Client(ctx, id)
				if err != nil || slices.Contains(c.Scopes, "invoices:write") || !c.UpdatedAt.Equal(o.clock) {
					t.Errorf("%s: scopes %q, updated %s, %v", id, c.Scopes, c.UpdatedAt, err)
				}
				if _, err := o.UpdateClient(ctx, id, func(c *storage.Client) { c.Name = "New name" }); err != nil {
					t.Errorf("%s cannot be changed any more: %v", id, err)
				}
			}
			if c, err := o.Client(ctx, "c250"); err != nil || c.UpdatedAt.Equal(o.clock) || !slices.Equal(c.Scopes, []string{"other"}) {
				t.Errorf("a client that lost nothing: %+v, %v", c, err)
			}
		})
	}
}

// A password that an operator set is known to two people; one that its owner
// set is not.
func TestMustChange(t *testing.T) {
	for _, mustChange := range []bool{true, false} {
		o := newOffice(t)
		o.mustChange = mustChange
		_, alice := o.furnish()
		for _, act := range []string{"created", "set"} {
			if act == "set" {
				if _, err := o.SetPassword(t.Context(), "alice", "another horse battery"); err != nil {
					t.Fatal(err)
				}
			}
			if p, err := o.store.Password(t.Context(), alice.ID); err != nil || p.MustChange != mustChange {
				t.Errorf("%s: to be changed: %t, want %t (%v)", act, p.MustChange, mustChange, err)
			}
		}
	}
}

// The secret of a set-up link is in the link only.
func TestInvitationIsNotWrittenDown(t *testing.T) {
	o := newOffice(t)
	o.furnish()
	link, expires, err := o.InviteUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	secret, ok := strings.CutPrefix(link, "https://login.example.com/setup?link=")
	if !ok || !strings.HasPrefix(secret, invitationPrefix) || !expires.Equal(o.clock.Add(DefaultPolicy().InvitationLifetime)) {
		t.Errorf("%s until %s", link, expires)
	}
	row, err := o.store.OneTime(t.Context(), invitationKind, bearerHash(secret), o.clock)
	if err != nil || !row.ExpiresAt.Equal(expires) {
		t.Fatalf("%+v %v", row, err)
	}
	events, err := o.store.AuditEvents(t.Context(), storage.AuditFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprintf("%+v %+v", row, events); strings.Contains(all, secret) {
		t.Errorf("it is in the database: %s", all)
	}
}

// Every act leaves one row in the audit log that names what it was done to.
func TestAuditNamesItsObject(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	drop := func(_ any, err error) error { return err }
	dropTwo := func(_, _ any, err error) error { return err }
	_, alice := o.furnish()
	api := o.DefaultResource()
	api.URI, api.Name = "https://billing.example.com", "Billing"
	daily := DefaultClient()
	daily.ID, daily.Name, daily.GrantTypes = "daily", "Daily", []string{"client_credentials"}
	acts := []struct {
		event, clientID, detail string
		person                  bool
		act                     func() error
	}{
		{eventRoleCreated, "", `"role":"auditor"`, false, func() error { return drop(o.CreateRole(ctx, storage.Role{Name: "auditor"})) }},
		{eventResourceCreated, "", `"resource":"https://billing.example.com"`, false, func() error { return drop(o.CreateResource(ctx, api)) }},
		{eventResourceUpdated, "", `"resource":"https://billing.example.com"`, false, func() error {
			return drop(o.UpdateResource(ctx, api.URI, func(r *storage.Resource) { r.Name = "Bills" }))
		}},
		{eventResourceDeleted, "", `"resource":"https://billing.example.com"`, false, func() error { return drop(o.DeleteResource(ctx, api.URI)) }},
		{eventClientCreated, "daily", `"client_name":"Daily"`, false, func() error { return dropTwo(o.CreateClient(ctx, daily)) }},
		{eventClientUpdated, "daily", `"roles":["auditor"]`, false, func() error {
			return drop(o.UpdateClient(ctx, "daily", func(c *storage.Client) { c.Roles = []string{"auditor"} }))
		}},
		{eventClientSecretRotated, "daily", `"overlap_seconds":60`, false, func() error { return dropTwo(o.RotateClientSecret(ctx, "daily", time.Minute)) }},
		{eventClientDisabled, "daily", "", false, func() error { return drop(o.DisableClient(ctx, "daily")) }},
		{eventClientEnabled, "daily", "", false, func() error { return drop(o.EnableClient(ctx, "daily")) }},
		{eventUserRoleGranted, "", `"role":"auditor"`, true, func() error { return drop(o.GrantUserRole(ctx, "alice", "auditor")) }},
		{eventUserRoleRevoked, "", `"role":"auditor"`, true, func() error { return drop(o.RevokeUserRole(ctx, "alice", "auditor")) }},
		{eventUserUpdated, "", `{"changed":["email","email_verified","name"]}`, true, func() error {
			name, address, verified := "Alice Example", "alice@example.org", true
			return drop(o.UpdateUser(ctx, "alice", UserChange{Name: &name, Email: &address, EmailVerified: &verified}))
		}},
		{eventUserPasswordSet, "", "", true, func() error { return drop(o.SetPassword(ctx, "alice", "another horse battery")) }},
		{eventUserInvited, "", `"expires_at":"2026-`, true, func() error { return dropTwo(o.InviteUser(ctx, "alice")) }},
		{eventUserDisabled, "", "", true, func() error { return drop(o.DisableUser(ctx, "alice")) }},
		{eventUserEnabled, "", "", true, func() error { return drop(o.EnableUser(ctx, "alice")) }},
		{eventUserDeleted, "", `"username":"Alice"`, true, func() error { return drop(o.DeleteUser(ctx, "alice")) }},
		{eventClientDeleted, "daily", "", false, func() error { return o.DeleteClient(ctx, "daily") }},
		{eventRoleDeleted, "", `"role":"auditor"`, false, func() error { return o.DeleteRole(ctx, "auditor") }},
	}
	for _, test := range acts {
		before, err := o.store.AuditEvents(ctx, storage.AuditFilter{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if err := test.act(); err != nil {
			t.Fatalf("%s: %v", test.event, err)
		}
		rows, err := o.store.AuditEvents(ctx, storage.AuditFilter{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if rows = rows[:len(rows)-len(before)]; len(rows) != 1 {
			t.Fatalf("%s wrote %d rows", test.event, len(rows))
		}
		userID := ""
		if test.person {
			userID = alice.ID
		}
		if e := rows[0]; e.Event != test.event || e.Actor != "operator" || e.ClientID != test.clientID || e.UserID != userID || !strings.Contains(e.Detail, test.detail) {
			t.Errorf("%s: %+v", test.event, e)
		}
	}
}

func TestUpdateUser(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	if _, err := o.CreateUser(ctx, storage.User{Username: "bob", Email: "bob@example.com"}, ""); err != nil {
		t.Fatal(err)
	}
	ada := storage.User{Username: "ada", Email: "ada@example.com", EmailVerified: true,
		Profile: `{"name":"Ada Lovelace","given_name":"Ada","family_name":"Lovelace","zoneinfo":"Europe/London"}`}
	if _, err := o.CreateUser(ctx, ada, ""); err != nil {
		t.Fatal(err)
	}
	yes := true
	for _, test := range []struct {
		what     string
		change   UserChange
		email    string
		verified bool
		profile  string
	}{
		{"the same again", UserChange{Name: new("Ada Lovelace"), Email: new("ada@example.com")}, "ada@example.com", true, ada.Profile},
		{"a name", UserChange{Name: new("Ada King")}, "ada@example.com", true, `{"name":"Ada King","zoneinfo":"Europe/London"}`},
		{"an address", UserChange{Email: new("ada@example.org")}, "ada@example.org", false, `{"name":"Ada King","zoneinfo":"Europe/London"}`},
		{"a verified address", UserChange{Email: new("ADA@example.org"), EmailVerified: &yes}, "ADA@example.org", true, `{"name":"Ada King","zoneinfo":"Europe/London"}`},
		{"no name", UserChange{Name: new("")}, "ADA@example.org", true, `{"zoneinfo":"Europe/London"}`},
	} {
		u, err := o.UpdateUser(ctx, "ada", test.change)
		if err != nil || u.Email != test.email || u.EmailVerified != test.verified || u.Profile != test.profile {
			t.Errorf("%s: %+v %v", test.what, u, err)
		}
	}
	if _, err := o.UpdateUser(ctx, "ada", UserChange{Email: new("BOB@example.com")}); !errors.Is(err, storage.ErrExists) {
		t.Errorf("somebody else's address: %v", err)
	}
	var invalid *InvalidError
	for _, bad := range []UserChange{{Email: new("")}, {Email: new("ada")}, {Name: new("a\nb")}} {
		if _, err := o.UpdateUser(ctx, "ada", bad); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if u, err := o.User(ctx, "ada@example.org"); err != nil || !u.EmailVerified {
		t.Errorf("after refusals: %+v %v", u, err)
	}
}

func TestClientSecrets(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.furnish()
	works := func(secret string) bool {
		t.Helper()
		c, err := o.Client(ctx, "nightly")
		if err != nil {
			t.Fatal(err)
		}
		return verifyClientSecret(o.ring, c, secret, o.clock)
	}
	first, _, err := o.RotateClientSecret(ctx, "nightly", 0)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first, "sgs_") || len(first) != len("sgs_")+43 {
		t.Errorf("not a prefixed secret of 256 bits: %q", first)
	}
	second, ends, err := o.RotateClientSecret(ctx, "nightly", time.Hour)
	if err != nil || !ends.Equal(o.clock.Add(time.Hour)) {
		t.Fatalf("old secret ends %s, %v; want in an hour", ends, err)
	}
	if !works(first) || !works(second) {
		t.Error("while one is rotated both secrets have to work")
	}
	o.clock = o.clock.Add(time.Minute)
	third, ends, err := o.RotateClientSecret(ctx, "nightly", time.Hour)
	if err != nil || !ends.Equal(o.clock.Add(time.Hour)) {
		t.Fatalf("old secret ends %s, %v; want in an hour", ends, err)
	}
	if works(first) || !works(second) || !works(third) {
		t.Errorf("first, second, third work: %t %t %t; want the last two", works(first), works(second), works(third))
	}
	o.clock = o.clock.Add(time.Hour)
	if works(second) || !works(third) {
		t.Error("after the overlap only the newest may work")
	}
	if _, _, err := o.RotateClientSecret(ctx, "nightly", 91*24*time.Hour); !isInvalid(err) {
		t.Errorf("an overlap of 91 days: %v", err)
	}
	// With another method the secrets are gone, and come back only anew.
	if _, err := o.UpdateClient(ctx, "nightly", func(c *storage.Client) {
		c.AuthMethod, c.JWKSURI = "private_key_jwt", "https://client.example.com/jwks"
	}); err != nil {
		t.Fatal(err)
	}
	if works(third) {
		t.Error("a secret outlives its method")
	}
	if _, _, err := o.RotateClientSecret(ctx, "nightly", 0); !isInvalid(err) {
		t.Errorf("a secret for %s: %v", "private_key_jwt", err)
	}
}

func isInvalid(err error) bool {
	var invalid *InvalidError
	return errors.As(err, &invalid)
}

// What is stored or logged of an act holds none of its secrets.
func TestSecretsStayOutOfTheDatabase(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.furnish()
	secret, _, err := o.RotateClientSecret(ctx, "nightly", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.SetPassword(ctx, "alice", "a password to look for"); err != nil {
		t.Fatal(err)
	}
	clients, err := o.store.Clients(ctx, storage.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	events, err := o.store.AuditEvents(ctx, storage.AuditFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	u, err := o.User(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	credential, err := o.store.Password(ctx, u.ID)
	if err != nil {
		t.Fatal(err)
	}
	all, err := json.Marshal([]any{clients, events, credential})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{secret, strings.TrimPrefix(secret, "sgs_"), "a password to look for"} {
		if strings.Contains(string(all), s) {
			t.Error("a secret is stored as it is")
		}
	}
	if !strings.HasPrefix(credential.Hash, "$argon2id$") {
		t.Errorf("password hash %q", credential.Hash)
	}
}

// good are keys a client may register; the rest of the corpus is made from it.
const (
	jwkEC      = `{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	jwkECHalf  = `{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}`
	jwkEd      = `{"kty":"OKP","crv":"Ed25519","kid":"b","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	jwkRSA1024 = `{"kty":"RSA","kid":"c","e":"AQAB","n":"8OMWrkQwpTGtzNNyJBJyLSXFGrIhFUDwwtoFEkDeeDyKVW7kAfJaMxRAVMVG6m6K8hXyvJjXUBUsX8pYBsGxOLI2ytjoWhqAInM5fo1y0EkeuYqqNs0d8Q7pfFqlRvsMtyWZZYP6xyPvHT3JpdANbE5qHDmCbELaHzO7bUdcBbs"}`
	jwkSecret  = `{"kty":"oct","kid":"d","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr0"}`
)

// Every rule of a registration, by the parameters it names.
func TestCreateClientRules(t *testing.T) {
	tests := []struct {
		name   string
		alter  func(*storage.Client)
		fields []string // of the faults; none when it is accepted
	}{
		{"a service", func(*storage.Client) {}, nil},
		{"no name", func(c *storage.Client) { c.Name = " " }, []string{"client_name"}},
		{"a name with a line break", func(c *storage.Client) { c.Name = "a\nb" }, []string{"client_name"}},
		{"an id like a sub", func(c *storage.Client) { c.ID = "6f9619ff-8b86-4011-b42d-00cf4fc964ff" }, []string{"client_id"}},
		{"an id with a colon", func(c *storage.Client) { c.ID = "a:b" }, []string{"client_id"}},
		{"no grant", func(c *storage.Client) { c.GrantTypes = nil }, []string{"grant_types"}},
		{"password grant", func(c *storage.Client) { c.GrantTypes = []string{"password"} }, []string{"grant_types"}},
		{"implicit grant", func(c *storage.Client) { c.GrantTypes = []string{"implicit"} }, []string{"grant_types"}},
		{"refresh alone", func(c *storage.Client) { c.GrantTypes = []string{"refresh_token"} }, []string{"grant_types"}},
		{"code without redirect URI", func(c *storage.Client) { c.GrantTypes = []string{"authorization_code"} }, []string{"redirect_uris"}},
		{"redirect URI without code", func(c *storage.Client) { c.RedirectURIs = []string{"https://a.example/cb"} }, []string{"redirect_uris"}},
		{"code and refresh", func(c *storage.Client) {
			c.GrantTypes = []string{"authorization_code", "refresh_token"}
			c.RedirectURIs = []string{"https://a.example/cb"}
		}, nil},
		{"a bad redirect URI and a bad one after signing out", func(c *storage.Client) {
			c.GrantTypes = []string{"authorization_code"}
			c.RedirectURIs = []string{"https://a.example/cb", "http://a.example/cb"}
			c.PostLogoutRedirectURIs = []string{"javascript:alert(1)"}
		}, []string{`post_logout_redirect_uris "javascript:alert(1)"`, `redirect_uris "http://a.example/cb"`}},
		{"public with client_credentials", func(c *storage.Client) { c.AuthMethod = "none" }, []string{"token_endpoint_auth_method"}},
		{"public without PKCE", func(c *storage.Client) {
			c.GrantTypes, c.AuthMethod, c.RequirePKCE = []string{"authorization_code"}, "none", false
			c.RedirectURIs = []string{"com.example.app:/cb"}
		}, []string{"require_pkce"}},
		{"confidential without PKCE", func(c *storage.Client) { c.RequirePKCE = false }, nil},
		{"unknown method", func(c *storage.Client) { c.AuthMethod = "client_secret_jwt" }, []string{"token_endpoint_auth_method"}},
		{"unknown ID token algorithm", func(c *storage.Client) { c.IDTokenAlg = "none" }, []string{"id_token_signed_response_alg"}},
		{"refresh window of an hour", func(c *storage.Client) { c.RefreshWindow = time.Hour }, []string{"refresh_window"}},
		{"unknown scope", func(c *storage.Client) { c.Scopes = []string{"invoices:burn"} }, []string{"scope"}},
		{"OpenID Connect's scopes", func(c *storage.Client) {
			c.GrantTypes, c.RedirectURIs = []string{"authorization_code"}, []string{"https://a.example/cb"}
			c.Scopes = []string{"openid", "offline_access"}
		}, nil},
		{"OpenID Connect's scopes for a service", func(c *storage.Client) { c.Scopes = []string{"openid", "invoices:read"} }, []string{"scope"}},
		{"unknown role", func(c *storage.Client) { c.Roles = []string{"king"} }, []string{"roles"}},
		{"101 scopes", func(c *storage.Client) {
			c.Scopes = strings.Fields(strings.Repeat("x y ", 60))
			for i := range c.Scopes {
				c.Scopes[i] += strings.Repeat("z", i)
			}
		}, []string{"client"}},
		{"key with a secret", func(c *storage.Client) { c.JWKSURI = "https://a.example/jwks" }, []string{"jwks"}},
		{"private_key_jwt without keys", assertion("", ""), []string{"jwks"}},
		{"private_key_jwt with both", assertion(`{"keys":[`+jwkEC+`]}`, "https://a.example/jwks"), []string{"jwks"}},
		{"EC key", assertion(`{"keys":[`+jwkEC+`]}`, ""), nil},
		{"EC and Ed25519 keys", assertion(`{"keys":[`+jwkEC+`,`+jwkEd+`]}`, ""), nil},
		{"keys at https", assertion("", "https://a.example/jwks"), nil},
		{"keys at http", assertion("", "http://a.example/jwks"), []string{`jwks_uri "http://a.example/jwks"`}},
		{"keys at http and a number", assertion("", "http://127.0.0.1:8080/jwks"), nil},
		{"keys in a file", assertion("", "file:///etc/jwks"), []string{`jwks_uri "file:///etc/jwks"`}},
		{"private key", assertion(`{"keys":[`+jwkECHalf+`]}`, ""), []string{"jwks"}},
		{"secret key", assertion(`{"keys":[`+jwkSecret+`]}`, ""), []string{"jwks"}},
		{"weak RSA key", assertion(`{"keys":[`+jwkRSA1024+`]}`, ""), []string{"jwks"}},
		{"key for encryption", assertion(`{"keys":[`+strings.Replace(jwkEC, `"kid"`, `"use":"enc","kid"`, 1)+`]}`, ""), []string{"jwks"}},
		{"key of another algorithm", assertion(`{"keys":[`+strings.Replace(jwkEC, `"kid"`, `"alg":"RS256","kid"`, 1)+`]}`, ""), []string{"jwks"}},
		{"two keys of one name", assertion(`{"keys":[`+jwkEC+`,`+jwkEC+`]}`, ""), []string{"jwks"}},
		{"17 keys", assertion(`{"keys":[`+strings.Repeat(jwkEC+",", 16)+jwkEC+`]}`, ""), []string{"jwks"}},
		{"65 KiB of keys", assertion(`{"keys":[`+jwkEC+`],"x":"`+strings.Repeat("x", 64<<10)+`"}`, ""), []string{"jwks"}},
		{"no key set", assertion(`{"keys":[]}`, ""), []string{"jwks"}},
		{"no JSON", assertion(`-----BEGIN PUBLIC KEY-----`, ""), []string{"jwks"}},
		{"four mistakes, all named", func(c *storage.Client) {
			c.ID, c.Name, c.Scopes, c.Roles = "a b", "", []string{"nope"}, []string{"king"}
		}, []string{"client_id", "client_name", "roles", "scope"}},
	}
	o := newOffice(t)
	o.furnish()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := DefaultClient()
			c.Name, c.GrantTypes = "Client", []string{"client_credentials"}
			test.alter(&c)
			created, secret, err := o.CreateClient(t.Context(), c)
			if got := faultFields(err); !slices.Equal(got, test.fields) {
				t.Fatalf("faults at %q, want %q: %v", got, test.fields, err)
			}
			if err != nil {
				return
			}
			if (secret != "") != hasSecret(created) {
				t.Errorf("with %s a secret was made: %t", created.AuthMethod, secret != "")
			}
			if read, err := o.Client(t.Context(), created.ID); err != nil || read.Name != "Client" || read.RefreshWindow >= 0 {
				t.Errorf("read back %+v, %v", read, err)
			}
		})
	}
}

func assertion(jwks, uri string) func(*storage.Client) {
	return func(c *storage.Client) { c.AuthMethod, c.JWKS, c.JWKSURI = "private_key_jwt", jwks, uri }
}

// faultFields returns what the faults of err are about, sorted. A value is
// kept where it tells members of a list apart.
func faultFields(err error) []string {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return nil
	}
	var fields []string
	for _, f := range invalid.Faults {
		field := f.Field
		if name, _, _ := strings.Cut(field, " "); name == "client_id" || name == "scope" || name == "username" || name == "email" || name == "resource" {
			field = name
		}
		fields = append(fields, field)
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// Identifier, origin, state and secrets are nothing an update can change.
func TestUpdateClientKeepsIdentity(t *testing.T) {
	o := newOffice(t)
	before, _ := o.furnish()
	o.clock = o.clock.Add(time.Hour)
	after, err := o.UpdateClient(t.Context(), "nightly", func(c *storage.Client) {
		c.ID, c.Origin, c.Enabled, c.Secrets, c.CreatedAt, c.UpdatedAt = "other", "registration", false, nil, time.Time{}, time.Time{}
	})
	if err != nil || after.ID != before.ID || after.Origin != before.Origin || !after.Enabled || len(after.Secrets) != 1 ||
		!after.CreatedAt.Equal(before.CreatedAt) || !after.UpdatedAt.Equal(o.clock) {
		t.Errorf("%+v, %v", after, err)
	}
}

func TestApplicationType(t *testing.T) {
	o := newOffice(t)
	for uri, want := range map[string]string{
		"https://a.example/cb": "web",
		"http://127.0.0.1/cb":  "native",
		"com.example.app:/cb":  "native",
	} {
		c := DefaultClient()
		c.Name, c.GrantTypes, c.RedirectURIs = "App", []string{"authorization_code"}, []string{uri}
		created, _, err := o.CreateClient(t.Context(), c)
		if err != nil || created.ApplicationType != want {
			t.Errorf("%s: %s, %v; want %s", uri, created.ApplicationType, err, want)
		}
	}
}

func TestResourceRules(t *testing.T) {
	tests := []struct {
		name   string
		alter  func(*storage.Resource)
		fields []string
	}{
		{"a resource", func(*storage.Resource) {}, nil},
		{"a URN", func(r *storage.Resource) { r.URI = "urn:example:billing" }, nil},
		{"relative URI", func(r *storage.Resource) { r.URI = "billing" }, []string{"resource"}},
		{"fragment", func(r *storage.Resource) { r.URI += "#a" }, []string{"resource"}},
		{"user information", func(r *storage.Resource) { r.URI = "https://u:p@billing.example.com" }, []string{"resource"}},
		{"the issuer", func(r *storage.Resource) { r.URI = "https://login.example.com" }, []string{"resource"}},
		{"the issuer with a slash", func(r *storage.Resource) { r.URI = "https://login.example.com/" }, []string{"resource"}},
		{"no name", func(r *storage.Resource) { r.Name = "" }, []string{"resource_name"}},
		{"4 minutes", func(r *storage.Resource) { r.TokenLifetime = 4 * time.Minute }, []string{"token_lifetime"}},
		{"5 minutes", func(r *storage.Resource) { r.TokenLifetime = 5 * time.Minute }, nil},
		{"15 minutes", func(r *storage.Resource) { r.TokenLifetime = 15 * time.Minute }, nil},
		{"16 minutes", func(r *storage.Resource) { r.TokenLifetime = 16 * time.Minute }, []string{"token_lifetime"}},
		{"unknown algorithm", func(r *storage.Resource) { r.SigningAlg = "HS256" }, []string{"alg"}},
		{"a scope of OpenID Connect", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "openid"}} }, []string{"scope"}},
		{"a scope with a space", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "a b"}} }, []string{"scope"}},
		{"a scope of another resource", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "invoices:read"}} }, []string{"scope"}},
		{"a scope twice", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "bills"}, {Name: "bills"}} }, []string{"scope"}},
		{"an unknown role", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "bills", Role: "king"}} }, []string{"scope"}},
		{"a global role", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "bills", Role: "accounting"}} }, nil},
		{"a role of another resource", func(r *storage.Resource) { r.Scopes = []storage.Scope{{Name: "bills", Role: "api:admin"}} }, []string{"scope"}},
		{"an unknown introspector", func(r *storage.Resource) { r.Introspectors = []string{"nobody"} }, []string{"introspectors"}},
		{"a public introspector", func(r *storage.Resource) { r.Introspectors = []string{"app"} }, []string{"introspectors"}},
		{"an introspector", func(r *storage.Resource) { r.Introspectors = []string{"nightly"} }, nil},
		{"three mistakes, all named", func(r *storage.Resource) {
			r.Name, r.SigningAlg, r.TokenLifetime = "", "none", time.Hour
		}, []string{"alg", "resource_name", "token_lifetime"}},
	}
	o := newOffice(t)
	ctx := t.Context()
	o.furnish()
	if _, err := o.CreateRole(ctx, storage.Role{Name: "api:admin", Resource: "https://api.example.com"}); err != nil {
		t.Fatal(err)
	}
	app := DefaultClient()
	app.ID, app.Name, app.AuthMethod, app.GrantTypes, app.RedirectURIs = "app", "App", "none", []string{"authorization_code"}, []string{"com.example.app:/cb"}
	if _, _, err := o.CreateClient(ctx, app); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := o.DefaultResource()
			r.URI, r.Name, r.Scopes = "https://billing.example.com", "Billing", []storage.Scope{{Name: "billing:read"}}
			test.alter(&r)
			_, err := o.CreateResource(t.Context(), r)
			if got := faultFields(err); !slices.Equal(got, test.fields) {
				t.Fatalf("faults at %q, want %q: %v", got, test.fields, err)
			}
			if err == nil {
				if _, err := o.DeleteResource(t.Context(), r.URI); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Changing a resource keeps what was not changed, its own scopes included.
func TestUpdateResourceKeepsItsScopes(t *testing.T) {
	o := newOffice(t)
	o.furnish()
	r, err := o.UpdateResource(t.Context(), "https://api.example.com", func(r *storage.Resource) { r.Name = "New" })
	if err != nil || r.Name != "New" || len(r.Scopes) != 2 || r.TokenLifetime != 10*time.Minute {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUserRules(t *testing.T) {
	tests := []struct {
		name     string
		user     storage.User
		password string
		fields   []string
	}{
		{"a person", storage.User{Username: "bob", Email: "bob@example.com"}, "correct horse battery", nil},
		{"without a password", storage.User{Username: "carol", Email: "carol@example.com"}, "", nil},
		{"an address as username", storage.User{Username: "bob@example.com"}, "", []string{"username"}},
		{"two @", storage.User{Username: "dave", Email: "a@b@c"}, "", []string{"email"}},
		{"verified nothing", storage.User{Username: "dave", EmailVerified: true}, "", []string{"email_verified"}},
		{"password with the username", storage.User{Username: "dave", Email: "d@example.com"}, "my dear dave, hello", []string{"password"}},
		{"unknown role", storage.User{Username: "dave", Email: "d@example.com", Roles: []string{"king"}}, "", []string{"roles"}},
		{"four mistakes, all named", storage.User{Username: "d d", Email: "x", Roles: []string{"king"}}, "short", []string{"email", "password", "roles", "username"}},
	}
	o := newOffice(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u, err := o.CreateUser(t.Context(), test.user, test.password)
			if got := faultFields(err); !slices.Equal(got, test.fields) {
				t.Fatalf("faults at %q, want %q: %v", got, test.fields, err)
			}
			if err == nil && !isUUID(u.ID) {
				t.Errorf("sub %q is no UUID", u.ID)
			}
		})
	}
}

// Whatever way a name is written, it is one person, found by each of theirs.
func TestOneNameOnePerson(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	_, alice := o.furnish()
	for _, login := range []string{"alice", "ALICE", "Ａｌｉｃｅ", "alice@example.com", "ALICE@EXAMPLE.COM", alice.ID, strings.ToUpper(alice.ID)} {
		if u, err := o.User(ctx, login); err != nil || u.ID != alice.ID {
			t.Errorf("%q: %q, %v", login, u.ID, err)
		}
	}
	for _, taken := range []storage.User{
		{Username: "aLICE", Email: "other@example.com"},
		{Username: "Ａlice", Email: "other@example.com"},
		{Username: "other", Email: "alice@EXAMPLE.com"},
	} {
		var object *ObjectError
		if _, err := o.CreateUser(ctx, taken, ""); !errors.As(err, &object) || !errors.Is(err, storage.ErrExists) {
			t.Errorf("%s %s: %v", taken.Username, taken.Email, err)
		}
	}
}

// What does not exist is told by its kind and name, whatever was wanted of it.
func TestNotFound(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.furnish()
	drop := func(_ any, err error) error { return err }
	_, _, rotate := o.RotateClientSecret(ctx, "x", 0)
	for what, err := range map[string]error{
		`client "x"`:        drop(o.Client(ctx, "x")),
		`client "x" `:       drop(o.UpdateClient(ctx, "x", func(*storage.Client) {})),
		`client "x"  `:      drop(o.DisableClient(ctx, "x")),
		`client "x"   `:     o.DeleteClient(ctx, "x"),
		`client "x"    `:    rotate,
		`resource "x"`:      drop(o.Resource(ctx, "x")),
		`resource "x" `:     drop(o.UpdateResource(ctx, "x", func(*storage.Resource) {})),
		`resource "x"  `:    drop(o.DeleteResource(ctx, "x")),
		`role "x"`:          o.DeleteRole(ctx, "x"),
		`role "x" `:         drop(o.GrantUserRole(ctx, "alice", "x")),
		`role of Alice "x"`: drop(o.RevokeUserRole(ctx, "alice", "x")),
		`user "x"`:          drop(o.User(ctx, "x")),
		`user "a b"`:        drop(o.User(ctx, "a b")),
		`user "x" `:         drop(o.SetPassword(ctx, "x", "correct horse battery")),
		`user "x"  `:        drop(o.DisableUser(ctx, "x")),
		`user "x"   `:       drop(o.GrantUserRole(ctx, "x", "accounting")),
		`user "x"    `:      drop(o.DeleteUser(ctx, "x")),
	} {
		var object *ObjectError
		if !errors.As(err, &object) || !errors.Is(err, storage.ErrNotFound) || !strings.HasPrefix(err.Error(), strings.TrimSpace(what)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A role that a scope demands, and what exists already, is left alone.
func TestRefusedAsTheyStand(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.furnish()
	if err := o.DeleteRole(ctx, "accounting"); !isInvalid(err) {
		t.Errorf("delete a role in use: %v", err)
	}
	if _, err := o.CreateRole(ctx, storage.Role{Name: "accounting"}); !errors.Is(err, storage.ErrExists) {
		t.Errorf("create a role again: %v", err)
	}
	if _, err := o.CreateRole(ctx, storage.Role{Name: "a b", Resource: "https://nowhere.example"}); len(faultFields(err)) != 2 {
		t.Errorf("create a role with two mistakes: %v", err)
	}
	c := DefaultClient()
	c.ID, c.Name, c.GrantTypes = "nightly", "Again", []string{"client_credentials"}
	if _, _, err := o.CreateClient(ctx, c); !errors.Is(err, storage.ErrExists) {
		t.Errorf("create a client again: %v", err)
	}
	r := o.DefaultResource()
	r.URI, r.Name = "https://api.example.com", "Again"
	if _, err := o.CreateResource(ctx, r); !errors.Is(err, storage.ErrExists) {
		t.Errorf("create a resource again: %v", err)
	}
}
