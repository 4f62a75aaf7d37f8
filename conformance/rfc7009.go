package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// RFC 7009: token revocation.
func rfc7009Checks() []Check {
	const spec = "RFC 7009"
	anyone := []Need{endpoint("revocation_endpoint")}
	known := []Need{endpoint("revocation_endpoint"), client()}
	person := signIn(endpoint("revocation_endpoint"), grant("refresh_token"))
	judged := slices.Concat(known, []Need{endpoint("token_endpoint"), endpoint("introspection_endpoint")})
	return []Check{
		{"rfc7009-post-only", spec, "§2.1", "the revocation endpoint serves only POST", anyone,
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.endpoint("revocation_endpoint")+"?token=made-up", nil)
				if err != nil {
					return err
				}
				return a.wantMethodNotAllowed()
			}},
		{"rfc7009-authentication", spec, "§2.1", "a caller with a wrong secret is refused", known,
			func(ctx context.Context, e *Env) error {
				wrong := e.Client.wrong()
				a, err := e.revoke(ctx, &wrong, "a-token-that-nobody-issued")
				if err != nil {
					return err
				}
				return a.wantError(http.StatusUnauthorized, "invalid_client")
			}},
		{"rfc7009-missing-token", spec, "§2.2.1", "a request without token is invalid_request", known,
			func(ctx context.Context, e *Env) error {
				a, err := e.post(ctx, e.endpoint("revocation_endpoint"), &e.Client, url.Values{})
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_request")
			}},
		{"rfc7009-unknown-token", spec, "§2.2", "revoking a token nobody issued answers 200", known,
			func(ctx context.Context, e *Env) error {
				return e.wantRevoked(ctx, url.Values{"token": {"a-token-that-nobody-issued"}})
			}},
		{"rfc7009-revoked", spec, "§2.1", "a revoked token is inactive at once", judged, revokeEndsToken},
		{"rfc7009-again", spec, "§2.2", "revoking a token twice answers 200 twice", judged, revokeTwice},
		{"rfc7009-hint", spec, "§2.1", "a wrong or unknown token_type_hint does not save a token", judged, revokeHint},
		{"rfc7009-foreign-token", spec, "§2.1", "another client cannot revoke a token", slices.Concat(judged, []Need{secondClient()}), revokeForeign},
		{"rfc7009-refresh-token", spec, "§2.1", "a revoked refresh token is invalid_grant", person,
			func(ctx context.Context, e *Env) error {
				t, err := e.revokedRefresh(ctx, e.Web.Credentials)
				if err != nil {
					return err
				}
				return e.wantDead(ctx, e.Web, t.refresh)
			}},
		{"rfc7009-refresh-token-hint", spec, "§2.1", "a wrong token_type_hint does not save a refresh token", person,
			func(ctx context.Context, e *Env) error {
				t, err := e.revokedRefresh(ctx, e.Web.Credentials, set("token_type_hint", "access_token"))
				if err != nil {
					return err
				}
				return e.wantDead(ctx, e.Web, t.refresh)
			}},
		{"rfc7009-refresh-token-access", spec, "§2.1", "with a refresh token its access tokens are revoked", with(person, endpoint("userinfo_endpoint")),
			func(ctx context.Context, e *Env) error {
				t, err := e.revokedRefresh(ctx, e.Web.Credentials)
				if err != nil {
					return err
				}
				return e.wantUserinfoRefusal(ctx, http.Header{"Authorization": {"Bearer " + t.access}}, true)
			}},
		{"rfc7009-public", spec, "§2.1", "a public client revokes its own refresh token, and only that", with(person, nativeApp()),
			func(ctx context.Context, e *Env) error {
				mine, err := e.offline(ctx, e.native())
				if err != nil {
					return err
				}
				other, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				for _, t := range []*tokens{mine, other} {
					form := url.Values{"token": {t.refresh}, "client_id": {e.Native.ID}}
					if _, err := e.post(ctx, e.endpoint("revocation_endpoint"), nil, form); err != nil {
						return err
					}
				}
				if _, err := other.next(ctx, e); err != nil {
					return fmt.Errorf("the other client's: %w", err)
				}
				return e.wantDead(ctx, mine.app, mine.refresh)
			}},
		{"rfc7009-refresh-token-foreign", spec, "§2.1", "another client cannot revoke a refresh token", with(person, secondApp()),
			func(ctx context.Context, e *Env) error {
				t, err := e.revokedRefresh(ctx, e.SecondWeb.Credentials)
				if err != nil {
					return err
				}
				_, err = t.next(ctx, e)
				return err
			}},
	}
}

