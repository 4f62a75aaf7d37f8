package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

func jwtClaims(t testing.TB, token string) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(payload, &claims))
	return claims
}

func TestCodeFlow(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ann := h.signIn("ann")
		redirect := h.authorize(ann, askShop())
		if redirect.URL != houseCallback || redirect.Params.Get("state") != "s t&a=te" || redirect.Params.Get("iss") != houseIssuer {
			t.Fatalf("redirect %v %v", redirect.URL, redirect.Params)
		}
		r := h.redeem(redirect.Params.Get("code"))
		if r.status != http.StatusOK || r.member("scope") != "openid orders:read offline_access" {
			t.Fatalf("%d %v", r.status, r.json)
		}
		access, id := jwtClaims(t, r.member("access_token")), jwtClaims(t, r.member("id_token"))
		for name, want := range map[string]any{
			"iss": houseIssuer, "sub": ann.User.ID, "aud": "shop", "azp": "shop", "nonce": "n", "acr": acrPassword,
			"auth_time": float64(ann.Session.AuthTime.Unix()), "sid": ann.Session.ID, "at_hash": accessTokenHash("RS256", r.member("access_token")),
		} {
			if id[name] != want {
				t.Errorf("id token: %s is %v, want %v", name, id[name], want)
			}
		}
		if id["scope"] != nil || id["name"] != nil {
			t.Errorf("id token says too much: %v", id)
		}
		if access["sub"] != ann.User.ID || access["grant_id"] == "" || access["sid"] != nil || access["auth_time"] == nil {
			t.Errorf("access token: %v", access)
		}
		if got := h.userInfo(r.member("access_token")); got.status != http.StatusOK || got.json["sub"] != ann.User.ID || got.json["email"] != nil {
			t.Errorf("userinfo: %d %v", got.status, got.json)
		}
		for _, other := range []string{r.member("id_token"), r.member("refresh_token"), ""} {
			if got := h.userInfo(other); got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("userinfo with another token: %d %v", got.status, got.header)
			}
		}
		again := h.refresh(r.member("refresh_token"))
		if again.status != http.StatusOK || again.member("refresh_token") == r.member("refresh_token") || again.member("id_token") == "" {
			t.Fatalf("refresh: %d %v", again.status, again.json)
		}
		if jwtClaims(t, again.member("id_token"))["nonce"] != nil {
			t.Error("a refreshed ID token repeats the nonce")
		}
		if !h.active(again.member("refresh_token")) || h.active(r.member("refresh_token")) || !h.active(again.member("access_token")) {
			t.Error("introspection differs")
		}
	})
}

// together calls f n times at once and returns what it returned.
func together[T any](n int, f func() T) []T {
	results := make([]T, n)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() {
			<-start
			results[i] = f()
		})
	}
	close(start)
	group.Wait()
	return results
}

// contested is how often a race is run here, under the race detector as a rule;
// conformance/proof runs it more often, against the program. SIGNET_LONG is for
// all the patience that a release deserves.
func contested() int {
	if os.Getenv("SIGNET_LONG") != "" {
		return 1000
	}
	return 20
}

// quick lets shop have ID tokens that are signed in no time.
func (h *house) quick() {
	h.t.Helper()
	_, err := h.admin.UpdateClient(h.t.Context(), "shop", func(c *storage.Client) { c.IDTokenAlg = keys.ES256 })
	must(h.t, err)
	h.settle()
}

// grantOf reads the grant that an access token names.
func (h *house) grantOf(r reply) storage.Grant {
	h.t.Helper()
	g, err := h.store.Grant(h.t.Context(), jwtClaims(h.t, r.member("access_token"))["grant_id"].(string))
	must(h.t, err)
	return g
}

// patient lets a machine that is busy with a race take its time.
func patient(p *Policy) { p.RegistryMaxAge = 30 * time.Second }

func TestOneCodeByManyAtOnce(t *testing.T) {
	onBothHouses(t, patient, func(t *testing.T, h *house) {
		h.quick()
		ann := h.signIn("ann")
		for range contested() {
			code := h.code(ann)
			var won []reply
			for _, r := range together(64, func() reply { return h.redeem(code) }) {
				if r.status == http.StatusOK {
					won = append(won, r)
				} else if h.wants("loser", r, "invalid_grant"); r.status != http.StatusBadRequest {
					t.Fatalf("loser: %d %v", r.status, r.json)
				}
			}
			if len(won) != 1 {
				t.Fatalf("%d redemptions of one code", len(won))
			}
			// The others were replays: what the winner got is dead.
			if g := h.grantOf(won[0]); g.Generation != 1 || g.RevokeReason != "code replayed" {
				t.Fatalf("generation %d, revoked for %q", g.Generation, g.RevokeReason)
			}
			if h.active(won[0].member("access_token")) || h.active(won[0].member("refresh_token")) {
				t.Error("a replayed code's tokens live")
			}
			h.wants("refresh after replay", h.refresh(won[0].member("refresh_token")), "invalid_grant")
		}
	})
}

