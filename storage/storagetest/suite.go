package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// Run tests a store against the contract of package storage. open returns a
// store over a fresh, migrated database, which ends with the test.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	tests := []struct {
		name string
		test func(*testing.T, storage.Store)
	}{
		{"an empty database", testEmpty},
		{"clients", testClients},
		{"clients that nobody uses", testUnusedClients},
		{"clients: errors", testClientErrors},
		{"client secrets end and go", testClientSecrets},
		{"client roles", testClientRoles},
		{"resources", testResources},
		{"resources: errors", testResourceErrors},
		{"roles", testRoles},
		{"users", testUsers},
		{"users: errors", testUserErrors},
		{"user by login", testUserByLogin},
		{"passwords", testPasswords},
		{"signing keys", testSigningKeys},
		{"sealed secrets", testSealedSecrets},
		{"settings", testSettings},
		{"load", testLoad},
		{"single use", testUseOnce},
		{"single-use values of a kind", testOneTimes},
		{"audit events go", testPruneAudit},
		{"registrations are void", testVoidRegistrations},
		{"revocations", testRevocations},
		{"the latest revocation counts, even when it has ended", testRevocationLatest},
		{"an epoch is no earlier than the epoch before", testEpochsGoOn},
		{"the revocation log", testRevocationLog},
		{"the revocation log's chain", testRevocationChain},
		{"every entry of the revocation log", testEachRevocation},
		{"a view is of one moment", testView},
		{"changes are announced", testChanges},
		{"a late commit is not overtaken", testRevocationOrder},
		{"status indexes", testStatusIndexes},
		{"audit events", testAudit},
		{"pages", testPages},
		{"keys sort by their bytes", testSorting},
		{"the registry's version", testRegistryVersion},
		{"pruning", testPrune},
		{"pruning never lets an earlier revocation count again", testPruneRevocations},
		{"times to the millisecond", testTimes},
		{"nil and empty slices", testSlices},
		{"hostile strings are kept as they are", testHostileStrings},
		{"text that cannot be stored", testInvalidText},
		{"a transaction is undone", testRollback},
		{"a transaction sees its writes, others do not", testVisibility},
		{"a failed statement ends the transaction", testPoisoned},
		{"not found and used already do not end the transaction", testNotPoisoned},
		{"locks in the wrong order", testLockOrder},
		{"a panic undoes its transaction only", testPanic},
		{"contexts that are done", testContext},
		{"clock and ping", testClock},
		{"closed", testClosed},

		{"sessions", testSessions},
		{"sessions: errors", testSessionErrors},
		{"sessions: touched while live", testTouchSession},
		{"sessions: renewed while not ended", testRenewSession},
		{"sessions end", testEndSessions},
		{"sign-in throttle", testThrottle},
		{"single use: looked at, taken once", testTakeOnce},
		{"users change", testUpdateUser},
		{"password hashes are replaced only as they were read", testUpdatePasswordHash},
		{"consents", testConsents},
		{"grants", testGrants},
		{"what clients call people and sessions", testPairwise},
		{"codes are redeemed while", testRedeemCode},
		{"grants rotate while", testRotateGrant},
		{"grants of a user", testGrantsOfUser},
		{"a grant and what it rests on", testStanding},
		{"revoking grants", testRevokeGrants},
		{"revoking grants in batches", testRevokeGrantsLimit},
		{"pruning sessions, grants and throttles", testPruneSignIn},
		{"a refusal of a code does not end the transaction", testGrantNotPoisoned},

		{"outbox", testOutbox},
		{"clients to tell of a logout", testLogoutTargets},

		{"race: single use", raceUseOnce},
		{"race: locking a user", raceLockUser},
		{"race: same client", raceCreateClient},
		{"race: same user", raceCreateUser},
		{"race: codes", raceRedeemCode},
		{"race: rotation", raceRotateGrant},
		{"race: rotation against revocation", raceRotateRevoke},
		{"race: revoking", raceRevokeGrant},
		{"race: same grant", raceCreateGrant},
		{"race: links", raceTakeOnce},
		{"race: deliveries", raceClaimDeliveries},
		{"race: failures are all counted", raceAddFailure},
		{"race: a session ends once", raceEndSession},
		{"race: sign-in against a new password", raceNewPassword},
		{"race: secret rotation", raceSecretRotation},
		{"race: revocation log", raceRevocations},
		{"race: following the revocation log", raceFollowLog},
		{"race: status indexes", raceStatusIndexes},
		{"race: registry lock", raceRegistryLock},
		{"race: some fail", raceSomeFail},
		{"race: read your writes", raceReadYourWrites},
		{"race: both locks", raceBothLocks},
		{"race: deadlock", raceDeadlock},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// noon is a time with milliseconds in it.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 123_000_000, time.UTC)

func update(t *testing.T, s storage.Store, fn func(ctx context.Context, tx storage.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// refused runs fn in a transaction and wants its error.
func refused(t *testing.T, s storage.Store, want error, fn func(ctx context.Context, tx storage.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); !errors.Is(err, want) {
		t.Errorf("error = %v, want %v", err, want)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error = %v, want %v", err, want)
	}
}

// same compares what a call returned with what it should.
func same[T any](t *testing.T, what string, got T, err error, want T) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func testClient(id string) storage.Client {
	return storage.Client{
		ID: id, Name: "Orders' \"worker\" – ü", Origin: "operator", Enabled: true, FirstParty: true, ApplicationType: "web",
		AuthMethod: "private_key_jwt", AuthSigningAlg: "ES256", AssertionAudTokenURL: true,
		GrantTypes:             []string{"client_credentials", "authorization_code"},
		RedirectURIs:           []string{"https://a.example/cb?x=1,2", "https://b.example/\"cb\""},
		PostLogoutRedirectURIs: []string{"https://a.example/out"},
		Scopes:                 []string{"orders:read", "orders:write"}, JWKS: `{"keys":[]}`, JWKSURI: "https://a.example/jwks",
		IDTokenAlg: "RS256", ClaimsInIDToken: true, RequirePKCE: true, RequirePushed: true, RefreshWindow: 1500 * time.Millisecond,
		SubjectType: "pairwise", SectorIdentifier: "a.example",
		BackChannelLogoutURI: "https://a.example/bc", FrontChannelLogoutURI: "https://a.example/fc",
		RegistrationTokenHash: []byte{0, 1, 255}, Metadata: `{"logo_uri":"x"}`,
		CreatedAt: noon, UpdatedAt: noon.Add(time.Second), LastUsedAt: noon.Add(time.Minute),
	}
}

func testSecret(id, client string) storage.ClientSecret {
	return storage.ClientSecret{ID: id, ClientID: client, Scheme: "hmac-sha256", KeyID: "k1", Hash: []byte("hash " + id), CreatedAt: noon}
}

func testUser(id, name string) storage.User {
	return storage.User{
		ID: id, Username: name + "!", UsernameKey: name, Email: name + "@Example.org", EmailKey: name + "@example.org",
		EmailVerified: true, Enabled: true, Profile: `{"given_name":"Zoë"}`, Locale: "nl-BE",
		CreatedAt: noon, UpdatedAt: noon.Add(time.Hour),
	}
}

func testResource(uri string, scopes ...string) storage.Resource {
	r := storage.Resource{
		URI: uri, Name: "Orders", TokenLifetime: 10 * time.Minute, SigningAlg: "ES256", RolesClaim: true, StatusList: true,
		CreatedAt: noon, UpdatedAt: noon,
	}
	for _, s := range scopes {
		r.Scopes = append(r.Scopes, storage.Scope{Name: s, Description: "May " + s})
	}
	return r
}

func createRoles(t *testing.T, s storage.Store, names ...string) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		for _, name := range names {
			if err := tx.CreateRole(ctx, storage.Role{Name: name, CreatedAt: noon}); err != nil {
				return err
			}
		}
		return nil
	})
}

