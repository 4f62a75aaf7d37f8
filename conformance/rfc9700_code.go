package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// RFC 9700: the practice for the code flow, refresh tokens and pages.
func rfc9700CodeChecks() []Check {
	const spec = "RFC 9700"
	who := signIn()
	paged := func(id, section, name string, rule func(page hop) error) Check {
		return Check{id, spec, section, name, who, eachPage(rule)}
	}
	return []Check{
		{"rfc9700-exact-redirect", spec, "§4.1.3", "a redirect URI that is only like the registered one is refused on a page", who, redirectExactly},
		{"rfc9700-open-redirector", spec, "§4.11.2", "a request with another fault redirects no better to a URI that is not registered", who,
			func(ctx context.Context, e *Env) error {
				for _, fault := range []change{set("prompt", "none"), set("response_type", "token"), set("scope", "no-such-scope-anywhere"),
					set("client_id", "no-such-client"), unset("code_challenge", "code_challenge_method")} {
					f, err := e.flow(ctx, set("redirect_uri", "https://other.example/cb"), fault)
					if err != nil {
						return err
					}
					if err := f.wantPage(); err != nil {
						return err
					}
				}
				return nil
			}},
		{"rfc9700-code-injection", spec, "§4.5.3", "a code with the verifier of another request is invalid_grant", who,
			func(ctx context.Context, e *Env) error {
				mine, err := e.flow(ctx)
				if err != nil {
					return err
				}
				stolen, err := e.flow(ctx)
				if err != nil {
					return err
				}
				a, err := mine.redeem(ctx, set("code", stolen.answer.Get("code")))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_grant")
			}},
		{"rfc9700-downgrade", spec, "§4.8.2", "a verifier is refused where the request had no challenge", who,
			func(ctx context.Context, e *Env) error { return e.wantNoDowngrade(ctx, e.Web) }},
		{"rfc9700-downgrade-lax", spec, "§4.8.2", "a verifier is refused where a client that may do without PKCE sent no challenge", signIn(secondApp()),
			func(ctx context.Context, e *Env) error { return e.wantNoDowngrade(ctx, e.SecondWeb) }},
		{"rfc9700-no-307", spec, "§4.12", "the answer to a password is no redirect that would send it on", who, noPasswordSentOn},
		{"rfc9700-rotation", spec, "§4.14.2", "a public client gets a new refresh token with each use", signIn(grant("refresh_token"), nativeApp()),
			func(ctx context.Context, e *Env) error {
				t, err := e.offline(ctx, e.native())
				if err != nil {
					return err
				}
				n, err := t.next(ctx, e)
				if err != nil {
					return err
				}
				if n.refresh == t.refresh {
					return unexpected("refresh_token", plain("the same"), plain("another"))
				}
				return nil
			}},
		{"rfc9700-reuse", spec, "§4.14.2", "an old refresh token used again ends the newest too", signIn(grant("refresh_token"), nativeApp()),
			func(ctx context.Context, e *Env) error {
				first, err := e.offline(ctx, e.native())
				if err != nil {
					return err
				}
				last := first
				for range 2 { // the one before the newest may be repeated after a lost answer
					if last, err = last.next(ctx, e); err != nil {
						return err
					}
				}
				if err := e.wantDead(ctx, last.app, first.refresh); err != nil {
					return fmt.Errorf("the old refresh token: %w", err)
				}
				if err := e.wantDead(ctx, last.app, last.refresh); err != nil {
					return fmt.Errorf("the newest refresh token: %w", err)
				}
				return nil
			}},
		paged("rfc9700-framing", "§4.16", "no page may be framed by others", func(p hop) error {
			switch directive(p.answer, "frame-ancestors") {
			case "'none'", "'self'":
				return nil
			case "": // where it is there, browsers ignore the older header
				if option := strings.ToUpper(p.answer.Header.Get("X-Frame-Options")); option == "DENY" || option == "SAMEORIGIN" {
					return nil
				}
			}
			return unexpected("Content-Security-Policy", p.answer.Header.Get("Content-Security-Policy"), plain("frame-ancestors 'none' or 'self'"))
		}),
		paged("rfc9700-referrer", "§4.2.4", "no page tells other sites its address", func(p hop) error {
			switch policy := p.answer.Header.Get("Referrer-Policy"); policy {
			case "no-referrer", "same-origin", "origin", "strict-origin", "origin-when-cross-origin", "strict-origin-when-cross-origin":
				return nil
			default:
				return unexpected("Referrer-Policy", policy, plain("no-referrer, or another that keeps the address"))
			}
		}),
		paged("rfc9700-own-resources", "§4.2.4", "no page loads anything from another site", func(p hop) error {
			root, err := html.Parse(strings.NewReader(string(p.answer.Body)))
			if err != nil {
				return fmt.Errorf("page: %w", err)
			}
			for n := range root.Descendants() {
				for _, a := range n.Attr {
					if a.Key != "src" && (a.Key != "href" || n.Data != "link") {
						continue
					}
					if to, err := p.at.Parse(a.Val); err != nil || to.Host != p.at.Host && to.Scheme != "data" {
						return unexpected(n.Data, a.Val, plain("an address of the issuer's own"))
					}
				}
			}
			return nil
		}),
		{"csp-no-inline-script", "CSP Level 3", "§6.1", "no page runs scripts of any origin, nor inline ones without a nonce", who, eachPage(func(p hop) error {
			scripts := directive(p.answer, "script-src")
			if scripts == "" {
				scripts = directive(p.answer, "default-src")
			}
			if scripts == "" || slices.ContainsFunc(strings.Fields(scripts), func(s string) bool {
				return s == "*" || s == "'unsafe-inline'" || s == "'unsafe-eval'" || s == "https:" || s == "http:" || s == "data:"
			}) {
				return unexpected("Content-Security-Policy", p.answer.Header.Get("Content-Security-Policy"), plain("script-src with origins or nonces"))
			}
			return nil
		})},
		{"rfc9111-pages-no-store", "RFC 9111", "§5.2.2.5", "no page of a sign-in is kept by a cache", who, eachPage(func(p hop) error { return p.answer.wantNoStore() })},
		{"rfc6265-cookies", "RFC 6265", "§4.1.2", "cookies of a sign-in are HttpOnly, SameSite and, on https, Secure", who, cookiesGuarded},
		{"rfc6265-fixation", "RFC 6265", "§8.4", "cookies from before a sign-in are not signed in by it", who,
			func(ctx context.Context, e *Env) error {
				b, err := e.newBrowser()
				if err != nil {
					return err
				}
				f, err := b.begin(ctx, e.Web)
				if err != nil {
					return err
				}
				planted, err := f.copied()
				if err != nil {
					return err
				}
				if err := f.goOn(ctx); err != nil {
					return err
				}
				if err := f.wantCode(); err != nil {
					return err
				}
				return planted.wantSession(ctx, false)
			}},
	}
}

