package web_test

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

func open(s ...string) options {
	return options{register: provider.Registration{Mode: provider.RegistrationOpen, Scopes: s}}
}

// spa is the metadata of an app that registers itself.
func spa(alter ...any) map[string]any {
	m := map[string]any{
		"redirect_uris": []string{callback}, "client_name": "Small App", "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
	}
	for i := 0; i < len(alter); i += 2 {
		m[alter[i].(string)] = alter[i+1]
		if alter[i+1] == nil {
			delete(m, alter[i].(string))
		}
	}
	return m
}

// registration sends metadata to the registration endpoint, or below it.
func (s *site) registration(method, address, token string, metadata any) answer {
	s.t.Helper()
	body := ""
	if metadata != nil {
		b, err := json.Marshal(metadata)
		if err != nil {
			s.t.Fatal(err)
		}
		body = string(b)
	}
	header := []string{"Content-Type", "application/json"}
	if token != "" {
		header = append(header, "Authorization", "Bearer "+token)
	}
	return s.send(method, strings.TrimPrefix(address, s.issuer), body, header...)
}

func (s *site) registers(metadata map[string]any) answer {
	s.t.Helper()
	a := s.registration(http.MethodPost, "/register", "", metadata)
	if a.status != http.StatusCreated || a.header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("register: %d %s", a.status, a.body)
	}
	return a
}

// An app that knows the issuer only registers itself and signs a person in;
// then it reads, replaces and removes its registration (RFC 7591, RFC 7592).
func TestRegistration(t *testing.T) {
	onBoth(t, open("orders:read"), func(t *testing.T, s *site) {
		s.people()
		endpoint, _ := s.get("/.well-known/openid-configuration").json["registration_endpoint"].(string)
		if endpoint != s.issuer+"/register" {
			t.Fatalf("registration_endpoint %q", endpoint)
		}
		made := s.registers(spa("scope", "openid profile orders:read", "id_token_signed_response_alg", "ES256", "default_max_age", 3600, "policy_uri", "https://shop.example/privacy", "made_up", 1))
		id, manage, token := made.member("client_id"), made.member("registration_client_uri"), made.member("registration_access_token")
		if made.json["client_secret"] != nil || made.json["made_up"] != nil || made.json["default_max_age"] != 3600.0 || made.json["application_type"] != "web" ||
			made.member("policy_uri") == "" || made.member("id_token_signed_response_alg") != "ES256" || !strings.HasPrefix(token, "sgm_") || made.json["client_id_issued_at"] == nil {
			t.Errorf("registered: %s", made.body)
		}

		b := s.browser()
		b.open(authorize("client_id", id, "scope", "openid orders:read")).isPage(200, "/login")
		b.signIn(ada, password).isPage(200, "/consent")
		if b.node("unverified") == nil {
			t.Errorf("the consent page does not say that nobody vouches for the app: %s", b.body)
		}
		code := b.press("allow").answered(callback).Get("code")
		if a := s.form("/token", "", "", url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "code": {code},
			"redirect_uri": {callback}, "code_verifier": {verifier}}); a.status != 200 || a.member("refresh_token") == "" {
			t.Errorf("token: %d %s", a.status, a.body)
		}
		if c, err := s.admin.Client(t.Context(), id); err != nil || c.LastUsedAt.IsZero() || c.FirstParty || !c.RequirePKCE {
			t.Errorf("%+v, %v", c, err)
		}

		read := s.registration(http.MethodGet, manage, token, nil)
		want := maps.Clone(made.json)
		if !equalJSON(read.json, want) {
			t.Errorf("read %s, registered %s", read.body, made.body)
		}
		changed := spa("client_id", id, "client_name", "Larger App", "token_endpoint_auth_method", "client_secret_basic", "scope", "openid")
		put := s.registration(http.MethodPut, manage, token, changed)
		if put.status != 200 || put.member("client_name") != "Larger App" || put.member("client_secret") == "" || put.json["policy_uri"] != nil || put.member("id_token_signed_response_alg") != "RS256" {
			t.Fatalf("replaced: %d %s", put.status, put.body)
		}
		s.settle()
		s.form("/par", id, put.member("client_secret"), url.Values{"x": {"y"}}).isRefusal(t, 400, "invalid_request") // it authenticates
		next := put.member("registration_access_token")
		if a := s.registration(http.MethodGet, manage, next, nil); next == token || a.status != http.StatusOK {
			t.Errorf("the new token: %d %s", a.status, a.body)
		}
		if a := s.registration(http.MethodGet, manage, token, nil); a.status != http.StatusUnauthorized {
			t.Errorf("the token from before works on: %d %s", a.status, a.body)
		}
		if a := s.registration(http.MethodDelete, manage, next, nil); a.status != http.StatusNoContent {
			t.Errorf("removed: %d %s", a.status, a.body)
		}
		if a := s.registration(http.MethodGet, manage, next, nil); a.status != http.StatusUnauthorized || !strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("after that: %d %s", a.status, a.body)
		}
		s.settle()
		s.browser().open(authorize("client_id", id)).isPage(http.StatusBadRequest, "/authorize")
	})
}

