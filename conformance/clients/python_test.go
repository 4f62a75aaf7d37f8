package clients

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
)

// signInWithAuthlib has an Authlib sign people in: the one of that Python's.
func signInWithAuthlib(t *testing.T, python string) {
	t.Helper()
	i := issuer.Start(t, program, "")
	script{
		command: []string{python, "python/authlib_client.py"},
		env:     []string{"REQUESTS_CA_BUNDLE=" + i.CAFile, "PYTHONDONTWRITEBYTECODE=1"},
		steps: []string{"discovery", "code flow with PKCE", "userinfo", "refresh with rotation", "introspection", "revocation",
			"private_key_jwt", "public client", "RP-initiated logout"},
		refuses: map[string]string{
			string(issuer.AnotherIssuer):       `Invalid claim:? .iss.`,
			string(issuer.AnotherNonce):        `Invalid claim:? .nonce.`,
			string(issuer.AnotherApp):          `Invalid claim:? .aud.`,
			string(issuer.AnotherKey):          `BadSignatureError`,
			string(issuer.Expired):             `ExpiredTokenError`,
			string(issuer.Unsigned):            `UnsupportedAlgorithmError`,
			"a refresh token that was revoked": `invalid_grant`,
			"an answer with another state":     `MismatchingStateException`,
			"an altered code":                  `invalid_grant`,
		},
		// It does not know RFC 9207.
		believes: []issuer.Lie{issuer.MixUp},
	}.run(t, i, i.Person("ada"), apps(t, i))
}

func TestAuthlib(t *testing.T) {
	t.Parallel()
	signInWithAuthlib(t, "/usr/bin/python3")
}

// Authlib as PyPI has it today.
func TestNewestAuthlib(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("/usr/bin/python3", "-m", "venv", dir).CombinedOutput(); err != nil {
		t.Fatalf("python3 -m venv: %v; it needs python3-venv\n%s", err, out)
	}
	python := filepath.Join(dir, "bin", "python")
	if out, err := exec.Command(python, "-m", "pip", "install", "--quiet", "authlib", "requests").CombinedOutput(); err != nil {
		t.Fatalf("pip install: %v\n%s", err, out)
	}
	signInWithAuthlib(t, python)
}
