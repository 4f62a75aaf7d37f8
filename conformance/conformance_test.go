package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/conformance/internal/breakage"
)

// subject is an issuer and the credentials that let every check run at it.
type subject struct {
	issuer          string
	client, second  Credentials
	public          string
	keyClient       *KeyClient
	resource, scope string
	person          Person // empty where nobody can sign in
	web, secondWeb  App
	native          App
	postLogout      string

	initialToken, keyRedirect         string
	protected, protectedScope, stepUp string
	frontChannel                      string
	channel                           *channel // the way to the second web app; nil where it is told nothing
}

// signetPages are the names in templates/IDS.md.
func signetPages() Pages {
	return Pages{Username: "username", Password: "password", Allow: "allow", Deny: "deny", Account: "continue", Logout: "submit"}
}

// env is what the checks use, with a proxy in between if one is given.
func (s subject) env(t *testing.T, proxy *breakage.Proxy) *Env {
	t.Helper()
	connectTo := map[string]string{}
	if proxy != nil {
		srv := httptest.NewServer(proxy)
		t.Cleanup(srv.Close)
		for _, of := range []string{s.issuer, s.protected} {
			u, err := url.Parse(of)
			if err != nil {
				t.Fatal(err)
			}
			connectTo[hostPort(u)] = srv.Listener.Addr().String()
		}
	}
	e := &Env{
		Issuer: s.issuer, Client: s.client, Second: s.second, PublicClientID: s.public, KeyClient: s.keyClient,
		Resource: s.resource, Scope: s.scope, HTTP: newHTTPClient(connectTo), Now: time.Now,
		Person: s.person, Web: s.web, SecondWeb: s.secondWeb, Native: s.native, PostLogoutURI: s.postLogout, Pages: signetPages(),
		Register: s.initialToken != "", InitialToken: s.initialToken, KeyRedirectURI: s.keyRedirect,
		Protected: s.protected, ProtectedScope: s.protectedScope, StepUp: s.stepUp, FrontChannelURI: s.frontChannel,
	}
	t.Cleanup(e.HTTP.CloseIdleConnections)
	if s.channel != nil {
		e.told = s.channel.receiver(t, proxy)
	}
	if err := e.readMetadata(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// startSubject starts the issuer the tests judge.
func startSubject(t *testing.T) subject {
	t.Helper()
	f := newFakeIssuer(t)
	return subject{
		issuer:    f.issuer,
		client:    Credentials{"main", f.secrets["main"]},
		second:    Credentials{"second", f.secrets["second"]},
		public:    "public",
		keyClient: &KeyClient{ID: "keyed", alg: jose.ES256, key: f.clientKy},
		resource:  fakeResource,
		scope:     fakeScope,
	}
}

// A channel is the back channel of an app which several tests wait at: each gets
// what comes, and passes over what is about sessions of the others.
type channel struct {
	uri string
	mu  sync.Mutex
	to  map[string]bool
}

// openChannel listens for what an issuer tells an app.
func openChannel(t *testing.T) *channel {
	t.Helper()
	c := &channel{to: map[string]bool{}}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	c.uri = srv.URL + "/signed-out"
	return c
}

// receiver is another end of the channel, behind a proxy if one is given.
func (c *channel) receiver(t *testing.T, proxy *breakage.Proxy) *receiver {
	t.Helper()
	told, at, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(told.close)
	to := "http://" + at.String() + "/"
	if proxy != nil {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(proxy.Relay(u))
		t.Cleanup(srv.Close)
		to = srv.URL
	}
	c.join(t, to)
	return told
}

// join has what comes passed on to an address for as long as the test runs.
func (c *channel) join(t *testing.T, to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to[to] = true
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.to, to)
	})
}

func (c *channel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	ends := slices.Collect(maps.Keys(c.to))
	c.mu.Unlock()
	for _, to := range ends {
		// An end that has gone hears nothing, and needs to hear nothing.
		if resp, err := http.Post(to, r.Header.Get("Content-Type"), bytes.NewReader(body)); err == nil {
			resp.Body.Close()
		}
	}
}