func equalJSON(a, b map[string]any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// N1: registration is off, and each client's registration is its own.
func TestRegistrationIsClosed(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		if s.get("/.well-known/openid-configuration").json["registration_endpoint"] != nil {
			t.Error("the metadata names an endpoint")
		}
		for _, path := range []string{"/register", "/register/shop"} {
			if a := s.registration(http.MethodPost, path, "", spa()); a.status != http.StatusNotFound {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
	})
	onBoth(t, open(), func(t *testing.T, s *site) {
		s.people()
		one, other := s.registers(spa()), s.registers(spa("client_name", "Other App"))
		token := one.member("registration_access_token")
		for name, tc := range map[string]struct{ address, token string }{
			"no token":                 {one.member("registration_client_uri"), ""},
			"another client's token":   {other.member("registration_client_uri"), token},
			"the token of nothing":     {one.member("registration_client_uri"), "sgm_" + strings.Repeat("A", 43)},
			"a client of the operator": {"/register/shop", token},
			"with no token at all":     {"/register/shop", "sgm_"},
			"no client":                {"/register/nobody", token},
			"an odd name":              {"/register/%00", token},
			"a long name":              {"/register/" + strings.Repeat("x", 3000), token},
		} {
			for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
				var body any
				if method == http.MethodPut {
					body = spa("client_id", one.member("client_id"))
				}
				if a := s.registration(method, tc.address, tc.token, body); a.status != http.StatusUnauthorized {
					t.Errorf("%s, %s: %d %s", name, method, a.status, a.body)
				}
			}
		}
		manage := one.member("registration_client_uri")
		for name, body := range map[string]map[string]any{
			"without client_id":         spa(),
			"of another client_id":      spa("client_id", other.member("client_id")),
			"with somebody's secret":    spa("client_id", one.member("client_id"), "client_secret", "x"),
			"with an evil redirect URI": spa("client_id", one.member("client_id"), "redirect_uris", []string{"javascript:alert(1)"}),
		} {
			if a := s.registration(http.MethodPut, manage, token, body); a.status != http.StatusBadRequest {
				t.Errorf("replaced %s: %d %s", name, a.status, a.body)
			}
		}
		if a := s.registration(http.MethodPatch, manage, token, nil); a.status != http.StatusMethodNotAllowed {
			t.Errorf("PATCH: %d", a.status)
		}
		if _, err := s.admin.DisableClient(t.Context(), one.member("client_id")); err != nil {
			t.Fatal(err)
		}
		if a := s.registration(http.MethodDelete, manage, token, nil); a.status != http.StatusForbidden {
			t.Errorf("a client that an operator disabled removes itself: %d %s", a.status, a.body)
		}
	})
}

