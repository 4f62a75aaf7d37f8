package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

func (h *house) jwks() reply {
	return h.serve(h.p.JWKS, httptest.NewRequest(http.MethodGet, "/jwks", nil))
}

func (r reply) hasKey(kid string) bool {
	list, _ := r.json["keys"].([]any)
	return slices.ContainsFunc(list, func(k any) bool { return k.(map[string]any)["kid"] == kid })
}

// A key that somebody else wrote into the database is not published, the
// replica takes no requests, and another one does not start.
func TestStrangersKeyInTheDatabase(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		must(t, h.p.Ready(t.Context()))
		rows, err := h.store.SigningKeys(t.Context())
		must(t, err)
		// A key of another deployment, with all its row says but the private half.
		other := newHouse(t, "sqlite", nil)
		theirs, err := other.store.SigningKeys(t.Context())
		must(t, err)
		theirs[0].SealedPrivate, theirs[0].WrappedDEK, theirs[0].KEKID = nil, nil, ""
		must(t, h.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.CreateSigningKey(ctx, theirs[0])
		}))
		h.settle()
		if err := h.p.Ready(t.Context()); !errors.Is(err, keys.ErrAltered) {
			t.Errorf("ready: %v", err)
		}
		if a := h.jwks(); a.hasKey(theirs[0].KID) || !a.hasKey(rows[0].KID) {
			t.Errorf("published: %v", a.json)
		}
		cfg := Config{Issuer: h.p.issuer, Store: h.store, Sealer: h.p.keeper.Sealer, Algorithms: keys.Algorithms(), Policy: h.p.policy,
			Outbound: NewOutbound(nil), Metrics: prometheus.NewRegistry(), Log: h.p.log, Now: h.now}
		if _, err := New(t.Context(), cfg); !errors.Is(err, keys.ErrAltered) {
			t.Errorf("another one starts: %v", err)
		}
		must(t, h.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
			return tx.DeleteSigningKey(ctx, theirs[0].KID)
		}))
		h.settle()
		must(t, h.p.Ready(t.Context()))
	})
}

// A replica that cannot read publishes what it knows until there may be a key
// that signs and that it does not know.
func TestJWKSIsNotServedForEver(t *testing.T) {
	h := newHouse(t, "sqlite", nil)
	good := h.p.keeper.Schedule.JWKSGood(h.p.policy.JWKSMaxAge)
	if good < 23*time.Hour {
		t.Errorf("good for %v", good)
	}
	h.later(good - time.Minute)
	if a := h.jwks(); a.status != http.StatusOK {
		t.Errorf("status %d while what is known is good", a.status)
	}
	h.later(2 * time.Minute)
	if a := h.jwks(); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("status %d for keys of a day ago", a.status)
	}
}

// A compromised key: what it signed is refused, verifiers are told, the next
// key signs, and the app refreshes as ever.
func TestCompromisedKey(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.admin.sealer = func(context.Context) (*keys.Sealer, error) { return h.p.keeper.Sealer, nil }
		h.admin.schedule = h.p.keeper.Schedule
		h.quick()
		s := h.signIn("ann")
		r := h.tokens(s, "scope", "openid offline_access orders:read")
		token := r.member("access_token")
		kid := kidOf(t, token)
		active := func(token string) bool {
			a := h.post(h.p.Introspect, "shop", h.secret, url.Values{"token": {token}})
			return a.json["active"] == true
		}
		if !active(token) || !h.jwks().hasKey(kid) {
			t.Fatal("not active before")
		}
		must(t, h.admin.CompromiseKey(t.Context(), kid))
		h.settle()
		if active(token) {
			t.Error("what it signed is still active")
		}
		if h.jwks().hasKey(kid) {
			t.Error("it is still published")
		}
		entries, err := h.store.Revocations(t.Context(), []storage.RevocationKey{revocation.Key(revocation.KindKey, kid)}, h.now())
		must(t, err)
		if len(entries) != 1 || entries[0].Effect != revocation.EffectBlock || entries[0].Until.Before(h.now().AddDate(0, 11, 0)) {
			t.Errorf("revocation log: %+v", entries)
		}
		events, err := h.store.AuditEvents(t.Context(), storage.AuditFilter{Limit: 1000})
		must(t, err)
		if !slices.ContainsFunc(events, func(e storage.AuditEvent) bool {
			return e.Event == "key.compromised" && e.Actor == "operator" && strings.Contains(e.Detail, kid)
		}) {
			t.Error("the audit log does not have it")
		}
		again := h.refresh(r.member("refresh_token"))
		fresh := again.member("access_token")
		if again.status != http.StatusOK || kidOf(t, fresh) == kid || !active(fresh) {
			t.Errorf("refresh: %d %v", again.status, again.json)
		}
		must(t, h.p.Ready(t.Context()))
		// Once more: nothing happens.
		must(t, h.admin.CompromiseKey(t.Context(), kid))
		var object *ObjectError
		if err := h.admin.CompromiseKey(t.Context(), "nobody"); !errors.As(err, &object) || !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("an unknown key: %v", err)
		}
	})
}

func kidOf(t *testing.T, token string) string {
	t.Helper()
	header, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(header)
	must(t, err)
	var h struct{ Kid string }
	must(t, json.Unmarshal(b, &h))
	return h.Kid
}

// Symmetric keys verify as long as what they made may be presented.
func TestSymmetricKeysOutliveWhatTheyMade(t *testing.T) {
	p := DefaultPolicy()
	for _, tt := range []struct {
		purpose string
		least   time.Duration
	}{
		{keys.PurposeGrant, p.RefreshIdle + p.RefreshWindow + p.RegistryMaxAge},
		{keys.PurposeDevice, deviceMemory},
		{keys.PurposeFlow, p.FlowLifetime},
	} {
		if kept := keys.KeptFor(tt.purpose); kept < tt.least+time.Hour {
			t.Errorf("%s: kept for %v, presented for %v", tt.purpose, kept, tt.least)
		}
	}
}
