package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// claimsOf returns the header and the claims of a token, unverified.
func claimsOf(t testing.TB, token string) (header jose.Header, claims map[string]any) {
	t.Helper()
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	return parsed.Headers[0], claims
}

// G3: what an ID token says, signed as each client wants it (OIDC Core §2,
// §3.1.3.6, §12.2), as go-oidc verifies it.
func TestIDTokens(t *testing.T) {
	onBoth(t, options{algs: keys.Algorithms()}, func(t *testing.T, s *site) {
		ctx := t.Context()
		s.people()
		user, err := s.admin.User(ctx, ada)
		if err != nil {
			t.Fatal(err)
		}
		discovered, err := oidc.NewProvider(ctx, s.issuer)
		if err != nil {
			t.Fatal(err)
		}
		b := s.browser().open("/login").signIn(ada, password)
		for _, alg := range keys.Algorithms() {
			t.Run(alg, func(t *testing.T) {
				id := "app-" + alg
				secret := s.client(id, forPeople, func(c *storage.Client) { c.IDTokenAlg = alg })
				rp := discovered.Verifier(&oidc.Config{ClientID: id, SupportedSigningAlgs: []string{alg}})
				b.open(authorize("client_id", id, "scope", "openid profile email offline_access", "nonce", `n "é`))
				code := b.press("allow").answered(callback).Get("code")
				asked := time.Now()
				answer := s.form("/token", id, secret, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}})
				if answer.status != http.StatusOK {
					t.Fatal(answer.body)
				}
				token, err := rp.Verify(ctx, answer.member("id_token"))
				if err != nil {
					t.Fatal(err)
				}
				if err := token.VerifyAccessToken(answer.member("access_token")); err != nil || token.AccessTokenHash == "" {
					t.Errorf("at_hash %q: %v", token.AccessTokenHash, err)
				}
				header, claims := claimsOf(t, answer.member("id_token"))
				if header.Algorithm != alg || header.KeyID == "" || header.ExtraHeaders[jose.HeaderType] != "JWT" {
					t.Errorf("header %+v", header)
				}
				for claim, value := range map[string]any{
					"iss": s.issuer, "sub": user.ID, "aud": id, "azp": id, "nonce": `n "é`, "acr": "urn:signet:acr:password",
				} {
					if claims[claim] != value {
						t.Errorf("%s is %v, want %v", claim, claims[claim], value)
					}
				}
				if amr, _ := claims["amr"].([]any); !slices.Equal(amr, []any{"pwd"}) {
					t.Errorf("amr %v", claims["amr"])
				}
				signedIn := time.Unix(int64(claims["auth_time"].(float64)), 0)
				if since := asked.Sub(signedIn); since < 0 || since > 5*time.Minute || token.Expiry.Sub(token.IssuedAt) != 10*time.Minute {
					t.Errorf("auth_time %s, lives %s", signedIn, token.Expiry.Sub(token.IssuedAt))
				}
				if session, err := s.store.Session(ctx, claims["sid"].(string)); err != nil || session.UserID != user.ID {
					t.Errorf("sid %v: %v", claims["sid"], err)
				}
				if len(claims) != 12 {
					t.Errorf("more or less than it should say: %v", claims)
				}

				again := s.form("/token", id, secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {answer.member("refresh_token")}})
				refreshed, err := rp.Verify(ctx, again.member("id_token"))
				if err != nil {
					t.Fatalf("%v: %s", err, again.body)
				}
				if err := refreshed.VerifyAccessToken(again.member("access_token")); err != nil {
					t.Error(err)
				}
				_, later := claimsOf(t, again.member("id_token"))
				if _, there := later["nonce"]; there {
					t.Error("a refreshed ID token repeats the nonce")
				}
				for _, claim := range []string{"iss", "sub", "aud", "azp", "auth_time", "acr", "sid"} {
					if later[claim] != claims[claim] {
						t.Errorf("after a refresh %s is %v, was %v", claim, later[claim], claims[claim])
					}
				}
			})
		}
	})
}
