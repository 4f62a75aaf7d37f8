package verify_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// FuzzVerify looks for a token that we accept and an independent verifier does
// not, and for a panic. With sign the header and payload are given a right
// signature, so that the claims are reached.
func FuzzVerify(f *testing.F) {
	keys := []signingKey{newKey("k1", "ES256"), newKey("k2", "EdDSA"), newKey("k3", "RS256"), newKey("k3", "PS256")}
	v := newProvider(keys...).verifier(f)
	for i, k := range keys {
		f.Add(k.header().text(), claims(), "", true, uint8(i))
		f.Add(k.header().text(), claims(set("aud", []string{"x", audience}), set("nbf", epoch.Unix()), set("roles", []string{"a"})), "", true, uint8(i))
		h, p, s := parts(k.token())
		header, _ := base64.RawURLEncoding.DecodeString(h)
		payload, _ := base64.RawURLEncoding.DecodeString(p)
		f.Add(string(header), string(payload), s, false, uint8(i))
	}
	es := keys[0]
	for _, header := range []string{
		es.header().with("alg", "none").text(), es.header().with("crit", []string{"exp"}).text(), es.header().with("typ", "JWT").text(),
		`{"alg":"none","alg":"ES256","kid":"k1","typ":"at+jwt"}`, es.header().with("jwk", raw(es.jwk())).text(),
	} {
		f.Add(header, claims(), "", true, uint8(0))
	}
	for _, payload := range []string{
		claims(set("exp", raw("1e400"))), claims(set("exp", 1)), claims(set("iss", "x")), claims(set("aud", object{})),
		claims(set("cnf", object{"jkt": "x"})), `{"iss":"a",` + claims()[1:], claims() + "x", `{"\u0069ss":"x",` + claims()[1:],
	} {
		f.Add(es.header().text(), payload, "", true, uint8(0))
	}
	f.Fuzz(func(t *testing.T, header, payload, signature string, sign bool, which uint8) {
		token := b64(header) + "." + b64(payload) + "." + signature
		if sign {
			token = keys[int(which)%len(keys)].sign(header, payload)
		}
		c, err := v.Verify(context.Background(), token)
		if (c == nil) != (err != nil) {
			t.Fatalf("claims %v with error %v", c, err)
		}
		if err != nil {
			return
		}
		if fault := oracle(keys, token); fault != "" {
			t.Fatalf("accepted what the oracle refuses (%s): %s", fault, token)
		}
	})
}

// oracle verifies with go-jose and encoding/json alone, by the book: RFC 9068 §4.
func oracle(keys []signingKey, token string) (fault string) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256, jose.PS256})
	if err != nil {
		return err.Error()
	}
	h := parsed.Headers[0]
	typ, _ := h.ExtraHeaders[jose.HeaderType].(string)
	if typ = strings.TrimPrefix(strings.ToLower(typ), "application/"); typ != "at+jwt" {
		return "typ"
	}
	if h.JSONWebKey != nil || h.ExtraHeaders["crit"] != nil {
		return "header"
	}
	i := slices.IndexFunc(keys, func(k signingKey) bool { return k.kid == h.KeyID && k.alg == h.Algorithm })
	if i < 0 {
		return "key"
	}
	var c jwt.Claims
	all := map[string]any{}
	if err := parsed.Claims(keys[i].private.Public(), &c, &all); err != nil {
		return err.Error()
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(strings.Split(token, ".")[1])
	if err != nil || !json.Valid(text) {
		return "payload"
	}
	if err := c.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: []string{audience}, Time: epoch}, 30*time.Second); err != nil {
		return err.Error()
	}
	if c.Expiry == nil || c.IssuedAt == nil || c.ID == "" || c.Subject == "" || all["client_id"] == nil {
		return "required claim"
	}
	if _, bound := all["cnf"]; bound {
		return "bound"
	}
	return ""
}
