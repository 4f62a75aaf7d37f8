package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// testGrant is a grant whose code is not used yet, as it is read back.
func testGrant(id, user, client string) storage.Grant {
	codeEnd := noon.Add(time.Minute)
	return storage.Grant{
		ID: id, ClientID: client, UserID: user, SessionID: "s1",
		Scopes: []string{"openid", "orders:read"}, Resources: []string{"https://api.example/?a=1,2", "https://issuer.example"},
		AuthTime: noon.Add(-time.Hour), ACR: "1", AMR: []string{"pwd"}, Nonce: `n"once'`, ClaimsRequest: `{"userinfo":{"name":null}}`,
		RedirectURI: "https://a.example/cb?x=1", CodeChallenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
		CodeExpiresAt: codeEnd, Seed: []byte{0, 1, 255}, KeyVersion: "k1", IdleEnd: codeEnd, AbsoluteEnd: codeEnd,
		BoundJKT: "jkt", CreatedAt: noon,
	}
}

func createGrant(t *testing.T, s storage.Store, grants ...storage.Grant) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		for _, g := range grants {
			if err := tx.CreateGrant(ctx, g); err != nil {
				return err
			}
		}
		return nil
	})
}

var redemption = storage.Redemption{KeyVersion: "k2", IdleEnd: noon.Add(time.Hour), AbsoluteEnd: noon.Add(24 * time.Hour)}

func redeem(t *testing.T, s storage.Store, id string, now time.Time) error {
	t.Helper()
	return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.RedeemCode(ctx, id, now, redemption) })
}

func rotate(t *testing.T, s storage.Store, id string, from int64, now time.Time) error {
	t.Helper()
	return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		return tx.RotateGrant(ctx, id, from, now, "k3", now.Add(time.Hour))
	})
}

func revoke(t *testing.T, s storage.Store, id, reason string) (changed bool, err error) {
	t.Helper()
	err = s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		changed, err = tx.RevokeGrant(ctx, id, noon, reason)
		return err
	})
	return changed, err
}

