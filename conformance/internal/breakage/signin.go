package breakage

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// The breakages of a sign-in: what a browser carries, and what a code brings.

func ofAuthorization() []Breakage {
	return []Breakage{
		{"rfc6749-unknown-client-page", "redirects for an unknown client", sending(having("client_id", "no-such-client"), "error", "unauthorized_client")},
		{"rfc6749-no-client-page", "redirects for no client", sending(lacking("client_id"), "error", "invalid_request")},
		{"rfc6749-no-response-type", "has another error for no response_type", saying(lacking("response_type"), "server_error")},
		{"rfc6749-response-type", "has another error for response_type token", saying(having("response_type", "token"), "invalid_request")},
		{"rfc6749-repeated-authorize", "takes the first of a repeated parameter", wishing(func(q url.Values) {
			if q.Has("scope") {
				q.Set("scope", q.Get("scope"))
			}
		})},
		{"rfc6749-unknown-authorize", "refuses a parameter it does not know", sending(having("parameter_nobody_defined", "1"), "error", "invalid_request")},
		{"rfc6749-empty-authorize", "refuses an empty parameter", sending(func(q url.Values) bool { return q.Has("prompt") && q.Get("prompt") == "" }, "error", "invalid_request")},
		{"rfc6749-unknown-authorize-scope", "has another error for an unknown scope", saying(holding("scope", "no-such-scope"), "invalid_request")},
		{"rfc6749-state", "takes a plus in state for a space", telling(func(_, q url.Values) {
			if q.Has("state") {
				q.Set("state", strings.ReplaceAll(q.Get("state"), "+", " "))
			}
		})},
		{"rfc6749-no-state", "makes up a state", telling(func(_, q url.Values) {
			if !q.Has("state") {
				q.Set("state", "none")
			}
		})},
		{"rfc6749-error-state", "keeps the state of an error", telling(func(_, q url.Values) {
			if q.Has("error") {
				q.Del("state")
			}
		})},
		{"rfc6749-access-denied", "has another error for a person's no", saying(anything, "server_error", "access_denied")},
		{"rfc6749-redirect-query", "loses the query of the redirect URI", telling(func(asked, q url.Values) {
			if u, err := url.Parse(asked.Get("redirect_uri")); err == nil {
				for name := range u.Query() {
					q.Del(name)
				}
			}
		})},
		{"rfc6749-csrf", "takes a form from any browser", instead("", func(_ *Proxy, c *call) bool {
			return c.method == http.MethodPost && c.header.Get("Cookie") == ""
		}, func(p *Proxy, _ *call) *reply { return p.toApp(p.latest(), "code", "let-in") })},

		{"rfc9207-code", "does not name itself beside a code", telling(func(_, q url.Values) { dropBeside(q, "code", "iss") })},
		{"rfc9207-form", "does not name itself in a form", onPages(func(r *reply) {
			r.body = []byte(strings.ReplaceAll(string(r.body), `name="iss"`, `name="issuer"`))
		})},
		{"rfc9207-error", "does not name itself beside an error", telling(func(_, q url.Values) { dropBeside(q, "error", "iss") })},
		{"rfc8707-authorize-unknown", "has another error for an unknown resource", saying(anything, "invalid_request", "invalid_target")},

		{"rfc9700-exact-redirect", "compares the beginning of redirect URIs", sending(holding("redirect_uri", "/more"), "code", "let-in")},
		{"rfc9700-open-redirector", "redirects silent requests anywhere", sending(func(q url.Values) bool {
			return q.Get("prompt") == "none" && strings.HasPrefix(q.Get("redirect_uri"), "https://other.example/")
		}, "error", "login_required")},
		{"rfc8252-any-port", "has a port of its own for native apps", instead(authorization, func(_ *Proxy, c *call) bool {
			return strings.HasPrefix(c.parameters().Get("redirect_uri"), "http://127.0.0.1:")
		}, page(http.StatusBadRequest))},
		{"rfc8252-loopback-only", "ignores more than the port", sending(holding("redirect_uri", "/more"), "code", "let-in")},
		{"rfc8252-consent", "asks nothing for native apps", sending(holding("redirect_uri", "http://127.0.0.1:"), "code", "let-in")},

		{"rfc7636-public-required", "lets public clients do without PKCE", sending(lacking("code_challenge"), "code", "let-in")},
		{"rfc7636-plain", "takes plain PKCE", sending(having("code_challenge_method", "plain"), "code", "let-in")},
		{"rfc7636-method-default", "takes plain PKCE by default", sending(func(q url.Values) bool {
			return q.Has("code_challenge") && !q.Has("code_challenge_method")
		}, "code", "let-in")},
		{"rfc7636-unknown-method", "takes any method of PKCE", sending(having("code_challenge_method", "S257"), "code", "let-in")},
		{"rfc7636-challenge-syntax", "takes any challenge", sending(func(q url.Values) bool { return len(q.Get("code_challenge")) != 43 }, "code", "let-in")},
	}
}