func createClient(t *testing.T, s storage.Store, c storage.Client) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.CreateClient(ctx, c) })
}

func createUser(t *testing.T, s storage.Store, u storage.User) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.CreateUser(ctx, u) })
}

func all(after string) storage.Page { return storage.Page{After: after, Limit: 1000} }

func testEmpty(t *testing.T, s storage.Store) {
	ctx := t.Context()
	_, err := s.Client(ctx, "x")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.Resource(ctx, "x")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.User(ctx, "x")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.UserByLogin(ctx, "x")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.Password(ctx, "x")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.Setting(ctx, "x")
	wantErr(t, err, storage.ErrNotFound)

	clients, err := s.Clients(ctx, all(""))
	same(t, "clients", clients, err, nil)
	resources, err := s.Resources(ctx, all(""))
	same(t, "resources", resources, err, nil)
	roles, err := s.Roles(ctx, all(""))
	same(t, "roles", roles, err, nil)
	users, err := s.Users(ctx, all(""))
	same(t, "users", users, err, nil)
	keys, err := s.SigningKeys(ctx)
	same(t, "signing keys", keys, err, nil)
	secrets, err := s.SealedSecrets(ctx, "x")
	same(t, "sealed secrets", secrets, err, nil)
	events, err := s.AuditEvents(ctx, storage.AuditFilter{Limit: 1000})
	same(t, "audit events", events, err, nil)
	revs, err := s.Revocations(ctx, []storage.RevocationKey{{Kind: "jti", Hash: []byte("x")}}, noon)
	same(t, "revocations", revs, err, nil)
	revs, err = s.Revocations(ctx, nil, noon)
	same(t, "revocations of nothing", revs, err, nil)
	if v, err := s.RegistryVersion(ctx); err != nil || v < 1 {
		t.Errorf("registry version = %d, %v", v, err)
	}
}

func testClients(t *testing.T, s storage.Store) {
	createRoles(t, s, "b", "a")
	c := testClient("c1")
	c.Secrets = []storage.ClientSecret{testSecret("s2", "c1"), testSecret("s1", "c1")}
	c.Secrets[1].CreatedAt = noon.Add(time.Millisecond)
	c.Roles = []string{"b", "a"}
	createClient(t, s, c)
	c.Roles = []string{"a", "b"}

	got, err := s.Client(t.Context(), "c1")
	same(t, "client", got, err, c)
	list, err := s.Clients(t.Context(), all(""))
	same(t, "clients", list, err, []storage.Client{c})

	changed := testClient("c1")
	changed.Name, changed.Enabled, changed.GrantTypes, changed.RefreshWindow = "new", false, nil, -time.Millisecond
	changed.CreatedAt, changed.LastUsedAt, changed.UpdatedAt = noon.Add(9*time.Hour), noon.Add(9*time.Hour), noon.Add(2*time.Hour)
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateClient(ctx, changed) })
	changed.CreatedAt, changed.LastUsedAt, changed.Secrets, changed.Roles = c.CreatedAt, c.LastUsedAt, c.Secrets, c.Roles
	got, err = s.Client(t.Context(), "c1")
	same(t, "updated client", got, err, changed)

	createClient(t, s, testClient("c2"))
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteClient(ctx, "c1") })
	_, err = s.Client(t.Context(), "c1")
	wantErr(t, err, storage.ErrNotFound)
	if _, err := s.Client(t.Context(), "c2"); err != nil {
		t.Errorf("the other client: %v", err)
	}
	createClient(t, s, c) // its secrets and roles went with it
}

func testClientErrors(t *testing.T, s storage.Store) {
	createClient(t, s, testClient("c1"))
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateClient(ctx, testClient("c1")) })
	refused(t, s, storage.ErrReference, func(ctx context.Context, tx storage.Tx) error {
		c := testClient("c2")
		c.Roles = []string{"none"}
		return tx.CreateClient(ctx, c)
	})
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateClient(ctx, testClient("c2")) })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteClient(ctx, "c2") })
	refused(t, s, storage.ErrReference, func(ctx context.Context, tx storage.Tx) error {
		return tx.CreateClientSecret(ctx, testSecret("s1", "c2"))
	})
	list, err := s.Clients(t.Context(), all(""))
	same(t, "clients", list, err, []storage.Client{testClient("c1")})
}

func testClientSecrets(t *testing.T, s storage.Store) {
	createClient(t, s, testClient("c1"))
	createClient(t, s, testClient("c2"))
	end := noon.Add(time.Hour)
	secret := func(id, client string, expires time.Time) storage.ClientSecret {
		v := testSecret(id, client)
		v.ExpiresAt = expires
		return v
	}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(
			tx.CreateClientSecret(ctx, secret("1 for ever", "c1", time.Time{})),
			tx.CreateClientSecret(ctx, secret("2 later", "c1", end.Add(time.Hour))),
			tx.CreateClientSecret(ctx, secret("3 sooner", "c1", end.Add(-time.Minute))),
			tx.CreateClientSecret(ctx, secret("4 ended", "c1", noon)),
			tx.CreateClientSecret(ctx, secret("5 kept", "c1", time.Time{})),
			tx.CreateClientSecret(ctx, secret("6 other", "c2", time.Time{})),
		)
	})
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return tx.ExpireClientSecrets(ctx, "c1", "5 kept", end, noon)
	})
	c, err := s.Client(t.Context(), "c1")
	same(t, "secrets", c.Secrets, err, []storage.ClientSecret{
		secret("1 for ever", "c1", end), secret("2 later", "c1", end),
		secret("3 sooner", "c1", end.Add(-time.Minute)), secret("5 kept", "c1", time.Time{}),
	})
	other, err := s.Client(t.Context(), "c2")
	same(t, "the other client's", other.Secrets, err, []storage.ClientSecret{secret("6 other", "c2", time.Time{})})

	// Ending them now removes them.
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return tx.ExpireClientSecrets(ctx, "c1", "5 kept", noon, noon)
	})
	c, err = s.Client(t.Context(), "c1")
	same(t, "secrets", c.Secrets, err, []storage.ClientSecret{secret("5 kept", "c1", time.Time{})})
}

func testClientRoles(t *testing.T, s storage.Store) {
	createRoles(t, s, "r1", "r2")
	createClient(t, s, testClient("c1"))
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.GrantClientRole(ctx, "c1", "r2", noon), tx.GrantClientRole(ctx, "c1", "r2", noon), tx.GrantClientRole(ctx, "c1", "r1", noon))
	})
	c, err := s.Client(t.Context(), "c1")
	same(t, "roles", c.Roles, err, []string{"r1", "r2"})
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.RevokeClientRole(ctx, "c1", "r1") })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.RevokeClientRole(ctx, "c1", "r1") })
	refused(t, s, storage.ErrReference, func(ctx context.Context, tx storage.Tx) error { return tx.GrantClientRole(ctx, "c1", "none", noon) })
	refused(t, s, storage.ErrReference, func(ctx context.Context, tx storage.Tx) error { return tx.GrantClientRole(ctx, "none", "r1", noon) })
	c, err = s.Client(t.Context(), "c1")
	same(t, "roles", c.Roles, err, []string{"r2"})
}

