package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// atOnce lets deliveries be tried again after no time, as tests want it.
func atOnce(p *provider.Policy) {
	p.DeliverEvery, p.DeliveryRetry, p.DeliveryLongestRetry, p.BacklogEvery = 20*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, 20*time.Millisecond
}

func telling(alter ...func(*provider.Policy)) options {
	return options{allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, policy: func(p *provider.Policy) {
		atOnce(p)
		for _, f := range alter {
			f(p)
		}
	}}
}

// receiver is where a client is told of logouts.
type receiver struct {
	t   *testing.T
	url string
	got chan string // logout tokens, unverified
}

// receive starts a receiver that answers the nth request by answer.
func receive(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	v := &receiver{t: t, got: make(chan string, 1000)}
	var mu sync.Mutex
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Back-Channel Logout §2.5
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != formType || r.ParseForm() != nil || len(r.PostForm) != 1 {
			t.Errorf("%s %s with %v", r.Method, r.URL, r.PostForm)
		}
		mu.Lock()
		n++
		nth := n
		mu.Unlock()
		v.got <- r.PostForm.Get("logout_token")
		answer(nth, w, r)
	}))
	t.Cleanup(srv.Close)
	v.url = srv.URL + "/logout?x=1"
	return v
}

func ok(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

func (v *receiver) next() string {
	v.t.Helper()
	select {
	case token := <-v.got:
		return token
	case <-time.After(60 * time.Second):
		v.t.Fatal("the client is not told")
		return ""
	}
}

// logoutClaims is what a logout token says (Back-Channel Logout §2.4).
type logoutClaims struct {
	Issuer    string                     `json:"iss"`
	Subject   string                     `json:"sub"`
	SessionID string                     `json:"sid"`
	ID        string                     `json:"jti"`
	IssuedAt  int64                      `json:"iat"`
	Expires   int64                      `json:"exp"`
	Events    map[string]json.RawMessage `json:"events"`
}

// verifies judges a logout token as a client has to (§2.6).
func (s *site) verifies(token, clientID string) logoutClaims {
	s.t.Helper()
	ctx := context.Background()
	discovered, err := oidc.NewProvider(ctx, s.issuer)
	if err != nil {
		s.t.Fatal(err)
	}
	verified, err := discovered.Verifier(&oidc.Config{ClientID: clientID, Now: s.clock.now}).Verify(ctx, token)
	if err != nil {
		s.t.Fatalf("logout token: %v", err)
	}
	header, all := decode(s.t, token)
	var c logoutClaims
	if err := verified.Claims(&c); err != nil {
		s.t.Fatal(err)
	}
	if _, nonce := all["nonce"]; nonce || header["typ"] != "logout+jwt" || header["alg"] != "ES256" || len(all) != 8 || c.ID == "" || c.Subject == "" || c.SessionID == "" ||
		c.Expires-c.IssuedAt > 120 || len(c.Events) != 1 || string(c.Events["http://schemas.openid.net/event/backchannel-logout"]) != "{}" {
		s.t.Errorf("logout token: %v %v", header, all)
	}
	return c
}

// deliveries returns what is in the outbox.
func (s *site) deliveries() []storage.Delivery {
	s.t.Helper()
	list, err := s.store.Deliveries(s.t.Context(), storage.DeliveryFilter{Page: storage.Page{Limit: 1000}})
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// until waits for what is bound to happen.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for began := time.Now(); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 60*time.Second {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// Whatever ends a session tells the clients it signed a person in to, by the
// names that each of them knows.
func TestBackChannelLogout(t *testing.T) {
	t.Run("public", func(t *testing.T) { testBackChannelLogout(t, func(*storage.Client) {}) })
	t.Run("pairwise", func(t *testing.T) { testBackChannelLogout(t, pairwise) })
}

func testBackChannelLogout(t *testing.T, subjects func(*storage.Client)) {
	t.Parallel()
	onBoth(t, telling(), func(t *testing.T, s *site) {
		secret := s.people()
		v := receive(t, ok)
		tell := func(c *storage.Client) {
			c.BackChannelLogoutURI = v.url
			subjects(c)
		}
		made := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		made(s.admin.UpdateClient(t.Context(), "shop", tell))
		s.settle()
		ctx := t.Context()
		for _, tc := range []struct {
			name string
			end  func(b *browser, sub, sid string)
		}{
			{"signed out", func(b *browser, _, _ string) { b.open("/logout").press("submit") }},
			{"ended on the account page", func(*browser, string, string) {
				c := s.browser().open("/login").signIn(ada, password)
				c.open("/account").press("session-2-end").isPage(200, "/account")
			}},
			{"others ended", func(*browser, string, string) {
				s.browser().open("/login").signIn(ada, password).press("end-others").isPage(200, "/account")
			}},
			{"somebody else signed in", func(b *browser, _, _ string) { b.another().open(authorize("prompt", "login")).signIn(bob, password) }},
			{"password changed elsewhere", func(*browser, string, string) {
				c := s.browser().open("/login").signIn(ada, password)
				for old, replacement := password, password+" again"; ; old, replacement = replacement, old { // there and back
					c.open("/account/password").press("submit", "current_password", old, "new_password", replacement, "repeat_password", replacement).isPage(200, "/account")
					if replacement == password {
						return
					}
				}
			}},
			{"signet user set-password", func(*browser, string, string) { made(s.admin.SetPassword(ctx, ada, password)) }},
			{"signet revoke --sid", func(_ *browser, _, sid string) { made(s.admin.RevokeSession(ctx, sid)) }},
			{"signet revoke --sub", func(_ *browser, sub, _ string) { made(s.admin.RevokeSubject(ctx, sub)) }},
			{"signet user disable", func(*browser, string, string) {
				made(s.admin.DisableUser(ctx, ada))
				made(s.admin.EnableUser(ctx, ada))
			}},
			{"signet user delete", func(*browser, string, string) { made(s.admin.DeleteUser(ctx, ada)) }},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := s.browser()
				tokens := s.grant(b, secret, "scope", "openid offline_access")
				_, id := decode(t, tokens.member("id_token"))
				s.grant(b, secret, "scope", "openid") // the same client twice is told once
				if list := s.deliveries(); len(list) != 0 {
					t.Fatalf("told before anything ended: %+v", list)
				}
				tc.end(b, id["sub"].(string), id["sid"].(string))
				c := s.verifies(v.next(), "shop")
				if c.Subject != id["sub"] || c.SessionID != id["sid"] {
					t.Errorf("told of %+v, the ID token says %v", c, id)
				}
				until(t, "the outbox is empty", func() bool { return len(s.deliveries()) == 0 })
				if n := len(v.got); n != 0 {
					t.Errorf("told %d times more", n)
				}
			})
		}
	})
}

