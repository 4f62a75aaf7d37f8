package web_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// protocolPaths are the endpoints that take a form by POST.
func protocolPaths() []string { return []string{"/token", "/introspect", "/revoke"} }

func TestWhatIsNoFormIsRefused(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		form := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
		var multi bytes.Buffer
		w := multipart.NewWriter(&multi)
		for name, values := range form {
			if err := w.WriteField(name, values[0]); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		for _, tc := range []struct {
			name, method, path, contentType, body string
			status                                int
		}{
			{"D1 GET", http.MethodGet, "", "", "", 405},
			{"D1 GET with the form in the query", http.MethodGet, "?" + form.Encode(), "", "", 405},
			{"D1 PUT", http.MethodPut, "", formType, form.Encode(), 405},
			{"D1 DELETE", http.MethodDelete, "", "", "", 405},
			{"D1 JSON", http.MethodPost, "", "application/json", `{"grant_type":"client_credentials","token":"x"}`, 415},
			{"D1 F14 multipart", http.MethodPost, "", w.FormDataContentType(), multi.String(), 415},
			{"D1 no media type", http.MethodPost, "", "", form.Encode(), 415},
			{"D1 a malformed media type", http.MethodPost, "", "application/x-www-form-urlencoded; =", form.Encode(), 415},
			{"D1 F14 over 64 KiB", http.MethodPost, "", formType, form.Encode() + "&x=" + strings.Repeat("x", 64<<10), 413},
			{"D2 a secret in the query", http.MethodPost, "?client_id=shop&client_secret=" + secret, formType, form.Encode(), 400},
			{"D2 an assertion in the query", http.MethodPost, "?client_assertion=x", formType, form.Encode(), 400},
			{"D2 a token in the query", http.MethodPost, "?token=x", formType, form.Encode(), 400},
			{"D2 a code in the query", http.MethodPost, "?code=x", formType, form.Encode(), 400},
			{"D2 a grant type in the query", http.MethodPost, "?grant_type=client_credentials", formType, form.Encode(), 400},
			{"D2 a malformed query", http.MethodPost, "?client_secret=%zz", formType, form.Encode(), 400},
			{"invalid UTF-8 in a value", http.MethodPost, "", formType, form.Encode() + "&x=%ff", 400},
			{"invalid UTF-8 in a name", http.MethodPost, "", formType, form.Encode() + "&%ff=x", 400},
			{"NUL in a value", http.MethodPost, "", formType, form.Encode() + "&x=%00", 400},
			{"NUL in a name", http.MethodPost, "", formType, form.Encode() + "&x%00=x", 400},
			{"a bad percent escape", http.MethodPost, "", formType, form.Encode() + "&x=%zz", 400},
			{"half a percent escape", http.MethodPost, "", formType, form.Encode() + "&x=%4", 400},
			{"a semicolon as separator", http.MethodPost, "", formType, "grant_type=client_credentials;token=x", 400},
		} {
			t.Run(tc.name, func(t *testing.T) {
				for _, path := range protocolPaths() {
					a := s.send(tc.method, path+tc.path, tc.body, "Content-Type", tc.contentType, "Authorization", basic("shop", secret))
					a.isRefusal(t, tc.status, "invalid_request")
					if got := a.header.Get("Allow"); (tc.status == 405) != (got == "POST") {
						t.Errorf("%s: Allow = %q with status %d (RFC 9110 §15.5.6)", path, got, tc.status)
					}
				}
			})
		}
		t.Run("D1 HEAD", func(t *testing.T) {
			for _, path := range protocolPaths() {
				if a := s.send(http.MethodHead, path, ""); a.status != 405 {
					t.Errorf("%s: %d", path, a.status)
				}
			}
		})
		t.Run("a query that means nothing to us is let be", func(t *testing.T) {
			if a := s.form("/token?trace=1", "shop", secret, url.Values{"grant_type": {"client_credentials"}}); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		})
	})
}

// F14: a body that announces no length is bounded all the same.
func TestChunkedBodyIsBounded(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		for _, tc := range []struct {
			name   string
			size   int
			status int
		}{
			{"F14 small", 0, 200},
			{"F14 over 64 KiB", 64 << 10, 413},
			{"F14 far over 64 KiB", 1 << 20, 413},
		} {
			t.Run(tc.name, func(t *testing.T) {
				body := "grant_type=client_credentials&x=" + strings.Repeat("x", tc.size)
				req, err := http.NewRequest(http.MethodPost, s.url+"/token", io.NopCloser(strings.NewReader(body)))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = -1
				req.Header.Set("Content-Type", formType)
				req.Header.Set("Authorization", basic("shop", secret))
				if a := s.do(req); a.status != tc.status {
					t.Fatalf("%d %s", a.status, a.body)
				}
			})
		}
	})
}

