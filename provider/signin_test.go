package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage"
)

func (h *house) attempt(login, password, address, device string) (*SignInResult, error) {
	return h.p.SignIn(h.t.Context(), SignInAttempt{Login: login, Password: password, Address: address, Device: device})
}

func TestSignInHasOneAnswer(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		_, err := d.admin.CreateUser(ctx, storage.User{Username: "carol"}, "")
		must(t, err)
		_, err = d.admin.DisableUser(ctx, "bob")
		must(t, err)
		for name, try := range map[string][2]string{
			"wrong password": {"ann", "not her password"}, "unknown": {"zoe", housePassword}, "no password set": {"carol", ""},
			"disabled": {"bob", housePassword}, "no name": {"", housePassword}, "impossible name": {"a b\x00", housePassword},
			"longer by one": {"ann", housePassword + " "}, "other case": {"ann", "A quiet heron at dawn"},
		} {
			if _, err := d.attempt(try[0], try[1], "192.0.2.1", ""); !errors.Is(err, ErrBadCredentials) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, login := range []string{"ann", "ANN", "ann@people.example", "Ann@People.Example", "ａｎｎ"} {
			if _, err := d.attempt(login, housePassword, "192.0.2.1", ""); err != nil {
				t.Errorf("%s: %v", login, err)
			}
		}
	})
}

func TestGuessersWaitAndOwnersDoNot(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		known, err := d.attempt("ann", housePassword, "192.0.2.1", "")
		must(t, err)
		var throttled *ThrottledError
		hashed := 0
		var mu sync.Mutex
		names := []string{"ann", "ANN", "ann@people.example"}
		var group sync.WaitGroup
		for i := range 60 { // at once, from everywhere, under every name
			group.Go(func() {
				_, err := d.attempt(names[i%3], "a guess", fmt.Sprintf("198.51.100.%d", i), "")
				if errors.Is(err, ErrBadCredentials) {
					mu.Lock()
					hashed++
					mu.Unlock()
				}
			})
		}
		group.Wait()
		if hashed > 12 {
			t.Errorf("%d guesses were checked", hashed)
		}
		if _, err := d.attempt("ann", housePassword, "203.0.113.9", ""); !errors.As(err, &throttled) || throttled.RetryAfter <= 0 {
			t.Errorf("an unknown browser: %v", err)
		}
		if _, err := d.attempt("ann", housePassword, "203.0.113.9", known.Device); err != nil {
			t.Errorf("the browser she always uses: %v", err)
		}
		if _, err := d.attempt("bob", housePassword, "203.0.113.9", known.Device); err != nil {
			t.Errorf("somebody else: %v", err)
		}
		d.later(20 * time.Minute)
		if _, err := d.attempt("ann", housePassword, "203.0.113.9", ""); err != nil {
			t.Errorf("after the wait: %v", err)
		}
		for range 110 { // many names from one address
			_, err = d.attempt(fmt.Sprintf("nobody%d", time.Now().UnixNano()), "a guess", "198.51.100.200", "")
		}
		if !errors.As(err, &throttled) {
			t.Errorf("many names from one address: %v", err)
		}
		if _, err := d.attempt("bob", housePassword, "198.51.100.201", ""); err != nil {
			t.Errorf("its neighbour: %v", err)
		}
	})
}

