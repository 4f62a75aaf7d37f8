package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// OpenID Connect Core 1.0: the code flow, ID tokens, userinfo and refresh.
func oidcCoreChecks() []Check {
	return slices.Concat(authenticationChecks(), idTokenChecks(), userinfoChecks(), oidcRefreshChecks())
}

const oidcCore = "OIDC Core"

func authenticationChecks() []Check {
	const spec = oidcCore
	who := signIn()
	claims := signIn(metadataFlag("claims_parameter_supported", true))
	login := []string{"login_required"}
	return []Check{
		{"oidc-code-flow", spec, "§3.1.2.5", "a person who signs in and consents is sent back with a code, and the code brings tokens", who,
			func(ctx context.Context, e *Env) error {
				b, err := e.newBrowser()
				if err != nil {
					return err
				}
				f, err := b.authorize(ctx, e.Web)
				if err != nil {
					return err
				}
				if err := errors.Join(f.wantCode(), f.wantShown(pageLogin)); err != nil {
					return err
				}
				_, err = f.tokens(ctx)
				return err
			}},
		{"oidc-authorize-post", spec, "§3.1.2.1", "an authentication request may be posted", who, authenticateByPost},
		{"oidc-redirect-uri", spec, "§3.1.2.2", "a request without redirect_uri is refused on a page", who,
			asking((*flow).wantPage, unset("redirect_uri"))},
		{"oidc-session", spec, "§3.1.2.3", "who is signed in and has consented is not asked again", who,
			asking(func(f *flow) error {
				return errors.Join(f.wantCode(), f.wantSilent())
			})},
		{"oidc-prompt-none", spec, "§3.1.2.1", "prompt=none brings a code where nothing has to be asked", who,
			asking(func(f *flow) error { return errors.Join(f.wantCode(), f.wantSilent()) }, set("prompt", "none"))},
		{"oidc-prompt-none-login", spec, "§3.1.2.6", "prompt=none is login_required where nobody is signed in", who,
			func(ctx context.Context, e *Env) error {
				b, err := e.newBrowser()
				if err != nil {
					return err
				}
				f, err := b.begin(ctx, e.Web, set("prompt", "none"))
				if err != nil {
					return err
				}
				return f.wantRefused(login...)
			}},
		{"oidc-prompt-none-consent", spec, "§3.1.2.6", "prompt=none never asks for consent: it is consent_required", signIn(nativeApp()),
			func(ctx context.Context, e *Env) error {
				f, err := e.flowFor(ctx, e.native(), set("prompt", "none"))
				if err != nil {
					return err
				}
				if f.answer.Has("code") { // nothing to consent to, as this issuer sees it
					return f.wantSilent()
				}
				return f.wantRefused("consent_required", "interaction_required")
			}},
		{"oidc-prompt-none-alone", spec, "§3.1.2.1", "prompt=none with another value is invalid_request", who,
			refusing([]string{"invalid_request"}, set("prompt", "none login"))},
		{"oidc-prompt-login", spec, "§3.1.2.1", "prompt=login asks for the password of who is signed in", who,
			asking(func(f *flow) error { return errors.Join(f.wantCode(), f.wantShown(pageLogin)) }, set("prompt", "login"))},
		{"oidc-prompt-consent", spec, "§3.1.2.1", "prompt=consent asks again for what was consented to", who,
			asking(func(f *flow) error {
				if len(f.shown) == 0 || slices.Contains(f.shown, pageLogin) {
					return unexpected("pages", f.shown, plain("consent"))
				}
				return f.wantCode()
			}, set("prompt", "consent"))},
		{"oidc-prompt-select", spec, "§3.1.2.1", "prompt=select_account lets the person choose the account, or is an error", who,
			asking(func(f *flow) error {
				if len(f.shown) == 0 && !f.answer.Has("error") {
					return unexpected("authorization", f, plain("a page that asks for the account, or an error"))
				}
				return nil
			}, set("prompt", "select_account"))},
		{"oidc-prompt-both", spec, "§3.1.2.1", "prompt=login consent asks for both", who,
			asking(func(f *flow) error {
				if len(f.shown) < 2 {
					return unexpected("pages", f.shown, plain("sign-in and consent"))
				}
				return errors.Join(f.wantCode(), f.wantShown(pageLogin))
			}, set("prompt", "login consent"))},
		{"oidc-max-age", spec, "§15.1", "max_age that has not passed asks nothing, and the ID token has auth_time", who,
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx, set("max_age", "86400"))
				if err != nil {
					return err
				}
				id, err := t.idToken()
				if err != nil {
					return err
				}
				return errors.Join(t.flow.wantSilent(), id.wantAuthTime())
			}},
		{"oidc-max-age-zero", spec, "§3.1.2.1", "max_age=0 asks for the password of who is signed in", who,
			asking(func(f *flow) error { return errors.Join(f.wantCode(), f.wantShown(pageLogin)) }, set("max_age", "0"))},
		{"oidc-max-age-silent", spec, "§3.1.2.6", "max_age=0 with prompt=none is login_required", who,
			refusing(login, set("max_age", "0"), set("prompt", "none"))},
		{"oidc-max-age-syntax", spec, "§3.1.2.2", "max_age that is no number is invalid_request", who,
			refusing([]string{"invalid_request"}, set("max_age", "soon"))},
		{"oidc-login-hint", spec, "§3.1.2.1", "login_hint is no reason to refuse, whoever it names", who,
			asking((*flow).wantCode, set("login_hint", "nobody@example.com"))},
		{"oidc-ui-locales", spec, "§15.1", "ui_locales and claims_locales are no reason to refuse, known or not", who,
			asking((*flow).wantCode, set("ui_locales", "tlh-Qaak de en"), set("claims_locales", "tlh de"))},
		{"oidc-acr-values", spec, "§15.1", "acr_values are no reason to refuse, known or not", who,
			asking((*flow).wantCode, set("acr_values", "urn:example:no-such-class"))},
		{"oidc-display", spec, "§15.1", "display is no reason to refuse", who,
			asking((*flow).wantCode, set("display", "wap"))},
		{"oidc-request", spec, "§3.1.2.6", "a request object that nobody signed is invalid_request_object, or request_not_supported where none is", who,
			whereSupported("request_parameter_supported", false, "invalid_request_object", "request_not_supported", set("request", "e30.e30."))},
		{"oidc-request-uri", spec, "§3.1.2.6", "a request_uri that is not registered is invalid_request_uri, or request_uri_not_supported where none is", who,
			whereSupported("request_uri_parameter_supported", true, "invalid_request_uri", "request_uri_not_supported", set("request_uri", "https://app.example/request"))},
		{"oidc-hint", spec, "§3.1.2.1", "an id_token_hint of who is signed in brings a code without a page", who,
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx)
				if err != nil {
					return err
				}
				f, err := e.flow(ctx, set("prompt", "none"), set("id_token_hint", t.id))
				if err != nil {
					return err
				}
				return f.wantCode()
			}},
		{"oidc-forged-hint", spec, "§3.1.2.2", "an id_token_hint that the issuer did not sign brings no code", who,
			func(ctx context.Context, e *Env) error {
				t, err := e.tokens(ctx)
				if err != nil {
					return err
				}
				f, err := e.flow(ctx, set("prompt", "none"), set("id_token_hint", alterSignature(t.id)))
				if err != nil {
					return err
				}
				return f.wantNoCode()
			}},
		{"oidc-claims-auth-time", spec, "§15.1", "auth_time asked for by claims is in the ID token", claims,
			holding(func(_ context.Context, e *Env, t *tokens) error {
				id, err := t.idToken()
				if err != nil {
					return err
				}
				return id.wantAuthTime()
			}, set("claims", `{"id_token":{"auth_time":{"essential":true}}}`))},
		{"oidc-claims-id-token", spec, "§5.5", "a claim asked for by its name is in the ID token, where userinfo has it", with(claims, endpoint("userinfo_endpoint")),
			func(ctx context.Context, e *Env) error {
				told, err := e.toldOf(ctx, set("scope", "openid email"))
				if err != nil {
					return err
				}
				id, err := e.idToken(ctx, set("scope", "openid email"), set("claims", `{"id_token":{"email":{"essential":true}}}`))
				if err != nil {
					return err
				}
				return id.wantClaim("email", told)
			}},
		{"oidc-claims-userinfo", spec, "§5.5", "a claim asked for by its name is at userinfo, its scope asked for or not", with(claims, endpoint("userinfo_endpoint")),
			func(ctx context.Context, e *Env) error {
				told, err := e.toldOf(ctx, set("scope", "openid email"))
				if err != nil {
					return err
				}
				named, err := e.toldOf(ctx, set("scope", "openid"), set("claims", `{"userinfo":{"email":{"essential":true}}}`))
				if err == nil && named != told {
					err = unexpected("email", named, told)
				}
				return err
			}},
		{"oidc-claims-unknown", spec, "§5.5", "what claims asks for and nobody knows is ignored", claims,
			asking((*flow).wantCode, set("claims", `{"userinfo":{"no_such_claim":{"essential":true}},"no_such_member":{"x":null}}`))},
		{"oidc-claims-sub", spec, "§5.5.1", "sub asked for as somebody else's brings no code", claims,
			refusing([]string{"login_required", "interaction_required"}, set("prompt", "none"), set("claims", `{"id_token":{"sub":{"value":"somebody-else"}}}`))},
		{"oidc-claims-acr", spec, "§5.5.1.1", "an essential acr that cannot be had is a failed authentication", claims,
			asking((*flow).wantNoCode, set("prompt", "none"), set("claims", `{"id_token":{"acr":{"essential":true,"values":["urn:example:no-such-class"]}}}`))},
		{"oidc-claims-syntax", spec, "§3.1.2.2", "claims that is no JSON object is invalid_request", claims,
			refusing([]string{"invalid_request"}, set("claims", `{"id_token"`))},
	}
}