func TestOneRefreshTokenByManyAtOnce(t *testing.T) {
	for _, window := range []time.Duration{time.Minute, 0} {
		t.Run(window.String(), func(t *testing.T) {
			onBothHouses(t, func(p *Policy) { patient(p); p.RefreshWindow = window }, func(t *testing.T, h *house) {
				h.quick()
				ann := h.signIn("ann")
				for range contested() {
					first := h.tokens(ann)
					successors := make(map[string]int)
					ok := 0
					for _, r := range together(64, func() reply { return h.refresh(first.member("refresh_token")) }) {
						if r.status == http.StatusOK {
							ok++
							successors[r.member("refresh_token")]++
						} else if h.wants("loser", r, "invalid_grant"); r.status != http.StatusBadRequest {
							t.Fatalf("loser: %d %v", r.status, r.json)
						}
					}
					if g := h.grantOf(first); len(successors) != 1 || g.Generation != 2 {
						t.Fatalf("%d successors of one refresh token, generation %d", len(successors), g.Generation)
					}
					if window == 0 && ok != 1 || window > 0 && ok != 64 {
						t.Fatalf("%d of 64 answered", ok)
					}
					for successor := range successors {
						r := h.refresh(successor)
						if window == 0 {
							h.wants("after reuse", r, "invalid_grant")
						} else if r.status != http.StatusOK {
							t.Errorf("the successor: %d %v", r.status, r.json)
						}
					}
				}
			})
		})
	}
}

func TestRefreshTokenReuse(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		first := h.tokens(h.signIn("ann"))
		second := h.refresh(first.member("refresh_token"))
		repeat := h.refresh(first.member("refresh_token"))
		if repeat.member("refresh_token") != second.member("refresh_token") || repeat.member("access_token") == second.member("access_token") {
			t.Fatal("a repeat gets the same successor and a fresh access token")
		}
		third := h.refresh(second.member("refresh_token"))
		if third.status != http.StatusOK {
			t.Fatalf("%d %v", third.status, third.json)
		}
		// The first is two generations old, however recent: a theft.
		h.wants("two generations old", h.refresh(first.member("refresh_token")), "invalid_grant")
		h.wants("the family", h.refresh(third.member("refresh_token")), "invalid_grant")
		if h.active(third.member("access_token")) {
			t.Error("the family's access token lives")
		}

		first = h.tokens(h.signIn("ann"))
		second = h.refresh(first.member("refresh_token"))
		h.later(h.p.policy.RefreshWindow)
		h.wants("after the window", h.refresh(first.member("refresh_token")), "invalid_grant")
		h.wants("the family", h.refresh(second.member("refresh_token")), "invalid_grant")
	})
}

// Without a window no repeat is answered, also not by a replica whose clock is a
// little behind that of the one which rotated.
func TestNoWindowAmongReplicas(t *testing.T) {
	onBothHouses(t, func(p *Policy) { p.RefreshWindow = 0 }, func(t *testing.T, h *house) {
		first := h.tokens(h.signIn("ann"))
		h.later(100 * time.Millisecond)
		if r := h.refresh(first.member("refresh_token")); r.status != http.StatusOK {
			t.Fatalf("%d %v", r.status, r.json)
		}
		h.later(-100 * time.Millisecond)
		h.wants("a repeat", h.refresh(first.member("refresh_token")), "invalid_grant")
	})
}