func testResources(t *testing.T, s storage.Store) {
	createRoles(t, s, "admin")
	for _, id := range []string{"c1", "c2"} {
		createClient(t, s, testClient(id))
	}
	r := testResource("https://api.example/", "write", "read")
	r.Scopes[0].Role = "admin"
	r.Introspectors = []string{"c2", "c1"}
	other := testResource("https://other.example/", "other")
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.CreateResource(ctx, r), tx.CreateResource(ctx, other))
	})
	slices.Reverse(r.Scopes)
	slices.Reverse(r.Introspectors)
	got, err := s.Resource(t.Context(), r.URI)
	same(t, "resource", got, err, r)
	list, err := s.Resources(t.Context(), all(""))
	same(t, "resources", list, err, []storage.Resource{r, other})

	changed := testResource(r.URI, "read", "delete")
	changed.Name, changed.RolesClaim, changed.TokenLifetime = "New", false, time.Second
	changed.CreatedAt, changed.UpdatedAt = noon.Add(time.Hour), noon.Add(time.Hour)
	changed.Introspectors = []string{"c2"}
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateResource(ctx, changed) })
	changed.CreatedAt = noon
	slices.Reverse(changed.Scopes)
	got, err = s.Resource(t.Context(), r.URI)
	same(t, "updated resource", got, err, changed)

	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteResource(ctx, r.URI) })
	list, err = s.Resources(t.Context(), all(""))
	same(t, "resources", list, err, []storage.Resource{other})
	// Its scopes' names are free again, and a client can go that may introspect.
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		r := testResource("https://next.example/", "read")
		r.Introspectors = []string{"c1"}
		return errors.Join(tx.CreateResource(ctx, r), tx.DeleteClient(ctx, "c1"))
	})
	got, err = s.Resource(t.Context(), "https://next.example/")
	same(t, "introspectors", got.Introspectors, err, nil)
}

func testResourceErrors(t *testing.T, s storage.Store) {
	first := testResource("https://a.example/", "a")
	second := testResource("https://b.example/", "b")
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.CreateResource(ctx, first), tx.CreateResource(ctx, second))
	})
	stranger := testResource("https://c.example/", "c")
	stranger.Introspectors = []string{"nobody"}
	for _, tt := range []struct {
		name string
		want error
		do   func(ctx context.Context, tx storage.Tx) error
	}{
		{"URI taken", storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateResource(ctx, testResource("https://a.example/", "new"))
		}},
		{"scope taken", storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateResource(ctx, testResource("https://c.example/", "a"))
		}},
		{"scope twice", storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateResource(ctx, testResource("https://c.example/", "c", "c"))
		}},
		{"introspector unknown", storage.ErrReference, func(ctx context.Context, tx storage.Tx) error { return tx.CreateResource(ctx, stranger) }},
		{"update takes a scope", storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
			return tx.UpdateResource(ctx, testResource("https://b.example/", "a"))
		}},
		{"update of none", storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateResource(ctx, stranger) }},
		{"delete of none", storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error {
			return tx.DeleteResource(ctx, "https://c.example/")
		}},
	} {
		if err := s.Update(t.Context(), tt.do); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
	}
	list, err := s.Resources(t.Context(), all(""))
	same(t, "resources", list, err, []storage.Resource{first, second})
}

func testRoles(t *testing.T, s storage.Store) {
	b := storage.Role{Name: "b", Resource: "https://a.example/", Description: "B", CreatedAt: noon}
	a := storage.Role{Name: "a", CreatedAt: noon}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.CreateRole(ctx, b), tx.CreateRole(ctx, a))
	})
	roles, err := s.Roles(t.Context(), all(""))
	same(t, "roles", roles, err, []storage.Role{a, b})
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateRole(ctx, a) })

	client, user := testClient("c1"), testUser("u1", "ann")
	client.Roles, user.Roles = []string{"b"}, []string{"a", "b"}
	createClient(t, s, client)
	createUser(t, s, user)
	gated := testResource("https://a.example/", "read")
	gated.Scopes[0].Role = "b"
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		users, clients, err := tx.RoleHolders(ctx, "b")
		same(t, "users", users, err, []string{"u1"})
		same(t, "clients", clients, err, []string{"c1"})
		return tx.CreateResource(ctx, gated)
	})
	refused(t, s, storage.ErrReference, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteRole(ctx, "b") })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteRole(ctx, "none") })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteRole(ctx, "") })
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.DeleteResource(ctx, gated.URI), tx.DeleteRole(ctx, "b"))
	})
	c, err := s.Client(t.Context(), "c1")
	same(t, "client's roles", c.Roles, err, nil)
	u, err := s.User(t.Context(), "u1")
	same(t, "user's roles", u.Roles, err, []string{"a"})
}

func testUsers(t *testing.T, s storage.Store) {
	createRoles(t, s, "b", "a")
	u := testUser("u1", "ann")
	u.Roles = []string{"b", "a"}
	createUser(t, s, u)
	slices.Sort(u.Roles)
	got, err := s.User(t.Context(), "u1")
	same(t, "user", got, err, u)
	first := testUser("u2", "abe")
	createUser(t, s, first)
	list, err := s.Users(t.Context(), all(""))
	same(t, "users", list, err, []storage.User{first, u})

	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(
			tx.SetUserEnabled(ctx, "u1", false, noon.Add(2*time.Hour)),
			tx.RevokeUserRole(ctx, "u1", "a"),
			tx.GrantUserRole(ctx, "u1", "b", noon),
		)
	})
	u.Enabled, u.UpdatedAt, u.Roles = false, noon.Add(2*time.Hour), []string{"b"}
	got, err = s.User(t.Context(), "u1")
	same(t, "changed user", got, err, u)

	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(
			tx.SetPassword(ctx, storage.Password{UserID: "u1", Hash: "x", CreatedAt: noon, UpdatedAt: noon}),
			tx.DeleteUser(ctx, "u1"),
		)
	})
	_, err = s.User(t.Context(), "u1")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.Password(t.Context(), "u1")
	wantErr(t, err, storage.ErrNotFound)
	createUser(t, s, testUser("u3", "ann")) // the name is free again
}

