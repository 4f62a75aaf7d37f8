package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// RFC 6749: the authorization endpoint, the code and the refresh token.
func rfc6749CodeChecks() []Check {
	const spec = "RFC 6749"
	who := signIn()
	refresh := signIn(grant("refresh_token"))
	return []Check{
		{"rfc6749-unknown-client-page", spec, "§4.1.2.1", "an unknown client is told of on a page, and nobody is redirected", who,
			asking((*flow).wantPage, set("client_id", "no-such-client"))},
		{"rfc6749-no-client-page", spec, "§4.1.2.1", "a request without client_id leads to no redirect", who,
			asking((*flow).wantPage, unset("client_id"))},
		{"rfc6749-no-response-type", spec, "§3.1.1", "a request without response_type is invalid_request at the app", who,
			refusing([]string{"invalid_request"}, unset("response_type"))},
		{"rfc6749-response-type", spec, "§4.1.2.1", "response_type token is unsupported_response_type", who,
			refusing([]string{"unsupported_response_type", "unauthorized_client"}, set("response_type", "token"))},
		{"rfc6749-repeated-authorize", spec, "§3.1", "a repeated parameter brings no code", who,
			asking((*flow).wantNoCode, add("scope", "openid"))},
		{"rfc6749-unknown-authorize", spec, "§3.1", "an unrecognised parameter is ignored", who,
			asking((*flow).wantCode, set("parameter_nobody_defined", "1"))},
		{"rfc6749-empty-authorize", spec, "§3.1", "a parameter without value counts as omitted", who,
			asking((*flow).wantCode, set("prompt", ""), set("max_age", ""), set("response_mode", ""), set("claims", ""))},
		{"rfc6749-unknown-authorize-scope", spec, "§3.3", "an unknown scope in an authorization request is invalid_scope, or ignored and never granted", who, authorizeUnknownScope},
		{"rfc6749-state", spec, "§4.1.2", "state comes back exactly as it was sent", who, authorizeState},
		{"rfc6749-no-state", spec, "§4.1.2", "where no state was sent, none comes back", who,
			asking(func(f *flow) error {
				if f.answer.Has("state") {
					return unexpected("state", f.answer.Get("state"), nil)
				}
				return f.wantCode()
			}, unset("state"))},
		{"rfc6749-error-state", spec, "§4.1.2.1", "an error comes with the state", who,
			asking(func(f *flow) error {
				if got := f.answer.Get("state"); got != f.asked.Get("state") {
					return unexpected("state", got, f.asked.Get("state"))
				}
				return nil
			}, unset("response_type"))},
		{"rfc6749-access-denied", spec, "§4.1.2.1", "the app of a person who refuses is told access_denied", who, authorizeDenied},
		{"rfc6749-redirect-query", spec, "§3.1.2", "the query of the redirect URI is kept",
			with(who, Need{"--redirect-uri with a query", func(e *Env) bool { return strings.Contains(e.Web.RedirectURI, "?") }}), authorizeKeepsQuery},
		{"rfc6749-csrf", spec, "§10.12", "a consent form that another browser sends brings no code", who, authorizeForeignForm},

		{"rfc6749-code-once", spec, "§4.1.2", "a code is good for one use", who,
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx)
				if err != nil {
					return err
				}
				again, err := t.flow.redeem(ctx)
				if err != nil {
					return err
				}
				return again.wantError(http.StatusBadRequest, "invalid_grant")
			}},
		{"rfc6749-code-replay", spec, "§4.1.2", "a code used twice ends the refresh token it gave", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				if _, err := t.flow.redeem(ctx); err != nil {
					return err
				}
				return e.wantDead(ctx, e.Web, t.refresh)
			}},
		{"rfc6749-code-client", spec, "§4.1.3", "another client's code is invalid_grant", signIn(secondApp()),
			func(ctx context.Context, e *Env) error {
				f, err := e.flow(ctx)
				if err != nil {
					return err
				}
				f.app = e.SecondWeb
				a, err := f.redeem(ctx)
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_grant")
			}},
		{"rfc6749-code-redirect", spec, "§4.1.3", "a code with another redirect_uri is invalid_grant", who,
			redeeming([]string{"invalid_grant"}, set("redirect_uri", "https://other.example/cb"))},
		{"rfc6749-code-no-redirect", spec, "§4.1.3", "a code without its redirect_uri is refused", who,
			redeeming([]string{"invalid_grant", "invalid_request"}, unset("redirect_uri"))},
		{"rfc6749-no-code", spec, "§5.2", "a token request without code is invalid_request", who,
			redeeming([]string{"invalid_request"}, unset("code"))},
		{"rfc6749-altered-code", spec, "§5.2", "an altered code is invalid_grant", who,
			redeeming([]string{"invalid_grant"}, func(v url.Values) { v.Set("code", alterLast(v.Get("code"))) })},
		{"rfc6749-code-secret", spec, "§4.1.3", "a confidential client's code brings nothing without its secret", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.flow(ctx)
				if err != nil {
					return err
				}
				f.app.Secret = ""
				a, err := f.redeem(ctx)
				if err != nil {
					return err
				}
				return a.wantRefusedClient()
			}},

		{"rfc6749-refresh", spec, "§6", "a refresh token brings another access token", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				n, err := t.next(ctx, e)
				if err != nil {
					return err
				}
				if n.access == t.access {
					return unexpected("access_token", plain("the same"), plain("another"))
				}
				return nil
			}},
		{"rfc6749-refresh-client", spec, "§6", "another client's refresh token is invalid_grant", with(refresh, secondApp()),
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				return e.wantDead(ctx, e.SecondWeb, t.refresh)
			}},
		{"rfc6749-refresh-secret", spec, "§6", "a confidential client cannot refresh without its secret", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				a, err := e.refreshed(ctx, Credentials{ID: e.Web.ID}, t.refresh)
				if err != nil {
					return err
				}
				return a.wantRefusedClient()
			}},
		{"rfc6749-altered-refresh", spec, "§5.2", "an altered refresh token is invalid_grant", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				return e.wantDead(ctx, e.Web, alterLast(t.refresh))
			}},
		{"rfc6749-no-refresh", spec, "§5.2", "a refresh without refresh_token is invalid_request", refresh,
			func(ctx context.Context, e *Env) error {
				a, err := e.refreshed(ctx, e.Web.Credentials, "", unset("refresh_token"))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_request")
			}},
		{"rfc6749-refresh-narrower", spec, "§6", "a refresh may ask for less, and gets no more", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				n, err := t.next(ctx, e, set("scope", "openid"))
				if err != nil {
					return err
				}
				return n.wantScope("openid")
			}},
		{"rfc6749-refresh-whole-again", spec, "§6", "a refresh that asked for less takes nothing from the next", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web)
				if err != nil {
					return err
				}
				n, err := t.next(ctx, e, set("scope", "openid"))
				if err != nil {
					return err
				}
				if n, err = n.next(ctx, e); err != nil {
					return err
				}
				return n.wantScope(t.scope())
			}},
		{"rfc6749-refresh-wider", spec, "§6", "a refresh for more than was granted is invalid_scope", refresh,
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.Web, set("scope", "openid offline_access"))
				if err != nil {
					return err
				}
				a, err := e.refreshed(ctx, e.Web.Credentials, t.refresh, set("scope", "openid email"))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_scope")
			}},
	}
}

