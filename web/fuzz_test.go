package web_test

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/net/html"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// fuzzed is a site whose handler is asked without a network.
type fuzzed struct {
	*site
	asked atomic.Uint32
}

func newFuzzed(f *testing.F) *fuzzed {
	return newFuzzedWith(f, options{})
}

func newFuzzedWith(f *testing.F, o options) *fuzzed {
	o.quiet = true
	return &fuzzed{site: newSite(f, openStore(f, migrations.SQLite), o)}
}

// send asks the handler and holds what is true of every answer: it is never a
// fault of ours.
func (s *fuzzed) send(t testing.TB, req *http.Request) *httptest.ResponseRecorder {
	// An address each, so that the throttle hides nothing.
	req.RemoteAddr = address(int(s.asked.Add(1))) + ":1"
	w := httptest.NewRecorder()
	s.public.ServeHTTP(w, req)
	if w.Code >= 500 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w
}

// ask posts the form and holds what is true of every answer of the token
// endpoint: every refusal is an OAuth error in JSON.
func (s *fuzzed) ask(t testing.TB, body, authorization string) int {
	req := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body))
	req.Header.Set("Content-Type", formType)
	if authorization != "" {
		req.Header["Authorization"] = []string{authorization}
	}
	w := s.send(t, req)
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if (w.Code == http.StatusOK) != (answer.Error == "" && answer.AccessToken != "") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, c := range answer.Description {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			t.Fatalf("error_description holds %q", c)
		}
	}
	return w.Code
}

// FuzzTokenForm: no body gets a token without the right secret in it.
func FuzzTokenForm(f *testing.F) {
	s := newFuzzed(f)
	secret := s.register("post", asPost)
	right := url.Values{"grant_type": {"client_credentials"}, "client_id": {"post"}, "client_secret": {secret}}.Encode()
	if code := s.ask(f, right, ""); code != http.StatusOK {
		f.Fatalf("the right form is answered %d", code)
	}
	for _, seed := range []string{
		right,
		strings.Replace(right, secret, "wrong", 1),
		right + "&client_secret=x",
		right + "&resource=" + url.QueryEscape(ordersURI) + "&resource=x&scope=orders%3Aread+x",
		"grant_type=password&username=a&password=b",
		"grant_type=client_credentials&client_assertion_type=" + url.QueryEscape(assertionType) + "&client_assertion=" + unsigned("post"),
		"%zz", "a=%00", "&&&=&", "grant_type=%ff", strings.Repeat("a=b&", 1000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if s.ask(t, body, "") == http.StatusOK {
			form, err := url.ParseQuery(body)
			if err != nil || form.Get("client_secret") != secret {
				t.Fatalf("a token without the secret: %q", body)
			}
		}
	})
}

// FuzzAuthorizationHeader: no header gets a token but the right credentials.
func FuzzAuthorizationHeader(f *testing.F) {
	s := newFuzzed(f)
	secret := s.register("shop")
	for _, seed := range []string{
		basic("shop", secret), basic("shop", "wrong"), basic("shop", ""), basic("", secret),
		"Basic", "Basic ", "Basic :", "Basic Og==", "Basic c2hvcA==", "Bearer x", "basic \x00", "Digest a=b", " ", "Basic  " + basic("shop", secret)[6:],
	} {
		f.Add(seed)
	}
	body := clientCredentials().Encode()
	f.Fuzz(func(t *testing.T, header string) {
		if s.ask(t, body, header) == http.StatusOK {
			req := http.Request{Header: http.Header{"Authorization": {strings.Join(strings.Fields(header), " ")}}}
			id, password, _ := req.BasicAuth()
			id, _ = url.QueryUnescape(id)
			password, _ = url.QueryUnescape(password)
			if id != "shop" || password != secret {
				t.Fatalf("a token for %q", header)
			}
		}
	})
}

