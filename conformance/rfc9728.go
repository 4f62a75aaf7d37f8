package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// RFC 9728: what a protected resource says of itself, and RFC 6750 and RFC 9068
// where its tokens are used.
func rfc9728Checks() []Check {
	const spec = "RFC 9728"
	who := []Need{protectedResource()}
	caller := append(who, client(), endpoint("token_endpoint"))
	described := func(id, section, name string, rule func(*Env, map[string]any) error) Check {
		return Check{id, spec, section, name, who, func(ctx context.Context, e *Env) error {
			a, err := e.get(ctx, insertWellKnown(e.Protected, "oauth-protected-resource"), nil)
			if err != nil {
				return err
			}
			m, err := a.wantJSON(http.StatusOK)
			if err != nil {
				return err
			}
			return rule(e, m)
		}}
	}
	refused := func(id, spec, section, name string, tok func(context.Context, *Env) (string, error)) Check {
		return Check{id, spec, section, name, caller, func(ctx context.Context, e *Env) error {
			t, err := tok(ctx, e)
			if err != nil {
				return err
			}
			a, err := e.get(ctx, e.Protected, http.Header{"Authorization": {"Bearer " + t}})
			if err != nil {
				return err
			}
			return a.wantInvalidToken()
		}}
	}
	return []Check{
		described("rfc9728-response", "§3.2", "the resource describes itself as application/json, the well-known path before its own", func(*Env, map[string]any) error { return nil }),
		described("rfc9728-resource", "§3.3", "resource is the resource's own address", func(e *Env, m map[string]any) error {
			if m["resource"] != e.Protected {
				return unexpected("resource", m["resource"], e.Protected)
			}
			return nil
		}),
		described("rfc9728-issuer", "§2", "authorization_servers names the issuer", func(e *Env, m map[string]any) error {
			if list, _ := stringList(m["authorization_servers"]); !slices.Contains(list, e.Issuer) {
				return unexpected("authorization_servers", m["authorization_servers"], []string{e.Issuer})
			}
			return nil
		}),
		described("rfc9728-lists", "§3.2", "lists are arrays of strings, and none is empty", func(_ *Env, m map[string]any) error {
			for _, name := range []string{"authorization_servers", "scopes_supported", "bearer_methods_supported", "resource_signing_alg_values_supported"} {
				if list, ok := stringList(m[name]); m[name] != nil && (!ok || name != "bearer_methods_supported" && len(list) == 0) {
					return unexpected(name, m[name], plain("strings, at least one"))
				}
			}
			return nil
		}),
		described("rfc9728-values", "§2", "bearer_methods_supported holds header, body and query at most, and no algorithm is none", func(_ *Env, m map[string]any) error {
			methods, _ := stringList(m["bearer_methods_supported"])
			if slices.ContainsFunc(methods, func(s string) bool { return !slices.Contains([]string{"header", "body", "query"}, s) }) {
				return unexpected("bearer_methods_supported", methods, []string{"header", "body", "query"})
			}
			if algs, _ := stringList(m["resource_signing_alg_values_supported"]); slices.Contains(algs, "none") {
				return unexpected("resource_signing_alg_values_supported", algs, plain("no none"))
			}
			return nil
		}),
		{"rfc9728-challenge", spec, "§5.1", "resource_metadata of a challenge is where the resource describes itself", who,
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.Protected, nil)
				if err != nil {
					return err
				}
				challenge, err := a.bearerChallenge()
				if err != nil {
					return err
				}
				if challenge["resource_metadata"] == "" {
					return notOffered("the resource's challenge has no resource_metadata")
				}
				if want := insertWellKnown(e.Protected, "oauth-protected-resource"); challenge["resource_metadata"] != want {
					return unexpected("resource_metadata", challenge["resource_metadata"], want)
				}
				return nil
			}},
		{"resource-no-token", "RFC 6750", "§3.1", "a request without a token is answered 401, with a challenge that finds no fault", who,
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.Protected, nil)
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized {
					return unexpected("answer", a, plain("status 401"))
				}
				challenge, err := a.bearerChallenge()
				if err == nil && challenge["error"] != "" {
					err = unexpected("error of the challenge", challenge["error"], nil)
				}
				return err
			}},
		{"resource-accepted", "RFC 9068", "§4", "a token for the resource, with its scope, is accepted", caller,
			func(ctx context.Context, e *Env) error {
				t, err := e.issueProtected(ctx)
				if err != nil {
					return err
				}
				a, err := e.get(ctx, e.Protected, http.Header{"Authorization": {"Bearer " + t.raw}})
				if err != nil {
					return err
				}
				if a.Status >= http.StatusBadRequest {
					return unexpected("answer", a, plain("an answer without an error"))
				}
				return nil
			}},
		refused("resource-made-up", "RFC 6750", "§3.1", "a token that nobody issued is invalid_token", func(context.Context, *Env) (string, error) { return "made-up", nil }),
		refused("resource-altered", "RFC 9068", "§4", "a token with another signature is invalid_token", func(ctx context.Context, e *Env) (string, error) {
			t, err := e.issueProtected(ctx)
			return alterSignature(t.raw), err
		}),
		refused("resource-audience", "RFC 9068", "§4", "a token for another resource is invalid_token", func(ctx context.Context, e *Env) (string, error) {
			if e.Resource == "" || e.Resource == e.Protected {
				return "", notOffered("needs --resource, another one than --protected-resource")
			}
			t, err := e.issue(ctx)
			return t.raw, err
		}),
		{"resource-query", "RFC 9700", "§4.3.2", "a token in the address is not looked at, or refused", caller,
			func(ctx context.Context, e *Env) error {
				t, err := e.issueProtected(ctx)
				if err != nil {
					return err
				}
				a, err := e.get(ctx, e.Protected+"?"+url.Values{"access_token": {t.raw}}.Encode(), nil)
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized && a.Status != http.StatusBadRequest {
					return unexpected("answer", a, plain("status 401 or 400"))
				}
				return nil
			}},
		{"resource-id-token", "RFC 9068", "§4", "an ID token is no access token", with(signIn(), who...),
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.get(ctx, e.Protected, http.Header{"Authorization": {"Bearer " + t.id}})
				if err != nil {
					return err
				}
				return a.wantInvalidToken()
			})},
	}
}

// protectedResource needs an API that takes the issuer's tokens.
func protectedResource() Need {
	return Need{protectedNeeded, func(e *Env) bool { return e.Protected != "" && e.ProtectedScope != "" }}
}

const protectedNeeded = "--protected-resource and --protected-scope"

// issueProtected gets the main client an access token for the protected resource.
func (e *Env) issueProtected(ctx context.Context) (token, error) {
	t, err := e.issueFor(ctx, url.Values{"grant_type": {"client_credentials"}, "resource": {e.Protected}, "scope": {e.ProtectedScope}})
	if err != nil {
		return t, fmt.Errorf("for --protected-resource: %w", err)
	}
	return t, nil
}

// wantInvalidToken checks for 401 and the error code of a token that is at fault.
func (a *Answer) wantInvalidToken() error {
	if a.Status != http.StatusUnauthorized {
		return unexpected("answer", a, plain("status 401"))
	}
	challenge, err := a.bearerChallenge()
	if err != nil {
		return err
	}
	if challenge["error"] != "invalid_token" {
		return unexpected("error of the challenge", challenge["error"], "invalid_token")
	}
	return nil
}
