package main

import (
	"context"
	"net/http"
	"net/url"
	"slices"
)

// RFC 8707: resource indicators.
func rfc8707Checks() []Check {
	const spec = "RFC 8707"
	known := []Need{endpoint("token_endpoint"), client()}
	person := signIn(resource(), scope())
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
		{"rfc8707-code", spec, "§2.1", "a code for a resource brings a token for it, and for no other", person,
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx, set("resource", e.Resource), set("scope", e.Scope), unset("nonce"))
				if err != nil {
					return err
				}
				access, err := parseAccessToken(t.access)
				if err != nil {
					return err
				}
				return access.wantAudience(e.Resource)
			}},
		{"rfc8707-narrower", spec, "§2.2", "a code for two resources brings a token for the one that is asked for then", with(person, protectedResource()),
			func(ctx context.Context, e *Env) error {
				f, err := e.flow(ctx, set("resource", e.Resource), add("resource", e.Protected), set("scope", e.Scope+" "+e.ProtectedScope), unset("nonce"))
				if err != nil {
					return err
				}
				t, err := f.tokens(ctx, set("resource", e.Protected))
				if err != nil {
					return err
				}
				access, err := parseAccessToken(t.access)
				if err != nil {
					return err
				}
				if granted := access.claims["scope"]; granted != e.ProtectedScope {
					return unexpected("scope", granted, e.ProtectedScope)
				}
				return access.wantAudience(e.Protected)
			}},
		{"rfc8707-authorize-unknown", spec, "§2", "an unknown resource is invalid_target at the app", signIn(),
			refusing([]string{"invalid_target"}, set("resource", "https://no-such-resource.example"))},
		{"rfc8707-code-other", spec, "§2.2", "a resource that was not asked for is invalid_target for a code", signIn(),
			redeeming([]string{"invalid_target"}, set("resource", "https://no-such-resource.example"))},
		{"rfc8707-refresh-other", spec, "§2.2", "a resource that was not asked for is invalid_target at a refresh", signIn(grant("refresh_token")),
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				a, err := e.refreshed(ctx, e.Web.Credentials, t.refresh, set("resource", "https://no-such-resource.example"))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_target")
			}},
		{"rfc8707-userinfo", spec, "§2", "a token for a resource is not accepted by another: userinfo", with(person, endpoint("userinfo_endpoint")),
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx, set("resource", e.Resource), set("scope", e.Scope), unset("nonce"))
				if err != nil {
					return err
				}
				a, err := e.userinfo(ctx, t.access)
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden {
					return unexpected("answer", a, plain("status 401 or 403"))
				}
				return nil
			}},
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
