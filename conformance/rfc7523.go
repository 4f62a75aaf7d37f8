package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// RFC 7523: clients that authenticate with a signed assertion. The audience is
// the issuer, as draft-ietf-oauth-rfc7523bis has it.
func rfc7523Checks() []Check {
	const spec = "RFC 7523"
	needs := []Need{endpoint("token_endpoint"), privateKeyClient()}
	refused := func(id, section, name string, alter func(e *Env, a *assertion) error) Check {
		return Check{id, spec, section, name, needs, refusedAssertion(alter)}
	}
	// stricter is what the draft that updates the RFC demands beyond it.
	stricter := func(id, name string, alter func(e *Env, a *assertion) error) Check {
		return Check{id, "rfc7523bis (draft)", "§4", name, needs, refusedAssertion(alter)}
	}
	return []Check{
		{"rfc7523-accepted", spec, "§3", "an assertion for the issuer gets a token", needs,
			func(ctx context.Context, e *Env) error {
				a, err := e.present(ctx, e.assertion())
				if err != nil {
					return err
				}
				if a.Status != http.StatusOK {
					return unexpected("answer", a, plain("status 200"))
				}
				return nil
			}},
		{"rfc7523-replay", oidcCore, "§9", "an assertion works once", needs, assertionReplay},
		{"rfc7523-with-secret", "RFC 6749", "§2.3", "an assertion together with a secret is refused", needs, assertionWithSecret},
		stricter("rfc7523-aud-token-endpoint", "an assertion for the token endpoint's URL is refused", func(e *Env, a *assertion) error {
			a.claims["aud"] = e.endpoint("token_endpoint")
			return nil
		}),
		stricter("rfc7523-aud-list", "an assertion for the issuer and another is refused", func(e *Env, a *assertion) error {
			a.claims["aud"] = []string{e.Issuer, "https://other.example"}
			return nil
		}),
		refused("rfc7523-aud-foreign", "§3", "an assertion for another issuer is refused", func(_ *Env, a *assertion) error {
			a.claims["aud"] = "https://other.example"
			return nil
		}),
		refused("rfc7523-no-aud", "§3", "an assertion for nobody is refused", func(_ *Env, a *assertion) error {
			delete(a.claims, "aud")
			return nil
		}),
		refused("rfc7523-iss", "§3", "an assertion whose iss is another client is refused", func(_ *Env, a *assertion) error {
			a.claims["iss"] = "another-client"
			return nil
		}),
		refused("rfc7523-no-sub", "§3", "an assertion without sub is refused", func(_ *Env, a *assertion) error {
			delete(a.claims, "sub")
			return nil
		}),
		refused("rfc7523-sub", "§3", "an assertion whose sub is another client is refused", func(_ *Env, a *assertion) error {
			a.claims["sub"] = "another-client"
			return nil
		}),
		refused("rfc7523-expired", "§3", "an expired assertion is refused", func(e *Env, a *assertion) error {
			a.claims["iat"] = e.Now().Add(-2 * time.Hour).Unix()
			a.claims["exp"] = e.Now().Add(-time.Hour).Unix()
			return nil
		}),
		refused("rfc7523-no-exp", "§3", "an assertion without exp is refused", func(_ *Env, a *assertion) error {
			delete(a.claims, "exp")
			return nil
		}),
		{"rfc7523-no-jti", oidcCore, "§9", "an assertion without jti is refused", needs, refusedAssertion(func(_ *Env, a *assertion) error {
			delete(a.claims, "jti")
			return nil
		})},
		refused("rfc7523-future", "§3", "an assertion issued in the future is refused", func(e *Env, a *assertion) error {
			a.claims["iat"] = e.Now().Add(time.Hour).Unix()
			a.claims["nbf"] = e.Now().Add(time.Hour).Unix()
			return nil
		}),
		refused("rfc7523-alg-none", "§3", "an unsigned assertion is refused", func(_ *Env, a *assertion) error {
			a.key, a.header["alg"] = nil, "none"
			return nil
		}),
		refused("rfc7523-alg-hs256", "§3", "an assertion signed by HMAC with the public key is refused", func(e *Env, a *assertion) error {
			der, err := x509.MarshalPKIXPublicKey(e.KeyClient.key.Public())
			if err != nil {
				return fmt.Errorf("public key: %w", err)
			}
			a.key, a.alg = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), jose.HS256
			return nil
		}),
		refused("rfc7523-wrong-key", "§3", "an assertion signed with another key is refused", func(_ *Env, a *assertion) error {
			return a.signWithAnotherKey()
		}),
		refused("rfc7523-embedded-key", "§3", "an assertion that brings its own key is refused", func(_ *Env, a *assertion) error {
			if err := a.signWithAnotherKey(); err != nil {
				return err
			}
			a.header["jwk"] = jose.JSONWebKey{Key: a.key.(*ecdsa.PrivateKey).Public()}
			return nil
		}),
	}
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// A KeyClient is a client registered for private_key_jwt.
type KeyClient struct {
	ID  string
	kid string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

// newKeyClient reads the client's private key: a JWK, or PKCS #8 in PEM. A JWK
// without alg, and PEM, get the usual algorithm of the key's type.
func newKeyClient(id string, file []byte) (*KeyClient, error) {
	c := &KeyClient{ID: id}
	var key any
	if block, _ := pem.Decode(file); block != nil {
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PKCS #8: %w", err)
		}
		key = k
	} else {
		var jwk jose.JSONWebKey
		if err := json.Unmarshal(file, &jwk); err != nil {
			return nil, errors.New("neither PEM nor a JWK")
		}
		key, c.kid, c.alg = jwk.Key, jwk.KeyID, jose.SignatureAlgorithm(jwk.Algorithm)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a private key")
	}
	c.key = signer
	if c.alg == "" {
		var err error
		if c.alg, err = usualAlgorithm(signer); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func usualAlgorithm(key crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return jose.RS256, nil
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return jose.ES256, nil
		}
	}
	return "", errors.New("the key is none of RSA, P-256 and Ed25519")
}

