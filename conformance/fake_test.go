package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	fakeResource = "https://orders.example"
	fakeScope    = "orders:read orders:write"
)

// A fakeIssuer keeps every rule the checks know, so that only a breakage makes
// one fail. It knows a main and a second client with secrets, a public one, and
// one with a key.
type fakeIssuer struct {
	t        *testing.T
	issuer   string
	key      *ecdsa.PrivateKey
	jwks     []byte
	kid      string
	secrets  map[string]string
	clientKy *ecdsa.PrivateKey // of the client "keyed"

	mu       sync.Mutex
	tokens   map[string]map[string]any // live tokens and their claims
	replayed map[string]bool
}

// newFakeIssuer starts an issuer whose name has a path.
func newFakeIssuer(t *testing.T) *fakeIssuer {
	t.Helper()
	f := &fakeIssuer{
		t:        t,
		key:      newECKey(t),
		clientKy: newECKey(t),
		secrets:  map[string]string{"main": "secret-of-main", "second": "secret+of/second"},
		tokens:   map[string]map[string]any{},
		replayed: map[string]bool{},
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	es := publicJWK(t, f.key.Public(), "ES256")
	f.kid = es.KeyID
	f.jwks, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{es, publicJWK(t, rsaKey.Public(), "RS256")}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	f.issuer = srv.URL + "/tenant"
	mux.HandleFunc("GET /tenant/.well-known/openid-configuration", open(f.metadata))
	mux.HandleFunc("GET /.well-known/oauth-authorization-server/tenant", open(f.metadata))
	mux.HandleFunc("GET /tenant/jwks", open(f.keys))
	mux.HandleFunc("/tenant/token", open(postOnly(f.token)))
	mux.HandleFunc("/tenant/introspect", postOnly(f.introspect))
	mux.HandleFunc("/tenant/revoke", open(postOnly(f.revoke)))
	mux.HandleFunc("/tenant/userinfo", open(f.userinfo))
	mux.HandleFunc("/tenant/authorize", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	return f
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicJWK(t *testing.T, key crypto.PublicKey, alg string) jose.JSONWebKey {
	t.Helper()
	jwk := jose.JSONWebKey{Key: key, Use: "sig", Algorithm: alg}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return jwk
}

// open adds the CORS answers of an endpoint that any page may call.
func open(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h(w, r)
	}
}

func postOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

func (f *fakeIssuer) write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeIssuer) refuse(w http.ResponseWriter, status int, code string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
	}
	f.write(w, status, map[string]string{"error": code, "error_description": "Refused."})
}

func (f *fakeIssuer) metadata(w http.ResponseWriter, _ *http.Request) {
	f.write(w, http.StatusOK, map[string]any{
		"issuer":                                           f.issuer,
		"authorization_endpoint":                           f.issuer + "/authorize",
		"token_endpoint":                                   f.issuer + "/token",
		"introspection_endpoint":                           f.issuer + "/introspect",
		"revocation_endpoint":                              f.issuer + "/revoke",
		"userinfo_endpoint":                                f.issuer + "/userinfo",
		"jwks_uri":                                         f.issuer + "/jwks",
		"grant_types_supported":                            []string{"authorization_code", "refresh_token", "client_credentials"},
		"response_types_supported":                         []string{"code"},
		"subject_types_supported":                          []string{"public"},
		"id_token_signing_alg_values_supported":            []string{"RS256", "ES256"},
		"scopes_supported":                                 []string{"openid"},
		"token_endpoint_auth_methods_supported":            []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "none"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"ES256"},
		"code_challenge_methods_supported":                 []string{"S256"},
		"authorization_response_iss_parameter_supported":   true,
	})
}