// toldOf is the e-mail address that userinfo tells of the person, who should
// have one: without it a check of how claims are asked for proves nothing.
func (e *Env) toldOf(ctx context.Context, changes ...change) (string, error) {
	t, err := e.tokens(ctx, changes...)
	if err != nil {
		return "", err
	}
	a, err := e.userinfo(ctx, t.access)
	if err != nil {
		return "", err
	}
	m, err := a.wantJSON(http.StatusOK)
	if err != nil {
		return "", err
	}
	email, _ := m["email"].(string)
	if email == "" && t.flow.asked.Get("claims") == "" {
		return "", notOffered("needs a person with an e-mail address")
	}
	return email, nil
}

// metadataFlag needs a member of the metadata, false where it is absent.
func metadataFlag(member string, want bool) Need {
	return Need{fmt.Sprintf("%s %t in the metadata", member, want), func(e *Env) bool { v, _ := e.metadata()[member].(bool); return v == want }}
}

// whereSupported makes a check of a request that must bring one error where a
// member of the metadata is true, and another one where it is not.
func whereSupported(member string, unless bool, code, otherwise string, changes ...change) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		supported, there := e.metadata()[member].(bool)
		if !there {
			supported = unless
		}
		want := code
		if !supported {
			want = otherwise
		}
		return refusing([]string{want}, changes...)(ctx, e)
	}
}