func ofAuthentication() []Breakage {
	asked := func(name string, change func(value string) (string, bool)) breaking {
		return wishing(func(q url.Values) {
			if value, keep := change(q.Get(name)); keep {
				q.Set(name, value)
			} else {
				q.Del(name)
			}
		})
	}
	ignored := func(string) (string, bool) { return "", false }
	ignoredIf := func(values ...string) func(string) (string, bool) {
		return func(v string) (string, bool) { return v, v != "" && !slices.Contains(values, v) }
	}
	refused := func(name string) breaking {
		return sending(func(q url.Values) bool { return q.Has(name) }, "error", "invalid_request")
	}
	noAuthTime := forgingID(func(_ *Proxy, _ *call, _, claims map[string]any) { delete(claims, "auth_time") })
	return []Breakage{
		{"oidc-code-flow", "sends people back without a code", telling(func(_, q url.Values) { q.Del("code") })},
		{"oidc-authorize-post", "takes no POST", instead(authorization, func(_ *Proxy, c *call) bool { return c.method == http.MethodPost }, page(http.StatusMethodNotAllowed))},
		{"oidc-redirect-uri", "guesses the redirect URI", instead(authorization, func(_ *Proxy, c *call) bool {
			return !c.parameters().Has("redirect_uri") && !c.parameters().Has("flow")
		},
			func(p *Proxy, _ *call) *reply { return p.toApp(p.latest(), "error", "invalid_request") })},
		{"oidc-session", "asks for consent each time", wishing(func(q url.Values) {
			if !q.Has("prompt") {
				q.Set("prompt", "consent")
			}
		})},
		{"oidc-prompt-none", "never answers without a page", sending(having("prompt", "none"), "error", "login_required")},
		{"oidc-prompt-none-login", "has another error where nobody is signed in", saying(anything, "access_denied", "login_required")},
		{"oidc-prompt-none-consent", "asks for consent despite prompt=none", asked("prompt", ignoredIf("none"))},
		{"oidc-prompt-none-alone", "takes none beside login", asked("prompt", func(v string) (string, bool) { return strings.TrimSuffix(v, " login"), v != "" })},
		{"oidc-prompt-login", "ignores prompt=login", asked("prompt", ignoredIf("login"))},
		{"oidc-prompt-consent", "ignores prompt=consent", asked("prompt", ignoredIf("consent"))},
		{"oidc-prompt-select", "ignores prompt=select_account", asked("prompt", ignoredIf("select_account"))},
		{"oidc-prompt-both", "reads one prompt only", asked("prompt", func(v string) (string, bool) { v, _, _ = strings.Cut(v, " "); return v, v != "" })},
		{"oidc-max-age", "does not say when the person signed in", noAuthTime},
		{"oidc-max-age-zero", "ignores max_age=0", asked("max_age", ignoredIf("0"))},
		{"oidc-max-age-silent", "ignores max_age=0", asked("max_age", ignoredIf("0"))},
		{"oidc-max-age-syntax", "ignores a max_age it cannot read", asked("max_age", ignoredIf("soon"))},
		{"oidc-login-hint", "refuses login_hint", refused("login_hint")},
		{"oidc-ui-locales", "refuses ui_locales", refused("ui_locales")},
		{"oidc-acr-values", "refuses acr_values", refused("acr_values")},
		{"oidc-display", "refuses display", refused("display")},
		{"oidc-request", "has another error for request", saying(anything, "invalid_request", "invalid_request_object")},
		{"oidc-request-uri", "has another error for request_uri", saying(anything, "invalid_request", "invalid_request_uri")},
		{"oidc-hint", "finds that the hint is about somebody else", sending(func(q url.Values) bool { return q.Has("id_token_hint") }, "error", "login_required")},
		{"oidc-forged-hint", "ignores a hint it cannot verify", asked("id_token_hint", ignored)},
		{"oidc-claims-auth-time", "does not say when the person signed in", noAuthTime},
		{"oidc-claims-id-token", "ignores claims", asked("claims", ignored)},
		{"oidc-claims-userinfo", "ignores claims", asked("claims", ignored)},
		{"oidc-claims-unknown", "refuses claims it does not know", sending(holding("claims", "no_such"), "error", "invalid_request")},
		{"oidc-claims-sub", "ignores claims", asked("claims", ignored)},
		{"oidc-claims-acr", "ignores claims", asked("claims", ignored)},
		{"oidc-claims-syntax", "ignores claims it cannot read", asked("claims", ignored)},
	}
}

