package web_test

import (
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// What others wrote works as it is: golang.org/x/oauth2 gets a token, go-oidc
// discovers the keys and verifies it.
func TestOtherSoftware(t *testing.T) {
	onBoth(t, options{path: "/tenant", algs: keys.Algorithms()}, func(t *testing.T, s *site) {
		ctx := t.Context()
		secret := s.register("shop")
		posted := s.client("post", asPost)
		key := newSigner(t, jose.EdDSA)
		s.client("robot", key.registers(t))
		discovered, err := oidc.NewProvider(ctx, s.issuer)
		if err != nil {
			t.Fatal(err)
		}
		verifier := oidc.NewVerifier(s.issuer, oidc.NewRemoteKeySet(ctx, s.issuer+"/jwks"),
			&oidc.Config{ClientID: ordersURI, SupportedSigningAlgs: keys.Algorithms()})
		for name, cfg := range map[string]clientcredentials.Config{
			"client_secret_basic": {ClientID: "shop", ClientSecret: secret, AuthStyle: oauth2.AuthStyleInHeader},
			"client_secret_post":  {ClientID: "post", ClientSecret: posted, AuthStyle: oauth2.AuthStyleInParams},
			"found out by trying": {ClientID: "post", ClientSecret: posted},
			"private_key_jwt": {ClientID: "robot", AuthStyle: oauth2.AuthStyleInParams, EndpointParams: url.Values{
				"client_assertion_type": {assertionType}, "client_assertion": {key.assertion(t, claimsFor(s, "robot"))}}},
		} {
			t.Run(name, func(t *testing.T) {
				cfg.TokenURL, cfg.Scopes = discovered.Endpoint().TokenURL, []string{"orders:read"}
				token, err := cfg.Token(ctx)
				if err != nil {
					t.Fatal(err)
				}
				verified, err := verifier.Verify(ctx, token.AccessToken)
				if err != nil {
					t.Fatal(err)
				}
				if verified.Subject != cfg.ClientID || token.Extra("scope") != "orders:read" || !token.Valid() {
					t.Errorf("subject %q, scope %v", verified.Subject, token.Extra("scope"))
				}
			})
		}
		for _, alg := range keys.Algorithms() {
			t.Run(alg, func(t *testing.T) {
				if _, err := s.admin.UpdateResource(ctx, ordersURI, func(r *storage.Resource) { r.SigningAlg = alg }); err != nil {
					t.Fatal(err)
				}
				s.settle()
				if _, err := verifier.Verify(ctx, s.token("shop", secret, "orders:read")); err != nil {
					t.Error(err)
				}
			})
		}
		t.Run("another audience", func(t *testing.T) {
			wrong := oidc.NewVerifier(s.issuer, oidc.NewRemoteKeySet(ctx, s.issuer+"/jwks"),
				&oidc.Config{ClientID: "https://stock.example", SupportedSigningAlgs: keys.Algorithms()})
			if _, err := wrong.Verify(ctx, s.token("shop", secret, "orders:read")); err == nil {
				t.Error("a token for orders is accepted elsewhere")
			}
		})
	})
}
