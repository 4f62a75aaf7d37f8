package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// RFC 7662: token introspection.
func rfc7662Checks() []Check {
	const spec = "RFC 7662"
	anyone := []Need{endpoint("introspection_endpoint")}
	known := []Need{endpoint("introspection_endpoint"), endpoint("token_endpoint"), client()}
	person := signIn(endpoint("introspection_endpoint"), grant("refresh_token"))
	return []Check{
		{"rfc7662-post-only", spec, "§2.1", "the introspection endpoint serves only POST", anyone,
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.endpoint("introspection_endpoint")+"?token=made-up", nil)
				if err != nil {
					return err
				}
				return a.wantMethodNotAllowed()
			}},
		{"rfc7662-authentication", spec, "§2.1", "a caller without credentials is refused", anyone,
			func(ctx context.Context, e *Env) error {
				a, err := e.introspect(ctx, nil, "made-up")
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized && a.Status != http.StatusBadRequest {
					return unexpected("answer", a, plain("status 401 or 400"))
				}
				return nil
			}},
		{"rfc7662-wrong-secret", spec, "§2.3", "a caller with a wrong secret is refused with 401", known,
			func(ctx context.Context, e *Env) error {
				wrong := e.Client.wrong()
				return e.wantIntrospectionRefused(ctx, &wrong)
			}},
		{"rfc7662-public-client", spec, "§2.1", "a public client is refused with 401",
			append(anyone, publicClient()), introspectAsPublicClient},
		{"rfc7662-missing-token", spec, "§2.1", "a request without token is invalid_request", known,
			func(ctx context.Context, e *Env) error {
				a, err := e.post(ctx, e.endpoint("introspection_endpoint"), &e.Client, url.Values{})
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_request")
			}},
		{"rfc7662-active", spec, "§2.2", "a live token is active, told with its own claims", known, introspectActive},
		{"rfc7662-no-store", spec, "§4", "what is true of a token now is not cached", known, introspectNoStore},
		{"rfc7662-hint", spec, "§2.1", "a wrong or unknown token_type_hint does not hide a token", known, introspectHint},
		{"rfc7662-random-token", spec, "§2.2", `of a token nobody issued, nothing is told but {"active":false}`, known,
			func(ctx context.Context, e *Env) error {
				a, err := e.introspect(ctx, &e.Client, "a-token-that-nobody-issued")
				if err != nil {
					return err
				}
				return a.wantInactive()
			}},
		{"rfc7662-altered-token", spec, "§2.2", "a token with another signature is inactive", known, introspectAltered},
		{"rfc7662-foreign-token", spec, "§4", `of another client's token, nothing is told but {"active":false}`,
			append(known, secondClient()), introspectForeign},
		{"rfc7662-refresh-token", spec, "§2.2", "a live refresh token is active for its own client, and inactive once revoked",
			with(person, endpoint("revocation_endpoint")),
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				for _, active := range []bool{true, false} {
					a, err := e.introspect(ctx, &e.Web.Credentials, t.refresh)
					if err != nil {
						return err
					}
					m, err := a.wantJSON(http.StatusOK)
					if err != nil {
						return err
					}
					if m["active"] != active {
						return unexpected("active", m["active"], active)
					}
					if _, err := e.revoke(ctx, &e.Web.Credentials, t.refresh); err != nil {
						return err
					}
				}
				return nil
			}},
		{"rfc7662-foreign-refresh-token", spec, "§4", `of another client's refresh token, nothing is told but {"active":false}`,
			with(person, secondApp()),
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				a, err := e.introspect(ctx, &e.SecondWeb.Credentials, t.refresh)
				if err != nil {
					return err
				}
				return a.wantInactive()
			}},
		{"rfc7662-person", spec, "§2.2", "a person's access token is active, told with their sub and the app", person,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				id, err := t.idToken()
				if err != nil {
					return err
				}
				a, err := e.introspect(ctx, &e.Web.Credentials, t.access)
				if err != nil {
					return err
				}
				m, err := a.wantJSON(http.StatusOK)
				if err != nil {
					return err
				}
				if m["active"] != true {
					return unexpected("active", m["active"], true)
				}
				return errors.Join((token{claims: m}).wantClaim("client_id", e.Web.ID), (token{claims: m}).wantClaim("sub", fmt.Sprint(id.claims["sub"])))
			})},
	}
}

func (e *Env) wantIntrospectionRefused(ctx context.Context, as *Credentials) error {
	a, err := e.introspect(ctx, as, "a-token-that-nobody-issued")
	if err != nil {
		return err
	}
	return a.wantError(http.StatusUnauthorized, "invalid_client")
}

func introspectAsPublicClient(ctx context.Context, e *Env) error {
	a, err := e.post(ctx, e.endpoint("introspection_endpoint"), nil,
		url.Values{"token": {"a-token-that-nobody-issued"}, "client_id": {e.PublicClientID}})
	if err != nil {
		return err
	}
	return a.wantError(http.StatusUnauthorized, "invalid_client")
}

// introspectActive holds the answer against the token: a member that also is a
// claim has the claim's value.
func introspectActive(ctx context.Context, e *Env) error {
	t, err := e.issueJWT(ctx, e.clientCredentials())
	if err != nil {
		return err
	}
	a, err := e.introspect(ctx, &e.Client, t.raw)
	if err != nil {
		return err
	}
	m, err := a.wantJSON(http.StatusOK)
	if err != nil {
		return err
	}
	if m["active"] != true {
		return unexpected("active", m["active"], true)
	}
	for _, name := range []string{"iss", "sub", "aud", "client_id", "scope", "exp", "iat", "jti"} {
		if claim, ok := t.claims[name]; ok && !reflect.DeepEqual(m[name], claim) {
			return unexpected(name, m[name], claim)
		}
	}
	if kind, _ := m["token_type"].(string); !strings.EqualFold(kind, "Bearer") {
		return unexpected("token_type", m["token_type"], "Bearer")
	}
	return nil
}

func introspectNoStore(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	a, err := e.introspect(ctx, &e.Client, t.raw)
	if err != nil {
		return err
	}
	return a.wantNoStore()
}

func introspectHint(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	for _, hint := range []string{"refresh_token", "no_such_kind_of_token"} {
		a, err := e.post(ctx, e.endpoint("introspection_endpoint"), &e.Client, url.Values{"token": {t.raw}, "token_type_hint": {hint}})
		if err != nil {
			return err
		}
		m, err := a.wantJSON(http.StatusOK)
		if err != nil {
			return fmt.Errorf("with the hint %s: %w", hint, err)
		}
		if m["active"] != true {
			return unexpected("active with the hint "+hint, m["active"], true)
		}
	}
	return nil
}

// alterSignature changes the first character of the signature: the last one may
// carry bits that no decoder looks at.
func alterSignature(jws string) string {
	i := strings.LastIndexByte(jws, '.') + 1
	other := "A"
	if strings.HasPrefix(jws[i:], other) {
		other = "B"
	}
	return jws[:i] + other + jws[min(i+1, len(jws)):]
}

func introspectAltered(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	a, err := e.introspect(ctx, &e.Client, alterSignature(t.raw))
	if err != nil {
		return err
	}
	return a.wantInactive()
}

func introspectForeign(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	a, err := e.introspect(ctx, &e.Second, t.raw)
	if err != nil {
		return err
	}
	return a.wantInactive()
}