func testConsents(t *testing.T, s storage.Store) {
	for _, id := range []string{"u1", "u2"} {
		createUser(t, s, testUser(id, id))
	}
	for _, id := range []string{"c1", "c2"} {
		createClient(t, s, testClient(id))
	}
	consent := func(user, client, resource, scope string, implicit bool, after time.Duration) storage.Consent {
		return storage.Consent{UserID: user, ClientID: client, Scope: scope, Resource: resource, Implicit: implicit, GrantedAt: noon.Add(after)}
	}
	put := func(consents ...storage.Consent) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.PutConsents(ctx, consents) })
	}
	const api, issuer = "https://api.example/", "https://issuer.example"
	wantErr(t, put(
		consent("u1", "c2", api, "write", false, 0),
		consent("u1", "c1", issuer, "openid", false, 0),
		consent("u1", "c1", api, "write", true, 0),
		consent("u1", "c1", api, "Read", false, 0),
		consent("u1", "c1", issuer, "write", false, 0), // the same name elsewhere
		consent("u2", "c1", api, "write", true, 0),
	), nil)
	wantErr(t, put(), nil)
	later := []storage.Consent{
		consent("u1", "c1", api, "Read", true, time.Hour),   // explicit before: stays
		consent("u1", "c1", api, "write", false, time.Hour), // implicit before: replaced
		consent("u2", "c1", api, "write", true, time.Hour),  // implicit before: stays
		consent("u1", "c2", api, "write", false, time.Hour), // explicit before: stays
	}
	wantErr(t, put(later...), nil)
	got, err := s.Consents(t.Context(), "u1", "c1")
	same(t, "consents", got, err, []storage.Consent{
		consent("u1", "c1", api, "Read", false, 0), consent("u1", "c1", api, "write", false, time.Hour),
		consent("u1", "c1", issuer, "openid", false, 0), consent("u1", "c1", issuer, "write", false, 0),
	})
	all, err := s.ConsentsOfUser(t.Context(), "u1")
	same(t, "consents of the user", all, err, append(got, consent("u1", "c2", api, "write", false, 0)))
	other, err := s.ConsentsOfUser(t.Context(), "u2")
	same(t, "consents of the other", other, err, []storage.Consent{consent("u2", "c1", api, "write", true, 0)})

	host := func(user, client, host string) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.PutConsentHost(ctx, user, client, host, noon)
		})
	}
	known := func(user, client, host string, want bool) {
		t.Helper()
		got, err := s.ConsentHost(t.Context(), user, client, host)
		same(t, "host "+host, got, err, want)
	}
	known("u1", "c1", "a.example", false)
	for range 2 {
		wantErr(t, host("u1", "c1", "a.example"), nil)
	}
	wantErr(t, host("u1", "c1", "b.example:8443"), nil)
	wantErr(t, host("u1", "c2", "a.example"), nil)
	known("u1", "c1", "a.example", true)
	known("u1", "c1", "b.example:8443", true)
	known("u1", "c1", "b.example", false)
	known("u2", "c1", "a.example", false)
	wantErr(t, host("nobody", "c1", "a.example"), storage.ErrReference)
	wantErr(t, host("u1", "none", "a.example"), storage.ErrReference)

	wantErr(t, put(consent("nobody", "c1", api, "x", false, 0)), storage.ErrReference)
	wantErr(t, put(consent("u1", "none", api, "x", false, 0)), storage.ErrReference)

	for _, want := range []int{4, 0} {
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			n, err := tx.DeleteConsents(ctx, "u1", "c1")
			same(t, "deleted", n, err, want)
			return err
		})
	}
	known("u1", "c1", "a.example", false)
	known("u1", "c2", "a.example", true)
	all, err = s.ConsentsOfUser(t.Context(), "u1")
	same(t, "consents left", all, err, []storage.Consent{consent("u1", "c2", api, "write", false, 0)})
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.DeleteUser(ctx, "u1"), tx.DeleteClient(ctx, "c1"))
	})
	for _, id := range []string{"u1", "u2"} {
		all, err = s.ConsentsOfUser(t.Context(), id)
		same(t, "consents after that", all, err, nil)
	}
}

// A grant's whole life, column by column.
func testGrants(t *testing.T, s storage.Store) {
	_, err := s.Grant(t.Context(), "g1")
	wantErr(t, err, storage.ErrNotFound)
	want, other := testGrant("g1", "u1", "c1"), testGrant("g2", "u1", "c1")
	want.Offline, want.StatusIndex, want.Subject, want.SID = true, 7, "_sub", "_sid"
	made := want
	made.CodeUsedAt, made.RotatedAt, made.RevokedAt = noon, noon, noon // none of this is a new grant's
	made.Generation, made.RevokeReason = 9, "born dead"
	made.IdleEnd, made.AbsoluteEnd = noon.AddDate(1, 0, 0), noon.AddDate(1, 0, 0)
	createGrant(t, s, made, other)
	check := func(what string) {
		t.Helper()
		got, err := s.Grant(t.Context(), "g1")
		same(t, what, got, err, want)
	}
	check("new grant")
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
		return tx.CreateGrant(ctx, testGrant("g1", "u2", "c2"))
	})
	taken := testGrant("g3", "u1", "c1")
	taken.StatusIndex = 7
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error { return tx.CreateGrant(ctx, taken) })

	used := noon.Add(time.Second)
	wantErr(t, redeem(t, s, "g1", used), nil)
	want.CodeUsedAt, want.Generation, want.KeyVersion = used, 1, "k2"
	want.IdleEnd, want.AbsoluteEnd = redemption.IdleEnd, redemption.AbsoluteEnd
	check("redeemed grant")

	for n := range 2 {
		at := noon.Add(time.Duration(n+1) * time.Minute)
		wantErr(t, rotate(t, s, "g1", want.Generation, at), nil)
		want.Generation, want.KeyVersion, want.RotatedAt, want.IdleEnd = want.Generation+1, "k3", at, at.Add(time.Hour)
		check("rotated grant")
	}

	for _, step := range []struct {
		id   string
		want bool
	}{{"g1", true}, {"g1", false}, {"none", false}} {
		changed, err := revoke(t, s, step.id, "reuse")
		same(t, "revoked "+step.id, changed, err, step.want)
	}
	want.RevokedAt, want.RevokeReason = noon, "reuse"
	changed, err := revoke(t, s, "g1", "another reason")
	same(t, "revoked again", changed, err, false)
	check("revoked grant")

	got, err := s.Grant(t.Context(), "g2")
	same(t, "the other grant", got, err, other)
}

