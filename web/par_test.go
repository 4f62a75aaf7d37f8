package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

// push pushes a request of shop's and returns the answer.
func (s *site) push(secret string, parameters ...string) answer {
	s.t.Helper()
	form := request(parameters...)
	if secret != "" {
		form.Del("client_id")
	}
	return s.form("/par", "shop", secret, form)
}

// pushed pushes a request that is taken, and returns its request_uri.
func (s *site) pushed(secret string, parameters ...string) string {
	s.t.Helper()
	a := s.push(secret, parameters...)
	if a.status != http.StatusCreated || a.json["expires_in"] != 60.0 || a.header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("push: %d %s", a.status, a.body)
	}
	reference := a.member("request_uri")
	if random, ok := strings.CutPrefix(reference, "urn:ietf:params:oauth:request_uri:"); !ok || len(random) != 43 {
		s.t.Fatalf("request_uri %q", reference)
	}
	return reference
}

// referring is an authorization request that refers to a pushed one.
func referring(reference string, more ...string) string {
	v := url.Values{"client_id": {"shop"}, "request_uri": {reference}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return "/authorize?" + v.Encode()
}

// A pushed request is as good as one in the URL, all that is beside its
// reference is ignored (P2), and the browser sees nothing of it (P4).
func TestPushedRequest(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		// Larger than what would travel through a sign-in in the open.
		large := `{"userinfo":{"` + strings.Repeat("x", 8<<10) + `":null}}`
		reference := s.pushed(secret, "state", "pushed-state", "login_hint", "hinted-person", "nonce", "pushed-nonce", "claims", large)
		b := s.browser()
		b.open(referring(reference, "scope", "openid email", "state", "another", "redirect_uri", "https://evil.example/cb", "prompt", "none")).isPage(200, "/login")
		b.open(b.at.RequestURI()).isPage(200, "/login") // again, as who reloads
		b.signIn(ada, password).isPage(200, "/consent")
		for _, secretly := range []string{"pushed-state", "hinted-person", "pushed-nonce"} {
			if strings.Contains(b.body+b.at.String(), secretly) {
				t.Errorf("the browser sees %s", secretly)
			}
		}
		got := b.press("allow").answered(callback)
		if got.Get("state") != "pushed-state" {
			t.Fatalf("the app gets %v", got)
		}
		token := s.redeem(secret, got.Get("code"))
		if token.status != 200 || token.member("scope") != "openid profile" {
			t.Errorf("token: %d %s", token.status, token.body)
		}

		// P1: it gave its one code.
		b.another().open(referring(reference)).isPage(http.StatusBadRequest, "/authorize")
	})
}

// P1: a minute after, or for another client, a pushed request is not there.
func TestPushedRequestIsBound(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.client("other", forPeople)
		reference := s.pushed(secret)
		for name, address := range map[string]string{
			"of another client":  strings.Replace(referring(reference), "client_id=shop", "client_id=other", 1),
			"of nobody":          strings.Replace(referring(reference), "client_id=shop", "", 1),
			"changed":            referring(reference + "x"),
			"longer than any":    referring(reference + strings.Repeat("x", 500)),
			"made up":            referring("urn:ietf:params:oauth:request_uri:" + strings.Repeat("A", 43)),
			"empty but its kind": referring("urn:ietf:params:oauth:request_uri:"),
		} {
			t.Run(name, func(t *testing.T) { s.browser().open(address).isPage(http.StatusBadRequest, "/authorize") })
		}
		begun := s.browser().open(referring(reference)).isPage(200, "/login")
		s.clock.set(61 * time.Second)
		s.settle()
		s.browser().open(referring(reference)).isPage(http.StatusBadRequest, "/authorize")
		// Who began in time may take the time that a flow has.
		s.clock.set(50 * time.Minute)
		s.settle()
		begun.signIn(ada, password).press("allow").answered(callback)
	})
}

