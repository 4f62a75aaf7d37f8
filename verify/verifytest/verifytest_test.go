package verifytest_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/verifytest"
)

const audience = "https://orders.example"

func newVerifier(t *testing.T, issuer *verifytest.Issuer) *verify.Verifier {
	t.Helper()
	v, err := verify.New(t.Context(), issuer.URL, audience, verify.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestToken(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256", "PS256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			issuer := verifytest.NewIssuer(t, alg)
			v := newVerifier(t, issuer)
			at := time.Now().Add(-time.Minute)
			c, err := v.Verify(t.Context(), issuer.Token(audience, verifytest.Scope("orders:read", "orders:write"), verifytest.Subject("bob"),
				verifytest.Client("shop"), verifytest.Roles("clerk"), verifytest.SignedIn(at, "mfa"), verifytest.Claim("sid", "s1")))
			if err != nil {
				t.Fatal(err)
			}
			if c.Issuer() != issuer.URL || c.Subject() != "bob" || c.ClientID() != "shop" || !c.HasScope("orders:write") ||
				!c.HasRole("clerk") || c.ACR() != "mfa" || c.AuthTime().Unix() != at.Unix() || c.SessionID() != "s1" {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestTokensToRefuse(t *testing.T) {
	issuer, other := verifytest.NewIssuer(t), verifytest.NewIssuer(t)
	v := newVerifier(t, issuer)
	rows := []struct {
		name, token string
		want        error
	}{
		{"expired", issuer.Token(audience, verifytest.Expired()), verify.ErrExpired},
		{"another audience", issuer.Token("https://other.example"), verify.ErrAudience},
		{"another issuer", other.Token(audience), verify.ErrUnknownKey},
		{"an ID token", issuer.Token(audience, verifytest.Header("typ", "JWT")), verify.ErrType},
		{"no typ", issuer.Token(audience, verifytest.Header("typ", nil)), verify.ErrType},
		{"no jti", issuer.Token(audience, verifytest.Claim("jti", nil)), verify.ErrMalformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if _, err := v.Verify(context.Background(), r.token); !errors.Is(err, r.want) {
				t.Errorf("got %v, want %v", err, r.want)
			}
		})
	}
}

func TestRotateRetireStop(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	v := newVerifier(t, issuer)
	old := issuer.Token(audience)
	issuer.Rotate()
	for _, token := range []string{issuer.Token(audience), old} { // the first makes v fetch
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
	issuer.Retire()
	if _, err := newVerifier(t, issuer).Verify(t.Context(), old); !errors.Is(err, verify.ErrUnknownKey) {
		t.Errorf("retired key: %v", err)
	}
	issuer.Stop()
	if _, err := v.Verify(t.Context(), issuer.Token(audience)); err != nil {
		t.Errorf("offline: %v", err)
	}
	if err := newVerifier(t, issuer).Ready(); !errors.Is(err, verify.ErrNotReady) {
		t.Errorf("started while the issuer is down: %v", err)
	}
}

// How the test of a resource server uses this package.
func TestOrders(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	api := newVerifier(t, issuer).Middleware(verify.RequireScope("orders:read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))

	r := httptest.NewRequest("GET", "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token(audience, verifytest.Scope("orders:read")))
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("answer %d", w.Code)
	}
}

func TestRevoke(t *testing.T) {
	issuer := verifytest.NewIssuer(t)
	v := newVerifier(t, issuer)
	token := issuer.Token(audience, verifytest.Subject("bob"), verifytest.Claim("sid", "s1"))
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	issuer.Revoke("sid", "s1", v)
	for _, v := range []*verify.Verifier{v, newVerifier(t, issuer)} {
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, verify.ErrRevoked) {
			t.Errorf("revoked: %v", err)
		}
		if _, err := v.Verify(t.Context(), issuer.Token(audience)); err != nil {
			t.Errorf("another: %v", err)
		}
	}
	issuer.RevokeBefore("sid", "s1", time.Now().Add(-time.Hour), v)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("lifted: %v", err)
	}
	issuer.Silence()
	if got := v.Revocation().State; got != verify.RevocationFresh {
		t.Errorf("state %s", got)
	}
}