// What clients call a person and a session is found from either side.
func testPairwise(t *testing.T, s storage.Store) {
	for i, g := range []struct {
		user, session, subject, sid string
		offline, revoked            bool
	}{
		{"u1", "s1", "_b1", "_y1", false, false},
		{"u1", "s1", "_b1", "_y1", false, false}, // signed in twice
		{"u1", "s1", "_B1", "_Y1", false, false},
		{"u1", "s1", "_a1", "_offline", true, false},
		{"u1", "s1", "_c1", "_revoked", false, true},
		{"u1", "s2", "_b1", "_y2", false, false},
		{"u1", "s1", "", "", false, false}, // of a public client
		{"u2", "s3", "_b2", "_y3", false, false},
	} {
		v := testGrant(fmt.Sprintf("g%d", i), g.user, "c1")
		v.SessionID, v.Subject, v.SID, v.Offline = g.session, g.subject, g.sid, g.offline
		createGrant(t, s, v)
		if g.revoked {
			_, err := revoke(t, s, v.ID, "test")
			wantErr(t, err, nil)
		}
	}
	for user, want := range map[string][]string{"u1": {"_B1", "_a1", "_b1", "_c1"}, "u2": {"_b2"}, "u3": nil} {
		got, err := s.PairwiseSubjects(t.Context(), user)
		same(t, "subjects of "+user, got, err, want)
	}
	for session, want := range map[string][]string{"s1": {"_Y1", "_y1"}, "s2": {"_y2"}, "s4": nil} {
		got, err := s.PairwiseSIDs(t.Context(), session)
		same(t, "sids of "+session, got, err, want)
	}
	for subject, want := range map[string]string{"_b1": "u1", "_c1": "u1", "_b2": "u2"} {
		got, err := s.PairwiseUser(t.Context(), subject)
		same(t, "user of "+subject, got, err, want)
	}
	for sid, want := range map[string]string{"_y1": "s1", "_y2": "s2", "_offline": "s1"} {
		got, err := s.PairwiseSession(t.Context(), sid)
		same(t, "session of "+sid, got, err, want)
	}
	for _, unknown := range []string{"", "u1", "s1", "_none"} {
		_, err := s.PairwiseUser(t.Context(), unknown)
		wantErr(t, err, storage.ErrNotFound)
		_, err = s.PairwiseSession(t.Context(), unknown)
		wantErr(t, err, storage.ErrNotFound)
	}
}

// Who holds a user's lock is alone with it, also against changes of the row.
func raceLockUser(t *testing.T, s storage.Store) {
	user := testUser("u1", "u1")
	createUser(t, s, user)
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.LockUser(ctx, "u2") })
	count := func(ctx context.Context, tx storage.Tx) error {
		var n int
		text, err := tx.Setting(ctx, "count")
		if err == nil {
			n, err = strconv.Atoi(text)
		} else if errors.Is(err, storage.ErrNotFound) {
			err = nil
		}
		return errors.Join(err, tx.SetSetting(ctx, "count", strconv.Itoa(n+1)))
	}
	noErrors(t, race(func(i int) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			lock := tx.LockUser(ctx, "u1")
			if i%2 == 0 {
				lock = tx.SetUserEnabled(ctx, "u1", true, user.UpdatedAt)
			}
			return errors.Join(lock, count(ctx, tx))
		})
	}))
	got, err := s.Setting(t.Context(), "count")
	same(t, "count", got, err, strconv.Itoa(racers))
	left, err := s.User(t.Context(), "u1")
	same(t, "the user", left, err, user)
}

