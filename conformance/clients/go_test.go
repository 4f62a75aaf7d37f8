package clients

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// goClient builds a program of the module in go, which is one of its own so that
// nothing else depends on what those programs use.
func goClient(t *testing.T, path string) (client string) {
	t.Helper()
	client = filepath.Join(t.TempDir(), "client")
	cmd := exec.Command("go", "build", "-C", "go", "-trimpath", "-ldflags", "-s -w", "-o", client, path)
	cmd.Env = append(os.Environ(), "GOGC=400") // so the compiler takes a sixth less time
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", path, err, bytes.TrimSpace(out))
	}
	return client
}

// What the programs use is as its makers made it: go.sum holds the versions, which
// docs/clients.md names, and nothing stands in for them.
func TestGoClientsAreUnmodified(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", filepath.Join("go", "go.mod")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var module struct {
		Replace []any
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	if len(module.Replace) > 0 {
		t.Errorf("go.mod replaces %v", module.Replace)
	}
	document, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	for path, name := range map[string]string{
		"github.com/coreos/go-oidc/v3":            "github.com/coreos/go-oidc/v3",
		"golang.org/x/oauth2":                     "golang.org/x/oauth2",
		"github.com/zitadel/oidc/v3":              "github.com/zitadel/oidc/v3",
		"k8s.io/apiserver":                        "k8s.io/apiserver",
		"github.com/oauth2-proxy/oauth2-proxy/v7": "oauth2-proxy",
	} {
		at := slices.IndexFunc(module.Require, func(r struct{ Path, Version string }) bool { return r.Path == path })
		if at < 0 {
			t.Errorf("go.mod does not hold %s to a version", path)
			continue
		}
		if want := "`" + name + "` " + strings.TrimPrefix(module.Require[at].Version, "v"); !strings.Contains(string(document), want) {
			t.Errorf("%s is not in docs/clients.md", want)
		}
	}
	for _, r := range module.Require {
		if strings.HasPrefix(r.Path, "github.com/signet-oidc/") {
			t.Errorf("the clients know %s", r.Path)
		}
	}
}

// somebody makes a person with roles, which are made when they are not there.
func somebody(i *issuer.Issuer, name, email string, roles ...string) *people.Person {
	args := []string{"user", "create", name, "--email", email, "--email-verified", "--generate-password"}
	for _, role := range roles {
		args = append(args, "--role", role)
	}
	var made struct{ Password string }
	i.Signet(&made, args...)
	return &people.Person{Name: name, Password: made.Password}
}

func TestGoOIDC(t *testing.T) {
	t.Parallel()
	client := goClient(t, "./go-oidc")
	i := issuer.Start(t, program, "")
	listen := issuer.FreeAddress(t)
	secret := i.Client("basic", callback, "--post-logout-redirect-uri", home, "--refresh-window", "0", "--backchannel-logout-uri", "http://"+listen+"/logout")
	i.Client("public", callback, "--auth-method", "none")
	es256 := i.Client("es256", callback, "--id-token-alg", "ES256")
	i.Signet(nil, "resource", "create", "https://orders.example", "--name", "Orders", "--scope", "orders:read")
	var service struct {
		ClientSecret string `json:"client_secret"`
	}
	i.Signet(&service, "client", "create", "--id", "service", "--name", "Service", "--grant", "client_credentials", "--scope", "orders:read")
	script{
		command: []string{client},
		env:     []string{"SSL_CERT_FILE=" + i.CAFile},
		steps: []string{
			"discovery", "code flow with PKCE", "userinfo", "refresh with rotation", "ID token with ES256", "public client",
			"client credentials", "RP-initiated and back-channel logout",
		},
		refuses: map[string]string{
			string(issuer.AnotherIssuer):       `id token issued by a different provider`,
			string(issuer.AnotherNonce):        `nonce is of another request`, // by the app, as the library's example does it
			string(issuer.AnotherApp):          `expected audience "basic"`,
			string(issuer.AnotherKey):          `failed to verify signature`,
			string(issuer.Expired):             `token is expired`,
			string(issuer.Unsigned):            `id token signed with unsupported algorithm|unexpected signature algorithm`,
			string(issuer.AnotherName):         `issuer URL provided to client .* did not match`,
			"an access token for an ID token":  `expected audience "basic"|unsupported algorithm`,
			"an ID token for another app":      `expected audience "public"`,
			"an ID token under another key":    `failed to verify signature`,
			"an access token of another grant": `access token hash does not match`,
			"a refresh token used twice":       `invalid_grant`,
			"an ID token for a logout token":   `missing required http://schemas.openid.net/event/backchannel-logout`,
			"a logout token for another app":   `expected logout token audience "public"`,
		},
		believes: []issuer.Lie{issuer.AnotherSubject, issuer.MixUp},
	}.run(t, i, i.Person("ada"), map[string]any{
		"secrets":     map[string]string{"basic": secret, "es256": es256, "service": service.ClientSecret},
		"redirectURI": callback, "postLogoutURI": home, "email": "ada@example.com", "listen": listen,
	})
}

