package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
)

const pushedEndpoint = "pushed_authorization_request_endpoint"

// RFC 9126: authorization requests that the client pushes itself.
func rfc9126Checks() []Check {
	const spec = "RFC 9126"
	who := signIn(endpoint(pushedEndpoint))
	invalid := func(id, section, name string, changes ...change) Check {
		return Check{id, spec, section, name, who, func(ctx context.Context, e *Env) error {
			_, a, err := e.push(ctx, e.Web, changes...)
			if err != nil {
				return err
			}
			if a.Status != http.StatusBadRequest {
				return unexpected("answer", a, plain("status 400"))
			}
			m, err := a.object()
			if code, _ := m["error"].(string); err != nil || code == "" {
				return unexpected("answer", a, plain("a JSON object with an error"))
			}
			return nil
		}}
	}
	return []Check{
		{"rfc9126-response", spec, "§2.2", "a pushed request is answered 201 with request_uri and the seconds it is good for", who,
			func(ctx context.Context, e *Env) error {
				_, a, err := e.push(ctx, e.Web)
				if err != nil {
					return err
				}
				m, err := a.wantJSON(http.StatusCreated)
				if err != nil {
					return err
				}
				if uri, _ := m["request_uri"].(string); uri == "" {
					return unexpected("request_uri", m["request_uri"], plain("a string"))
				}
				n, ok := m["expires_in"].(json.Number)
				if seconds, err := n.Int64(); !ok || err != nil || seconds <= 0 {
					return unexpected("expires_in", m["expires_in"], plain("a positive integer"))
				}
				return nil
			}},
		{"rfc9126-no-store", spec, "§2.2", "the answer to a pushed request is never cached", who,
			func(ctx context.Context, e *Env) error {
				_, a, err := e.push(ctx, e.Web)
				if err != nil {
					return err
				}
				return a.wantNoStore()
			}},
		{"rfc9126-post-only", spec, "§2.3", "requests are pushed by POST and not otherwise", []Need{endpoint(pushedEndpoint)},
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.endpoint(pushedEndpoint)+"?client_id=any", nil)
				if err != nil {
					return err
				}
				return a.wantMethodNotAllowed()
			}},
		{"rfc9126-authentication", spec, "§2.1", "a confidential client with a wrong secret pushes nothing", who,
			func(ctx context.Context, e *Env) error {
				_, a, err := e.push(ctx, App{e.Web.wrong(), e.Web.RedirectURI})
				if err != nil {
					return err
				}
				return a.wantRefusedClient()
			}},
		{"rfc9126-no-authentication", spec, "§2.1", "a confidential client that only gives its name pushes nothing", who,
			func(ctx context.Context, e *Env) error {
				_, a, err := e.push(ctx, App{Credentials{ID: e.Web.ID}, e.Web.RedirectURI})
				if err != nil {
					return err
				}
				return a.wantRefusedClient()
			}},
		invalid("rfc9126-nested", "§2.1", "a pushed request that has a request_uri itself is refused", set("request_uri", "urn:example:another")),
		invalid("rfc9126-redirect", "§2.1", "a pushed request with a redirect URI that is not registered is refused at once", set("redirect_uri", "https://other.example/cb")),
		invalid("rfc9126-judged", "§2.3", "a pushed request without response_type is refused at once", unset("response_type")),
		invalid("rfc9126-repeated", "§2.3", "a pushed request with a parameter twice is refused", add("scope", "openid")),
		{"rfc9126-code", spec, "§4", "a browser that brings the reference gets the app a code, and the code brings tokens", who,
			func(ctx context.Context, e *Env) error {
				f, uri, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				if err := f.bring(ctx, e.Web, uri); err != nil {
					return err
				}
				_, err = f.tokens(ctx)
				return err
			}},
		{"rfc9126-beside", spec, "§4", "parameters beside the reference count for nothing", who,
			func(ctx context.Context, e *Env) error {
				f, uri, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				if err := f.bring(ctx, e.Web, uri, set("state", "beside"), set("nonce", "beside")); err != nil {
					return err
				}
				if got := f.answer.Get("state"); f.answer.Has("code") && got != f.asked.Get("state") {
					return unexpected("state", got, f.asked.Get("state"))
				}
				return nil
			}},
		{"rfc9126-other-client", spec, "§2.2", "another client cannot use the reference", with(who, secondApp()),
			func(ctx context.Context, e *Env) error {
				f, uri, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				if err := f.bring(ctx, e.SecondWeb, uri); err != nil {
					return err
				}
				return f.wantNoCode()
			}},
		{"rfc9126-once", spec, "§7.3", "a reference that has brought a code brings no other", who,
			func(ctx context.Context, e *Env) error {
				f, uri, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				if err := f.bring(ctx, e.Web, uri); err != nil {
					return err
				}
				if err := f.wantCode(); err != nil {
					return err
				}
				again := f.prepare(e.Web)
				again.asked = f.asked
				if err := again.bring(ctx, e.Web, uri); err != nil {
					return err
				}
				return again.wantNoCode()
			}},
		{"rfc9126-made-up", spec, "§2.2", "a reference nobody gave out brings no code", who,
			func(ctx context.Context, e *Env) error {
				f, uri, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				if err := f.bring(ctx, e.Web, alterLast(uri)); err != nil {
					return err
				}
				return f.wantNoCode()
			}},
		{"rfc9126-unguessable", spec, "§7.1", "references differ in at least 22 characters, which 128 bits need", who,
			func(ctx context.Context, e *Env) error {
				_, first, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				_, second, err := e.pushed(ctx, e.Web)
				if err != nil {
					return err
				}
				same := 0
				for same < min(len(first), len(second)) && first[same] == second[same] {
					same++
				}
				if min(len(first), len(second))-same < 22 {
					return unexpected("two references", plain(fmt.Sprintf("%d and %d characters, of which %d are the same", len(first), len(second), same)),
						plain("22 that differ"))
				}
				return nil
			}},
		{"rfc9126-request-object", spec, "§3", "a signed request object may be pushed", with(who, keyApp()),
			func(ctx context.Context, e *Env) error {
				b, err := e.signedIn(ctx)
				if err != nil {
					return err
				}
				f := b.prepare(e.KeyApp())
				object, err := e.requestObject(f).sign()
				if err != nil {
					return fmt.Errorf("request object: %w", err)
				}
				proof, err := e.assertion().sign()
				if err != nil {
					return fmt.Errorf("assertion: %w", err)
				}
				a, err := e.post(ctx, e.endpoint(pushedEndpoint), nil, url.Values{
					"client_id": {e.KeyClient.ID}, "request": {object}, "client_assertion_type": {assertionType}, "client_assertion": {proof},
				})
				if err != nil {
					return err
				}
				uri, err := reference(a)
				if err != nil {
					return err
				}
				if err := f.bring(ctx, e.KeyApp(), uri); err != nil {
					return err
				}
				return f.wantCode()
			}},
		{"rfc9126-required", spec, "§6", "a client registered to push its requests cannot do without", with(who, registration()),
			registering(func(ctx context.Context, e *Env, r *registered) error {
				if r.member["require_pushed_authorization_requests"] != true {
					return notOffered("the issuer does not let clients register require_pushed_authorization_requests")
				}
				f, err := e.flowFor(ctx, r.app(e))
				if err != nil {
					return err
				}
				return f.wantNoCode()
			}, member("require_pushed_authorization_requests", true))},
	}
}