func testRedeemCode(t *testing.T, s storage.Store) {
	end := testGrant("", "", "").CodeExpiresAt
	for _, tt := range []struct {
		name   string
		before func(id string) error
		now    time.Time
		want   error
	}{
		{"new", nil, noon, nil},
		{"a millisecond before its end", nil, end.Add(-time.Millisecond), nil},
		{"expired", nil, end, storage.ErrConsumed},
		{"used", func(id string) error { return redeem(t, s, id, noon) }, noon, storage.ErrConsumed},
		{"rotated", func(id string) error { return errors.Join(redeem(t, s, id, noon), rotate(t, s, id, 1, noon)) }, noon, storage.ErrConsumed},
		{"revoked", func(id string) error { _, err := revoke(t, s, id, "x"); return err }, noon, storage.ErrConsumed},
	} {
		createGrant(t, s, testGrant(tt.name, "u1", "c1"))
		if tt.before != nil {
			wantErr(t, tt.before(tt.name), nil)
		}
		before, _ := s.Grant(t.Context(), tt.name)
		if err := redeem(t, s, tt.name, tt.now); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
		if after, err := s.Grant(t.Context(), tt.name); tt.want != nil {
			same(t, tt.name+": left as it was", after, err, before)
		}
	}
	wantErr(t, redeem(t, s, "unknown", noon), storage.ErrConsumed)
}

func testRotateGrant(t *testing.T, s storage.Store) {
	redeemed := func(id string) error { return redeem(t, s, id, noon) }
	for _, tt := range []struct {
		name   string
		before func(id string) error
		from   int64
		now    time.Time
		want   error
	}{
		{"redeemed", redeemed, 1, noon, nil},
		{"a millisecond before its idle end", redeemed, 1, redemption.IdleEnd.Add(-time.Millisecond), nil},
		{"idle", redeemed, 1, redemption.IdleEnd, storage.ErrConsumed},
		{"too old", func(id string) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				return errors.Join(tx.RedeemCode(ctx, id, noon, redemption), // the idle end moves beyond the absolute one
					tx.RotateGrant(ctx, id, 1, noon, "k3", redemption.AbsoluteEnd.Add(time.Hour)))
			})
		}, 2, redemption.AbsoluteEnd, storage.ErrConsumed},
		{"not redeemed", nil, 0, noon, storage.ErrConsumed},
		{"not redeemed, next generation", nil, 1, noon, storage.ErrConsumed},
		{"generation ahead", redeemed, 2, noon, storage.ErrConsumed},
		{"generation behind", func(id string) error { return errors.Join(redeemed(id), rotate(t, s, id, 1, noon)) }, 1, noon, storage.ErrConsumed},
		{"revoked", func(id string) error {
			if err := redeemed(id); err != nil {
				return err
			}
			_, err := revoke(t, s, id, "x")
			return err
		}, 1, noon, storage.ErrConsumed},
	} {
		createGrant(t, s, testGrant(tt.name, "u1", "c1"))
		if tt.before != nil {
			wantErr(t, tt.before(tt.name), nil)
		}
		before, _ := s.Grant(t.Context(), tt.name)
		if err := rotate(t, s, tt.name, tt.from, tt.now); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
		if after, err := s.Grant(t.Context(), tt.name); tt.want != nil {
			same(t, tt.name+": left as it was", after, err, before)
		}
	}
	wantErr(t, rotate(t, s, "unknown", 1, noon), storage.ErrConsumed)
}

