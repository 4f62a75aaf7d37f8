package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
)

// RFC 7592: clients that read, replace and remove their own registration.
func rfc7592Checks() []Check {
	const spec = "RFC 7592"
	who := []Need{registration()}
	unauthorized := func(id, section, name string, ask func(ctx context.Context, e *Env, r *registered) (*Answer, error)) Check {
		return Check{id, spec, section, name, who, managing(func(ctx context.Context, e *Env, r *registered) error {
			a, err := ask(ctx, e, r)
			if err != nil {
				return err
			}
			if a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden {
				return unexpected("answer", a, plain("status 401 or 403"))
			}
			return nil
		})}
	}
	refused := func(id, name, member string, value any) Check {
		return Check{id, spec, "§2.2", name, who, managing(func(ctx context.Context, e *Env, r *registered) error {
			document := r.replacement(e)
			document[member] = value
			a, err := e.sendJSON(ctx, http.MethodPut, r.uri, r.token, document)
			if err != nil {
				return err
			}
			if a.Status != http.StatusBadRequest && a.Status != http.StatusForbidden && a.Status != http.StatusUnauthorized {
				return unexpected("answer", a, plain("status 400"))
			}
			return nil
		})}
	}
	return []Check{
		{"rfc7592-pair", spec, "§3", "registration_client_uri, on https, and registration_access_token come together or not at all", who,
			registering(func(_ context.Context, e *Env, r *registered) error {
				if (r.uri == "") != (r.token == "") {
					return unexpected("registration_client_uri", r.member["registration_client_uri"], plain("both or neither"))
				}
				if r.uri == "" {
					return notOffered("the issuer does not let clients manage their registration")
				}
				if err := e.secureURL(r.uri); err != nil {
					return fmt.Errorf("registration_client_uri: %w", err)
				}
				return nil
			})},
		{"rfc7592-read", spec, "§2.1", "a client reads what it registered, and nobody's cache keeps it", who,
			managing(func(ctx context.Context, e *Env, r *registered) error {
				a, err := e.sendJSON(ctx, http.MethodGet, r.uri, r.token, nil)
				if err != nil {
					return err
				}
				m, err := a.wantJSON(http.StatusOK)
				if err != nil {
					return err
				}
				for _, name := range []string{"client_id", "client_name", "redirect_uris", "grant_types", "registration_client_uri"} {
					if show(m[name]) != show(r.member[name]) {
						return unexpected(name, m[name], r.member[name])
					}
				}
				return a.wantNoStore()
			})},
		unauthorized("rfc7592-no-token", "§2", "a registration is told nobody without its token", func(ctx context.Context, e *Env, r *registered) (*Answer, error) {
			return e.sendJSON(ctx, http.MethodGet, r.uri, "", nil)
		}),
		unauthorized("rfc7592-made-up-token", "§2", "a token that nobody issued reads no registration", func(ctx context.Context, e *Env, r *registered) (*Answer, error) {
			return e.sendJSON(ctx, http.MethodGet, r.uri, "made-up", nil)
		}),
		unauthorized("rfc7592-foreign-token", "§2", "one client's token reads no other client's registration", func(ctx context.Context, e *Env, r *registered) (*Answer, error) {
			other, err := e.register(ctx)
			if err != nil {
				return nil, err
			}
			a, err := e.sendJSON(ctx, http.MethodGet, r.uri, other.token, nil)
			return a, errors.Join(err, other.remove(ctx, e))
		}),
		unauthorized("rfc7592-foreign-delete", "§2.3", "one client's token removes no other client", func(ctx context.Context, e *Env, r *registered) (*Answer, error) {
			other, err := e.register(ctx)
			if err != nil {
				return nil, err
			}
			a, err := e.sendJSON(ctx, http.MethodDelete, r.uri, other.token, nil)
			return a, errors.Join(err, other.remove(ctx, e))
		}),
		{"rfc7592-replace", spec, "§2.2", "what a client puts in its registration's place counts, and what it leaves out is gone", who,
			managing(func(ctx context.Context, e *Env, r *registered) error {
				document := r.replacement(e)
				document["client_name"] = "Another name"
				delete(document, "contacts")
				a, err := e.sendJSON(ctx, http.MethodPut, r.uri, r.token, document)
				if err != nil {
					return err
				}
				m, err := a.wantJSON(http.StatusOK)
				if err != nil {
					return err
				}
				r.renew(m)
				if m["client_id"] != r.id || m["client_name"] != "Another name" {
					return unexpected("client_name", m["client_name"], "Another name")
				}
				if m["contacts"] != nil {
					return unexpected("contacts, which were left out", m["contacts"], nil)
				}
				return nil
			}, member("contacts", []string{"somebody@app.example"}))},
		refused("rfc7592-client-id", "a client cannot take another client_id", "client_id", "another-client"),
		refused("rfc7592-secret", "a client cannot choose its secret", "client_secret", "a-secret-of-the-clients-own-choice"),
		refused("rfc7592-invalid", "a replacement that no registration could be is refused", "redirect_uris", []string{"/relative"}),
		{"rfc7592-invalid-kept", spec, "§2.2", "a replacement that is refused changes nothing", who,
			managing(func(ctx context.Context, e *Env, r *registered) error {
				document := r.replacement(e)
				document["client_name"], document["redirect_uris"] = "Another name", []string{"/relative"}
				if _, err := e.sendJSON(ctx, http.MethodPut, r.uri, r.token, document); err != nil {
					return err
				}
				a, err := e.sendJSON(ctx, http.MethodGet, r.uri, r.token, nil)
				if err != nil {
					return err
				}
				m, err := a.wantJSON(http.StatusOK)
				if err != nil {
					return err
				}
				if m["client_name"] != r.member["client_name"] {
					return unexpected("client_name", m["client_name"], r.member["client_name"])
				}
				return nil
			})},
		{"rfc7592-remove", spec, "§2.3", "a client that removes itself is gone: 204, then its token and its secret are refused", append(who, endpoint("token_endpoint")),
			managing(func(ctx context.Context, e *Env, r *registered) error {
				a, err := e.sendJSON(ctx, http.MethodDelete, r.uri, r.token, nil)
				if err != nil {
					return err
				}
				if a.Status != http.StatusNoContent {
					return unexpected("answer to DELETE", a, plain("status 204"))
				}
				again, err := e.sendJSON(ctx, http.MethodGet, r.uri, r.token, nil)
				if err != nil {
					return err
				}
				if again.Status != http.StatusUnauthorized {
					return unexpected("answer to the token of a client that is gone", again, plain("status 401"))
				}
				late, err := e.postToken(ctx, &Credentials{r.id, r.secret}, madeUpCode(e))
				if err != nil {
					return err
				}
				return late.wantRefusedClient()
			})},
		{"rfc7592-remove-grants", spec, "§2.3", "with a client go the refresh tokens it was given", with(signIn(grant("refresh_token")), registration()),
			managing(func(ctx context.Context, e *Env, r *registered) error {
				t, err := e.offline(ctx, r.app(e))
				if err != nil {
					return err
				}
				if _, err := e.sendJSON(ctx, http.MethodDelete, r.uri, r.token, nil); err != nil {
					return err
				}
				a, err := e.refreshed(ctx, r.app(e).Credentials, t.refresh)
				if err != nil {
					return err
				}
				if a.Status == http.StatusOK {
					return unexpected("refresh", a, plain("an error"))
				}
				return nil
			})},
	}
}

// managing is registering, where a client may manage its registration.
func managing(rule func(context.Context, *Env, *registered) error, changes ...alteration) func(context.Context, *Env) error {
	return registering(func(ctx context.Context, e *Env, r *registered) error {
		if r.uri == "" || r.token == "" {
			return notOffered("the issuer does not let clients manage their registration")
		}
		return rule(ctx, e, r)
	}, changes...)
}

// replacement is the registration as a client sends it again: with its
// identifier, and without what only the issuer says (RFC 7592 §2.2).
func (r *registered) replacement(e *Env) map[string]any {
	document := maps.Clone(e.registrationDocument())
	document["client_id"] = r.id
	if r.secret != "" {
		document["client_secret"] = r.secret
	}
	return document
}

// renew takes the token and the address that came with a replacement (RFC 7592 §3).
func (r *registered) renew(m map[string]any) {
	if s, ok := m["registration_access_token"].(string); ok {
		r.token = s
	}
	if s, ok := m["registration_client_uri"].(string); ok {
		r.uri = s
	}
}
