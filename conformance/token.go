package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// basic makes an Authorization header of the form-encoded credentials
// (RFC 6749 §2.3.1); escape does the encoding.
func (c Credentials) basic(escape func(string) string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(escape(c.ID)+":"+escape(c.Secret)))
}

// body adds the credentials to a form (client_secret_post).
func (c Credentials) body(form url.Values) url.Values {
	out := maps.Clone(form)
	out.Set("client_id", c.ID)
	out.Set("client_secret", c.Secret)
	return out
}

// clientCredentials is the form of the grant, for the resource and scope given.
func (e *Env) clientCredentials() url.Values {
	form := url.Values{"grant_type": {"client_credentials"}}
	if e.Resource != "" {
		form.Set("resource", e.Resource)
	}
	if e.Scope != "" {
		form.Set("scope", e.Scope)
	}
	return form
}

// postToken sends a form to the token endpoint.
func (e *Env) postToken(ctx context.Context, as *Credentials, form url.Values) (*Answer, error) {
	return e.post(ctx, e.endpoint("token_endpoint"), as, form)
}

// A token is an access token with the answer it came in.
type token struct {
	raw    string
	answer *Answer
	member map[string]any // of the answer
	header map[string]any // of the JWT
	claims map[string]any
}

// issue gets an access token for the main client.
func (e *Env) issue(ctx context.Context) (token, error) {
	return e.issueFor(ctx, e.clientCredentials())
}

// issueFor gets an access token for the main client with a form of the check's own.
// Only what every user of the token needs is judged here.
func (e *Env) issueFor(ctx context.Context, form url.Values) (token, error) {
	a, err := e.postToken(ctx, &e.Client, form)
	if err != nil {
		return token{}, err
	}
	t := token{answer: a}
	if a.Status != http.StatusOK {
		return token{}, unexpected("token request", a, plain("status 200"))
	}
	if t.member, err = a.object(); err != nil {
		return token{}, fmt.Errorf("token answer: %w", err)
	}
	if t.raw, _ = t.member["access_token"].(string); t.raw == "" {
		return token{}, errors.New("the token answer has no access_token")
	}
	return t, nil
}

// issueJWT gets an access token and takes it apart, without judging its signature.
func (e *Env) issueJWT(ctx context.Context, form url.Values) (token, error) {
	t, err := e.issueFor(ctx, form)
	if err != nil {
		return token{}, err
	}
	jwt, err := parseAccessToken(t.raw)
	if err != nil {
		return token{}, err
	}
	t.header, t.claims = jwt.header, jwt.claims
	return t, nil
}

// parseAccessToken takes an access token apart, which need not be a JWT.
func parseAccessToken(raw string) (token, error) {
	if !strings.Contains(raw, ".") {
		return token{}, notOffered("the access token is opaque")
	}
	return parseJWT("access token", raw)
}

// parseJWT takes a JWT apart, without judging its signature.
func parseJWT(what, raw string) (token, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return token{}, fmt.Errorf("the %s is not a JWT in compact form", what)
	}
	t := token{raw: raw}
	var err error
	if t.header, err = decodeSegment(parts[0]); err != nil {
		return token{}, fmt.Errorf("header of the %s: %w", what, err)
	}
	if t.claims, err = decodeSegment(parts[1]); err != nil {
		return token{}, fmt.Errorf("claims of the %s: %w", what, err)
	}
	return t, nil
}

func decodeSegment(s string) (map[string]any, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	return decodeObject(b)
}

// scope is what was granted: what the answer says, else what was asked for
// (RFC 6749 §5.1).
func (t token) scope(asked string) string {
	if s, ok := t.member["scope"].(string); ok {
		return s
	}
	return asked
}

// introspect asks about a token, as a client.
func (e *Env) introspect(ctx context.Context, as *Credentials, tok string) (*Answer, error) {
	return e.post(ctx, e.endpoint("introspection_endpoint"), as, url.Values{"token": {tok}})
}

// revoke revokes a token, as a client.
func (e *Env) revoke(ctx context.Context, as *Credentials, tok string) (*Answer, error) {
	return e.post(ctx, e.endpoint("revocation_endpoint"), as, url.Values{"token": {tok}})
}

// wantActive checks whether introspection by the main client calls a token active.
func (e *Env) wantActive(ctx context.Context, tok string, want bool) error {
	a, err := e.introspect(ctx, &e.Client, tok)
	if err != nil {
		return err
	}
	m, err := a.wantJSON(http.StatusOK)
	if err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	if m["active"] != want {
		return unexpected("active", m["active"], want)
	}
	return nil
}

// wantInactive checks for the bare answer about a token that is not the caller's
// business (RFC 7662 §2.2: nothing besides active).
func (a *Answer) wantInactive() error {
	m, err := a.wantJSON(http.StatusOK)
	if err != nil {
		return err
	}
	if len(m) != 1 || m["active"] != false {
		return unexpected("answer", m, plain(`exactly {"active":false}`))
	}
	return nil
}
