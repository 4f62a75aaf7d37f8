package main

import (
	"context"
	"errors"
	"net/http"
)

// OpenID Connect Dynamic Client Registration 1.0, beyond RFC 7591: what a client
// registered is what it then gets.
func oidcRegistrationChecks() []Check {
	const spec = "OIDC Registration"
	who := with(signIn(), registration())
	return []Check{
		{"oidc-registration-flow", spec, "§3.2", "people can sign in to a client that has just registered", who,
			registering(func(ctx context.Context, e *Env, r *registered) error {
				t, err := e.tokensOf(ctx, r)
				if err != nil {
					return err
				}
				id, err := t.idToken()
				if err != nil {
					return err
				}
				return id.wantAudience(r.id)
			})},
		{"oidc-registration-redirect", spec, "§2", "only the redirect URIs that were registered are redirected to", who,
			registering(func(ctx context.Context, e *Env, r *registered) error {
				f, err := e.flowFor(ctx, r.app(e), set("redirect_uri", "https://other.example/cb"))
				if err != nil {
					return err
				}
				return f.wantPage()
			})},
		{"oidc-registration-id-token-alg", spec, "§2", "ID tokens are signed with the algorithm that was registered", who,
			func(ctx context.Context, e *Env) error {
				alg := e.otherAlg("id_token_signing_alg_values_supported")
				if alg == "" {
					return notOffered("needs another algorithm than RS256 in id_token_signing_alg_values_supported")
				}
				return registering(func(ctx context.Context, e *Env, r *registered) error {
					t, err := e.tokensOf(ctx, r)
					if err != nil {
						return err
					}
					id, err := t.idToken()
					if err != nil {
						return err
					}
					if id.header["alg"] != alg {
						return unexpected("alg", id.header["alg"], alg)
					}
					return e.wantSigned(ctx, id)
				}, member("id_token_signed_response_alg", alg))(ctx, e)
			}},
		{"oidc-registration-userinfo-alg", spec, "§2", "userinfo is signed for who registered that, with iss and aud in it", with(who, endpoint("userinfo_endpoint"),
			Need{"RS256 in userinfo_signing_alg_values_supported", func(e *Env) bool { return e.supports("userinfo_signing_alg_values_supported", "RS256") }}),
			registering(func(ctx context.Context, e *Env, r *registered) error {
				t, err := e.tokensOf(ctx, r)
				if err != nil {
					return err
				}
				a, err := e.userinfo(ctx, t.access)
				if err != nil {
					return err
				}
				if a.Status != http.StatusOK {
					return unexpected("userinfo", a, plain("status 200"))
				}
				if err := a.wantMediaType("application/jwt"); err != nil {
					return err
				}
				told, err := parseJWT("userinfo answer", string(a.Body))
				if err != nil {
					return err
				}
				id, err := t.idToken()
				if err != nil {
					return err
				}
				if told.claims["sub"] != id.claims["sub"] {
					return unexpected("sub", told.claims["sub"], id.claims["sub"])
				}
				return errors.Join(told.wantClaim("iss", e.Issuer), told.wantAudience(r.id), e.wantSigned(ctx, told))
			}, member("userinfo_signed_response_alg", "RS256"))},
		{"oidc-registration-auth-time", spec, "§2", "a client that registered require_auth_time has auth_time in its ID tokens", who,
			registering(func(ctx context.Context, e *Env, r *registered) error {
				t, err := e.tokensOf(ctx, r)
				if err != nil {
					return err
				}
				id, err := t.idToken()
				if err != nil {
					return err
				}
				return id.wantAuthTime()
			}, member("require_auth_time", true))},
		{"oidc-registration-max-age", spec, "§2", "default_max_age counts where a request has no max_age", who,
			registering(func(ctx context.Context, e *Env, r *registered) error {
				f, err := e.flowFor(ctx, r.app(e))
				if err != nil {
					return err
				}
				return errors.Join(f.wantCode(), f.wantShown(pageLogin))
			}, member("default_max_age", 0))},
		{"oidc-registration-initiate-login", "OIDC Core", "§4", "initiate_login_uri without https is refused, or not registered", []Need{registration()},
			func(ctx context.Context, e *Env) error {
				const address = "http://app.example/begin"
				a, err := e.attempt(ctx, member("initiate_login_uri", address))
				if err != nil || a.Status == http.StatusBadRequest {
					return err
				}
				if m, err := a.object(); err != nil || m["initiate_login_uri"] == address {
					return unexpected("initiate_login_uri", m["initiate_login_uri"], plain("a refusal"))
				}
				return nil
			}},
		{"oidc-registration-subject-type", spec, "§2", "a subject_type that the metadata does not offer is refused, or another one registered", []Need{registration()},
			neverRegistered("subject_type", "no-such-type")},
		{"oidc-pairwise", oidcCore, "§8.1", "with pairwise subjects, clients of one host know a person by one sub, which is not their public one", with(who, pairwise()),
			func(ctx context.Context, e *Env) error {
				public, err := e.idToken(ctx)
				if err != nil {
					return err
				}
				first, err := e.pairwiseSubject(ctx)
				if err != nil {
					return err
				}
				second, err := e.pairwiseSubject(ctx)
				if err != nil {
					return err
				}
				if first == public.claims["sub"] {
					return unexpected("sub", first, plain("another than the public one"))
				}
				if first != second {
					return unexpected("sub", second, first)
				}
				return nil
			}},
		{"oidc-pairwise-hosts", oidcCore, "§8.1", "pairwise subjects for redirect URIs of two hosts need a sector_identifier_uri", []Need{registration(), pairwise()},
			notRegistrable(member("subject_type", "pairwise"), member("redirect_uris", []string{"https://app.example/cb", "https://other.example/cb"}))},
		{"oidc-sector-https", spec, "§5", "a sector_identifier_uri without https is refused", []Need{registration(), pairwise()},
			notRegistrable(member("subject_type", "pairwise"), member("sector_identifier_uri", "http://app.example/sector"))},
	}
}

func pairwise() Need {
	return Need{"pairwise in subject_types_supported", func(e *Env) bool { return e.supports("subject_types_supported", "pairwise") }}
}

// pairwiseSubject is what a new client with pairwise subjects calls the person.
func (e *Env) pairwiseSubject(ctx context.Context) (sub any, err error) {
	err = registering(func(ctx context.Context, e *Env, r *registered) error {
		t, err := e.tokensOf(ctx, r)
		if err != nil {
			return err
		}
		id, err := t.idToken()
		sub = id.claims["sub"]
		return err
	}, member("subject_type", "pairwise"))(ctx, e)
	return sub, err
}

// tokensOf signs the person in to a client that has just registered.
func (e *Env) tokensOf(ctx context.Context, r *registered) (*tokens, error) {
	f, err := e.flowFor(ctx, r.app(e))
	if err != nil {
		return nil, err
	}
	return f.tokens(ctx)
}

// otherAlg is an algorithm of a list in the metadata that nobody gets by default.
func (e *Env) otherAlg(list string) string {
	for _, alg := range []string{"ES256", "PS256", "EdDSA", "RS512", "ES384"} {
		if e.supports(list, alg) {
			return alg
		}
	}
	return ""
}
