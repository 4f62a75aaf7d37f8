package web_test

import (
	"encoding/json"
	"errors"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
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
		if got := b.open(authorize("client_id", app.id, "scope", "orders:read orders:write", "prompt", "none")).answered(callback).Get("error"); got != "invalid_scope" {
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
		b.open("/account").isPage(200, "/account")
		if !strings.Contains(b.text("app-1-host"), host) || !strings.Contains(b.text("app-1"), "also when you are away") {
			t.Errorf("account page: %s", b.body)
		}
	})
}

// The account page says of an app without refresh tokens what the person was
// told when they allowed it: that it has access once.
func TestAccessOnceOnAccountPage(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		app := publish(t, "grant_types", []string{"authorization_code"})
		b := s.browser()
		b.open(authorize("client_id", app.id, "scope", "openid")).isPage(200, "/login")
		b.signIn(ada, password).isPage(200, "/consent")
		if !strings.Contains(b.body, "Once, for") {
			t.Errorf("consent page: %s", b.body)
		}
		app.redeems(s, b.press("allow").answered(callback).Get("code"))
		b.open("/account").isPage(200, "/account")
		if !strings.Contains(b.text("app-1"), "the app has to ask again") {
			t.Errorf("account page: %s", b.body)
		}
	})
}

// allowed has ada allow the app, and returns what it gets.
func (p *publisher) allowed(s *site, parameters ...string) answer {
	s.t.Helper()
	b := s.browser()
	b.open(authorize(append([]string{"client_id", p.id, "scope", "openid offline_access"}, parameters...)...)).isPage(200, "/login")
	b.signIn(ada, password).isPage(200, "/consent")
	a := p.redeems(s, b.press("allow").answered(callback).Get("code"))
	if a.status != 200 || a.member("refresh_token") == "" {
		s.t.Fatalf("token: %d %s", a.status, a.body)
	}
	return a
}

// refused wants a page that sends nobody anywhere, and returns what it tells developers.
func (s *site) refused(id string) string {
	s.t.Helper()
	a := s.get(authorize("client_id", id))
	if a.status != http.StatusBadRequest || a.header.Get("Location") != "" {
		s.t.Errorf("%s: %d %s %s", id, a.status, a.header.Get("Location"), a.body)
	}
	return html.UnescapeString(a.body)
}

// Off is off, and listed hosts are all there are.
func TestClientIDMetadataDocumentsAreClosed(t *testing.T) {
	listed := provider.Documents{Mode: provider.DocumentsListed, Hosts: []string{"app.example"}, Loopback: true}
	for name, documents := range map[string]provider.Documents{"off": {}, "off by name": {Mode: provider.DocumentsOff, Loopback: true}, "others": listed} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, options{documents: documents}, func(t *testing.T, s *site) {
				s.people()
				app := publish(t)
				s.refused(app.id)
				s.form("/par", "", "", request("client_id", app.id)).isRefusal(t, 401, "invalid_client")
				said := s.get("/.well-known/openid-configuration").json["client_id_metadata_document_supported"]
				if n := app.fetches.Load(); n != 0 || said != nil && documents.Mode != provider.DocumentsListed {
					t.Errorf("fetched %d times, metadata says %v", n, said)
				}
			})
		})
	}
	listed.Hosts = []string{"127.0.0.1"}
	onBoth(t, options{documents: listed}, func(t *testing.T, s *site) {
		s.people()
		publish(t).allowed(s)
	})
}

