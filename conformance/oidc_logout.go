package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// OpenID Connect RP-Initiated Logout 1.0.
func logoutChecks() []Check {
	const spec = "RP-Initiated Logout"
	who := signIn(endpoint("end_session_endpoint"))
	back := with(who, Need{"--post-logout-redirect-uri", func(e *Env) bool { return e.PostLogoutURI != "" }})
	return []Check{
		{"logout-ends-session", spec, "§2", "who has signed out has to sign in again", who,
			func(ctx context.Context, e *Env) error {
				l, err := e.signOut(ctx, http.MethodGet)
				if err != nil {
					return err
				}
				return l.wantSession(ctx, false)
			}},
		{"logout-cookies", spec, "§2", "cookies kept from before signing out are signed out too", who,
			func(ctx context.Context, e *Env) error {
				t, err := e.apart(ctx)
				if err != nil {
					return err
				}
				before, err := t.flow.copied()
				if err != nil {
					return err
				}
				if err := before.wantSession(ctx, true); err != nil {
					return fmt.Errorf("before signing out: %w", err)
				}
				if _, err := t.logout(ctx, http.MethodGet); err != nil {
					return err
				}
				return before.wantSession(ctx, false)
			}},
		{"logout-offline", oidcCore, "§11", "a refresh token with offline_access goes on after signing out", with(who, grant("refresh_token")),
			func(ctx context.Context, e *Env) error {
				t, err := e.apart(ctx, set("scope", usualScope+" offline_access"), set("prompt", "consent"))
				if err != nil {
					return err
				}
				if _, err := t.logout(ctx, http.MethodGet); err != nil {
					return err
				}
				_, err = t.next(ctx, e)
				return err
			}},
		{"logout-post", spec, "§2", "a logout request may be posted", who,
			func(ctx context.Context, e *Env) error {
				l, err := e.signOut(ctx, http.MethodPost)
				if err != nil {
					return err
				}
				return l.wantSession(ctx, false)
			}},
		{"logout-redirect", spec, "§3", "who has signed out is taken to the registered address, with the state", back,
			func(ctx context.Context, e *Env) error {
				l, err := e.signOut(ctx, http.MethodGet, set("post_logout_redirect_uri", e.PostLogoutURI))
				if err != nil {
					return err
				}
				if !(App{RedirectURI: e.PostLogoutURI}).receives(orNothing(l.left)) {
					return unexpected("after signing out", l, e.PostLogoutURI)
				}
				if got := l.left.Query().Get("state"); got != l.asked.Get("state") {
					return unexpected("state", got, l.asked.Get("state"))
				}
				return nil
			}},
		{"logout-other-address", spec, "§3", "nobody is taken to an address that is not registered", who,
			stayingAtIssuer(set("post_logout_redirect_uri", "https://other.example/"))},
		{"logout-longer-address", spec, "§3", "nobody is taken to an address that only begins like the registered one", back,
			func(ctx context.Context, e *Env) error {
				return stayingAtIssuer(set("post_logout_redirect_uri", e.PostLogoutURI+"/more"))(ctx, e)
			}},
		{"logout-other-client", spec, "§2", "client_id must be the client of the hint", with(back, secondApp()),
			func(ctx context.Context, e *Env) error {
				return stayingAtIssuer(set("post_logout_redirect_uri", e.PostLogoutURI), set("client_id", e.SecondWeb.ID))(ctx, e)
			}},
		{"logout-no-hint", spec, "§2", "without a hint, nobody is signed out without a question", who,
			notWithoutQuestion(unset("id_token_hint"))},
		{"logout-forged-hint", spec, "§4", "with a hint that the issuer did not sign, nobody is signed out without a question", who,
			notWithoutQuestion(func(v url.Values) { v.Set("id_token_hint", alterSignature(v.Get("id_token_hint"))) })},
	}
}

// apart gets the main app tokens in a browser of their own, whose session may end.
func (e *Env) apart(ctx context.Context, changes ...change) (*tokens, error) {
	b, err := e.newBrowser()
	if err != nil {
		return nil, err
	}
	f, err := b.authorize(ctx, e.Web, changes...)
	if err != nil {
		return nil, err
	}
	return f.tokens(ctx)
}

// askLogout has the app send the person's browser to be signed out.
func (t *tokens) askLogout(ctx context.Context, method string, changes ...change) (*flow, error) {
	l := t.flow.prepare(t.app)
	l.asked = url.Values{"id_token_hint": {t.id}, "state": {rand.Text()}}
	for _, c := range changes {
		c(l.asked)
	}
	at, err := url.Parse(l.env.endpoint("end_session_endpoint"))
	if err != nil {
		return nil, fmt.Errorf("end_session_endpoint: %w", err)
	}
	if method == http.MethodPost {
		return l, l.visit(ctx, method, at, l.asked)
	}
	at.RawQuery = l.asked.Encode()
	return l, l.visit(ctx, method, at, nil)
}

// logout is askLogout with a person who agrees: some issuers ask, and others
// have a page post a form to them.
func (t *tokens) logout(ctx context.Context, method string, changes ...change) (*flow, error) {
	l, err := t.askLogout(ctx, method, changes...)
	if err != nil {
		return nil, err
	}
	for range 3 {
		if l.left != nil {
			break
		}
		forms, err := l.forms()
		if err != nil || len(forms) == 0 {
			return l, err
		}
		if err := l.submit(ctx, forms[0], l.env.Pages.Logout); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// signOut signs a person in, in a browser of their own, and then out.
func (e *Env) signOut(ctx context.Context, method string, changes ...change) (*flow, error) {
	t, err := e.apart(ctx)
	if err != nil {
		return nil, err
	}
	return t.logout(ctx, method, changes...)
}

// copied is another browser with the same cookies, as of now.
func (b *browser) copied() (*browser, error) {
	c, err := b.env.newBrowser()
	if err != nil {
		return nil, err
	}
	at := b.last().at
	c.jar.SetCookies(at, b.jar.Cookies(at))
	return c, nil
}

// wantSession checks whether the person is still signed in.
func (b *browser) wantSession(ctx context.Context, want bool) error {
	after, err := b.authorize(ctx, b.env.Web, set("prompt", "none"))
	if err != nil {
		return err
	}
	if want {
		return after.wantCode()
	}
	return after.wantRefused("login_required")
}

// stayingAtIssuer makes a check of a logout request that leads to no redirect.
func stayingAtIssuer(changes ...change) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		l, err := e.signOut(ctx, http.MethodGet, changes...)
		if err != nil {
			return err
		}
		if l.left != nil {
			return unexpected("after signing out", l, plain("a page"))
		}
		return nil
	}
}

// notWithoutQuestion makes a check of a logout request that anybody can make.
func notWithoutQuestion(changes ...change) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		t, err := e.apart(ctx)
		if err != nil {
			return err
		}
		l, err := t.askLogout(ctx, http.MethodGet, changes...)
		if err != nil {
			return err
		}
		if err := l.wantSession(ctx, true); err != nil {
			return errors.New("the session ended without a question")
		}
		return nil
	}
}

func orNothing(u *url.URL) *url.URL {
	if u == nil {
		return &url.URL{}
	}
	return u
}