// redirectExactly tries what a comparison gone soft would accept.
func redirectExactly(ctx context.Context, e *Env) error {
	u, err := url.Parse(e.Web.RedirectURI)
	if err != nil {
		return fmt.Errorf("--redirect-uri: %w", err)
	}
	with := func(alter func(*url.URL)) string {
		other := *u
		alter(&other)
		return other.String()
	}
	separator := "?"
	if u.RawQuery != "" {
		separator = "&"
	}
	for _, uri := range []string{
		with(func(u *url.URL) { u.Path += "/more" }),
		with(func(u *url.URL) { u.Path += "/../more" }),
		with(func(u *url.URL) { u.Path = strings.ToUpper(u.Path) + "X" }),
		with(func(u *url.URL) { u.Host += ".evil.example" }),
		with(func(u *url.URL) { u.Host = "evil." + u.Host }),
		with(func(u *url.URL) { u.User, u.Host = url.User(u.Host), "evil.example" }),
		with(func(u *url.URL) { u.Host = u.Hostname() + ":8444" }),
		e.Web.RedirectURI + separator + "more=1",
		e.Web.RedirectURI + "#fragment",
		"https://evil.example/?" + e.Web.RedirectURI,
		"javascript:alert(1)",
	} {
		f, err := e.flow(ctx, set("redirect_uri", uri))
		if err != nil {
			return err
		}
		if err := f.wantPage(); err != nil {
			return fmt.Errorf("redirect_uri %s: %w", uri, err)
		}
	}
	return nil
}

