package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
)

const signedIntrospection = "application/token-introspection+jwt"

// RFC 9701: introspection answers that the issuer signs.
func rfc9701Checks() []Check {
	const spec = "RFC 9701"
	const algs = "introspection_signing_alg_values_supported"
	needs := []Need{endpoint("introspection_endpoint"), endpoint("token_endpoint"), client(),
		{algs + " in the metadata", func(e *Env) bool { return e.metadata()[algs] != nil }}}
	judged := func(id, name string, rule func(ctx context.Context, e *Env, access string, t token) error) Check {
		return Check{id, spec, "§5", name, needs, func(ctx context.Context, e *Env) error {
			access, err := e.issue(ctx)
			if err != nil {
				return err
			}
			t, err := e.introspectSigned(ctx, access.raw)
			if err != nil {
				return err
			}
			return rule(ctx, e, access.raw, t)
		}}
	}
	return []Check{
		judged("rfc9701-response", "who accepts the media type gets the answer as a JWT of that type", func(context.Context, *Env, string, token) error { return nil }),
		judged("rfc9701-typ", "typ is token-introspection+jwt", func(_ context.Context, _ *Env, _ string, t token) error {
			if t.header["typ"] != "token-introspection+jwt" {
				return unexpected("typ", t.header["typ"], "token-introspection+jwt")
			}
			return nil
		}),
		judged("rfc9701-signature", "the signature verifies with the published key of that kid and algorithm, one of those in the metadata",
			func(ctx context.Context, e *Env, _ string, t token) error {
				if alg, _ := t.header["alg"].(string); !e.supports(algs, alg) {
					return unexpected("alg", t.header["alg"], plain("one of "+algs))
				}
				return e.wantSigned(ctx, t)
			}),
		judged("rfc9701-claims", "iss is the issuer, aud who asked, and iat a time", func(_ context.Context, e *Env, _ string, t token) error {
			_, err := t.seconds("iat")
			return errors.Join(t.wantClaim("iss", e.Issuer), t.wantAudience(e.Client.ID), err)
		}),
		judged("rfc9701-no-sub", "the JWT itself has neither sub nor exp, so that it passes for no other kind of token", func(_ context.Context, _ *Env, _ string, t token) error {
			for _, name := range []string{"sub", "exp"} {
				if t.claims[name] != nil {
					return unexpected(name, t.claims[name], nil)
				}
			}
			return nil
		}),
		judged("rfc9701-content", "token_introspection holds what the answer without signature does", func(ctx context.Context, e *Env, access string, t token) error {
			a, err := e.introspect(ctx, &e.Client, access)
			if err != nil {
				return err
			}
			m, err := a.wantJSON(http.StatusOK)
			if err != nil {
				return err
			}
			if inside, _ := t.claims["token_introspection"].(map[string]any); !reflect.DeepEqual(inside, m) {
				return unexpected("token_introspection", t.claims["token_introspection"], m)
			}
			return nil
		}),
		{"rfc9701-inactive", spec, "§5", `of a token nobody issued, token_introspection tells nothing but {"active":false}`, needs,
			func(ctx context.Context, e *Env) error {
				t, err := e.introspectSigned(ctx, "a-token-that-nobody-issued")
				if err != nil {
					return err
				}
				if m, _ := t.claims["token_introspection"].(map[string]any); len(m) != 1 || m["active"] != false {
					return unexpected("token_introspection", t.claims["token_introspection"], plain(`exactly {"active":false}`))
				}
				return nil
			}},
		judged("rfc9701-no-token", "a signed answer is no access token itself", func(ctx context.Context, e *Env, _ string, t token) error {
			a, err := e.introspect(ctx, &e.Client, t.raw)
			if err != nil || a.Status == http.StatusBadRequest {
				return err
			}
			return a.wantInactive()
		}),
		{"rfc9701-authentication", spec, "§4", "who does not say who they are gets no signed answer", needs,
			func(ctx context.Context, e *Env) error {
				a, err := e.askSigned(ctx, nil, "made-up")
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized && a.Status != http.StatusBadRequest {
					return unexpected("answer", a, plain("status 401 or 400"))
				}
				return nil
			}},
	}
}

// askSigned asks about a token for a signed answer.
func (e *Env) askSigned(ctx context.Context, as *Credentials, tok string) (*Answer, error) {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {signedIntrospection}}
	if as != nil {
		header.Set("Authorization", as.basic(url.QueryEscape))
	}
	return e.do(ctx, http.MethodPost, e.endpoint("introspection_endpoint"), header, []byte(url.Values{"token": {tok}}.Encode()))
}

// introspectSigned is the signed answer to the main client about a token, taken
// apart without judging its signature.
func (e *Env) introspectSigned(ctx context.Context, tok string) (token, error) {
	a, err := e.askSigned(ctx, &e.Client, tok)
	if err != nil {
		return token{}, err
	}
	if a.Status != http.StatusOK {
		return token{}, unexpected("introspection", a, plain("status 200"))
	}
	if err := a.wantMediaType(signedIntrospection); err != nil {
		return token{}, fmt.Errorf("introspection: %w", err)
	}
	return parseJWT("introspection answer", string(a.Body))
}