// N1: an initial access token lets in as often as it says, however many try at once.
func TestInitialAccessToken(t *testing.T) {
	onBoth(t, options{register: provider.Registration{Mode: provider.RegistrationToken}}, func(t *testing.T, s *site) {
		s.people()
		if a := s.registration(http.MethodPost, "/register", "", spa()); a.status != http.StatusUnauthorized || a.json["error"] != nil {
			t.Errorf("without one: %d %s", a.status, a.body)
		}
		for _, wrong := range []string{"sga_x", "x", strings.Repeat("x", 300)} {
			if a := s.registration(http.MethodPost, "/register", wrong, spa()); a.status != http.StatusUnauthorized {
				t.Errorf("with %q: %d %s", wrong, a.status, a.body)
			}
		}
		token, made3, err := s.admin.CreateInitialAccessToken(t.Context(), 3, time.Hour, []string{"client_credentials"}, []string{"orders:write"})
		if err != nil {
			t.Fatal(err)
		}
		// A refusal costs nothing.
		if a := s.registration(http.MethodPost, "/register", token, spa("redirect_uris", []string{"http://shop.example"})); a.status != http.StatusBadRequest {
			t.Errorf("an evil registration: %d %s", a.status, a.body)
		}
		var made, refused atomic.Int32
		var secret, id atomic.Value
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				a := s.registration(http.MethodPost, "/register", token, map[string]any{
					"client_name": "Nightly", "grant_types": []string{"client_credentials"}, "scope": "orders:write"})
				switch a.status {
				case http.StatusCreated:
					made.Add(1)
					id.Store(a.member("client_id"))
					secret.Store(a.member("client_secret"))
				case http.StatusUnauthorized:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		if made.Load() != 3 || refused.Load() != 13 {
			t.Errorf("%d registered and %d refused of 16, with a token for 3", made.Load(), refused.Load())
		}
		s.settle()
		s.token(id.Load().(string), secret.Load().(string), "orders:write")
		if err := s.admin.RevokeInitialAccessToken(t.Context(), made3.ID); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("a token that is used up is revoked: %v", err)
		}

		short, _, err := s.admin.CreateInitialAccessToken(t.Context(), 1, time.Minute, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.clock.set(2 * time.Minute)
		if a := s.registration(http.MethodPost, "/register", short, spa()); a.status != http.StatusUnauthorized {
			t.Errorf("with one that has expired: %d %s", a.status, a.body)
		}
	})
}

// N2: what a registration may not have is refused by the codes of RFC 7591 §3.2.2.
func TestRegistrationRefused(t *testing.T) {
	onBoth(t, open("orders:read"), func(t *testing.T, s *site) {
		s.people()
		for name, tc := range map[string]struct {
			metadata map[string]any
			code     string
		}{
			"no redirect URI":           {spa("redirect_uris", nil), "invalid_redirect_uri"},
			"http":                      {spa("redirect_uris", []string{"http://shop.example/cb"}), "invalid_redirect_uri"},
			"a fragment":                {spa("redirect_uris", []string{"https://shop.example/cb#x"}), "invalid_redirect_uri"},
			"a wildcard":                {spa("redirect_uris", []string{"https://*.example/cb"}), "invalid_redirect_uri"},
			"javascript":                {spa("redirect_uris", []string{"javascript:alert(1)"}), "invalid_redirect_uri"},
			"a response parameter":      {spa("redirect_uris", []string{"https://shop.example/cb?code=x"}), "invalid_redirect_uri"},
			"loopback for a web app":    {spa("application_type", "web", "redirect_uris", []string{"http://127.0.0.1/cb"}), "invalid_redirect_uri"},
			"a foreign scope":           {spa("scope", "openid orders:write"), "invalid_client_metadata"},
			"a scope that nobody has":   {spa("scope", "everything"), "invalid_client_metadata"},
			"a grant for machines":      {spa("grant_types", []string{"client_credentials"}), "invalid_client_metadata"},
			"a grant for machines, too": {spa("token_endpoint_auth_method", "client_secret_basic", "grant_types", []string{"authorization_code", "client_credentials"}), "invalid_client_metadata"},
			"the implicit grant":        {spa("grant_types", []string{"authorization_code", "implicit"}), "invalid_client_metadata"},
			"passwords":                 {spa("grant_types", []string{"password"}), "invalid_client_metadata"},
			"response type token":       {spa("response_types", []string{"token"}), "invalid_client_metadata"},
			"an unknown method":         {spa("token_endpoint_auth_method", "client_secret_jwt"), "invalid_client_metadata"},
			"unsigned ID tokens":        {spa("id_token_signed_response_alg", "none"), "invalid_client_metadata"},
			"encrypted ID tokens":       {spa("id_token_encrypted_response_alg", "RSA-OAEP-256"), "invalid_client_metadata"},
			"unsigned request objects":  {spa("request_object_signing_alg", "none", "jwks_uri", "https://shop.example/jwks"), "invalid_client_metadata"},
			"logo by http":              {spa("logo_uri", "http://shop.example/logo.png"), "invalid_client_metadata"},
			"policy by javascript":      {spa("policy_uri", "javascript:alert(1)"), "invalid_client_metadata"},
			"terms by data":             {spa("tos_uri", "data:text/html,x"), "invalid_client_metadata"},
			"a name that poses":         {spa("client_name", "Sіgnet Аdmin"), "invalid_client_metadata"},
			"a name with markup ends":   {spa("client_name", "a\u202eb"), "invalid_client_metadata"},
			"keys in two places":        {spa("jwks", map[string]any{"keys": []any{}}, "jwks_uri", "https://shop.example/jwks"), "invalid_client_metadata"},
			"no keys for assertions":    {spa("token_endpoint_auth_method", "private_key_jwt"), "invalid_client_metadata"},
			"a private key":             {spa("jwks", map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "AAAA"}}}), "invalid_client_metadata"},
			"an endless exponent":       {spa("jwks", map[string]any{"keys": []any{endless(t)}}), "invalid_client_metadata"},
			"keys behind http":          {spa("token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "http://shop.example/jwks"), "invalid_client_metadata"},
			"another type of app":       {spa("application_type", "desktop"), "invalid_client_metadata"},
			"a list that is text":       {spa("redirect_uris", callback), "invalid_client_metadata"},
			"more URIs than any needs":  {spa("redirect_uris", slices.Repeat([]string{callback + "?a"}, 1)), ""},
			"a hundred and one of them": {spa("redirect_uris", manyURIs(101)), "invalid_client_metadata"},
		} {
			t.Run(name, func(t *testing.T) {
				a := s.registration(http.MethodPost, "/register", "", tc.metadata)
				if tc.code == "" {
					if a.status != http.StatusCreated {
						t.Errorf("%d %s", a.status, a.body)
					}
					return
				}
				a.isRefusal(t, 400, tc.code)
			})
		}
		for name, body := range map[string]string{
			"no JSON": "x", "a list": "[]", "a member twice": `{"client_name":"a","client_name":"b"}`, "nothing": "", "null": "null",
			"nested without end": strings.Repeat(`{"jwks":`, 8_000),
		} {
			t.Run(name, func(t *testing.T) {
				if a := s.send(http.MethodPost, "/register", body, "Content-Type", "application/json"); a.status != 400 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		if a := s.send(http.MethodPost, "/register", "{}", "Content-Type", formType); a.status != http.StatusUnsupportedMediaType {
			t.Errorf("a form: %d %s", a.status, a.body)
		}
		if a := s.send(http.MethodPost, "/register", `{"x":"`+strings.Repeat("x", 70<<10)+`"}`, "Content-Type", "application/json"); a.status != http.StatusRequestEntityTooLarge {
			t.Errorf("70 KiB: %d %s", a.status, a.body)
		}
		if a := s.send(http.MethodGet, "/register", ""); a.status != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", a.status)
		}
	})
}

// PKCE is asked of every client, unless the operator lets confidential ones do without.
func TestRegistrationWithoutPKCE(t *testing.T) {
	o := open()
	o.register.WithoutPKCE = true
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		for method, want := range map[string]bool{"none": true, "client_secret_basic": false} {
			id := s.registers(spa("token_endpoint_auth_method", method)).member("client_id")
			if c, err := s.admin.Client(t.Context(), id); err != nil || c.RequirePKCE != want {
				t.Errorf("%s: PKCE required %t, %v", method, c.RequirePKCE, err)
			}
		}
	})
}

