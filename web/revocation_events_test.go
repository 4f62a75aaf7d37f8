package web_test

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// consents gets the person in the browser through a request of shop's and
// returns the code.
func (b *browser) consents(login, pass, scope string) (code string) {
	b.t.Helper()
	b.open(authorize("scope", scope))
	if b.left == nil && strings.HasSuffix(b.at.Path, "/login") {
		b.signIn(login, pass)
	}
	if b.left == nil {
		b.press("allow")
	}
	return b.answered(callback).Get("code")
}

// access is what is out while something is taken back: a person's tokens, of a
// grant that survives signing out and of one that does not, and a service's.
type access struct {
	s              *site
	shop, service  string // secrets
	person         *browser
	code           string // of the offline grant
	offline, bound answer

	offlineToken, boundToken, serviceToken string

	club                   app // with pairwise subjects
	clubOffline, clubBound answer
}

// Every event that takes something back reaches verifiers: what each of them
// decides from the feed alone is what introspection says from the truth, for
// what the event is about and for what it is not.
func TestEventsReachVerifiers(t *testing.T) {
	const (
		offlineScope = "openid profile offline_access orders:read"
		boundScope   = "openid profile orders:read"
		changed      = "an owl between two oaks"
	)
	claim := func(t *testing.T, token, name string) string {
		_, claims := decode(t, token)
		value, _ := claims[name].(string)
		if value == "" {
			t.Fatalf("no %s in %v", name, claims)
		}
		return value
	}
	ok := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refresh := func(a *access, token string) answer {
		return a.s.form("/token", "shop", a.shop, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
	}
	for _, event := range []struct {
		name                    string
		act                     func(t *testing.T, a *access)
		offline, bound, service string // why each is refused
		fresh                   bool   // a new sign-in and a new service's token work afterwards
		everywhere              bool   // so it is for other apps, by whatever name they know the person
	}{
		{name: "an access token is revoked", act: func(t *testing.T, a *access) {
			a.s.revokeToken("shop", a.shop, a.offlineToken)
		}, offline: "jti block", fresh: true},
		{name: "a refresh token is revoked", act: func(t *testing.T, a *access) {
			a.s.revokeToken("shop", a.shop, a.bound.member("refresh_token"))
		}, bound: "grant block", fresh: true},
		{name: "a refresh token is used again", act: func(t *testing.T, a *access) {
			first := a.offline.member("refresh_token")
			second := refresh(a, first)
			if third := refresh(a, second.member("refresh_token")); third.status != 200 {
				t.Fatal(third.body)
			}
			refresh(a, first).isRefusal(t, 400, "invalid_grant")
		}, offline: "grant block", fresh: true},
		{name: "a code is used again", act: func(t *testing.T, a *access) {
			a.s.redeem(a.shop, a.code).isRefusal(t, 400, "invalid_grant")
		}, offline: "grant block", fresh: true},
		{name: "the app is withdrawn", act: func(t *testing.T, a *access) {
			a.person.open("/account").press("app-1-withdraw").isPage(200, "/account")
		}, offline: "grant block", bound: "grant block", fresh: true},
		{name: "the person signs out", everywhere: true, act: func(t *testing.T, a *access) {
			a.person.open("/logout").press("submit")
		}, bound: "sid block", fresh: true},
		{name: "the session is ended elsewhere", everywhere: true, act: func(t *testing.T, a *access) {
			a.s.browser().open("/login").signIn(ada, password).open("/account").press("end-others").isPage(200, "/account")
		}, bound: "sid block", fresh: true},
		{name: "the person changes the password", everywhere: true, act: func(t *testing.T, a *access) {
			a.person.open("/account/password").press("submit", "current_password", password, "new_password", changed, "repeat_password", changed).
				isPage(200, "/account")
		}, offline: "grant block", bound: "grant block"},
		{name: "the operator sets a password", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.SetPassword(t.Context(), ada, changed)
			ok(t, err)
		}, offline: "sub epoch", bound: "sub epoch"},
		{name: "the person loses a role", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.GrantUserRole(t.Context(), ada, "orders-admin")
			ok(t, err)
			_, err = a.s.admin.RevokeUserRole(t.Context(), ada, "orders-admin")
			ok(t, err)
		}, offline: "sub epoch", bound: "sub epoch", fresh: true},
		{name: "the client loses a role", act: func(t *testing.T, a *access) {
			for _, roles := range [][]string{{"orders-admin"}, nil} {
				_, err := a.s.admin.UpdateClient(t.Context(), "service", func(c *storage.Client) { c.Roles = roles })
				ok(t, err)
			}
		}, service: "client epoch", fresh: true},
		{name: "a role is deleted", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.CreateRole(t.Context(), storage.Role{Name: "passing"})
			ok(t, err)
			_, err = a.s.admin.GrantUserRole(t.Context(), ada, "passing")
			ok(t, err)
			_, err = a.s.admin.UpdateClient(t.Context(), "service", func(c *storage.Client) { c.Roles = []string{"passing"} })
			ok(t, err)
			ok(t, a.s.admin.DeleteRole(t.Context(), "passing"))
		}, offline: "sub epoch", bound: "sub epoch", service: "client epoch", fresh: true},
		{name: "the person is disabled", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.DisableUser(t.Context(), ada)
			ok(t, err)
		}, offline: "sub block", bound: "sub block"},
		{name: "the person is disabled and enabled again", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.DisableUser(t.Context(), ada)
			ok(t, err)
			_, err = a.s.admin.EnableUser(t.Context(), ada)
			ok(t, err)
		}, offline: "sub epoch", bound: "sub epoch", fresh: true},
		{name: "the person is deleted", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.DeleteUser(t.Context(), ada)
			ok(t, err)
		}, offline: "sub block", bound: "sub block"},
		{name: "the client is disabled", act: func(t *testing.T, a *access) {
			_, err := a.s.admin.DisableClient(t.Context(), "shop")
			ok(t, err)
		}, offline: "client block", bound: "client block"},
		{name: "the client is disabled and enabled again", act: func(t *testing.T, a *access) {
			_, err := a.s.admin.DisableClient(t.Context(), "shop")
			ok(t, err)
			_, err = a.s.admin.EnableClient(t.Context(), "shop")
			ok(t, err)
		}, offline: "client epoch", bound: "client epoch", fresh: true},
		{name: "the client is deleted", act: func(t *testing.T, a *access) {
			ok(t, a.s.admin.DeleteClient(t.Context(), "shop"))
		}, offline: "client block", bound: "client block"},
		{name: "signet revoke --jti", act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeToken(t.Context(), claim(t, a.serviceToken, "jti"))
			ok(t, err)
		}, service: "jti block", fresh: true},
		{name: "signet revoke --grant", act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeGrant(t.Context(), claim(t, a.offlineToken, "grant_id"))
			ok(t, err)
			refresh(a, a.offline.member("refresh_token")).isRefusal(t, 400, "invalid_grant")
		}, offline: "grant block", fresh: true},
		{name: "signet revoke --sid", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeSession(t.Context(), claim(t, a.boundToken, "sid"))
			ok(t, err)
			refresh(a, a.bound.member("refresh_token")).isRefusal(t, 400, "invalid_grant")
			a.person.open("/account").isPage(200, "/login")
		}, bound: "sid block", fresh: true},
		{name: "signet revoke --sub", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeSubject(t.Context(), claim(t, a.boundToken, "sub"))
			ok(t, err)
			for _, token := range []answer{a.offline, a.bound} {
				refresh(a, token.member("refresh_token")).isRefusal(t, 400, "invalid_grant")
			}
		}, offline: "sub epoch", bound: "sub epoch", fresh: true},
		{name: "signet revoke --sid, a pairwise one", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeSession(t.Context(), claim(t, a.clubBound.member("access_token"), "sid"))
			ok(t, err)
			a.club.refresh(a.clubBound).isRefusal(t, 400, "invalid_grant")
			refresh(a, a.bound.member("refresh_token")).isRefusal(t, 400, "invalid_grant")
		}, bound: "sid block", fresh: true},
		{name: "signet revoke --sub, a pairwise one", everywhere: true, act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeSubject(t.Context(), claim(t, a.clubOffline.member("access_token"), "sub"))
			ok(t, err)
			a.club.refresh(a.clubOffline).isRefusal(t, 400, "invalid_grant")
			refresh(a, a.offline.member("refresh_token")).isRefusal(t, 400, "invalid_grant")
		}, offline: "sub epoch", bound: "sub epoch", fresh: true},
		{name: "signet revoke --client", act: func(t *testing.T, a *access) {
			_, err := a.s.admin.RevokeClient(t.Context(), "shop")
			ok(t, err)
			_, err = a.s.admin.RevokeClient(t.Context(), "service")
			ok(t, err)
			refresh(a, a.offline.member("refresh_token")).isRefusal(t, 400, "invalid_grant")
		}, offline: "client epoch", bound: "client epoch", service: "client epoch", fresh: true},
		{name: "everything issued until now is refused", everywhere: true, act: func(t *testing.T, a *access) {
			now := a.s.clock.now()
			entry := revocation.Epoch(revocation.KindIssuer, a.s.issuer, "test", now, provider.DefaultPolicy().RevokedUntil(now))
			ok(t, a.s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				_, err := tx.AppendRevocation(ctx, entry)
				return err
			}))
		}, offline: "iss epoch", bound: "iss epoch", service: "iss epoch"},
	} {
		t.Run(event.name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, options{}, func(t *testing.T, s *site) {
				a := &access{s: s, shop: s.people(), person: s.browser()}
				a.service = s.rotated("service")
				_, secret, err := s.admin.CreateClient(t.Context(), service("api"))
				ok(t, err)
				_, err = s.admin.UpdateResource(t.Context(), ordersURI, func(r *storage.Resource) { r.Introspectors = []string{"api"} })
				ok(t, err)
				a.club = s.app("zebra-club", "https://club.example/cb", pairwise)
				s.settle()
				v := s.verifierState()

				a.code = a.person.consents(ada, password, offlineScope)
				a.offline = s.redeem(a.shop, a.code)
				a.bound = s.redeem(a.shop, a.person.consents(ada, password, boundScope))
				other := s.redeem(a.shop, s.browser().consents(bob, password, boundScope))
				a.offlineToken, a.boundToken = a.offline.member("access_token"), a.bound.member("access_token")
				a.serviceToken = s.token("service", a.service, "orders:read")
				a.clubOffline, a.clubBound = a.club.grant(a.person, ada, offlineScope), a.club.grant(a.person, ada, boundScope)

				check := func(what, token, want string) {
					t.Helper()
					if got := v.refuses(token); got != want {
						t.Errorf("a verifier refuses the %s token for %q, want %q", what, got, want)
					}
					active, _ := s.form("/introspect", "api", secret, url.Values{"token": {token}}).json["active"].(bool)
					if active != (want == "") {
						t.Errorf("introspection says of the %s token that it is active: %t", what, active)
					}
				}
				for _, token := range []string{a.offlineToken, a.boundToken, a.serviceToken} {
					check("unrevoked", token, "")
				}
				event.act(t, a)
				v.polled()
				check("offline", a.offlineToken, event.offline)
				check("session's", a.boundToken, event.bound)
				check("service's", a.serviceToken, event.service)
				for _, of := range []struct{ what, token, want string }{
					{"club's offline", a.clubOffline.member("access_token"), event.offline}, {"club's", a.clubBound.member("access_token"), event.bound},
				} {
					if !event.everywhere {
						of.want = ""
					}
					check(of.what, of.token, of.want)
				}
				if !slices.Contains([]string{"client block", "client epoch", "iss epoch"}, event.offline) {
					check("other person's", other.member("access_token"), "")
				}
				// From the snapshot it is the same.
				late := s.verifierState()
				for _, token := range []string{a.offlineToken, a.boundToken, a.serviceToken} {
					if got, want := late.refuses(token), v.refuses(token); got != want {
						t.Errorf("from the snapshot a token is refused for %q, from the batches for %q", got, want)
					}
				}
				if !event.fresh {
					return
				}
				s.settle()
				again := s.redeem(a.shop, a.person.consents(ada, password, boundScope))
				v.polled()
				check("new session's", again.member("access_token"), "")
				clubs := a.club.grant(a.person, ada, boundScope)
				v.polled()
				check("club's new", clubs.member("access_token"), "")
				check("new service's", s.token("service", a.service, "orders:read"), "")
			})
		})
	}
}