// N3, N5: what is not a document as it has to be leads nowhere, at no endpoint.
func TestClientIDMetadataDocumentTransport(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		for name, test := range map[string]struct {
			answer http.HandlerFunc
			says   string
		}{
			"not found": {http.NotFound, "cannot be fetched"},
			"a redirect to a right one": {func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}, "cannot be fetched"},
			"status 201": {func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusCreated)
				_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+r.URL.Path))
			}, "cannot be fetched"},
			"HTML": {func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+r.URL.Path))
			}, "not served as application/json"},
			"too large": {func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+r.URL.Path, "padding", strings.Repeat("x", 10<<10)))
			}, "cannot be fetched"},
			"another's": {func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+"/elsewhere"))
			}, "not the URL it was fetched from"},
			"with a secret": {func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+r.URL.Path, "client_secret", "s"))
			}, "there can be no secret"},
			"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "cannot be fetched"},
		} {
			t.Run(name, func(t *testing.T) {
				app := publish(t)
				app.answers(test.answer)
				if page := s.refused(app.id); !strings.Contains(page, test.says) {
					t.Errorf("the page does not say %q: %s", test.says, page)
				}
				if n := app.fetches.Load(); n != 1 {
					t.Errorf("fetched %d times", n)
				}
				// The failure is not asked for again at once, and not kept either (CIMD §5.2).
				app.answers(nil)
				s.refused(app.id)
				s.form("/token", "", "", url.Values{"client_id": {app.id}, "grant_type": {"authorization_code"}, "code": {"x"}}).isRefusal(t, 401, "invalid_client")
				s.form("/par", "", "", request("client_id", app.id)).isRefusal(t, 401, "invalid_client")
				if n := app.fetches.Load(); n != 1 {
					t.Errorf("fetched %d times in a moment", n)
				}
			})
		}
		app := publish(t)
		app.answers(http.NotFound)
		s.refused(app.id)
		app.answers(nil)
		s.clock.set(11 * time.Second)
		if a := s.get(authorize("client_id", app.id)); a.status != http.StatusSeeOther {
			t.Errorf("after eleven seconds: %d %s", a.status, a.body)
		}
	})
}

// N3: no URL that a stranger names is fetched from anywhere but the public web.
func TestStrangersFetchNothingPrivate(t *testing.T) {
	o := options{documents: provider.Documents{Mode: provider.DocumentsOpen}, register: provider.Registration{Mode: provider.RegistrationOpen}, allow: everywhere()}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		var reached atomic.Int32
		here := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reached.Add(1) }))
		defer here.Close()
		port := strings.TrimPrefix(here.URL, "https://127.0.0.1")
		key := newSigner(t, jose.ES256)
		for i, host := range []string{
			"127.0.0.1", "localhost", "127.1.2.3", "[::1]", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
			"192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "168.63.129.16", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[::ffff:127.0.0.1]", "[::ffff:a00:1]",
			"[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[::]",
		} {
			for _, where := range []string{"https://" + host + "/x", "https://" + host + port + "/x"} {
				s.refused(where)
			}
			s.clock.set(time.Duration(i) * 20 * time.Second) // which throttles forgive by
			where := "https://" + host + port + "/x"
			made := s.registers(spa("token_endpoint_auth_method", "private_key_jwt", "jwks_uri", where, "request_uris", []string{where}))
			id := made.member("client_id")
			claims := map[string]any{"iss": id, "sub": id, "aud": s.issuer, "iat": s.clock.now().Unix(), "exp": s.clock.now().Unix() + 60, "jti": "j"}
			assertion := url.Values{"client_assertion_type": {assertionType}, "client_assertion": {key.assertion(t, claims)}}
			if a := s.form("/par", "", "", assertion); a.status != http.StatusServiceUnavailable {
				t.Errorf("jwks_uri %s: %d %s", where, a.status, a.body)
			}
			if a := s.get(authorize("client_id", id, "request_uri", where, "prompt", "none")); a.status != http.StatusSeeOther || !strings.Contains(a.header.Get("Location"), "error=invalid_request_uri") {
				t.Errorf("request_uri %s: %d %s", where, a.status, a.header.Get("Location"))
			}
		}
		if n := reached.Load(); n != 0 {
			t.Errorf("reached %d times", n)
		}
	})
}

// everywhere is what an operator allows for what operators register.
func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
}

