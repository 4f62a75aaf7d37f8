package provider

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// meanwhile is a database in which something else happens in the middle of a
// transaction: after it has read what it rests on, before it writes.
type meanwhile struct {
	storage.Store
	happens func() // nil once it has
	queue   func() // happens while a transaction waits for its turn
	// appended happens between an entry of the revocation log and its commit.
	appended func()
	away     bool // the database goes away when a transaction asks for a user
}

// Update implements storage.Store.
func (m *meanwhile) Update(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	if m.queue != nil {
		m.queue()
	}
	return m.Store.Update(ctx, func(ctx context.Context, tx storage.Tx) error { return fn(ctx, &meanwhileTx{tx, m}) })
}

type meanwhileTx struct {
	storage.Tx
	m *meanwhile
}

// now lets it happen, unless the database makes it wait for this transaction.
func (m *meanwhile) now() {
	happens := m.happens
	if happens == nil {
		return
	}
	m.happens = nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		happens()
	}()
	select {
	case <-done:
	case <-time.After(300 * time.Millisecond):
	}
}

// AppendRevocation implements storage.Tx.
func (t *meanwhileTx) AppendRevocation(ctx context.Context, r storage.Revocation) (int64, error) {
	seq, err := t.Tx.AppendRevocation(ctx, r)
	if t.m.appended != nil {
		t.m.appended()
	}
	return seq, err
}

// User implements storage.Reader.
func (t *meanwhileTx) User(ctx context.Context, id string) (storage.User, error) {
	if t.m.away {
		return storage.User{}, storage.ErrUnavailable
	}
	return t.Tx.User(ctx, id)
}

// CreateGrant implements storage.Tx.
func (t *meanwhileTx) CreateGrant(ctx context.Context, g storage.Grant) error {
	t.m.now()
	return t.Tx.CreateGrant(ctx, g)
}

// CreateSession implements storage.Tx.
func (t *meanwhileTx) CreateSession(ctx context.Context, s storage.Session) error {
	t.m.now()
	return t.Tx.CreateSession(ctx, s)
}

// RedeemCode implements storage.Tx.
func (t *meanwhileTx) RedeemCode(ctx context.Context, id string, now time.Time, r storage.Redemption) error {
	t.m.now()
	return t.Tx.RedeemCode(ctx, id, now, r)
}

// RotateGrant implements storage.Tx.
func (t *meanwhileTx) RotateGrant(ctx context.Context, id string, from int64, now time.Time, keyID string, idleEnd time.Time) error {
	t.m.now()
	return t.Tx.RotateGrant(ctx, id, from, now, keyID, idleEnd)
}

// replica is another server over the house's database, in which things happen
// in the middle of a transaction.
func (h *house) replica() (*house, *meanwhile) {
	h.t.Helper()
	m := &meanwhile{Store: h.store}
	other := &house{t: h.t, admin: h.admin, store: m, secret: h.secret}
	// It compares its clock with the database's, which no test moves.
	ahead := h.ahead.Swap(0)
	defer h.ahead.Store(ahead)
	var err error
	other.p, err = New(h.t.Context(), Config{
		Issuer: h.p.issuer, Store: m, Sealer: h.p.registry.sealer, Algorithms: keys.Algorithms(), Policy: h.p.policy, Outbound: NewOutbound(nil),
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: h.now,
	})
	must(h.t, err)
	return other, m
}

// ending ends what a person has given.
type ending struct {
	name string
	do   func(ctx context.Context, h *house, victim *SignedIn) error
	undo func(ctx context.Context, h *house) error
}

func endings() []ending {
	nothing := func(context.Context, *house) error { return nil }
	return []ending{
		{"password changed by its person, elsewhere", func(ctx context.Context, h *house, victim *SignedIn) error {
			_, err := h.p.ChangePassword(ctx, victim, housePassword, "another quiet heron", "192.0.2.1")
			return err
		}, func(ctx context.Context, h *house) error {
			_, err := h.admin.SetPassword(ctx, "ann", housePassword)
			return err
		}},
		{"password set by an operator", func(ctx context.Context, h *house, victim *SignedIn) error {
			_, err := h.admin.SetPassword(ctx, "ann", housePassword)
			return err
		}, nothing},
		{"consent withdrawn", func(ctx context.Context, h *house, victim *SignedIn) error {
			if err := h.p.WithdrawApp(ctx, victim, "shop"); !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			return nil
		}, nothing},
		{"user disabled", func(ctx context.Context, h *house, victim *SignedIn) error {
			_, err := h.admin.DisableUser(ctx, "ann")
			return err
		}, func(ctx context.Context, h *house) error {
			_, err := h.admin.EnableUser(ctx, "ann")
			return err
		}},
		{"client disabled", func(ctx context.Context, h *house, victim *SignedIn) error {
			_, err := h.admin.DisableClient(ctx, "shop")
			return err
		}, func(ctx context.Context, h *house) error {
			_, err := h.admin.EnableClient(ctx, "shop")
			return err
		}},
		{"user deleted", func(ctx context.Context, h *house, victim *SignedIn) error {
			_, err := h.admin.DeleteUser(ctx, "ann")
			return err
		}, func(ctx context.Context, h *house) error { return h.createAnn(ctx) }},
	}
}

