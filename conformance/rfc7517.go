package main

import (
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-jose/go-jose/v4"
)

// RFC 7517 and its neighbours: the published keys.
func rfc7517Checks() []Check {
	needs := []Need{endpoint("jwks_uri")}
	return []Check{
		{"rfc7517-response", "RFC 7517", "§5", "the JWKS is served as JSON and holds keys", needs, jwksResponse},
		{"rfc7517-no-private", "RFC 7517", "§9.2", "no key shows a private member, and none is symmetric", needs, eachKey(keyIsPublic)},
		{"rfc7517-use-alg", "RFC 7517", "§4.4", "every key has use sig and the one algorithm it is for", needs, eachKey(keyNamesItsUse)},
		{"rfc7517-kid-unique", "RFC 7517", "§4.5", "every key has a kid of its own", needs, jwksUniqueKeyIDs},
		{"rfc7638-thumbprint", "RFC 7638", "§3", "every kid is the key's SHA-256 thumbprint", needs, eachKey(keyIDIsThumbprint)},
		{"rfc7518-key-size", "RFC 7518", "§3.3", "RSA keys have at least 2048 bits", needs, eachKey(keyIsLarge)},
		{"rfc9110-jwks-etag", "RFC 9110", "§13.1.2", "a JWKS with an ETag answers 304 to who has it", needs, jwksETag},
		{"rfc9111-jwks-max-age", "RFC 9111", "§5.2.2.1", "a JWKS that says how long it may be cached says a minute to a day", needs, jwksMaxAge},
	}
}

// A publishedKey is one member of the JWKS.
type publishedKey struct {
	member map[string]any
	jwk    jose.JSONWebKey // invalid where fault is set
	fault  error
}

func (k publishedKey) kid() string { s, _ := k.member["kid"].(string); return s }

// keys fetches the JWKS. A key that cannot be used is kept, with its fault.
func (e *Env) keys(ctx context.Context) ([]publishedKey, error) {
	a, err := e.get(ctx, e.endpoint("jwks_uri"), nil)
	if err != nil {
		return nil, err
	}
	var set struct{ Keys []json.RawMessage }
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &set) != nil {
		return nil, unexpected("JWKS", a, plain("status 200 with an object that has keys"))
	}
	keys := make([]publishedKey, len(set.Keys))
	for i, raw := range set.Keys {
		if keys[i].member, err = decodeObject(raw); err != nil {
			return nil, fmt.Errorf("key %d of the JWKS: %w", i+1, err)
		}
		keys[i].fault = keys[i].jwk.UnmarshalJSON(raw)
	}
	return keys, nil
}

func jwksResponse(ctx context.Context, e *Env) error {
	a, err := e.get(ctx, e.endpoint("jwks_uri"), nil)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return unexpected("answer", a, plain("status 200"))
	}
	if err := a.wantMediaType("application/jwk-set+json", "application/json"); err != nil {
		return err
	}
	m, err := a.object()
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if keys, _ := m["keys"].([]any); len(keys) == 0 {
		return unexpected("keys", m["keys"], plain("at least one"))
	}
	return nil
}

// eachKey makes a check of a rule about one key.
func eachKey(rule func(publishedKey) error) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		keys, err := e.keys(ctx)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := rule(k); err != nil {
				return fmt.Errorf("key %q: %w", k.kid(), err)
			}
		}
		return nil
	}
}

func keyIsPublic(k publishedKey) error {
	if k.member["kty"] == "oct" {
		return errors.New("is symmetric")
	}
	// RFC 7518 §6.2.2, §6.3.2, §6.4.1
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := k.member[private]; ok {
			return fmt.Errorf("shows the private member %q", private)
		}
	}
	return nil
}

// keyNamesItsUse also holds the algorithm against the key's type and curve.
func keyNamesItsUse(k publishedKey) error {
	if k.member["use"] != "sig" {
		return unexpected("use", k.member["use"], "sig")
	}
	alg, _ := k.member["alg"].(string)
	kty, crv := k.member["kty"], k.member["crv"]
	fits := map[string]bool{
		"RS256": kty == "RSA", "RS384": kty == "RSA", "RS512": kty == "RSA",
		"PS256": kty == "RSA", "PS384": kty == "RSA", "PS512": kty == "RSA",
		"ES256": crv == "P-256", "ES384": crv == "P-384", "ES512": crv == "P-521",
		"EdDSA": crv == "Ed25519", "Ed25519": crv == "Ed25519",
	}
	if !fits[alg] {
		return unexpected("alg", k.member["alg"], plain(fmt.Sprintf("a signature algorithm for kty %v, crv %v", kty, crv)))
	}
	return nil
}

func jwksUniqueKeyIDs(ctx context.Context, e *Env) error {
	keys, err := e.keys(ctx)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, k := range keys {
		if k.kid() == "" {
			return unexpected("kid", k.member["kid"], plain("a string"))
		}
		if seen[k.kid()] {
			return fmt.Errorf("kid %q stands twice", k.kid())
		}
		seen[k.kid()] = true
	}
	return nil
}

func keyIDIsThumbprint(k publishedKey) error {
	if k.fault != nil {
		return k.fault
	}
	sum, err := k.jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return fmt.Errorf("thumbprint: %w", err)
	}
	if want := base64.RawURLEncoding.EncodeToString(sum); k.kid() != want {
		return unexpected("kid", k.kid(), want)
	}
	return nil
}

func keyIsLarge(k publishedKey) error {
	if k.fault != nil {
		return k.fault
	}
	if key, ok := k.jwk.Key.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		return unexpected("modulus", plain(fmt.Sprintf("%d bits", key.N.BitLen())), plain("2048 or more"))
	}
	return nil
}

func jwksETag(ctx context.Context, e *Env) error {
	address := e.endpoint("jwks_uri")
	first, err := e.get(ctx, address, nil)
	if err != nil {
		return err
	}
	etag := first.Header.Get("ETag")
	if etag == "" { // RFC 9110 §8.8.3: there need not be one
		return notOffered("the JWKS has no ETag")
	}
	again, err := e.get(ctx, address, http.Header{"If-None-Match": {etag}})
	if err != nil {
		return err
	}
	if again.Status != http.StatusNotModified || len(again.Body) > 0 {
		return unexpected("answer to If-None-Match", again, plain("status 304 without body"))
	}
	other, err := e.get(ctx, address, http.Header{"If-None-Match": {`"of-another-key-set"`}})
	if err != nil {
		return err
	}
	if other.Status != http.StatusOK {
		return unexpected("answer to an ETag it never gave", other, plain("status 200"))
	}
	return nil
}

// jwksMaxAge bounds how long a compromised key lives on in caches.
func jwksMaxAge(ctx context.Context, e *Env) error {
	a, err := e.get(ctx, e.endpoint("jwks_uri"), nil)
	if err != nil {
		return err
	}
	value, said := a.hasDirective("max-age")
	if !said && a.Header.Get("Cache-Control") == "" { // OIDC Core §10.1.1: it should say, and need not
		return notOffered("the JWKS says nothing of caches")
	}
	if seconds, err := strconv.Atoi(value); err != nil || seconds < 60 || seconds > 86400 {
		return unexpected("Cache-Control", a.Header.Get("Cache-Control"), plain("max-age from 60 to 86400"))
	}
	return nil
}