// An app with a key authenticates with it everywhere, and nobody without it does.
func TestClientIDMetadataDocumentWithKey(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		key, stolen := newSigner(t, jose.ES256), newSigner(t, jose.ES256)
		for name, keys := range map[string][]any{
			"jwks":     {"jwks", json.RawMessage(key.jwks(t))},
			"jwks_uri": {"jwks_uri", publishKeys(t, key)},
		} {
			t.Run(name, func(t *testing.T) {
				app := publish(t, append(keys, "token_endpoint_auth_method", "private_key_jwt")...)
				as := func(k signer, id string, form url.Values) url.Values {
					form.Set("client_assertion_type", assertionType)
					form.Set("client_assertion", k.assertion(t, claimsFor(s, id)))
					return form
				}
				pushed := s.form("/par", "", "", as(key, app.id, request("client_id", app.id, "scope", "openid offline_access")))
				if pushed.status != http.StatusCreated {
					t.Fatalf("%d %s", pushed.status, pushed.body)
				}
				b := s.browser()
				b.open("/authorize?"+url.Values{"client_id": {app.id}, "request_uri": {pushed.member("request_uri")}}.Encode()).isPage(200, "/login")
				b.signIn(ada, password).isPage(200, "/consent")
				code := b.press("allow").answered(callback).Get("code")
				redemption := func() url.Values {
					return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}}
				}
				for what, form := range map[string]url.Values{
					"no key":      with(redemption(), "client_id", app.id),
					"another key": as(stolen, app.id, redemption()),
					"a secret":    with(redemption(), "client_id", app.id, "client_secret", "s"),
				} {
					if a := s.form("/token", "", "", form); a.status != 401 {
						t.Errorf("%s: %d %s", what, a.status, a.body)
					}
				}
				a := s.form("/token", "", "", as(key, app.id, redemption()))
				if a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
				access := url.Values{"token": {a.member("access_token")}}
				if i := s.form("/introspect", "", "", as(key, app.id, access)); i.json["active"] != true || i.member("client_id") != app.id {
					t.Errorf("introspection: %d %s", i.status, i.body)
				}
				if u := s.get("/userinfo", "Authorization", "Bearer "+a.member("access_token")); u.status != 200 || u.member("sub") == "" {
					t.Errorf("userinfo: %d %s", u.status, u.body)
				}
				s.form("/revoke", "", "", as(stolen, app.id, url.Values{"token": {a.member("refresh_token")}})).isRefusal(t, 401, "invalid_client")
				if r := s.form("/revoke", "", "", as(key, app.id, url.Values{"token": {a.member("refresh_token")}})); r.status != 200 {
					t.Errorf("revocation: %d %s", r.status, r.body)
				}
				if r := s.form("/token", "", "", as(key, app.id, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.member("refresh_token")}})); r.status != 400 {
					t.Errorf("refreshed after revocation: %d %s", r.status, r.body)
				}
			})
		}
	})
}

// publishKeys serves a key set, and returns where.
func publishKeys(t *testing.T, key signer) string {
	t.Helper()
	jwks := key.jwks(t)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(jwks)) }))
	t.Cleanup(srv.Close)
	return srv.URL
}

// A public app cannot do without PKCE, nor send answers to where its document
// does not say, and one that authenticates in ways unknown here is told so (CIMD §6).
func TestClientIDMetadataDocumentIsAStranger(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		app := publish(t)
		refusal := func(id string, parameters ...string) string {
			t.Helper()
			a := s.get(authorize(append([]string{"client_id", id, "prompt", "none"}, parameters...)...))
			u, err := url.Parse(a.header.Get("Location"))
			if err != nil || !strings.HasPrefix(u.String(), callback) {
				t.Fatalf("%d %s", a.status, a.body)
			}
			return u.Query().Get("error")
		}
		if e := refusal(app.id, "code_challenge", "", "code_challenge_method", ""); e != "invalid_request" {
			t.Errorf("without PKCE: %q", e)
		}
		if e := refusal(app.id, "scope", "openid orders:read"); e != "invalid_scope" {
			t.Errorf("a scope that is not offered: %q", e)
		}
		if a := s.get(authorize("client_id", app.id, "redirect_uri", callback+"/")); a.status != 400 {
			t.Errorf("another redirect URI: %d", a.status)
		}
		if e := refusal(publish(t, "token_endpoint_auth_method", "tls_client_auth").id); e != "unauthorized_client" {
			t.Errorf("a method that is not offered: %q", e)
		}
		s.form("/token", "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {app.id}}).isRefusal(t, 400, "unauthorized_client")
	})
}