// wantSilent checks that no page was shown.
func (f *flow) wantSilent() error {
	if len(f.shown) > 0 {
		return unexpected("pages", f.shown, plain("none"))
	}
	return nil
}

func authenticateByPost(ctx context.Context, e *Env) error {
	b, err := e.signedIn(ctx)
	if err != nil {
		return err
	}
	at, err := url.Parse(e.endpoint("authorization_endpoint"))
	if err != nil {
		return fmt.Errorf("authorization_endpoint: %w", err)
	}
	f := b.prepare(e.Web)
	if err := f.arrive(f.visit(ctx, http.MethodPost, at, f.asked)); err != nil {
		return err
	}
	if err := f.goOn(ctx); err != nil {
		return err
	}
	return f.wantCode()
}

func idTokenChecks() []Check {
	const spec = oidcCore
	judged := func(id, section, name string, rule func(*Env, *tokens, token) error, changes ...change) Check {
		return Check{id, spec, section, name, signIn(), holding(func(_ context.Context, e *Env, t *tokens) error {
			parsed, err := t.idToken()
			if err != nil {
				return err
			}
			return rule(e, t, parsed)
		}, changes...)}
	}
	return []Check{
		{"oidc-token-response", spec, "§3.1.3.3", "a token answer is JSON with id_token, access_token and token_type Bearer", signIn(),
			holding(func(_ context.Context, _ *Env, t *tokens) error {
				m, err := t.answer.wantJSON(http.StatusOK)
				if err != nil {
					return err
				}
				if kind, _ := m["token_type"].(string); !strings.EqualFold(kind, "Bearer") {
					return unexpected("token_type", m["token_type"], "Bearer")
				}
				_, err = t.idToken()
				return err
			})},
		{"oidc-no-store", spec, "§3.1.3.3", "a token answer is never cached", signIn(),
			holding(func(_ context.Context, _ *Env, t *tokens) error { return t.answer.wantNoStore() })},
		{"oidc-id-token-signature", spec, "§3.1.3.7", "the ID token verifies with the published key of its kid and algorithm", signIn(endpoint("jwks_uri")),
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				id, err := t.idToken()
				if err != nil {
					return err
				}
				return e.wantSigned(ctx, id)
			})},
		judged("oidc-id-token-alg", "§2", "the algorithm of the ID token is one the metadata offers, and not none", func(e *Env, _ *tokens, id token) error {
			alg, _ := id.header["alg"].(string)
			if alg == "none" || !e.supports("id_token_signing_alg_values_supported", alg) {
				return unexpected("alg", id.header["alg"], plain("one of id_token_signing_alg_values_supported"))
			}
			return nil
		}),
		judged("oidc-id-token-typ", "§2", "the typ of the ID token is not that of an access token", func(_ *Env, _ *tokens, id token) error {
			if typ, _ := id.header["typ"].(string); strings.Contains(strings.ToLower(typ), "at+jwt") {
				return unexpected("typ", typ, "JWT")
			}
			return nil
		}),
		judged("oidc-id-token-iss", "§2", "iss of the ID token is the issuer", func(e *Env, _ *tokens, id token) error { return id.wantClaim("iss", e.Issuer) }),
		judged("oidc-id-token-aud", "§2", "aud of the ID token is the app", func(e *Env, _ *tokens, id token) error { return id.wantAudience(e.Web.ID) }),
		judged("oidc-id-token-azp", "§2", "azp of the ID token, where it is there, is the app", func(e *Env, _ *tokens, id token) error {
			if id.claims["azp"] == nil {
				return nil
			}
			return id.wantClaim("azp", e.Web.ID)
		}),
		judged("oidc-id-token-sub", "§2", "sub of the ID token is a string of at most 255 ASCII characters", func(_ *Env, _ *tokens, id token) error {
			sub, _ := id.claims["sub"].(string)
			if sub == "" || len(sub) > 255 || strings.ContainsFunc(sub, func(r rune) bool { return r > 0x7e }) {
				return unexpected("sub", id.claims["sub"], plain("1 to 255 ASCII characters"))
			}
			return nil
		}),
		judged("oidc-id-token-dates", "§2", "exp and iat of the ID token are whole seconds, iat now and exp later", func(e *Env, _ *tokens, id token) error { return tokenDates(e, id) }),
		judged("oidc-id-token-nonce", "§2", "nonce of the ID token is the one of the request", func(_ *Env, t *tokens, id token) error {
			return id.wantClaim("nonce", t.flow.asked.Get("nonce"))
		}),
		judged("oidc-id-token-no-nonce", "§2", "where no nonce was sent, the ID token has none", func(_ *Env, _ *tokens, id token) error {
			if id.claims["nonce"] != nil {
				return unexpected("nonce", id.claims["nonce"], nil)
			}
			return nil
		}, unset("nonce")),
		{"oidc-no-openid", spec, "§3.1.2.1", "without the scope openid there is no ID token", signIn(),
			holding(func(_ context.Context, _ *Env, t *tokens) error {
				if t.id != "" {
					return unexpected("id_token", plain("one"), nil)
				}
				return nil
			}, set("scope", "profile"), unset("nonce"))},
		judged("oidc-id-token-at-hash", "§3.1.3.6", "at_hash, where it is there, is the left half of the access token's digest", func(_ *Env, t *tokens, id token) error {
			if id.claims["at_hash"] == nil {
				return nil
			}
			return id.wantClaim("at_hash", halfDigest(id.header["alg"], t.access))
		}),
		judged("oidc-id-token-auth-time", "§2", "auth_time of the ID token, where it is there, is a time before iat", func(e *Env, _ *tokens, id token) error {
			if id.claims["auth_time"] == nil {
				return nil
			}
			return id.wantAuthTime()
		}),
		judged("oidc-id-token-acr-amr", "§2", "acr of the ID token is a string and amr a list of strings, where they are there", func(_ *Env, _ *tokens, id token) error {
			if acr, ok := id.claims["acr"]; ok {
				if s, _ := acr.(string); s == "" {
					return unexpected("acr", acr, plain("a string"))
				}
			}
			if amr, ok := id.claims["amr"]; ok {
				if list, _ := stringList(amr); len(list) == 0 {
					return unexpected("amr", amr, plain("a list of strings"))
				}
			}
			return nil
		}),
		{"oidc-id-token-same-sub", spec, "§8", "one person has one sub at one app", signIn(),
			func(ctx context.Context, e *Env) error {
				first, err := e.idToken(ctx)
				if err != nil {
					return err
				}
				second, err := e.idToken(ctx, set("prompt", "login"))
				if err != nil {
					return err
				}
				if first.claims["sub"] != second.claims["sub"] {
					return unexpected("sub", second.claims["sub"], first.claims["sub"])
				}
				return nil
			}},
		{"oidc-id-token-fresh-auth-time", spec, "§2", "auth_time is when the person last proved who they are", signIn(), authTimeMoves},
		{"oidc-id-token-no-access", "RFC 9068", "§4", "an ID token is no access token", signIn(endpoint("userinfo_endpoint")),
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.userinfo(ctx, t.id)
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized {
					return unexpected("userinfo for an ID token", a, plain("status 401"))
				}
				return nil
			})},
	}
}