// The API server reads docs/clients/kube-apiserver.yaml.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	client := goClient(t, "./kubernetes")
	i := issuer.Start(t, program, "")
	text, err := os.ReadFile("../../docs/clients/kube-apiserver.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(i.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(ca))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("https://login.example.com", i.URL+"\n    certificateAuthority: "+string(quoted)).Replace(string(text))
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"cluster-admins", "viewers"} {
		i.Signet(nil, "role", "create", role)
	}
	kubectl := "http://localhost:8000"
	i.Client("kubernetes", kubectl, "--auth-method", "none", "--claims-in-id-token")
	i.Client("kubernetes-es256", kubectl, "--auth-method", "none", "--claims-in-id-token", "--id-token-alg", "ES256")
	script{
		command: []string{client},
		steps:   []string{"discovery", "ID token", "ID token of a refresh", "ID token with ES256"},
		refuses: map[string]string{
			string(issuer.AnotherIssuer):                     `not a token of this issuer`,
			string(issuer.AnotherApp):                        `expected audience "kubernetes"`,
			string(issuer.AnotherKey):                        `failed to verify signature`,
			string(issuer.Expired):                           `token is expired`,
			string(issuer.Unsigned):                          `unsupported algorithm`,
			string(issuer.AnotherName):                       `issuer did not match`,
			"an access token for an ID token":                `expected audience "kubernetes"`,
			"an ID token for somebody else":                  `failed to verify signature`,
			"a changed signature":                            `failed to verify signature`,
			"an ID token for another app":                    `expected audience "another-cluster"`,
			"an issuer whose certificate nobody vouches for": `certificate signed by unknown authority`,
		},
	}.run(t, i, somebody(i, "ada", "ada@example.com", "cluster-admins", "viewers"), map[string]any{"redirectURI": kubectl, "file": file, "caFile": i.CAFile})
}

