// Command go-oidc is an app on github.com/coreos/go-oidc and
// golang.org/x/oauth2, given the issuer's URL.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/signet-oidc/signet/conformance/clients/go/script"
)

func main() {
	s, err := script.Start()
	if err == nil {
		err = run(context.Background(), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-oidc:", err)
		os.Exit(1)
	}
}

// app is what it found out about the issuer.
type app struct {
	*script.Script
	oauth2.Config
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
}

// discover finds everything out by the issuer's URL alone, which algorithms to
// expect too.
func discover(ctx context.Context, s *script.Script, id string) (*app, error) {
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		return nil, err
	}
	return &app{
		Script: s, provider: provider, verifier: provider.Verifier(&oidc.Config{ClientID: id}),
		Config: oauth2.Config{
			ClientID: id, ClientSecret: s.Secrets[id], Endpoint: provider.Endpoint(), RedirectURL: s.RedirectURI,
			Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess},
		},
	}, nil
}

// session is what a sign-in gives.
type session struct {
	*oauth2.Token
	id  *oidc.IDToken
	raw string
}

// signIn goes through an authorization, as the library's example does.
func (a *app) signIn(ctx context.Context) (session, error) {
	verifier, nonce, state := oauth2.GenerateVerifier(), rand.Text(), rand.Text()
	answer, err := a.Browse(a.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce)))
	if err != nil {
		return session{}, err
	}
	got := answer.Query()
	if got.Get("state") != state {
		return session{}, errors.New("state is of another request")
	}
	token, err := a.Exchange(ctx, got.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return session{}, err
	}
	found, err := a.verified(ctx, token)
	if err != nil {
		return session{}, err
	}
	if found.id.Nonce != nonce { // Verify leaves that to the app
		return session{}, errors.New("nonce is of another request")
	}
	return found, nil
}

// verified has the library judge the ID token and the access token beside it.
func (a *app) verified(ctx context.Context, token *oauth2.Token) (session, error) {
	raw, _ := token.Extra("id_token").(string)
	id, err := a.verifier.Verify(ctx, raw)
	if err != nil {
		return session{}, err
	}
	return session{token, id, raw}, id.VerifyAccessToken(token.AccessToken)
}

func run(ctx context.Context, s *script.Script) error {
	var basic *app
	var first, second session
	var logoutToken string
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"discovery", func() (err error) {
			basic, err = discover(ctx, s, "basic")
			return err
		}},
		{"code flow with PKCE", func() (err error) {
			first, err = basic.signIn(ctx)
			return err
		}},
		{"userinfo", func() error {
			about, err := basic.provider.UserInfo(ctx, oauth2.StaticTokenSource(first.Token))
			if err != nil {
				return err
			}
			return errors.Join(script.Equal("sub", about.Subject, first.id.Subject), script.Equal("email", about.Email, s.Email))
		}},
		{"refresh with rotation", func() error {
			stale := *first.Token
			stale.Expiry = time.Now().Add(-time.Minute) // x/oauth2 then refreshes by itself
			token, err := basic.TokenSource(ctx, &stale).Token()
			if err != nil {
				return err
			}
			if token.RefreshToken == first.RefreshToken || token.RefreshToken == "" || token.AccessToken == first.AccessToken {
				return errors.New("the refresh changed nothing")
			}
			if second, err = basic.verified(ctx, token); err != nil {
				return err
			}
			return script.Equal("sub", second.id.Subject, first.id.Subject)
		}},
		{"ID token with ES256", func() error {
			keyed, err := discover(ctx, s, "es256")
			if err != nil {
				return err
			}
			keyed.verifier = keyed.provider.Verifier(&oidc.Config{ClientID: "es256", SupportedSigningAlgs: []string{oidc.ES256}})
			_, err = keyed.signIn(ctx)
			return err
		}},
		{"public client", func() error {
			public, err := discover(ctx, s, "public")
			if err != nil {
				return err
			}
			_, err = public.signIn(ctx)
			return err
		}},
		{"client credentials", func() error {
			service := clientcredentials.Config{ClientID: "service", ClientSecret: s.Secrets["service"], TokenURL: basic.Endpoint.TokenURL,
				Scopes: []string{"orders:read"}}
			token, err := service.Token(ctx)
			if err != nil {
				return err
			}
			return script.Equal("valid", token.Valid(), true)
		}},
		{"RP-initiated and back-channel logout", func() (err error) {
			logoutToken, err = basic.logout(ctx, second.raw)
			return err
		}},
	} {
		if err := s.Step(step.name, step.run); err != nil {
			return err
		}
	}

	if err := s.EachLie(func() error {
		again, err := discover(ctx, s, "basic")
		if err != nil {
			return err
		}
		found, err := again.signIn(ctx)
		if err != nil {
			return err
		}
		_, err = again.provider.UserInfo(ctx, oauth2.StaticTokenSource(found.Token))
		return err
	}); err != nil {
		return err
	}
	verify := func(v *oidc.IDTokenVerifier, token string) func() error {
		return func() error {
			_, err := v.Verify(ctx, token)
			return err
		}
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	for name, run := range map[string]func() error{
		"an access token for an ID token":  verify(basic.verifier, second.AccessToken),
		"an ID token for another app":      verify(basic.provider.Verifier(&oidc.Config{ClientID: "public"}), second.raw),
		"an ID token under another key":    verify(oidc.NewVerifier(s.Issuer, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{foreign.Public()}}, &oidc.Config{ClientID: "basic"}), second.raw),
		"an access token of another grant": func() error { return first.id.VerifyAccessToken(second.AccessToken) },
		"a refresh token used twice": func() error {
			_, err := basic.TokenSource(ctx, &oauth2.Token{RefreshToken: first.RefreshToken}).Token()
			return err
		},
		"an ID token for a logout token": func() error {
			_, err := basic.verifier.VerifyLogout(ctx, second.raw)
			return err
		},
		"a logout token for another app": func() error {
			_, err := basic.provider.Verifier(&oidc.Config{ClientID: "public"}).VerifyLogout(ctx, logoutToken)
			return err
		},
	} {
		if err := s.Refuse(name, run); err != nil {
			return err
		}
	}
	return s.End()
}

// logout signs the person out and returns the logout token that the app is told
// it with, which the library has verified (Back-Channel Logout §2.6).
func (a *app) logout(ctx context.Context, hint string) (string, error) {
	l, err := net.Listen("tcp", a.Listen)
	if err != nil {
		return "", err
	}
	told := make(chan string, 1)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case told <- r.PostFormValue("logout_token"):
		default: // of another session, before
		}
	})}
	go func() { _ = server.Serve(l) }() // until it is closed
	defer server.Close()
	var endpoints struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := a.provider.Claims(&endpoints); err != nil {
		return "", err
	}
	left, err := a.Browse(endpoints.EndSession + "?" + url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {a.PostLogoutURI}, "state": {"out"}}.Encode())
	if err != nil {
		return "", err
	}
	if err := script.Equal("where it ends", left.String(), a.PostLogoutURI+"?state=out"); err != nil {
		return "", err
	}
	select {
	case token := <-told:
		logout, err := a.verifier.VerifyLogout(ctx, token)
		if err != nil {
			return "", err
		}
		var claims struct {
			SessionID string `json:"sid"`
		}
		id, err := a.verifier.Verify(ctx, hint)
		if err == nil {
			err = id.Claims(&claims)
		}
		return token, errors.Join(err, script.Equal("sid", logout.SessionID, claims.SessionID), script.Equal("sub", logout.Subject, id.Subject))
	case <-time.After(time.Minute):
		return "", errors.New("nobody told the app of the logout")
	}
}