// F13: every parameter that a protocol endpoint knows is refused when it
// comes twice, though fosite would take the first (RFC 6749 §3.2).
func TestRepeatedParameters(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		known := map[string][]string{
			"/token":      {"grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type", "code", "redirect_uri", "unknown_to_us"},
			"/introspect": {"token", "token_type_hint", "client_id", "client_secret", "client_assertion", "client_assertion_type"},
			"/revoke":     {"token", "token_type_hint", "client_id", "client_secret", "client_assertion", "client_assertion_type"},
		}
		for path, names := range known {
			for _, name := range names {
				t.Run("F13 "+path+" "+name, func(t *testing.T) {
					// The first is right, so that only the repetition can be at fault.
					right := map[string]string{"grant_type": "client_credentials", "scope": "orders:read", "token": "x"}
					form := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
					form[name] = []string{right[name], right[name]}
					if right[name] == "" {
						form[name] = []string{"y", "y"}
					}
					a := s.form(path, "shop", secret, form)
					a.isRefusal(t, 400, "invalid_request")
					if !strings.Contains(a.member("error_description"), "more than once") {
						t.Errorf("refused for another reason: %s", a.body)
					}
				})
			}
		}
		t.Run("RFC 8707 §2 resource may repeat", func(t *testing.T) {
			a := s.form("/token", "shop", secret, url.Values{"grant_type": {"client_credentials"}, "resource": {ordersURI, ordersURI}})
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		})
		t.Run("RFC 6749 §3.1 an empty parameter counts as omitted", func(t *testing.T) {
			form := "grant_type=client_credentials&scope=&resource=&client_id=&client_secret=&client_assertion=&client_assertion_type=&token="
			if a := s.send(http.MethodPost, "/token", form, "Content-Type", formType, "Authorization", basic("shop", secret)); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			a := s.send(http.MethodPost, "/token", "grant_type=", "Content-Type", formType, "Authorization", basic("shop", secret))
			a.isRefusal(t, 400, "invalid_request")
			a = s.send(http.MethodPost, "/introspect", "token=", "Content-Type", formType, "Authorization", basic("shop", secret))
			a.isRefusal(t, 400, "invalid_request")
		})
	})
}

// F20: many scopes are refused before they cost anything.
func TestManyScopesAreCheap(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		distinct := make([]string, 10_000)
		for i := range distinct {
			distinct[i] = fmt.Sprintf("s%d", i)
		}
		fifty := make([]string, 51)
		for i := range fifty {
			fifty[i] = fmt.Sprintf("s%d", i)
		}
		for _, tc := range []struct{ name, scope, limit string }{
			{"F20 10,000 scopes", strings.Join(distinct, " "), "2048 bytes"},
			{"F20 10,000 times one scope", strings.TrimSpace(strings.Repeat("a ", 10_000)), "2048 bytes"},
			{"F20 almost 64 KiB in one scope", strings.Repeat("a", 63<<10), "2048 bytes"},
			{"F20 one scope over the limit", strings.Join(fifty, " "), "More than 50 scopes"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				a := s.form("/token", "shop", secret, url.Values{"grant_type": {"client_credentials"}, "scope": {tc.scope}})
				a.isRefusal(t, 400, "invalid_scope")
				// What is refused for its size was not looked at scope by scope.
				if said := a.member("error_description"); !strings.Contains(said, tc.limit) {
					t.Errorf("refused for another reason: %s", said)
				}
			})
		}
	})
}

// Whatever bytes a parameter holds, the answer is a refusal in the characters
// RFC 6749 §5.2 allows, and the log stays one JSON object a line.
func TestHostileBytes(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.register("shop")
		hostile := "\"\\<script>alert(1)</script>\r\nSet-Cookie: a=b\x1b[31m\t\x7f\u2028é" + strings.Repeat("ü", 200)
		for _, tc := range []struct {
			path, parameter, code string
			status                int
		}{
			{"/token", "grant_type", "unsupported_grant_type", 400},
			{"/token", "scope", "invalid_scope", 400},
			{"/token", "resource", "invalid_target", 400},
			{"/token", "client_id", "invalid_request", 400},
			{"/token", "client_secret", "invalid_request", 400},
			{"/token", "client_assertion", "invalid_request", 400},
			{"/token", "client_assertion_type", "invalid_request", 400},
			{"/introspect", "client_id", "invalid_request", 400},
			{"/revoke", "client_id", "invalid_request", 400},
		} {
			t.Run(tc.path+" "+tc.parameter, func(t *testing.T) {
				form := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
				form.Set(tc.parameter, hostile)
				s.form(tc.path, "shop", secret, form).isRefusal(t, tc.status, tc.code)
			})
		}
		t.Run("a parameter's name", func(t *testing.T) {
			a := s.form("/token", "shop", secret, url.Values{"grant_type": {"client_credentials"}, hostile: {"a", "b"}})
			a.isRefusal(t, 400, "invalid_request")
		})
		t.Run("a client that asks by this name", func(t *testing.T) {
			s.form("/token", hostile, "x", url.Values{"grant_type": {"client_credentials"}}).isRefusal(t, 401, "invalid_client")
		})
		t.Run("introspection and revocation of such a token", func(t *testing.T) {
			if a := s.form("/introspect", "shop", secret, url.Values{"token": {hostile}}); a.body != `{"active":false}` {
				t.Errorf("introspection: %d %s", a.status, a.body)
			}
			if a := s.form("/revoke", "shop", secret, url.Values{"token": {hostile}, "token_type_hint": {hostile}}); a.status != 200 {
				t.Errorf("revocation: %d %s", a.status, a.body)
			}
		})
	})
}
