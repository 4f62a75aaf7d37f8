package provider

import (
	"bytes"
	"compress/zlib"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// Nothing that was given before a restore is worth anything after it, though the
// database says that it is live; what is given after it is good at once.
func TestRestored(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ctx := t.Context()
		must(t, func() error {
			_, err := h.admin.UpdateResource(ctx, houseAPI, func(r *storage.Resource) { r.StatusList = true })
			return err
		}())
		h.settle()
		result, err := h.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"})
		must(t, err)
		s := result.SignedIn
		online, offline := h.tokens(s, "scope", "openid orders:read"), h.tokens(s)
		code := h.code(s)
		h.tokens(h.signIn("bob"))
		link, _, err := h.admin.InviteUser(ctx, "bob")
		must(t, err)
		_, link, _ = strings.Cut(link, "?link=")
		pushed := h.post(h.p.PushAuthorization, "shop", h.secret, askShop()).member("request_uri")
		if pushed == "" {
			t.Fatal("nothing was pushed")
		}
		initial, _, err := h.admin.CreateInitialAccessToken(ctx, 2, time.Hour, nil, nil)
		must(t, err)
		before, err := h.store.RevocationLog(ctx)
		must(t, err)

		restored, err := h.admin.Restored(ctx)
		must(t, err)
		must(t, h.p.registry.catchUp(ctx))

		// In the second of the restore already, which is before its date.
		again, err := h.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"})
		must(t, err)
		if _, err := h.p.Resume(ctx, again.Cookie); err != nil {
			t.Errorf("a new session: %v", err)
		}
		newCode := h.code(again.SignedIn)
		newLink, _, err := h.admin.InviteUser(ctx, "bob")
		must(t, err)
		_, newLink, _ = strings.Cut(newLink, "?link=")
		newPushed := h.post(h.p.PushAuthorization, "shop", h.secret, askShop()).member("request_uri")
		newInitial, _, err := h.admin.CreateInitialAccessToken(ctx, 1, time.Hour, nil, nil)
		must(t, err)
		if h.now().After(restored.Epoch) {
			t.Log("too slow to show that what is made at once is good")
		}

		if log, err := h.store.RevocationLog(ctx); err != nil || log.FeedID == before.FeedID || log.FeedID != restored.FeedID || log.Seq != before.Seq+1 {
			t.Errorf("the log: %+v, %v; before %+v", log, err, before)
		}
		entries, err := h.store.Revocations(ctx, []storage.RevocationKey{revocation.Key(revocation.KindIssuer, houseIssuer)}, h.now())
		if err != nil || len(entries) != 1 || entries[0].Effect != revocation.EffectEpoch {
			t.Errorf("verifiers are told %+v, %v", entries, err)
		}
		void := func(when string) {
			t.Helper()
			if _, err := h.p.Resume(ctx, result.Cookie); !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: the session: %v", when, err)
			}
			h.wants(when+": code", h.redeem(code), "invalid_grant")
			for _, r := range []reply{online, offline} {
				if h.active(r.member("refresh_token")) {
					t.Errorf("%s: a refresh token is active", when)
				}
				h.wants(when+": refresh token", h.refresh(r.member("refresh_token")), "invalid_grant")
				if a := h.userInfo(r.member("access_token")); a.status != http.StatusUnauthorized {
					t.Errorf("%s: userinfo: %d", when, a.status)
				}
				if h.active(r.member("access_token")) {
					t.Errorf("%s: an access token is active", when)
				}
			}
			if _, err := h.p.Invitee(ctx, link); !errors.Is(err, ErrInvitation) {
				t.Errorf("%s: the link: %v", when, err)
			}
			if _, err := h.p.UseInvitation(ctx, link, "a wholly other heron"); !errors.Is(err, ErrInvitation) {
				t.Errorf("%s: the link is used: %v", when, err)
			}
			if _, err := h.begin(url.Values{"client_id": {"shop"}, "request_uri": {pushed}}); err == nil {
				t.Errorf("%s: the pushed request is good", when)
			}
			if status := h.registers(initial); status != http.StatusUnauthorized {
				t.Errorf("%s: an initial access token: %d", when, status)
			}
		}
		void("at once")
		if list := h.statusBits(0); !list(1) || !list(revocation.StatusListSize-1) {
			t.Error("a status list has valid places from before")
		}

		if rows, err := h.p.Sessions(ctx, again.SignedIn); err != nil || len(rows) != 1 {
			t.Errorf("%d sessions, %v", len(rows), err)
		}
		if apps, err := h.p.Apps(ctx, h.signIn("bob")); err != nil || len(apps) != 1 || apps[0].Live {
			t.Errorf("apps %+v, %v", apps, err)
		}
		r := h.redeem(newCode)
		h.wants("a new code", r, "")
		if !h.active(r.member("access_token")) || !h.active(r.member("refresh_token")) || h.userInfo(r.member("access_token")).status != http.StatusOK {
			t.Error("new tokens are not good")
		}
		if _, err := h.p.Invitee(ctx, newLink); err != nil {
			t.Errorf("a new link: %v", err)
		}
		if _, err := h.begin(url.Values{"client_id": {"shop"}, "request_uri": {newPushed}}); err != nil {
			t.Errorf("a new pushed request: %v", err)
		}
		if status := h.registers(newInitial); status != http.StatusCreated {
			t.Errorf("a new initial access token: %d", status)
		}
		list, place := revocation.StatusPlace(h.grantOf(r).StatusIndex)
		if list < 2 || h.statusBits(list)(place) {
			t.Errorf("a new grant's place is %d in list %d, invalid %v", place, list, h.statusBits(list)(place))
		}

		h.later(DefaultPolicy().RevokedUntil(time.Unix(0, 0)).Sub(time.Unix(0, 0)) + time.Minute)
		must(t, h.p.registry.catchUp(ctx))
		if h.statusBits(0)(revocation.StatusListSize - 1) {
			t.Error("a status list says for ever that all is invalid")
		}
		if _, err := h.p.Resume(ctx, result.Cookie); !errors.Is(err, ErrNoSession) {
			t.Errorf("later: the session: %v", err)
		}
		h.wants("later: refresh token", h.refresh(offline.member("refresh_token")), "invalid_grant")
	})
}