func TestPKCECannotBeRetried(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ann := h.signIn("ann")
		for name, verifier := range map[string]string{
			"wrong": strings.Repeat("x", 43), "none": "", "short": "x", "42 characters": houseVerifier[:42], "129 characters": strings.Repeat("x", 129), "bad characters": strings.Repeat("é", 30),
		} {
			code := h.code(ann)
			h.wants(name, h.redeem(code, "code_verifier", verifier), "invalid_grant")
			h.wants(name+", then none", h.redeem(code, "code_verifier", ""), "invalid_grant")
			h.wants(name+", then right", h.redeem(code), "invalid_grant")
		}
		// A challenge that was made of what is no verifier helps nobody (RFC 7636 §4.1).
		for _, verifier := range []string{houseVerifier[:42], strings.Repeat("x", 129), strings.Repeat("é", 30), houseVerifier + "+", houseVerifier + " "} {
			sum := sha256.Sum256([]byte(verifier))
			code := h.code(ann, "code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
			h.wants("verifier "+verifier, h.redeem(code, "code_verifier", verifier), "invalid_grant")
		}
		_, err := h.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.RequirePKCE = false })
		must(t, err)
		h.settle()
		code := h.code(ann, "code_challenge", "", "code_challenge_method", "")
		h.wants("verifier without challenge", h.redeem(code), "invalid_grant")
		if r := h.redeem(code, "code_verifier", ""); r.status != http.StatusOK {
			t.Errorf("without PKCE: %d %v", r.status, r.json)
		}
	})
}

// TestCodeTruthTable: only where everything is right is a code redeemed.
func TestCodeTruthTable(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		other := h.client("other", nil)
		h.settle()
		ann := h.signIn("ann")
		for bits := range 1 << 5 {
			bad := func(n int) bool { return bits>>n&1 == 1 }
			code := h.code(ann)
			form := url.Values{"grant_type": {grantCode}, "code": {code}, "redirect_uri": {houseCallback}, "code_verifier": {houseVerifier}}
			id, secret := "shop", h.secret
			if bad(0) {
				if r := h.redeem(code); r.status != http.StatusOK {
					t.Fatal(r.json)
				}
			}
			if bad(1) {
				id, secret = "other", other
			}
			if bad(2) {
				form.Set("redirect_uri", houseCallback+"/")
			}
			if bad(3) {
				form.Set("code_verifier", houseVerifier[1:]+"x")
			}
			if bad(4) {
				h.later(h.p.policy.CodeLifetime)
			}
			if r := h.post(h.p.Token, id, secret, form); (r.status == http.StatusOK) != (bits == 0) || bits != 0 && r.member("error") != "invalid_grant" {
				t.Errorf("used %t, client %t, redirect %t, verifier %t, age %t: %d %v", bad(0), bad(1), bad(2), bad(3), bad(4), r.status, r.json)
			}
		}
	})
}

func TestOtherClientsTokensAreLeftAlone(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		other := h.client("other", nil)
		h.settle()
		ann := h.signIn("ann")
		as := func(form url.Values) reply { return h.post(h.p.Token, "other", other, form) }

		code := h.code(ann)
		h.wants("code", as(url.Values{"grant_type": {grantCode}, "code": {code}, "redirect_uri": {houseCallback}, "code_verifier": {"wrong"}}), "invalid_grant")
		first := h.redeem(code)
		if first.status != http.StatusOK {
			t.Fatalf("its own client: %d %v", first.status, first.json)
		}
		h.wants("used code", as(url.Values{"grant_type": {grantCode}, "code": {code}, "redirect_uri": {houseCallback}, "code_verifier": {houseVerifier}}), "invalid_grant")
		second := h.refresh(first.member("refresh_token"))
		third := h.refresh(second.member("refresh_token"))
		h.wants("old refresh token", as(url.Values{"grant_type": {grantRefresh}, "refresh_token": {first.member("refresh_token")}}), "invalid_grant")
		h.wants("refresh token", as(url.Values{"grant_type": {grantRefresh}, "refresh_token": {third.member("refresh_token")}}), "invalid_grant")
		if r := h.post(h.p.Revoke, "other", other, url.Values{"token": {third.member("refresh_token")}}); r.status != http.StatusOK {
			t.Errorf("revocation: %d", r.status)
		}
		if h.post(h.p.Introspect, "other", other, url.Values{"token": {third.member("refresh_token")}}).json["active"] != false {
			t.Error("another client learns of the refresh token")
		}
		if r := h.refresh(third.member("refresh_token")); r.status != http.StatusOK {
			t.Errorf("its own client: %d %v", r.status, r.json)
		}
	})
}