// FuzzAssertion: no assertion gets a token but the one that was signed, once.
func FuzzAssertion(f *testing.F) {
	s := newFuzzed(f)
	key := newSigner(f, jose.ES256)
	s.register("robot", key.registers(f))
	spent := key.assertion(f, claimsFor(s.site, "robot"))
	form := func(assertion string) string {
		v := clientCredentials()
		v.Set("client_assertion_type", assertionType)
		v.Set("client_assertion", assertion)
		return v.Encode()
	}
	if code := s.ask(f, form(spent), ""); code != http.StatusOK {
		f.Fatalf("the right assertion is answered %d", code)
	}
	claims := claimsFor(s.site, "robot")
	claims["aud"] = "https://elsewhere.example"
	for _, seed := range []string{spent, key.assertion(f, claims), unsigned("robot"), "", ".", "..", "a.b.c", "e30.e30.", strings.Repeat(".", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, assertion string) {
		if s.ask(t, form(assertion), "") == http.StatusOK {
			t.Fatalf("a token for %q", assertion)
		}
	})
}

// FuzzAssertionClaims: what the right key signs is taken if, and only if, it
// says who signs it, whom it is for, and that it is good for a few minutes.
func FuzzAssertionClaims(f *testing.F) {
	s := newFuzzed(f)
	key := newSigner(f, jose.ES256)
	s.register("robot", key.registers(f))
	right, err := json.Marshal(claimsFor(s.site, "robot"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(right), "{}", "null", "[]", `"x"`, "", `{"iss":"robot","iss":"robot"}`,
		strings.Replace(string(right), `"exp":`, `"exp":1e400,"x":`, 1), strings.Replace(string(right), `"aud":"`, `"aud":["`, 1),
		strings.Replace(string(right), `"jti":"`, `"jti":"\u0000`, 1), strings.Replace(string(right), `"iss"`, `"ISS"`, 1), strings.Repeat("[", 4000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		v := clientCredentials()
		v.Set("client_assertion_type", assertionType)
		v.Set("client_assertion", key.signBytes(t, payload))
		if s.ask(t, v.Encode(), "") != http.StatusOK {
			return
		}
		var claims map[string]any
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatalf("a token for %q", payload)
		}
		now, iat, exp := float64(time.Now().Unix()), number(claims["iat"]), number(claims["exp"])
		if claims["iss"] != "robot" || claims["sub"] != "robot" || claims["aud"] != s.issuer || claims["jti"] == nil || claims["jti"] == "" ||
			exp < now-65 || exp > now+365 || iat > now+65 || exp-iat > 365 {
			t.Fatalf("a token for %q", payload)
		}
	})
}

func number(v any) float64 {
	n, ok := v.(float64)
	if !ok {
		return math.NaN() // of which nothing is true
	}
	return n
}