func (f *fakeIssuer) keys(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=900")
	w.Header().Set("ETag", `"1"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.jwks))
}

// form reads and judges the parameters every endpoint has in common, and writes
// the refusal itself.
func (f *fakeIssuer) form(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		f.refuse(w, http.StatusRequestEntityTooLarge, "invalid_request")
		return nil, false
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		f.refuse(w, http.StatusUnsupportedMediaType, "invalid_request")
		return nil, false
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || r.URL.RawQuery != "" {
		f.refuse(w, http.StatusBadRequest, "invalid_request")
		return nil, false
	}
	for name, values := range form {
		if len(values) > 1 {
			f.refuse(w, http.StatusBadRequest, "invalid_request")
			return nil, false
		}
		if values[0] == "" {
			form.Del(name)
		}
	}
	return form, true
}

// authenticate names the client, and writes the refusal itself.
func (f *fakeIssuer) authenticate(w http.ResponseWriter, r *http.Request, form url.Values) (string, bool) {
	id, secret, basic := r.BasicAuth()
	inBody, assertion := form.Get("client_secret"), form.Get("client_assertion")
	methods := 0
	for _, used := range []bool{basic, inBody != "", assertion != ""} {
		if used {
			methods++
		}
	}
	if methods > 1 {
		f.refuse(w, http.StatusBadRequest, "invalid_request")
		return "", false
	}
	switch {
	case basic:
		var err error
		if id, err = url.QueryUnescape(id); err == nil {
			secret, err = url.QueryUnescape(secret)
		}
		if err == nil && f.secrets[id] != "" && f.secrets[id] == secret {
			return id, true
		}
	case inBody != "":
		if id := form.Get("client_id"); f.secrets[id] == inBody {
			return id, true
		}
	case assertion != "":
		if f.goodAssertion(assertion) {
			return "keyed", true
		}
	case form.Get("client_id") == "public":
		return "public", true
	}
	f.refuse(w, http.StatusUnauthorized, "invalid_client")
	return "", false
}

func (f *fakeIssuer) goodAssertion(raw string) bool {
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return false
	}
	var c struct {
		Iss string `json:"iss"`
		Sub string `json:"sub"`
		Aud any    `json:"aud"`
		Iat int64  `json:"iat"`
		Exp int64  `json:"exp"`
		Jti string `json:"jti"`
	}
	if tok.Claims(f.clientKy.Public(), &c) != nil {
		return false
	}
	now := time.Now().Unix()
	if c.Iss != "keyed" || c.Sub != "keyed" || c.Aud != f.issuer || c.Jti == "" || c.Iat > now || c.Exp <= now || c.Exp > now+300 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.replayed[c.Jti]
	f.replayed[c.Jti] = true
	return !known
}

func (f *fakeIssuer) token(w http.ResponseWriter, r *http.Request) {
	form, ok := f.form(w, r)
	if !ok {
		return
	}
	id, ok := f.authenticate(w, r, form)
	if !ok {
		return
	}
	switch form.Get("grant_type") {
	case "client_credentials":
		if id == "public" {
			f.refuse(w, http.StatusBadRequest, "unauthorized_client")
			return
		}
	case "":
		f.refuse(w, http.StatusBadRequest, "invalid_request")
		return
	case "authorization_code", "refresh_token":
		f.refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	default:
		f.refuse(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	if res := form.Get("resource"); res != "" && res != fakeResource {
		f.refuse(w, http.StatusBadRequest, "invalid_target")
		return
	}
	scope := form.Get("scope")
	for _, s := range strings.Fields(scope) {
		if !slices.Contains(strings.Fields(fakeScope), s) {
			f.refuse(w, http.StatusBadRequest, "invalid_scope")
			return
		}
	}
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": f.issuer, "sub": id, "client_id": id, "aud": fakeResource,
		"iat": now, "exp": now + 600, "jti": rand.Text(), "scope": scope,
	}
	tok := f.sign(claims)
	f.mu.Lock()
	f.tokens[tok] = claims
	f.mu.Unlock()
	f.write(w, http.StatusOK, map[string]any{"access_token": tok, "token_type": "Bearer", "expires_in": 600, "scope": scope})
}

func (f *fakeIssuer) sign(claims map[string]any) string {
	opts := (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", f.kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: f.key}, opts)
	if err != nil {
		f.t.Error(err)
		return ""
	}
	tok, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		f.t.Error(err)
	}
	return tok
}

func (f *fakeIssuer) introspect(w http.ResponseWriter, r *http.Request) {
	id, tok, ok := f.aboutToken(w, r)
	if !ok {
		return
	}
	if id == "public" {
		f.refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	f.mu.Lock()
	claims, live := f.tokens[tok]
	f.mu.Unlock()
	if !live || claims["client_id"] != id {
		f.write(w, http.StatusOK, map[string]bool{"active": false})
		return
	}
	answer := maps.Clone(claims)
	answer["active"], answer["token_type"] = true, "Bearer"
	f.write(w, http.StatusOK, answer)
}

func (f *fakeIssuer) revoke(w http.ResponseWriter, r *http.Request) {
	id, tok, ok := f.aboutToken(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tokens[tok]["client_id"] == id {
		delete(f.tokens, tok)
	}
}

func (f *fakeIssuer) aboutToken(w http.ResponseWriter, r *http.Request) (client, tok string, ok bool) {
	form, ok := f.form(w, r)
	if !ok {
		return "", "", false
	}
	if client, ok = f.authenticate(w, r, form); !ok {
		return "", "", false
	}
	if tok = form.Get("token"); tok == "" {
		f.refuse(w, http.StatusBadRequest, "invalid_request")
		return "", "", false
	}
	return client, tok, true
}

func (f *fakeIssuer) userinfo(w http.ResponseWriter, r *http.Request) {
	challenge := `Bearer realm="userinfo"`
	if r.Header.Get("Authorization") != "" {
		challenge += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(http.StatusUnauthorized)
}