// TestForgedTokens (D13, F5): whatever is changed about a code or a refresh
// token, it is refused, and what it was made from stays as good as it was.
func TestForgedTokens(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.quick()
		ann := h.signIn("ann")
		first := h.tokens(ann)
		second := h.refresh(first.member("refresh_token"))
		other := h.tokens(ann).member("refresh_token")
		refresh, code := second.member("refresh_token"), h.code(ann)
		use := func(token string) reply {
			if strings.HasPrefix(token, prefixCode) {
				return h.redeem(token)
			}
			return h.refresh(token)
		}
		refused := func(what, token string) {
			t.Helper()
			h.wants(what, use(token), "invalid_grant")
		}
		encode := func(prefix string, raw []byte) string { return prefix + base64.RawURLEncoding.EncodeToString(raw) }
		for _, token := range []string{refresh, code} {
			prefix := token[:4]
			raw, err := base64.RawURLEncoding.DecodeString(token[4:])
			must(t, err)
			for bit := range 8 * len(raw) {
				changed := slices.Clone(raw)
				changed[bit/8] ^= 1 << (bit % 8)
				refused(prefix+" with a bit changed", encode(prefix, changed))
			}
			for i := 1; i < len(raw); i++ {
				refused(prefix+" cut short", encode(prefix, raw[:i]))
				refused(prefix+" without its beginning", encode(prefix, raw[i:]))
			}
			for i := 4; i < len(token); i++ {
				refused(prefix+" cut in the text", token[:i])
			}
			// The last character has bits that nothing is encoded in.
			last := strings.IndexByte(base64url, token[len(token)-1])
			for i := range 64 {
				if i != last {
					refused(prefix+" with another last character", token[:len(token)-1]+base64url[i:i+1])
				}
			}
			for _, text := range []string{token + "A", token + "=", prefix + "\n" + token[4:], token + " ", prefix + token} {
				refused(prefix+" with more to it", text)
			}
			for _, text := range []string{token[4:], strings.ToUpper(prefix) + token[4:]} {
				h.wants("another prefix, as code", h.redeem(text), "invalid_grant")
				h.wants("another prefix, as refresh token", h.refresh(text), "invalid_grant")
			}
			// A half of each MAC from a token that is good.
			donor, err := base64.RawURLEncoding.DecodeString(other[4:])
			must(t, err)
			for _, half := range []struct{ from, to int }{{64, 32}, {32, 0}, {64, 0}} {
				mixed := slices.Clone(raw)
				copy(mixed[len(raw)-half.from:len(raw)-half.to], donor[len(donor)-half.from:len(donor)-half.to])
				refused(prefix+" with another's MAC", encode(prefix, mixed))
			}
		}
		refused("refresh token as code", prefixCode+refresh[4:])
		refused("code as refresh token", prefixRefresh+code[4:])

		// A stolen sealed key without the row's seed, of each generation: the old
		// ones are no reuse. And a stolen row without the key.
		g := h.grantOf(first)
		ring := h.p.registry.current.Load().ring
		keyOnly := g
		keyOnly.Seed = newSeed()
		for generation := range int64(4) {
			forged, err := mintGrantToken(ring, keyOnly, generation, g.KeyVersion)
			must(t, err)
			refused("right key, wrong seed", forged)
		}
		stranger := newHouse(t, migrations.SQLite, nil).p.registry.current.Load().ring
		for generation := range int64(4) {
			forged, err := mintGrantToken(stranger, g, generation, stranger.CurrentID(keys.PurposeGrant))
			must(t, err)
			refused("right seed, wrong key", forged)
		}
		for what, token := range map[string]string{"the family": refresh, "the code": code} {
			if r := use(token); r.status != http.StatusOK {
				t.Errorf("%s did not survive forgeries: %v", what, r.json)
			}
		}
	})
}

// base64url is the alphabet of RFC 4648 §5.
const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// A set-up link sets one password, by however many at once it is used.
func TestSetUpLinkByManyAtOnce(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ctx := t.Context()
		for range 10 {
			link, _, err := h.admin.InviteUser(ctx, "bob")
			must(t, err)
			_, secret, _ := strings.Cut(link, "link=")
			used := 0
			for _, err := range together(16, func() error {
				_, err := h.p.UseInvitation(ctx, secret, "another quiet heron")
				return err
			}) {
				if err == nil {
					used++
				} else if !errors.Is(err, ErrInvitation) {
					t.Errorf("a link that was used: %v", err)
				}
			}
			if _, err := h.p.UseInvitation(ctx, secret, "another quiet heron"); used != 1 || !errors.Is(err, ErrInvitation) {
				t.Fatalf("a link was used %d times; %v", used, err)
			}
		}
	})
}