// What ends a person's access ends also what is being made of it at that very
// moment, on another replica.
func TestAccessEndsWhileItIsGiven(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ctx := t.Context()
		replica, m := h.replica()
		for _, c := range endings() {
			victim, thief := h.signIn("ann"), h.signIn("ann")
			done := make(chan error, 1)
			m.happens = func() { done <- c.do(ctx, h, victim) }
			// Whether the approval comes first or the change, the code is worth nothing.
			a, err := replica.begin(askShop("prompt", "consent"))
			must(t, err)
			_, err = replica.p.Next(ctx, a, thief)
			must(t, err)
			redirect, err := replica.p.Approve(ctx, replica.carry(a), thief, true)
			must(t, <-done)
			h.settle()
			if err == nil {
				if r := h.redeem(redirect.Params.Get("code")); r.status == http.StatusOK {
					t.Errorf("%s while a code is issued: the code is redeemed", c.name)
				}
			}
			must(t, c.undo(ctx, h))
			h.settle()
		}
	})
}

// F19: a code or refresh token that is used at the very moment when access ends
// is refused, or what it gave is dead.
func TestAccessEndsWhileItIsUsed(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.quick()
		ctx := t.Context()
		replica, m := h.replica()
		for _, c := range endings() {
			for _, refresh := range []bool{false, true} {
				victim := h.signIn("ann")
				code := h.code(victim)
				use := func() reply { return replica.redeem(code) }
				if refresh {
					token := h.redeem(code).member("refresh_token")
					use = func() reply { return replica.refresh(token) }
				}
				done := make(chan error, 1)
				m.happens = func() { done <- c.do(ctx, h, victim) }
				r := use()
				if m.happens != nil {
					t.Fatalf("%s, refresh %t: refused before anything happened: %v", c.name, refresh, r.json)
				}
				must(t, <-done)
				h.settle()
				if r.status == http.StatusOK {
					if h.refresh(r.member("refresh_token")).status == http.StatusOK {
						t.Errorf("%s, refresh %t: the refresh token is good", c.name, refresh)
					}
					if h.userInfo(r.member("access_token")).status == http.StatusOK {
						t.Errorf("%s, refresh %t: the access token is good", c.name, refresh)
					}
				} else if r.member("error") != "invalid_grant" {
					t.Errorf("%s, refresh %t: %d %v", c.name, refresh, r.status, r.json)
				}
				must(t, c.undo(ctx, h))
				h.settle()
				if r.status == http.StatusOK && h.userInfo(r.member("access_token")).status == http.StatusOK {
					t.Errorf("%s, refresh %t: the access token is good again", c.name, refresh)
				}
			}
		}
	})
}

// A new password ends also what was given out while the change waited for the
// database, after it had looked at the clock.
func TestPasswordChangedAfterAWait(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.quick()
		ctx := t.Context()
		replica, m := h.replica()
		for _, c := range []struct {
			name string
			do   func(victim *SignedIn) error
		}{
			{"by its person", func(victim *SignedIn) error {
				_, err := replica.p.ChangePassword(ctx, victim, housePassword, "another quiet heron", "192.0.2.1")
				return err
			}},
			{"by a set-up link", func(*SignedIn) error {
				link, _, err := h.admin.InviteUser(ctx, "ann")
				must(t, err)
				_, secret, _ := strings.Cut(link, "link=")
				_, err = replica.p.UseInvitation(ctx, secret, "a third quiet heron")
				return err
			}},
		} {
			token := h.tokens(h.signIn("ann")).member("refresh_token")
			var stolen string
			m.queue = func() {
				h.later(1100 * time.Millisecond)
				r := h.refresh(token)
				token, stolen = r.member("refresh_token"), r.member("access_token")
			}
			must(t, c.do(h.signIn("ann")))
			m.queue = nil
			if h.refresh(token).status == http.StatusOK {
				t.Errorf("%s: the refresh token is good", c.name)
			}
			if h.active(stolen) { // what verifiers are told
				t.Errorf("%s: the access token is good", c.name)
			}
			_, err := h.admin.SetPassword(ctx, "ann", housePassword)
			must(t, err)
			h.settle()
		}
	})
}

