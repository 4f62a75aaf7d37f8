package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// RFC 7591: clients that register themselves.
func rfc7591Checks() []Check {
	const spec = "RFC 7591"
	who := []Need{registration()}
	refused := func(id, section, name string, changes ...alteration) Check {
		return Check{id, spec, section, name, who, notRegistrable(changes...)}
	}
	return []Check{
		{"rfc7591-response", spec, "§3.2.1", "a registration is answered 201 with a client_id and what was registered", who,
			registering(func(_ context.Context, e *Env, r *registered) error {
				m, err := r.answer.wantJSON(http.StatusCreated)
				if err != nil {
					return err
				}
				for name, want := range e.registrationDocument() {
					if name != "scope" && show(m[name]) != show(want) { // the issuer may narrow what it lets somebody ask for
						return unexpected(name, m[name], want)
					}
				}
				return nil
			})},
		{"rfc7591-secret", spec, "§3.2.1", "a client_secret comes with when it expires, 0 for never", who,
			registering(func(_ context.Context, e *Env, r *registered) error {
				if r.secret == "" {
					return unexpected("client_secret of a client with client_secret_basic", nil, plain("a string"))
				}
				at, ok := r.member["client_secret_expires_at"].(json.Number)
				if seconds, err := at.Int64(); !ok || err != nil || seconds != 0 && seconds <= e.Now().Unix() {
					return unexpected("client_secret_expires_at", r.member["client_secret_expires_at"], plain("0 or a time to come"))
				}
				return nil
			})},
		{"rfc7591-no-store", spec, "§3.2.1", "the answer, which has a secret, is never cached", who,
			registering(func(_ context.Context, _ *Env, r *registered) error { return r.answer.wantNoStore() })},
		{"rfc7591-post-only", spec, "§3", "clients register by POST and not otherwise", who,
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.endpoint("registration_endpoint"), nil)
				if err != nil {
					return err
				}
				if a.Status < http.StatusBadRequest || a.Status >= http.StatusInternalServerError {
					return unexpected("answer to GET", a, plain("an error like 405"))
				}
				return nil
			}},
		{"rfc7591-json-only", spec, "§3.1", "a form registers nobody", who,
			func(ctx context.Context, e *Env) error {
				header := e.registrationHeader(e.InitialToken)
				header.Set("Content-Type", "application/x-www-form-urlencoded")
				a, err := e.do(ctx, http.MethodPost, e.endpoint("registration_endpoint"), header, []byte(url.Values{"redirect_uris": {e.registrationURI()}}.Encode()))
				if err != nil {
					return err
				}
				if a.Status < http.StatusBadRequest || a.Status >= http.StatusInternalServerError {
					return unexpected("answer to a form", a, plain("an error like 400 or 415"))
				}
				return nil
			}},
		{"rfc7591-no-token", spec, "§3", "where an initial access token is needed, who has none is refused with 401", who, initialTokenNeeded("")},
		{"rfc7591-made-up-token", spec, "§3", "an initial access token that nobody issued is refused with 401", who, initialTokenNeeded("made-up")},
		refused("rfc7591-redirect-uris", "§2", "a client for the code grant without redirect_uris is refused", member("redirect_uris", nil)),
		refused("rfc7591-redirect-fragment", "§2", "a redirect URI with a fragment is refused", member("redirect_uris", []string{"https://app.example/cb#part"})),
		refused("rfc7591-redirect-script", "§5", "a redirect URI that is a script is refused", member("redirect_uris", []string{"javascript:alert(1)"})),
		refused("rfc7591-redirect-relative", "§2", "a relative redirect URI is refused", member("redirect_uris", []string{"/cb"})),
		refused("rfc7591-wrong-type", "§3.2.2", "a member of the wrong type is refused", member("redirect_uris", "https://app.example/cb")),
		refused("rfc7591-two-key-sets", "§2", "jwks and jwks_uri together are refused", withKeys, member("jwks_uri", "https://app.example/jwks")),
		{"rfc7591-auth-method", spec, "§3.2.1", "an unknown authentication method is refused, or another one registered", who, neverRegistered("token_endpoint_auth_method", "client_secret_guess")},
		{"rfc7591-grant-type", spec, "§3.2.1", "an unknown grant is refused, or not registered", who, neverRegistered("grant_types", []string{"authorization_code", "urn:example:no-such-grant"})},
		{"rfc7591-unknown-member", spec, "§2", "a member nobody knows is ignored", who,
			registering(func(context.Context, *Env, *registered) error { return nil }, member("member_nobody_defined", "1"))},
		{"rfc7591-defaults", spec, "§2", "left out, the method is client_secret_basic and the grant authorization_code, and the answer says so", who,
			registering(func(_ context.Context, _ *Env, r *registered) error {
				grants, _ := stringList(r.member["grant_types"])
				types, _ := stringList(r.member["response_types"])
				if r.member["token_endpoint_auth_method"] != "client_secret_basic" || !slices.Equal(grants, []string{"authorization_code"}) || !slices.Equal(types, []string{"code"}) {
					return unexpected("answer", r.answer, plain("the defaults of RFC 7591 section 2 told"))
				}
				return nil
			}, member("token_endpoint_auth_method", nil), member("grant_types", nil), member("response_types", nil))},
		{"rfc7591-unique", spec, "§3.2.1", "two registrations give two identifiers and two secrets", who,
			registering(func(ctx context.Context, e *Env, first *registered) error {
				return registering(func(_ context.Context, _ *Env, second *registered) error {
					if first.id == second.id || first.secret == second.secret {
						return unexpected("client_id and client_secret", plain("the same twice"), plain("others"))
					}
					return nil
				})(ctx, e)
			})},
		{"rfc7591-authenticates", spec, "§3.2.1", "the secret is one to authenticate with", append(who, endpoint("token_endpoint")),
			registering(func(ctx context.Context, e *Env, r *registered) error {
				a, err := e.postToken(ctx, &Credentials{r.id, r.secret}, madeUpCode(e))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_grant")
			})},
		{"rfc7591-public", spec, "§2", "a client that registers none as its method gets no secret", who,
			registering(func(_ context.Context, _ *Env, r *registered) error {
				if r.secret != "" {
					return unexpected("client_secret", plain("one"), nil)
				}
				return nil
			}, member("token_endpoint_auth_method", "none"))},
		{"rfc7591-keys", spec, "§2", "a client that registers keys authenticates with them", append(who, endpoint("token_endpoint"),
			Need{"private_key_jwt in token_endpoint_auth_methods_supported", func(e *Env) bool {
				return e.supports("token_endpoint_auth_methods_supported", "private_key_jwt")
			}}),
			registering(func(ctx context.Context, e *Env, r *registered) error {
				keyed := *e
				keyed.KeyClient = &KeyClient{ID: r.id, alg: jose.ES256, key: e.registrationKey, kid: "registered"}
				signed, err := keyed.assertion().sign()
				if err != nil {
					return fmt.Errorf("assertion: %w", err)
				}
				form := madeUpCode(e)
				form.Set("client_assertion_type", assertionType)
				form.Set("client_assertion", signed)
				a, err := e.postToken(ctx, nil, form)
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_grant")
			}, member("token_endpoint_auth_method", "private_key_jwt"), withKeys)},
		{"rfc7591-software-statement", spec, "§2.3", "a software statement that nobody signed is refused, or ignored", who,
			func(ctx context.Context, e *Env) error {
				segment := base64.RawURLEncoding.EncodeToString
				statement := segment([]byte(`{"alg":"none"}`)) + "." + segment([]byte(`{"iss":"https://other.example","client_name":"Stated"}`)) + "."
				a, err := e.attempt(ctx, member("software_statement", statement))
				if err != nil {
					return err
				}
				if a.Status == http.StatusCreated {
					if m, err := a.object(); err != nil || m["client_name"] == "Stated" {
						return unexpected("client_name", m["client_name"], plain("what the client said itself"))
					}
					return nil
				}
				return a.wantError(http.StatusBadRequest, "invalid_software_statement", "unapproved_software_statement", "invalid_client_metadata")
			}},
		{"rfc7591-error-no-store", spec, "§3.2.2", "a refusal is JSON, with an error code, and not cached", who,
			func(ctx context.Context, e *Env) error {
				a, err := e.attempt(ctx, member("redirect_uris", nil))
				if err != nil {
					return err
				}
				if _, err := a.wantJSON(http.StatusBadRequest); err != nil {
					return err
				}
				return a.wantNoStore()
			}},
	}
}

