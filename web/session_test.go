package web_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// refresh presents a refresh token as shop.
func (s *site) refresh(secret, token string) answer {
	s.t.Helper()
	return s.form("/token", "shop", secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// L14, R7, R11: whatever ends a sign-in ends it at the server: the cookie, and
// what was given in it, are worth nothing from then on, and stay so.
func TestSessionsEnd(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		drop := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		ctx := t.Context()
		for _, tc := range []struct {
			name    string
			end     func(b *browser)
			offline bool // ends what was meant to go on after signing out, too
		}{
			{"signed out", func(b *browser) { b.open("/logout").press("submit") }, false},
			{"ended elsewhere", func(b *browser) {
				c := s.browser().open("/login").signIn(ada, password)
				c.press("end-others").isPage(200, "/account")
			}, false},
			{"somebody else signed in", func(b *browser) { b.another().open(authorize("prompt", "login")).signIn(bob, password) }, false},
			{"disabled, and enabled again", func(*browser) {
				drop(s.admin.DisableUser(ctx, ada))
				s.browser().open("/login").signIn(ada, password).isPage(422, "/login")
				drop(s.admin.EnableUser(ctx, ada))
			}, false},
			{"password set by an operator", func(*browser) { drop(s.admin.SetPassword(ctx, ada, password)) }, true},
			{"password changed", func(*browser) {
				c := s.browser().open("/login").signIn(ada, password)
				for old, replacement := password, password+" again"; ; old, replacement = replacement, old { // there and back
					c.open("/account/password").press("submit", "current_password", old, "new_password", replacement, "repeat_password", replacement).isPage(200, "/account")
					if replacement == password {
						return
					}
				}
			}, true},
			{"deleted, and made again", func(*browser) {
				drop(s.admin.DeleteUser(ctx, ada))
				drop(s.admin.CreateUser(ctx, storage.User{Username: ada, Email: adaMail, EmailVerified: true, Profile: `{"name":"Ada Lovelace"}`}, password))
			}, true},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := s.browser()
				bound := s.grant(b, secret, "scope", "openid profile")
				offline := s.grant(b, secret, "scope", "openid profile offline_access")
				cookie := b.sessionName() + "=" + b.cookie("session")
				if a := s.get("/account", "Cookie", cookie); a.status != http.StatusOK {
					t.Fatalf("the session does not live: %d", a.status)
				}
				tc.end(b)
				if a := s.get("/account", "Cookie", cookie); a.status != http.StatusSeeOther || a.header.Get("Location") != "/login" {
					t.Errorf("the cookie still works: %d", a.status)
				}
				if a := s.get(authorize("prompt", "none"), "Cookie", cookie); !strings.Contains(a.header.Get("Location"), "error=login_required") {
					t.Errorf("the app is answered from an ended session: %s", a.header.Get("Location"))
				}
				s.refresh(secret, bound.member("refresh_token")).isRefusal(t, http.StatusBadRequest, "invalid_grant")
				if a := s.get("/userinfo", "Authorization", "Bearer "+bound.member("access_token")); a.status != http.StatusUnauthorized {
					t.Errorf("userinfo for a token of the session: %d", a.status)
				}
				if a := s.refresh(secret, offline.member("refresh_token")); (a.status == http.StatusOK) == tc.offline {
					t.Errorf("what goes on after signing out: %d %s", a.status, a.body)
				}
			})
		}
	})
}

// L13: a session ends when it lies idle, and when it is old, however busy.
func TestSessionLifetimes(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b, idle := s.browser().open("/login").signIn(ada, password), s.browser().open("/login").signIn(ada, password)
		for hours := 20; hours < 14*24; hours += 20 {
			s.clock.set(time.Duration(hours) * time.Hour)
			s.settle()
			b.open("/account").isPage(200, "/account")
			if hours > 24 {
				idle.open("/account").isPage(200, "/login")
			}
		}
		s.clock.set(14 * 24 * time.Hour)
		s.settle()
		b.open("/account").isPage(200, "/login")
	})
}