// What is minted from the old truth, while the change that ends it has not
// committed yet and in another second than it looked at the clock, is refused;
// what is minted right after it waits until it is not.
func TestTokenBetweenAnEpochAndItsCommit(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.quick()
		ctx := t.Context()
		m := &meanwhile{Store: h.store}
		admin := NewAdmin(AdminConfig{
			Store: m, Ring: func(context.Context) (*keys.Ring, error) { return h.p.registry.current.Load().ring, nil },
			Policy: h.p.policy, Now: h.now, Actor: "operator", Issuer: houseIssuer,
		})
		service := h.client("service", func(c *storage.Client) {
			c.GrantTypes, c.RedirectURIs, c.Scopes = []string{grantClientCredentials}, nil, []string{"orders:read"}
		})
		h.settle()
		serve := func() reply {
			return h.post(h.p.Token, "service", service, url.Values{"grant_type": {grantClientCredentials}, "scope": {"orders:read"}})
		}
		active := func(r reply) bool { // each client is told of its own
			token := r.member("access_token")
			own := h.post(h.p.Introspect, "service", service, url.Values{"token": {token}}).json["active"] == true
			return own || h.active(token)
		}
		for _, c := range []struct {
			name    string
			do      func() error
			service bool
		}{
			{name: "role lost", do: func() error { _, err := admin.RevokeUserRole(ctx, "ann", "orders-admin"); return err }},
			{name: "password set", do: func() error { _, err := admin.SetPassword(ctx, "ann", housePassword); return err }},
			{name: "service revoked", do: func() error { _, err := admin.RevokeClient(ctx, "service"); return err }, service: true},
		} {
			_, err := h.admin.GrantUserRole(ctx, "ann", "orders-admin")
			must(t, err)
			h.settle()
			first := h.tokens(h.signIn("ann"), "scope", "openid orders:report offline_access").member("refresh_token")
			h.wants(c.name, h.refresh(first), "") // so that first is only repeated below
			var stolen reply
			m.appended = func() {
				next := h.now().Truncate(time.Second).Add(1300 * time.Millisecond)
				h.still.Store(&next)
				must(t, h.p.registry.refresh(ctx))
				if stolen = h.refresh(first); c.service {
					stolen = serve()
				}
			}
			began := h.now().Truncate(time.Second).Add(1600 * time.Millisecond)
			h.still.Store(&began)
			must(t, c.do())
			h.ahead.Store(int64(time.Until(h.now())))
			h.still.Store(nil)
			h.wants(c.name, stolen, "")
			if active(stolen) {
				t.Errorf("%s: a token from before the commit is good", c.name)
			}
			h.later(h.p.policy.RegistryPoll) // until then it works with the client it remembers
			must(t, h.p.registry.refresh(ctx))
			fresh := h.tokens(h.signIn("ann"))
			again := h.refresh(fresh.member("refresh_token"))
			for _, r := range []reply{fresh, again, serve()} {
				if h.wants(c.name, r, ""); !active(r) {
					t.Errorf("%s: a token from after it is refused", c.name)
				}
			}
		}
	})
}

// What a replica revokes is revoked, however wrong its own clock is.
func TestRevokedByAReplicaWithAWrongClock(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.quick()
		replica, _ := h.replica()
		for _, off := range []time.Duration{-time.Hour, time.Hour} {
			replica.p.clock.local = func() time.Time { return h.now().Add(off) }
			replica.p.clock.last.Store(&clockReading{ours: replica.p.clock.local(), theirs: h.now()})
			s := h.signIn("ann")
			kept := h.tokens(s, "scope", "openid orders:read")
			must(t, replica.p.SignOut(t.Context(), s))
			if h.active(kept.member("access_token")) {
				t.Errorf("clock %s off: the token of a session that was ended there is good", off)
			}
			single := h.tokens(h.signIn("ann")).member("access_token")
			issued, err := h.p.readToken(view{snapshot: h.p.registry.current.Load()}, single)
			must(t, err)
			must(t, replica.p.revokeToken(t.Context(), issued))
			if h.active(single) {
				t.Errorf("clock %s off: a token that was revoked there is good", off)
			}
		}
	})
}

// A sign-in under way when an account is shut starts no session that lives
// once it is open again.
func TestAccountShutWhileSigningIn(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ctx := t.Context()
		replica, m := h.replica()
		for _, c := range []struct {
			name     string
			do, undo func() error
		}{
			{"disabled", func() error { _, err := h.admin.DisableUser(ctx, "bob"); return err },
				func() error { _, err := h.admin.EnableUser(ctx, "bob"); return err }},
			{"another password", func() error { _, err := h.admin.SetPassword(ctx, "bob", "another quiet heron"); return err },
				func() error { return nil }},
		} {
			done := make(chan error, 1)
			m.happens = func() { done <- c.do() }
			result, err := replica.p.SignIn(ctx, SignInAttempt{Login: "bob", Password: housePassword, Address: "192.0.2.1"})
			must(t, <-done)
			must(t, c.undo())
			if err == nil {
				if _, err := h.p.Resume(ctx, result.Cookie); !errors.Is(err, ErrNoSession) {
					t.Errorf("%s: the session lives: %v", c.name, err)
				}
			}
		}
	})
}