// registration needs leave to register clients, and an endpoint for it.
func registration() Need {
	return Need{registrationNeeded, func(e *Env) bool { return e.Register && e.endpoint("registration_endpoint") != "" }}
}

const registrationNeeded = "--register, and registration_endpoint in the metadata"

// An alteration makes a registration another one than usual.
type alteration func(*Env, map[string]any) error

// member sets a member of the registration, or leaves it out.
func member(name string, value any) alteration {
	return func(_ *Env, m map[string]any) error {
		if m[name] = value; value == nil {
			delete(m, name)
		}
		return nil
	}
}

// withKeys registers a key of the checker's own.
func withKeys(e *Env, m map[string]any) error {
	if e.registrationKey == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("key: %w", err)
		}
		e.registrationKey = key
	}
	m["jwks"] = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: e.registrationKey.Public(), KeyID: "registered", Algorithm: "ES256", Use: "sig"}}}
	return nil
}

// registrationDocument registers a confidential client for the code flow.
func (e *Env) registrationDocument() map[string]any {
	return map[string]any{
		"client_name": "Conformance check", "redirect_uris": []string{e.registrationURI()},
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
		"token_endpoint_auth_method": "client_secret_basic", "scope": usualScope + " offline_access",
	}
}

func (e *Env) registrationURI() string { return cmp.Or(e.Web.RedirectURI, "https://app.example/cb") }

func (e *Env) registrationHeader(bearer string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	if bearer != "" {
		h.Set("Authorization", "Bearer "+bearer)
	}
	return h
}