func testUserErrors(t *testing.T, s storage.Store) {
	createRoles(t, s, "r")
	createUser(t, s, testUser("u1", "ann"))
	with := func(change func(*storage.User)) func(context.Context, storage.Tx) error {
		u := testUser("u2", "bob")
		change(&u)
		return func(ctx context.Context, tx storage.Tx) error { return tx.CreateUser(ctx, u) }
	}
	for _, tt := range []struct {
		name string
		want error
		do   func(ctx context.Context, tx storage.Tx) error
	}{
		{"id taken", storage.ErrExists, with(func(u *storage.User) { u.ID = "u1" })},
		{"username taken", storage.ErrExists, with(func(u *storage.User) { u.UsernameKey = "ann" })},
		{"e-mail taken", storage.ErrExists, with(func(u *storage.User) { u.EmailKey = "ann@example.org" })},
		{"role unknown", storage.ErrReference, with(func(u *storage.User) { u.Roles = []string{"none"} })},
		{"enable nobody", storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.SetUserEnabled(ctx, "u2", true, noon) }},
		{"delete nobody", storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteUser(ctx, "u2") }},
		{"grant to nobody", storage.ErrReference, func(ctx context.Context, tx storage.Tx) error { return tx.GrantUserRole(ctx, "u2", "r", noon) }},
		{"grant nothing", storage.ErrReference, func(ctx context.Context, tx storage.Tx) error { return tx.GrantUserRole(ctx, "u1", "none", noon) }},
		{"revoke what is not held", storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.RevokeUserRole(ctx, "u1", "r") }},
		{"password of nobody", storage.ErrReference, func(ctx context.Context, tx storage.Tx) error {
			return tx.SetPassword(ctx, storage.Password{UserID: "u2"})
		}},
	} {
		if err := s.Update(t.Context(), tt.do); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
	}
	// Many people have no e-mail address.
	for _, id := range []string{"u3", "u4"} {
		u := testUser(id, id)
		u.Email, u.EmailKey = "", ""
		createUser(t, s, u)
	}
}

func testUserByLogin(t *testing.T, s storage.Store) {
	ann, bob, none := testUser("u1", "ann"), testUser("u2", "bob"), testUser("u3", "none")
	bob.UsernameKey = "ann@example.org" // somebody else's e-mail address
	none.EmailKey = ""
	for _, u := range []storage.User{ann, bob, none} {
		createUser(t, s, u)
	}
	for key, want := range map[string]string{"ann": "u1", "ann@example.org": "u2", "bob@example.org": "u2", "none": "u3"} {
		u, err := s.UserByLogin(t.Context(), key)
		if err != nil || u.ID != want {
			t.Errorf("%q: user %q, %v, want %q", key, u.ID, err, want)
		}
	}
	for _, key := range []string{"", "bob", "Ann"} {
		_, err := s.UserByLogin(t.Context(), key)
		wantErr(t, err, storage.ErrNotFound)
	}
}

func testPasswords(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	for i, hash := range []string{"$argon2id$1", "$argon2id$2"} {
		p := storage.Password{UserID: "u1", Hash: hash, MustChange: i == 0, CreatedAt: noon, UpdatedAt: noon.Add(time.Duration(i) * time.Hour)}
		update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.SetPassword(ctx, p) })
		got, err := s.Password(t.Context(), "u1")
		same(t, "password", got, err, p)
	}
}

func testSigningKeys(t *testing.T, s storage.Store) {
	key := func(kid string, from time.Time) storage.SigningKey {
		return storage.SigningKey{
			KID: kid, Alg: "ES256", Purpose: "token", PublicJWK: `{"kty":"EC"}`,
			SealedPrivate: []byte{1, 0, 2}, WrappedDEK: []byte{3}, KEKID: "kek",
			PublishAt: noon, SignFrom: from, SignUntil: from.Add(time.Hour), RemoveAt: from.Add(2 * time.Hour), CreatedAt: noon,
			MAC: []byte{0, 4},
		}
	}
	destroyed := key("c", noon)
	destroyed.SealedPrivate, destroyed.WrappedDEK, destroyed.CompromisedAt = nil, nil, noon.Add(time.Minute)
	keys := []storage.SigningKey{key("b", noon), destroyed, key("a", noon.Add(time.Hour))}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.CreateSigningKey(ctx, keys[2]), tx.CreateSigningKey(ctx, keys[1]), tx.CreateSigningKey(ctx, keys[0]))
	})
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateSigningKey(ctx, keys[0]) })
	got, err := s.SigningKeys(t.Context())
	same(t, "signing keys", got, err, keys)

	changed := key("b", noon.Add(-time.Minute))
	changed.SealedPrivate, changed.WrappedDEK, changed.KEKID, changed.MAC = nil, nil, "", []byte{5}
	changed.PublishAt, changed.CompromisedAt = noon.Add(-time.Hour), noon.Add(time.Minute)
	unchanging := changed
	unchanging.Alg, unchanging.Purpose, unchanging.PublicJWK, unchanging.CreatedAt = "x", "x", "x", noon.Add(time.Hour)
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.UpdateSigningKey(ctx, unchanging), tx.DeleteSigningKey(ctx, "c"))
	})
	got, err = s.SigningKeys(t.Context())
	same(t, "signing keys", got, err, []storage.SigningKey{changed, keys[2]})
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateSigningKey(ctx, keys[1]) })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteSigningKey(ctx, "c") })
}

func testSealedSecrets(t *testing.T, s storage.Store) {
	secret := func(id, purpose string, from time.Time) storage.SealedSecret {
		return storage.SealedSecret{ID: id, Purpose: purpose, Sealed: []byte{1}, WrappedDEK: []byte{2}, KEKID: "kek",
			UseFrom: from, RemoveAt: from.Add(time.Hour), CreatedAt: noon, MAC: []byte{3}}
	}
	list := []storage.SealedSecret{secret("c", "mac", noon), secret("b", "mac", noon.Add(time.Second)), secret("a", "other", noon)}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.CreateSealedSecret(ctx, list[2]), tx.CreateSealedSecret(ctx, list[1]), tx.CreateSealedSecret(ctx, list[0]))
	})
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateSealedSecret(ctx, list[0]) })
	got, err := s.SealedSecrets(t.Context(), "mac")
	same(t, "sealed secrets", got, err, list[:2])

	changed := secret("c", "mac", noon.Add(-time.Hour))
	changed.Sealed, changed.WrappedDEK, changed.KEKID, changed.MAC = []byte{4}, []byte{5}, "other", []byte{6}
	changed.UseUntil = noon
	unchanging := changed
	unchanging.Purpose, unchanging.CreatedAt = "x", noon.Add(time.Hour)
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.UpdateSealedSecret(ctx, unchanging), tx.DeleteSealedSecret(ctx, "b"))
	})
	got, err = s.SealedSecrets(t.Context(), "mac")
	same(t, "sealed secrets", got, err, []storage.SealedSecret{changed})
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateSealedSecret(ctx, list[1]) })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteSealedSecret(ctx, "b") })

	none, err := s.ClientSecretKeys(t.Context())
	same(t, "keys of no client secrets", none, err, nil)
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		fault := tx.CreateClient(ctx, testClient("c"))
		for i, keyID := range []string{"k2", "k1", "k2"} {
			secret := testSecret("s"+strconv.Itoa(i), "c")
			secret.KeyID = keyID
			fault = errors.Join(fault, tx.CreateClientSecret(ctx, secret))
		}
		return fault
	})
	used, err := s.ClientSecretKeys(t.Context())
	same(t, "keys of client secrets", used, err, []string{"k1", "k2"})
}

func testSettings(t *testing.T, s storage.Store) {
	for _, v := range []string{"1", "", "2"} {
		update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, "name", v) })
		got, err := s.Setting(t.Context(), "name")
		same(t, "setting", got, err, v)
	}
}

