package provider

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

func TestPairwiseForm(t *testing.T) {
	good := pairwisePrefix + strings.Repeat("A", 43)
	for s, want := range map[string]bool{
		good: true, good[1:]: false, good + "A": false, good[:43]: false, "": false, "_": false, "ada": false,
		"_" + strings.Repeat("A", 42) + "B":                            false, // bits beyond the last byte
		"_" + strings.Repeat("A", 20) + "\n" + strings.Repeat("A", 23): false,
		"_" + strings.Repeat("A", 42) + "+":                            false,
		"019a0000-0000-7000-8000-000000000000":                         false,
	} {
		if got := isPairwise(s, pairwiseSubSize); got != want {
			t.Errorf("%q: %t", s, got)
		}
	}
	if checkClientID(good) == nil {
		t.Error("a client may be called as a person is, and act for itself as that")
	}
	if _, err := usernameKey(good); err == nil {
		t.Error("a person may be called by another's sub")
	}
}

// sectorSite is a host that publishes redirect URIs, and what fetches from there.
func sectorSite(t *testing.T) (base string, fetches *atomic.Int64, outbound *Outbound) {
	t.Helper()
	fetches = new(atomic.Int64)
	documents := map[string]string{
		"/all":     `["https://a.example/cb","https://b.example/cb","com.example.app:/cb","http://127.0.0.1/cb"]`,
		"/one":     `["https://a.example/cb"]`,
		"/nearly":  `["https://a.example/cb","https://B.example/cb","https://b.example/cb/","https://b.example/cb?"]`,
		"/none":    `[]`,
		"/null":    `null`,
		"/object":  `{"redirect_uris":["https://a.example/cb","https://b.example/cb"]}`,
		"/numbers": `["https://a.example/cb","https://b.example/cb",7]`,
		"/page":    `<html>`,
		"/twice":   `["https://a.example/cb","https://b.example/cb"] []`,
		"/large":   `["https://a.example/cb","https://b.example/cb"` + strings.Repeat(" ", outboundLimit) + `]`,
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		switch document, ok := documents[r.URL.Path]; {
		case r.URL.Path == "/elsewhere":
			http.Redirect(w, r, "/all", http.StatusFound)
		case r.URL.Path == "/late":
			<-r.Context().Done()
		case !ok:
			http.NotFound(w, r)
		default:
			_, _ = w.Write([]byte(document))
		}
	}))
	t.Cleanup(srv.Close)
	outbound = NewOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	trusted := x509.NewCertPool()
	trusted.AddCert(srv.Certificate())
	outbound.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: trusted}
	return srv.URL, fetches, outbound
}