func grantIDs(list []storage.Grant) (ids []string) {
	for _, g := range list {
		ids = append(ids, g.ID)
	}
	return ids
}

func testStanding(t *testing.T, s storage.Store) {
	_, err := s.Standing(t.Context(), "g1")
	wantErr(t, err, storage.ErrNotFound)
	_, _, err = s.SessionUser(t.Context(), "s1")
	wantErr(t, err, storage.ErrNotFound)

	hostile := []string{"3:a:b", "", " 1:", "ünïcödé ☃ 𝔘", "line\r\nbreak", "'; --"}
	user := testUser("u1", "u1")
	createUser(t, s, user)
	createClient(t, s, testClient("c1"))
	createClient(t, s, testClient("c2"))
	session := testSession("s1", "u1")
	createSession(t, s, session, testSession("s2", "u1"))
	offline := testGrant("g2", "u1", "c2")
	offline.Offline = true
	gone := testGrant("g3", "u1", "c1")
	gone.SessionID = "no such session"
	createGrant(t, s, testGrant("g1", "u1", "c1"), offline, gone, testGrant("g4", "no such user", "c1"))

	check := func(what string, want storage.Standing) {
		t.Helper()
		got, err := s.Standing(t.Context(), want.Grant.ID)
		slices.SortFunc(got.Consents, func(a, b storage.Consent) int { return strings.Compare(a.Scope, b.Scope) })
		same(t, what, got, err, want)
	}
	secretless := session
	secretless.SecretHash = nil
	bare := storage.Standing{Grant: testGrant("g1", "u1", "c1"), User: user, Session: secretless}
	check("nothing but a session", bare)
	check("the session is gone", storage.Standing{Grant: gone, User: user})
	_, err = s.Standing(t.Context(), "g4")
	wantErr(t, err, storage.ErrNotFound)

	var consents []storage.Consent
	for i, scope := range hostile {
		role := storage.Role{Name: scope, CreatedAt: noon}
		at := noon.Add(time.Duration(i) * time.Millisecond)
		consent := storage.Consent{UserID: "u1", ClientID: "c2", Scope: scope, Resource: hostile[len(hostile)-1-i], Implicit: i%2 == 0, GrantedAt: at}
		consents = append(consents, consent)
		other := consent
		other.ClientID = "c1"
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			err := tx.PutConsents(ctx, []storage.Consent{consent})
			if i == 1 {
				err = errors.Join(err, tx.PutConsents(ctx, []storage.Consent{other}))
				bare.Consents = append(bare.Consents, other)
			}
			return errors.Join(err, tx.CreateRole(ctx, role), tx.GrantUserRole(ctx, "u1", scope, noon))
		})
		user.Roles = append(user.Roles, scope)
	}
	slices.Sort(user.Roles)
	slices.SortFunc(consents, func(a, b storage.Consent) int { return strings.Compare(a.Scope, b.Scope) })
	check("offline, with consents and roles", storage.Standing{Grant: offline, User: user, Consents: consents})
	bare.User = user
	check("consents to this client only", bare)

	gotSession, gotUser, err := s.SessionUser(t.Context(), "s1")
	same(t, "session", gotSession, err, session)
	same(t, "its user", gotUser, err, user)
	byLogin, err := s.UserByLogin(t.Context(), user.EmailKey)
	same(t, "user by login", byLogin, err, user)

	ended := noon.Add(time.Minute)
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.EndSession(ctx, "s1", ended, "signed out") })
	bare.Session.EndedAt, bare.Session.EndReason = ended, "signed out"
	check("the session has ended", bare)
}

