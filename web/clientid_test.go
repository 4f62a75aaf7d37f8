package web_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/signet-oidc/signet/provider"
)

// publishing is a site that takes the metadata documents of clients on this machine.
func publishing(scopes ...string) options {
	return options{documents: provider.Documents{Mode: provider.DocumentsOpen, Loopback: true}, register: provider.Registration{Scopes: scopes}}
}

// publisher serves the metadata document of one client, as its maker does.
type publisher struct {
	id      string
	fetches atomic.Int32

	mu       sync.Mutex
	document map[string]any
	answer   http.HandlerFunc // nil: the document
	headers  map[string]string
}

// publish serves the document of a client whose identifier is its URL.
func publish(t *testing.T, alter ...any) *publisher {
	t.Helper()
	p := &publisher{headers: map[string]string{"Content-Type": "application/json"}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		answer, document, headers := p.answer, p.document, maps.Clone(p.headers)
		p.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	t.Cleanup(srv.Close)
	p.id = srv.URL + "/client.json"
	p.changes(alter...)
	return p
}

// changes alters the document from now on.
func (p *publisher) changes(alter ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.document == nil {
		p.document = spa("client_id", p.id, "id_token_signed_response_alg", "ES256") // whose keys the tests have
	}
	p.document = maps.Clone(p.document)
	for i := 0; i < len(alter); i += 2 {
		p.document[alter[i].(string)] = alter[i+1]
		if alter[i+1] == nil {
			delete(p.document, alter[i].(string))
		}
	}
}

// answers replaces the document by something else, or brings it back.
func (p *publisher) answers(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = h
}

// redeems exchanges a code as a public client.
func (p *publisher) redeems(s *site, code string) answer {
	s.t.Helper()
	return s.form("/token", "", "", url.Values{"grant_type": {"authorization_code"}, "client_id": {p.id}, "code": {code},
		"redirect_uri": {callback}, "code_verifier": {verifier}})
}

func (p *publisher) refreshes(s *site, token string) answer {
	s.t.Helper()
	return s.form("/token", "", "", url.Values{"grant_type": {"refresh_token"}, "client_id": {p.id}, "refresh_token": {token}})
}

// What a document does not name, the app does not get: it is not widened as a
// registration is.
func TestDocumentNamesItsScopes(t *testing.T) {
	onBoth(t, publishing("orders:read", "orders:write"), func(t *testing.T, s *site) {
		s.people()
		app := publish(t, "scope", "orders:read")
		b := s.browser()
		if got := b.open(authorize("client_id", app.id, "scope", "orders:read orders:write")).answered(callback).Get("error"); got != "invalid_scope" {
			t.Errorf("error %q", got)
		}
		b.open(authorize("client_id", app.id, "scope", "orders:read")).isPage(200, "/login")
	})
}

// An app that nobody registered signs a person in, known by the URL of its
// metadata (CIMD).
func TestClientIDMetadataDocument(t *testing.T) {
	onBoth(t, publishing("orders:read"), func(t *testing.T, s *site) {
		s.people()
		if s.get("/.well-known/oauth-authorization-server").json["client_id_metadata_document_supported"] != true {
			t.Error("the metadata does not say so")
		}
		app := publish(t, "logo_uri", "https://app.example/logo.png")
		b := s.browser()
		b.open(authorize("client_id", app.id, "scope", "openid orders:read offline_access")).isPage(200, "/login")
		host := strings.TrimSuffix(strings.TrimPrefix(app.id, "https://"), "/client.json")
		if !strings.Contains(b.text("client-host"), host) {
			t.Errorf("the sign-in page does not say where the app is from: %s", b.body)
		}
		if c, err := s.admin.Client(t.Context(), app.id); err == nil {
			t.Errorf("kept before anybody allowed it: %+v", c)
		}
		b.signIn(ada, password).isPage(200, "/consent")
		if !strings.Contains(b.text("client-host"), host) || !strings.Contains(b.text("unverified"), "Nobody here") || strings.Contains(b.body, "logo.png") {
			t.Errorf("K2 N7 consent page: %s", b.body)
		}
		code := b.press("allow").answered(callback).Get("code")
		a := app.redeems(s, code)
		if a.status != 200 || a.member("refresh_token") == "" || a.member("scope") != "openid orders:read offline_access" {
			t.Fatalf("token: %d %s", a.status, a.body)
		}
		if a := app.refreshes(s, a.member("refresh_token")); a.status != 200 {
			t.Errorf("refresh: %d %s", a.status, a.body)
		}
		c, err := s.admin.Client(t.Context(), app.id)
		if err != nil || c.Origin != "metadata-document" || c.Name != "Small App" || c.FirstParty || !c.RequirePKCE || c.LastUsedAt.IsZero() {
			t.Errorf("%+v, %v", c, err)
		}
		if n := app.fetches.Load(); n != 1 {
			t.Errorf("fetched %d times", n)
		}
	})
}
