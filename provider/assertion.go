package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // member names by case, and no duplicates

	"github.com/signet-oidc/signet/storage"
)

const (
	maxAssertion  = 8 << 10
	maxJTI        = 256
	maxClientKeys = 16
	kindAssertion = "client_assertion"
)

// assertionAlgs is what client assertions may be signed with: never "none",
// never a symmetric algorithm (RFC 8725 §3.2).
func assertionAlgs() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA}
}

// assertionClaims are the claims of RFC 7523 §3. aud stays raw, because only
// a single string is taken: an array invites a second audience to replay it
// (draft-ietf-oauth-rfc7523bis §4).
type assertionClaims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  json.RawMessage `json:"aud"`
	Expires   *float64        `json:"exp"`
	IssuedAt  *float64        `json:"iat"`
	NotBefore *float64        `json:"nbf"`
	ID        string          `json:"jti"`
}

func parseAssertion(assertion string) (*jose.JSONWebSignature, error) {
	if len(assertion) > maxAssertion {
		return nil, fmt.Errorf("assertion is larger than %d bytes", maxAssertion)
	}
	jws, err := jose.ParseSignedCompact(assertion, assertionAlgs())
	if err != nil {
		return nil, fmt.Errorf("assertion: %w", err)
	}
	return jws, nil
}

// assertionSubject reads, before any check, whom the assertion claims to be.
func assertionSubject(assertion string) (string, error) {
	jws, err := parseAssertion(assertion)
	if err != nil {
		return "", err
	}
	var claims assertionClaims
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &claims); err != nil {
		return "", fmt.Errorf("assertion claims: %w", err)
	}
	if claims.Subject == "" || !validText(claims.Subject) {
		return "", errors.New("assertion has no subject")
	}
	return claims.Subject, nil
}

// verifyAssertion judges a client assertion (RFC 7523 §3) and, last of all,
// spends its jti. It returns nil, the cause of the refusal, or
// storage.ErrUnavailable.
func (p *Provider) verifyAssertion(ctx context.Context, c *client, assertion string, now time.Time) error {
	jws, err := parseAssertion(assertion)
	if err != nil {
		return err
	}
	header := jws.Signatures[0].Protected
	if c.AuthSigningAlg != "" && c.AuthSigningAlg != header.Algorithm {
		return fmt.Errorf("assertion is signed with %s, registered is %s", header.Algorithm, c.AuthSigningAlg)
	}
	// RFC 8725 §3.11: what was signed for another purpose is no assertion.
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok && typ != "JWT" && typ != "client-authentication+jwt" {
		return fmt.Errorf("assertion has the type %v", typ)
	}
	// A key the assertion brings along proves nothing (RFC 8725 §3.5).
	if header.JSONWebKey != nil {
		return errors.New("assertion brings its own key")
	}
	if c.AuthMethod != authPrivateKeyJWT {
		return errors.New("client is not registered for " + authPrivateKeyJWT)
	}
	candidates, err := p.clientKeys(ctx, c, header.KeyID, now)
	if err != nil {
		return err
	}
	payload := verifyAny(jws, candidates)
	if payload == nil {
		return errors.New("no registered key verifies the assertion")
	}

	var claims assertionClaims
	if err := json.Unmarshal(payload, &claims); err != nil {
		return fmt.Errorf("assertion claims: %w", err)
	}
	var audience string
	if json.Unmarshal(claims.Audience, &audience) != nil {
		return errors.New("assertion's aud is not a single string")
	}
	if audience != p.issuer.String() && !(c.AssertionAudTokenURL && audience == p.issuer.Endpoint(PathToken)) {
		return errors.New("assertion is meant for another audience")
	}
	if claims.Issuer != c.ID || claims.Subject != c.ID {
		return errors.New("assertion's iss and sub are not the client")
	}
	if claims.Expires == nil || claims.IssuedAt == nil {
		return errors.New("assertion has no exp or no iat")
	}
	skew := p.policy.ClockSkew.Seconds()
	at := float64(now.UnixMilli()) / 1000
	switch {
	case *claims.Expires+skew <= at:
		return errors.New("assertion has expired")
	case *claims.Expires > at+p.policy.AssertionLifetime.Seconds()+skew:
		return fmt.Errorf("assertion expires more than %s ahead", p.policy.AssertionLifetime)
	case *claims.Expires-*claims.IssuedAt > p.policy.AssertionLifetime.Seconds()+skew:
		return fmt.Errorf("assertion is good for more than %s", p.policy.AssertionLifetime)
	case *claims.IssuedAt > at+skew:
		return errors.New("assertion is from the future")
	case p.epoch().voids(time.UnixMilli(int64(*claims.IssuedAt * 1000))):
		return errors.New("assertion is from before the database was restored, and may have been used")
	case claims.NotBefore != nil && *claims.NotBefore > at+skew:
		return errors.New("assertion is not valid yet")
	}
	if claims.ID == "" || len(claims.ID) > maxJTI || !validText(claims.ID) {
		return fmt.Errorf("assertion has no jti of 1 to %d bytes", maxJTI)
	}

	hash := sha256.Sum256([]byte(c.ID + "\x00" + claims.ID))
	// Remembered until no replica takes it any more, however their clocks differ.
	expires := time.UnixMilli(int64((*claims.Expires + skew) * 1000)).Add(2*p.policy.MaxClockOffset + time.Second)
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return tx.UseOnce(ctx, storage.OneTime{
			Kind: kindAssertion, KeyHash: hash[:], Subject: c.ID, CreatedAt: now, ExpiresAt: expires,
		}, now)
	})
	if errors.Is(err, storage.ErrConsumed) {
		return errors.New("assertion was used before")
	}
	return err
}

// verifyAny returns what the keys' owner signed, or nil when no key verifies
// it. Of keys that might do, a signature without a kid gets three tries: it
// ought to name its key (OIDC Core §10.1), and each try costs.
func verifyAny(jws *jose.JSONWebSignature, keys []jose.JSONWebKey) []byte {
	header, tries := jws.Signatures[0].Protected, 0
	for _, key := range keys {
		if !keyFits(key, header.Algorithm, header.KeyID) {
			continue
		}
		if payload, err := jws.Verify(key); err == nil {
			return payload
		}
		if tries++; tries == 3 {
			break
		}
	}
	return nil
}

// keyFits says whether the key may verify this algorithm: a key's own alg and
// use, where it names them, decide (RFC 7517 §4.2, §4.4).
func keyFits(key jose.JSONWebKey, alg, kid string) bool {
	return (kid == "" || key.KeyID == kid) &&
		(key.Algorithm == "" || key.Algorithm == alg) &&
		(key.Use == "" || key.Use == "sig")
}

// parseClientKeys reads a client's JWK Set: public keys only, few, and
// strong enough to mean something.
func parseClientKeys(document []byte) (*jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("JWK Set: %w", err)
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxClientKeys {
		return nil, fmt.Errorf("JWK Set has %d keys, want 1 to %d", len(set.Keys), maxClientKeys)
	}
	for _, key := range set.Keys {
		if err := checkClientKey(key); err != nil {
			return nil, fmt.Errorf("JWK Set, key %q: %w", clip(key.KeyID), err)
		}
	}
	return &set, nil
}