func ofIDTokens() []Breakage {
	claim := func(name string, value any) breaking {
		return forgingID(func(_ *Proxy, _ *call, _, claims map[string]any) { claims[name] = value })
	}
	refreshed := func(name string, value any) breaking {
		return forgingID(func(_ *Proxy, c *call, _, claims map[string]any) {
			if c.form.Get("grant_type") == "refresh_token" {
				claims[name] = value
			}
		})
	}
	headed := func(name, value string) breaking {
		return forgingID(func(_ *Proxy, _ *call, header, _ map[string]any) { header[name] = value })
	}
	return []Breakage{
		{"oidc-token-response", "gives no ID token", issued(without("id_token"))},
		{"oidc-no-store", "lets token answers be cached", answer(tokenEndpoint, func(r *reply) { r.header.Del("Cache-Control") })},
		{"oidc-id-token-signature", "signs ID tokens wrongly", issued(func(m map[string]any) {
			if s, _ := m["id_token"].(string); s != "" {
				m["id_token"] = s[:len(s)-6] + "AAAAAA"
			}
		})},
		{"oidc-id-token-alg", "signs ID tokens with nothing", headed("alg", "none")},
		{"oidc-id-token-typ", "does not tell ID tokens from access tokens", headed("typ", "at+jwt")},
		{"oidc-id-token-iss", "names another issuer", claim("iss", "https://other.example")},
		{"oidc-id-token-aud", "names another app", claim("aud", "another-client")},
		{"oidc-id-token-azp", "names another authorized party", claim("azp", "another-client")},
		{"oidc-id-token-sub", "has a sub without end", claim("sub", strings.Repeat("x", 256))},
		{"oidc-id-token-dates", "issues expired ID tokens", claim("exp", 1)},
		{"oidc-id-token-nonce", "has a nonce of its own", claim("nonce", "another")},
		{"oidc-id-token-no-nonce", "has a nonce though none was sent", claim("nonce", "")},
		{"oidc-no-openid", "gives everybody an ID token", issued(func(m map[string]any) {
			if m["id_token"] == nil {
				m["id_token"] = "e30.e30."
			}
		})},
		{"oidc-id-token-at-hash", "hashes another access token", claim("at_hash", "another")},
		{"oidc-id-token-auth-time", "has people sign in tomorrow", claim("auth_time", int64(1)<<40)},
		{"oidc-id-token-acr-amr", "writes amr as a string", claim("amr", "pwd")},
		{"oidc-id-token-same-sub", "gives people another sub each time", forgingID(func(_ *Proxy, _ *call, _, claims map[string]any) { claims["sub"] = rand.Text() })},
		{"oidc-id-token-fresh-auth-time", "remembers the first sign-in only", forgingID(func(p *Proxy, _ *call, _, claims map[string]any) {
			at, _ := claims["auth_time"].(json.Number)
			claims["auth_time"] = json.Number(p.keep("auth_time", at.String()))
		})},
		{"oidc-id-token-no-access", "takes ID tokens at userinfo", bearing(func(p *Proxy, tok string) bool {
			header, _, err := decodeJWT(tok)
			return err == nil && header["typ"] != "at+jwt"
		})},
		{"oidc-refresh-same", "gives a refresh to another person", refreshed("sub", "somebody")},
		{"oidc-refresh-auth-time", "takes a refresh for a sign-in", refreshed("auth_time", 1)},
		{"oidc-refresh-nonce", "has another nonce after a refresh", refreshed("nonce", "another")},
		{"oidc-refresh-iat", "dates back what a refresh gives", refreshed("iat", 1)},
		{"rfc9068-person", "has an access token for somebody else", forging(func(_ *call, _, claims, _ map[string]any) { claims["sub"] = "somebody" })},
		{"rfc9068-auth-time", "has another auth_time in access tokens", forging(func(_ *call, _, claims, _ map[string]any) { claims["auth_time"] = 1 })},
		{"rfc8707-narrower", "issues for all resources at once", forging(func(_ *call, _, claims, _ map[string]any) {
			claims["aud"] = []any{claims["aud"], "https://other.example"}
		})},
		{"rfc8707-code", "issues for another resource", forging(func(_ *call, _, claims, _ map[string]any) { claims["aud"] = "https://other.example" })},
	}
}