// leads holds what is true of every answer of the authorization endpoint to
// somebody who is not signed in: a browser leaves for nowhere but where a client
// is registered, with an error and our name and never a code, and goes on to a
// page of ours otherwise. It returns whether the sign-in begins.
func (s *fuzzed) leads(t testing.TB, w *httptest.ResponseRecorder) bool {
	where := w.Header().Get("Location")
	if w.Code == http.StatusOK && strings.Contains(w.Body.String(), `id="form-post"`) { // by a form that posts itself
		doc, err := html.Parse(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		found := ""
		for n := range doc.Descendants() {
			if n.Data == "form" {
				found = attr(n, "action")
			}
			if n.Data == "input" && attr(n, "name") == "code" {
				t.Fatal("a code for nobody")
			}
		}
		if !registeredTarget(found) {
			t.Fatalf("a form for %q", found)
		}
		return false
	}
	if where == "" {
		if w.Code < 400 {
			t.Fatalf("%d without a place to go on: %s", w.Code, w.Body)
		}
		return false
	}
	u, err := url.Parse(where)
	if err != nil || w.Code != http.StatusSeeOther {
		t.Fatalf("%d to %q: %v", w.Code, where, err)
	}
	if u.Host == "" && u.Scheme == "" {
		if u.Path != "/login" && u.Path != "/authorize" {
			t.Fatalf("to %q", where)
		}
		return true
	}
	q := u.Query()
	if q.Has("code") || q.Get("response") == "" && (q.Get("error") == "" || q.Get("iss") != s.issuer) {
		t.Fatalf("the app gets %q", where)
	}
	if plain, _, _ := strings.Cut(where, "?"); !registeredTarget(plain) {
		t.Fatalf("to %q", where)
	}
	return false
}

// registeredTarget knows where the clients of the fuzz targets wait.
func registeredTarget(uri string) bool {
	return uri == callback || uri == "https://portal.example/cb" || regexp.MustCompile(`^http://127\.0\.0\.1(:[0-9]{1,5})?/cb$`).MatchString(uri)
}

// FuzzAuthorizeQuery: no query begins a sign-in that is not, word for word, one
// of a client that is registered.
func FuzzAuthorizeQuery(f *testing.F) {
	s := newFuzzedWith(f, options{algs: []string{keys.ES256, keys.RS256}}) // which signs JARM
	s.people()
	s.client("tool", forPeople, asPublic, func(c *storage.Client) {
		c.ApplicationType, c.RedirectURIs = "native", []string{"http://127.0.0.1/cb"}
	})
	s.settle()
	for _, alter := range [][]string{
		nil, {"client_id", "nobody"}, {"redirect_uri", callback + "/"}, {"redirect_uri", "//evil.example"}, {"redirect_uri", ""},
		{"client_id", "tool", "redirect_uri", "http://127.0.0.1:1234/cb"}, {"client_id", "tool", "redirect_uri", "http://127.0.0.1:1@evil.example/cb"},
		{"response_type", "token"}, {"response_mode", "form_post"}, {"response_mode", "form_post.jwt", "scope", "x"}, {"response_mode", "fragment"},
		{"claims", `{"id_token":{"sub":{"value":"x"},"acr":{"essential":true}}}`}, {"claims", "null"}, {"claims", strings.Repeat(`{"userinfo":`, 99)},
		{"prompt", "none"}, {"prompt", "create"}, {"max_age", "-1"}, {"max_age", "0"}, {"id_token_hint", "a.b.c"}, {"request", "e30.e30."}, {"request_uri", "urn:ietf:params:oauth:request_uri:x"},
		{"request_uri", "https://shop.example/r"}, {"resource", "x"}, {"scope", "openid openid"}, {"ui_locales", "de-CH xx-\x00"}, {"state", strings.Repeat("s", 1025)},
		{"code_challenge_method", "plain"}, {"code_challenge", ""}, {"nonce", strings.Repeat("n", 600)}, {"login_hint", "a\nb"}, {"registration", "{}"},
	} {
		f.Add(request(alter...).Encode())
	}
	f.Add(request().Encode() + "&state=x")
	f.Add("client_id=shop&%zz")
	f.Add("flow=x")
	f.Fuzz(func(t *testing.T, query string) {
		req := httptest.NewRequest(http.MethodGet, "/authorize", nil)
		req.URL.RawQuery = query
		if !s.leads(t, s.send(t, req)) {
			return
		}
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("a sign-in for %q", query)
		}
		where, challenge := v.Get("redirect_uri"), v.Get("code_challenge")
		home := map[string]bool{
			"shop": where == callback, "portal": where == "https://portal.example/cb",
			"tool": where != callback && where != "https://portal.example/cb" && registeredTarget(where),
		}
		if where == "" { // what the only registered one stands for, without OpenID Connect
			home = map[string]bool{"shop": true, "portal": true, "tool": true}
			if slices.Contains(strings.Fields(v.Get("scope")), "openid") {
				home = nil
			}
		}
		if !home[v.Get("client_id")] || v.Get("response_type") != "code" || len(challenge) != 43 || v.Get("code_challenge_method") != "S256" ||
			v.Get("request") != "" || v.Get("request_uri") != "" || v.Get("registration") != "" || slices.Contains(strings.Fields(v.Get("prompt")), "none") {
			t.Fatalf("a sign-in for %q", query)
		}
		for _, name := range []string{"client_id", "redirect_uri", "response_type", "code_challenge", "scope", "state", "claims", "prompt"} {
			if len(v[name]) > 1 {
				t.Fatalf("a sign-in for %q", query)
			}
		}
		for _, scope := range strings.Fields(v.Get("scope")) {
			if !slices.Contains([]string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write"}, scope) {
				t.Fatalf("a sign-in for %q", query)
			}
		}
	})
}

