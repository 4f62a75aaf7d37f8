package provider

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/storage"
)

// fate is what becomes of an authorization after a change, by the step that
// comes next; "" means that it goes on as if nothing had happened.
type fate struct {
	signIn  string // the password is tried
	session string // who was signed in comes back
	page    string // the consent page is opened
	approve string // the consent form is sent
	code    string // RFC 6749 §5.2, as all below
	refresh string
	scope   string // what a refresh gives when it is answered
	access  string // the access token at userinfo and introspection
	later   string // a refresh once the change is undone
}

const (
	refusedSignIn  = "refused"
	noSession      = "no session"
	askedAgain     = "asked again"
	clientDisabled = "page: disabled"
	clientUnknown  = "page: unknown"
	badRedirect    = "page: redirect"
	dead           = "dead"
)

// TestChangesBetweenSteps: whatever ends an authorization ends it at the very
// next step, whichever that is, with the error that says so (D10, R7), and what
// is undone brings nothing back that should stay dead.
func TestChangesBetweenSteps(t *testing.T) {
	const all, less = "openid orders:read orders:report offline_access", "openid orders:read offline_access"
	alter := func(change func(c *storage.Client)) func(context.Context, *house, *SignedIn) error {
		return func(ctx context.Context, h *house, _ *SignedIn) error {
			_, err := h.admin.UpdateClient(ctx, "shop", change)
			return err
		}
	}
	restore := alter(func(c *storage.Client) {
		c.GrantTypes, c.RedirectURIs = []string{grantCode, grantRefresh}, []string{houseCallback}
		c.Scopes = append([]string{"profile", "email"}, strings.Fields(all)...)
	})
	without := func(scopes ...string) func(context.Context, *house, *SignedIn) error {
		return alter(func(c *storage.Client) {
			c.Scopes = without(c.Scopes, scopes...)
		})
	}
	type act = func(context.Context, *house, *SignedIn) error
	for _, change := range []struct {
		name     string
		bound    bool // of a grant that ends with the session
		do, undo act
		fate     fate
	}{
		{"nothing", false, func(context.Context, *house, *SignedIn) error { return nil }, nil, fate{scope: all}},
		{"user disabled", false,
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.DisableUser(ctx, "ann")
				return err
			},
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.EnableUser(ctx, "ann")
				return err
			},
			fate{signIn: refusedSignIn, session: noSession, page: noSession, approve: noSession, code: "invalid_grant", refresh: "invalid_grant", access: dead}},
		{"user deleted", false,
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.DeleteUser(ctx, "ann")
				return err
			},
			func(ctx context.Context, h *house, _ *SignedIn) error { return h.createAnn(ctx) }, // another ann
			fate{signIn: refusedSignIn, session: noSession, page: noSession, approve: noSession, code: "invalid_grant", refresh: "invalid_grant", access: dead, later: "invalid_grant"}},
		{"password set by an operator", false,
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.SetPassword(ctx, "ann", "another quiet heron")
				return err
			},
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.SetPassword(ctx, "ann", housePassword)
				return err
			},
			fate{signIn: refusedSignIn, session: noSession, page: noSession, approve: noSession, code: "invalid_grant", refresh: "invalid_grant", access: dead, later: "invalid_grant"}},
		{"password changed by its person, elsewhere", false,
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.p.ChangePassword(ctx, h.signIn("ann"), housePassword, "another quiet heron", "192.0.2.1")
				return err
			},
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.SetPassword(ctx, "ann", housePassword)
				return err
			},
			fate{signIn: refusedSignIn, session: noSession, page: noSession, approve: noSession, code: "invalid_grant", refresh: "invalid_grant", access: dead, later: "invalid_grant"}},
		{"consent withdrawn, and given again", false,
			func(ctx context.Context, h *house, s *SignedIn) error {
				if err := h.p.WithdrawApp(ctx, s, "shop"); !errors.Is(err, storage.ErrNotFound) {
					return err
				}
				return nil
			},
			func(ctx context.Context, h *house, _ *SignedIn) error {
				h.code(h.signIn("ann"), "scope", all)
				return nil
			},
			fate{code: "invalid_grant", refresh: "invalid_grant", access: dead, later: "invalid_grant"}},
		{"client disabled", false,
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.DisableClient(ctx, "shop")
				return err
			},
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.EnableClient(ctx, "shop")
				return err
			},
			fate{page: clientDisabled, approve: clientDisabled, code: "invalid_client", refresh: "invalid_client", access: dead}},
		{"client deleted, and made again", false,
			func(ctx context.Context, h *house, _ *SignedIn) error { return h.admin.DeleteClient(ctx, "shop") },
			func(ctx context.Context, h *house, _ *SignedIn) error { h.secret = h.client("shop", nil); return nil },
			fate{page: clientUnknown, approve: clientUnknown, code: "invalid_client", refresh: "invalid_client", access: dead, later: "invalid_grant"}},
		{"client loses its grants", false,
			alter(func(c *storage.Client) {
				c.GrantTypes, c.RedirectURIs, c.Scopes = []string{grantClientCredentials}, nil, []string{"orders:read", "orders:report"}
			}), restore,
			fate{page: badRedirect, approve: badRedirect, code: "unauthorized_client", refresh: "unauthorized_client"}},
		{"client loses the refresh grant", false,
			alter(func(c *storage.Client) { c.GrantTypes = []string{grantCode} }), restore,
			fate{refresh: "unauthorized_client", approve: askedAgain}},
		{"client loses a scope", false, without("orders:report"), restore,
			fate{page: "invalid_scope", approve: "invalid_scope", scope: less}},
		{"client loses every scope", false, without("openid", "orders:read", "orders:report", "offline_access"), restore,
			fate{page: "invalid_scope", approve: "invalid_scope", code: "invalid_scope", refresh: "invalid_scope"}},
		{"user loses a role", false,
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.RevokeUserRole(ctx, "ann", "orders-admin")
				return err
			},
			func(ctx context.Context, h *house, _ *SignedIn) error {
				_, err := h.admin.GrantUserRole(ctx, "ann", "orders-admin")
				return err
			},
			fate{approve: askedAgain, scope: less, access: dead}},
		{"session ended", true,
			func(ctx context.Context, h *house, s *SignedIn) error { return h.p.SignOut(ctx, s) }, nil,
			fate{session: noSession, page: noSession, approve: noSession, code: "invalid_grant", refresh: "invalid_grant", access: dead, later: "invalid_grant"}},
		{"session ended elsewhere", true,
			func(ctx context.Context, h *house, s *SignedIn) error {
				return h.p.EndSession(ctx, h.signIn("ann"), s.Session.ID)
			}, nil,
			fate{session: noSession, page: noSession, approve: noSession, code: "invalid_grant", refresh: "invalid_grant", access: dead, later: "invalid_grant"}},
		{"session ended, of an offline grant", false,
			func(ctx context.Context, h *house, s *SignedIn) error { return h.p.SignOut(ctx, s) }, nil,
			fate{session: noSession, page: noSession, approve: noSession, scope: all}},
	} {
		t.Run(change.name, func(t *testing.T) {
			onBothHouses(t, nil, func(t *testing.T, h *house) {
				w := &walk{h: h, scope: all, fate: change.fate}
				if change.bound {
					w.scope = strings.TrimSuffix(all, " offline_access")
				}
				must(t, h.role(t.Context()))
				w.do = func() {
					t.Helper()
					must(t, change.do(t.Context(), h, w.signedIn))
					h.settle()
				}
				w.undo = func() {
					t.Helper()
					if change.undo != nil {
						must(t, change.undo(t.Context(), h, nil))
						must(t, h.role(t.Context()))
					}
					h.settle()
				}
				w.all()
			})
		})
	}
}