func ofCodes() []Breakage {
	wrongVerifier := redeeming(func(_ *Proxy, c *call, asked url.Values) bool {
		return asked.Has("code_challenge") && c.form.Has("code_verifier") && challengeOf(c.form.Get("code_verifier")) != asked.Get("code_challenge")
	})
	return []Breakage{
		{"rfc6749-code-once", "takes a code twice", redeeming(func(p *Proxy, c *call, _ url.Values) bool { return !p.note("code:" + c.form.Get("code")) })},
		{"rfc6749-code-client", "takes anybody's code", redeeming(func(_ *Proxy, c *call, asked url.Values) bool { return asked.Get("client_id") != c.client() })},
		{"rfc6749-code-redirect", "does not compare redirect_uri", redeeming(func(_ *Proxy, c *call, asked url.Values) bool {
			return c.form.Has("redirect_uri") && c.form.Get("redirect_uri") != asked.Get("redirect_uri")
		})},
		{"rfc6749-code-no-redirect", "does not need redirect_uri", redeeming(func(_ *Proxy, c *call, _ url.Values) bool { return !c.form.Has("redirect_uri") })},
		{"rfc6749-no-code", "has another error for no code", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return c.form.Get("grant_type") == "authorization_code" && !c.form.Has("code")
		}, refusal(http.StatusBadRequest, "invalid_grant"))},
		{"rfc6749-altered-code", "takes any code", letIn(func(p *Proxy, c *call) bool {
			return c.form.Has("code") && p.askedFor(c.form.Get("code")) == nil
		})},
		{"rfc6749-code-secret", "asks no secret for a code", redeeming(func(_ *Proxy, c *call, _ url.Values) bool { return c.nameOnly() })},
		{"rfc7636-accepted", "refuses the example of the specification", instead(tokenEndpoint, func(p *Proxy, c *call) bool {
			return strings.HasPrefix(c.form.Get("code_verifier"), "dBjftJ")
		}, refusal(http.StatusBadRequest, "invalid_grant"))},
		{"rfc7636-wrong-verifier", "does not compare the verifier", wrongVerifier},
		{"rfc7636-no-verifier", "needs no verifier", redeeming(func(_ *Proxy, c *call, _ url.Values) bool { return !c.form.Has("code_verifier") })},
		{"rfc7636-second-try", "forgets the challenge with the first try", redeeming(func(p *Proxy, c *call, _ url.Values) bool {
			return !p.note("code:"+c.form.Get("code")) && !c.form.Has("code_verifier")
		})},
		{"rfc7636-challenge-as-verifier", "takes the challenge for the verifier", redeeming(func(_ *Proxy, c *call, asked url.Values) bool {
			return c.form.Get("code_verifier") == asked.Get("code_challenge")
		})},
		{"rfc7636-verifier-syntax", "takes any verifier with the right digest", redeeming(func(_ *Proxy, c *call, _ url.Values) bool {
			v := c.form.Get("code_verifier")
			return len(v) < 43 || len(v) > 128 || strings.Contains(v, "+")
		})},
		{"rfc8707-code-other", "issues for a resource that was not asked for", redeeming(func(_ *Proxy, c *call, _ url.Values) bool { return c.form.Has("resource") })},
		{"rfc9700-code-injection", "does not compare the verifier", wrongVerifier},
		{"rfc9700-downgrade", "lets PKCE be taken away", both(sending(lacking("code_challenge"), "code", "let-in"),
			letIn(func(_ *Proxy, c *call) bool { return c.form.Get("code") == "let-in" }))},
		{"rfc9700-downgrade-lax", "ignores a verifier without challenge", redeeming(func(_ *Proxy, c *call, asked url.Values) bool {
			return !asked.Has("code_challenge") && c.form.Has("code_verifier")
		})},
		{"rfc6749-code-replay", "only refuses a code used twice", instead(tokenEndpoint, func(p *Proxy, c *call) bool {
			return c.form.Has("code") && !p.note("code:"+c.form.Get("code"))
		}, refusal(http.StatusBadRequest, "invalid_grant"))},
	}
}