// FuzzRequestObject: no object begins a sign-in that the client's key did not
// sign, and of what it signed only what is from the client, for this issuer.
func FuzzRequestObject(f *testing.F) {
	s := newFuzzed(f)
	s.people()
	key := newSigner(f, jose.ES256)
	key.signs(f, s.site)
	right, err := json.Marshal(s.object())
	if err != nil {
		f.Fatal(err)
	}
	whole, _, _ := strings.Cut(string(right), "}")
	for _, payload := range []string{
		string(right), "{}", "null", "[]", "", whole + `,"max_age":1}`, whole + `,"max_age":1e9}`, whole + `,"max_age":{}}`, whole + `,"claims":{"userinfo":{"email":null}}}`,
		whole + `,"resource":["a","b"]}`, whole + `,"resource":[null]}`, whole + `,"request":"x"}`, whole + `,"sub":"shop"}`, whole + `,"state":"\u0000"}`, whole + `,"exp":"soon"}`,
		whole + `,"client_id":"portal"}`, whole + `,"scope":7}`, whole + `,"aud":[[]]}`, whole + `,"nbf":1e300}`, whole + `,"prompt":"create"}`, strings.Repeat(`{"claims":`, 500),
	} {
		f.Add("", []byte(payload))
		f.Add(unsigned("shop"), []byte(payload))
	}
	for _, object := range []string{".", "..", "a.b.c", key.signBytes(f, right)[1:], key.signBytes(f, right) + ".", unsigned("shop"), newSigner(f, jose.ES256).signBytes(f, right)} {
		f.Add(object, []byte(nil))
	}
	f.Fuzz(func(t *testing.T, object string, payload []byte) {
		signed := object == ""
		if signed {
			object = key.signBytes(t, payload)
		}
		req := httptest.NewRequest(http.MethodGet, "/authorize", nil)
		req.URL.RawQuery = url.Values{"client_id": {"shop"}, "request": {object}}.Encode()
		if object == "" || !s.leads(t, s.send(t, req)) {
			return
		}
		var claims map[string]any
		err := json.Unmarshal(payload, &claims)
		audience, several := claims["aud"].([]any)
		if !signed || err != nil || claims["iss"] != "shop" || claims["sub"] != nil || claims["aud"] != s.issuer && !(several && slices.Contains(audience, any(s.issuer))) ||
			claims["response_type"] != "code" || claims["redirect_uri"] != callback || claims["client_id"] != nil && claims["client_id"] != "" && claims["client_id"] != "shop" ||
			claims["request"] != nil || claims["request_uri"] != nil {
			t.Fatalf("a sign-in for %q with %q", object, payload)
		}
	})
}