// revokedRefresh gets the main app a refresh token and has a client revoke it.
func (e *Env) revokedRefresh(ctx context.Context, by Credentials, changes ...change) (*tokens, error) {
	t, err := e.offline(ctx, e.Web)
	if err != nil {
		return nil, err
	}
	form := url.Values{"token": {t.refresh}}
	for _, c := range changes {
		c(form)
	}
	a, err := e.post(ctx, e.endpoint("revocation_endpoint"), &by, form)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK && (by.ID == e.Web.ID || a.Status != http.StatusBadRequest) {
		return nil, unexpected("answer to the revocation", a, plain("status 200"))
	}
	return t, nil
}

// wantRevoked sends a revocation of the main client's and checks for 200.
func (e *Env) wantRevoked(ctx context.Context, form url.Values) error {
	a, err := e.post(ctx, e.endpoint("revocation_endpoint"), &e.Client, form)
	if err != nil {
		return err
	}
	return a.wantRevocation()
}

// wantRevocation checks for 200. RFC 7009 §2: access tokens need not be revocable.
func (a *Answer) wantRevocation() error {
	if a.wantError(http.StatusBadRequest, "unsupported_token_type") == nil {
		return notOffered("the issuer does not revoke such tokens")
	}
	if a.Status != http.StatusOK {
		return unexpected("answer to the revocation", a, plain("status 200"))
	}
	return nil
}

// revokeEndsToken first sees the token alive, so that a dead one proves something.
func revokeEndsToken(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	if err := e.wantActive(ctx, t.raw, true); err != nil {
		return fmt.Errorf("before the revocation: %w", err)
	}
	if err := e.wantRevoked(ctx, url.Values{"token": {t.raw}}); err != nil {
		return err
	}
	a, err := e.introspect(ctx, &e.Client, t.raw)
	if err != nil {
		return err
	}
	if err := a.wantInactive(); err != nil {
		return fmt.Errorf("after the revocation: %w", err)
	}
	return nil
}

func revokeTwice(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	for range 2 {
		if err := e.wantRevoked(ctx, url.Values{"token": {t.raw}}); err != nil {
			return err
		}
	}
	return nil
}

func revokeHint(ctx context.Context, e *Env) error {
	for _, hint := range []string{"refresh_token", "no_such_kind_of_token"} {
		t, err := e.issue(ctx)
		if err != nil {
			return err
		}
		if err := e.wantRevoked(ctx, url.Values{"token": {t.raw}, "token_type_hint": {hint}}); err != nil {
			return fmt.Errorf("with the hint %s: %w", hint, err)
		}
		if err := e.wantActive(ctx, t.raw, false); err != nil {
			return fmt.Errorf("with the hint %s, afterwards: %w", hint, err)
		}
	}
	return nil
}

// revokeForeign judges only what becomes of the token: the specification lets
// the answer be an error, and 200 tells the stranger less.
func revokeForeign(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	a, err := e.revoke(ctx, &e.Second, t.raw)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK && a.Status != http.StatusBadRequest {
		return unexpected("answer to the other client", a, plain("status 200 or 400"))
	}
	if err := e.wantActive(ctx, t.raw, true); err != nil {
		return fmt.Errorf("after the other client's revocation: %w", err)
	}
	return nil
}