// sendJSON sends a document, or with nil none.
func (e *Env) sendJSON(ctx context.Context, method, address, bearer string, document map[string]any) (*Answer, error) {
	var body []byte
	if document != nil {
		var err error
		if body, err = json.Marshal(document); err != nil {
			return nil, fmt.Errorf("registration: %w", err)
		}
	}
	return e.do(ctx, method, address, e.registrationHeader(bearer), body)
}

// attempt tries to register a client. One that is registered all the same is
// removed at once.
func (e *Env) attempt(ctx context.Context, changes ...alteration) (*Answer, error) {
	document := e.registrationDocument()
	for _, c := range changes {
		if err := c(e, document); err != nil {
			return nil, err
		}
	}
	a, err := e.sendJSON(ctx, http.MethodPost, e.endpoint("registration_endpoint"), e.InitialToken, document)
	if err != nil {
		return nil, err
	}
	if r, err := readRegistered(a); err == nil {
		return a, r.remove(ctx, e)
	}
	return a, nil
}

// A registered client is one that the checker has just registered.
type registered struct {
	answer                 *Answer
	member                 map[string]any
	id, secret, token, uri string
}

func readRegistered(a *Answer) (*registered, error) {
	m, err := a.object()
	if err != nil || a.Status != http.StatusCreated && a.Status != http.StatusOK {
		return nil, unexpected("registration", a, plain("status 201"))
	}
	r := &registered{answer: a, member: m}
	r.id, _ = m["client_id"].(string)
	r.secret, _ = m["client_secret"].(string)
	r.token, _ = m["registration_access_token"].(string)
	r.uri, _ = m["registration_client_uri"].(string)
	if r.id == "" {
		return nil, unexpected("client_id", m["client_id"], plain("a string"))
	}
	return r, nil
}

// app is the client as one that people sign in to.
func (r *registered) app(e *Env) App { return App{Credentials{r.id, r.secret}, e.registrationURI()} }

// remove leaves nothing behind, where the issuer offers that (RFC 7592 §2.3).
func (r *registered) remove(ctx context.Context, e *Env) error {
	if r.uri == "" || r.token == "" {
		return nil
	}
	_, err := e.sendJSON(ctx, http.MethodDelete, r.uri, r.token, nil)
	return err
}

// register registers a client that must be taken.
func (e *Env) register(ctx context.Context, changes ...alteration) (*registered, error) {
	document := e.registrationDocument()
	for _, c := range changes {
		if err := c(e, document); err != nil {
			return nil, err
		}
	}
	a, err := e.sendJSON(ctx, http.MethodPost, e.endpoint("registration_endpoint"), e.InitialToken, document)
	if err != nil {
		return nil, err
	}
	return readRegistered(a)
}

// registering makes a check of a client that has just registered, with
// alterations, and is removed afterwards.
func registering(rule func(context.Context, *Env, *registered) error, changes ...alteration) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		r, err := e.register(ctx, changes...)
		if err != nil {
			return err
		}
		verdict := rule(ctx, e, r)
		if err := r.remove(ctx, e); err != nil {
			return errors.Join(verdict, err)
		}
		return verdict
	}
}

// notRegistrable makes a check of a registration that has to be refused.
func notRegistrable(changes ...alteration) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		a, err := e.attempt(ctx, changes...)
		if err != nil {
			return err
		}
		return a.wantError(http.StatusBadRequest, "invalid_client_metadata", "invalid_redirect_uri", "invalid_request")
	}
}

// neverRegistered makes a check of a value that has to be refused or replaced.
func neverRegistered(name string, value any) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		a, err := e.attempt(ctx, member(name, value))
		if err != nil {
			return err
		}
		if a.Status != http.StatusCreated {
			return a.wantError(http.StatusBadRequest, "invalid_client_metadata", "invalid_request")
		}
		m, err := a.object()
		if err != nil {
			return fmt.Errorf("registration: %w", err)
		}
		if got := show(m[name]); strings.Contains(got, "guess") || strings.Contains(got, "no-such") {
			return unexpected(name, m[name], plain("a refusal, or another value"))
		}
		return nil
	}
}

// initialTokenNeeded makes a check of a registration with another bearer token.
func initialTokenNeeded(bearer string) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		if e.InitialToken == "" {
			return notOffered("needs " + initialTokenVariable + ": an issuer where anybody may register has no use for one")
		}
		a, err := e.sendJSON(ctx, http.MethodPost, e.endpoint("registration_endpoint"), bearer, e.registrationDocument())
		if err != nil {
			return err
		}
		if r, err := readRegistered(a); err == nil {
			return errors.Join(unexpected("answer", a, plain("status 401")), r.remove(ctx, e))
		}
		if a.Status != http.StatusUnauthorized {
			return unexpected("answer", a, plain("status 401"))
		}
		return a.wantChallenge("Bearer")
	}
}

// madeUpCode is a token request that only a client which is known gets past
// client authentication with.
func madeUpCode(e *Env) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {"made-up"}, "redirect_uri": {e.registrationURI()}, "code_verifier": {newVerifier()}}
}