func testGrantsOfUser(t *testing.T, s storage.Store) {
	createGrant(t, s, testGrant("b", "u1", "c1"), testGrant("a", "u1", "c2"), testGrant("c", "u1", "c1"), testGrant("d", "u1", "c1"), testGrant("e", "u2", "c1"))
	wantErr(t, redeem(t, s, "a", noon), nil)
	wantErr(t, redeem(t, s, "b", noon), nil)
	if _, err := revoke(t, s, "b", "x"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		now  time.Time
		want []string
	}{
		{"codes and families", noon, []string{"a", "c", "d"}},
		{"the codes expired", noon.Add(time.Minute), []string{"a"}},
		{"idle", redemption.IdleEnd, nil},
	} {
		list, err := s.GrantsOfUser(t.Context(), "u1", tt.now)
		same(t, tt.name, grantIDs(list), err, tt.want)
	}
	wantErr(t, s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		return tx.RotateGrant(ctx, "a", 1, noon, "k3", redemption.AbsoluteEnd.Add(time.Hour))
	}), nil)
	list, err := s.GrantsOfUser(t.Context(), "u1", redemption.AbsoluteEnd)
	same(t, "too old", grantIDs(list), err, nil)
	list, err = s.GrantsOfUser(t.Context(), "u2", noon)
	same(t, "the other user's, whole", list, err, []storage.Grant{testGrant("e", "u2", "c1")})
}

func testRevokeGrants(t *testing.T, s storage.Store) {
	round := 0
	for _, tt := range []struct {
		name   string
		filter storage.GrantFilter
		want   []string
	}{
		{"user", storage.GrantFilter{UserID: "u1"}, []string{"code", "offline", "other client", "other session"}},
		{"client", storage.GrantFilter{ClientID: "c1"}, []string{"code", "offline", "other session", "other user"}},
		{"user and client", storage.GrantFilter{UserID: "u1", ClientID: "c1"}, []string{"code", "offline", "other session"}},
		{"session", storage.GrantFilter{SessionID: "s1"}, []string{"code", "other client", "other user"}},
		{"user, client and session", storage.GrantFilter{UserID: "u1", ClientID: "c1", SessionID: "s1"}, []string{"code"}},
		{"somebody else", storage.GrantFilter{UserID: "nobody"}, nil},
	} {
		// A suffix keeps the rows of one case apart from the next one's.
		suffix := " " + strconv.Itoa(round)
		round++
		named := func(v string) string {
			if v == "" {
				return v
			}
			return v + suffix
		}
		grant := func(id, user, client, session string) storage.Grant {
			g := testGrant(named(id), named(user), named(client))
			g.SessionID = named(session)
			return g
		}
		offline := grant("offline", "u1", "c1", "s1")
		offline.Offline = true
		createGrant(t, s, grant("code", "u1", "c1", "s1"), offline, grant("other client", "u1", "c2", "s1"),
			grant("other user", "u2", "c1", "s1"), grant("other session", "u1", "c1", "s2"), grant("revoked", "u1", "c1", "s1"))
		wantErr(t, redeem(t, s, named("offline"), noon), nil)
		if _, err := revoke(t, s, named("revoked"), "before"); err != nil {
			t.Fatal(err)
		}
		filter := storage.GrantFilter{UserID: named(tt.filter.UserID), ClientID: named(tt.filter.ClientID), SessionID: named(tt.filter.SessionID)}
		var want []string
		for _, id := range tt.want {
			want = append(want, named(id))
		}
		for i, want := range [][]string{want, nil} {
			var ids []string
			update(t, s, func(ctx context.Context, tx storage.Tx) (err error) {
				ids, err = tx.RevokeGrants(ctx, filter, noon.Add(time.Minute), "withdrawn")
				return err
			})
			slices.Sort(ids)
			same(t, tt.name+" "+strconv.Itoa(i), ids, nil, want)
		}
		for _, id := range []string{"code", "offline", "other client", "other user", "other session", "revoked"} {
			g, err := s.Grant(t.Context(), named(id))
			if err != nil {
				t.Fatal(err)
			}
			wantAt, wantReason := time.Time{}, ""
			switch {
			case id == "revoked":
				wantAt, wantReason = noon, "before"
			case slices.Contains(tt.want, id):
				wantAt, wantReason = noon.Add(time.Minute), "withdrawn"
			}
			if !g.RevokedAt.Equal(wantAt) || g.RevokeReason != wantReason {
				t.Errorf("%s: %q revoked at %v for %q, want %v for %q", tt.name, id, g.RevokedAt, g.RevokeReason, wantAt, wantReason)
			}
		}
	}
	for _, f := range []storage.GrantFilter{{}, {Limit: 1}} {
		refused(t, s, storage.ErrInvalid, func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.RevokeGrants(ctx, f, noon, "x")
			return err
		})
	}
}

