package storagetest

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func testSession(id, user string) storage.Session {
	return storage.Session{
		ID: id, SecretHash: []byte{0, 1, 255}, UserID: user,
		AuthTime: noon.Add(-time.Second), ACR: "1", AMR: []string{"pwd", "otp"}, UserAgent: "Browser/1.0 (\"x\"; ü)", Address: "2001:db8::1",
		CreatedAt: noon, LastSeenAt: noon, IdleEnd: noon.Add(time.Hour), AbsoluteEnd: noon.Add(24 * time.Hour),
	}
}

func createSession(t *testing.T, s storage.Store, sessions ...storage.Session) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		for _, v := range sessions {
			if err := tx.CreateSession(ctx, v); err != nil {
				return err
			}
		}
		return nil
	})
}

func sessionIDs(list []storage.Session) (ids []string) {
	for _, v := range list {
		ids = append(ids, v.ID)
	}
	return ids
}

func testSessions(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	createUser(t, s, testUser("u2", "bob"))
	full := testSession("s1", "u1")
	full.EndedAt, full.EndReason = noon.Add(time.Minute), "logout"
	createSession(t, s, full)
	got, err := s.Session(t.Context(), "s1")
	same(t, "session", got, err, full)
	_, err = s.Session(t.Context(), "none")
	wantErr(t, err, storage.ErrNotFound)

	// Of these only two are live, the last seen first.
	now := noon.Add(30 * time.Minute)
	older, newer := testSession("a", "u1"), testSession("b", "u1")
	newer.LastSeenAt = noon.Add(time.Minute)
	idle, old, other := testSession("c", "u1"), testSession("d", "u1"), testSession("e", "u2")
	idle.IdleEnd, old.AbsoluteEnd = now, now
	createSession(t, s, older, newer, idle, old, other)
	list, err := s.Sessions(t.Context(), "u1", now)
	same(t, "sessions", list, err, []storage.Session{newer, older})
	list, err = s.Sessions(t.Context(), "u1", now.Add(-time.Millisecond))
	same(t, "a moment before", sessionIDs(list), err, []string{"b", "a", "c", "d"})
	list, err = s.Sessions(t.Context(), "nobody", now)
	same(t, "nobody's", list, err, nil)

	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.DeleteUser(ctx, "u1") })
	_, err = s.Session(t.Context(), "a")
	wantErr(t, err, storage.ErrNotFound)
}

func testSessionErrors(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	createSession(t, s, testSession("s1", "u1"))
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
		return tx.CreateSession(ctx, testSession("s1", "u1"))
	})
	refused(t, s, storage.ErrReference, func(ctx context.Context, tx storage.Tx) error {
		return tx.CreateSession(ctx, testSession("s2", "nobody"))
	})
}

func testTouchSession(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	v := testSession("s1", "u1")
	v.AbsoluteEnd = noon.Add(3 * time.Hour)
	createSession(t, s, v, testSession("s2", "u1"))
	touch := func(seen, idleEnd time.Time) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error { return tx.TouchSession(ctx, "s1", seen, idleEnd) })
	}
	for _, step := range []struct {
		name          string
		seen, idleEnd time.Duration // after noon
		want          error
		// and then
		lastSeen, end time.Duration
	}{
		{"forward", 30 * time.Minute, 90 * time.Minute, nil, 30 * time.Minute, 90 * time.Minute},
		{"late and out of order", 20 * time.Minute, 80 * time.Minute, nil, 30 * time.Minute, 90 * time.Minute},
		{"at its idle end", 90 * time.Minute, 150 * time.Minute, storage.ErrNotFound, 30 * time.Minute, 90 * time.Minute},
		{"a millisecond before", 90*time.Minute - time.Millisecond, 4 * time.Hour, nil, 90*time.Minute - time.Millisecond, 4 * time.Hour},
		{"at its absolute end", 3 * time.Hour, 5 * time.Hour, storage.ErrNotFound, 90*time.Minute - time.Millisecond, 4 * time.Hour},
	} {
		if err := touch(noon.Add(step.seen), noon.Add(step.idleEnd)); !errors.Is(err, step.want) {
			t.Errorf("%s: error = %v, want %v", step.name, err, step.want)
		}
		v.LastSeenAt, v.IdleEnd = noon.Add(step.lastSeen), noon.Add(step.end)
		got, err := s.Session(t.Context(), "s1")
		same(t, step.name, got, err, v)
	}
	other, err := s.Session(t.Context(), "s2")
	same(t, "the other session", other, err, testSession("s2", "u1"))

	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.EndSession(ctx, "s1", noon, "logout") })
	wantErr(t, touch(noon.Add(time.Minute), noon.Add(time.Hour)), storage.ErrNotFound)
}

