package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
)

// A site is a web app whose people a library signs in.
type site struct {
	origin          string
	page, signedOut string // paths
	logout          string // where its sign-out button leads
	deaf            bool   // the library knows no back-channel logout
	// refreshed has it take new tokens with another refresh token.
	refreshed func(*people.Browser) error
	// about is what its page tells of who is signed in.
	about func(people.Page) (sub, email string)
	// reason is why it refused whoever saw the page last.
	reason func(people.Page) string
	// refuses and believes are as in a script.
	refuses  map[issuer.Lie]string
	believes []issuer.Lie
}

// visit goes to one of its pages as a willing person does.
func (s site) visit(t *testing.T, b *people.Browser, path string) {
	t.Helper()
	if err := b.Consent(s.origin + path); err != nil {
		t.Fatal(err)
	}
}

// signsIn goes to its page, and says whether that tells who the person is.
func (s site) signsIn(t *testing.T, b *people.Browser) bool {
	t.Helper()
	s.visit(t, b, s.page)
	sub, email := s.about(b.Page)
	return b.Left == nil && b.Status == http.StatusOK && sub != "" && email == "ada@example.com"
}

// asks says whether its page would have the person sign in at the issuer.
func (s site) asks(t *testing.T, b *people.Browser) bool {
	t.Helper()
	if err := b.Visit(s.origin + s.page); err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(b.URL.String(), b.Issuer+"/login")
}

// isTold has the person sign out at the issuer, which tells the site.
func (s site) isTold(t *testing.T, i *issuer.Issuer, ada *people.Person) {
	t.Helper()
	b := i.Browser(ada, s.origin)
	if !s.signsIn(t, b) {
		t.Fatalf("not signed in: %s %s", b.Page, s.reason(b.Page))
	}
	if err := b.Open("/logout"); err != nil {
		t.Fatal(err)
	}
	if err := b.Press("submit"); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(patience); !s.asks(t, b); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not told that the session has ended: %s", b.Page)
		}
	}
}

// judge has people sign in at the site, and out again, in whichever way, and
// has the issuer lie about them.
func (s site) judge(t *testing.T, i *issuer.Issuer, ada *people.Person) {
	t.Helper()
	fresh := func() *people.Browser { return i.Browser(ada, s.origin) }
	b := fresh()
	if !s.asks(t, b) {
		t.Fatalf("a stranger sees: %s", b.Page)
	}
	if !s.signsIn(t, b) {
		t.Fatalf("not signed in: %s %s", b.Page, s.reason(b.Page))
	}
	if err := s.refreshed(b); err != nil {
		t.Errorf("refresh: %v: %s %s", err, b.Page, s.reason(b.Page))
	}
	if s.visit(t, b, s.logout); b.Left != nil || b.Status != http.StatusOK || b.URL.Path != s.signedOut {
		t.Errorf("signed out: %s", b.Page)
	}
	if !s.asks(t, b) {
		t.Errorf("still signed in at one of both: %s", b.Page)
	}

	if !s.deaf {
		s.isTold(t, i, ada)
	}
	for _, lie := range issuer.Lies() {
		reason, refuses := s.refuses[lie]
		believes := slices.Contains(s.believes, lie)
		if !refuses && !believes {
			continue
		}
		if err := i.Tell(lie); err != nil {
			t.Fatal(err)
		}
		b := fresh()
		taken := s.signsIn(t, b)
		why := s.reason(b.Page)
		if taken != believes {
			t.Errorf("%s: taken %t: %s %s", lie, taken, b.Page, why)
		}
		if matched, err := regexp.MatchString(reason, why); refuses && (err != nil || !matched) {
			t.Errorf("%s was refused for another reason, want %q: %s %s", lie, reason, b.Page, why)
		}
	}
	if err := i.Tell(issuer.Honest); err != nil {
		t.Fatal(err)
	}
	if b := fresh(); !s.signsIn(t, b) {
		t.Errorf("not signed in after lies: %s %s", b.Page, s.reason(b.Page))
	}
}