func ofRefreshTokens() []Breakage {
	refreshing := func(when func(*Proxy, *call) bool) breaking {
		return letIn(func(p *Proxy, c *call) bool { return c.form.Get("grant_type") == "refresh_token" && when(p, c) })
	}
	unscoped := question(tokenEndpoint, func(c *call) {
		if c.form.Get("grant_type") == "refresh_token" {
			c.form.Del("scope")
			c.setForm(c.form)
		}
	})
	owned := func(p *Proxy, c *call) (mine, known bool) {
		owner, known := p.owner(c.form.Get("refresh_token"))
		return owner == c.client(), known
	}
	answered := func(change func(p *Proxy, c *call, m map[string]any)) breaking {
		return func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if m, err := r.object(); err == nil && c.to == tokenEndpoint && r.status == http.StatusOK {
				change(p, c, m)
				r.setObject(m)
			}
			return r
		}
	}
	kept := func(from, to string) breaking { // a member that a refresh does not change
		return answered(func(p *Proxy, c *call, m map[string]any) {
			value, _ := m[from].(string)
			m[to] = p.keep(from+" of "+c.client(), value)
		})
	}
	revokingForAll := func(p *Proxy, c *call, next func(*call) *reply) *reply {
		if owner, known := p.owner(c.form.Get("token")); c.to == revocation && known && owner != c.client() {
			p.note("revoked:" + c.form.Get("token"))
		}
		if c.to == tokenEndpoint && p.noted("revoked:"+c.form.Get("refresh_token")) {
			return refusal(http.StatusBadRequest, "invalid_grant")(p, c)
		}
		return next(c)
	}
	return []Breakage{
		{"rfc6749-refresh", "gives the same access token again", kept("access_token", "access_token")},
		{"rfc6749-refresh-client", "takes anybody's refresh token", refreshing(func(p *Proxy, c *call) bool {
			mine, known := owned(p, c)
			return known && !mine
		})},
		{"rfc6749-refresh-secret", "asks no secret for a refresh", refreshing(func(_ *Proxy, c *call) bool { return c.nameOnly() })},
		{"rfc6749-altered-refresh", "takes any refresh token", refreshing(func(p *Proxy, c *call) bool {
			_, known := owned(p, c)
			return !known
		})},
		{"rfc6749-no-refresh", "has another error for no refresh token", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return c.form.Get("grant_type") == "refresh_token" && !c.form.Has("refresh_token")
		}, refusal(http.StatusBadRequest, "invalid_grant"))},
		{"rfc6749-refresh-narrower", "cannot give less", unscoped},
		{"rfc6749-refresh-whole-again", "never gives back what once was left out", answered(func(_ *Proxy, c *call, m map[string]any) {
			if c.form.Get("grant_type") == "refresh_token" {
				m["scope"] = "openid"
			}
		})},
		{"rfc6749-refresh-wider", "ignores a scope too wide", unscoped},
		{"rfc8707-refresh-other", "refreshes for any resource", refreshing(func(_ *Proxy, c *call) bool { return c.form.Has("resource") })},
		{"rfc9700-rotation", "gives the same refresh token again", kept("refresh_token", "refresh_token")},
		{"rfc9700-reuse", "only refuses an old refresh token", instead(tokenEndpoint, func(p *Proxy, c *call) bool {
			return c.form.Has("refresh_token") && !p.note("used:"+c.form.Get("refresh_token"))
		}, refusal(http.StatusBadRequest, "invalid_grant"))},
		{"rfc7009-refresh-token", "says that it revoked, and does not", instead(revocation, func(_ *Proxy, c *call) bool { return c.form.Has("token") }, revoked)},
		{"rfc7009-refresh-token-hint", "believes the hint", instead(revocation, func(_ *Proxy, c *call) bool { return c.form.Has("token_type_hint") }, revoked)},
		{"rfc7009-refresh-token-access", "lets access tokens outlive their refresh token", bearing(func(p *Proxy, tok string) bool {
			_, known := p.owner(tok)
			return known
		})},
		{"rfc7009-refresh-token-foreign", "lets any client revoke", revokingForAll},
		{"rfc7009-public", "lets public clients revoke for others", revokingForAll},
		{"rfc7662-refresh-token", "knows no refresh token", instead(introspection, func(_ *Proxy, c *call) bool {
			return !strings.Contains(c.form.Get("token"), ".")
		}, inactive)},
		{"rfc7662-foreign-refresh-token", "tells one client of another's refresh token", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if owner, known := p.owner(c.form.Get("token")); c.to == introspection && known && owner != c.client() {
				return jsonReply(http.StatusOK, map[string]any{"active": true, "client_id": owner})
			}
			return next(c)
		}},
		{"rfc7662-person", "tells another client", object(introspection, with("client_id", "another-client"))},
	}
}