// A browser is known by the password in force: who knew an earlier one has no
// more tries than a stranger, with however many cookies.
func TestDeviceOfAnEarlierPassword(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		// The clock stands, so that waits do not end by themselves.
		at := d.now().Truncate(time.Second).Add(700 * time.Millisecond)
		d.still.Store(&at)
		later := func() {
			at := d.now().Add(time.Hour)
			d.still.Store(&at)
		}
		var throttled *ThrottledError
		known := func(what, password, device string, want bool) {
			t.Helper()
			for i := 0; ; i++ { // strangers
				if _, err := d.attempt("ann", "a guess", "198.51.100.1", ""); errors.As(err, &throttled) {
					break
				} else if i == 50 {
					t.Fatalf("%s: nobody is slowed down: %v", what, err)
				}
			}
			if _, err := d.attempt("ann", password, "203.0.113.9", device); want && err != nil || !want && !errors.As(err, &throttled) {
				t.Errorf("%s: %v, want known: %t", what, err, want)
			}
		}
		first, err := d.attempt("ann", housePassword, "192.0.2.1", "")
		must(t, err)
		known("signed in", housePassword, first.Device, true)

		later()
		second, err := d.p.ChangePassword(ctx, first.SignedIn, housePassword, "another quiet heron", "192.0.2.1")
		must(t, err)
		known("from before the change", "another quiet heron", first.Device, false)
		known("where it was changed", "another quiet heron", second.Device, true)

		later()
		third, err := d.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: "another quiet heron", NewPassword: "a third quiet heron", Address: "192.0.2.1"})
		must(t, err)
		known("from before the sign-in that set another", "a third quiet heron", second.Device, false)
		known("of the sign-in that set it", "a third quiet heron", third.Device, true)

		later()
		_, err = d.admin.SetPassword(ctx, "ann", "a fourth quiet heron")
		must(t, err)
		known("from before the operator's", "a fourth quiet heron", third.Device, false)
		later()
		fourth, err := d.attempt("ann", "a fourth quiet heron", "192.0.2.1", third.Device)
		must(t, err)
		known("after signing in again", "a fourth quiet heron", fourth.Device, true)
	})
}

func TestHashGate(t *testing.T) {
	g := newHashGate(2, 1)
	var release []func()
	for range 2 {
		leave, err := g.enter(t.Context())
		must(t, err)
		release = append(release, leave)
	}
	waits := make(chan error, 1)
	go func() {
		leave, err := g.enter(context.Background())
		if err == nil {
			leave()
		}
		waits <- err
	}()
	for len(g.waiting) < 3 {
		time.Sleep(time.Millisecond)
	}
	var busy *BusyError
	if _, err := g.enter(t.Context()); !errors.As(err, &busy) {
		t.Errorf("beyond the queue: %v", err)
	}
	release[0]()
	must(t, <-waits)
	release[1]()
	if len(g.waiting) != 0 || len(g.slots) != 0 {
		t.Error("places are lost")
	}
}

func TestSessions(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		resume := func(cookie string) error { _, err := d.p.Resume(ctx, cookie); return err }
		first, err := d.attempt("ann", housePassword, "192.0.2.1", "")
		must(t, err)
		must(t, resume(first.Cookie))
		for _, cookie := range []string{"", "x", first.Cookie[:len(first.Cookie)-1] + "A", first.Cookie + "A", first.Cookie[1:]} {
			if cookie != first.Cookie && !errors.Is(resume(cookie), ErrNoSession) {
				t.Errorf("%q is a session", cookie)
			}
		}
		again, err := d.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1", Previous: first.SignedIn})
		must(t, err)
		if again.SignedIn.Session.ID != first.SignedIn.Session.ID || again.Cookie == first.Cookie || !errors.Is(resume(first.Cookie), ErrNoSession) {
			t.Error("signing in again keeps the session under a new cookie")
		}
		bob, err := d.p.SignIn(ctx, SignInAttempt{Login: "bob", Password: housePassword, Address: "192.0.2.1", Previous: again.SignedIn})
		must(t, err)
		if !errors.Is(resume(again.Cookie), ErrNoSession) {
			t.Error("the previous person's session lives")
		}

		// In use it lives on, up to its absolute end.
		for range 14 {
			must(t, resume(bob.Cookie))
			d.later(23 * time.Hour)
		}
		must(t, resume(bob.Cookie))
		d.later(23 * time.Hour)
		if !errors.Is(resume(bob.Cookie), ErrNoSession) {
			t.Error("a session older than its absolute end")
		}
		idle, err := d.attempt("bob", housePassword, "192.0.2.1", "")
		must(t, err)
		d.later(24 * time.Hour)
		if !errors.Is(resume(idle.Cookie), ErrNoSession) {
			t.Error("an idle session lives")
		}
	})
}