// toldAsJSON reads a page that is JSON with sub and email; others tell nothing.
func toldAsJSON(p people.Page) (sub, email string) {
	var told struct{ Sub, Email string }
	_ = json.Unmarshal([]byte(p.Body), &told)
	return told.Sub, told.Email
}

// refreshedAt is for a site that tells at an address whether new tokens came
// with another refresh token.
func refreshedAt(address string) func(*people.Browser) error {
	return func(b *people.Browser) error {
		err := b.Visit(address)
		var told struct{ Rotated bool }
		if err == nil {
			err = json.Unmarshal([]byte(b.Body), &told)
		}
		if err == nil && !told.Rotated {
			err = errors.New("not rotated")
		}
		return err
	}
}

// serve runs the program of a site, which says that it is ready in a line of
// its own, and ends with the test.
func serve(t *testing.T, cmd *exec.Cmd, env ...string) {
	t.Helper()
	var said output
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; .ci/deps installs it", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, said.String())
		}
	})
	lines := bufio.NewScanner(io.TeeReader(out, &said))
	for ready := false; !ready; {
		if !lines.Scan() {
			t.Fatalf("%s is not ready: %v", cmd.Path, lines.Err())
		}
		ready = lines.Text() == "ready"
	}
	go func() { _, _ = io.Copy(&said, out) }() // until it ends
}

// output is what a program has written, while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestExpressOpenIDConnect(t *testing.T) {
	t.Parallel()
	i := issuer.Start(t, program, "")
	ada := i.Person("ada")
	// signIn has it sign people in, with more settings.
	signIn := func(name string, more map[string]any, refuses map[issuer.Lie]string, believes ...issuer.Lie) {
		t.Helper()
		origin := "http://" + issuer.FreeAddress(t)
		config := map[string]any{"issuer": i.URL, "origin": origin, "id": name, "secret": i.Client(name, origin+"/callback",
			"--post-logout-redirect-uri", origin+"/signed-out", "--backchannel-logout-uri", origin+"/logout/told", "--refresh-window", "0")}
		maps.Copy(config, more)
		given, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, exec.Command(node(), "npm/express.mjs", string(given)), "NODE_EXTRA_CA_CERTS="+i.CAFile)
		site{
			origin: origin, page: "/", logout: "/logout", signedOut: "/signed-out",
			refreshed: refreshedAt(origin + "/refresh"),
			about: func(p people.Page) (sub, email string) {
				var told struct {
					Claims   struct{ Sub string }
					UserInfo struct{ Sub, Email string }
				}
				if err := json.Unmarshal([]byte(p.Body), &told); err != nil || told.Claims.Sub != told.UserInfo.Sub {
					return "", ""
				}
				return told.Claims.Sub, told.UserInfo.Email
			},
			reason:  func(p people.Page) string { return p.Body },
			refuses: refuses, believes: believes,
		}.judge(t, i, ada)
	}
	// It leaves the signature of an ID token that comes over TLS from the token
	// endpoint alone, as OpenID Connect Core §3.1.3.7 lets it.
	signIn("shop", nil, map[issuer.Lie]string{
		issuer.AnotherIssuer:  `unexpected JWT claim value`,
		issuer.AnotherNonce:   `unexpected JWT claim value`,
		issuer.AnotherApp:     `unexpected JWT claim value`,
		issuer.Expired:        `JWT timestamp claim value failed validation`,
		issuer.Unsigned:       `invalid response encountered`,
		issuer.AnotherSubject: `unexpected "response" body "sub" property value`,
		issuer.MixUp:          `invalid response encountered`,
		issuer.AnotherName:    `discovered metadata issuer does not match`,
	}, issuer.AnotherKey)
	signIn("shop-2", map[string]any{"push": true}, nil)
}
