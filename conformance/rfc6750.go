package main

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// RFC 6750: bearer tokens at the issuer's own protected resource, userinfo.
func rfc6750Checks() []Check {
	const spec = "RFC 6750"
	needs := []Need{endpoint("userinfo_endpoint")}
	who := signIn(needs...)
	return []Check{
		{"rfc6750-challenge", spec, "§3.1", "userinfo without a token answers 401 and a Bearer challenge without error code", needs,
			func(ctx context.Context, e *Env) error { return e.wantUserinfoRefusal(ctx, nil, false) }},
		{"rfc6750-invalid-token", spec, "§3.1", "userinfo with a made-up token answers 401 invalid_token", needs,
			func(ctx context.Context, e *Env) error {
				return e.wantUserinfoRefusal(ctx, http.Header{"Authorization": {"Bearer made-up"}}, true)
			}},
		{"rfc6750-form", spec, "§2.2", "the token may come in the body of a POST", who,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.post(ctx, e.endpoint("userinfo_endpoint"), nil, url.Values{"access_token": {t.access}})
				if err != nil {
					return err
				}
				_, err = a.wantJSON(http.StatusOK)
				return err
			})},
		{"rfc6750-scheme-case", "RFC 9110", "§11.1", "the scheme Bearer is known in any case", who,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.get(ctx, e.endpoint("userinfo_endpoint"), http.Header{"Authorization": {"bEARER " + t.access}})
				if err != nil {
					return err
				}
				_, err = a.wantJSON(http.StatusOK)
				return err
			})},
		{"rfc6750-query", "RFC 9700", "§4.3.2", "a token in the address is refused", who,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.get(ctx, e.endpoint("userinfo_endpoint")+"?"+url.Values{"access_token": {t.access}}.Encode(), nil)
				if err != nil {
					return err
				}
				if a.Status != http.StatusBadRequest && a.Status != http.StatusUnauthorized {
					return unexpected("answer", a, plain("status 400 or 401"))
				}
				return nil
			})},
		{"rfc6750-two-places", spec, "§2", "a token in two places is invalid_request", who,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.do(ctx, http.MethodPost, e.endpoint("userinfo_endpoint"), http.Header{
					"Authorization": {"Bearer " + t.access}, "Content-Type": {"application/x-www-form-urlencoded"},
				}, []byte(url.Values{"access_token": {t.access}}.Encode()))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_request")
			})},
		{"rfc6750-scope", spec, "§3.1", "a token without the scope openid has no userinfo", who,
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx, set("scope", "profile"), unset("nonce"))
				if err != nil {
					return err
				}
				a, err := e.userinfo(ctx, t.access)
				if err != nil {
					return err
				}
				if a.Status != http.StatusForbidden && a.Status != http.StatusUnauthorized {
					return unexpected("answer", a, plain("status 403 or 401"))
				}
				return a.wantChallenge("Bearer")
			}},
		{"rfc6750-altered-token", spec, "§3.1", "a token with another signature answers 401 invalid_token", who,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				return e.wantUserinfoRefusal(ctx, http.Header{"Authorization": {"Bearer " + alterLast(t.access)}}, true)
			})},
		{"rfc6750-revoked-token", spec, "§3.1", "a revoked token answers 401 invalid_token", with(who, endpoint("revocation_endpoint")),
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.revoke(ctx, &e.Web.Credentials, t.access)
				if err != nil {
					return err
				}
				if err := a.wantRevocation(); err != nil {
					return err
				}
				return e.wantUserinfoRefusal(ctx, http.Header{"Authorization": {"Bearer " + t.access}}, true)
			})},
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