func ofPeople() []Breakage {
	return []Breakage{
		{"oidc-userinfo", "tells of somebody else", object(userinfo, with("sub", "somebody"))},
		{"oidc-userinfo-post", "answers no POST", instead(userinfo, func(_ *Proxy, c *call) bool { return c.method == http.MethodPost }, refusal(http.StatusMethodNotAllowed, "invalid_request"))},
		{"oidc-userinfo-types", "writes a boolean as a string", object(userinfo, with("email_verified", "true"))},
		{"oidc-userinfo-no-email", "tells the address to anybody", object(userinfo, with("email", "somebody@example.com"))},
		{"oidc-userinfo-no-profile", "tells the name to anybody", object(userinfo, with("name", "Somebody"))},
		{"oidc-userinfo-service", "takes a service for a person", bearing(func(_ *Proxy, tok string) bool {
			_, claims, err := decodeJWT(tok)
			return err == nil && claims["sub"] == claims["client_id"]
		})},
		{"rfc6750-form", "reads no token in a body", instead(userinfo, func(_ *Proxy, c *call) bool { return c.form.Has("access_token") }, refusal(http.StatusUnauthorized, "invalid_token"))},
		{"rfc6750-scheme-case", "knows Bearer in one case only", instead(userinfo, func(_ *Proxy, c *call) bool {
			return strings.HasPrefix(c.header.Get("Authorization"), "bEARER")
		}, refusal(http.StatusUnauthorized, "invalid_token"))},
		{"rfc6750-query", "reads a token in the address", question(userinfo, func(c *call) {
			if q, err := url.ParseQuery(c.query); err == nil && q.Has("access_token") {
				c.header.Set("Authorization", "Bearer "+q.Get("access_token"))
				c.query = ""
			}
		})},
		{"rfc6750-two-places", "takes the token in the header and looks no further", question(userinfo, func(c *call) {
			if c.header.Get("Authorization") != "" && c.isForm() {
				c.form.Del("access_token")
				c.setForm(c.form)
			}
		})},
		{"rfc6750-scope", "asks for no scope at userinfo", bearing(func(_ *Proxy, tok string) bool {
			_, claims, err := decodeJWT(tok)
			return err == nil && claims["scope"] == "profile"
		})},
		{"rfc6750-altered-token", "does not verify signatures", bearing(func(p *Proxy, tok string) bool {
			_, claims, err := decodeJWT(tok)
			_, known := p.owner(tok)
			return err == nil && claims["sub"] != nil && !known
		})},
		{"rfc6750-revoked-token", "says that it revoked, and does not", instead(revocation, func(_ *Proxy, c *call) bool { return c.form.Has("token") }, revoked)},
		{"rfc8707-userinfo", "takes tokens meant for others", bearing(func(p *Proxy, tok string) bool {
			_, claims, err := decodeJWT(tok)
			list, isList := claims["aud"].([]any)
			return err == nil && claims["aud"] != p.issuer && !(isList && slices.Contains(list, any(p.issuer)))
		})},
	}
}

func ofPages() []Breakage {
	withCode := func(change func(string) string) breaking {
		return onPages(func(r *reply) {
			if body := string(r.body); strings.Contains(body, `name="code"`) {
				r.body = []byte(change(body))
			}
		})
	}
	byGet := strings.NewReplacer(`method="post"`, `method="get"`)
	return []Breakage{
		{"form-post-code", "has the browser get the redirect URI", withCode(byGet.Replace)},
		{"form-post-error", "has the browser get the redirect URI for an error", onPages(func(r *reply) {
			if body := string(r.body); strings.Contains(body, `name="error"`) {
				r.body = []byte(byGet.Replace(body))
			}
		})},
		{"form-post-escaped", "writes state into the page as it came", withCode(html.UnescapeString)},
		{"form-post-no-store", "lets codes be cached", onPages(func(r *reply) {
			if strings.Contains(string(r.body), `name="code"`) {
				r.header.Del("Cache-Control")
			}
		})},
		{"form-post-tokens", "writes another code into the page", withCode(func(s string) string {
			return strings.Replace(s, `name="code" value="`, `name="code" value="x`, 1)
		})},
		{"response-mode-query", "answers in the fragment who asks for the query", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			return redirects(func(_ *call, u *url.URL) {
				if p.request(u.Query().Get("state")).Get("response_mode") == "query" {
					u.Fragment, u.RawQuery = u.RawQuery, ""
				}
			})(p, c, next)
		}},
		{"response-mode-unknown", "ignores an unknown response_mode", wishing(func(q url.Values) { dropBeside(q, "response_mode", "response_mode") })},
		{"rfc9700-framing", "lets pages be framed", onPages(func(r *reply) {
			r.header.Set("Content-Security-Policy", strings.ReplaceAll(r.header.Get("Content-Security-Policy"), "frame-ancestors 'none'", "frame-ancestors *"))
		})},
		{"rfc9700-referrer", "tells its addresses to anybody", onPages(func(r *reply) { r.header.Set("Referrer-Policy", "unsafe-url") })},
		{"rfc9700-own-resources", "shows a picture from elsewhere", onPages(func(r *reply) {
			r.body = append(slices.Clone(r.body), `<img src="https://other.example/picture" alt="">`...)
		})},
		{"rfc9700-no-307", "sends forms on to the app", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if c.to == "" && c.method == http.MethodPost && p.away(r) != nil {
				r.status = http.StatusTemporaryRedirect
			}
			return r
		}},
		{"csp-no-inline-script", "lets pages run any script", onPages(func(r *reply) {
			r.header.Set("Content-Security-Policy", "script-src 'unsafe-inline'; frame-ancestors 'none'")
		})},
		{"rfc9111-pages-no-store", "lets pages be cached", onPages(func(r *reply) { r.header.Set("Cache-Control", "max-age=60") })},
		{"rfc6265-fixation", "takes a browser's cookie of before for a session", sending(having("prompt", "none"), "code", "let-in")},
		{"rfc6265-cookies", "lets scripts read cookies", func(_ *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			for i, line := range r.header["Set-Cookie"] {
				r.header["Set-Cookie"][i] = strings.Replace(line, "; HttpOnly", "", 1)
			}
			return r
		}},
	}
}