// What the document says counts from the next look on, at every replica; while
// there is none, nobody signs in, and what was allowed goes on for a day.
func TestClientIDMetadataDocumentChanges(t *testing.T) {
	o := publishing("orders:read")
	o.policy = func(p *provider.Policy) { p.ClockPoll = time.Hour }
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		beside := o
		beside.beside = s
		other := newSite(t, s.db.open(t), beside)
		app := publish(t)
		first := app.allowed(s, "scope", "openid orders:read offline_access")
		at := func(d time.Duration) {
			s.clock.set(d)
			s.settle()
			other.settle()
		}
		refresh := func(s *site, token string) answer {
			t.Helper()
			a := app.refreshes(s, token)
			if a.status != 200 {
				t.Fatalf("refresh: %d %s", a.status, a.body)
			}
			return a
		}

		// Another replica goes by what this one knows.
		fetched := app.fetches.Load()
		at(4 * time.Minute)
		last := refresh(other, first.member("refresh_token"))
		if a := other.get(authorize("client_id", app.id)); a.status != http.StatusSeeOther {
			t.Errorf("%d %s", a.status, a.body)
		}
		if n := app.fetches.Load(); n != fetched {
			t.Errorf("fetched %d times more", n-fetched)
		}

		moved := callback + "/moved"
		app.changes("redirect_uris", []string{moved}, "client_name", "Larger App", "scope", "openid offline_access")
		if a := s.get(authorize("client_id", app.id)); a.status != http.StatusSeeOther {
			t.Errorf("it is looked at again too soon: %d", a.status)
		}
		at(6 * time.Minute)
		if a := other.get(authorize("client_id", app.id)); a.status != 400 {
			t.Errorf("a redirect URI that was withdrawn: %d %s", a.status, a.body)
		}
		s.settle()
		if a := s.get(authorize("client_id", app.id, "redirect_uri", moved, "scope", "openid")); a.status != http.StatusSeeOther {
			t.Errorf("the new one, at the other replica: %d %s", a.status, a.body)
		}
		if n := app.fetches.Load(); n != fetched+1 {
			t.Errorf("fetched %d times more, want once for both", n-fetched)
		}
		if c, err := s.admin.Client(t.Context(), app.id); err != nil || c.Name != "Larger App" || c.RedirectURIs[0] != moved {
			t.Errorf("%+v, %v", c, err)
		}
		if last = refresh(s, last.member("refresh_token")); last.member("scope") != "openid offline_access" {
			t.Errorf("a scope that was withdrawn: %s", last.body)
		}

		app.answers(http.NotFound)
		at(12 * time.Minute)
		s.refused(app.id)
		last = refresh(s, last.member("refresh_token"))
		at(24 * time.Hour)
		last = refresh(other, last.member("refresh_token"))
		at(24*time.Hour + 12*time.Minute) // it was fetched at six, fresh until eleven
		if a := app.refreshes(s, last.member("refresh_token")); a.status != 401 {
			t.Errorf("a day later: %d %s", a.status, a.body)
		}
		app.answers(nil)
		at(24*time.Hour + 13*time.Minute)
		last = refresh(s, last.member("refresh_token"))

		app.changes("grant_types", []string{"authorization_code"})
		at(25 * time.Hour)
		if a := app.refreshes(s, last.member("refresh_token")); a.status != 400 || a.member("error") != "unauthorized_client" {
			t.Errorf("a grant that was withdrawn: %d %s", a.status, a.body)
		}
	})
}