func testRenewSession(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	createUser(t, s, testUser("u2", "bob"))
	old := testSession("s1", "u1")
	createSession(t, s, old)
	renewed := old
	renewed.SecretHash, renewed.AuthTime, renewed.ACR, renewed.AMR = []byte("new"), noon.Add(time.Hour), "two", []string{"pwd", "otp"}
	renewed.UserAgent, renewed.Address = "another", "::1"
	renewed.LastSeenAt, renewed.IdleEnd, renewed.AbsoluteEnd = noon.Add(time.Hour), noon.Add(25*time.Hour), noon.Add(15*24*time.Hour)

	foreign := renewed
	foreign.UserID = "u2"
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.RenewSession(ctx, foreign) })
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.RenewSession(ctx, renewed) })
	got, err := s.Session(t.Context(), "s1")
	same(t, "renewed", got, err, renewed)

	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.EndSession(ctx, "s1", noon, "logout") })
	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error { return tx.RenewSession(ctx, renewed) })
}

func testEndSessions(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	createUser(t, s, testUser("u2", "bob"))
	createSession(t, s, testSession("a", "u1"), testSession("b", "u1"), testSession("c", "u1"), testSession("d", "u1"), testSession("e", "u2"))
	end := func(id, reason string) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.EndSession(ctx, id, noon.Add(48*time.Hour), reason) // long after it was too old
		})
	}
	wantErr(t, end("a", "logout"), nil)
	wantErr(t, end("a", "again"), storage.ErrNotFound)
	wantErr(t, end("none", "logout"), storage.ErrNotFound)
	want := testSession("a", "u1")
	want.EndedAt, want.EndReason = noon.Add(48*time.Hour), "logout"
	got, err := s.Session(t.Context(), "a")
	same(t, "ended session", got, err, want)

	endAll := func(except string) (ids map[string]bool) {
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			list, err := tx.EndSessions(ctx, "u1", except, noon.Add(time.Minute), "others")
			ids = make(map[string]bool)
			for _, id := range list {
				ids[id] = true
			}
			return err
		})
		return ids
	}
	same(t, "ended", endAll("c"), nil, map[string]bool{"b": true, "d": true})
	list, err := s.Sessions(t.Context(), "u1", noon)
	same(t, "left", sessionIDs(list), err, []string{"c"})
	same(t, "ended at last", endAll(""), nil, map[string]bool{"c": true})
	same(t, "ended again", endAll(""), nil, map[string]bool{})
	list, err = s.Sessions(t.Context(), "u2", noon)
	same(t, "the other user's", sessionIDs(list), err, []string{"e"})
	got, err = s.Session(t.Context(), "a")
	same(t, "the one ended first", got, err, want)
}

func testThrottle(t *testing.T, s storage.Store) {
	_, err := s.Throttle(t.Context(), "k")
	wantErr(t, err, storage.ErrNotFound)
	for n := range 3 {
		at := noon.Add(time.Duration(n) * time.Second)
		want := storage.Throttle{Key: "k", Failures: int64(n + 1), LastAt: at}
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			got, err := tx.AddFailure(ctx, "k", at)
			same(t, "counted", got, err, want)
			return err
		})
		got, err := s.Throttle(t.Context(), "k")
		same(t, "counter", got, err, want)
	}
	blocked := storage.Throttle{Key: "k", Failures: 3, LastAt: noon, BlockedTo: noon.Add(time.Minute)}
	fresh := storage.Throttle{Key: "k2", Failures: 9, LastAt: noon}
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.SaveThrottle(ctx, blocked), tx.SaveThrottle(ctx, fresh))
	})
	got, err := s.Throttle(t.Context(), "k")
	same(t, "saved over", got, err, blocked)
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		got, err := tx.AddFailure(ctx, "k", noon.Add(time.Second)) // keeps the block
		same(t, "counted while blocked", got, err, storage.Throttle{Key: "k", Failures: 4, LastAt: noon.Add(time.Second), BlockedTo: blocked.BlockedTo})
		return errors.Join(err, tx.ClearThrottle(ctx, "k"), tx.ClearThrottle(ctx, "none"))
	})
	_, err = s.Throttle(t.Context(), "k")
	wantErr(t, err, storage.ErrNotFound)
	got, err = s.Throttle(t.Context(), "k2")
	same(t, "the other counter", got, err, fresh)
}