func TestAccount(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		one, two, bob := d.signIn("ann"), d.signIn("ann"), d.signIn("bob")
		if err := d.p.EndSession(ctx, bob, one.Session.ID); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("somebody else's session: %v", err)
		}
		r := d.tokens(one, "scope", "openid orders:read")
		apps, err := d.p.Apps(ctx, one)
		must(t, err)
		if len(apps) != 1 || apps[0].ClientID != "shop" || !apps[0].Live || apps[0].Offline || len(apps[0].Groups) != 2 || apps[0].Groups[1].Scopes[0].Description != "See your orders" {
			t.Errorf("%+v", apps)
		}
		if n, err := d.p.EndOtherSessions(ctx, two); err != nil || n != 1 {
			t.Errorf("%d %v", n, err)
		}
		if apps, err := d.p.Apps(ctx, two); err != nil || len(apps) != 1 || apps[0].Live || !apps[0].Remembered {
			t.Errorf("an app whose grants have ended: %+v %v", apps, err)
		}
		d.wants("bound to an ended session", d.refresh(r.member("refresh_token")), "invalid_grant")
		if list, err := d.p.Sessions(ctx, two); err != nil || len(list) != 1 || list[0].ID != two.Session.ID {
			t.Errorf("%v %v", list, err)
		}
		if _, err := d.p.ChangePassword(ctx, two, "not her password", "another quiet heron", "192.0.2.1"); !errors.Is(err, ErrBadCredentials) {
			t.Errorf("with a wrong password: %v", err)
		}
		var invalid *InvalidError
		for _, bad := range []string{"short", housePassword, "people.example ann", "password password"} {
			if _, err := d.p.ChangePassword(ctx, two, housePassword, bad, "192.0.2.1"); !errors.As(err, &invalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		_, err = d.p.ChangePassword(ctx, two, housePassword, "ann and a loud owl", "192.0.2.1")
		must(t, err)
		if _, err := d.attempt("ann", "ann and a loud owl", "192.0.2.1", ""); err != nil {
			t.Error(err)
		}
		if _, err := d.attempt("ann", housePassword, "192.0.2.1", ""); !errors.Is(err, ErrBadCredentials) {
			t.Errorf("the old password: %v", err)
		}
	})
}

func TestInvitation(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		u, err := d.admin.CreateUser(ctx, storage.User{Username: "carol"}, "")
		must(t, err)
		invite := func() string {
			link, row := newInvitation(u.ID, d.now(), d.now().Add(d.p.policy.InvitationLifetime))
			must(t, d.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return tx.UseOnce(ctx, row, d.now()) }))
			return link
		}
		link := invite()
		if who, err := d.p.Invitee(ctx, link); err != nil || who.ID != u.ID {
			t.Fatalf("%v %v", who, err)
		}
		var invalid *InvalidError
		if _, err := d.p.UseInvitation(ctx, link, "short"); !errors.As(err, &invalid) {
			t.Errorf("a short password: %v", err)
		}
		_, err = d.p.UseInvitation(ctx, link, housePassword)
		must(t, err)
		d.signIn("carol")
		// One of several links, or a password set in another way, ends the rest.
		one, other := invite(), invite()
		d.later(time.Second)
		_, err = d.p.UseInvitation(ctx, one, "an owl between two oaks")
		must(t, err)
		before := invite()
		d.later(time.Second)
		_, err = d.admin.SetPassword(ctx, "carol", housePassword)
		must(t, err)
		expired := invite()
		d.later(d.p.policy.InvitationLifetime)
		for name, bad := range map[string]string{"used": link, "beside a used one": other, "before a new password": before, "expired": expired, "made up": invitationPrefix + "x", "": ""} {
			if _, err := d.p.UseInvitation(ctx, bad, housePassword); !errors.Is(err, ErrInvitation) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestLogout(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	const after = "https://shop.example/bye"
	_, err := d.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{after} })
	must(t, err)
	d.client("other", nil)
	d.settle()
	ann, bob := d.signIn("ann"), d.signIn("bob")
	id := d.tokens(ann).member("id_token")
	d.later(2 * time.Hour) // expired, but a hint all the same
	for _, tc := range []struct {
		name    string
		query   url.Values
		confirm bool
		goesTo  string
	}{
		{"no hint", url.Values{}, true, ""},
		{"her hint", url.Values{"id_token_hint": {id}, "post_logout_redirect_uri": {after}, "state": {"x y"}}, false, after + "?state=x+y"},
		{"client_id alone", url.Values{"client_id": {"shop"}, "post_logout_redirect_uri": {after}}, true, after},
		{"hint of another client", url.Values{"id_token_hint": {id}, "client_id": {"other"}, "post_logout_redirect_uri": {after}}, true, ""},
		{"not registered", url.Values{"id_token_hint": {id}, "post_logout_redirect_uri": {after + "/"}}, false, ""},
		{"a forged hint", url.Values{"id_token_hint": {id + "x"}, "post_logout_redirect_uri": {after}}, true, ""},
	} {
		l, err := d.p.BeginLogout(t.Context(), httptest.NewRequest(http.MethodGet, "/logout?"+tc.query.Encode(), nil))
		must(t, err)
		sealed, err := d.p.SealLogout(l, "browser")
		must(t, err)
		l, err = d.p.OpenLogout(t.Context(), sealed, "browser")
		must(t, err)
		if got := l.NeedsConfirmation(ann); got != tc.confirm {
			t.Errorf("%s: confirmation %t", tc.name, got)
		}
		if !l.NeedsConfirmation(bob) || l.NeedsConfirmation(nil) {
			t.Errorf("%s: somebody else, or nobody", tc.name)
		}
		if got, err := d.p.FinishLogout(t.Context(), l, nil); err != nil || got.Location != tc.goesTo {
			t.Errorf("%s: goes to %q, %v", tc.name, got, err)
		}
	}
}