// What an operator says of an app that nobody registered stands: it stays
// disabled for good, and keeps the settings it was given.
func TestOperatorsWordStandsOverDocuments(t *testing.T) {
	o := publishing("orders:read")
	o.policy = func(p *provider.Policy) { p.PruneEvery, p.ClockPoll = 50*time.Millisecond, time.Hour }
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		ctx := t.Context()
		disabled, settled, deleted, forgotten := publish(t), publish(t), publish(t), publish(t)
		tokens := disabled.allowed(s)
		settled.allowed(s)
		deleted.allowed(s)
		for app, token := range map[*publisher]string{disabled: tokens.member("refresh_token"), forgotten: forgotten.allowed(s).member("refresh_token")} {
			if a := s.form("/revoke", "", "", url.Values{"client_id": {app.id}, "token": {token}}); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}

		if _, err := s.admin.DisableClient(ctx, disabled.id); err != nil {
			t.Fatal(err)
		}
		if _, err := s.admin.UpdateClient(ctx, settled.id, func(c *storage.Client) { c.Name = "As the operator says" }); err != nil {
			t.Fatal(err)
		}
		if err := s.admin.DeleteClient(ctx, deleted.id); err != nil {
			t.Fatal(err)
		}
		s.settle()
		fetched := disabled.fetches.Load() + settled.fetches.Load()
		if !strings.Contains(s.refused(disabled.id), "disabled") {
			t.Error("the page does not say that it is disabled")
		}
		disabled.refreshes(s, tokens.member("refresh_token")).isRefusal(t, 401, "invalid_client")
		// A deleted one is what it was before, a stranger, and its new tokens are good.
		again := deleted.allowed(s)
		if a := s.get("/userinfo", "Authorization", "Bearer "+again.member("access_token")); a.status != 200 {
			t.Errorf("after it was deleted and allowed again: %d %s", a.status, a.body)
		}

		settled.changes("client_name", "As the document says")
		s.clock.set(time.Hour)
		s.settle()
		if a := s.get(authorize("client_id", settled.id)); a.status != http.StatusSeeOther {
			t.Errorf("%d %s", a.status, a.body)
		}
		if c, err := s.admin.Client(ctx, settled.id); err != nil || c.Name != "As the operator says" || len(c.RegistrationTokenHash) != 0 {
			t.Errorf("%+v, %v", c, err)
		}

		s.clock.set(100 * 24 * time.Hour)
		until(t, "the unused one is removed", func() bool {
			_, err := s.admin.Client(ctx, forgotten.id)
			return errors.Is(err, storage.ErrNotFound)
		})
		s.settle()
		if !strings.Contains(s.refused(disabled.id), "disabled") {
			t.Error("it is not blocked for good")
		}
		if n := disabled.fetches.Load() + settled.fetches.Load(); n != fetched {
			t.Errorf("fetched %d times after the operator's word", n-fetched)
		}
	})
}

// N8: apps that people allow are few, and one address makes few of them known.
func TestAdoptedClientsAreBounded(t *testing.T) {
	o := publishing()
	o.policy = func(p *provider.Policy) { p.MaxRegistered = 2 }
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		for range 2 {
			publish(t).allowed(s)
		}
		b := s.browser()
		app := publish(t)
		b.open(authorize("client_id", app.id, "scope", "openid")).isPage(200, "/login")
		b.signIn(ada, password).isPage(200, "/consent")
		b.press("allow").isPage(http.StatusServiceUnavailable, "/consent")
		if _, err := s.admin.Client(t.Context(), app.id); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("kept beyond the limit: %v", err)
		}
	})
}

// N8: nobody makes the provider keep apps without end by allowing them.
func TestAdoptionsFromOneAddress(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		app := publish(t)
		app.allowed(s)
		app.answers(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+r.URL.Path))
		})
		b := s.browser()
		b.open(authorize("client_id", app.id, "scope", "openid", "prompt", "consent")).isPage(200, "/login")
		b.signIn(ada, password).isPage(200, "/consent")
		for n := range 30 {
			b.open(authorize("client_id", app.id+strconv.Itoa(n), "scope", "openid")).isPage(200, "/consent")
			if b.press("allow"); b.left == nil {
				b.isPage(http.StatusServiceUnavailable, "/consent")
				if n < 19 {
					t.Errorf("refused after %d", n)
				}
				// One that is known is nobody's burden.
				b.open(authorize("client_id", app.id, "scope", "openid", "prompt", "consent")).isPage(200, "/consent")
				b.press("allow").answered(callback)
				return
			}
		}
		t.Error("30 apps from one address became known")
	})
}