// Who is not told: clients that were not given openid in that session, that
// asked for nothing, are disabled or gone.
func TestBackChannelLogoutOfOthers(t *testing.T) {
	onBoth(t, telling(), func(t *testing.T, s *site) {
		secret := s.people()
		v := receive(t, ok)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		change := func(uri string) {
			t.Helper()
			_, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.BackChannelLogoutURI = uri })
			must(err)
			s.settle()
		}
		b := s.browser()
		s.grant(b, secret, "scope", "openid")
		b.open("/logout").press("submit")
		change(v.url)
		s.grant(b, secret, "scope", "orders:read")
		b.open("/logout").press("submit")
		other := s.browser() // a session that goes on
		s.grant(other, secret, "scope", "openid")
		s.browser().open("/login").signIn(ada, password).open("/logout").press("submit")
		if list := s.deliveries(); len(list) != 0 || len(v.got) != 0 {
			t.Errorf("told: %+v", list)
		}
		// A logout that was queued before the client was disabled.
		_, err := s.admin.DisableClient(t.Context(), "shop")
		must(err)
		s.settle()
		s.queue("shop", 1, s.clock.now())
		until(t, "it is dropped", func() bool { return len(s.deliveries()) == 0 })
		if len(v.got) != 0 {
			t.Error("a disabled client is told")
		}
	})
}