// What an operator has said of a client that registered itself stands: it cannot
// undo it, not even by a request that began before.
func TestOperatorsWordStands(t *testing.T) {
	onBoth(t, open("orders:read"), func(t *testing.T, s *site) {
		s.people()
		made := s.registers(spa())
		id, token, manage := made.member("client_id"), made.member("registration_access_token"), made.member("registration_client_uri")
		// Its body comes while the operator disables it.
		body, rest := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, manage, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		slow := make(chan answer, 1)
		go func() { slow <- s.do(req) }()
		if _, err := rest.Write([]byte(`{"client_id":"` + id + `",`)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.admin.DisableClient(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := rest.Write([]byte(`"redirect_uris":["` + callback + `"],"token_endpoint_auth_method":"client_secret_basic"}`)); err != nil {
			t.Fatal(err)
		}
		rest.Close()
		if a := <-slow; a.status != http.StatusForbidden {
			t.Errorf("a registration that was begun before: %d %s", a.status, a.body)
		}
		if _, err := s.admin.EnableClient(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := s.admin.UpdateClient(t.Context(), id, func(c *storage.Client) { c.Scopes = []string{"openid"} }); err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			if a := s.registration(method, manage, token, spa("client_id", id)); a.status != http.StatusUnauthorized {
				t.Errorf("%s after an operator's change: %d %s", method, a.status, a.body)
			}
		}
	})
}

// A client that registered itself grows no table without end, and is given
// nothing without a person that is meant to be consented to.
func TestRegisteredIsAStranger(t *testing.T) {
	onBoth(t, options{register: provider.Registration{Mode: provider.RegistrationOpen, Scopes: []string{"orders:read"}}}, func(t *testing.T, s *site) {
		s.people()
		made := s.registers(spa("token_endpoint_auth_method", "client_secret_basic"))
		id, secret := made.member("client_id"), made.member("client_secret")
		form := request("client_id", "", "scope", "openid")
		statuses := make(map[int]int)
		for range 150 {
			statuses[s.form("/par", id, secret, form).status]++
		}
		if statuses[http.StatusCreated] == 0 || statuses[http.StatusTooManyRequests] == 0 {
			t.Errorf("150 pushed requests of a client that registered itself: %v", statuses)
		}
		manage, token := made.member("registration_client_uri"), made.member("registration_access_token")
		statuses = make(map[int]int)
		for range 30 {
			a := s.registration(http.MethodPut, manage, token, spa("client_id", id))
			if statuses[a.status]++; a.status == http.StatusOK {
				token = a.member("registration_access_token")
			}
		}
		if statuses[http.StatusOK] == 0 || statuses[http.StatusTooManyRequests] == 0 {
			t.Errorf("30 changes of a registration: %v", statuses)
		}

		machines, _, err := s.admin.CreateInitialAccessToken(t.Context(), 3, time.Hour, []string{"client_credentials"}, []string{"orders:write"})
		if err != nil {
			t.Fatal(err)
		}
		machine := map[string]any{"client_name": "Machine", "grant_types": []string{"client_credentials"}}
		if a := s.registration(http.MethodPost, "/register", machines, machine); a.member("scope") != "orders:write" {
			t.Errorf("who acts without a person may ask for %q: %s", a.member("scope"), a.body)
		}
		machine["scope"] = "orders:read"
		s.registration(http.MethodPost, "/register", machines, machine).isRefusal(t, 400, "invalid_client_metadata")
	})
}

// An API may ask a client for more than it registered for (RFC 6750 §3.1), within
// what is on offer, and spells itself in its own way.
func TestRegistrationAllowsForMoreScopes(t *testing.T) {
	onBoth(t, open("orders:read", "orders:write", "stock:read"), func(t *testing.T, s *site) {
		stock := s.admin.DefaultResource()
		stock.URI, stock.Name, stock.Scopes = "https://stock.example", "Stock", []storage.Scope{{Name: "stock:read"}, {Name: "stock:write"}}
		if _, err := s.admin.CreateResource(t.Context(), stock); err != nil {
			t.Fatal(err)
		}
		s.people()
		s.settle()
		code := []string{"authorization_code"}
		for name, test := range map[string]struct {
			metadata map[string]any
			scope    string
		}{
			"of the same API":           {spa("scope", "orders:read", "grant_types", code), "orders:read orders:write"},
			"and to be refreshed":       {spa("scope", "orders:write"), "orders:write orders:read offline_access"},
			"but not what is withheld":  {spa("scope", "stock:read", "grant_types", code), "stock:read"},
			"and nothing for a sign-in": {spa("scope", "openid email"), "openid email"},
		} {
			if a := s.registers(test.metadata); a.member("scope") != test.scope {
				t.Errorf("%s: %q", name, a.member("scope"))
			}
		}

		made := s.registers(spa("scope", "openid"))
		id := made.member("client_id")
		if a := s.registration(http.MethodPut, made.member("registration_client_uri"), made.member("registration_access_token"),
			spa("client_id", id, "scope", "orders:read")); a.member("scope") != "orders:read orders:write offline_access" {
			t.Errorf("replaced: %d %s", a.status, a.body)
		}
		s.settle()
		b := s.browser()
		b.open(authorize("client_id", id, "scope", "orders:read")).isPage(200, "/login")
		b.signIn(ada, password)
		get := func(scope string) answer {
			b.open(authorize("client_id", id, "scope", scope, "resource", ordersURI+"/")).isPage(200, "/consent")
			return s.form("/token", "", "", url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "redirect_uri": {callback},
				"code": {b.press("allow").answered(callback).Get("code")}, "code_verifier": {verifier}, "resource": {ordersURI + "/"}})
		}
		for _, scope := range []string{"orders:read", "orders:read orders:write"} {
			a := get(scope)
			if _, claims := decode(t, a.member("access_token")); a.status != 200 || claims["scope"] != scope || claims["aud"] != ordersURI {
				t.Errorf("%s: %d %s", scope, a.status, a.body)
			}
			again := s.form("/token", "", "", url.Values{"grant_type": {"refresh_token"}, "client_id": {id},
				"refresh_token": {a.member("refresh_token")}, "resource": {ordersURI + "/"}})
			if _, claims := decode(t, again.member("access_token")); again.status != 200 || claims["aud"] != ordersURI {
				t.Errorf("%s, refreshed: %d %s", scope, again.status, again.body)
			}
		}

		machines, _, err := s.admin.CreateInitialAccessToken(t.Context(), 3, time.Hour, []string{"client_credentials"}, []string{"orders:write", "orders:read"})
		if err != nil {
			t.Fatal(err)
		}
		machine := map[string]any{"client_name": "Machine", "grant_types": []string{"client_credentials"}, "scope": "orders:read"}
		if a := s.registration(http.MethodPost, "/register", machines, machine); a.member("scope") != "orders:read" {
			t.Errorf("who acts without a person may ask for %q: %s", a.member("scope"), a.body)
		}
	})
}

func manyURIs(n int) (uris []string) {
	for i := range n {
		uris = append(uris, callback+"?"+strings.Repeat("a", i+1))
	}
	return uris
}

// endless is a key that costs who verifies with it thirty times what others do.
func endless(t *testing.T) jose.JSONWebKey {
	key := *newSigner(t, jose.RS256).key.Public().(*rsa.PublicKey)
	key.E = 1<<31 - 1
	return jose.JSONWebKey{Key: &key, KeyID: "k"}
}

// N8: one address cannot register without end, all together cannot, and who
// was never used goes after a day.
func TestRegistrationIsBounded(t *testing.T) {
	o := open()
	o.policy = func(p *provider.Policy) { p.MaxRegistered, p.PruneEvery = 25, 50*time.Millisecond }
	o.proxies = trusted()
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		from := func(address string) int {
			b, _ := json.Marshal(spa())
			return s.send(http.MethodPost, "/register", string(b), "Content-Type", "application/json", "X-Forwarded-For", address).status
		}
		statuses := make(map[int]int)
		for range 22 {
			statuses[from("192.0.2.1")]++
		}
		// The first is forgiven a little by the time of the last.
		if n := statuses[http.StatusCreated]; n < 20 || n > 21 || n+statuses[http.StatusTooManyRequests] != 22 {
			t.Errorf("22 from one address: %v", statuses)
		}
		for range 6 {
			statuses[from("192.0.2.2")]++
		}
		if statuses[http.StatusCreated] != 25 || statuses[http.StatusServiceUnavailable] == 0 {
			t.Errorf("with six from another: %v", statuses)
		}
		s.clock.set(25 * time.Hour)
		left := func() (n int) {
			clients, err := s.store.Clients(t.Context(), storage.Page{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				if c.Origin != "operator" {
					n++
				}
			}
			return n
		}
		for end := time.Now().Add(patience); left() > 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d clients that nobody ever used are still there", left())
			}
		}
		if _, err := s.admin.Client(t.Context(), "shop"); err != nil {
			t.Errorf("the operator's client: %v", err)
		}
	})
}

