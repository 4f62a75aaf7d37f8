package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// RFC 9068: access tokens as JWTs.
func rfc9068Checks() []Check {
	const spec = "RFC 9068"
	known := []Need{endpoint("token_endpoint"), client()}
	judged := func(id, spec, section, name string, rule func(*Env, token) error, more ...Need) Check {
		return Check{id, spec, section, name, slices.Concat(known, more), func(ctx context.Context, e *Env) error {
			t, err := e.issueJWT(ctx, e.clientCredentials())
			if err != nil {
				return err
			}
			return rule(e, t)
		}}
	}
	return []Check{
		judged("rfc9068-typ", spec, "§2.1", "typ is at+jwt", tokenType),
		judged("rfc9068-header", "RFC 8725", "§3.1", "the header holds typ, alg and kid and nothing else", tokenHeader),
		{"rfc9068-signature", spec, "§4", "the signature verifies with the published key of that kid and algorithm",
			append(known, endpoint("jwks_uri")), tokenSignature},
		judged("rfc9068-claims", spec, "§2.2", "every required claim is there, with its type", tokenClaims),
		judged("rfc9068-iss", spec, "§4", "iss is the issuer", func(e *Env, t token) error {
			return t.wantClaim("iss", e.Issuer)
		}),
		judged("rfc9068-client", spec, "§2.2", "client_id is the client that asked", func(e *Env, t token) error {
			return t.wantClaim("client_id", e.Client.ID)
		}),
		judged("rfc9068-sub", spec, "§2.2", "without a person, sub is the client", func(e *Env, t token) error {
			return t.wantClaim("sub", e.Client.ID)
		}),
		judged("rfc7519-dates", "RFC 7519", "§2", "times are whole seconds, iat now and exp later", tokenDates),
		judged("rfc9068-lifetime", "RFC 6749", "§5.1", "expires_in agrees with exp and is an hour at most", tokenLifetime),
		judged("rfc9068-scope", spec, "§2.2.3", "the scope claim is a string and what the answer says was granted", func(e *Env, t token) error {
			return t.wantClaim("scope", t.scope(e.Scope))
		}, scope()),
		judged("rfc9068-privacy", spec, "§6", "the token tells nothing of a person", tokenPrivacy),
		{"rfc9068-default-audience", spec, "§3", "without resource, the token is for the owner of the scope",
			append(known, resource(), scope()), func(ctx context.Context, e *Env) error {
				form := e.clientCredentials()
				form.Del("resource")
				t, err := e.issueJWT(ctx, form)
				if err != nil {
					return err
				}
				return t.wantAudience(e.Resource)
			}},
		{"rfc9068-jti", "RFC 7519", "§4.1.7", "no two tokens share a jti", known, tokenUniqueID},
		{"rfc9068-person", spec, "§2.2", "with a person, sub is theirs and client_id the app", signIn(),
			holding(func(_ context.Context, e *Env, t *tokens) error {
				id, err := t.idToken()
				if err != nil {
					return err
				}
				access, err := parseAccessToken(t.access)
				if err != nil {
					return err
				}
				return errors.Join(access.wantClaim("sub", fmt.Sprint(id.claims["sub"])), access.wantClaim("client_id", e.Web.ID))
			})},
		{"rfc9068-auth-time", spec, "§2.2.1", "auth_time of a person's access token is that of the ID token", signIn(),
			holding(func(_ context.Context, _ *Env, t *tokens) error {
				id, err := t.idToken()
				if err != nil {
					return err
				}
				access, err := parseAccessToken(t.access)
				if err != nil {
					return err
				}
				if got := access.claims["auth_time"]; got != nil && id.claims["auth_time"] != nil && show(got) != show(id.claims["auth_time"]) {
					return unexpected("auth_time", got, id.claims["auth_time"])
				}
				return nil
			})},
	}
}

func (t token) wantClaim(name, want string) error {
	if t.claims[name] != want {
		return unexpected(name, t.claims[name], want)
	}
	return nil
}

func tokenType(_ *Env, t token) error {
	typ, _ := t.header["typ"].(string)
	// RFC 7515 §4.1.9: the prefix may be left out, case does not matter.
	if s := strings.ToLower(typ); s != "at+jwt" && s != "application/at+jwt" {
		return unexpected("typ", t.header["typ"], "at+jwt")
	}
	return nil
}

func tokenHeader(_ *Env, t token) error {
	for name := range t.header {
		if !slices.Contains([]string{"typ", "alg", "kid"}, name) {
			return unexpected("header", t.header, plain("no "+name))
		}
	}
	return nil
}

func tokenSignature(ctx context.Context, e *Env) error {
	t, err := e.issueJWT(ctx, e.clientCredentials())
	if err != nil {
		return err
	}
	return e.wantSigned(ctx, t)
}