func TestZitadelOIDC(t *testing.T) {
	t.Parallel()
	client := goClient(t, "./zitadel-oidc")
	i := issuer.Start(t, program, storagetest.Postgres(t))
	ada := i.Person("ada")
	signIn := func(id, alg, authMethod string, refuses map[issuer.Lie]string, believes ...issuer.Lie) {
		t.Helper()
		address := issuer.FreeAddress(t)
		origin := "http://" + address
		secret := i.Client(id, origin+"/callback", "--post-logout-redirect-uri", origin+"/signed-out", "--refresh-window", "0", "--id-token-alg", alg, "--auth-method", authMethod)
		serve(t, exec.Command(client, "-issuer", i.URL, "-client-id", id, "-listen", address, "-basic="+strconv.FormatBool(authMethod == "client_secret_basic")), "SSL_CERT_FILE="+i.CAFile, "CLIENT_SECRET="+secret)
		site{
			origin: origin, page: "/", logout: "/logout", signedOut: "/signed-out",
			about: func(p people.Page) (sub, email string) {
				var told struct{ Sub, Email, Alg string }
				if err := json.Unmarshal([]byte(p.Body), &told); err != nil || told.Alg != alg {
					return "", ""
				}
				return told.Sub, told.Email
			},
			refreshed: func(b *people.Browser) error {
				err := b.Visit(origin + "/refresh")
				if err == nil && strings.TrimSpace(b.Body) != `{"again":"invalid_grant","rotated":true}` {
					err = errors.New("not rotated, or the old one is still good")
				}
				return err
			},
			reason:  func(p people.Page) string { return p.Body },
			refuses: refuses, believes: believes,
		}.judge(t, i, ada)
	}
	// It does not know RFC 9207. Whose metadata it reads it compares when it starts.
	signIn("shop", "RS256", "client_secret_basic", map[issuer.Lie]string{
		issuer.AnotherIssuer:  `issuer does not match`,
		issuer.AnotherNonce:   `nonce does not match`,
		issuer.AnotherApp:     `audience is not valid`,
		issuer.AnotherKey:     `signature verification failed|invalid signature`,
		issuer.Expired:        `token has expired`,
		issuer.Unsigned:       `signature algorithm not supported|unexpected signature algorithm`,
		issuer.AnotherSubject: `sub from userinfo does not match`,
	}, issuer.MixUp)
	signIn("shop-2", "ES256", "client_secret_post", nil)

	if err := i.Tell(issuer.AnotherName); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(client, "-issuer", i.URL, "-client-id", "shop", "-listen", issuer.FreeAddress(t))
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+i.CAFile)
	wantEnd(t, cmd, `issuer does not match`)
}

// wantEnd runs a program that has to end for a reason, a regular expression.
func wantEnd(t *testing.T, cmd *exec.Cmd, reason string) {
	t.Helper()
	tooLong := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer tooLong.Stop()
	out, err := cmd.CombinedOutput()
	if matched, bad := regexp.Match(reason, out); err == nil || bad != nil || !matched {
		t.Errorf("%s: %v, want %q:\n%s", cmd.Path, err, reason, out)
	}
}

// proxy is oauth2-proxy in front of an API that tells what it learns of people.
type proxy struct {
	client, origin, log string
	seen                int // of the log
}

// command is how it is started: by docs/clients/oauth2-proxy.cfg but for what
// these tests have no domains and certificates for.
func (p *proxy) command(i *issuer.Issuer, secret, upstream string) *exec.Cmd {
	address := strings.TrimPrefix(p.origin, "http://")
	cmd := exec.Command(p.client, "--config", "../../docs/clients/oauth2-proxy.cfg", "--oidc-issuer-url", i.URL, "--provider-ca-file", i.CAFile,
		"--redirect-url", p.origin+"/oauth2/callback", "--http-address", address, "--upstream", upstream, "--cookie-secure=false",
		"--whitelist-domain", strings.TrimPrefix(i.URL, "https://"), "--cookie-refresh", "1s", "--pass-access-token")
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	cmd.Env = append(os.Environ(), "OAUTH2_PROXY_CLIENT_SECRET="+secret, "OAUTH2_PROXY_COOKIE_SECRET="+base64.URLEncoding.EncodeToString(key[:]))
	return cmd
}