// queue leaves n logouts for the client in the outbox.
func (s *site) queue(clientID string, n int, due time.Time) (ids []string) {
	s.t.Helper()
	err := s.store.Update(s.t.Context(), func(ctx context.Context, tx storage.Tx) error {
		ids = nil
		for range n {
			id := uuid.Must(uuid.NewV7()).String()
			ids = append(ids, id)
			if err := tx.CreateDelivery(ctx, storage.Delivery{ID: id, Kind: "backchannel_logout", ClientID: clientID,
				Payload: `{"user_id":"somebody","sid":"some session"}`, NextAttemptAt: due, CreatedAt: due}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return ids
}

// A client that fails is told again, by the same jti, until it has heard; one
// that never does is given up, with the cause.
func TestBackChannelLogoutIsRetried(t *testing.T) {
	elsewhere := receive(t, ok)
	for _, tc := range []struct {
		name, uri, cause string // cause: it is given up
		answer           func(n int, w http.ResponseWriter, r *http.Request)
	}{
		{name: "fails twice", answer: func(n int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader([]int{500, 400, 204}[min(n, 3)-1])
		}},
		{name: "redirects", cause: "status 307", answer: func(_ int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.url, http.StatusTemporaryRedirect)
		}},
		{name: "is not there", cause: "status 404", answer: func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }},
		{name: "another 2xx", cause: "status 202", answer: func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }},
		{name: "a private address", uri: "http://10.1.2.3/logout", cause: "want https"},
		{name: "a name for a private address", uri: "https://localhost/logout", cause: "x509"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			patience := func(p *provider.Policy) {
				if tc.cause != "" {
					p.DeliveryPatience = time.Second
				}
			}
			o := telling(patience)
			if strings.Contains(tc.uri, "localhost") {
				o.allow, tc.cause = nil, "not a public address"
			}
			onBoth(t, o, func(t *testing.T, s *site) {
				s.people()
				uri := tc.uri
				var v *receiver
				if uri == "" {
					v = receive(t, tc.answer)
					uri = v.url
				}
				if _, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.BackChannelLogoutURI = uri }); err != nil {
					t.Fatal(err)
				}
				s.settle()
				id := s.queue("shop", 1, s.clock.now())[0]
				if tc.cause == "" {
					for range 3 {
						if c := s.verifies(v.next(), "shop"); c.ID != id {
							t.Errorf("jti %s, want %s", c.ID, id)
						}
					}
					until(t, "it is delivered", func() bool { return len(s.deliveries()) == 0 })
					return
				}
				until(t, "it is given up", func() bool { return s.deliveries()[0].NextAttemptAt.IsZero() })
				d := s.deliveries()[0]
				if !strings.Contains(d.LastError, tc.cause) || strings.Contains(d.LastError, "x=1") || d.Attempts < 1 {
					t.Errorf("%d attempts, the last: %s", d.Attempts, d.LastError)
				}
				if strings.Contains(s.log.String(), "eyJ") || !strings.Contains(s.log.String(), "given_up") && !strings.Contains(s.log.String(), "not going to be") {
					t.Error("the log has a token, or nothing")
				}
				until(t, "the figures say so", func() bool { return s.figure("signet_logouts_failed") == 1 && s.figure("signet_logouts_pending") == 0 })
			})
		})
	}
	t.Cleanup(func() {
		if len(elsewhere.got) != 0 {
			t.Error("a redirect is followed")
		}
	})
}

// figure returns a gauge of the provider.
func (s *site) figure(name string) float64 {
	s.t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	s.t.Fatalf("no figure %s", name)
	return 0
}