func testUseOnce(t *testing.T, s storage.Store) {
	use := func(kind, key string, expires, now time.Time) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.UseOnce(ctx, storage.OneTime{Kind: kind, KeyHash: []byte(key), CreatedAt: now, ExpiresAt: expires}, now)
		})
	}
	end := noon.Add(time.Minute)
	for _, step := range []struct {
		name, kind, key string
		expires, now    time.Time
		want            error
	}{
		{"first use", "jti", "k", end, noon, nil},
		{"second use", "jti", "k", end, noon, storage.ErrConsumed},
		{"second use with another end", "jti", "k", end.Add(time.Hour), noon, storage.ErrConsumed},
		{"another kind", "link", "k", end, noon, nil},
		{"another value", "jti", "k2", end, noon, nil},
		{"a millisecond before its end", "jti", "k", end.Add(time.Hour), end.Add(-time.Millisecond), storage.ErrConsumed},
		{"at its end", "jti", "k", end.Add(time.Hour), end, nil},
		{"and again", "jti", "k", end.Add(time.Hour), end, storage.ErrConsumed},
		{"a record that would protect nothing", "jti", "k3", noon, noon, storage.ErrInvalid},
		{"without end", "jti", "k4", time.Time{}, noon, nil},
		{"without end, much later", "jti", "k4", time.Time{}, noon.AddDate(50, 0, 0), storage.ErrConsumed},
	} {
		if err := use(step.kind, step.key, step.expires, step.now); !errors.Is(err, step.want) {
			t.Errorf("%s: error = %v, want %v", step.name, err, step.want)
		}
	}
}

func revocation(kind, hash, effect string, until time.Time) storage.Revocation {
	return storage.Revocation{
		Key: storage.RevocationKey{Kind: kind, Hash: []byte(hash)}, Effect: effect, NotBefore: noon.Add(-time.Minute),
		Until: until, Reason: "test", CreatedAt: noon,
	}
}

func appendRevocation(t *testing.T, s storage.Store, r storage.Revocation) int64 {
	t.Helper()
	var seq int64
	update(t, s, func(ctx context.Context, tx storage.Tx) (err error) {
		seq, err = tx.AppendRevocation(ctx, r)
		return err
	})
	return seq
}

func testRevocations(t *testing.T, s storage.Store) {
	end := noon.Add(time.Hour)
	r := revocation("jti", "h1", "block", end)
	r.Seq, r.Chain = 99, []byte("ignored")
	if seq := appendRevocation(t, s, r); seq != 1 {
		t.Errorf("first sequence number = %d, want 1", seq)
	}
	appendRevocation(t, s, revocation("sub", "h1", "epoch", end))
	appendRevocation(t, s, revocation("sub", "h2", "block", time.Time{}))

	key := func(kind, hash string) storage.RevocationKey {
		return storage.RevocationKey{Kind: kind, Hash: []byte(hash)}
	}
	r.Seq = 1
	r.Chain = r.ChainAfter(nil)
	got, err := s.Revocations(t.Context(), []storage.RevocationKey{key("jti", "h1"), key("jti", "h2"), key("jti", "h3")}, noon)
	same(t, "by key", got, err, []storage.Revocation{r})
	got, err = s.Revocations(t.Context(), []storage.RevocationKey{key("jti", "h1")}, end.Add(-time.Millisecond))
	same(t, "just before its end", got, err, []storage.Revocation{r})
	got, err = s.Revocations(t.Context(), []storage.RevocationKey{key("jti", "h1")}, end)
	same(t, "at its end", got, err, nil)
	got, err = s.Revocations(t.Context(), []storage.RevocationKey{key("sub", "h2")}, end.AddDate(50, 0, 0))
	if err != nil || len(got) != 1 {
		t.Errorf("without end: %v, %v", got, err)
	}

	var many []storage.RevocationKey
	for i := range 200 {
		many = append(many, key("grant", strconv.Itoa(i)))
	}
	many = append(many, key("sub", "h1"))
	got, err = s.Revocations(t.Context(), many, noon)
	if err != nil || len(got) != 1 || got[0].Seq != 2 {
		t.Errorf("among 201 keys: %v, %v", got, err)
	}
}

func testRevocationLatest(t *testing.T, s storage.Store) {
	appendRevocation(t, s, revocation("sub", "h", "block", noon.Add(2*time.Hour)))
	appendRevocation(t, s, revocation("sub", "h", "epoch", noon.Add(time.Hour)))
	appendRevocation(t, s, revocation("jti", "h", "block", noon.Add(time.Hour)))
	keys := []storage.RevocationKey{{Kind: "sub", Hash: []byte("h")}}
	got, err := s.Revocations(t.Context(), keys, noon)
	if err != nil || len(got) != 1 || got[0].Effect != "epoch" {
		t.Errorf("latest: %+v, %v", got, err)
	}
	got, err = s.Revocations(t.Context(), keys, noon.Add(time.Hour))
	same(t, "when the latest has ended", got, err, nil)
}

// A process whose clock was read earlier, or is behind, appends later.
func testEpochsGoOn(t *testing.T, s storage.Store) {
	epoch := func(kind, hash string, notBefore time.Time) storage.Revocation {
		r := revocation(kind, hash, storage.EffectEpoch, noon.Add(time.Hour))
		r.NotBefore = notBefore
		return r
	}
	var chain []byte
	for _, step := range []struct {
		name  string
		entry storage.Revocation
		want  time.Time
	}{
		{"the first", epoch("sub", "h", noon), noon},
		{"a later one", epoch("sub", "h", noon.Add(time.Second)), noon.Add(time.Second)},
		{"an earlier one", epoch("sub", "h", noon.Add(-time.Minute)), noon.Add(time.Second)},
		{"another kind", epoch("client", "h", noon.Add(-time.Minute)), noon.Add(-time.Minute)},
		{"another value", epoch("sub", "h2", noon.Add(-time.Minute)), noon.Add(-time.Minute)},
		{"an earlier one again", epoch("sub", "h", noon), noon.Add(time.Second)},
		{"a block", revocation("sub", "h", "block", noon.Add(time.Hour)), noon.Add(-time.Minute)},
		{"what lifts the block", epoch("sub", "h", noon), noon},
	} {
		seq := appendRevocation(t, s, step.entry)
		got, err := s.Revocations(t.Context(), []storage.RevocationKey{step.entry.Key}, noon)
		if err != nil || len(got) != 1 || got[0].Seq != seq || !got[0].NotBefore.Equal(step.want) {
			t.Fatalf("%s: %+v, %v; want not before %s", step.name, got, err, step.want)
		}
		if chain = got[0].ChainAfter(chain); !bytes.Equal(chain, got[0].Chain) {
			t.Errorf("%s: its chain is of another entry", step.name)
		}
	}
}