// wantSigned verifies a JWT with the published key that it names.
func (e *Env) wantSigned(ctx context.Context, t token) error {
	keys, err := e.keys(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(keys, func(k publishedKey) bool { return k.kid() != "" && k.kid() == t.header["kid"] })
	if i < 0 {
		return unexpected("kid", t.header["kid"], plain("one of the JWKS"))
	}
	key := keys[i]
	if key.fault != nil {
		return fmt.Errorf("key %q: %w", key.kid(), key.fault)
	}
	if key.member["alg"] != t.header["alg"] {
		return unexpected("alg", t.header["alg"], key.member["alg"])
	}
	jws, err := jose.ParseSignedCompact(t.raw, []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	})
	if err != nil {
		return fmt.Errorf("JWT: %w", err)
	}
	if _, err := jws.Verify(key.jwk); err != nil {
		return errors.New("the signature does not verify")
	}
	return nil
}

func tokenClaims(_ *Env, t token) error {
	for _, name := range []string{"iss", "sub", "client_id", "jti"} {
		if s, _ := t.claims[name].(string); s == "" {
			return unexpected(name, t.claims[name], plain("a string"))
		}
	}
	for _, name := range []string{"exp", "iat"} {
		if _, ok := t.claims[name].(json.Number); !ok {
			return unexpected(name, t.claims[name], plain("a number"))
		}
	}
	if s, _ := t.claims["aud"].(string); s != "" {
		return nil
	}
	if list, ok := stringList(t.claims["aud"]); !ok || len(list) == 0 {
		return unexpected("aud", t.claims["aud"], plain("a string or a list of strings, not empty"))
	}
	return nil
}

// seconds reads a claim that must be a whole number of seconds.
func (t token) seconds(name string) (int64, error) {
	n, _ := t.claims[name].(json.Number)
	s, err := n.Int64()
	if err != nil {
		return 0, unexpected(name, t.claims[name], plain("whole seconds"))
	}
	return s, nil
}

// clockSkew is how far apart the clocks of issuer and checker may be.
const clockSkew = 60 * time.Second

func tokenDates(e *Env, t token) error {
	iat, err := t.seconds("iat")
	if err != nil {
		return err
	}
	exp, err := t.seconds("exp")
	if err != nil {
		return err
	}
	if now := e.Now(); time.Unix(iat, 0).Sub(now).Abs() > clockSkew {
		return unexpected("iat", iat, plain(fmt.Sprintf("about %d", now.Unix())))
	}
	if exp <= iat {
		return unexpected("exp", exp, plain(fmt.Sprintf("later than iat %d", iat)))
	}
	if _, ok := t.claims["nbf"]; !ok {
		return nil
	}
	if nbf, err := t.seconds("nbf"); err != nil {
		return err
	} else if nbf > iat {
		return unexpected("nbf", nbf, plain(fmt.Sprintf("no later than iat %d", iat)))
	}
	return nil
}

// tokenLifetime compares exp with what the client was told. iat may lie a little
// before the answer, as it dates what the token rests on.
func tokenLifetime(e *Env, t token) error {
	n, _ := t.claims["exp"].(json.Number)
	exp, err := n.Float64()
	if err != nil {
		return unexpected("exp", t.claims["exp"], plain("a number"))
	}
	n, _ = t.member["expires_in"].(json.Number)
	told, err := n.Float64()
	if err != nil {
		return unexpected("expires_in", t.member["expires_in"], plain("a number"))
	}
	if left := exp - float64(e.Now().Unix()); left-told > clockSkew.Seconds() || told-left > clockSkew.Seconds() {
		return unexpected("expires_in", told, plain(fmt.Sprintf("about %.0f, as exp has it", left)))
	}
	if told > time.Hour.Seconds() {
		return unexpected("expires_in", told, plain("3600 at most"))
	}
	return nil
}

func tokenPrivacy(_ *Env, t token) error {
	for _, personal := range []string{
		"name", "given_name", "family_name", "nickname", "preferred_username", "email", "phone_number", "address", "birthdate", "picture",
	} {
		if _, ok := t.claims[personal]; ok {
			return fmt.Errorf("the claim %q is there", personal)
		}
	}
	return nil
}

func tokenUniqueID(ctx context.Context, e *Env) error {
	seen := map[string]bool{}
	for range 8 {
		t, err := e.issueJWT(ctx, e.clientCredentials())
		if err != nil {
			return err
		}
		id, ok := t.claims["jti"].(string)
		if !ok { // rfc9068-claims says so
			continue
		}
		if seen[id] {
			return fmt.Errorf("jti %q came twice", id)
		}
		seen[id] = true
	}
	return nil
}