// A client that does not answer holds up itself alone, and is asked once at a
// time: five logouts take it five timeouts of five seconds.
func TestBackChannelLogoutSlow(t *testing.T) {
	onBoth(t, telling(func(p *provider.Policy) { p.DeliveryLanes = 2 }), func(t *testing.T, s *site) {
		s.people()
		slow := receive(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		fast := receive(t, ok)
		for id, v := range map[string]*receiver{"shop": slow, "portal": fast} {
			if _, err := s.admin.UpdateClient(t.Context(), id, func(c *storage.Client) { c.BackChannelLogoutURI = v.url }); err != nil {
				t.Fatal(err)
			}
		}
		s.settle()
		began := time.Now()
		s.queue("shop", 5, s.clock.now().Add(-time.Second))
		slow.next()
		s.queue("portal", 5, s.clock.now())
		for range 5 {
			fast.next()
		}
		n, took := len(slow.got), time.Since(began)
		if n >= 4 {
			t.Errorf("the fast client had to wait for %d more attempts of the slow one", n)
		}
		if n > int(took/(5*time.Second)) {
			t.Errorf("%d more attempts of the slow client began within %s", n, took)
		}
	})
}

// Of two replicas one tells each logout, and what a replica took that died is
// told by the other.
func TestBackChannelLogoutReplicas(t *testing.T) {
	onBoth(t, telling(), func(t *testing.T, s *site) {
		s.people()
		o := telling()
		o.beside = s
		newSite(t, s.db.open(t), o)
		v := receive(t, ok)
		if _, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.BackChannelLogoutURI = v.url }); err != nil {
			t.Fatal(err)
		}
		ids := s.queue("shop", 40, s.clock.now().Add(time.Hour))
		// One died with eight of them; the others become due.
		err := s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			now := s.clock.now() // neither replica may know yet that the client wants to be told
			taken, err := tx.ClaimDeliveries(ctx, storage.DeliveryClaim{Now: now.Add(2 * time.Hour), Until: now.Add(2 * time.Second), Limit: 8})
			if err == nil && len(taken) != 8 {
				err = errors.New("nothing to take")
			}
			for _, id := range ids {
				if err == nil && !slices.ContainsFunc(taken, func(d storage.Delivery) bool { return d.ID == id }) {
					err = tx.RetryDelivery(ctx, id, 0, now, "")
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		told := make(map[string]int)
		for range ids {
			_, claims := decode(t, v.next())
			told[fmt.Sprint(claims["jti"])]++
		}
		until(t, "the outbox is empty", func() bool { return len(s.deliveries()) == 0 })
		if len(told) != len(ids) || len(v.got) != 0 {
			t.Errorf("of %d logouts %d were told, %d of them twice", len(ids), len(told), len(ids)-len(told)+len(v.got))
		}
	})
}

// What may be registered, by an operator and by a client itself.
func TestLogoutURIsRegistered(t *testing.T) {
	o := open()
	onBoth(t, o, func(t *testing.T, s *site) {
		m := s.get("/.well-known/openid-configuration").json
		if m["backchannel_logout_supported"] != true || m["backchannel_logout_session_supported"] != true {
			t.Errorf("metadata: %v", m)
		}
		const uri = "https://shop.example/told?x=1"
		made := s.registers(spa("backchannel_logout_uri", uri, "backchannel_logout_session_required", true,
			"frontchannel_logout_uri", "https://shop.example:443/unseen?y=1", "frontchannel_logout_session_required", true))
		if made.member("backchannel_logout_uri") != uri || made.json["backchannel_logout_session_required"] != true ||
			made.member("frontchannel_logout_uri") == "" || made.json["frontchannel_logout_session_required"] != true {
			t.Errorf("registered %s", made.body)
		}
		c, err := s.admin.Client(t.Context(), made.member("client_id"))
		if err != nil || c.BackChannelLogoutURI != uri {
			t.Errorf("%+v, %v", c, err)
		}
		for name, metadata := range map[string]map[string]any{
			"fragment":            spa("backchannel_logout_uri", uri+"#f"),
			"plain http":          spa("backchannel_logout_uri", "http://shop.example/told"),
			"another scheme":      spa("backchannel_logout_uri", "ftp://shop.example/told"),
			"relative":            spa("backchannel_logout_uri", "/told"),
			"with a password":     spa("backchannel_logout_uri", "https://a:b@shop.example/told"),
			"front, another host": spa("frontchannel_logout_uri", "https://other.example/unseen"),
			"front, another port": spa("frontchannel_logout_uri", "https://shop.example:8443/unseen"),
			"front, plain http":   spa("frontchannel_logout_uri", "http://shop.example/unseen"),
			"front, IPv6":         spa("redirect_uris", []string{"https://[2001:db8::1]/cb"}, "frontchannel_logout_uri", "https://[2001:db8::1]/unseen"),
			"front, a script":     spa("frontchannel_logout_uri", "javascript:alert(1)"),
		} {
			if a := s.registration(http.MethodPost, "/register", "", metadata); a.status != http.StatusBadRequest || a.member("error") != "invalid_client_metadata" ||
				!strings.Contains(a.member("error_description"), "channel_logout_uri") {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
		s.register("service")
		_, err = s.admin.UpdateClient(t.Context(), "service", func(c *storage.Client) { c.BackChannelLogoutURI = uri })
		var invalid *provider.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("a service: %v", err)
		}
	})
}

// O4, N3: who registered itself is told of logouts at public addresses only,
// whatever networks the operator allows for clients of the operator's.
func TestBackChannelLogoutOfAStranger(t *testing.T) {
	o := open()
	o.allow, o.algs = trusted(), []string{keys.ES256, keys.RS256}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		mine, stranger := receive(t, ok), receive(t, ok)
		id := s.registers(spa()).member("client_id")
		for client, v := range map[string]*receiver{"shop": mine, id: stranger} {
			if _, err := s.admin.UpdateClient(t.Context(), client, func(c *storage.Client) { c.BackChannelLogoutURI = v.url }); err != nil {
				t.Fatal(err)
			}
		}
		s.settle()
		b := s.browser()
		b.open(authorize("client_id", id)).signIn(ada, password).press("allow").answered(callback)
		b.open(authorize()).press("allow").answered(callback)
		b.open("/logout").press("submit")
		mine.next()
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			list, err := s.store.Deliveries(t.Context(), storage.DeliveryFilter{Page: storage.Page{Limit: 10}})
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 1 && list[0].ClientID == id && list[0].LastError != "" {
				if !strings.Contains(list[0].LastError, "want https") {
					t.Errorf("it was not told because: %s", list[0].LastError)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("deliveries: %+v", list)
			}
		}
		select {
		case <-stranger.got:
			t.Error("a private address was told of a logout because a stranger named it")
		default:
		}
	})
}
