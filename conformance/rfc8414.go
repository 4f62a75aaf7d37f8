package main

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// RFC 8414: OAuth 2.0 Authorization Server Metadata.
func rfc8414Checks() []Check {
	const spec = "RFC 8414"
	return []Check{
		{"rfc8414-response", spec, "§3.1", "metadata is served as application/json, the well-known path before the issuer's own", nil,
			func(_ context.Context, e *Env) error { return e.oauth.served() }},
		{"rfc8414-issuer", spec, "§3.3", "issuer in metadata equals the issuer used", nil,
			func(_ context.Context, e *Env) error { return e.oauth.namesIssuer(e.Issuer) }},
		{"rfc8414-required", spec, "§2", "every required member is present", nil,
			func(_ context.Context, e *Env) error { return e.oauth.has("issuer") }},
		{"rfc8414-types", spec, "§2", "members have the types the registry gives them", nil,
			func(_ context.Context, e *Env) error { return e.oauth.wellTyped() }},
		{"rfc8414-no-empty-lists", spec, "§3.2", "no list is empty", nil, metadataNoEmptyLists},
		{"rfc8414-auth-methods", spec, "§2", "client authentication methods are registered ones", nil, metadataAuthMethods},
		{"rfc8414-auth-algs", spec, "§2", "algorithms for signed client authentication are listed, none is not among them", nil, metadataAuthAlgs},
		{"rfc8414-agrees", spec, "§2", "metadata and OpenID configuration give members the same values", nil, metadataAgrees},
	}
}

func metadataNoEmptyLists(_ context.Context, e *Env) error {
	m, err := e.oauth.read()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		// response_types_supported is required, so it stays where nothing can be listed.
		if list, ok := m[name].([]any); ok && len(list) == 0 && name != "response_types_supported" {
			return unexpected(name, list, plain("values, or no such member"))
		}
	}
	return nil
}

// authMembers are the prefixes of the members on client authentication.
func authMembers() []string { return []string{"token", "introspection", "revocation"} }

func metadataAuthMethods(_ context.Context, e *Env) error {
	for _, at := range authMembers() {
		// IANA, OAuth Token Endpoint Authentication Methods.
		if err := e.oauth.listWithin(at+"_endpoint_auth_methods_supported",
			"none", "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt",
			"tls_client_auth", "self_signed_tls_client_auth"); err != nil {
			return err
		}
	}
	return nil
}

func metadataAuthAlgs(_ context.Context, e *Env) error {
	m, err := e.oauth.read()
	if err != nil {
		return err
	}
	for _, at := range authMembers() {
		methods, _ := stringList(m[at+"_endpoint_auth_methods_supported"])
		if !strings.Contains(strings.Join(methods, " "), "_jwt") {
			continue
		}
		member := at + "_endpoint_auth_signing_alg_values_supported"
		algs, err := e.oauth.list(member)
		if err != nil {
			return err
		}
		for _, alg := range algs {
			if alg == "none" {
				return fmt.Errorf("%s holds none", member)
			}
		}
	}
	return nil
}

func metadataAgrees(_ context.Context, e *Env) error {
	oauth, err := e.oauth.read()
	if err != nil {
		return err
	}
	openid, err := e.openid.read()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(oauth)) {
		if name == "issuer" { // judged for each document on its own
			continue
		}
		if other, ok := openid[name]; ok && !reflect.DeepEqual(oauth[name], other) {
			return unexpected(name, oauth[name], other)
		}
	}
	return nil
}