// An assertion is a client assertion about to be signed.
type assertion struct {
	header map[jose.HeaderKey]any
	claims map[string]any
	alg    jose.SignatureAlgorithm
	key    any // nil: unsigned
}

// assertion makes a good one, for the check to spoil.
func (e *Env) assertion() *assertion {
	now := e.Now()
	a := &assertion{
		header: map[jose.HeaderKey]any{},
		claims: map[string]any{
			"iss": e.KeyClient.ID,
			"sub": e.KeyClient.ID,
			"aud": e.Issuer,
			"iat": now.Unix(),
			"exp": now.Add(time.Minute).Unix(),
			"jti": rand.Text(),
		},
		alg: e.KeyClient.alg,
		key: e.KeyClient.key,
	}
	if e.KeyClient.kid != "" {
		a.header["kid"] = e.KeyClient.kid
	}
	return a
}

func (a *assertion) signWithAnotherKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	a.key, a.alg = key, jose.ES256
	return nil
}

// sign returns the assertion in compact form.
func (a *assertion) sign() (string, error) {
	claims, err := json.Marshal(a.claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	if a.key == nil {
		header, err := json.Marshal(a.header)
		if err != nil {
			return "", fmt.Errorf("header: %w", err)
		}
		return base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims) + ".", nil
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a.alg, Key: a.key}, &jose.SignerOptions{ExtraHeaders: a.header})
	if err != nil {
		return "", fmt.Errorf("signer: %w", err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return jws.CompactSerialize()
}

// assertionForm is the client credentials grant with an assertion in place of a
// secret, without resource and scope: the key's client may have others.
func assertionForm(signed string) url.Values {
	return url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {assertionType},
		"client_assertion":      {signed},
	}
}

// present authenticates with an assertion.
func (e *Env) present(ctx context.Context, a *assertion) (*Answer, error) {
	signed, err := a.sign()
	if err != nil {
		return nil, fmt.Errorf("assertion: %w", err)
	}
	return e.postToken(ctx, nil, assertionForm(signed))
}

// refusedAssertion makes a check of an assertion that is good but for one thing.
func refusedAssertion(alter func(*Env, *assertion) error) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		a := e.assertion()
		if err := alter(e, a); err != nil {
			return err
		}
		answer, err := e.present(ctx, a)
		if err != nil {
			return err
		}
		return answer.wantRefusedClient()
	}
}

func assertionReplay(ctx context.Context, e *Env) error {
	signed, err := e.assertion().sign()
	if err != nil {
		return fmt.Errorf("assertion: %w", err)
	}
	if _, err := e.postToken(ctx, nil, assertionForm(signed)); err != nil {
		return err
	}
	again, err := e.postToken(ctx, nil, assertionForm(signed))
	if err != nil {
		return err
	}
	return again.wantRefusedClient()
}

func assertionWithSecret(ctx context.Context, e *Env) error {
	signed, err := e.assertion().sign()
	if err != nil {
		return fmt.Errorf("assertion: %w", err)
	}
	form := assertionForm(signed)
	form.Set("client_id", e.KeyClient.ID)
	form.Set("client_secret", "any")
	a, err := e.postToken(ctx, nil, form)
	if err != nil {
		return err
	}
	return a.wantError(http.StatusBadRequest, "invalid_request")
}