func TestPasswordSetBySomebodyElse(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, d *house) {
		ctx := t.Context()
		ann := d.signIn("ann")
		must(t, d.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
			return tx.SetPassword(ctx, storage.Password{UserID: ann.User.ID, Hash: d.p.policy.passwordCost().hash("one time password"), MustChange: true, CreatedAt: d.now(), UpdatedAt: d.now()})
		}))
		try := func(replacement string) error {
			_, err := d.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: "one time password", NewPassword: replacement, Address: "192.0.2.1"})
			return err
		}
		if err := try(""); !errors.Is(err, ErrPasswordChangeRequired) {
			t.Errorf("without another: %v", err)
		}
		var invalid *InvalidError
		if err := try("one time password"); !errors.As(err, &invalid) {
			t.Errorf("the same again: %v", err)
		}
		must(t, try("a loud heron at noon"))
		if err := try(""); !errors.Is(err, ErrBadCredentials) {
			t.Errorf("the old one: %v", err)
		}
	})
}

func TestOutdatedHashIsReplaced(t *testing.T) {
	d := newHouse(t, migrations.SQLite, nil)
	ann := d.signIn("ann")
	salt := []byte("0123456789abcdef")
	cheap := "$argon2id$v=19$m=1024,t=1,p=1$" + base64.RawStdEncoding.EncodeToString(salt) + "$" +
		base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(housePassword), salt, 1, 1024, 1, 32))
	must(t, d.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
		return tx.SetPassword(ctx, storage.Password{UserID: ann.User.ID, Hash: cheap, CreatedAt: d.now(), UpdatedAt: d.now()})
	}))
	d.signIn("ann")
	got, err := d.store.Password(t.Context(), ann.User.ID)
	must(t, err)
	if right, outdated := d.p.policy.passwordCost().verify(got.Hash, housePassword); !right || outdated {
		t.Errorf("kept as %s", got.Hash[:30])
	}
	for _, bad := range []string{"", "plain", "$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=1024,t=1,p=1$AAAA$", d.p.policy.passwordCost().nobody()} {
		if right, _ := d.p.policy.passwordCost().verify(bad, ""); right {
			t.Errorf("%q has a password", bad)
		}
	}
}

// A database that goes away in the middle of a sign-in says nothing of the
// password: nobody with the right one is told that it is wrong.
func TestSignInWithoutDatabase(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		other, m := h.replica()
		m.away = true
		_, err := other.p.SignIn(t.Context(), SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"})
		if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, ErrBadCredentials) {
			t.Errorf("the right password: %v", err)
		}
		m.away = false
		if _, err := other.p.SignIn(t.Context(), SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"}); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}