func TestDownScoping(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		token := h.tokens(h.signIn("ann"), "scope", "openid offline_access orders:read orders:write").member("refresh_token")
		for _, step := range []struct {
			name, scope, resource string
			granted, code         string
			idToken               bool
		}{
			{"less", "orders:read", "", "orders:read", "", false},
			{"all again", "", "", "openid offline_access orders:read orders:write", "", true},
			{"one resource", "", houseAPI, "orders:read orders:write", "", true},
			{"more", "orders:read profile", "", "", "invalid_scope", false},
			{"unknown", "nothing", "", "", "invalid_scope", false},
			{"another resource", "", "https://elsewhere.example", "", "invalid_target", false},
		} {
			more := []string{}
			if step.scope != "" {
				more = append(more, "scope", step.scope)
			}
			if step.resource != "" {
				more = append(more, "resource", step.resource)
			}
			r := h.refresh(token, more...)
			h.wants(step.name, r, step.code)
			if r.member("scope") != step.granted || (r.member("id_token") != "") != step.idToken {
				t.Errorf("%s: %v", step.name, r.json)
			}
			if step.code == "" {
				token = r.member("refresh_token")
			}
		}
		h.wants("at the code", h.redeem(h.code(h.signIn("ann"), "scope", "orders:read"), "scope", "orders:write"), "invalid_scope")
	})
}

func TestRefreshEnds(t *testing.T) {
	const day = 24 * time.Hour
	short := func(p *Policy) { p.RefreshIdle, p.RefreshAbsolute = 3*day, 10*day }
	onBothHouses(t, short, func(t *testing.T, h *house) {
		ann := h.signIn("ann")
		token := h.tokens(ann).member("refresh_token")
		idle := h.tokens(ann).member("refresh_token")
		h.later(3*day - time.Minute)
		for range 3 { // in use it lives on, up to its absolute end
			r := h.refresh(token)
			if r.status != http.StatusOK {
				t.Fatalf("%d %v", r.status, r.json)
			}
			token = r.member("refresh_token")
			h.later(2 * day)
		}
		h.wants("idle", h.refresh(idle), "invalid_grant")
		r := h.refresh(token)
		if r.status != http.StatusOK {
			t.Fatalf("a day before its end: %v", r.json)
		}
		h.later(day + time.Minute)
		h.wants("absolute end", h.refresh(r.member("refresh_token")), "invalid_grant")
	})
}

// A session that nobody ended but time takes its grants with it.
func TestSessionBoundGrantEndsWithItsIdleSession(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		r := h.tokens(h.signIn("ann"), "scope", "openid orders:read")
		h.later(h.p.policy.SessionIdle - time.Minute)
		if r = h.refresh(r.member("refresh_token")); r.status != http.StatusOK {
			t.Fatalf("before: %v", r.json)
		}
		h.later(time.Minute)
		h.wants("after", h.refresh(r.member("refresh_token")), "invalid_grant")
		if h.active(r.member("refresh_token")) {
			t.Error("introspection says active")
		}
	})
}

func TestWhoGetsARefreshToken(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ann := h.signIn("ann")
		bound := h.tokens(ann, "scope", "openid orders:read")
		if jwtClaims(t, bound.member("access_token"))["sid"] != ann.Session.ID {
			t.Error("a session-bound token does not name its session")
		}
		offline := h.tokens(ann)
		plain := h.tokens(ann, "scope", "orders:read")
		must(t, h.p.SignOut(t.Context(), ann))
		h.wants("session-bound, after signing out", h.refresh(bound.member("refresh_token")), "invalid_grant")
		if h.active(bound.member("access_token")) {
			t.Error("a session-bound access token survives signing out")
		}
		for name, r := range map[string]reply{"offline": offline, "without openid": plain} {
			if got := h.refresh(r.member("refresh_token")); got.status != http.StatusOK {
				t.Errorf("%s, after signing out: %v", name, got.json)
			}
		}
		_, err := h.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.GrantTypes = []string{grantCode} })
		must(t, err)
		h.settle()
		if r := h.tokens(h.signIn("ann")); r.json["refresh_token"] != nil || !h.active(r.member("access_token")) {
			t.Errorf("not registered for it: %v", r.json)
		}
	})
}

func TestRevokedRefreshTokenEndsTheFamily(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ann := h.signIn("ann")
		for _, old := range []bool{false, true} {
			first := h.tokens(ann)
			last := h.refresh(first.member("refresh_token"))
			token := last.member("refresh_token")
			if old {
				token = first.member("refresh_token")
			}
			if r := h.post(h.p.Revoke, "shop", h.secret, url.Values{"token": {token}}); r.status != http.StatusOK {
				t.Fatalf("%d %v", r.status, r.json)
			}
			h.wants("refresh", h.refresh(last.member("refresh_token")), "invalid_grant")
			if h.active(last.member("access_token")) || h.userInfo(last.member("access_token")).status != http.StatusUnauthorized {
				t.Error("its access token lives")
			}
		}
	})
}
