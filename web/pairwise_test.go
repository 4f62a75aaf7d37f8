package web_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

// app is a client that signs people in at an address of its own.
type app struct {
	s               *site
	id, uri, secret string
}

// app makes a client that signs people in.
func (s *site) app(id, uri string, alter ...func(*storage.Client)) app {
	s.t.Helper()
	alter = append([]func(*storage.Client){forPeople, func(c *storage.Client) { c.RedirectURIs = []string{uri} }}, alter...)
	return app{s, id, uri, s.client(id, alter...)}
}

func pairwise(c *storage.Client) { c.SubjectType = "pairwise" }

func (a app) authorize(parameters ...string) string {
	return authorize(append([]string{"client_id", a.id, "redirect_uri", a.uri}, parameters...)...)
}

// grant signs the person in as far as it is needed and returns the answer of
// the token endpoint.
func (a app) grant(b *browser, login, scope string) answer {
	a.s.t.Helper()
	if b.open(a.authorize("scope", scope)); b.left == nil && b.node("username") != nil {
		b.signIn(login, password)
	}
	if b.left == nil {
		b.press("allow")
	}
	r := a.form("/token", url.Values{"grant_type": {"authorization_code"}, "code": {b.answered(a.uri).Get("code")},
		"redirect_uri": {a.uri}, "code_verifier": {verifier}})
	if r.status != http.StatusOK {
		a.s.t.Fatalf("%s: %d %s", a.id, r.status, r.body)
	}
	return r
}

func (a app) form(path string, values url.Values, header ...string) answer {
	a.s.t.Helper()
	return a.s.form(path, a.id, a.secret, values, header...)
}

