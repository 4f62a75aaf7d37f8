// Command kubernetes judges tokens as the Kubernetes API server does: with its
// authenticator, by a file for its flag --authentication-config.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"

	"github.com/signet-oidc/signet/conformance/clients/go/script"
)

func main() {
	s, err := script.Start()
	if err == nil {
		err = run(context.Background(), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		os.Exit(1)
	}
}

// read reads the file as the API server does.
func read(file string) (apiserver.JWTAuthenticator, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return apiserver.JWTAuthenticator{}, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), text)
	if err != nil {
		return apiserver.JWTAuthenticator{}, err
	}
	config, ok := decoded.(*apiserver.AuthenticationConfiguration)
	if !ok || len(config.JWT) != 1 {
		return apiserver.JWTAuthenticator{}, fmt.Errorf("%s: %T, want one issuer in an AuthenticationConfiguration", file, decoded)
	}
	return config.JWT[0], nil
}

// authority vouches for the issuer's certificate.
type authority []byte

// CurrentCABundleContent implements oidc.CAContentProvider.
func (a authority) CurrentCABundleContent() []byte { return a }

// cluster is the part of an API server that judges tokens.
type cluster struct {
	oidc.AuthenticatorTokenWithHealthCheck
}

// start returns once it has discovered the issuer, or has failed to.
func start(ctx context.Context, config apiserver.JWTAuthenticator) (cluster, error) {
	options := oidc.Options{JWTAuthenticator: config, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms()}
	if config.Issuer.CertificateAuthority != "" {
		options.CAContentProvider = authority(config.Issuer.CertificateAuthority)
	}
	a, err := oidc.New(ctx, options)
	if err != nil {
		return cluster{}, err
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := a.HealthCheck()
		switch {
		case err == nil:
			return cluster{a}, nil
		case !strings.Contains(err.Error(), "not initialized") || time.Since(began) > time.Minute:
			return cluster{}, err
		}
	}
}

// person is who the API server takes the bearer of a token for.
func (c cluster) person(ctx context.Context, token string) (name string, groups []string, err error) {
	response, ok, err := c.AuthenticateToken(ctx, token)
	switch {
	case err != nil:
		return "", nil, err
	case !ok:
		return "", nil, errors.New("not a token of this issuer")
	}
	return response.User.GetName(), response.User.GetGroups(), nil
}

// knows returns an error unless the bearer of a token is who signed in.
func (c cluster) knows(ctx context.Context, token string) error {
	name, groups, err := c.person(ctx, token)
	if err != nil {
		return err
	}
	slices.Sort(groups)
	return errors.Join(script.Equal("name", name, "signet:ada"), script.Equal("groups", strings.Join(groups, " "), "signet:cluster-admins signet:viewers"))
}

// kubectl is what gets people their tokens.
type kubectl struct {
	*script.Script
	oauth2.Config
	client *http.Client
}

func newKubectl(s *script.Script, client *http.Client, id string) kubectl {
	return kubectl{client: client, Script: s, Config: oauth2.Config{ClientID: id, RedirectURL: s.RedirectURI, Scopes: []string{"openid", "profile", "offline_access"},
		Endpoint: oauth2.Endpoint{AuthURL: s.Issuer + "/authorize", TokenURL: s.Issuer + "/token", AuthStyle: oauth2.AuthStyleInParams}}}
}

type tokens struct{ id, access, refresh string }

func tokensOf(token *oauth2.Token) tokens {
	id, _ := token.Extra("id_token").(string)
	return tokens{id, token.AccessToken, token.RefreshToken}
}

func (k kubectl) signIn(ctx context.Context) (tokens, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, k.client)
	verifier := oauth2.GenerateVerifier()
	answer, err := k.Browse(k.AuthCodeURL(rand.Text(), oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		return tokens{}, err
	}
	token, err := k.Exchange(ctx, answer.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return tokens{}, err
	}
	return tokensOf(token), nil
}

// trusting returns a client that trusts what the authority of a file vouches for.
func trusting(caFile string) (*http.Client, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate", caFile)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}, nil
}

func run(ctx context.Context, s *script.Script) error {
	config, err := read(s.File)
	if err != nil {
		return err
	}
	var c cluster
	var got tokens
	client, err := trusting(s.CAFile)
	if err != nil {
		return err
	}
	rsa := newKubectl(s, client, "kubernetes")
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"discovery", func() (err error) {
			c, err = start(ctx, config)
			return err
		}},
		{"ID token", func() error {
			if got, err = rsa.signIn(ctx); err != nil {
				return err
			}
			return c.knows(ctx, got.id)
		}},
		{"ID token of a refresh", func() error {
			token, err := rsa.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client), &oauth2.Token{RefreshToken: got.refresh}).Token()
			if err != nil {
				return err
			}
			got = tokensOf(token)
			return c.knows(ctx, got.id)
		}},
		{"ID token with ES256", func() error {
			second := config
			second.Issuer.Audiences = []string{"kubernetes-es256"}
			c, err := start(ctx, second)
			if err != nil {
				return err
			}
			got, err := newKubectl(s, client, "kubernetes-es256").signIn(ctx)
			if err != nil {
				return err
			}
			return c.knows(ctx, got.id)
		}},
	} {
		if err := s.Step(step.name, step.run); err != nil {
			return err
		}
	}

	if err := s.EachLie(func() error {
		again, err := start(ctx, config)
		if err != nil {
			return err
		}
		told, err := rsa.signIn(ctx)
		if err != nil {
			return err
		}
		_, _, err = again.person(ctx, told.id)
		return err
	}); err != nil {
		return err
	}
	header, rest, _ := strings.Cut(got.id, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	judge := func(token string) func() error {
		return func() error {
			_, _, err := c.person(ctx, token)
			return err
		}
	}
	for name, run := range map[string]func() error{
		"an access token for an ID token": judge(got.access),
		"an ID token for somebody else":   judge(header + "." + somebodyElse(payload) + "." + signature),
		"a changed signature":             judge(header + "." + payload + "." + flip(signature)),
		"an ID token for another app": func() error {
			other := config
			other.Issuer.Audiences = []string{"another-cluster"}
			c, err := start(ctx, other)
			if err != nil {
				return err
			}
			_, _, err = c.person(ctx, got.id)
			return err
		},
		"an issuer whose certificate nobody vouches for": func() error {
			other := config
			other.Issuer.CertificateAuthority = ""
			_, err := start(ctx, other)
			return err
		},
	} {
		if err := s.Refuse(name, run); err != nil {
			return err
		}
	}
	return s.End()
}

// somebodyElse puts another name into the claims.
func somebodyElse(payload string) string {
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(bytes.Replace(claims, []byte(`"preferred_username":"ada"`), []byte(`"preferred_username":"bob"`), 1))
}

// flip changes the first letter of text in base64url.
func flip(text string) string {
	if text[0] == 'A' {
		return "B" + text[1:]
	}
	return "A" + text[1:]
}
