package provider

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// CIMD §3, N3: which URLs are client identifiers.
func TestClientURL(t *testing.T) {
	open := Documents{Mode: DocumentsOpen}
	for id, good := range map[string]bool{
		"https://app.example/client.json":                           true,
		"https://app.example/":                                      true,
		"https://app.example:443/client":                            true,
		"https://app.example/client?version=1":                      true,
		"https://app.example/a%2Fb/...":                             true,
		"https://xn--bcher-kva.example/c":                           true,
		"https://app.example/" + strings.Repeat("a", 236):           true,
		"https://app.example/" + strings.Repeat("a", 237):           false,
		"https://app.example":                                       false,
		"https://app.example?a=b":                                   false,
		"https://app.example/c?":                                    false,
		"https://app.example/c#f":                                   false,
		"https://app.example/c#":                                    false,
		"https://app.example/./c":                                   false,
		"https://app.example/a/../c":                                false,
		"https://app.example/a/..":                                  false,
		"https://app.example/a/%2e%2e/c":                            false,
		"https://app.example/a/.%2E/c":                              false,
		"https://app.example/%2e/c":                                 false,
		"https://user@app.example/c":                                false,
		"https://user:pw@app.example/c":                             false,
		"https://@app.example/c":                                    false,
		"https://app.example:8443/c":                                false,
		"https://app.example:/c":                                    false,
		"https://app.example:0443/c":                                false,
		"https://App.example/c":                                     false,
		"HTTPS://app.example/c":                                     false,
		"http://app.example/c":                                      false,
		"https:app.example/c":                                       false,
		"https:///c":                                                false,
		"https:/c":                                                  false,
		"https://app.example\\@evil.example/c":                      false,
		"https://app.example/c d":                                   false,
		"https://bücher.example/c":                                  false,
		"https://app.example%2f.evil.example/c":                     false,
		"https://app.example/c\x00":                                 false,
		"file:///etc/passwd":                                        false,
		"javascript:alert(1)":                                       false,
		"https://*.example/c":                                       false,
		"https://app.example;evil.example/c":                        false,
		"https://[fe80::1%25eth0]/c":                                false,
		"https://app.example/c\r\nHost: evil.example":               false,
		"https://app.example/\u202ecnosj.tneilc":                    false,
		"https://app.example/c|d":                                   false,
		"https://app.example/" + strings.Repeat("a", 100_000) + "/": false,
	} {
		if err := open.admit(id); (err == nil) != good {
			t.Errorf("%q: %v", clip(id), err)
		}
	}
	for _, policy := range []Documents{{}, {Mode: DocumentsOff}, {Mode: DocumentsListed}, {Mode: DocumentsListed, Hosts: []string{"other.example", "example"}}} {
		if policy.admit("https://app.example/c") == nil {
			t.Errorf("%+v takes any host", policy)
		}
	}
	if err := (Documents{Mode: DocumentsListed, Hosts: []string{"app.example"}}).admit("https://app.example/c"); err != nil {
		t.Error(err)
	}
}

const documentURL = "https://app.example/client.json"