func testAudit(t *testing.T, s storage.Store) {
	events := []storage.AuditEvent{
		{ID: "01", At: noon, Event: "client.created", Actor: "operator", UserID: "u", ClientID: "c", Address: "192.0.2.1", RequestID: "r", Detail: `{"a":1}`},
		{ID: "02", At: noon.Add(time.Second), Event: "client.deleted"},
		{ID: "03", At: noon.Add(time.Second), Event: "user.deleted", UserID: "u"},
		{ID: "04", At: noon.Add(time.Millisecond), Event: "role.created"}, // by a clock that is behind
		{ID: "05", At: noon.Add(time.Minute), Event: "client.created", ClientID: "c"},
	}
	for _, e := range events {
		update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.AppendAudit(ctx, e) })
	}
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.AppendAudit(ctx, events[0]) })
	ctx := t.Context()
	list := func(what string, f storage.AuditFilter, want ...int) {
		t.Helper()
		if f.Limit == 0 {
			f.Limit = 1000
		}
		var expected []storage.AuditEvent
		for _, i := range want {
			expected = append(expected, events[i])
		}
		got, err := s.AuditEvents(ctx, f)
		same(t, what, got, err, expected)
	}
	list("all, the latest first", storage.AuditFilter{}, 4, 2, 1, 3, 0)
	list("a page", storage.AuditFilter{Limit: 2}, 4, 2)
	list("the next page", storage.AuditFilter{Limit: 2, Before: "03"}, 1, 3)
	list("the last page", storage.AuditFilter{Limit: 2, Before: "04"}, 0)
	list("nothing before the first", storage.AuditFilter{Before: "01"})
	list("since", storage.AuditFilter{Since: noon.Add(time.Second)}, 4, 2, 1)
	list("since, before", storage.AuditFilter{Since: noon.Add(time.Second), Before: "03"}, 1)
	list("of a user", storage.AuditFilter{UserID: "u"}, 2, 0)
	list("of a user, before", storage.AuditFilter{UserID: "u", Before: "03"}, 0)
	list("of a client", storage.AuditFilter{ClientID: "c"}, 4, 0)
	list("of both", storage.AuditFilter{ClientID: "c", UserID: "u", Since: noon}, 0)
	list("of nobody", storage.AuditFilter{UserID: "v"})
	_, err := s.AuditEvents(ctx, storage.AuditFilter{Before: "99", Limit: 1})
	wantErr(t, err, storage.ErrNotFound)
}

func testPages(t *testing.T, s storage.Store) {
	var want []string
	for i := range 7 {
		id := "id" + strconv.Itoa(i)
		want = append(want, id)
		createClient(t, s, testClient(id))
		createRoles(t, s, id)
		u := testUser(id, id)
		u.Roles = []string{id}
		createUser(t, s, u)
		r := testResource(id, "scope"+id)
		r.Introspectors = []string{id}
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			secret := testSecret("secret"+id, id)
			return errors.Join(tx.CreateResource(ctx, r), tx.CreateClientSecret(ctx, secret), tx.GrantClientRole(ctx, id, id, noon))
		})
	}
	ctx := t.Context()
	for what, list := range map[string]func(storage.Page) ([]string, error){
		"clients": func(p storage.Page) (ids []string, err error) {
			list, err := s.Clients(ctx, p)
			for _, c := range list {
				ids = append(ids, c.ID)
				if len(c.Secrets) != 1 || c.Secrets[0].ClientID != c.ID || !slices.Equal(c.Roles, []string{c.ID}) {
					t.Errorf("client %s has %v and %v", c.ID, c.Secrets, c.Roles)
				}
			}
			return ids, err
		},
		"resources": func(p storage.Page) (ids []string, err error) {
			list, err := s.Resources(ctx, p)
			for _, r := range list {
				ids = append(ids, r.URI)
				if len(r.Scopes) != 1 || r.Scopes[0].Name != "scope"+r.URI || !slices.Equal(r.Introspectors, []string{r.URI}) {
					t.Errorf("resource %s has %v and %v", r.URI, r.Scopes, r.Introspectors)
				}
			}
			return ids, err
		},
		"roles": func(p storage.Page) (ids []string, err error) {
			list, err := s.Roles(ctx, p)
			for _, r := range list {
				ids = append(ids, r.Name)
			}
			return ids, err
		},
		"users": func(p storage.Page) (ids []string, err error) {
			list, err := s.Users(ctx, p)
			for _, u := range list {
				ids = append(ids, u.UsernameKey)
				if !slices.Equal(u.Roles, []string{u.ID}) {
					t.Errorf("user %s has %v", u.ID, u.Roles)
				}
			}
			return ids, err
		},
	} {
		var got []string
		page := storage.Page{Limit: 3}
		for {
			ids, err := list(page)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if len(ids) == 0 {
				break
			}
			if len(ids) > page.Limit {
				t.Errorf("%s: a page of %d", what, len(ids))
			}
			got = append(got, ids...)
			page.After = ids[len(ids)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
}

func testSorting(t *testing.T, s storage.Store) {
	want := []string{"-", "A", "Z", "_", "a", "a-b", "a_b", "ab", "z", "é", "☃"}
	for _, id := range []string{"☃", "a_b", "z", "A", "é", "ab", "-", "Z", "a-b", "_", "a"} {
		createClient(t, s, storage.Client{ID: id})
	}
	list, err := s.Clients(t.Context(), all(""))
	var got []string
	for _, c := range list {
		got = append(got, c.ID)
	}
	same(t, "order", got, err, want)
}

func testRegistryVersion(t *testing.T, s storage.Store) {
	version := func() int64 {
		t.Helper()
		v, err := s.RegistryVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	createRoles(t, s, "r", "gone")
	createUser(t, s, testUser("u", "ann"))
	resource := testResource("https://a.example/")
	for _, step := range []struct {
		name  string
		grows bool
		do    func(ctx context.Context, tx storage.Tx) error
	}{
		{"create client", true, func(ctx context.Context, tx storage.Tx) error { return tx.CreateClient(ctx, testClient("c")) }},
		{"update client", true, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateClient(ctx, testClient("c")) }},
		{"create secret", true, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateClientSecret(ctx, testSecret("s", "c"))
		}},
		{"expire secrets", true, func(ctx context.Context, tx storage.Tx) error {
			return tx.ExpireClientSecrets(ctx, "c", "", noon.Add(time.Hour), noon)
		}},
		{"grant client role", true, func(ctx context.Context, tx storage.Tx) error { return tx.GrantClientRole(ctx, "c", "r", noon) }},
		{"revoke client role", true, func(ctx context.Context, tx storage.Tx) error { return tx.RevokeClientRole(ctx, "c", "r") }},
		{"delete client", true, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteClient(ctx, "c") }},
		{"create resource", true, func(ctx context.Context, tx storage.Tx) error { return tx.CreateResource(ctx, resource) }},
		{"update resource", true, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateResource(ctx, resource) }},
		{"delete resource", true, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteResource(ctx, resource.URI) }},
		{"create role", true, func(ctx context.Context, tx storage.Tx) error { return tx.CreateRole(ctx, storage.Role{Name: "new"}) }},
		{"delete role", true, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteRole(ctx, "gone") }},
		{"create signing key", true, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateSigningKey(ctx, storage.SigningKey{KID: "k"})
		}},
		{"create sealed secret", true, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateSealedSecret(ctx, storage.SealedSecret{ID: "s"})
		}},
		{"update signing key", true, func(ctx context.Context, tx storage.Tx) error {
			return tx.UpdateSigningKey(ctx, storage.SigningKey{KID: "k"})
		}},
		{"update sealed secret", true, func(ctx context.Context, tx storage.Tx) error {
			return tx.UpdateSealedSecret(ctx, storage.SealedSecret{ID: "s"})
		}},
		{"delete signing key", true, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteSigningKey(ctx, "k") }},
		{"delete sealed secret", true, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteSealedSecret(ctx, "s") }},
		{"lock", true, func(ctx context.Context, tx storage.Tx) error { return tx.LockRegistry(ctx) }},
		{"nothing", false, func(ctx context.Context, tx storage.Tx) error { return nil }},
		{"setting", false, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, "n", "v") }},
		{"user role", false, func(ctx context.Context, tx storage.Tx) error { return tx.GrantUserRole(ctx, "u", "r", noon) }},
		{"prune without client secrets", false, func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PruneExpired(ctx, noon, 10)
			return err
		}},
	} {
		before := version()
		update(t, s, step.do)
		if grew := version() - before; (grew > 0) != step.grows {
			t.Errorf("%s: the version grew by %d", step.name, grew)
		}
	}

	before := version()
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.CreateRole(ctx, storage.Role{Name: "r1"}), tx.CreateRole(ctx, storage.Role{Name: "r2"}), tx.LockRegistry(ctx))
	})
	if v := version(); v != before+1 {
		t.Errorf("one transaction took the version from %d to %d", before, v)
	}
	refused(t, s, errRollback, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.LockRegistry(ctx), errRollback)
	})
	if v := version(); v != before+1 {
		t.Errorf("an undone transaction took the version from %d to %d", before+1, v)
	}
}