// FuzzRegistration: whatever registers itself waits where no stranger does, asks
// for no more than the policy offers, and can read what it was registered with.
func FuzzRegistration(f *testing.F) {
	o := open("orders:read")
	s := newFuzzedWith(f, o)
	s.people()
	for _, m := range []map[string]any{
		spa(), spa("token_endpoint_auth_method", nil), spa("redirect_uris", []string{"com.example.app:/cb", "http://127.0.0.1/cb"}), spa("redirect_uris", []string{"javascript:alert(1)"}),
		spa("redirect_uris", []string{"http.:1/cb"}), spa("scope", "openid orders:read"), spa("scope", "openid orders:write"), spa("grant_types", []string{"client_credentials"}), spa("jwks", map[string]any{"keys": []any{}}),
		spa("logo_uri", "http://a"), spa("contacts", []string{"a"}), spa("default_max_age", 1), spa("default_max_age", -1), spa("initiate_login_uri", "https://a/b"),
		spa("request_uris", []string{"https://a/b#c"}), spa("client_name", "a\u202e"), spa("client_id", "shop"), spa("backchannel_logout_uri", "https://a/b"), spa("subject_type", "pairwise"),
	} {
		seed, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	for _, seed := range []string{"", "null", "[]", `{"redirect_uris":[null]}`, `{"jwks":{"keys":[{"kty":"EC"}]}}`, `{"client_name":"a","client_name":"b"}`, strings.Repeat(`{"jwks":`, 900)} {
		f.Add([]byte(seed))
	}
	web := regexp.MustCompile(`^https://[a-z0-9\[]`)
	native := regexp.MustCompile(`^(http://(127\.0\.0\.1|\[::1\]|localhost)[:/?]?|[a-z][a-z0-9+-]*\.[a-z0-9+.-]+:)`)
	f.Fuzz(func(t *testing.T, body []byte) {
		ask := func(method, path, token string, body []byte) *httptest.ResponseRecorder {
			req := httptest.NewRequest(method, path, bytes.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			return s.send(t, req)
		}
		w := ask(http.MethodPost, "/register", "", body)
		var made struct {
			Error        string   `json:"error"`
			ID           string   `json:"client_id"`
			Token        string   `json:"registration_access_token"`
			Address      string   `json:"registration_client_uri"`
			Redirects    []string `json:"redirect_uris"`
			AfterLogout  []string `json:"post_logout_redirect_uris"`
			Grants       []string `json:"grant_types"`
			Scope        string   `json:"scope"`
			Method       string   `json:"token_endpoint_auth_method"`
			Logo         string   `json:"logo_uri"`
			Policy       string   `json:"policy_uri"`
			Terms        string   `json:"tos_uri"`
			Home         string   `json:"client_uri"`
			Login        string   `json:"initiate_login_uri"`
			BackChannel  string   `json:"backchannel_logout_uri"`
			FrontChannel string   `json:"frontchannel_logout_uri"`
			Keys         string   `json:"jwks_uri"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Code != http.StatusCreated {
			if !slices.Contains([]string{"invalid_client_metadata", "invalid_redirect_uri", "invalid_request"}, made.Error) {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			return
		}
		for _, uri := range slices.Concat(made.Redirects, made.AfterLogout) {
			if strings.ContainsAny(uri, "#*\\ <>\"") || !web.MatchString(uri) && !native.MatchString(uri) {
				t.Fatalf("registered to wait at %q", uri)
			}
		}
		for _, uri := range []string{made.Logo, made.Policy, made.Terms, made.Home, made.Login, made.BackChannel, made.FrontChannel, made.Keys} {
			if uri != "" && !web.MatchString(uri) {
				t.Fatalf("registered %q", uri)
			}
		}
		for _, scope := range strings.Fields(made.Scope) {
			if !slices.Contains([]string{"openid", "profile", "email", "address", "phone", "offline_access", "orders:read"}, scope) {
				t.Fatalf("registered for %q", scope)
			}
		}
		for _, grant := range made.Grants {
			if grant != "authorization_code" && grant != "refresh_token" {
				t.Fatalf("registered for %q", grant)
			}
		}
		if !slices.Contains([]string{"none", "client_secret_basic", "client_secret_post", "private_key_jwt"}, made.Method) || made.ID == "shop" || made.ID == "portal" {
			t.Fatalf("registered: %s", w.Body)
		}
		path := strings.TrimPrefix(made.Address, s.issuer)
		if read := ask(http.MethodGet, path, made.Token, nil); read.Code != http.StatusOK {
			t.Fatalf("%d %s", read.Code, read.Body)
		}
		if gone := ask(http.MethodDelete, path, made.Token, nil); gone.Code != http.StatusNoContent {
			t.Fatalf("%d %s", gone.Code, gone.Body)
		}
	})
}