func ofLogout() []Breakage {
	leaving := func(when func(url.Values) bool) breaking { // to wherever the request says
		return instead(endSession, func(_ *Proxy, c *call) bool { return when(c.parameters()) }, func(_ *Proxy, c *call) *reply {
			return &reply{http.StatusSeeOther, http.Header{"Location": {c.parameters().Get("post_logout_redirect_uri")}}, nil}
		})
	}
	// signingOut takes the browser's cookies, as a logout without question would.
	signingOut := func(when func(p *Proxy, q url.Values) bool) breaking {
		return instead(endSession, func(p *Proxy, c *call) bool { return when(p, c.parameters()) }, func(p *Proxy, c *call) *reply {
			r := page(http.StatusOK)(p, c)
			for _, cookie := range (&http.Request{Header: c.header}).Cookies() {
				r.header.Add("Set-Cookie", cookie.Name+"=; Path=/; Max-Age=0")
			}
			return r
		})
	}
	return []Breakage{
		{"logout-ends-session", "says that it signed out, and does not", instead(endSession, func(*Proxy, *call) bool { return true }, page(http.StatusOK))},
		{"logout-cookies", "only forgets the browser's cookies", signingOut(func(*Proxy, url.Values) bool { return true })},
		{"logout-offline", "ends offline access with the session", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			switch {
			case c.to == endSession:
				p.note("signed out")
			case c.to == tokenEndpoint && c.form.Has("refresh_token") && p.noted("signed out"):
				return refusal(http.StatusBadRequest, "invalid_grant")(p, c)
			}
			return next(c)
		}},
		{"logout-post", "reads no POST", instead(endSession, func(_ *Proxy, c *call) bool { return c.method == http.MethodPost }, page(http.StatusOK))},
		{"logout-redirect", "loses the state", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if c.to != endSession {
				return next(c)
			}
			return redirects(func(_ *call, u *url.URL) { u.RawQuery = "" })(p, c, next)
		}},
		{"logout-other-address", "takes people anywhere", leaving(having("post_logout_redirect_uri", "https://other.example/"))},
		{"logout-longer-address", "compares the beginning of addresses", leaving(holding("post_logout_redirect_uri", "/more"))},
		{"logout-other-client", "does not compare the client", leaving(func(q url.Values) bool { return q.Has("client_id") })},
		{"logout-no-hint", "signs out without a question", signingOut(func(_ *Proxy, q url.Values) bool { return !q.Has("id_token_hint") })},
		{"logout-forged-hint", "does not verify the hint", signingOut(func(p *Proxy, q url.Values) bool {
			_, known := p.owner(q.Get("id_token_hint"))
			return !known
		})},
	}
}

// Conditions on an authorization or logout request.

func anything(url.Values) bool { return true }

func having(name, value string) func(url.Values) bool {
	return func(q url.Values) bool { return q.Get(name) == value }
}

func lacking(name string) func(url.Values) bool {
	return func(q url.Values) bool { return !q.Has(name) && !q.Has("flow") }
}

func holding(name, part string) func(url.Values) bool {
	return func(q url.Values) bool { return strings.Contains(q.Get(name), part) }
}

// dropBeside deletes a parameter where another one is.
func dropBeside(q url.Values, where, name string) {
	if q.Has(where) {
		q.Del(name)
	}
}

// both makes one breakage of two.
func both(first, second breaking) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		return first(p, c, func(c *call) *reply { return second(p, c, next) })
	}
}

// parameters are those of a request that a browser brings.
func (c *call) parameters() url.Values {
	if c.method == http.MethodPost {
		return c.form
	}
	q, _ := url.ParseQuery(c.query) // what does not parse is the issuer's to refuse
	return q
}

// nameOnly says whether the caller gives a client_id and proves nothing.
func (c *call) nameOnly() bool {
	_, basic := c.basic()
	return !basic && !c.form.Has("client_secret") && !c.form.Has("client_assertion")
}

// wishing alters authorization requests.
func wishing(change func(q url.Values)) breaking {
	return question(authorization, func(c *call) {
		q := c.parameters()
		change(q)
		if c.method == http.MethodPost {
			c.setForm(q)
		} else {
			c.query = q.Encode()
		}
	})
}

// sending answers some authorization requests with a redirect to wherever they say.
func sending(when func(q url.Values) bool, name, value string) breaking {
	return instead(authorization, func(_ *Proxy, c *call) bool { return when(c.parameters()) }, func(p *Proxy, c *call) *reply {
		return p.toApp(c.parameters(), name, value)
	})
}