// judge runs checks, with a proxy in between if one is given.
func (s subject) judge(t *testing.T, proxy *breakage.Proxy, checks []Check) []Result {
	t.Helper()
	var results []Result
	if err := judgeAll(t.Context(), s.env(t, proxy), checks, func(r Result) { results = append(results, r) }); err != nil {
		t.Fatal(err)
	}
	return results
}

func TestHonestIssuerPassesEveryCheck(t *testing.T) {
	for _, r := range startSubject(t).judge(t, nil, checks()) {
		if r.Outcome != Passed && companion(r.Check) == "" {
			t.Errorf("%s %s: %s", r.Outcome, r.Check, r.Reason)
		}
	}
}

// Each breakage makes its check fail, and none of those beside it.
func TestEveryCheckCanFail(t *testing.T) {
	signet := startSignet(t, buildSignet(t), "", anyAddress)
	for _, r := range signet.judge(t, nil, checks()) {
		if r.Outcome != Passed {
			t.Fatalf("%s %s: %s", r.Outcome, r.Check, r.Reason)
		}
	}
	var breakages []string
	for _, b := range breakage.All() {
		breakages = append(breakages, b.ID)
	}
	for _, c := range checks() {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			if !slices.Contains(breakages, c.ID) {
				t.Fatal("no breakage shows that this check can fail")
			}
			proxy, err := breakage.New(t.Context(), signet.issuer, signet.protected, c.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range signet.judge(t, proxy, besides(c)) {
				want := Passed
				if r.ID == c.ID {
					want = Failed
					t.Log(r.Reason)
				}
				if r.Outcome != want {
					t.Errorf("%s: got %s, want %s (%s)", r.ID, r.Outcome, want, r.Reason)
				}
			}
		})
	}
}

// besides are the checks judged together with one that must fail: all of those
// which only ask endpoints, or for another one its companion.
func besides(c Check) []Check {
	return slices.DeleteFunc(checks(), func(o Check) bool {
		return o.ID != c.ID && o.ID != companion(c) && (companion(c) != "" || companion(o) != "")
	})
}

// companion is a check that shows that all is well otherwise, so that the one
// beside it fails for what it is about.
func companion(c Check) string {
	needs := func(what string) bool {
		return slices.ContainsFunc(c.Needs, func(n Need) bool { return n.what == what })
	}
	switch {
	case c.needsPerson() && c.ID != "oidc-code-flow":
		return "oidc-code-flow"
	case needs(protectedNeeded) && c.ID != "resource-no-token":
		return "resource-no-token"
	case needs(registrationNeeded):
		return "rfc7591-post-only"
	case c.Spec == "RFC 9701", c.Spec == "RFC 9126", c.needsPerson(), needs(protectedNeeded):
		return "oidc-discovery-issuer"
	}
	return ""
}

func TestCheckAndBreakageIdentifiersAgree(t *testing.T) {
	var ids []string
	for _, c := range checks() {
		if slices.Contains(ids, c.ID) {
			t.Errorf("two checks are called %s", c.ID)
		}
		ids = append(ids, c.ID)
		if c.Spec == "" || c.Section == "" || c.Name == "" || c.Run == nil {
			t.Errorf("%s is incomplete", c.ID)
		}
	}
	seen := map[string]bool{}
	for _, b := range breakage.All() {
		if seen[b.ID] || !slices.Contains(ids, b.ID) {
			t.Errorf("breakage %s stands twice, or breaks no check", b.ID)
		}
		seen[b.ID] = true
	}
}