// start runs it until the test ends.
func (p *proxy) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	p.log = filepath.Join(t.TempDir(), "log")
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for until := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(p.origin + "/ping")
		if err == nil {
			res.Body.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("oauth2-proxy: %v\n%s", err, p.news(t))
		default:
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// news is what it has logged since it was asked last.
func (p *proxy) news(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	news := string(text[p.seen:])
	p.seen = len(text)
	return news
}

// told is what the API behind it learns of who asks.
type told struct{ Sub, Email, Groups, Name, Access string }

func TestOAuth2Proxy(t *testing.T) {
	t.Parallel()
	p := &proxy{client: goClient(t, "github.com/oauth2-proxy/oauth2-proxy/v7"), origin: "http://" + issuer.FreeAddress(t)}
	i := issuer.Start(t, program, "")
	var reached atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/signed-out" {
			reached.Add(1)
		}
		_ = json.NewEncoder(w).Encode(told{r.Header.Get("X-Forwarded-User"), r.Header.Get("X-Forwarded-Email"),
			r.Header.Get("X-Forwarded-Groups"), r.Header.Get("X-Forwarded-Preferred-Username"), r.Header.Get("X-Forwarded-Access-Token")})
	}))
	t.Cleanup(upstream.Close)
	for _, role := range []string{"staff", "auditors"} {
		i.Signet(nil, "role", "create", role)
	}
	secret := i.Client("intranet", p.origin+"/oauth2/callback", "--post-logout-redirect-uri", p.origin+"/signed-out", "--claims-in-id-token", "--refresh-window", "0")
	p.start(t, p.command(i, secret, upstream.URL))
	ada := somebody(i, "ada", "ada@example.com", "staff", "auditors")
	read := func(page people.Page) (who told) {
		_ = json.Unmarshal([]byte(page.Body), &who) // other pages tell nothing
		return who
	}
	site{
		origin: p.origin, page: "/", signedOut: "/signed-out",
		logout: "/oauth2/sign_out?rd=" + url.QueryEscape(i.URL+"/logout?id_token_hint={id_token}&post_logout_redirect_uri="+p.origin+"/signed-out"),
		about: func(page people.Page) (sub, email string) {
			who := read(page)
			if who.Groups != "auditors,staff" && who.Groups != "staff,auditors" || who.Name != "ada" {
				return "", ""
			}
			return who.Sub, who.Email
		},
		// It refreshes by itself, once its cookie is older than --cookie-refresh.
		refreshed: func(b *people.Browser) error {
			before := read(b.Page)
			for until := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
				if err := b.Visit(p.origin + "/"); err != nil {
					return err
				}
				after := read(b.Page)
				switch {
				case after.Sub != before.Sub || after.Groups != before.Groups:
					return errors.New("somebody else is signed in")
				case after.Access != before.Access:
					return nil
				case time.Now().After(until):
					return errors.New("the same access token")
				}
			}
		},
		reason: func(people.Page) string { return p.news(t) },
		refuses: map[issuer.Lie]string{
			issuer.AnotherIssuer: `id token issued by a different provider`,
			issuer.AnotherNonce:  `nonce claim does not match`,
			issuer.AnotherApp:    `audience from claim aud .* does not match`,
			issuer.AnotherKey:    `failed to verify signature`,
			issuer.Expired:       `token is expired`,
			issuer.Unsigned:      `unsupported algorithm|unexpected signature algorithm`,
		},
		// It asks userinfo only for what the ID token lacks, and does not know RFC 9207.
		believes: []issuer.Lie{issuer.AnotherSubject, issuer.MixUp},
	}.judge(t, i, ada)

	// Who loses the role is kept out from the next refresh on.
	b := i.Browser(ada, p.origin)
	if err := b.Consent(p.origin + "/"); err != nil || b.Status != http.StatusOK {
		t.Fatalf("%v: %s", err, b.Page)
	}
	i.Signet(nil, "user", "revoke-role", "ada", "staff")
	for until := time.Now().Add(patience); b.Status != http.StatusForbidden; time.Sleep(100 * time.Millisecond) {
		if err := b.Visit(p.origin + "/"); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(until) {
			t.Fatalf("without the role: %s", b.Page)
		}
	}

	let := reached.Load()
	for name, who := range map[string]*people.Person{
		"an address of another domain": somebody(i, "mallory", "mallory@elsewhere.example", "staff"),
		"nobody of the groups let in":  somebody(i, "bob", "bob@example.com", "auditors"),
	} {
		b := i.Browser(who, p.origin)
		if err := b.Consent(p.origin + "/"); err != nil {
			t.Fatal(err)
		}
		if b.Left != nil || b.Status != http.StatusForbidden {
			t.Errorf("%s: %s", name, b.Page)
		}
	}
	if now := reached.Load(); now != let {
		t.Errorf("the API was reached %d times by who is refused", now-let)
	}

	if err := i.Tell(issuer.AnotherName); err != nil {
		t.Fatal(err)
	}
	second := proxy{client: p.client, origin: "http://" + issuer.FreeAddress(t)}
	wantEnd(t, second.command(i, secret, upstream.URL), `issuer`)
}