func testTakeOnce(t *testing.T, s storage.Store) {
	end := noon.Add(time.Minute)
	link := func(key string, expires time.Time) storage.OneTime {
		return storage.OneTime{Kind: "setup", KeyHash: []byte(key), Subject: "u1", Data: `{"a":1}`, CreatedAt: noon, ExpiresAt: expires}
	}
	other := link("k", end)
	other.Kind = "reset"
	update(t, s, func(ctx context.Context, tx storage.Tx) error {
		return errors.Join(tx.UseOnce(ctx, link("k", end), noon), tx.UseOnce(ctx, other, noon), tx.UseOnce(ctx, link("k2", time.Time{}), noon))
	})
	for _, step := range []struct {
		name, kind, key string
		now             time.Time
		there           bool
		want            storage.OneTime
	}{
		{name: "unknown", kind: "setup", key: "none", now: noon},
		{name: "of another kind", kind: "jti", key: "k", now: noon},
		{name: "at its end", kind: "setup", key: "k", now: end},
		{name: "a millisecond before", kind: "setup", key: "k", now: end.Add(-time.Millisecond), there: true, want: link("k", end)},
		{name: "again", kind: "setup", key: "k", now: noon},
		{name: "without end", kind: "setup", key: "k2", now: noon.AddDate(50, 0, 0), there: true, want: link("k2", time.Time{})},
		{name: "the other kind", kind: "reset", key: "k", now: noon, there: true, want: other},
	} {
		look, lookErr := s.OneTime(t.Context(), step.kind, []byte(step.key), step.now)
		var took storage.OneTime
		takeErr := s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) (err error) {
			took, err = tx.TakeOnce(ctx, step.kind, []byte(step.key), step.now)
			return err
		})
		if !step.there {
			wantErr(t, lookErr, storage.ErrNotFound)
			wantErr(t, takeErr, storage.ErrConsumed)
			continue
		}
		same(t, step.name+": looked at", look, lookErr, step.want)
		same(t, step.name+": taken", took, takeErr, step.want)
	}
}

func testUpdateUser(t *testing.T, s storage.Store) {
	createRoles(t, s, "r")
	u := testUser("u1", "ann")
	u.Roles = []string{"r"}
	createUser(t, s, u)
	createUser(t, s, testUser("u2", "bob"))
	changed := storage.User{
		ID: "u1", Email: "New@example.org", EmailKey: "new@example.org", Profile: `{"name":"Ann"}`, Locale: "de",
		Username: "ignored", UsernameKey: "ignored", Enabled: false, CreatedAt: noon.Add(time.Hour), UpdatedAt: noon.Add(2 * time.Hour),
	}
	update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.UpdateUser(ctx, changed) })
	want := u
	want.Email, want.EmailKey, want.EmailVerified = changed.Email, changed.EmailKey, false
	want.Profile, want.Locale, want.UpdatedAt = changed.Profile, changed.Locale, changed.UpdatedAt
	got, err := s.User(t.Context(), "u1")
	same(t, "changed user", got, err, want)
	other, err := s.User(t.Context(), "u2")
	same(t, "the other user", other, err, testUser("u2", "bob"))

	refused(t, s, storage.ErrNotFound, func(ctx context.Context, tx storage.Tx) error {
		return tx.UpdateUser(ctx, testUser("nobody", "nobody"))
	})
	refused(t, s, storage.ErrExists, func(ctx context.Context, tx storage.Tx) error {
		return tx.UpdateUser(ctx, storage.User{ID: "u1", EmailKey: "bob@example.org"})
	})
}

