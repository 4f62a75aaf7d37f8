package breakage

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// A signer is the proxy's own ES256 key.
type signer struct {
	key *ecdsa.PrivateKey
	jwk map[string]any
}

func newSigner() (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	jwk := map[string]any{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}
	if err := identify(jwk, "ES256"); err != nil {
		return nil, err
	}
	return &signer{key, jwk}, nil
}

// identify completes a JWK that so far holds just what a thumbprint is made of
// (RFC 7638 §3.2).
func identify(jwk map[string]any, alg string) error {
	canonical, err := json.Marshal(jwk) // keys come out in lexicographic order, without space
	if err != nil {
		return fmt.Errorf("thumbprint: %w", err)
	}
	sum := sha256.Sum256(canonical)
	jwk["kid"], jwk["use"], jwk["alg"] = encode(sum[:]), "sig", alg
	return nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a JWS of any header and claims.
func (s *signer) sign(header, claims map[string]any) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	input := encode(h) + "." + encode(c)
	sum := sha256.Sum256([]byte(input))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	v.FillBytes(signature[32:])
	return input + "." + encode(signature[:]), nil
}

// forged is what stands behind an altered token.
type forged struct {
	original        string
	claims, removed map[string]any
}

// decodeJWT takes a token apart.
func decodeJWT(tok string) (header, claims map[string]any, err error) {
	parts := strings.Split(tok, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("not a JWT")
	}
	for i, m := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return nil, nil, fmt.Errorf("segment %d: %w", i+1, err)
		}
		if *m, err = decodeObject(b); err != nil {
			return nil, nil, err
		}
	}
	return header, claims, nil
}

// forging makes a breakage of a change to access tokens. The change is made to
// every token, its new signature verifies, and the endpoints take it for the
// original and speak of the altered claims, so that only the token's content is
// wrong. The token answer may be changed with it.
func forging(change func(c *call, header, claims, answer map[string]any)) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		switch c.to {
		case tokenEndpoint:
			r := next(c)
			p.forge(c, r, change)
			return r
		case jwks:
			r := next(c)
			addKey(r, p.signer.jwk)
			return r
		case introspection, revocation:
			return p.answerForged(c, next)
		}
		return next(c)
	}
}

func (p *Proxy) forge(c *call, r *reply, change func(c *call, header, claims, answer map[string]any)) {
	answer, err := r.object()
	if err != nil || r.status != http.StatusOK {
		return
	}
	original, _ := answer["access_token"].(string)
	header, claims, err := decodeJWT(original)
	if err != nil {
		return
	}
	_, before, err := decodeJWT(original)
	if err != nil {
		return
	}
	header["alg"], header["kid"] = "ES256", p.signer.jwk["kid"]
	change(c, header, claims, answer)
	altered, err := p.signer.sign(header, claims)
	if err != nil {
		return
	}
	removed := map[string]any{}
	for name, v := range before {
		if _, ok := claims[name]; !ok {
			removed[name] = v
		}
	}
	p.mu.Lock()
	p.forged[altered] = forged{original, claims, removed}
	p.mu.Unlock()
	answer["access_token"] = altered
	r.setObject(answer)
}

// answerForged asks the issuer about the original, and tells of the altered token.
func (p *Proxy) answerForged(c *call, next func(*call) *reply) *reply {
	p.mu.Lock()
	f, ok := p.forged[c.form.Get("token")]
	p.mu.Unlock()
	if !ok {
		return next(c)
	}
	form := url.Values{}
	for k, v := range c.form {
		form[k] = v
	}
	form.Set("token", f.original)
	c.setForm(form)
	r := next(c)
	m, err := r.object()
	if err != nil || m["active"] != true {
		return r
	}
	for name, v := range f.claims {
		m[name] = v
	}
	for name := range f.removed {
		delete(m, name)
	}
	r.setObject(m)
	return r
}

// addKey adds a key to a JWKS answer.
func addKey(r *reply, key map[string]any) {
	m, err := r.object()
	if err != nil {
		return
	}
	if keys, ok := m["keys"].([]any); ok {
		m["keys"] = append(keys, key)
		r.setObject(m)
	}
}