// registers registers a client with an initial access token and returns the status.
func (h *house) registers(token string) int {
	r := httptest.NewRequestWithContext(h.t.Context(), http.MethodPost, PathRegistration, strings.NewReader(`{"redirect_uris":["https://app.example/cb"]}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.p.Register(w, r)
	return w.Code
}

// An assertion from before a restore may have been used since the backup.
func TestAssertionFromBeforeARestore(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256"}}})
		must(t, err)
		h.client("robot", func(c *storage.Client) {
			c.GrantTypes, c.RedirectURIs, c.Scopes = []string{grantClientCredentials}, nil, []string{"orders:read"}
			c.AuthMethod, c.JWKS = "private_key_jwt", string(set)
		})
		h.settle()
		sign := func() string {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
			must(t, err)
			now := h.now().Unix()
			jws, err := signer.Sign(fmt.Appendf(nil, `{"iss":"robot","sub":"robot","aud":%q,"iat":%d,"exp":%d,"jti":%q}`, houseIssuer, now, now+60, rand.Text()))
			must(t, err)
			text, err := jws.CompactSerialize()
			must(t, err)
			return text
		}
		use := func(assertion string) reply {
			return h.post(h.p.Token, "", "", url.Values{"grant_type": {grantClientCredentials}, "scope": {"orders:read"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}})
		}
		h.wants("before the restore", use(sign()), "")
		kept := sign()
		_, err = h.admin.Restored(t.Context())
		must(t, err)
		h.later(revocation.EpochAhead + time.Second)
		must(t, h.p.registry.catchUp(t.Context()))
		h.wants("made before", use(kept), "invalid_client")
		h.wants("made afterwards", use(sign()), "")
	})
}

// Entries are dated by the clock all replicas share, or a little later, whoever
// appends them.
func TestEntriesAreDatedByTheSharedClock(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		ctx := t.Context()
		replica, _ := h.replica()
		for _, off := range []time.Duration{-1900 * time.Millisecond, 1900 * time.Millisecond} {
			replica.p.clock.local = func() time.Time { return h.now().Add(off) }
			replica.p.clock.last.Store(&clockReading{ours: replica.p.clock.local(), theirs: h.now()})
			r, err := replica.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"})
			must(t, err)
			asked := h.now()
			_, err = replica.p.ChangePassword(ctx, r.SignedIn, housePassword, "another quiet heron", "192.0.2.1")
			must(t, err)
			answered := h.now()
			entries, err := h.store.Revocations(ctx, []storage.RevocationKey{revocation.Key(revocation.KindSubject, r.SignedIn.User.ID)}, h.now())
			must(t, err)
			if len(entries) != 1 {
				t.Fatalf("%+v", entries)
			}
			e := entries[0]
			if at := e.NotBefore.Add(-revocation.EpochAhead); at.Before(asked.Add(-10*time.Millisecond)) || at.After(answered.Add(time.Second)) {
				t.Errorf("clock %s off: the epoch is of %s, between %s and %s", off, at, asked, answered)
			}
			if e.CreatedAt.Before(asked.Add(-10 * time.Millisecond)) {
				t.Errorf("clock %s off: made at %s, asked at %s", off, e.CreatedAt, asked)
			}
			_, err = h.admin.SetPassword(ctx, "ann", housePassword)
			must(t, err)
			h.later(10 * time.Second) // beyond either epoch
			must(t, h.p.registry.catchUp(ctx))
		}
	})
}

// statusBits returns which places of a list are invalid, as it is served.
func (h *house) statusBits(list int64) func(place int64) bool {
	h.t.Helper()
	h.p.statusLists = h.p.newStatusLists() // which has read nothing yet
	signed, err := h.p.statusLists.List(h.t.Context(), list)
	must(h.t, err)
	var claims struct {
		List struct{ Lst string } `json:"status_list"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(string(signed.JWT), ".")[1])
	must(h.t, errors.Join(err, json.Unmarshal(payload, &claims)))
	compressed, err := base64.RawURLEncoding.DecodeString(claims.List.Lst)
	must(h.t, err)
	r, err := zlib.NewReader(bytes.NewReader(compressed))
	must(h.t, err)
	bits, err := io.ReadAll(r)
	must(h.t, err)
	return func(place int64) bool { return bits[place/8]>>(place%8)&1 == 1 }
}