// N1: the registration access token is rotated by each change, and the one
// before works until the new one is used, because an answer may be lost (RFC 7592 §2.2).
func TestRegistrationTokenRotates(t *testing.T) {
	onBoth(t, open(), func(t *testing.T, s *site) {
		s.people()
		made := s.registers(spa())
		id, manage, first := made.member("client_id"), made.member("registration_client_uri"), made.member("registration_access_token")
		put := func(token string) answer {
			t.Helper()
			return s.registration(http.MethodPut, manage, token, spa("client_id", id, "token_endpoint_auth_method", "client_secret_basic"))
		}
		is := func(what, token string, status int) {
			t.Helper()
			if a := s.registration(http.MethodGet, manage, token, nil); a.status != status {
				t.Errorf("%s: %d %s", what, a.status, a.body)
			}
		}
		lost := put(first) // with the secret in it
		is("the first, whose successor may be lost", first, 200)
		again := put(first)
		second := again.member("registration_access_token")
		if again.status != 200 || again.member("client_secret") == "" || again.member("client_secret") == lost.member("client_secret") {
			t.Fatalf("a change is repeated: %d %s", again.status, again.body)
		}
		is("a successor that was given up", lost.member("registration_access_token"), 401)
		s.settle()
		s.form("/par", id, again.member("client_secret"), url.Values{"x": {"y"}}).isRefusal(t, 400, "invalid_request") // it authenticates

		is("the second", second, 200)
		is("the first, after the second was used", first, 401)
		third := put(second).member("registration_access_token")
		if a := put(third); a.status != 200 || a.member("client_secret") != "" {
			t.Errorf("a change with a token that arrived: %d %s", a.status, a.body)
		}
		is("the second, after the third was used", second, 401)

		// And no longer than a day.
		made = s.registers(spa())
		id, manage, first = made.member("client_id"), made.member("registration_client_uri"), made.member("registration_access_token")
		next := put(first).member("registration_access_token")
		s.clock.set(24*time.Hour - time.Minute)
		s.settle()
		is("within a day", first, 200)
		s.clock.set(24*time.Hour + time.Minute)
		s.settle()
		is("after a day", first, 401)
		is("the next, after a day", next, 200)
	})
}