// What is minted once a verifier knows of an epoch is not refused for that epoch,
// though this replica asks the database only now and then what has changed.
func TestNoTokenIsRefusedAtBirth(t *testing.T) {
	t.Parallel()
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		secret := s.rotated("service")
		v := s.verifierState()
		for range 5 {
			if _, err := s.admin.RevokeClient(t.Context(), "service"); err != nil {
				t.Fatal(err)
			}
			v.polled()
			if refused := v.refuses(s.token("service", secret, "orders:read")); refused != "" {
				t.Fatalf("a token minted after its client's epoch was published is refused for %q", refused)
			}
		}
	})
}

// service returns a client that acts for itself.
func service(id string) storage.Client {
	c := provider.DefaultClient()
	c.ID, c.Name, c.GrantTypes, c.Scopes = id, id, []string{"client_credentials"}, []string{"orders:read"}
	return c
}

// rotated gives a client a new secret.
func (s *site) rotated(id string) string {
	s.t.Helper()
	secret, _, err := s.admin.RotateClientSecret(s.t.Context(), id, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.settle()
	return secret
}

// I2, CVE-2026-8922: the most restrictive entry wins. Whatever else is said of
// a token that would let it pass, one entry that refuses it is enough.
func TestMostRestrictiveWins(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		token := s.redeem(secret, s.browser().consents(ada, password, "openid profile orders:read")).member("access_token")
		header, claims := decode(t, token)
		about := map[string]string{"kid": header["kid"].(string)}
		for kind, claim := range map[string]string{"jti": "jti", "grant": "grant_id", "sid": "sid", "sub": "sub", "client": "client_id", "iss": "iss"} {
			about[kind] = claims[claim].(string)
		}
		say := func(entries ...storage.Revocation) {
			t.Helper()
			err := s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				for _, e := range entries {
					if _, err := tx.AppendRevocation(ctx, e); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		now := s.clock.now()
		until := now.Add(time.Hour)
		harmless := func(kind string) storage.Revocation {
			return revocation.Epoch(kind, about[kind], "", now.Add(-time.Hour), until)
		}
		for kind := range about {
			say(harmless(kind))
		}
		v := s.verifierState().polled()
		active := func() bool {
			is, _ := s.form("/introspect", "shop", secret, url.Values{"token": {token}}).json["active"].(bool)
			return is
		}
		if !active() || v.refuses(token) != "" {
			t.Fatal("refused though no entry refuses it")
		}
		for kind, value := range about {
			for _, refusing := range []storage.Revocation{revocation.Block(kind, value, "", now, until), revocation.Epoch(kind, value, "", now.Add(time.Minute), until)} {
				say(refusing)
				if v.polled(); active() || v.refuses(token) == "" {
					t.Errorf("a %s of its %s does not refuse it", refusing.Effect, kind)
				}
				if refusing.Effect == revocation.EffectEpoch {
					say(harmless(kind)) // by a clock that is behind
					if v.polled(); active() || v.refuses(token) == "" {
						t.Errorf("an earlier epoch of its %s lets it pass", kind)
					}
					say(revocation.Block(kind, value, "", now, until))
				}
				say(harmless(kind)) // the latest entry counts
				if v.polled(); !active() || v.refuses(token) != "" {
					t.Errorf("a later entry for its %s does not count", kind)
				}
			}
		}
	})
}