// L18: where a sign-in came from is what the connection says, or what a
// trusted proxy says of it; the rest of X-Forwarded-For is anybody's invention.
func TestSignInAddress(t *testing.T) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	for name, tc := range map[string]struct {
		proxies []netip.Prefix
		want    string
	}{
		"no proxy":        {nil, "127.0.0.1"},
		"another proxy":   {[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "127.0.0.1"},
		"a trusted proxy": {[]netip.Prefix{loopback}, "198.51.100.7"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, openStore(t, "sqlite"), options{proxies: tc.proxies})
			s.people()
			b := s.browser().open("/login")
			action, fields := b.form("submit")
			fields.Set("username", ada)
			fields.Set("password", password)
			a := s.send(http.MethodPost, strings.TrimPrefix(action, s.url), fields.Encode(), "Content-Type", formType, "Sec-Fetch-Site", "same-origin",
				"Cookie", b.bindingName()+"="+b.cookie("browser"), "X-Forwarded-For", "evil, 203.0.113.99", "X-Forwarded-For", "198.51.100.7",
				"Forwarded", "for=203.0.113.98", "X-Real-IP", "203.0.113.97", "True-Client-IP", "203.0.113.96")
			if a.status != http.StatusSeeOther {
				t.Fatalf("%d %s", a.status, a.body)
			}
			u, err := s.admin.User(t.Context(), ada)
			if err != nil {
				t.Fatal(err)
			}
			sessions, err := s.store.Sessions(t.Context(), u.ID, time.Now())
			if err != nil || len(sessions) != 1 || sessions[0].Address != tc.want {
				t.Errorf("sessions %+v: %v", sessions, err)
			}
		})
	}
}

// L5: many names from one network wait, others do not; nobody gets another
// count by inventing headers.
func TestNetworkIsThrottled(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		b := s.browser().open("/login")
		action, fields := b.form("submit")
		try := func(name string) int {
			form := with(fields, "username", name, "password", "a wrong heron at dawn")
			return s.send(http.MethodPost, strings.TrimPrefix(action, s.url), form.Encode(), "Content-Type", formType, "Sec-Fetch-Site", "same-origin",
				"Cookie", b.bindingName()+"="+b.cookie("browser"), "X-Forwarded-For", "198.51.100."+name[4:]).status
		}
		checked := 0
		for i := range 130 {
			switch status := try(fmt.Sprintf("name%d", i)); status {
			case http.StatusUnprocessableEntity:
				checked++
			case http.StatusTooManyRequests:
				return
			default:
				t.Fatal(status)
			}
		}
		t.Errorf("%d names from one address, and never throttled", checked)
	})
}

// R10, L11: what a database or a log holds of a sign-in signs nobody in.
func TestNothingToStealAtRest(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		link := s.invite(bob)
		s.browser().open(link).press("submit", "new_password", "short", "repeat_password", "short")
		b := s.browser().open(authorize("scope", "openid offline_access")).signIn(ada, "a wrong heron at dawn").signIn(ada, password)
		flow := b.at.Query().Get("flow")
		spent := b.press("allow").answered(callback).Get("code")
		fresh := b.open(authorize("scope", "openid offline_access", "response_mode", "form_post")).isPage(200, "/authorize")
		_, answer := fresh.form("submit")
		tokens := s.redeem(secret, spent)
		again := s.refresh(secret, tokens.member("refresh_token"))
		if again.status != http.StatusOK || answer.Get("code") == "" {
			t.Fatalf("%d %s", again.status, again.body)
		}
		s.get("/userinfo?access_token=" + again.member("access_token"))

		dump := s.db.dump(t)
		for name, value := range map[string]string{
			"password": password, "wrong password": "a wrong heron at dawn", "client secret": secret, "set-up link": strings.Split(link, "=")[1], "flow": flow,
			"session cookie": b.cookie("session"), "browser cookie": b.cookie("browser"), "device cookie": b.cookie("device"), "spent code": spent, "code": answer.Get("code"),
			"used refresh token": tokens.member("refresh_token"), "refresh token": again.member("refresh_token"),
			"access token": again.member("access_token"), "ID token": again.member("id_token"),
		} {
			raw := []byte(nil)
			text := value[strings.LastIndexByte(value, '.')+1:] // of a JWT its signature
			if strings.HasPrefix(text, "sg") && text[3] == '_' {
				text = text[4:]
			}
			if b64, err := base64.RawURLEncoding.DecodeString(text); err == nil && len(b64) >= 32 {
				raw = b64[len(b64)-24:] // the random or computed part; what comes before may be an id
			}
			for where, text := range map[string]string{"database": dump, "log": s.log.String()} {
				if strings.Contains(text, value) || raw != nil && (strings.Contains(text, string(raw)) || strings.Contains(text, hex.EncodeToString(raw))) {
					t.Errorf("the %s holds the %s", where, name)
				}
			}
		}
	})
}

// dump returns everything that is in the database.
func (d database) dump(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for table := range d.rows(t) {
		db := d.raw(t)
		rows, err := db.QueryContext(context.Background(), `SELECT * FROM "`+table+`"`)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				switch v := (*v.(*any)).(type) {
				case []byte:
					b.Write(v)
				default:
					fmt.Fprint(&b, v)
				}
				b.WriteByte('\n')
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	return b.String()
}