// idToken gets the main app an ID token, by a request with changes.
func (e *Env) idToken(ctx context.Context, changes ...change) (token, error) {
	t, err := e.tokens(ctx, changes...)
	if err != nil {
		return token{}, err
	}
	return t.idToken()
}

// wantAuthTime checks the form of auth_time, and that it is no later than iat.
func (t token) wantAuthTime() error {
	at, err := t.seconds("auth_time")
	if err != nil {
		return err
	}
	iat, err := t.seconds("iat")
	if err != nil {
		return err
	}
	if at <= 0 || at > iat+1 { // iat may lie a little before the answer
		return unexpected("auth_time", at, plain(fmt.Sprintf("no later than iat %d", iat)))
	}
	return nil
}

// authTimeMoves signs the person in again, more than a second later.
func authTimeMoves(ctx context.Context, e *Env) error {
	first, err := e.idToken(ctx, set("max_age", "86400"))
	if err != nil {
		return err
	}
	before, err := first.seconds("auth_time")
	if err != nil {
		return err
	}
	if wait := time.Unix(before, 0).Add(2 * time.Second).Sub(e.Now()); wait > 0 {
		select {
		case <-time.After(min(wait, clockSkew)):
		case <-ctx.Done():
			return fmt.Errorf("waiting a second: %w", ctx.Err())
		}
	}
	second, err := e.idToken(ctx, set("prompt", "login"), set("max_age", "86400"))
	if err != nil {
		return err
	}
	after, err := second.seconds("auth_time")
	if err != nil {
		return err
	}
	if after <= before {
		return unexpected("auth_time after signing in again", after, plain(fmt.Sprintf("later than %d", before)))
	}
	return nil
}