// wantNoDowngrade leaves the challenge out of the request, as somebody in the
// middle would, while the client goes on to send its verifier.
func (e *Env) wantNoDowngrade(ctx context.Context, app App) error {
	f, err := e.flowFor(ctx, app, unset("code_challenge", "code_challenge_method"))
	if err != nil {
		return err
	}
	if !f.answer.Has("code") {
		return f.wantRefused("invalid_request")
	}
	a, err := f.redeem(ctx)
	if err != nil {
		return err
	}
	return a.wantError(http.StatusBadRequest, "invalid_grant", "invalid_request")
}

func noPasswordSentOn(ctx context.Context, e *Env) error {
	f, err := e.flow(ctx, set("prompt", "login"))
	if err != nil {
		return err
	}
	if err := f.wantShown(pageLogin); err != nil {
		return err
	}
	for _, h := range f.hops {
		if status := h.answer.Status; h.method == http.MethodPost && (status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect) {
			return unexpected("answer to a form", h.answer, plain("status 303"))
		}
	}
	return nil
}

// eachPage makes a check of the pages of a sign-in with consent, and of a page
// that tells of an error.
func eachPage(rule func(page hop) error) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		b, err := e.newBrowser()
		if err != nil {
			return err
		}
		whole, err := b.authorize(ctx, e.Web, set("prompt", "consent"))
		if err != nil {
			return err
		}
		if err := whole.wantCode(); err != nil {
			return err
		}
		broken, err := b.begin(ctx, e.Web, set("redirect_uri", "https://other.example/cb"))
		if err != nil {
			return err
		}
		pages := 0
		for _, h := range slices.Concat(whole.hops, broken.hops) {
			if h.redirect() != nil || !strings.HasPrefix(h.answer.Header.Get("Content-Type"), "text/html") {
				continue
			}
			pages++
			if err := rule(h); err != nil {
				return fmt.Errorf("page at %s: %w", h.at.Path, err)
			}
		}
		if pages == 0 {
			return errors.New("no page was shown")
		}
		return nil
	}
}

// directive is the value of a directive of the Content-Security-Policy.
func directive(a *Answer, name string) string {
	for _, policy := range a.Header.Values("Content-Security-Policy") {
		for part := range strings.SplitSeq(policy, ";") {
			if fields := strings.Fields(part); len(fields) > 0 && strings.EqualFold(fields[0], name) {
				return strings.Join(fields[1:], " ")
			}
		}
	}
	return ""
}

func cookiesGuarded(ctx context.Context, e *Env) error {
	b, err := e.newBrowser()
	if err != nil {
		return err
	}
	f, err := b.authorize(ctx, e.Web)
	if err != nil {
		return err
	}
	cookies := 0
	for _, h := range f.hops {
		for _, c := range (&http.Response{Header: h.answer.Header}).Cookies() {
			cookies++
			// SameSite None is for who wants to know a browser that an app has
			// posted a request; what is said at all is a decision.
			if !c.HttpOnly || c.SameSite == 0 || c.SameSite == http.SameSiteDefaultMode || !c.Secure && h.at.Scheme == "https" {
				return unexpected("cookie "+c.Name, plain(fmt.Sprintf("HttpOnly %t, SameSite %d, Secure %t", c.HttpOnly, c.SameSite, c.Secure)),
					plain("HttpOnly, SameSite, and Secure on https"))
			}
		}
	}
	if cookies == 0 {
		return errors.New("the sign-in set no cookie")
	}
	return nil
}