// Two replicas and two people at once: one client.
func TestAdoptedOnce(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		o := publishing()
		o.beside = s
		other := newSite(t, s.db.open(t), o)
		app := publish(t)
		var ready []*browser
		for i := range 4 {
			b := []*site{s, other}[i%2].browser()
			b.open(authorize("client_id", app.id, "scope", "openid")).isPage(200, "/login")
			ready = append(ready, b.signIn(ada, password).isPage(200, "/consent"))
		}
		var wg sync.WaitGroup
		for _, b := range ready {
			wg.Go(func() { b.press("allow") })
		}
		wg.Wait()
		for i, b := range ready { // at the other replica each
			if a := app.redeems([]*site{other, s}[i%2], b.answered(callback).Get("code")); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
	})
}

// N6: ten thousand different URLs cause few fetches, and nobody who knows an app
// waits for them. Eight at once for one app cause one fetch.
func TestClientIDMetadataDocumentFlood(t *testing.T) {
	o := publishing()
	o.quiet = true
	s := newSite(t, openStore(t, migrations.SQLite), o)
	s.people()
	known, stranger := publish(t), publish(t)
	known.allowed(s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if a := s.get(authorize("client_id", stranger.id)); a.status != http.StatusSeeOther {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if n := stranger.fetches.Load(); n != 1 {
		t.Errorf("eight at once fetched %d times", n)
	}

	flood := publish(t)
	flood.answers(http.NotFound)
	began, next := time.Now(), atomic.Int64{}
	ask := func(id string, from int64) int {
		req := httptest.NewRequest(http.MethodGet, authorize("client_id", id), nil)
		req.RemoteAddr = address(int(from)) + ":1" // each its own: it is not they who are held back here
		w := httptest.NewRecorder()
		s.public.ServeHTTP(w, req)
		return w.Code
	}
	for range 16 {
		wg.Go(func() {
			for n := next.Add(1); n <= 10_000; n = next.Add(1) {
				if status := ask(flood.id+strconv.FormatInt(n, 10), n); status != 400 && status != 503 {
					t.Errorf("%d", status)
				}
				if n%1000 == 0 { // they are among what is remembered
					if a, b := ask(known.id, 0), ask(stranger.id, 0); a != http.StatusSeeOther || b != http.StatusSeeOther {
						t.Errorf("in the flood: the known app %d, one that was fetched before %d", a, b)
					}
				}
			}
		})
	}
	wg.Wait()
	if n, most := int(flood.fetches.Load()), int(time.Since(began)/(200*time.Millisecond))+1; n < 1 || n > most {
		t.Errorf("%d fetches in %s, want at most %d", n, time.Since(began), most)
	}
	// Those who are known have turns of their own, however many wait for others.
	s.clock.set(6 * time.Minute)
	var over atomic.Bool
	full := make(chan struct{}, 16)
	for range 16 {
		wg.Go(func() {
			for told := false; !over.Load(); {
				n := next.Add(1)
				if status := ask(flood.id+strconv.FormatInt(n, 10), n); status == 503 && !told {
					told = true
					full <- struct{}{}
				}
			}
		})
	}
	<-full
	if status := ask(known.id, 0); status != http.StatusSeeOther || known.fetches.Load() != 2 {
		t.Errorf("the known app, looked at again: %d, fetched %d times", status, known.fetches.Load())
	}
	over.Store(true)
	wg.Wait()
}

// from has the browser come from an address, as a trusted proxy tells.
func (b *browser) from(address string) *browser {
	b.client.Transport = forwarded(address)
	return b
}

type forwarded string

func (f forwarded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", string(f))
	return http.DefaultTransport.RoundTrip(r)
}

// many has the publisher describe a client at every path.
func (p *publisher) many() (id func(i int) string) {
	p.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(spa("client_id", "https://"+r.Host+r.URL.Path, "id_token_signed_response_alg", "ES256"))
	})
	return func(i int) string { return p.id + "/" + strconv.Itoa(i) }
}