// halfDigest is at_hash: Ed25519 has SHA-512 inside.
func halfDigest(alg any, access string) string {
	hash := crypto.SHA256
	switch s, _ := alg.(string); {
	case strings.HasSuffix(s, "384"):
		hash = crypto.SHA384
	case strings.HasSuffix(s, "512"), strings.HasPrefix(s, "Ed"):
		hash = crypto.SHA512
	}
	h := hash.New()
	h.Write([]byte(access))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

func userinfoChecks() []Check {
	const spec = oidcCore
	who := signIn(endpoint("userinfo_endpoint"))
	told := func(id, section, name string, rule func(token, map[string]any) error, changes ...change) Check {
		return Check{id, spec, section, name, who, holding(func(ctx context.Context, e *Env, t *tokens) error {
			parsed, err := t.idToken()
			if err != nil {
				return err
			}
			a, err := e.userinfo(ctx, t.access)
			if err != nil {
				return err
			}
			m, err := a.wantJSON(http.StatusOK)
			if err != nil {
				return err
			}
			return rule(parsed, m)
		}, changes...)}
	}
	without := func(prefix string) func(token, map[string]any) error {
		return func(_ token, m map[string]any) error {
			for name := range m {
				if strings.HasPrefix(name, prefix) && name != "sub" {
					return unexpected("claims", m, plain("no "+name))
				}
			}
			return nil
		}
	}
	return []Check{
		told("oidc-userinfo", "§5.3.2", "userinfo answers JSON with the sub of the ID token", func(id token, m map[string]any) error {
			if sub, _ := m["sub"].(string); sub == "" || sub != id.claims["sub"] {
				return unexpected("sub", m["sub"], id.claims["sub"])
			}
			return nil
		}),
		{"oidc-userinfo-post", spec, "§5.3.1", "userinfo may be asked by POST, with the token in the header", who,
			holding(func(ctx context.Context, e *Env, t *tokens) error {
				a, err := e.do(ctx, http.MethodPost, e.endpoint("userinfo_endpoint"), http.Header{"Authorization": {"Bearer " + t.access}}, nil)
				if err != nil {
					return err
				}
				_, err = a.wantJSON(http.StatusOK)
				return err
			})},
		told("oidc-userinfo-types", "§5.1", "claims at userinfo have their types", claimsTyped),
		told("oidc-userinfo-no-email", "§5.4", "without the scope email, userinfo tells no e-mail address", without("email"), set("scope", "openid profile")),
		told("oidc-userinfo-no-profile", "§5.4", "with the scope openid alone, userinfo tells no name", func(_ token, m map[string]any) error {
			for _, name := range []string{"name", "preferred_username", "given_name", "family_name", "picture", "email", "phone_number", "address"} {
				if _, ok := m[name]; ok {
					return unexpected("claims", m, plain("no "+name))
				}
			}
			return nil
		}, set("scope", "openid")),
		{"oidc-userinfo-service", spec, "§5.3.1", "an access token without a person has no userinfo", with(who, client()),
			func(ctx context.Context, e *Env) error {
				t, err := e.issue(ctx)
				if err != nil {
					return err
				}
				a, err := e.userinfo(ctx, t.raw)
				if err != nil {
					return err
				}
				if a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden {
					return unexpected("answer", a, plain("status 401 or 403"))
				}
				return a.wantChallenge("Bearer")
			}},
	}
}

// claimsTyped judges the types of OIDC Core §5.1, of claims that are there.
func claimsTyped(_ token, m map[string]any) error {
	for name, v := range m {
		ok := true
		switch name {
		case "email_verified", "phone_number_verified":
			_, ok = v.(bool)
		case "updated_at":
			_, ok = v.(json.Number)
		case "address":
			_, ok = v.(map[string]any)
		case "sub", "name", "given_name", "family_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
			"website", "email", "gender", "birthdate", "zoneinfo", "locale", "phone_number":
			s, isString := v.(string)
			ok = isString && s != "" // §5.3.2: what is not there is left out
		}
		if !ok {
			return unexpected(name, v, plain("its type"))
		}
	}
	return nil
}

func oidcRefreshChecks() []Check {
	const spec = oidcCore
	who := signIn(grant("refresh_token"))
	judged := func(id, name string, rule func(before, after token) error) Check {
		return Check{id, spec, "§12.2", name, who, func(ctx context.Context, e *Env) error {
			t, err := e.offline(ctx, e.Web)
			if err != nil {
				return err
			}
			n, err := t.next(ctx, e)
			if err != nil || n.id == "" { // §12.2: there need not be one
				return err
			}
			before, err := t.idToken()
			if err != nil {
				return err
			}
			after, err := n.idToken()
			if err != nil {
				return err
			}
			return rule(before, after)
		}}
	}
	same := func(names ...string) func(before, after token) error {
		return func(before, after token) error {
			for _, name := range names {
				if show(before.claims[name]) != show(after.claims[name]) {
					return unexpected(name, after.claims[name], before.claims[name])
				}
			}
			return nil
		}
	}
	return []Check{
		judged("oidc-refresh-same", "the ID token of a refresh has the same iss, sub, aud and azp", same("iss", "sub", "aud", "azp")),
		judged("oidc-refresh-auth-time", "the ID token of a refresh has the auth_time of the sign-in", same("auth_time")),
		judged("oidc-refresh-nonce", "the ID token of a refresh has no other nonce", func(before, after token) error {
			if after.claims["nonce"] == nil {
				return nil
			}
			return same("nonce")(before, after)
		}),
		judged("oidc-refresh-iat", "the ID token of a refresh has no older iat", func(before, after token) error {
			first, err := before.seconds("iat")
			if err != nil {
				return err
			}
			second, err := after.seconds("iat")
			if err != nil {
				return err
			}
			if second < first {
				return unexpected("iat", second, plain(fmt.Sprintf("%d or later", first)))
			}
			return nil
		}),
	}
}