// command runs the checker as a user does.
func command(t *testing.T, stdin string, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &errs, func(name string) string { return env[name] })
	return code, out.String(), errs.String()
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func TestCommandLine(t *testing.T) {
	s := startSubject(t)
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte(s.second.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	t.Run("a check without its credential is skipped and not passed", func(t *testing.T) {
		code, out, _ := command(t, "", nil, "--issuer", s.issuer, "--only", "rfc7662-(foreign-token|post)")
		if code != exitOK || lastLine(out) != "1 passed, 0 failed, 1 skipped" {
			t.Errorf("exit %d:\n%s", code, out)
		}
		if !strings.Contains(out, "SKIP RFC 7662 §4  ") || !strings.Contains(out, "(needs --client-id with its secret)") {
			t.Errorf("no SKIP line:\n%s", out)
		}
	})
	t.Run("without a person, the checks that need one say so once", func(t *testing.T) {
		code, out, _ := command(t, "", nil, "--issuer", s.issuer, "--only", "^(rfc7636|rfc9207)-")
		if code != exitOK || strings.Count(out, "SKIP ") != 2 || !strings.Contains(out, "SKIP 13 more (needs --username with its password") ||
			lastLine(out) != "1 passed, 0 failed, 14 skipped" {
			t.Errorf("exit %d:\n%s", code, out)
		}
	})
	t.Run("a person without a password is a mistake", func(t *testing.T) {
		code, _, errs := command(t, "", nil, "--issuer", s.issuer, "--username", "alice")
		if code != exitUsage || !strings.Contains(errs, "SIGNET_CONFORMANCE_PASSWORD") {
			t.Errorf("exit %d:\n%s", code, errs)
		}
	})
	t.Run("secrets come from standard input, a file and the environment", func(t *testing.T) {
		code, out, errs := command(t, s.client.Secret+"\n", nil, "--issuer", s.issuer, "--client-id", "main", "--client-secret-stdin",
			"--second-client-id", "second", "--second-client-secret-file", secretFile, "--only", "rfc7662-foreign-token")
		if code != exitOK || lastLine(out) != "1 passed, 0 failed, 0 skipped" {
			t.Errorf("exit %d:\n%s%s", code, out, errs)
		}
		env := map[string]string{"SIGNET_CONFORMANCE_CLIENT_SECRET": s.client.Secret, "SIGNET_CONFORMANCE_SECOND_CLIENT_SECRET": s.second.Secret}
		code, out, errs = command(t, "", env, "--issuer", s.issuer, "--client-id", "main", "--second-client-id", "second", "--only", "rfc7662-foreign-token")
		if code != exitOK || lastLine(out) != "1 passed, 0 failed, 0 skipped" {
			t.Errorf("exit %d:\n%s%s", code, out, errs)
		}
	})
	t.Run("a failed check is told with what came and what was wanted", func(t *testing.T) {
		code, out, _ := command(t, "", nil, "--issuer", s.issuer+"/", "--only", "^rfc8414-issuer$")
		want := `FAIL RFC 8414 §3.3  issuer in metadata equals the issuer used: issuer: got "` + s.issuer + `", want "` + s.issuer + `/"`
		if code != exitFailed || !strings.Contains(out, want) || lastLine(out) != "0 passed, 1 failed, 0 skipped" {
			t.Errorf("exit %d:\n%s\nwant a line %s", code, out, want)
		}
	})
	t.Run("JSON holds the same", func(t *testing.T) {
		code, out, _ := command(t, "", nil, "--issuer", s.issuer, "--only", "RFC 8414 §3.3", "--json")
		var report struct {
			Items                   []jsonResult
			Passed, Failed, Skipped int
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK {
			t.Fatalf("exit %d, %v:\n%s", code, err, out)
		}
		if len(report.Items) != 1 || report.Items[0].ID != "rfc8414-issuer" || report.Items[0].Outcome != Passed || report.Passed != 1 {
			t.Errorf("got %+v", report)
		}
	})
	t.Run("an issuer that is not there is told in one line", func(t *testing.T) {
		code, out, errs := command(t, "", nil, "--issuer", "http://127.0.0.1:1")
		if code != exitFailed || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "cannot be reached") {
			t.Errorf("exit %d:\n%s%s", code, out, errs)
		}
	})
	t.Run("credentials that are refused are told once, and the rest is judged", func(t *testing.T) {
		env := map[string]string{"SIGNET_CONFORMANCE_CLIENT_SECRET": "wrong"}
		code, out, errs := command(t, "", env, "--issuer", s.issuer, "--client-id", "main", "--only", "^rfc8414-issuer$|^rfc7662-active")
		if strings.Count(errs, "the credentials of --client-id are refused") != 1 || !strings.Contains(out, "PASS RFC 8414 §3.3") {
			t.Errorf("exit %d:\n%s%s", code, out, errs)
		}
		env["SIGNET_CONFORMANCE_CLIENT_SECRET"] = s.client.Secret
		if _, _, errs := command(t, "", env, "--issuer", s.issuer, "--client-id", "main", "--only", "^rfc8414-issuer$"); errs != "" {
			t.Errorf("credentials that are good: %s", errs)
		}
	})
	t.Run("a mistake is told after one line of usage, help is whole", func(t *testing.T) {
		code, out, errs := command(t, "", nil, "--isuer", "x")
		if code != exitUsage || out != "" || strings.Count(errs, "\n") != 2 || !strings.HasPrefix(errs, "usage: ") || !strings.Contains(errs, "-isuer") {
			t.Errorf("exit %d:\n%s%s", code, out, errs)
		}
		if code, _, errs := command(t, "", nil, "--help"); code != exitOK || !strings.Contains(errs, "-private-key-file") {
			t.Errorf("exit %d:\n%s", code, errs)
		}
	})
	t.Run("the list names every check", func(t *testing.T) {
		code, out, _ := command(t, "", nil, "--list")
		if n := strings.Count(out, "\n"); code != exitOK || n != len(checks()) {
			t.Errorf("exit %d, %d lines, want %d", code, n, len(checks()))
		}
	})
	t.Run("every mistake is named", func(t *testing.T) {
		code, _, errs := command(t, "", nil, "--issuer", "http://issuer.example", "--private-key-client-id", "x", "--only", "nothing-like-it")
		if code != exitUsage {
			t.Errorf("exit %d", code)
		}
		for _, want := range []string{"--issuer", "--private-key-file", "--only"} {
			if !strings.Contains(errs, want) {
				t.Errorf("%s is not named in:\n%s", want, errs)
			}
		}
	})
}

func TestInterruptedRunFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"--issuer", "http://127.0.0.1:1"}, strings.NewReader(""), &out, &errs, os.Getenv); code != exitFailed || out.Len() > 0 {
		t.Errorf("exit %d:\n%s", code, out.String())
	}
}

