package main

import (
	"context"
	"net/url"
	"slices"
)

// RFC 8707: resource indicators.
func rfc8707Checks() []Check {
	const spec = "RFC 8707"
	known := []Need{endpoint("token_endpoint"), client()}
	refused := func(id, name, value string) Check {
		return Check{id, spec, "§2", name, known, func(ctx context.Context, e *Env) error {
			return e.wantTokenError(ctx, url.Values{"grant_type": {"client_credentials"}, "resource": {value}}, "invalid_target")
		}}
	}
	return []Check{
		{"rfc8707-audience", spec, "§2.2", "the token is for the resource asked for, and for no other", append(known, resource()),
			func(ctx context.Context, e *Env) error {
				t, err := e.issueJWT(ctx, e.clientCredentials())
				if err != nil {
					return err
				}
				return t.wantAudience(e.Resource)
			}},
		refused("rfc8707-unknown", "an unknown resource is invalid_target", "https://no-such-resource.example"),
		refused("rfc8707-relative", "a relative resource is invalid_target", "/orders"),
		refused("rfc8707-fragment", "a resource with a fragment is invalid_target", "https://no-such-resource.example/#part"),
	}
}

// wantAudience accepts both spellings of a single audience (RFC 7519 §4.1.3).
func (t token) wantAudience(want string) error {
	if t.claims["aud"] == want {
		return nil
	}
	if list, ok := stringList(t.claims["aud"]); !ok || !slices.Equal(list, []string{want}) {
		return unexpected("aud", t.claims["aud"], want)
	}
	return nil
}
