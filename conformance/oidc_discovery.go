package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// OpenID Connect Discovery 1.0: the provider's configuration.
func oidcDiscoveryChecks() []Check {
	const spec = "OIDC Discovery"
	return []Check{
		{"oidc-discovery-response", spec, "§4.2", "the configuration is served as application/json", nil,
			func(_ context.Context, e *Env) error { return e.openid.served() }},
		{"oidc-discovery-issuer", spec, "§4.3", "issuer in the configuration equals the issuer used", nil,
			func(_ context.Context, e *Env) error { return e.openid.namesIssuer(e.Issuer) }},
		{"oidc-discovery-required", spec, "§3", "every required member is present", nil,
			func(_ context.Context, e *Env) error {
				return e.openid.has("issuer", "jwks_uri", "subject_types_supported", "id_token_signing_alg_values_supported")
			}},
		{"oidc-discovery-types", spec, "§3", "members have the types the registry gives them", nil,
			func(_ context.Context, e *Env) error { return e.openid.wellTyped() }},
		{"oidc-discovery-endpoints", spec, "§3", "endpoints are absolute https URLs without fragment (http on loopback)", nil,
			func(_ context.Context, e *Env) error { return e.openid.endpointsSecure(e) }},
		{"oidc-discovery-subject-types", spec, "§3", "subject_types_supported holds only public and pairwise", nil,
			func(_ context.Context, e *Env) error {
				return e.openid.listWithin("subject_types_supported", "public", "pairwise")
			}},
		{"oidc-discovery-rs256", spec, "§3", "ID tokens may be signed with RS256, never with none", nil, discoveryRS256},
		{"oidc-discovery-signing-keys", spec, "§3", "every ID token algorithm offered has a key in the JWKS", nil, discoverySigningKeys},
		{"oidc-discovery-openid-scope", spec, "§3", "scopes_supported includes openid",
			[]Need{endpoint("authorization_endpoint")},
			func(_ context.Context, e *Env) error { return e.openid.listHolds("scopes_supported", "openid") }},
	}
}

// served judges how a metadata document comes: status, media type, one object.
func (d document) served() error {
	if d.err != nil {
		return d.err
	}
	_, err := d.answer.wantJSON(http.StatusOK)
	return err
}

// read returns the members, or why there are none.
func (d document) read() (map[string]any, error) {
	if d.members != nil {
		return d.members, nil
	}
	return nil, fmt.Errorf("%s: %w", d.url, errNoMetadata)
}

// namesIssuer compares without normalising, as both specifications demand.
func (d document) namesIssuer(issuer string) error {
	m, err := d.read()
	if err != nil {
		return err
	}
	if m["issuer"] != issuer {
		return unexpected("issuer", m["issuer"], issuer)
	}
	return nil
}

// has checks required members. RFC 8414 §2 asks for the endpoints and response
// types only where a grant uses them, and an absent grant_types_supported means
// authorization_code and implicit.
func (d document) has(members ...string) error {
	m, err := d.read()
	if err != nil {
		return err
	}
	grants, ok := stringList(m["grant_types_supported"])
	if !ok {
		grants = []string{"authorization_code", "implicit"}
	}
	if slices.Contains(grants, "authorization_code") || slices.Contains(grants, "implicit") {
		members = append(members, "authorization_endpoint", "response_types_supported")
	}
	if slices.ContainsFunc(grants, func(g string) bool { return g != "implicit" }) {
		members = append(members, "token_endpoint")
	}
	for _, name := range members {
		if m[name] == nil {
			return unexpected(name, nil, plain("a value"))
		}
	}
	return nil
}

// wellTyped judges members by the form of their names, which the registry of
// authorization server metadata keeps to.
func (d document) wellTyped() error {
	m, err := d.read()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v := m[name]
		switch {
		case name == "issuer", isEndpoint(name):
			if _, ok := v.(string); !ok {
				return unexpected(name, v, plain("a string"))
			}
		case strings.HasSuffix(name, "_parameter_supported"), strings.HasPrefix(name, "require_"),
			name == "backchannel_logout_supported", name == "frontchannel_logout_supported":
			if _, ok := v.(bool); !ok {
				return unexpected(name, v, plain("a boolean"))
			}
		case strings.HasSuffix(name, "s_supported"):
			if _, ok := stringList(v); !ok {
				return unexpected(name, v, plain("an array of strings"))
			}
		}
	}
	return nil
}

func isEndpoint(member string) bool {
	return strings.HasSuffix(member, "_endpoint") || member == "jwks_uri"
}

func (d document) endpointsSecure(e *Env) error {
	m, err := d.read()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if s, ok := m[name].(string); ok && isEndpoint(name) {
			if err := e.secureURL(s); err != nil {
				return fmt.Errorf("%s %q: %w", name, s, err)
			}
		}
	}
	return nil
}

// list reads an array of strings that must be there.
func (d document) list(member string) ([]string, error) {
	m, err := d.read()
	if err != nil {
		return nil, err
	}
	list, ok := stringList(m[member])
	if !ok {
		return nil, unexpected(member, m[member], plain("an array of strings"))
	}
	return list, nil
}

func (d document) listHolds(member, value string) error {
	list, err := d.list(member)
	if err != nil {
		return err
	}
	if !slices.Contains(list, value) {
		return unexpected(member, list, plain("one that holds "+value))
	}
	return nil
}

// listWithin judges a list where it is present; has judges its presence.
func (d document) listWithin(member string, allowed ...string) error {
	m, err := d.read()
	if err != nil || m[member] == nil {
		return err
	}
	list, err := d.list(member)
	if err != nil {
		return err
	}
	for _, s := range list {
		if !slices.Contains(allowed, s) {
			return unexpected(member, list, plain("only "+strings.Join(allowed, ", ")))
		}
	}
	return nil
}

func discoveryRS256(_ context.Context, e *Env) error {
	const member = "id_token_signing_alg_values_supported"
	if err := e.openid.listHolds(member, "RS256"); err != nil {
		return err
	}
	if e.supports(member, "none") {
		return fmt.Errorf("%s holds none", member)
	}
	return nil
}

func discoverySigningKeys(ctx context.Context, e *Env) error {
	algs, err := e.openid.list("id_token_signing_alg_values_supported")
	if err != nil {
		return err
	}
	keys, err := e.keys(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("the JWKS holds no key")
	}
	for _, alg := range algs {
		if !slices.ContainsFunc(keys, func(k publishedKey) bool { return k.member["alg"] == alg }) {
			return unexpected("keys for "+alg, plain("none"), plain("at least one"))
		}
	}
	return nil
}