func TestWaitsOnceWhenTheIssuerAsksForIt(t *testing.T) {
	for name, refusals := range map[string]int{"then judges": 1, "then gives up": 2} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if calls++; calls <= refusals {
					w.Header().Set("Retry-After", "0")
					w.WriteHeader(http.StatusTooManyRequests)
				}
			}))
			defer srv.Close()
			e := &Env{HTTP: srv.Client()}
			a, err := e.get(t.Context(), srv.URL, nil)
			if err != nil || calls != 2 || (a.Status == http.StatusOK) != (refusals == 1) {
				t.Errorf("got %v, %v after %d calls", a, err, calls)
			}
		})
	}
}

func TestWellKnownGoesBeforeTheIssuersPath(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://a.example":         "https://a.example/.well-known/oauth-authorization-server",
		"https://a.example/":        "https://a.example/.well-known/oauth-authorization-server",
		"https://a.example/tenant":  "https://a.example/.well-known/oauth-authorization-server/tenant",
		"https://a.example/tenant/": "https://a.example/.well-known/oauth-authorization-server/tenant",
	} {
		if got := insertWellKnown(issuer, "oauth-authorization-server"); got != want {
			t.Errorf("%s: got %s, want %s", issuer, got, want)
		}
	}
}

func TestPrivateKeyFiles(t *testing.T) {
	key := newECKey(t)
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "k1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := newKeyClient("keyed", jwk)
	if err != nil || c.alg != jose.ES256 || c.kid != "k1" {
		t.Errorf("JWK: got %+v, %v", c, err)
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"public key": public, "nothing": nil, "text": []byte("hello")} {
		if _, err := newKeyClient("keyed", file); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