// wantNoCode checks that the app got none, whoever was told why.
func (f *flow) wantNoCode() error {
	if f.answer.Has("code") {
		return unexpected("authorization", f, plain("no code"))
	}
	return nil
}

// alterLast changes the last but one character: the last one may carry bits
// that no decoder looks at.
func alterLast(s string) string {
	if len(s) < 2 {
		return s + "A"
	}
	i, other := len(s)-2, byte('A')
	if s[i] == other {
		other = 'B'
	}
	return s[:i] + string(other) + s[i+1:]
}

// scope is what was granted: what the answer says, else what was asked for
// (RFC 6749 §5.1).
func (t *tokens) scope() string {
	return token{member: t.member}.scope(t.flow.asked.Get("scope"))
}

// wantScope compares what was granted, in any order.
func (t *tokens) wantScope(want string) error {
	got, wanted := strings.Fields(t.scope()), strings.Fields(want)
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		return unexpected("scope", t.member["scope"], want)
	}
	return nil
}

func authorizeUnknownScope(ctx context.Context, e *Env) error {
	f, err := e.flow(ctx, set("scope", "openid no-such-scope-anywhere"))
	if err != nil {
		return err
	}
	if !f.answer.Has("code") {
		return f.wantRefused("invalid_scope")
	}
	t, err := f.tokens(ctx)
	if err != nil {
		return err
	}
	return t.wantScope("openid")
}

// authorizeState sends what an escaping gone wrong would change.
func authorizeState(ctx context.Context, e *Env) error {
	const state = `a+b c%20&code=x=="'<b>;#ä/?`
	f, err := e.flow(ctx, set("state", state))
	if err != nil {
		return err
	}
	if got := f.answer.Get("state"); got != state {
		return unexpected("state", got, state)
	}
	return f.wantCode()
}

// consentPage asks the person for consent, as if for the first time.
func (e *Env) consentPage(ctx context.Context) (*flow, *form, error) {
	b, err := e.signedIn(ctx)
	if err != nil {
		return nil, nil, err
	}
	f, err := b.begin(ctx, e.Web, set("prompt", "consent"))
	if err != nil {
		return nil, nil, err
	}
	form, kind, err := f.question()
	if err == nil && (form == nil || kind == pageLogin) {
		err = unexpected("authorization with prompt=consent", f, plain("a page that asks for consent"))
	}
	return f, form, err
}

func authorizeDenied(ctx context.Context, e *Env) error {
	f, form, err := e.consentPage(ctx)
	if err != nil {
		return err
	}
	if form.button(e.Pages.Deny) != nil {
		err = f.arrive(f.submit(ctx, form, e.Pages.Deny))
	} else {
		err = f.arrive(f.follow(ctx, e.Pages.Deny))
	}
	if err != nil {
		return err
	}
	return f.wantRefused("access_denied")
}

func authorizeKeepsQuery(ctx context.Context, e *Env) error {
	registered, err := url.Parse(e.Web.RedirectURI)
	if err != nil {
		return fmt.Errorf("--redirect-uri: %w", err)
	}
	f, err := e.flow(ctx)
	if err != nil {
		return err
	}
	for name, values := range registered.Query() {
		if !slices.Equal(f.answer[name], values) {
			return unexpected("query of the redirect", f.answer[name], values)
		}
	}
	return f.wantCode()
}

// authorizeForeignForm is what another site can do: it has the form, and not
// the person's cookies.
func authorizeForeignForm(ctx context.Context, e *Env) error {
	f, form, err := e.consentPage(ctx)
	if err != nil {
		return err
	}
	other, err := e.newBrowser()
	if err != nil {
		return err
	}
	f.browser = other
	if err := f.arrive(f.submit(ctx, form, e.Pages.Allow)); err != nil {
		return err
	}
	if f.answer.Has("code") {
		return errors.New("the form brought a code without the browser's cookies")
	}
	return nil
}