// without returns the list without some of its elements.
func without(list []string, gone ...string) (rest []string) {
	for _, s := range list {
		if !strings.Contains(" "+strings.Join(gone, " ")+" ", " "+s+" ") {
			rest = append(rest, s)
		}
	}
	return rest
}

// createAnn makes a user of that name.
func (h *house) createAnn(ctx context.Context) error {
	_, err := h.admin.CreateUser(ctx, storage.User{Username: "ann", Email: "ann@people.example", EmailVerified: true}, housePassword)
	return err
}

// role gives ann the role that the scope orders:report needs.
func (h *house) role(ctx context.Context) error {
	_, err := h.admin.GrantUserRole(ctx, "ann", "orders-admin")
	return err
}

// walk goes through an authorization once for each step, and makes the change
// before it.
type walk struct {
	h        *house
	scope    string
	do, undo func()
	fate     fate
	signedIn *SignedIn
	cookie   string
}

func (w *walk) signIn() {
	w.h.t.Helper()
	r, err := w.h.p.SignIn(w.h.t.Context(), SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"})
	must(w.h.t, err)
	w.signedIn, w.cookie = r.SignedIn, r.Cookie
}

func (w *walk) is(step, got, want string) {
	w.h.t.Helper()
	if got != want {
		w.h.t.Errorf("%s: %q, want %q", step, got, want)
	}
}

func (w *walk) all() {
	h, ctx := w.h, w.h.t.Context()
	ask := askShop("prompt", "consent", "scope", w.scope)

	// Before the sign-in, and before the consent page.
	w.signIn()
	a, err := h.begin(ask)
	must(h.t, err)
	sealed, err := h.p.SealFlow(a, "browser")
	must(h.t, err)
	w.do()
	_, err = h.p.SignIn(ctx, SignInAttempt{Login: "ann", Password: housePassword, Address: "192.0.2.1"})
	if errors.Is(err, ErrBadCredentials) {
		w.is("sign-in", refusedSignIn, w.fate.signIn)
	} else {
		must(h.t, err)
		w.is("sign-in", "", w.fate.signIn)
	}
	_, err = h.p.Resume(ctx, w.cookie)
	w.is("session", outcomeOf(h.t, err), w.fate.session)
	w.is("consent page", w.step(sealed, func(a *Authorization, who *SignedIn) (string, error) {
		step, err := h.p.Next(ctx, a, who)
		if step.Redirect != nil {
			return step.Redirect.Params.Get("error"), err
		}
		return "", err
	}), w.fate.page)
	w.undo()
	if w.fate.session != "" {
		_, err = h.p.Resume(ctx, w.cookie)
		w.is("session, once it is undone", outcomeOf(h.t, err), noSession)
	}

	// Before the approval.
	w.signIn()
	a, err = h.begin(ask)
	must(h.t, err)
	_, err = h.p.Next(ctx, a, w.signedIn)
	must(h.t, err)
	sealed, err = h.p.SealFlow(a, "browser")
	must(h.t, err)
	w.do()
	w.is("approval", w.step(sealed, func(a *Authorization, who *SignedIn) (string, error) {
		r, err := h.p.Approve(ctx, a, who, true)
		if err == nil {
			return r.Params.Get("error"), nil
		}
		return "", err
	}), w.fate.approve)
	// The same for a request that had read the session before the change.
	if w.fate.session != "" {
		if r, err := h.p.Approve(ctx, a, w.signedIn, true); !errors.Is(err, ErrNoSession) {
			h.t.Errorf("approval by who was signed in: %v, %v", r, err)
		}
	}
	w.undo()

	// Between code and token.
	w.signIn()
	code := h.code(w.signedIn, "scope", w.scope)
	w.do()
	w.is("code", h.redeem(code).member("error"), w.fate.code)
	w.undo()
	if w.fate.later != "" {
		w.is("code, once it is undone", h.redeem(code).member("error"), "invalid_grant")
	}

	// Between the first token and the first refresh, and between two refreshes.
	for _, refreshed := range []bool{false, true} {
		w.signIn()
		r := h.tokens(w.signedIn, "scope", w.scope)
		if refreshed {
			r = h.refresh(r.member("refresh_token"))
		}
		access, token := r.member("access_token"), r.member("refresh_token")
		w.do()
		w.access("access token", access, w.fate.access)
		if w.fate.refresh != "" && h.active(token) {
			h.t.Error("introspection says that the refresh token is active")
		}
		r = h.refresh(token)
		w.is("refresh", r.member("error"), w.fate.refresh)
		w.is("scope of the refresh", r.member("scope"), w.fate.scope)
		if r.status == http.StatusOK {
			token = r.member("refresh_token")
			w.access("new access token", r.member("access_token"), "")
		}
		w.undo()
		w.access("access token, once it is undone", access, w.fate.access)
		w.is("refresh, once it is undone", h.refresh(token).member("error"), w.fate.later)
	}
}

// step takes the flow one page on in the browser.
func (w *walk) step(sealed string, next func(*Authorization, *SignedIn) (string, error)) string {
	w.h.t.Helper()
	ctx := w.h.t.Context()
	a, err := w.h.p.OpenFlow(ctx, sealed, "browser")
	if err != nil {
		return outcomeOf(w.h.t, err)
	}
	who, err := w.h.p.Resume(ctx, w.cookie)
	if err != nil {
		return outcomeOf(w.h.t, err)
	}
	answer, err := next(a, who)
	if err != nil {
		return outcomeOf(w.h.t, err)
	}
	return answer
}

// outcomeOf names an error as fate does.
func outcomeOf(t testing.TB, err error) string {
	t.Helper()
	var page *PageError
	var back *Redirect
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrNoSession):
		return noSession
	case errors.Is(err, ErrSwitched):
		return askedAgain
	case errors.As(err, &back):
		return back.Params.Get("error")
	case errors.As(err, &page) && page.Kind == PageClientDisabled:
		return clientDisabled
	case errors.As(err, &page) && page.Kind == PageUnknownClient:
		return clientUnknown
	case errors.As(err, &page) && page.Kind == PageBadRedirect:
		return badRedirect
	}
	return err.Error()
}

// access asks userinfo and introspection about an access token.
func (w *walk) access(what, token, want string) {
	w.h.t.Helper()
	got := ""
	if r := w.h.userInfo(token); r.status == http.StatusUnauthorized {
		got = dead
	} else if r.status != http.StatusOK {
		got = r.member("error")
	}
	w.is(what+" at userinfo", got, want)
	if got = ""; !w.h.active(token) {
		got = dead
	}
	w.is(what+" at introspection", got, want)
}
