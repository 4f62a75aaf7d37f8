package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/storage/storagetest"
)

const (
	callback = "https://app.example/cb"
	home     = "https://app.example/"
)

// node is npm's, for Debian's is older than the libraries ask for; where npm has
// none for this machine, the one that is there.
func node() string {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	path := filepath.Join("npm", "node_modules", "node-"+runtime.GOOS+"-"+arch, "bin", "node")
	if _, err := os.Stat(path); err != nil {
		return "node"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "node"
	}
	return path
}

// newKey makes a client's key pair, and a file of its public half.
func newKey(t *testing.T) (private jose.JSONWebKey, jwksFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private = jose.JSONWebKey{Key: key, KeyID: "app-1", Algorithm: "ES256", Use: "sig"}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	jwksFile = filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(jwksFile, set, 0o600); err != nil {
		t.Fatal(err)
	}
	return private, jwksFile
}

// onBoth runs a test at an issuer on each database.
func onBoth(t *testing.T, test func(t *testing.T, i *issuer.Issuer)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, issuer.Start(t, program, "", "--registration", "token"))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, issuer.Start(t, program, storagetest.Postgres(t), "--registration", "token"))
	})
}

// apps registers the clients that the scripts are, and returns
// what a script needs to know about them.
func apps(t *testing.T, i *issuer.Issuer) map[string]any {
	t.Helper()
	key, jwks := newKey(t)
	i.Signet(nil, "resource", "create", "https://orders.example", "--name", "Orders", "--scope", "orders:read")
	logout := []string{"--post-logout-redirect-uri", home, "--refresh-window", "0"}
	listener := issuer.FreeAddress(t)
	secrets := map[string]string{
		"basic":  i.Client("basic", callback, append(logout, "--backchannel-logout-uri", "http://"+listener+"/logout")...),
		"pushed": i.Client("pushed", callback, "--auth-method", "client_secret_post", "--require-pushed"),
	}
	i.Client("public", callback, "--auth-method", "none")
	i.Client("asserting", callback, "--auth-method", "private_key_jwt", "--jwks-file", jwks)
	i.Client("keyed", callback, "--auth-method", "private_key_jwt", "--jwks-file", jwks, "--grant", "client_credentials", "--scope", "orders:read",
		"--require-request-object", "--request-object-alg", "ES256", "--userinfo-alg", "ES256", "--id-token-alg", "ES256")
	return map[string]any{
		"secrets": secrets, "key": key, "redirectURI": callback, "postLogoutURI": home, "email": "ada@example.com", "listen": listener,
	}
}

// lied is why oauth4webapi, and openid-client on top of it, refuse lies.
func lied(more map[string]string) map[string]string {
	reasons := map[string]string{
		string(issuer.AnotherIssuer):       `unexpected JWT "iss" \(issuer\) claim value`,
		string(issuer.AnotherNonce):        `unexpected ID Token "nonce" claim value`,
		string(issuer.AnotherApp):          `unexpected JWT "aud" \(audience\) claim value`,
		string(issuer.AnotherKey):          `JWT signature verification failed`,
		string(issuer.Expired):             `unexpected JWT "exp" \(expiration time\) claim value`,
		string(issuer.Unsigned):            `unexpected JWT "alg" header parameter`,
		string(issuer.AnotherSubject):      `unexpected "response" body "sub" property value`,
		string(issuer.MixUp):               `unexpected "iss" \(issuer\) response parameter value`,
		string(issuer.AnotherName):         `OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED .*issuer`,
		"a refresh token that was revoked": `invalid_grant`,
		"a request with another nonce":     `unexpected ID Token "nonce" claim value`,
		"an answer with another state":     `unexpected "state" response parameter value`,
		"an answer without iss":            `response parameter "iss" \(issuer\) missing`,
	}
	maps.Copy(reasons, more)
	return reasons
}

func TestOpenIDClient(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, i *issuer.Issuer) {
		script{
			command: []string{node(), "npm/openid-client.mjs"},
			env:     []string{"NODE_EXTRA_CA_CERTS=" + i.CAFile},
			steps: []string{
				"discovery", "code flow with PKCE", "ID token", "userinfo", "refresh with rotation", "introspection", "revocation",
				"pushed request", "private_key_jwt", "signed request object, signed userinfo", "pushed request object", "JARM",
				"public client", "dynamic registration", "RP-initiated logout",
			},
			refuses: lied(map[string]string{
				"a refresh token used twice":     `invalid_grant`,
				"a code for another verifier":    `invalid_grant`,
				"a JARM answer that was altered": `JWT signature verification failed`,
				"prompt=none after logout":       `login_required`,
			}),
		}.run(t, i, i.Person("ada"), apps(t, i))
	})
}

func TestOAuth4WebAPI(t *testing.T) {
	t.Parallel()
	i := issuer.Start(t, program, "", "--registration", "token")
	script{
		command: []string{node(), "npm/oauth4webapi.mjs"},
		env:     []string{"NODE_EXTRA_CA_CERTS=" + i.CAFile},
		steps: []string{
			"discovery", "code flow with PKCE", "userinfo", "access token, by the library and by jose", "refresh with rotation",
			"introspection, plain and signed", "revocation", "pushed request", "private_key_jwt, signed request object and userinfo",
			"JARM", "public client", "dynamic registration", "back-channel logout, by jose",
		},
		refuses: lied(map[string]string{
			"an ID token for an access token":      `unexpected JWT "typ"`,
			"an access token for another audience": `unexpected JWT "aud"`,
			"an ID token for a logout token":       `unexpected "typ" JWT header value`,
			"a logout token for another app":       `unexpected "aud" claim value`,
			"a logout token under another key":     `signature verification failed`,
		}),
	}.run(t, i, i.Person("ada"), apps(t, i))
}