func testUpdatePasswordHash(t *testing.T, s storage.Store) {
	for _, id := range []string{"u1", "u2"} {
		createUser(t, s, testUser(id, id))
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			return tx.SetPassword(ctx, storage.Password{UserID: id, Hash: "old", MustChange: true, CreatedAt: noon, UpdatedAt: noon})
		})
	}
	replace := func(user, from, to string) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.UpdatePasswordHash(ctx, user, from, to, noon.Add(time.Hour))
		})
	}
	wantErr(t, replace("u1", "old", "old"), nil)
	wantErr(t, replace("u1", "old", "new"), nil)
	wantErr(t, replace("u1", "old", "newer"), storage.ErrNotFound)
	wantErr(t, replace("nobody", "old", "new"), storage.ErrNotFound)
	for id, hash := range map[string]string{"u1": "new", "u2": "old"} {
		got, err := s.Password(t.Context(), id)
		same(t, "password", got, err, storage.Password{UserID: id, Hash: hash, MustChange: true, CreatedAt: noon, UpdatedAt: noon})
	}
}

func raceTakeOnce(t *testing.T, s storage.Store) {
	for round := range 20 {
		link := storage.OneTime{Kind: "setup", KeyHash: number(round), CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)}
		update(t, s, func(ctx context.Context, tx storage.Tx) error { return tx.UseOnce(ctx, link, noon) })
		oneWinner(t, race(func(int) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				_, err := tx.TakeOnce(ctx, link.Kind, link.KeyHash, noon)
				return err
			})
		}), storage.ErrConsumed)
	}
}

// Everyone who counts sees another number, so a limit holds in parallel too.
func raceAddFailure(t *testing.T, s storage.Store) {
	const limit = 10
	errLimit := errors.New("over the limit")
	errs := race(func(int) error {
		return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			v, err := tx.AddFailure(ctx, "k", noon)
			switch {
			case err != nil:
				return err
			case v.BlockedTo.After(noon):
				return errLimit
			case v.Failures == limit:
				v.BlockedTo = noon.Add(time.Minute)
				return tx.SaveThrottle(ctx, v)
			}
			return nil
		})
	})
	passed := 0
	for _, err := range errs {
		if err == nil {
			passed++
		} else {
			wantErr(t, err, errLimit)
		}
	}
	if passed != limit {
		t.Errorf("%d passed, want %d", passed, limit)
	}
	got, err := s.Throttle(t.Context(), "k")
	same(t, "counter", got, err, storage.Throttle{Key: "k", Failures: limit, LastAt: noon, BlockedTo: noon.Add(time.Minute)})
}

func raceEndSession(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	for round := range 10 {
		id := strconv.Itoa(round)
		createSession(t, s, testSession(id, "u1"))
		oneWinner(t, race(func(i int) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				if i%2 == 0 {
					return tx.EndSession(ctx, id, noon, "logout")
				}
				ids, err := tx.EndSessions(ctx, "u1", "", noon, "all")
				if err == nil && len(ids) == 0 {
					err = storage.ErrNotFound
				}
				return err
			})
		}), storage.ErrNotFound)
	}
}

// Whoever signs in while the password changes ends up without a session.
func raceNewPassword(t *testing.T, s storage.Store) {
	createUser(t, s, testUser("u1", "ann"))
	for round := range 10 {
		update(t, s, func(ctx context.Context, tx storage.Tx) error {
			return tx.SetPassword(ctx, storage.Password{UserID: "u1", Hash: "old"})
		})
		errs := race(func(i int) error {
			return s.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				if i == racers/2 {
					if err := tx.SetPassword(ctx, storage.Password{UserID: "u1", Hash: "new"}); err != nil {
						return err
					}
					_, err := tx.EndSessions(ctx, "u1", "", noon, "password")
					return err
				}
				if err := tx.UpdatePasswordHash(ctx, "u1", "old", "old", noon); err != nil {
					return err
				}
				return tx.CreateSession(ctx, testSession(strconv.Itoa(round*racers+i), "u1"))
			})
		})
		for _, err := range errs {
			if err != nil {
				wantErr(t, err, storage.ErrNotFound)
			}
		}
		list, err := s.Sessions(t.Context(), "u1", noon)
		same(t, "sessions left", list, err, nil)
	}
}