func prune(t *testing.T, s storage.Store, now time.Time, limit int) (n int) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) (err error) {
		n, err = tx.PruneExpired(ctx, now, limit)
		return err
	})
	return n
}

func testPrune(t *testing.T, s storage.Store) {
	createClient(t, s, testClient("c"))
	now := noon.Add(time.Hour)
	ends := map[string]time.Time{"1 before": now.Add(-time.Millisecond), "2 at": now, "3 after": now.Add(time.Millisecond), "4 never": {}}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		if err := tx.LockRegistry(ctx); err != nil {
			return err
		}
		for name, end := range ends {
			secret := testSecret(name, "c")
			secret.ExpiresAt = end
			_, err := tx.AppendRevocation(ctx, revocation("jti", name, "block", end))
			if err := errors.Join(err, tx.CreateClientSecret(ctx, secret),
				tx.UseOnce(ctx, storage.OneTime{Kind: "jti", KeyHash: []byte(name), ExpiresAt: end}, noon)); err != nil {
				return err
			}
		}
		return nil
	})
	version, err := s.RegistryVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{3, 3, 0} { // one of each kind, twice
		if n := prune(t, s, now, 1); n != want {
			t.Errorf("round %d removed %d, want %d", i, n, want)
		}
	}
	if v, err := s.RegistryVersion(t.Context()); err != nil || v <= version {
		t.Errorf("secrets went, but the registry's version stands at %d, %v", v, err)
	}
	c, err := s.Client(t.Context(), "c")
	var left []string
	for _, secret := range c.Secrets {
		left = append(left, secret.ID)
	}
	same(t, "secrets left", left, err, []string{"3 after", "4 never"})
	refused(t, s, storage.ErrConsumed, func(ctx context.Context, tx storage.Tx) error {
		return tx.UseOnce(ctx, storage.OneTime{Kind: "jti", KeyHash: []byte("3 after"), ExpiresAt: now.Add(time.Hour)}, now)
	})
	revs, err := s.Revocations(t.Context(), []storage.RevocationKey{{Kind: "jti", Hash: []byte("3 after")}, {Kind: "jti", Hash: []byte("4 never")}}, now)
	if err != nil || len(revs) != 2 {
		t.Errorf("revocations left: %v, %v", revs, err)
	}
}

func testPruneRevocations(t *testing.T, s storage.Store) {
	appendRevocation(t, s, revocation("sub", "h", "block", noon.Add(2*time.Hour)))
	appendRevocation(t, s, revocation("sub", "h", "epoch", noon.Add(time.Hour)))
	appendRevocation(t, s, revocation("jti", "h", "block", noon.Add(time.Hour)))
	now := noon.Add(90 * time.Minute)
	if n := prune(t, s, now, 10); n != 1 {
		t.Errorf("removed %d, want 1", n)
	}
	got, err := s.Revocations(t.Context(), []storage.RevocationKey{{Kind: "sub", Hash: []byte("h")}}, now)
	same(t, "revocations", got, err, nil)
	if n := prune(t, s, noon.Add(3*time.Hour), 10); n != 2 {
		t.Errorf("removed %d in the end, want 2", n)
	}
	if seq := appendRevocation(t, s, revocation("jti", "h", "block", noon.Add(time.Hour))); seq != 4 {
		t.Errorf("next sequence number = %d, want 4", seq)
	}
}

func testTimes(t *testing.T, s storage.Store) {
	zone := time.FixedZone("", 5*3600)
	for i, tt := range []struct{ in, want time.Time }{
		{time.Time{}, time.Time{}},
		{noon, noon},
		{noon.In(zone), noon},
		{noon.Add(999 * time.Microsecond), noon},
		{time.Date(1969, 7, 20, 20, 17, 40, 5e6, time.UTC), time.Date(1969, 7, 20, 20, 17, 40, 5e6, time.UTC)},
		{time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)},
	} {
		id := strconv.Itoa(i)
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			return tx.AppendAudit(ctx, storage.AuditEvent{ID: id, At: tt.in})
		})
		events, err := s.AuditEvents(t.Context(), storage.AuditFilter{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(events, func(e storage.AuditEvent) bool { return e.ID == id })
		same(t, "time", events[at].At, nil, tt.want)
	}
}

func testSlices(t *testing.T, s storage.Store) {
	c := storage.Client{ID: "c", GrantTypes: []string{}, RedirectURIs: nil, RegistrationTokenHash: []byte{}, Scopes: []string{""}}
	createClient(t, s, c)
	c.GrantTypes, c.RegistrationTokenHash = nil, nil
	got, err := s.Client(t.Context(), "c")
	same(t, "client", got, err, c)

	// What a read returns is the caller's own.
	got.Scopes[0] = "changed"
	got, err = s.Client(t.Context(), "c")
	same(t, "client", got, err, c)
}

func testHostileStrings(t *testing.T, s storage.Store) {
	for _, v := range []string{
		`'; DROP TABLE clients; --`, `"quoted" 'single' \back\slash`, "line\r\nbreak\ttab", "%_*?[a-z]", "$1 ? :name @x",
		"ünïcödé ☃ 𝔘 \u202e\ufeff\ufffd", "\x01\x1f\x7f", " leading and trailing ", `["not","a","list"]`, `{"not":"ours"}`, "\\x00", "NULL", "0",
	} {
		c := storage.Client{ID: v, Name: v, Scopes: []string{v, "", v}, Metadata: v}
		createClient(t, s, c)
		got, err := s.Client(t.Context(), v)
		same(t, "client", got, err, c)
	}
}

func testInvalidText(t *testing.T, s storage.Store) {
	for _, bad := range []string{"a\x00b", "\x00", "a\xffb", "\xed\xa0\x80"} {
		_, err := s.Client(t.Context(), bad)
		wantErr(t, err, storage.ErrInvalid)
		_, err = s.UserByLogin(t.Context(), bad)
		wantErr(t, err, storage.ErrInvalid)
		_, err = s.Clients(t.Context(), all(bad))
		wantErr(t, err, storage.ErrInvalid)
		refused(t, s, storage.ErrInvalid, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, "name", bad) })
		refused(t, s, storage.ErrInvalid, func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateClient(ctx, storage.Client{ID: "c", Name: bad})
		})
		if bad != "a\x00b" && bad != "\x00" { // in a list a NUL could be escaped, but why
			refused(t, s, storage.ErrInvalid, func(ctx context.Context, tx storage.Tx) error {
				return tx.CreateClient(ctx, storage.Client{ID: "c", Scopes: []string{bad}})
			})
		}
		// A transaction that swallows the error is not committed either.
		refused(t, s, storage.ErrInvalid, func(ctx context.Context, tx storage.Tx) error {
			_, _ = tx.Client(ctx, bad)
			return nil
		})
	}
	// Bytes are bytes.
	hash := []byte("a\x00\xff")
	appendRevocation(t, s, revocation("jti", string(hash), "block", noon.Add(time.Hour)))
	got, err := s.Revocations(t.Context(), []storage.RevocationKey{{Kind: "jti", Hash: hash}}, noon)
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Key.Hash, hash) {
		t.Errorf("revocations: %v, %v", got, err)
	}
}