// toApp is the answer to an authorization request: a code or an error.
func (p *Proxy) toApp(asked url.Values, name, value string) *reply {
	u, err := url.Parse(asked.Get("redirect_uri"))
	if err != nil {
		u = &url.URL{}
	}
	q := u.Query()
	q.Set(name, value)
	q.Set("iss", p.issuer)
	if asked.Has("state") {
		q.Set("state", asked.Get("state"))
	}
	u.RawQuery = q.Encode()
	return &reply{http.StatusSeeOther, http.Header{"Location": {u.String()}}, nil}
}

// redirects alters where answers take a browser, away from the issuer.
func redirects(change func(c *call, to *url.URL)) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		if u := p.away(r); u != nil {
			change(c, u)
			r.header.Set("Location", u.String())
		}
		return r
	}
}

// telling alters what a redirect tells an app, which asked so.
func telling(change func(asked, q url.Values)) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		return redirects(func(_ *call, u *url.URL) {
			q := u.Query()
			change(p.request(q.Get("state")), q)
			u.RawQuery = q.Encode()
		})(p, c, next)
	}
}

// saying has another error told for some requests: instead of any, or of those named.
func saying(when func(asked url.Values) bool, code string, insteadOf ...string) breaking {
	return telling(func(asked, q url.Values) {
		if q.Has("error") && when(asked) && (len(insteadOf) == 0 || slices.Contains(insteadOf, q.Get("error"))) {
			q.Set("error", code)
		}
	})
}

// redeeming lets in some of who bring a code that the issuer gave, knowing what was asked for then.
func redeeming(when func(p *Proxy, c *call, asked url.Values) bool) breaking {
	return letIn(func(p *Proxy, c *call) bool {
		asked := p.askedFor(c.form.Get("code"))
		return asked != nil && c.form.Get("grant_type") == "authorization_code" && when(p, c, asked)
	})
}

// bearing tells of somebody at userinfo to who brings such a token.
func bearing(when func(p *Proxy, tok string) bool) breaking {
	return instead(userinfo, func(p *Proxy, c *call) bool {
		tok, ok := strings.CutPrefix(c.header.Get("Authorization"), "Bearer ")
		return ok && when(p, tok)
	}, func(*Proxy, *call) *reply { return jsonReply(http.StatusOK, map[string]any{"sub": "somebody"}) })
}

// onPages alters pages.
func onPages(change func(*reply)) breaking {
	return func(_ *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		if strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
			change(r)
		}
		return r
	}
}

func page(status int) func(*Proxy, *call) *reply {
	return func(*Proxy, *call) *reply {
		return &reply{status, http.Header{"Content-Type": {"text/html"}}, []byte("<!doctype html><title>Page</title>")}
	}
}

// forgingID alters ID tokens and signs them anew with a key of the proxy's own,
// which it publishes.
func forgingID(change func(p *Proxy, c *call, header, claims map[string]any)) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		switch c.to {
		case jwks:
			addKey(r, p.signer.jwk)
		case tokenEndpoint:
			m, err := r.object()
			original, _ := m["id_token"].(string)
			header, claims, broken := decodeJWT(original)
			if err != nil || broken != nil {
				break
			}
			header["alg"], header["kid"] = "ES256", p.signer.jwk["kid"]
			change(p, c, header, claims)
			if altered, err := p.signer.sign(header, claims); err == nil {
				m["id_token"] = altered
				r.setObject(m)
			}
		}
		return r
	}
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return encode(sum[:])
}

// The memory of the proxy: who asked for what, and which code came of it.

// away is where an answer takes a browser, if that is away from the issuer.
func (p *Proxy) away(r *reply) *url.URL {
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil || u.Host == "" || u.Host == p.upstream.Host {
		return nil
	}
	return u
}

// rememberFlow notes an authorization request, or the code that came of one.
func (p *Proxy) rememberFlow(c *call, r *reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := c.parameters(); c.to == authorization && q.Has("client_id") {
		p.asked[q.Get("state")], p.newest = maps.Clone(q), q
	}
	if u := p.away(r); u != nil && u.Query().Has("code") {
		p.codes[u.Query().Get("code")] = p.asked[u.Query().Get("state")]
	}
}

// request is the authorization request with that state.
func (p *Proxy) request(state string) url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[state]
}

// latest is the newest authorization request.
func (p *Proxy) latest() url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.newest
}

// askedFor is the authorization request that the code came of, or nil.
func (p *Proxy) askedFor(code string) url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.codes[code]
}

// keep returns the first value that was kept under the name.
func (p *Proxy) keep(name, value string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept[name] == "" {
		p.kept[name] = value
	}
	return p.kept[name]
}
