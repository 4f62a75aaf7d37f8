package web_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/migrations"
)

// fuzzed is a site whose handler is asked without a network.
type fuzzed struct {
	*site
	asked atomic.Uint32
}

func newFuzzed(f *testing.F) *fuzzed {
	return &fuzzed{site: newSite(f, openStore(f, migrations.SQLite), options{quiet: true})}
}

// ask posts the form and holds what is true of every answer: it is never a
// fault of ours, and every refusal is an OAuth error in JSON.
func (s *fuzzed) ask(t testing.TB, body, authorization string) int {
	req := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body))
	req.Header.Set("Content-Type", formType)
	if authorization != "" {
		req.Header["Authorization"] = []string{authorization}
	}
	// An address each, so that the throttle hides nothing.
	req.RemoteAddr = address(int(s.asked.Add(1))) + ":1"
	w := httptest.NewRecorder()
	s.public.ServeHTTP(w, req)
	if w.Code >= 500 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
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