// push has an app push an authorization request, all of it right but for the changes.
func (e *Env) push(ctx context.Context, app App, changes ...change) (*flow, *Answer, error) {
	b, err := e.signedIn(ctx)
	if err != nil {
		return nil, nil, err
	}
	f := b.prepare(app, changes...)
	var as *Credentials
	if app.Secret != "" {
		as = &app.Credentials
	}
	a, err := e.post(ctx, e.endpoint(pushedEndpoint), as, maps.Clone(f.asked))
	return f, a, err
}

// pushed is push, of a request that must be taken; it returns the reference.
func (e *Env) pushed(ctx context.Context, app App, changes ...change) (*flow, string, error) {
	f, a, err := e.push(ctx, app, changes...)
	if err != nil {
		return nil, "", err
	}
	uri, err := reference(a)
	return f, uri, err
}

func reference(a *Answer) (string, error) {
	m, err := a.object()
	uri, _ := m["request_uri"].(string)
	if err != nil || a.Status != http.StatusCreated || uri == "" {
		return "", unexpected("pushed request", a, plain("status 201 with a request_uri"))
	}
	return uri, nil
}

// bring takes the browser to the issuer with a reference and changes, and lets
// a willing person go through whatever pages there are.
func (f *flow) bring(ctx context.Context, app App, uri string, changes ...change) error {
	q := url.Values{"client_id": {app.ID}, "request_uri": {uri}}
	for _, c := range changes {
		c(q)
	}
	return f.openWith(ctx, q)
}

// openWith takes the browser to the authorization endpoint with these
// parameters in place of those of the flow, which say where an answer goes.
func (f *flow) openWith(ctx context.Context, q url.Values) error {
	at, err := url.Parse(f.env.endpoint("authorization_endpoint"))
	if err != nil {
		return fmt.Errorf("authorization_endpoint: %w", err)
	}
	all := at.Query()
	maps.Copy(all, q)
	at.RawQuery = all.Encode()
	if err := f.arrive(f.visit(ctx, http.MethodGet, at, nil)); err != nil {
		return err
	}
	return f.goOn(ctx)
}