// What is at a sector_identifier_uri has every redirect URI, to the byte, or
// nothing is registered (OIDC Registration §5); the sector is the URI's host.
func TestSectorIdentifierURI(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		base, fetches, outbound := sectorSite(t)
		h.admin.fetch, h.p.outbound, h.p.public, h.p.registration.Mode = outbound.Get, outbound, outbound, RegistrationOpen
		both := []string{"https://a.example/cb", "https://b.example/cb"}
		create := func(id, uri string, redirects []string) (storage.Client, error) {
			c := DefaultClient()
			c.ID, c.Name, c.GrantTypes, c.Scopes = id, id, []string{grantCode, grantRefresh}, []string{"openid", "orders:read"}
			c.SubjectType, c.RedirectURIs = subjectPairwise, redirects
			ClientExtra{SectorIdentifierURI: uri}.Write(&c)
			c, _, err := h.admin.CreateClient(t.Context(), c)
			return c, err
		}
		register := func(uri string, more string) reply {
			h.p.fetches = newThrottle(limit{burst: 100, perSecond: 1}, limit{burst: 100, perSecond: 1})
			h.p.registrations = newThrottle(limit{burst: 100, perSecond: 1}, limit{burst: 100, perSecond: 1})
			body := `{"subject_type":"pairwise","redirect_uris":["https://a.example/cb","https://b.example/cb"],"sector_identifier_uri":"` + uri + `"` + more + `}`
			req := httptest.NewRequest(http.MethodPost, "/register", strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			return h.serve(h.p.Register, req)
		}

		for path, fault := range map[string]string{
			"/one": "does not list", "/nearly": "does not list", "/none": "does not list",
			"/null": "no JSON array", "/object": "no JSON array", "/numbers": "no JSON array", "/page": "no JSON array", "/twice": "no JSON array",
			"/large": "more than", "/missing": "status 404", "/elsewhere": "status 302",
		} {
			var invalid *InvalidError
			if _, err := create("refused", base+path, both); !errors.As(err, &invalid) || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %v", path, err)
			}
			r := register(base+path, "")
			if h.wants(path, r, "invalid_client_metadata"); strings.Contains(r.member("error_description"), "status") {
				t.Errorf("%s: strangers learn what answers: %v", path, r.json)
			}
		}
		if _, err := h.admin.Client(t.Context(), "refused"); !isNotFound(err) {
			t.Errorf("it was registered all the same: %v", err)
		}
		// Not so by http, nor to where no operator said it may be fetched from.
		before := fetches.Load()
		_, err := create("plain", strings.Replace(base, "https:", "http:", 1)+"/all", both)
		if err == nil || !strings.Contains(err.Error(), "https://") {
			t.Errorf("by http: %v", err)
		}
		h.admin.fetch, h.p.public = NewOutbound(nil).Get, NewOutbound(nil)
		if _, err := create("private", base+"/all", both); err == nil || !strings.Contains(err.Error(), "is not allowed") {
			t.Errorf("a private address: %v", err)
		}
		h.wants("a private address", register(base+"/all", ""), "invalid_client_metadata")
		h.admin.fetch, h.p.public = outbound.Get, outbound
		if fetches.Load() != before {
			t.Error("it was fetched")
		}
		// Nothing is fetched for what is refused anyway.
		h.wants("with a fault", register(base+"/all", `,"logo_uri":"http://a.example/"`), "invalid_client_metadata")
		if _, err := create("no client!", base+"/all", both); err == nil || fetches.Load() != before {
			t.Errorf("%v, %d fetches", err, fetches.Load()-before)
		}

		// Clients on several hosts, and on people's devices, share a sector.
		one, err := create("one", base+"/all", both)
		must(t, err)
		other, err := create("other", base+"/all", []string{"com.example.app:/cb", "http://127.0.0.1/cb"})
		must(t, err)
		made := register(base+"/all", "")
		if made.status != http.StatusCreated || made.member("sector_identifier_uri") != base+"/all" || made.member("subject_type") != subjectPairwise {
			t.Fatalf("%d %v", made.status, made.json)
		}
		alone, err := create("alone", "", []string{"https://a.example/cb"})
		must(t, err)
		v, err := h.p.registry.view(t.Context())
		must(t, err)
		sub := func(c storage.Client) string { return v.subjectFor(newClient(c), "somebody") }
		itself, err := h.admin.Client(t.Context(), made.member("client_id"))
		must(t, err)
		if one.SectorIdentifier != "127.0.0.1" || sub(one) != sub(other) || sub(one) != sub(itself) || sub(one) == sub(alone) {
			t.Errorf("sectors %q %q %q %q", one.SectorIdentifier, other.SectorIdentifier, itself.SectorIdentifier, alone.SectorIdentifier)
		}

		// It is read again for redirect URIs that were not there, and only then.
		before = fetches.Load()
		change := func(alter func(*storage.Client)) error {
			_, err := h.admin.UpdateClient(t.Context(), "one", alter)
			return err
		}
		must(t, change(func(c *storage.Client) { c.Name = "One" }))
		must(t, change(func(c *storage.Client) { c.RedirectURIs = both[:1] }))
		if n := fetches.Load() - before; n != 0 {
			t.Errorf("%d fetches for nothing", n)
		}
		must(t, change(func(c *storage.Client) { c.RedirectURIs = both }))
		if n := fetches.Load() - before; n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		for what, alter := range map[string]func(*storage.Client){
			"a redirect URI that is not listed": func(c *storage.Client) { c.RedirectURIs = append(c.RedirectURIs, "https://c.example/cb") },
			"another document": func(c *storage.Client) {
				ClientExtra{SectorIdentifierURI: base + "/one"}.Write(c)
			},
			"no document, and several hosts": func(c *storage.Client) { ClientExtra{}.Write(c) },
		} {
			if err := change(alter); err == nil {
				t.Errorf("%s is taken", what)
			}
		}
		before = fetches.Load()
		if err := change(func(c *storage.Client) { c.Name, c.RedirectURIs = "", append(c.RedirectURIs, "com.example.app:/cb") }); err == nil || fetches.Load() != before {
			t.Errorf("a change with a fault: %v, %d fetches", err, fetches.Load()-before)
		}
		// Who comes second does not register what the first one's document was read for.
		m := &meanwhile{Store: h.store}
		second := NewAdmin(AdminConfig{Store: m, Policy: h.p.policy, Now: h.now, Actor: "operator", Issuer: houseIssuer, Fetch: outbound.Get})
		m.queue = func() {
			m.queue = nil
			must(t, change(func(c *storage.Client) { ClientExtra{SectorIdentifierURI: base + "/all?2"}.Write(c) }))
		}
		_, err = second.UpdateClient(t.Context(), "one", func(c *storage.Client) { c.RedirectURIs = append(c.RedirectURIs, "com.example.app:/cb") })
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("changed meanwhile: %v", err)
		}
	})
}

