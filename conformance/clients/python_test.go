package clients

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
)

// liedToAuthlib is why Authlib refuses lies, in any version.
func liedToAuthlib() map[issuer.Lie]string {
	return map[issuer.Lie]string{
		issuer.AnotherIssuer: `Invalid claim:? .iss.`,
		issuer.AnotherNonce:  `Invalid claim:? .nonce.`,
		issuer.AnotherApp:    `Invalid claim:? .aud.`,
		issuer.AnotherKey:    `BadSignatureError`,
		issuer.Expired:       `ExpiredTokenError`,
		issuer.Unsigned:      `UnsupportedAlgorithmError`,
	}
}

// serveWithAuthlib has an Authlib sign people in at a site: the one of that
// Python's, by its integration with Flask.
func serveWithAuthlib(t *testing.T, python string) {
	t.Helper()
	i := issuer.Start(t, program, "")
	origin := "http://" + issuer.FreeAddress(t)
	config, err := json.Marshal(map[string]any{"issuer": i.URL, "origin": origin,
		"secret": i.Client("shop", origin+"/callback", "--post-logout-redirect-uri", origin+"/signed-out", "--refresh-window", "0")})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, exec.Command(python, "python/authlib_site.py", string(config)), "REQUESTS_CA_BUNDLE="+i.CAFile, "PYTHONDONTWRITEBYTECODE=1")
	site{
		origin: origin, page: "/", logout: "/logout", signedOut: "/signed-out", deaf: true,
		about: toldAsJSON, refreshed: refreshedAt(origin + "/refresh"),
		reason:  func(p people.Page) string { return p.Body },
		refuses: liedToAuthlib(),
		// It does not know RFC 9207.
		believes: []issuer.Lie{issuer.MixUp},
	}.judge(t, i, i.Person("ada"))
}

// signInWithAuthlib has an Authlib sign people in: the one of that Python's.
func signInWithAuthlib(t *testing.T, python string) {
	t.Helper()
	i := issuer.Start(t, program, "")
	refuses := map[string]string{
		"a refresh token that was revoked": `invalid_grant`,
		"an answer with another state":     `MismatchingStateException`,
		"an altered code":                  `invalid_grant`,
	}
	for lie, reason := range liedToAuthlib() {
		refuses[string(lie)] = reason
	}
	script{
		command: []string{python, "python/authlib_client.py"},
		env:     []string{"REQUESTS_CA_BUNDLE=" + i.CAFile, "PYTHONDONTWRITEBYTECODE=1"},
		steps: []string{"discovery", "code flow with PKCE", "userinfo", "refresh with rotation", "introspection", "revocation",
			"private_key_jwt", "public client", "RP-initiated logout"},
		refuses: refuses,
		// It does not know RFC 9207.
		believes: []issuer.Lie{issuer.MixUp},
	}.run(t, i, i.Person("ada"), apps(t, i))
}

func TestAuthlib(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3" // Debian's
	t.Run("session", func(t *testing.T) { t.Parallel(); signInWithAuthlib(t, python) })
	t.Run("Flask", func(t *testing.T) { t.Parallel(); serveWithAuthlib(t, python) })
}

// Authlib as PyPI has it today.
func TestNewestAuthlib(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("/usr/bin/python3", "-m", "venv", dir).CombinedOutput(); err != nil {
		t.Fatalf("python3 -m venv: %v; it needs python3-venv\n%s", err, out)
	}
	python := filepath.Join(dir, "bin", "python")
	if out, err := exec.Command(python, "-m", "pip", "install", "--quiet", "authlib", "requests", "flask").CombinedOutput(); err != nil {
		t.Fatalf("pip install: %v\n%s", err, out)
	}
	t.Run("session", func(t *testing.T) { signInWithAuthlib(t, python) })
	t.Run("Flask", func(t *testing.T) { serveWithAuthlib(t, python) })
}