func (a app) refresh(r answer) answer {
	a.s.t.Helper()
	return a.form("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.member("refresh_token")}})
}

// called returns what the ID token calls the person and the session.
func called(t testing.TB, r answer) (sub, sid string) {
	t.Helper()
	_, claims := claimsOf(t, r.member("id_token"))
	return claims["sub"].(string), claims["sid"].(string)
}

// OIDC Core §8: clients of one sector call a person alike, those of another
// sector otherwise, and public ones by the UUID; a client hears the same name
// everywhere and never another, on any replica.
func TestPairwiseSubjects(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		shop := s.app("shop-2", "https://shop.example/2", pairwise, func(c *storage.Client) {
			c.FrontChannelLogoutURI = "https://shop.example/out"
			provider.ClientExtra{UserInfoAlg: "ES256", FrontChannelSession: true}.Write(c)
		})
		sister := s.app("shop-3", "https://shop.example/3", pairwise)
		club := s.app("club", "https://club.example/cb", pairwise)
		port := s.app("club-8443", "https://club.example:8443/cb", pairwise)
		open := s.app("open", "https://open.example/cb")
		if types := s.get("/.well-known/openid-configuration").json["subject_types_supported"]; types == nil || len(types.([]any)) != 2 {
			t.Errorf("subject_types_supported %v", types)
		}
		u, err := s.admin.User(t.Context(), ada)
		if err != nil {
			t.Fatal(err)
		}
		const scope = "openid orders:read"
		b := s.browser()
		shops := shop.grant(b, ada, scope)
		sub, sid := called(t, shops)
		if !regexp.MustCompile(`^_[A-Za-z0-9_-]{43}$`).MatchString(sub) || !regexp.MustCompile(`^_[A-Za-z0-9_-]{22}$`).MatchString(sid) {
			t.Errorf("sub %q, sid %q", sub, sid)
		}
		openSub, openSID := called(t, open.grant(b, ada, scope))
		if openSub != u.ID {
			t.Errorf("a public client calls her %s, not %s", openSub, u.ID)
		}
		if got, gotSID := called(t, sister.grant(b, ada, scope)); got != sub || gotSID != sid {
			t.Errorf("the same sector: %s %s, want %s %s", got, gotSID, sub, sid)
		}
		clubSub, clubSID := called(t, club.grant(b, ada, scope))
		if clubSub == sub || clubSID == sid || clubSub == openSub || clubSID == openSID {
			t.Errorf("another sector: %s %s", clubSub, clubSID)
		}
		if got, _ := called(t, port.grant(b, ada, scope)); got != clubSub { // §8.1: the host alone counts
			t.Errorf("the same host at another port: %s, want %s", got, clubSub)
		}
		if got, gotSID := called(t, shop.grant(s.browser(), ada, scope)); got != sub || gotSID == sid {
			t.Errorf("in another session: %s %s", got, gotSID)
		}
		if got, _ := called(t, shop.grant(s.browser(), bob, scope)); got == sub {
			t.Error("two people are one")
		}

		// One name everywhere.
		refreshed := shop.refresh(shops)
		access := refreshed.member("access_token")
		_, first := decode(t, shops.member("access_token"))
		_, token := decode(t, access)
		userinfo := s.opened(s.get("/userinfo", "Authorization", "Bearer "+access).body, "ES256", "userinfo+jwt", shop.id)
		introspected := shop.form("/introspect", url.Values{"token": {access}})
		ofRefresh := shop.form("/introspect", url.Values{"token": {refreshed.member("refresh_token")}})
		again, againSID := called(t, refreshed)
		for what, got := range map[string]any{
			"access token": first["sub"], "refreshed access token": token["sub"], "refreshed ID token": again, "userinfo": userinfo["sub"],
			"introspection": introspected.json["sub"], "introspection of the refresh token": ofRefresh.json["sub"],
		} {
			if got != sub {
				t.Errorf("%s: %v, the ID token said %s", what, got, sub)
			}
		}
		for what, got := range map[string]any{"access token": first["sid"], "refreshed ID token": againSID, "introspection": introspected.json["sid"]} {
			if got != sid {
				t.Errorf("%s: %v, the ID token said %s", what, got, sid)
			}
		}
		clubs := club.grant(b, ada, scope)
		if info := s.get("/userinfo", "Authorization", "Bearer "+clubs.member("access_token")); info.member("sub") != clubSub {
			t.Errorf("userinfo: %s", info.body)
		}

		// Another replica, or this one after a restart, says the same.
		replica := newSite(t, s.db.open(t), options{beside: s})
		there := shop
		there.s = replica
		rb := replica.browser()
		if got, _ := called(t, there.grant(rb, ada, scope)); got != sub {
			t.Errorf("another replica: %s, want %s", got, sub)
		}

		// Nobody else's name is in what the client gets.
		frames := b.open("/logout?"+url.Values{"id_token_hint": {refreshed.member("id_token")}}.Encode()).isPage(200, "/logout").body
		if !strings.Contains(frames, url.QueryEscape(sid)) {
			t.Errorf("the front channel does not name the sid: %s", frames)
		}
		everything := strings.Join([]string{shops.body, refreshed.body, introspected.body, ofRefresh.body, frames}, " ")
		for _, jwt := range regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`).FindAllString(everything, -1) {
			_, claims := decode(t, jwt)
			text, _ := json.Marshal(claims)
			everything += " " + string(text)
		}
		for what, name := range map[string]string{"UUID": u.ID, "public sid": openSID, "sub at the club": clubSub, "sid at the club": clubSID} {
			if strings.Contains(everything, name) {
				t.Errorf("shop gets her %s", what)
			}
		}
	})
}

// Clients say whom they expect by the name they know, and by no other (OIDC
// Core §3.1.2.1, §5.5.1; RP-Initiated Logout §4).
func TestPairwiseHints(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		shop := s.app("shop-2", "https://shop.example/2", pairwise)
		club := s.app("club", "https://club.example/cb", pairwise)
		b := s.browser()
		shops := shop.grant(b, ada, "openid")
		sub, _ := called(t, shops)
		clubSub, _ := called(t, club.grant(b, ada, "openid"))
		u, err := s.admin.User(t.Context(), sub) // an operator copies it from a token
		if err != nil || u.Username != ada {
			t.Fatalf("%+v, %v", u, err)
		}
		hint := shops.member("id_token")
		bobs := s.browser()
		bobHint := shop.grant(bobs, bob, "openid").member("id_token")
		claims := func(sub string) string { return `{"id_token":{"sub":{"value":"` + sub + `"}}}` }
		for name, tc := range map[string]struct{ parameter, value, want string }{
			"her hint":               {"id_token_hint", hint, ""},
			"his hint":               {"id_token_hint", bobHint, "login_required"},
			"her sub":                {"claims", claims(sub), ""},
			"her sub at the club":    {"claims", claims(clubSub), "login_required"},
			"her UUID":               {"claims", claims(u.ID), "login_required"},
			"a sub of the same form": {"claims", claims("_" + strings.Repeat("A", 43)), "login_required"},
		} {
			got := b.another().open(shop.authorize("scope", "openid", "prompt", "none", tc.parameter, tc.value)).answered(shop.uri)
			if got.Get("error") != tc.want || (tc.want == "") != (got.Get("code") != "") {
				t.Errorf("%s: %v", name, got)
			}
		}
		if got := b.another().open(shop.authorize("scope", "openid", "prompt", "none", "claims", claims(sub), "id_token_hint", hint)).answered(shop.uri); got.Get("code") == "" {
			t.Errorf("her hint and her sub: %v", got)
		}
		// Signing out: his hint in her browser is asked about, hers is not.
		const bye = "https://shop.example/bye"
		logout := func(hint string) string {
			return "/logout?" + url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {bye}}.Encode()
		}
		b.another().open(logout(bobHint)).isPage(200, "/logout")
		b.another().open(logout(shop.grant(s.browser(), ada, "openid").member("id_token"))).isPage(200, "/logout") // of another session
		b.open(logout(hint)).answered(bye)
		b.open("/account").isPage(200, "/login")
	})
}

// A client that comes to know people by other subs takes them for strangers: so
// nothing that it was given under the old ones is good any more.
func TestSubjectsChange(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		const scope = "openid offline_access orders:read"
		change := func(a app, alter func(*storage.Client)) {
			t.Helper()
			if _, err := s.admin.UpdateClient(t.Context(), a.id, alter); err != nil {
				t.Fatal(err)
			}
			s.settle()
		}
		active := func(a app, r answer) bool {
			is, _ := a.form("/introspect", url.Values{"token": {r.member("access_token")}}).json["active"].(bool)
			return is
		}
		a := s.app("shop-2", "https://shop.example/2")
		b := s.browser()
		v := s.verifierState()
		known := make(map[string]bool)
		before := a.grant(b, ada, scope)
		for _, step := range []struct {
			name  string
			alter func(*storage.Client)
			same  bool
		}{
			{"something else", func(c *storage.Client) { c.Name = "Shop, too" }, true},
			{"pairwise", pairwise, false},
			{"pairwise as it was", pairwise, true},
			{"another path of the same host", func(c *storage.Client) { c.RedirectURIs = append(c.RedirectURIs, "https://shop.example/4") }, true},
			{"another host", func(c *storage.Client) { c.RedirectURIs = []string{"https://moved.example/cb"} }, false},
		} {
			old, _ := called(t, before)
			change(a, step.alter)
			v.polled()
			if refused := v.refuses(before.member("access_token")); (refused == "client epoch") == step.same || step.same && refused != "" || active(a, before) != step.same {
				t.Errorf("%s: verifiers refuse the token for %q, introspection says %t", step.name, refused, active(a, before))
			}
			if !step.same {
				a.refresh(before).isRefusal(t, 400, "invalid_grant")
				_, claims := decode(t, before.member("access_token"))
				if g, err := s.store.Grant(t.Context(), claims["grant_id"].(string)); err != nil || g.RevokedAt.IsZero() { // status lists go by that
					t.Errorf("%s: the grant is not revoked: %v", step.name, err)
				}
			}
			if step.name == "another host" {
				a.uri = "https://moved.example/cb"
			}
			after := a.grant(b, ada, scope)
			sub, _ := called(t, after)
			if (sub == old) != step.same || !step.same && known[sub] {
				t.Errorf("%s: %s, was %s", step.name, sub, old)
			}
			v.polled()
			if refused := v.refuses(after.member("access_token")); refused != "" || !active(a, after) {
				t.Errorf("%s: the new token is refused for %q", step.name, refused)
			}
			known[old], before = true, after
		}

		// A replica that has not heard of the change gives a grant under the old sub,
		// after the others have ended: it is worth nothing either.
		row, err := s.store.Client(t.Context(), a.id)
		if err != nil {
			t.Fatal(err)
		}
		row.SectorIdentifier = "elsewhere.example"
		err = s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			if err := tx.LockRegistry(ctx); err != nil {
				return err
			}
			return tx.UpdateClient(ctx, row)
		})
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		a.refresh(before).isRefusal(t, 400, "invalid_grant")
		if info := s.get("/userinfo", "Authorization", "Bearer "+before.member("access_token")); info.status != http.StatusUnauthorized {
			t.Errorf("userinfo: %d %s", info.status, info.body)
		}
	})
}

// What a registration may say of its subjects, and what it is told otherwise.
func TestPairwiseRegistration(t *testing.T) {
	onBoth(t, open("orders:read"), func(t *testing.T, s *site) {
		s.people()
		made := s.registers(spa("subject_type", "pairwise", "id_token_signed_response_alg", "ES256"))
		if made.member("subject_type") != "pairwise" {
			t.Errorf("%s", made.body)
		}
		if plain := s.registers(spa()); plain.member("subject_type") != "public" {
			t.Errorf("%s", plain.body)
		}
		shop := s.app("shop-2", "https://shop.example/2", pairwise)
		itself := app{s: s, id: made.member("client_id"), uri: callback}
		b := s.browser().open(itself.authorize("scope", "openid")).signIn(ada, password)
		code := b.press("allow").answered(callback).Get("code")
		r := s.form("/token", "", "", url.Values{"grant_type": {"authorization_code"}, "client_id": {itself.id}, "code": {code},
			"redirect_uri": {callback}, "code_verifier": {verifier}})
		sub, _ := called(t, r)
		if want, _ := called(t, shop.grant(b, ada, "openid")); sub != want {
			t.Errorf("who registered itself on the same host calls her %s, not %s", sub, want)
		}

		several := []string{"https://shop.example/cb", "https://other.example/cb"}
		for name, tc := range map[string]struct {
			metadata map[string]any
			says     string
		}{
			"another type":            {spa("subject_type", "ephemeral"), "public or pairwise"},
			"several hosts":           {spa("subject_type", "pairwise", "redirect_uris", several), "sector_identifier_uri is missing"},
			"loopback":                {spa("subject_type", "pairwise", "redirect_uris", []string{"http://127.0.0.1/cb"}), "sector_identifier_uri is missing"},
			"localhost":               {spa("subject_type", "pairwise", "redirect_uris", []string{"http://localhost/cb"}), "sector_identifier_uri is missing"},
			"a private-use scheme":    {spa("subject_type", "pairwise", "redirect_uris", []string{"com.example.app:/cb"}), "sector_identifier_uri is missing"},
			"a device and a host":     {spa("subject_type", "pairwise", "redirect_uris", []string{callback, "com.example.app:/cb"}), "sector_identifier_uri is missing"},
			"a sector by http":        {spa("sector_identifier_uri", "http://shop.example/sector"), "begin with https://"},
			"a sector with a name":    {spa("sector_identifier_uri", "https://me@shop.example/sector"), "user information"},
			"a sector on this host":   {spa("sector_identifier_uri", "https://127.0.0.1/sector"), "cannot be read"},
			"a sector on localhost":   {spa("sector_identifier_uri", "https://localhost/sector"), "cannot be read"},
			"a sector inside":         {spa("sector_identifier_uri", "https://10.1.2.3/sector"), "cannot be read"},
			"a sector at a cloud":     {spa("subject_type", "pairwise", "sector_identifier_uri", "https://169.254.169.254/latest"), "cannot be read"},
			"a sector at a port":      {spa("sector_identifier_uri", "https://192.0.2.1:8443/sector"), "cannot be read"},
			"a sector of IPv6":        {spa("sector_identifier_uri", "https://[::1]/sector"), "cannot be read"},
			"a sector inside of IPv6": {spa("sector_identifier_uri", "https://[fd00::1]/sector"), "cannot be read"},
		} {
			t.Run(name, func(t *testing.T) {
				a := s.registration(http.MethodPost, "/register", "", tc.metadata)
				a.isRefusal(t, 400, "invalid_client_metadata")
				if description := a.member("error_description"); !strings.Contains(description, tc.says) || strings.Contains(description, "not allowed") || strings.Contains(description, "public address") {
					t.Errorf("%s", description)
				}
			})
		}
		if !strings.Contains(s.log.String(), "not a public address") {
			t.Error("the log does not say why nothing was fetched")
		}
		// How often strangers may make this server look is bounded.
		limited := false
		for range 40 {
			a := s.registration(http.MethodPost, "/register", "", spa("sector_identifier_uri", "https://10.1.2.3/sector"))
			limited = limited || a.status == http.StatusTooManyRequests
		}
		if !limited {
			t.Error("40 fetches in a row")
		}
	})
}

// Only so many names does one person get, so that what takes them all back fits
// into one transaction; the names that are there go on.
func TestPairwiseSubjectsAreBounded(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		shop := s.app("shop-2", "https://shop.example/2", pairwise)
		club := s.app("club", "https://club.example/cb", pairwise)
		b := s.browser()
		first := shop.grant(b, ada, "openid")
		_, claims := decode(t, first.member("access_token"))
		g, err := s.store.Grant(t.Context(), claims["grant_id"].(string))
		if err != nil {
			t.Fatal(err)
		}
		err = s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			for i := range 499 {
				g.ID, g.Subject = strings.Replace(claims["grant_id"].(string), "-", string(rune('a'+i%26))+string(rune('a'+i/26)), 1), "_"+string(rune('a'+i%26))+string(rune('a'+i/26))
				if err := tx.CreateGrant(ctx, g); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		b.open(club.authorize("scope", "openid"))
		if got := b.press("allow").answered(club.uri); got.Get("error") != "access_denied" || got.Get("code") != "" {
			t.Errorf("one more: %v", got)
		}
		shop.grant(b, ada, "openid")
		v := s.verifierState()
		if _, err := s.admin.DisableUser(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		if refused := v.polled().refuses(first.member("access_token")); refused != "sub block" {
			t.Errorf("refused for %q", refused)
		}
		club.grant(s.browser(), bob, "openid")
	})
}

// A client that nobody registered has its sector by its redirect URIs alone:
// what it says of itself is not enough to share that of others.
func TestPairwiseMetadataDocument(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		shop := s.app("shop-2", "https://shop.example/2", pairwise)
		b := s.browser()
		sub, _ := called(t, shop.grant(b, ada, "openid"))
		its := publish(t, "subject_type", "pairwise")
		b.open(authorize("client_id", its.id, "scope", "openid"))
		r := its.redeems(s, b.press("allow").answered(callback).Get("code"))
		if got, _ := called(t, r); got != sub {
			t.Errorf("on the same host it calls her %s, not %s", got, sub)
		}
		for name, alter := range map[string][]any{
			"another's sector": {"subject_type", "pairwise", "sector_identifier_uri", "https://shop.example/sector"},
			"several hosts":    {"subject_type", "pairwise", "redirect_uris", []string{callback, "https://other.example/cb"}},
			"a device":         {"subject_type", "pairwise", "redirect_uris", []string{"http://127.0.0.1/cb"}},
		} {
			refused := publish(t, alter...)
			if b.open(authorize("client_id", refused.id, "scope", "openid")); b.left != nil || b.status != http.StatusBadRequest {
				t.Errorf("%s: %d at %s, left for %v", name, b.status, b.at, b.left)
			}
		}
		public := publish(t, "sector_identifier_uri", "https://nobody.example/sector")
		b.open(authorize("client_id", public.id, "scope", "openid"))
		if got, _ := called(t, public.redeems(s, b.press("allow").answered(callback).Get("code"))); strings.HasPrefix(got, "_") {
			t.Errorf("public, and yet %s", got)
		}
	})
}

// N6: who registers without being let in has twenty sector_identifier_uris
// fetched, and one every two seconds after that, whatever becomes of it.
func TestSectorsOfStrangersAreFew(t *testing.T) {
	onBoth(t, open(), func(t *testing.T, s *site) {
		fetched := 0
		for i := range 50 { // in ten seconds
			s.clock.set(time.Duration(i) * 200 * time.Millisecond)
			a := s.registration(http.MethodPost, "/register", "", spa("sector_identifier_uri", "https://127.0.0.1/sector.json"))
			if a.status == 400 && strings.Contains(a.body, "nothing that can be fetched") {
				fetched++
			} else if a.status != http.StatusTooManyRequests {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if fetched < 20 || fetched > 30 {
			t.Errorf("tried %d times", fetched)
		}
	})
}