// What a person loses is refused in tokens for a sector that was new at that
// very moment, too: either its grant was there and is found, or it is given
// after.
func TestSectorIsNewWhileSomethingIsLost(t *testing.T) {
	onBothHouses(t, nil, func(t *testing.T, h *house) {
		h.quick()
		ctx := t.Context()
		m := &meanwhile{Store: h.store}
		admin := NewAdmin(AdminConfig{
			Store: m, Ring: func(context.Context) (*keys.Ring, error) { return h.p.registry.current.Load().ring, nil },
			Policy: h.p.policy, Now: h.now, Actor: "operator", Issuer: houseIssuer,
		})
		_, err := h.admin.UpdateResource(ctx, houseAPI, func(r *storage.Resource) { r.RolesClaim = true })
		must(t, err)
		for i, c := range []struct {
			name string
			do   func() error
		}{
			{"role lost", func() error { _, err := admin.RevokeUserRole(ctx, "ann", "passing"); return err }},
			{"role deleted", func() error { return admin.DeleteRole(ctx, "passing") }},
		} {
			if _, err := h.admin.CreateRole(ctx, storage.Role{Name: "passing"}); err != nil && !errors.Is(err, storage.ErrExists) {
				t.Fatal(err)
			}
			_, err = h.admin.GrantUserRole(ctx, "ann", "passing")
			must(t, err)
			id := "club-" + string(rune('a'+i))
			uri := "https://" + id + ".example/cb"
			secret := h.client(id, func(c *storage.Client) {
				c.SubjectType, c.RedirectURIs, c.FirstParty, c.IDTokenAlg = subjectPairwise, []string{uri}, true, keys.ES256
			})
			h.settle()
			s := h.signIn("ann")
			grant := func() reply {
				a, err := h.begin(askShop("client_id", id, "redirect_uri", uri, "scope", "openid orders:read"))
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
					return reply{}
				}
				step, err := h.p.Next(ctx, a, s)
				if err != nil || step.Redirect == nil {
					t.Errorf("%s: %+v, %v", c.name, step, err)
					return reply{}
				}
				return h.post(h.p.Token, id, secret, url.Values{"grant_type": {grantCode}, "code": {step.Redirect.Params.Get("code")},
					"redirect_uri": {uri}, "code_verifier": {houseVerifier}})
			}
			given := make(chan reply, 1)
			m.appended = func() {
				m.appended = nil
				go func() { given <- grant() }()
				select {
				case r := <-given: // it did not have to wait
					given <- r
				case <-time.After(500 * time.Millisecond):
				}
			}
			must(t, c.do())
			h.later(3 * time.Second)
			r := <-given
			h.wants(c.name, r, "")
			active := h.post(h.p.Introspect, id, secret, url.Values{"token": {r.member("access_token")}}).json
			if roles, _ := active["roles"].([]any); active["active"] == true && len(roles) > 0 {
				t.Errorf("%s: a token with it is good: %v", c.name, active)
			}
		}
	})
}