var errRollback = errors.New("rolled back on purpose")

func testRollback(t *testing.T, s storage.Store) {
	createRoles(t, s, "r")
	err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		if err := errors.Join(tx.CreateClient(ctx, testClient("c")), tx.SetSetting(ctx, "n", "v"), tx.DeleteRole(ctx, "r")); err != nil {
			return err
		}
		_, err := tx.AppendRevocation(ctx, revocation("jti", "h", "block", noon.Add(time.Hour)))
		return errors.Join(err, errRollback)
	})
	wantErr(t, err, errRollback)
	_, err = s.Client(t.Context(), "c")
	wantErr(t, err, storage.ErrNotFound)
	_, err = s.Setting(t.Context(), "n")
	wantErr(t, err, storage.ErrNotFound)
	roles, err := s.Roles(t.Context(), all(""))
	if err != nil || len(roles) != 1 {
		t.Errorf("roles: %v, %v", roles, err)
	}
	if seq := appendRevocation(t, s, revocation("jti", "h", "block", noon.Add(time.Hour))); seq != 1 {
		t.Errorf("the undone entry left a gap: the next is %d", seq)
	}
}

func testVisibility(t *testing.T, s storage.Store) {
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		if err := tx.CreateClient(ctx, testClient("c")); err != nil {
			return err
		}
		got, err := tx.Client(ctx, "c")
		same(t, "inside", got, err, testClient("c"))
		_, err = s.Client(ctx, "c")
		wantErr(t, err, storage.ErrNotFound)
		return nil
	})
	got, err := s.Client(t.Context(), "c")
	same(t, "after", got, err, testClient("c"))
}

func testPoisoned(t *testing.T, s storage.Store) {
	createRoles(t, s, "r")
	for _, tt := range []struct {
		name string
		want error
		fail func(ctx context.Context, tx storage.Tx) error
	}{
		{"exists", storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateRole(ctx, storage.Role{Name: "r"}) }},
		{"reference", storage.ErrReference, func(ctx context.Context, tx storage.Tx) error {
			return tx.GrantClientRole(ctx, "none", "r", noon)
		}},
		{"invalid", storage.ErrInvalid, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, "\x00", "") }},
	} {
		err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			if err := tx.SetSetting(ctx, tt.name, "v"); err != nil {
				return err
			}
			wantErr(t, tt.fail(ctx, tx), tt.want)
			if err := tx.SetSetting(ctx, "after", "v"); !errors.Is(err, tt.want) {
				t.Errorf("%s: the next statement: %v", tt.name, err)
			}
			return nil
		})
		wantErr(t, err, tt.want)
		_, err = s.Setting(t.Context(), tt.name)
		wantErr(t, err, storage.ErrNotFound)
	}
}

func testNotPoisoned(t *testing.T, s storage.Store) {
	value := storage.OneTime{Kind: "jti", KeyHash: []byte("x"), ExpiresAt: noon.Add(time.Hour)}
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.UseOnce(ctx, value, noon) })
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.Client(ctx, "none")
		wantErr(t, err, storage.ErrNotFound)
		wantErr(t, tx.DeleteClient(ctx, "none"), storage.ErrNotFound)
		wantErr(t, tx.UseOnce(ctx, value, noon), storage.ErrConsumed)
		return tx.SetSetting(ctx, "reuse", "noticed")
	})
	got, err := s.Setting(t.Context(), "reuse")
	same(t, "setting", got, err, "noticed")
}

func testLockOrder(t *testing.T, s storage.Store) {
	err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		if _, err := tx.AppendRevocation(ctx, revocation("jti", "h", "block", noon.Add(time.Hour))); err != nil {
			return err
		}
		return tx.LockRegistry(ctx)
	})
	if err == nil || errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("error = %v, want one that names the order", err)
	}
}

func testPanic(t *testing.T, s storage.Store) {
	func() {
		defer func() {
			if v := recover(); v != "on purpose" {
				t.Errorf("recovered %v", v)
			}
		}()
		_ = s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			if err := tx.SetSetting(ctx, "n", "v"); err != nil {
				return err
			}
			panic("on purpose")
		})
	}()
	_, err := s.Setting(t.Context(), "n")
	wantErr(t, err, storage.ErrNotFound)
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, "n", "v") })
}

func testContext(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.RegistryVersion(ctx)
	wantErr(t, err, context.Canceled)
	ran := false
	err = s.Update(ctx, func(context.Context, storage.Tx) error { ran = true; return nil })
	wantErr(t, err, context.Canceled)
	if ran {
		t.Error("an update ran whose caller had left")
	}
	if errors.Is(err, storage.ErrUnavailable) {
		t.Error("the database is blamed for a caller that left")
	}

	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = s.RegistryVersion(late)
	wantErr(t, err, storage.ErrUnavailable)

	// Cancelled half way: nothing is kept, the store goes on.
	ctx, cancel = context.WithCancel(t.Context())
	err = s.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if err := tx.SetSetting(ctx, "n", "v"); err != nil {
			return err
		}
		cancel()
		return tx.SetSetting(ctx, "m", "v")
	})
	wantErr(t, err, context.Canceled)
	_, err = s.Setting(t.Context(), "n")
	wantErr(t, err, storage.ErrNotFound)
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.SetSetting(ctx, "n", "v") })
}

func testClock(t *testing.T, s storage.Store) {
	now, err := s.Now(t.Context())
	if err != nil || time.Until(now).Abs() > time.Minute {
		t.Errorf("Now = %v, %v", now, err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func testClosed(t *testing.T, s storage.Store) {
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := s.RegistryVersion(t.Context())
	wantErr(t, err, storage.ErrUnavailable)
	wantErr(t, s.Update(t.Context(), func(context.Context, storage.Tx) error { return nil }), storage.ErrUnavailable)
	wantErr(t, s.Ping(t.Context()), storage.ErrUnavailable)
}

// number makes a distinct key of each i.
func number(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

// While an update goes on a connection is busy, and it is no longer afterwards.
func testLoad(t *testing.T, s storage.Store) {
	busy := func() int {
		l := s.Load()
		if l.Open < 1 || l.Open > l.Limit || l.Busy < 0 || l.Busy > l.Limit || l.Waits < 0 || l.Waited < 0 {
			t.Errorf("load: %+v", l)
		}
		return l.Busy
	}
	err := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		if busy() == 0 {
			t.Error("an update is under way, and no connection is busy")
		}
		return tx.SetSetting(ctx, "load", "1")
	})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); busy() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a connection stays busy")
		}
	}
}