// An operator sees whom they let in, and can end it: however many register at
// that moment, none does afterwards.
func TestInitialAccessTokensAreRevoked(t *testing.T) {
	onBoth(t, options{register: provider.Registration{Mode: provider.RegistrationToken}}, func(t *testing.T, s *site) {
		ctx := t.Context()
		s.people()
		_, other, err := s.admin.CreateInitialAccessToken(ctx, 1, time.Hour, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, made, err := s.admin.CreateInitialAccessToken(ctx, 10_000, time.Hour, []string{"client_credentials"}, []string{"orders:write"})
		if err != nil {
			t.Fatal(err)
		}
		var ended atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					over := ended.Load()
					a := s.registration(http.MethodPost, "/register", token, spa())
					if over && a.status != http.StatusUnauthorized {
						t.Errorf("after it was revoked: %d %s", a.status, a.body)
					}
					if a.status != http.StatusCreated {
						return
					}
				}
			})
		}
		for end := time.Now().Add(patience); ; {
			list, err := s.admin.InitialAccessTokens(ctx, "", 10)
			if err != nil || len(list) != 2 {
				t.Fatalf("%+v, %v", list, err)
			}
			i := slices.IndexFunc(list, func(l provider.InitialAccessToken) bool { return l.ID == made.ID })
			if l := list[i]; l.Uses < 9_995 && slices.Equal(l.Grants, []string{"client_credentials"}) && slices.Equal(l.Scopes, []string{"orders:write"}) && made.ExpiresAt.Sub(l.ExpiresAt) < time.Millisecond {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%+v", list)
			}
		}
		if err := s.admin.RevokeInitialAccessToken(ctx, made.ID); err != nil {
			t.Fatal(err)
		}
		ended.Store(true)
		wg.Wait()
		if a := s.registration(http.MethodPost, "/register", token, spa()); a.status != http.StatusUnauthorized {
			t.Errorf("after it was revoked: %d %s", a.status, a.body)
		}
		if list, err := s.admin.InitialAccessTokens(ctx, "", 10); err != nil || len(list) != 1 || list[0].ID != other.ID {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.admin.InitialAccessTokens(ctx, other.ID, 10); err != nil || len(list) != 0 {
			t.Errorf("after the last: %+v, %v", list, err)
		}
		if _, err := s.admin.InitialAccessTokens(ctx, "x", 10); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("after nothing: %v", err)
		}
		if _, err := s.admin.Restored(ctx); err != nil {
			t.Fatal(err)
		}
		if list, err := s.admin.InitialAccessTokens(ctx, "", 10); err != nil || len(list) != 0 {
			t.Errorf("after a restore: %+v, %v", list, err)
		}
	})
}