func testRevokeGrantsLimit(t *testing.T, s storage.Store) {
	for i := range 5 {
		createGrant(t, s, testGrant("g"+strconv.Itoa(i), "u"+strconv.Itoa(i), "c1"), testGrant("h"+strconv.Itoa(i), "u1", "c2"))
	}
	seen := make(map[string]bool)
	for _, want := range []int{2, 2, 1, 0} {
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			ids, err := tx.RevokeGrants(ctx, storage.GrantFilter{ClientID: "c1", Limit: 2}, noon, "x")
			if len(ids) != want {
				t.Errorf("revoked %q, want %d", ids, want)
			}
			for _, id := range ids {
				seen[id] = true
			}
			return err
		})
	}
	same(t, "revoked", seen, nil, map[string]bool{"g0": true, "g1": true, "g2": true, "g3": true, "g4": true})
}

func testPruneSignIn(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	now := noon.AddDate(0, 1, 0)
	ends := map[string]time.Duration{"1 before": -time.Millisecond, "2 at": 0, "3 after": time.Millisecond}
	for name, d := range ends {
		v := testSession(name, "u1")
		v.AbsoluteEnd = now.Add(d)
		createSession(t, s, v)

		unused := testGrant("unused "+name, "u1", "c1") // goes by its code's end
		unused.CodeExpiresAt = now.Add(d - storage.GrantMemory)
		used := testGrant("used "+name, "u1", "c1") // by the family's
		createGrant(t, s, unused, used)
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			return errors.Join(
				tx.RedeemCode(ctx, used.ID, noon, storage.Redemption{AbsoluteEnd: now.Add(d - storage.GrantMemory)}),
				tx.SaveThrottle(ctx, storage.Throttle{Key: "failed " + name, LastAt: now.Add(d - storage.ThrottleMemory)}),
				tx.SaveThrottle(ctx, storage.Throttle{Key: "blocked " + name, BlockedTo: now.Add(d - storage.ThrottleMemory)}),
			)
		})
	}
	for i, want := range []int{3, 3, 2, 2, 0} { // of 2 sessions, 4 grants, 4 throttles
		if n := prune(t, s, now, 1); n != want {
			t.Errorf("round %d removed %d, want %d", i, n, want)
		}
	}
	for name, d := range ends {
		var want error
		if d <= 0 {
			want = storage.ErrNotFound
		}
		_, err := s.Session(t.Context(), name)
		wantErr(t, err, want)
		for _, prefix := range []string{"unused ", "used "} {
			_, err = s.Grant(t.Context(), prefix+name)
			wantErr(t, err, want)
		}
		for _, prefix := range []string{"failed ", "blocked "} {
			_, err = s.Throttle(t.Context(), prefix+name)
			wantErr(t, err, want)
		}
	}
}

// What the refusal of a code or refresh token leads to is kept.
func testGrantNotPoisoned(t *testing.T, s storage.Store) {
	createGrant(t, s, testGrant("g1", "u1", "c1"))
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		wantErr(t, tx.RotateGrant(ctx, "g1", 1, noon, "k", noon), storage.ErrConsumed)
		wantErr(t, tx.RedeemCode(ctx, "none", noon, redemption), storage.ErrConsumed)
		_, err := tx.TakeOnce(ctx, "setup", []byte("x"), noon)
		wantErr(t, err, storage.ErrConsumed)
		_, err = tx.RevokeGrant(ctx, "g1", noon, "reuse")
		return err
	})
	g, err := s.Grant(t.Context(), "g1")
	same(t, "reason", g.RevokeReason, err, "reuse")
}