// metadata is a document that is right, to be altered.
func metadata(alter ...any) []byte {
	m := map[string]any{"client_id": documentURL, "client_name": "Small App", "redirect_uris": []string{"https://app.example/cb"}}
	for i := 0; i < len(alter); i += 2 {
		m[alter[i].(string)] = alter[i+1]
		if alter[i+1] == nil {
			delete(m, alter[i].(string))
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

const publicJWK = `{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`

// N5, N2, B5, B7: what a document may not say.
func TestClientIDMetadataDocumentRefused(t *testing.T) {
	p := &Provider{registry: &registry{}}
	keys := json.RawMessage(`{"keys":[` + publicJWK + `]}`)
	private := json.RawMessage(`{"keys":[` + strings.TrimSuffix(publicJWK, "}") + `,"d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}]}`)
	if _, err := p.readDocument(t.Context(), documentURL, metadata()); err != nil {
		t.Fatal(err)
	}
	for name, document := range map[string][]byte{
		"no JSON":                     []byte("<html>"),
		"nothing":                     nil,
		"null":                        []byte("null"),
		"a list":                      []byte("[]"),
		"a text":                      []byte(`"x"`),
		"a member twice":              []byte(`{"client_id":"` + documentURL + `","client_id":"` + documentURL + `","redirect_uris":["https://app.example/cb"]}`),
		"something after it":          append(metadata(), '{', '}'),
		"no client_id":                metadata("client_id", nil),
		"client_id in other case":     metadata("client_id", nil, "Client_ID", documentURL),
		"another client_id":           metadata("client_id", "https://app.example/client.jso"),
		"client_id in another form":   metadata("client_id", "https://app.example:443/client.json"),
		"client_id with a slash":      metadata("client_id", documentURL+"/"),
		"client_id as a list":         metadata("client_id", []string{documentURL}),
		"client_secret":               metadata("client_secret", "s"),
		"client_secret that is empty": metadata("client_secret", ""),
		"client_secret that is null":  []byte(`{"client_id":"` + documentURL + `","redirect_uris":["https://app.example/cb"],"client_secret":null}`),
		"client_secret_expires_at":    metadata("client_secret_expires_at", 0),
		"client_secret_basic":         metadata("token_endpoint_auth_method", "client_secret_basic"),
		"client_secret_post":          metadata("token_endpoint_auth_method", "client_secret_post"),
		"client_secret_jwt":           metadata("token_endpoint_auth_method", "client_secret_jwt"),
		"a secret among methods":      metadata("token_endpoint_auth_methods_supported", []string{"none", "client_secret_post"}),
		"methods that are no list":    metadata("token_endpoint_auth_methods_supported", "none"),
		"a method beside its list":    metadata("token_endpoint_auth_method", "none", "token_endpoint_auth_methods_supported", []string{"private_key_jwt"}, "jwks", keys),
		"private_key_jwt, no key":     metadata("token_endpoint_auth_method", "private_key_jwt"),
		"a private key":               metadata("token_endpoint_auth_method", "private_key_jwt", "jwks", private),
		"a private key for nothing":   metadata("jwks", private),
		"jwks and jwks_uri":           metadata("jwks", keys, "jwks_uri", "https://app.example/jwks"),
		"jwks_uri by http":            metadata("jwks_uri", "http://app.example/jwks"),
		"no redirect URI":             metadata("redirect_uris", nil),
		"an empty list of them":       metadata("redirect_uris", []string{}),
		"javascript":                  metadata("redirect_uris", []string{"javascript:alert(1)"}),
		"data":                        metadata("redirect_uris", []string{"data:text/html,x"}),
		"file":                        metadata("redirect_uris", []string{"file:///x"}),
		"blob":                        metadata("redirect_uris", []string{"blob:https://app.example/x"}),
		"vbscript":                    metadata("redirect_uris", []string{"vbscript:x"}),
		"http elsewhere":              metadata("redirect_uris", []string{"http://app.example/cb"}),
		"a fragment":                  metadata("redirect_uris", []string{"https://app.example/cb#x"}),
		"user information":            metadata("redirect_uris", []string{"https://a@app.example/cb"}),
		"a wildcard":                  metadata("redirect_uris", []string{"https://*.app.example/cb"}),
		"code in the query":           metadata("redirect_uris", []string{"https://app.example/cb?code=1"}),
		"state in the query":          metadata("redirect_uris", []string{"https://app.example/cb?state=1"}),
		"iss in the query":            metadata("redirect_uris", []string{"https://app.example/cb?iss=1"}),
		"error in the query":          metadata("redirect_uris", []string{"https://app.example/cb?error=1"}),
		"a scheme without a dot":      metadata("redirect_uris", []string{"myapp:/cb"}),
		"one of two is wrong":         metadata("redirect_uris", []string{"https://app.example/cb", "http://app.example/cb"}),
		"web with loopback":           metadata("redirect_uris", []string{"http://127.0.0.1/cb"}, "application_type", "web"),
		"no grant that is offered":    metadata("grant_types", []string{"implicit"}),
		"client_credentials alone":    metadata("grant_types", []string{"client_credentials"}),
		"refresh_token alone":         metadata("grant_types", []string{"refresh_token"}),
		"no scope that is offered":    metadata("scope", "admin:everything"),
		"no response type for a code": metadata("response_types", []string{"token"}),
		"logo by http":                metadata("logo_uri", "http://app.example/logo"),
		"policy by http":              metadata("policy_uri", "http://app.example/policy"),
		"terms by javascript":         metadata("tos_uri", "javascript:alert(1)"),
		"page by data":                metadata("client_uri", "data:text/html,x"),
		"a name that poses":           metadata("client_name", "раураl"),
		"a name of nothing":           metadata("client_name", "\u200b"),
		"encryption":                  metadata("id_token_encrypted_response_alg", "RSA-OAEP"),
		"ID tokens by none":           metadata("id_token_signed_response_alg", "none"),
	} {
		_, err := p.readDocument(t.Context(), documentURL, document)
		var unusable *documentError
		if !errors.As(err, &unusable) || !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a document says counts, as far as it is offered here.
func TestClientIDMetadataDocumentRead(t *testing.T) {
	p := &Provider{registry: &registry{}, registration: Registration{WithoutPKCE: true}}
	keys := json.RawMessage(`{"keys":[` + publicJWK + `]}`)
	for name, test := range map[string]struct {
		document []byte
		holds    func(c *client) bool
	}{
		"public unless it says otherwise (CIMD §6)": {metadata(), func(c *client) bool { return c.IsPublic() && c.RequirePKCE }},
		"PKCE for those with keys too": {metadata("token_endpoint_auth_method", "private_key_jwt", "jwks", keys), func(c *client) bool {
			return c.AuthMethod == authPrivateKeyJWT && c.RequirePKCE && c.keys != nil
		}},
		"the best of its methods": {metadata("token_endpoint_auth_methods_supported", []string{"tls_client_auth", "none", "private_key_jwt"}, "jwks_uri", "https://app.example/jwks"),
			func(c *client) bool { return c.AuthMethod == authPrivateKeyJWT }},
		"the one it names": {metadata("token_endpoint_auth_method", "none", "token_endpoint_auth_methods_supported", []string{"none", "private_key_jwt"}, "jwks", keys),
			func(c *client) bool { return c.AuthMethod == authNone }},
		"another where its own is not offered": {metadata("token_endpoint_auth_method", "tls_client_auth", "token_endpoint_auth_methods_supported", []string{"tls_client_auth", "none"}),
			func(c *client) bool { return c.AuthMethod == authNone }},
		"none that is offered": {metadata("token_endpoint_auth_method", "tls_client_auth"), func(c *client) bool {
			return c.authenticatesElsewhere() && c.AuthMethod == "tls_client_auth"
		}},
		"none in its list that is offered": {metadata("token_endpoint_auth_methods_supported", []string{"tls_client_auth"}), (*client).authenticatesElsewhere},
		"grants that are not offered here": {metadata("grant_types", []string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "client_credentials"}),
			func(c *client) bool { return slices.Equal(c.GrantTypes, []string{grantCode, grantRefresh}) }},
		"scopes that are not offered here": {metadata("scope", "openid files:read email"), func(c *client) bool { return slices.Equal(c.Scopes, []string{"openid", "email"}) }},
		"response types":                   {metadata("response_types", []string{"code", "code id_token"}), func(c *client) bool { return c.Origin == originDocument }},
		"no name":                          {metadata("client_name", nil), func(c *client) bool { return c.Name == "app.example" }},
		"an app on a device": {metadata("redirect_uris", []string{"http://127.0.0.1:33418/", "https://app.example/redirect"}, "application_type", "native"),
			func(c *client) bool { return c.ApplicationType == appNative }},
		"nothing of the operator's": {metadata("first_party", true, "roles", []string{"admin"}, "claims_in_id_token", true, "require_pkce", false, "origin", "operator"),
			func(c *client) bool {
				return !c.FirstParty && len(c.Roles) == 0 && !c.ClaimsInIDToken && c.RequirePKCE && followsDocument(c.Client)
			}},
	} {
		c, err := p.readDocument(t.Context(), documentURL, test.document)
		if err != nil || c.ID != documentURL || !test.holds(c) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// CIMD §4: JSON under any name.
func TestIsJSON(t *testing.T) {
	for contentType, good := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true, "application/oauth-client+json": true,
		"": false, "text/json": false, "text/html": false, "application/jsonp": false, "application/+json": false, "application/xml": false,
		"application/json, text/html": false, "image/svg+json": false,
	} {
		if isJSON(contentType) != good {
			t.Errorf("%q: %v", contentType, !good)
		}
	}
}

// N5: five minutes to a day, by caching headers (RFC 9111).
func TestDocumentAge(t *testing.T) {
	date := "Wed, 25 Nov 2026 12:00:00 GMT"
	for name, test := range map[string]struct {
		header http.Header
		want   time.Duration
	}{
		"nothing said":      {nil, 5 * time.Minute},
		"an hour":           {http.Header{"Cache-Control": {"public, max-age=3600"}}, time.Hour},
		"partly used":       {http.Header{"Cache-Control": {"max-age=3600"}, "Age": {"600"}}, 50 * time.Minute},
		"a second":          {http.Header{"Cache-Control": {"max-age=1"}}, 5 * time.Minute},
		"a year":            {http.Header{"Cache-Control": {"max-age=31536000, immutable"}}, 24 * time.Hour},
		"not to be kept":    {http.Header{"Cache-Control": {"no-store", "max-age=3600"}}, 5 * time.Minute},
		"to be asked about": {http.Header{"Cache-Control": {"max-age=3600, no-cache"}}, 5 * time.Minute},
		"no number":         {http.Header{"Cache-Control": {"max-age=soon"}}, 5 * time.Minute},
		"below zero":        {http.Header{"Cache-Control": {"max-age=-3600"}}, 5 * time.Minute},
		"beyond all":        {http.Header{"Cache-Control": {"max-age=99999999999999999999"}}, 5 * time.Minute},
		"a date":            {http.Header{"Expires": {"Wed, 25 Nov 2026 14:00:00 GMT"}, "Date": {date}}, 2 * time.Hour},
		"a date that is no": {http.Header{"Expires": {"0"}, "Date": {date}}, 5 * time.Minute},
		"max-age first":     {http.Header{"Cache-Control": {"max-age=600"}, "Expires": {"Wed, 25 Nov 2026 14:00:00 GMT"}, "Date": {date}}, 10 * time.Minute},
	} {
		if got := freshFor(test.header, 5*time.Minute, 24*time.Hour); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// N6: ten thousand at once begin at the pace, and few wait.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{interval: documentPace, patience: documentPatience, now: time.Now}
		begun, began := make(chan time.Duration, 10_000), time.Now()
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() {
				if p.turn(t.Context()) {
					begun <- time.Since(began)
				}
			})
		}
		synctest.Wait()
		if n := len(begun); n != 1 {
			t.Errorf("%d began at once", n)
		}
		wg.Wait()
		close(begun)
		var all []time.Duration
		for at := range begun {
			all = append(all, at)
		}
		slices.Sort(all)
		want := []time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, 600 * time.Millisecond, 800 * time.Millisecond, time.Second}
		if !slices.Equal(all, want) {
			t.Errorf("begun after %v, want %v", all, want)
		}
		time.Sleep(time.Second)
		if !p.turn(t.Context()) {
			t.Error("no turn after that")
		}
	})
}

// N6: strangers do not make this replica remember without end.
func TestDocumentsAreFew(t *testing.T) {
	d := newDocuments(Documents{Mode: DocumentsOpen}, NewOutbound(nil), nil, 0, time.Now)
	for i := range 10_000 {
		id := documentURL + strings.Repeat("x", i%50) + time.Duration(i).String()
		if _, err := d.once(t.Context(), id, time.Now(), func() (*client, error) { return nil, &documentError{description: "no"} }); err == nil {
			t.Fatal("no error")
		}
	}
	if n := len(d.entries.newer) + len(d.entries.older); n > documentsKnown || len(d.fetches) != 0 {
		t.Errorf("%d remembered, %d under way", n, len(d.fetches))
	}
}

// N6: few requests wait for one document, however slow its server is.
func TestFewWaitForOneDocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDocuments(Documents{Mode: DocumentsOpen}, NewOutbound(nil), nil, 0, time.Now)
		answer, found := make(chan struct{}), &client{}
		var wg sync.WaitGroup
		var busy, served, fetches atomic.Int32
		for range 100 {
			wg.Go(func() {
				c, err := d.once(t.Context(), documentURL, time.Now(), func() (*client, error) {
					fetches.Add(1)
					<-answer
					return found, nil
				})
				switch {
				case errors.Is(err, errDocumentsBusy) && errors.Is(err, storage.ErrUnavailable):
					busy.Add(1)
				case err == nil && c == found:
					served.Add(1)
				default:
					t.Errorf("%v, %v", c, err)
				}
			})
		}
		synctest.Wait()
		if busy.Load() != 100-1-documentWaiting {
			t.Errorf("%d were told to come back", busy.Load())
		}
		close(answer)
		wg.Wait()
		if served.Load() != 1+documentWaiting || fetches.Load() != 1 {
			t.Errorf("%d served by %d fetches", served.Load(), fetches.Load())
		}
	})
}