// After a restore nobody knows which registration access token is the newest,
// so none works; the client signs people in as before.
func TestRegistrationAfterRestore(t *testing.T) {
	onBoth(t, open(), func(t *testing.T, s *site) {
		s.people()
		made := s.registers(spa())
		if _, err := s.admin.Restored(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			a := s.registration(method, made.member("registration_client_uri"), made.member("registration_access_token"), spa("client_id", made.member("client_id")))
			if a.status != http.StatusUnauthorized {
				t.Errorf("%s: %d %s", method, a.status, a.body)
			}
		}
		s.settle()
		s.browser().open(authorize("client_id", made.member("client_id"))).isPage(200, "/login")
	})
}

// What happened is kept as long as the policy says.
func TestAuditRetention(t *testing.T) {
	o := options{policy: func(p *provider.Policy) { p.PruneEvery, p.AuditRetention = 50*time.Millisecond, 30*24*time.Hour }}
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		count := func() int {
			events, err := s.store.AuditEvents(t.Context(), storage.AuditFilter{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			return len(events)
		}
		kept := count()
		s.clock.set(29 * 24 * time.Hour)
		s.settle()
		if _, err := s.admin.DeleteUser(t.Context(), bob); err != nil {
			t.Fatal(err)
		}
		if n := count(); n != kept+1 {
			t.Errorf("%d events after 29 days, were %d", n, kept)
		}
		s.clock.set(31 * 24 * time.Hour)
		for end := time.Now().Add(patience); count() != 1; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d events after 31 days, want the last one", count())
			}
		}
	})
}

