package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
)

// apacheConfig has one page, for which people are signed in.
const apacheConfig = `
ServerRoot %[1]s
ServerName 127.0.0.1
Listen %[2]s
PidFile %[1]s/pid
ErrorLog %[1]s/log
LogLevel warn auth_openidc:info
DocumentRoot %[1]s/pages
User www-data
Group www-data
StartServers 1
MinSpareThreads 4
ThreadsPerChild 8
MaxRequestWorkers 8
LoadModule mpm_event_module %[3]s/mod_mpm_event.so
LoadModule authn_core_module %[3]s/mod_authn_core.so
LoadModule authz_core_module %[3]s/mod_authz_core.so
LoadModule authz_user_module %[3]s/mod_authz_user.so
LoadModule include_module %[3]s/mod_include.so
LoadModule auth_openidc_module %[3]s/mod_auth_openidc.so
OIDCProviderMetadataURL %[4]s/.well-known/openid-configuration
OIDCClientID shop
OIDCClientSecret %[5]s
OIDCProviderTokenEndpointAuth client_secret_basic
OIDCRedirectURI /oidc
OIDCPKCEMethod S256
OIDCScope "openid profile email offline_access"
OIDCCABundlePath %[1]s/ca.pem
OIDCCryptoPassphrase "what this app's cookies are sealed with"
OIDCInfoHook access_token refresh_token
OIDCSessionInactivityTimeout 600
<Location />
	AuthType openid-connect
	Require valid-user
	Options +Includes
	SetOutputFilter INCLUDES
</Location>
<Location /signed-out>
	AuthType None
	Require all granted
</Location>
`

// apachePage tells what the module has found out about who is signed in.
const apachePage = `{"sub":"<!--#echo var="OIDC_CLAIM_sub" -->","email":"<!--#echo var="OIDC_CLAIM_email" -->"}`

const apacheModules = "/usr/lib/apache2/modules"

// startApache serves the site with Debian's Apache, and returns where its log is.
func startApache(t *testing.T, i *issuer.Issuer, address, secret string) (log string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "signet-apache-") // t.TempDir is in a folder that www-data has no way into
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ca, err := os.ReadFile(i.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"ca.pem": string(ca), "pages/home": apachePage, "pages/signed-out": "signed out",
		"config": fmt.Sprintf(apacheConfig, dir, address, apacheModules, i.URL, secret),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(dir, "log")
	cmd := exec.Command("/usr/sbin/apache2", "-f", filepath.Join(dir, "config"), "-DFOREGROUND")
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; .ci/deps installs it", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it ends its children
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("apache2 does not end")
		}
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("apache2: %s", text)
		}
	})
	for until := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + address + "/signed-out")
		if err == nil {
			res.Body.Close()
			return log
		}
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log)
			t.Fatalf("apache2: %v\n%s", err, text)
		default:
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// Debian's Apache module.
func TestModAuthOpenIDC(t *testing.T) {
	t.Parallel()
	i := issuer.Start(t, program, "")
	address := issuer.FreeAddress(t)
	origin := "http://" + address
	secret := i.Client("shop", origin+"/oidc", "--post-logout-redirect-uri", origin+"/signed-out",
		"--backchannel-logout-uri", origin+"/oidc?logout=backchannel", "--refresh-window", "0")
	log := startApache(t, i, address, secret)
	var seen int // of the log
	site{
		origin: origin, page: "/home", logout: "/oidc?logout=" + url.QueryEscape(origin+"/signed-out"), signedOut: "/signed-out",
		about: toldAsJSON,
		refreshed: func(b *people.Browser) error {
			before, err := tokensOf(b, origin)
			if err != nil {
				return err
			}
			q := url.Values{"refresh": {origin + "/home"}, "access_token": {before.Access}}
			if err := b.Visit(origin + "/oidc?" + q.Encode()); err != nil {
				return err
			}
			after, err := tokensOf(b, origin)
			if err == nil && (after.Access == before.Access || after.Refresh == before.Refresh) {
				err = errors.New("the same tokens as before")
			}
			return err
		},
		reason: func(people.Page) string {
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			news := string(text[seen:])
			seen = len(text)
			return news
		},
		// Where it finds metadata is set; whose they say they are it does not compare.
		refuses: map[issuer.Lie]string{
			issuer.AnotherIssuer:  `requested issuer .* does not match received "iss" value in id_token`,
			issuer.AnotherNonce:   `the nonce value .* in the id_token did not match`,
			issuer.AnotherApp:     `did not match the "aud" claim value`,
			issuer.AnotherKey:     `JWT signature verification failed`,
			issuer.Expired:        `"exp" validation failure`,
			issuer.Unsigned:       `no OpenSSL digest algorithm name found for algorithm "none"`,
			issuer.AnotherSubject: `"sub" claim .* returned from userinfo endpoint does not match the one in the id_token`,
			issuer.MixUp:          `configured issuer .* does not match the issuer provided in the response`,
		},
	}.judge(t, i, i.Person("ada"))
}

// heldTokens are those that the module holds for somebody.
type heldTokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// tokensOf asks the module for them.
func tokensOf(b *people.Browser, origin string) (held heldTokens, err error) {
	if err := b.Visit(origin + "/oidc?info=json"); err != nil {
		return held, err
	}
	if err := json.Unmarshal([]byte(b.Body), &held); err != nil {
		return held, err
	}
	if held.Access == "" || held.Refresh == "" {
		return held, errors.New("it holds no tokens")
	}
	return held, nil
}