const raceRounds = 100

func raceRedeemCode(t *testing.T, s storage.Store) {
	for round := range raceRounds {
		id := strconv.Itoa(round)
		createGrant(t, s, testGrant(id, "u1", "c1"))
		errs := race(func(i int) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				r := redemption
				r.KeyVersion = strconv.Itoa(i)
				return tx.RedeemCode(ctx, id, noon, r)
			})
		})
		oneWinner(t, errs, storage.ErrConsumed)
		g, err := s.Grant(t.Context(), id)
		same(t, "generation", g.Generation, err, 1)
		same(t, "whose", g.KeyVersion, nil, strconv.Itoa(slices.Index(errs, nil)))
	}
}

func raceRotateGrant(t *testing.T, s storage.Store) {
	createGrant(t, s, testGrant("g", "u1", "c1"))
	wantErr(t, redeem(t, s, "g", noon), nil)
	for round := range int64(raceRounds) {
		oneWinner(t, race(func(int) error { return rotate(t, s, "g", 1+round, noon) }), storage.ErrConsumed)
		g, err := s.Grant(t.Context(), "g")
		same(t, "generation", g.Generation, err, 2+round)
	}
}

// After a revocation was answered nothing rotates any more.
func raceRotateRevoke(t *testing.T, s storage.Store) {
	for round := range 20 {
		id := strconv.Itoa(round)
		createGrant(t, s, testGrant(id, "u1", "c1"))
		wantErr(t, redeem(t, s, id, noon), nil)
		var left int64 // the generation that the revocation left behind
		errs := race(func(i int) error {
			if i != racers/2 {
				return rotate(t, s, id, 1, noon)
			}
			if _, err := revoke(t, s, id, "x"); err != nil {
				return err
			}
			g, err := s.Grant(t.Context(), id)
			left = g.Generation
			return err
		})
		rotated := int64(0)
		for i, err := range errs {
			switch {
			case err == nil && i != racers/2:
				rotated++
			case err != nil:
				wantErr(t, err, storage.ErrConsumed)
			}
		}
		g, err := s.Grant(t.Context(), id)
		if err != nil || g.RevokedAt.IsZero() || g.Generation != left || g.Generation != 1+rotated || rotated > 1 {
			t.Errorf("revoked at %v, generation %d (%d at the revocation, %d rotations), %v", g.RevokedAt, g.Generation, left, rotated, err)
		}
	}
}

// One by one or all of a user's: each grant is revoked by exactly one call.
func raceRevokeGrant(t *testing.T, s storage.Store) {
	for round := range 10 {
		id, user := "g"+strconv.Itoa(round), "u"+strconv.Itoa(round)
		createGrant(t, s, testGrant(id, user, "c1"))
		oneWinner(t, race(func(i int) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				changed := false
				var err error
				if i%2 == 0 {
					changed, err = tx.RevokeGrant(ctx, id, noon, "one")
				} else {
					var ids []string
					ids, err = tx.RevokeGrants(ctx, storage.GrantFilter{UserID: user, Limit: i % 4 / 2}, noon, "all")
					changed = len(ids) > 0
				}
				if err == nil && !changed {
					err = storage.ErrConsumed
				}
				return err
			})
		}), storage.ErrConsumed)
	}
}

func raceCreateGrant(t *testing.T, s storage.Store) {
	for round := range 10 {
		id := strconv.Itoa(round)
		oneWinner(t, race(func(i int) error {
			g := testGrant(id, "u1", "c1")
			g.Seed = number(i)
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.CreateGrant(ctx, g) })
		}), storage.ErrExists)
	}
}