// N1: what lets in and what lets change a registration is kept as a hash, and
// is in no log.
func TestRegistrationTokensAtRest(t *testing.T) {
	onBoth(t, open(), func(t *testing.T, s *site) {
		s.people()
		initial, _, err := s.admin.CreateInitialAccessToken(t.Context(), 2, time.Hour, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		made := s.registration(http.MethodPost, "/register", initial, spa("token_endpoint_auth_method", "client_secret_basic"))
		first := made.member("registration_access_token")
		next := s.registration(http.MethodPut, made.member("registration_client_uri"), first, spa("client_id", made.member("client_id"), "token_endpoint_auth_method", "client_secret_basic"))
		for _, wrong := range []string{first + "x", initial} {
			s.registration(http.MethodGet, made.member("registration_client_uri"), wrong, nil)
		}
		dump := s.db.dump(t)
		for name, token := range map[string]string{
			"initial access token": initial, "registration access token": first, "next registration access token": next.member("registration_access_token"),
			"client secret": made.member("client_secret"),
		} {
			random, err := base64.RawURLEncoding.DecodeString(token[4:])
			if err != nil || len(random) < 32 {
				t.Fatalf("%s: %d bytes, %v", name, len(random), err)
			}
			for where, text := range map[string]string{"database": dump, "log": s.log.String()} {
				if strings.Contains(text, token[4:]) || strings.Contains(text, string(random)) || strings.Contains(text, hex.EncodeToString(random)) {
					t.Errorf("the %s holds the %s", where, name)
				}
			}
		}
	})
}

// A request with a fault, or a logout, sends nobody to where a stranger says:
// whoever sees a link to this server could be sent anywhere (RFC 9700 §4.11.2,
// RP-Initiated Logout §3).
func TestStrangersSendNobodyAnywhere(t *testing.T) {
	o := publishing()
	o.register.Mode = provider.RegistrationOpen
	onBoth(t, o, func(t *testing.T, s *site) {
		s.people()
		anywhere := s.registers(spa("post_logout_redirect_uris", []string{callback})).member("client_id")
		document := publish(t, "post_logout_redirect_uris", []string{callback})
		for _, id := range []string{anywhere, document.id} {
			for name, address := range map[string]string{
				"a fault":            authorize("client_id", id, "response_type", "token"),
				"a scope":            authorize("client_id", id, "scope", "nothing"),
				"a request object":   authorize("client_id", id, "request", "x"),
				"pushed it is not":   authorize("client_id", id, "request_uri", "https://app.example/r"),
				"a fault, by form":   authorize("client_id", id, "response_type", "token", "response_mode", "form_post"),
				"a logout, to there": "/logout?" + url.Values{"client_id": {id}, "post_logout_redirect_uri": {callback}}.Encode(),
			} {
				if b := s.browser().open(address); b.left != nil || strings.Contains(b.body, callback) {
					t.Errorf("%s of %s: left for %v: %d %s", name, id, b.left, b.status, b.body)
				}
			}
			// Who is signed in, and who asks silently, is told of by the app.
			b := s.browser()
			if got := b.open(authorize("client_id", id, "prompt", "none")).answered(callback).Get("error"); got != "login_required" {
				t.Errorf("silently: %q", got)
			}
			b.open(authorize("client_id", id, "prompt", "login", "scope", "openid")).signIn(ada, password).isPage(200, "/consent")
			if got := b.open(authorize("client_id", id, "response_type", "token")).answered(callback).Get("error"); got != "unsupported_response_type" {
				t.Errorf("signed in: %q", got)
			}
		}
	})
}