// N6: who is at one address gets twenty documents fetched, and one every two
// seconds after that: it does not take the turns of everybody else.
func TestClientIDMetadataDocumentsOfOneAddress(t *testing.T) {
	o := publishing()
	o.proxies = trusted()
	onBoth(t, o, func(t *testing.T, s *site) {
		id := publish(t).many()
		for n, path := range []string{"/authorize", "/par", "/revoke"} {
			ask := func(at, i int) int {
				i += 100 * n
				s.clock.set(time.Duration(i) * 200 * time.Millisecond) // each has its turn
				form := request("client_id", id(i), "token", "sgr_x")
				req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
				req.RemoteAddr = "127.0.0.1:1"
				req.Header.Set("X-Forwarded-For", address(10*n+at))
				req.Header.Set("Content-Type", formType)
				w := httptest.NewRecorder()
				s.public.ServeHTTP(w, req)
				return w.Code
			}
			fetched := 0
			for i := range 50 { // in ten seconds
				if ask(1, i) < 400 {
					fetched++
				}
			}
			if fetched < 20 || fetched > 26 {
				t.Errorf("%s: fetched %d documents for one address", path, fetched)
			}
			for i := range 5 {
				if status := ask(2, 50+i); status >= 400 {
					t.Errorf("%s: for another address: %d", path, status)
				}
			}
		}
		if log := s.log.String(); !strings.Contains(log, "too many client ID metadata documents") || strings.Contains(log, `"level":"ERROR"`) {
			t.Errorf("what a stranger causes is an error in the log, or not there: %s", log)
		}
	})
}

// Whoever allows apps that nobody had allowed is held back by where they are,
// not by what others do; and the audit log tells where that was.
func TestClientIDMetadataDocumentsAllowedFromOneAddress(t *testing.T) {
	o := publishing()
	o.proxies = trusted()
	s := newSite(t, openStore(t, migrations.SQLite), o)
	s.people()
	id := publish(t).many()
	allow := func(b *browser, at string, i int) int {
		s.clock.set(time.Duration(i) * 200 * time.Millisecond)
		b.from(address(100 + i)).open(authorize("client_id", id(i))) // fetched for somebody else
		if b.at.Path == "/login" {
			b.signIn(ada, password)
		}
		b.isPage(200, "/consent").from(at).press("allow")
		if b.left != nil {
			return http.StatusSeeOther
		}
		return b.status
	}
	b := s.browser()
	allowed := 0
	for i := range 25 { // in five seconds
		switch status := allow(b, address(1), i); {
		case status == http.StatusSeeOther:
			allowed++
		case status != http.StatusServiceUnavailable:
			t.Fatalf("app %d: %d", i, status)
		}
	}
	if allowed < 20 || allowed > 21 {
		t.Errorf("%d from one address", allowed)
	}
	if status := allow(b, address(2), 25); status != http.StatusSeeOther {
		t.Errorf("from another address: %d", status)
	}
	events, err := s.store.AuditEvents(t.Context(), storage.AuditFilter{ClientID: id(25), Limit: 10})
	if err != nil || len(events) == 0 {
		t.Fatalf("%v %v", events, err)
	}
	for _, e := range events {
		if e.Address != address(2) || e.RequestID == "" {
			t.Errorf("%s from %q, request %q", e.Event, e.Address, e.RequestID)
		}
	}
}

// An app by its URL may have pairwise subjects, for the host of its redirect URIs.
func TestClientIDMetadataDocumentPairwise(t *testing.T) {
	onBoth(t, publishing(), func(t *testing.T, s *site) {
		s.people()
		_, claims := decode(t, publish(t, "subject_type", "pairwise").allowed(s).member("id_token"))
		if sub, _ := claims["sub"].(string); !strings.HasPrefix(sub, "_") {
			t.Errorf("sub %q", sub)
		}
		if page := s.refused(publish(t, "subject_type", "pairwise", "sector_identifier_uri", "https://shop.example/sector").id); !strings.Contains(page, "sector_identifier_uri") {
			t.Errorf("the page does not say why: %s", page)
		}
	})
}