// P1: of many that begin with one pushed request at once, one gets a code.
func TestPushedRequestWorksOnce(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		b := s.browser().open("/login").signIn(ada, password)
		b.open(authorize()).press("allow").answered(callback)
		for range 8 {
			reference := s.pushed(secret)
			var codes, spent int
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 16 {
				b := b.another()
				wg.Go(func() {
					b.open(referring(reference))
					mu.Lock()
					defer mu.Unlock()
					switch {
					case b.left != nil && b.left.Query().Get("code") != "":
						codes++
					case b.status >= 400 && b.status < 500:
						spent++
					}
				})
			}
			wg.Wait()
			if codes != 1 || spent != 15 {
				t.Fatalf("%d codes and %d refusals of 16", codes, spent)
			}
		}
	})
}

// The endpoint refuses as the token endpoint and the authorization endpoint do (RFC 9126 §2.3).
func TestPushRefused(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		s.push("wrong").isRefusal(t, 401, "invalid_client")
		s.form("/par", "", "", request()).isRefusal(t, 401, "invalid_client") // confidential, so client_id does not do
		for name, tc := range map[string]struct {
			parameters []string
			code       string
		}{
			"another redirect URI":  {[]string{"redirect_uri", "https://evil.example/cb"}, "invalid_request"},
			"another response type": {[]string{"response_type", "token"}, "unsupported_response_type"},
			"no response type":      {[]string{"response_type", ""}, "invalid_request"},
			"no PKCE":               {[]string{"code_challenge", "", "code_challenge_method", ""}, "invalid_request"},
			"a foreign scope":       {[]string{"scope", "openid everything"}, "invalid_scope"},
			"a foreign resource":    {[]string{"resource", "https://nothing.example"}, "invalid_target"},
			"a reference":           {[]string{"request_uri", "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"},
			"another client":        {[]string{"client_id", "portal"}, "invalid_request"},
			"a foreign hint":        {[]string{"id_token_hint", "x.y.z"}, "invalid_request"},
			"a long state":          {[]string{"state", strings.Repeat("x", 2000)}, "invalid_request"},
			"a large request":       {[]string{"claims", `{"userinfo":{"` + strings.Repeat("x", 40<<10) + `":null}}`}, "invalid_request"},
		} {
			t.Run(name, func(t *testing.T) {
				form := request(tc.parameters...)
				if form.Get("client_id") == "shop" {
					form.Del("client_id")
				}
				s.form("/par", "shop", secret, form).isRefusal(t, 400, tc.code)
			})
		}
		if a := s.send(http.MethodGet, "/par", ""); a.status != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", a.status)
		}
	})
}

// P3: who has to push cannot do without.
func TestRequirePushed(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		_, err := s.admin.UpdateClient(t.Context(), "shop", func(c *storage.Client) { c.RequirePushed = true })
		if err != nil {
			t.Fatal(err)
		}
		s.settle()
		b := s.browser().open("/login").signIn(ada, password)
		if got := b.open(authorize()).answered(callback); got.Get("error") != "invalid_request" {
			t.Errorf("a request that was not pushed: %v", got)
		}
		b.open(referring(s.pushed(secret))).press("allow").answered(callback)
	})
}

// A public client pushes without credentials, but not without end.
func TestPublicPushes(t *testing.T) {
	onBoth(t, options{}, func(t *testing.T, s *site) {
		s.people()
		s.client("spa", forPeople, func(c *storage.Client) { c.AuthMethod = "none" })
		var statuses []int
		for range 150 {
			a := s.form("/par", "", "", request("client_id", "spa"))
			statuses = append(statuses, a.status)
		}
		if statuses[0] != http.StatusCreated || !slices.Contains(statuses, http.StatusTooManyRequests) {
			t.Errorf("150 requests in a row are answered %v", statuses)
		}
	})
}

func TestPushedMetadata(t *testing.T) {
	onBoth(t, options{path: "/tenant"}, func(t *testing.T, s *site) {
		m := s.get("/.well-known/openid-configuration").json
		for name, want := range map[string]any{
			"pushed_authorization_request_endpoint": s.issuer + provider.PathPushed,
			"require_pushed_authorization_requests": false,
			"request_parameter_supported":           true,
			"request_uri_parameter_supported":       true,
			"require_request_uri_registration":      true,
		} {
			if m[name] != want {
				t.Errorf("%s is %v, want %v", name, m[name], want)
			}
		}
	})
}
