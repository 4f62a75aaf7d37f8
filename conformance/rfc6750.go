package main

import (
	"context"
	"net/http"
	"strings"
)

// RFC 6750: bearer tokens at the issuer's own protected resource, userinfo.
func rfc6750Checks() []Check {
	const spec = "RFC 6750"
	needs := []Need{endpoint("userinfo_endpoint")}
	return []Check{
		{"rfc6750-challenge", spec, "§3.1", "userinfo without a token answers 401 and a Bearer challenge without error code", needs,
			func(ctx context.Context, e *Env) error { return e.wantUserinfoRefusal(ctx, nil, false) }},
		{"rfc6750-invalid-token", spec, "§3.1", "userinfo with a made-up token answers 401 invalid_token", needs,
			func(ctx context.Context, e *Env) error {
				return e.wantUserinfoRefusal(ctx, http.Header{"Authorization": {"Bearer made-up"}}, true)
			}},
	}
}

func (e *Env) wantUserinfoRefusal(ctx context.Context, header http.Header, withError bool) error {
	a, err := e.get(ctx, e.endpoint("userinfo_endpoint"), header)
	if err != nil {
		return err
	}
	if a.Status != http.StatusUnauthorized {
		return unexpected("answer", a, plain("status 401"))
	}
	if err := a.wantChallenge("Bearer"); err != nil {
		return err
	}
	challenge := a.Header.Get("WWW-Authenticate")
	switch {
	case withError && !strings.Contains(challenge, `error="invalid_token"`):
		return unexpected("WWW-Authenticate", challenge, plain(`error="invalid_token"`))
	case !withError && strings.Contains(challenge, "error="):
		return unexpected("WWW-Authenticate", challenge, plain("no error code"))
	}
	return nil
}
