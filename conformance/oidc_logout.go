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
		{"logout-post", spec, "§2", "a logout request may be posted", who,
			func(ctx context.Context, e *Env) error {
				l, err := e.signOut(ctx, http.MethodPost)
				if err != nil {
					return err
				}
				return l.wantSession(ctx, false)
			}},
		{"logout-redirect", spec, "§3", "afterwards the person is taken to the registered address, with the state", back,
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
		{"logout-longer-address", spec, "§3", "nor to one that only begins like it", back,
			func(ctx context.Context, e *Env) error {
				return stayingAtIssuer(set("post_logout_redirect_uri", e.PostLogoutURI+"/more"))(ctx, e)
			}},
		{"logout-other-client", spec, "§2", "client_id must be the client of the hint", with(back, secondApp()),
			func(ctx context.Context, e *Env) error {
				return stayingAtIssuer(set("post_logout_redirect_uri", e.PostLogoutURI), set("client_id", e.SecondWeb.ID))(ctx, e)
			}},
		{"logout-no-hint", spec, "§2", "without a hint, nobody is signed out without a question", who,
			notWithoutQuestion(unset("id_token_hint"))},
		{"logout-forged-hint", spec, "§4", "nor with a hint that the issuer did not sign", who,
			notWithoutQuestion(func(v url.Values) { v.Set("id_token_hint", alterSignature(v.Get("id_token_hint"))) })},
	}
}

// signOut signs a person in, in a browser of their own, and then has an app
// sign them out. They agree when they are asked.
func (e *Env) signOut(ctx context.Context, method string, changes ...change) (*flow, error) {
	l, err := e.beginSignOut(ctx, method, changes...)
	if err != nil {
		return nil, err
	}
	for range 3 { // some ask, and others have a page post a form to them
		if l.left != nil {
			return l, nil
		}
		forms, err := l.forms()
		if err != nil {
			return nil, err
		}
		if len(forms) == 0 {
			return l, nil
		}
		if err := l.submit(ctx, forms[0], e.Pages.Logout); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (e *Env) beginSignOut(ctx context.Context, method string, changes ...change) (*flow, error) {
	b, err := e.newBrowser()
	if err != nil {
		return nil, err
	}
	f, err := b.authorize(ctx, e.Web)
	if err != nil {
		return nil, err
	}
	t, err := f.tokens(ctx)
	if err != nil {
		return nil, err
	}
	l := b.prepare(e.Web)
	l.asked = url.Values{"id_token_hint": {t.id}, "state": {rand.Text()}}
	for _, c := range changes {
		c(l.asked)
	}
	at, err := url.Parse(e.endpoint("end_session_endpoint"))
	if err != nil {
		return nil, fmt.Errorf("end_session_endpoint: %w", err)
	}
	if method == http.MethodPost {
		return l, l.visit(ctx, method, at, l.asked)
	}
	at.RawQuery = l.asked.Encode()
	return l, l.visit(ctx, method, at, nil)
}

// wantSession checks whether the person is still signed in.
func (f *flow) wantSession(ctx context.Context, want bool) error {
	after, err := f.authorize(ctx, f.env.Web, set("prompt", "none"))
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
		l, err := e.beginSignOut(ctx, http.MethodGet, changes...)
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