// FuzzClientIDMetadataDocument: whatever is at whatever URL, what is taken for
// a client has no power that a registered stranger has not.
func FuzzClientIDMetadataDocument(f *testing.F) {
	p := &Provider{registry: &registry{}}
	for _, document := range [][]byte{
		metadata(), nil, []byte("null"), []byte(`{"client_id":"https://app.example/client.json"}`),
		metadata("token_endpoint_auth_method", "private_key_jwt", "jwks", json.RawMessage(`{"keys":[`+publicJWK+`]}`)),
		metadata("client_secret", "s"), metadata("redirect_uris", []string{"javascript:alert(1)"}),
		metadata("redirect_uris", []string{"http://127.0.0.1/cb", "com.example.app:/cb"}, "grant_types", []string{"authorization_code", "refresh_token"}),
		metadata("token_endpoint_auth_methods_supported", []string{"tls_client_auth", "none"}, "scope", "openid admin", "logo_uri", "https://app.example/l"),
	} {
		f.Add(documentURL, document)
	}
	for _, id := range []string{"https://app.example/%2e%2e/c", "https://a@app.example/c", "https://app.example/c#f", "https://[::1]/c", "https://app.example:8443/c"} {
		f.Add(id, metadata("client_id", id))
	}
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		if (Documents{Mode: DocumentsOpen}).admit(id) != nil {
			return
		}
		rest := strings.TrimPrefix(id, "https://")
		host, path, _ := strings.Cut(rest, "/")
		if rest == id || len(id) > maxClientURL || strings.ContainsAny(id, "#\\ \r\n\t\x00") || strings.ContainsAny(host, "@?%") ||
			slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." }) {
			t.Fatalf("%q is accepted", id)
		}
		c, err := p.readDocument(t.Context(), id, body)
		if err != nil {
			if !errors.Is(err, storage.ErrNotFound) {
				t.Fatalf("%q, %q: %v", id, body, err)
			}
			return
		}
		members := make(map[string]any)
		if json.Unmarshal(body, &members) != nil || members["client_id"] != id {
			t.Fatalf("%q is taken for %q", body, id)
		}
		for name := range maps.Keys(members) {
			if strings.HasPrefix(name, "client_secret") {
				t.Fatalf("%q is accepted", body)
			}
		}
		if c.ID != id || !followsDocument(c.Client) || c.FirstParty || !c.RequirePKCE || !c.Enabled || len(c.Roles) > 0 || len(c.Secrets) > 0 || hasSecret(c.Client) ||
			strings.HasPrefix(c.AuthMethod, "client_secret") || len(c.RedirectURIs) == 0 || len(common(c.GrantTypes, []string{grantCode, grantRefresh})) != len(c.GrantTypes) ||
			len(common(c.Scopes, oidcScopes)) != len(c.Scopes) {
			t.Fatalf("%q makes %+v", body, c)
		}
		for _, uri := range c.RedirectURIs {
			if ValidateRedirectURI(uri, true) != nil {
				t.Fatalf("%q sends answers to %q", body, uri)
			}
		}
	})
}
