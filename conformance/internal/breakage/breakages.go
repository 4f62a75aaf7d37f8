package breakage

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Breakage is one rule that the proxy can make the issuer break. It bears the
// identifier of the check that has to notice.
type Breakage struct {
	ID      string
	What    string // what the issuer now seems to do
	breakIt breaking
}

// breaking handles a request in place of the issuer, which next asks.
type breaking func(p *Proxy, c *call, next func(*call) *reply) *reply

func find(id string) (Breakage, bool) {
	all := All()
	i := slices.IndexFunc(all, func(b Breakage) bool { return b.ID == id })
	if i < 0 {
		return Breakage{}, false
	}
	return all[i], true
}

// All lists the breakages, in the order of the checks.
func All() []Breakage {
	return slices.Concat(
		ofMetadata(), ofKeys(), ofTokenEndpoint(), ofUserinfo(), ofAssertions(),
		ofResources(), ofTokens(), ofIntrospection(), ofRevocation(), ofCORS(),
		ofAuthorization(), ofAuthentication(), ofCodes(), ofIDTokens(), ofRefreshTokens(), ofPeople(), ofPages(), ofLogout(),
		ofPushedRequests(), ofRequestObjects(), ofRegistration(), ofManagement(), ofSignedIntrospection(), ofChannels(), ofProtectedResource(),
	)
}

func ofMetadata() []Breakage {
	return []Breakage{
		{"oidc-discovery-response", "serves the configuration as text", header(openidConfiguration, "Content-Type", "text/plain")},
		{"oidc-discovery-issuer", "adds a slash to the issuer", object(openidConfiguration, slashedIssuer)},
		{"oidc-discovery-required", "leaves out subject_types_supported", object(openidConfiguration, without("subject_types_supported"))},
		{"oidc-discovery-types", "gives a string for a list", object(openidConfiguration, with("display_values_supported", "page"))},
		{"oidc-discovery-endpoints", "names an endpoint without https", object(openidConfiguration, with("example_endpoint", "http://issuer.example/example"))},
		{"oidc-discovery-subject-types", "invents a subject type", metadata(listed("subject_types_supported", "named"))},
		{"oidc-discovery-rs256", "offers no RS256", metadata(unlisted("id_token_signing_alg_values_supported", "RS256"))},
		{"oidc-discovery-signing-keys", "offers an algorithm it has no key for", metadata(listed("id_token_signing_alg_values_supported", "RS512"))},
		{"oidc-discovery-openid-scope", "does not list openid", metadata(with("scopes_supported", []string{"profile"}))},
		{"rfc8414-response", "serves metadata as text", header(oauthMetadata, "Content-Type", "text/plain")},
		{"rfc8414-issuer", "adds a slash to the issuer", object(oauthMetadata, slashedIssuer)},
		{"rfc8414-required", "leaves out token_endpoint", object(oauthMetadata, without(tokenEndpoint))},
		{"rfc8414-types", "gives a string for a list", object(oauthMetadata, with("display_values_supported", "page"))},
		{"rfc8414-no-empty-lists", "lists nothing", object(oauthMetadata, with("display_values_supported", []string{}))},
		{"rfc8414-auth-methods", "invents an authentication method", metadata(listed("token_endpoint_auth_methods_supported", "client_secret_guess"))},
		{"rfc8414-auth-algs", "accepts unsigned assertions, it says", metadata(listed("token_endpoint_auth_signing_alg_values_supported", "none"))},
		{"rfc8414-agrees", "names two token endpoints", object(oauthMetadata, with(tokenEndpoint, "https://issuer.example/token"))},
		{"rfc9207-advertised", "does not say that it names itself", metadata(without("authorization_response_iss_parameter_supported"))},
		{"rfc9700-no-old-grants", "offers the password grant", metadata(listed("grant_types_supported", "password"))},
		{"rfc9700-no-token-response", "offers tokens in URLs", metadata(listed("response_types_supported", "code token"))},
		{"rfc9700-pkce", "offers plain PKCE", metadata(listed("code_challenge_methods_supported", "plain"))},
	}
}

func ofKeys() []Breakage {
	own := func(change func(map[string]any)) breaking {
		return func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if c.to == jwks {
				key := maps.Clone(p.signer.jwk)
				change(key)
				addKey(r, key)
			}
			return r
		}
	}
	return []Breakage{
		{"rfc7517-response", "serves the JWKS as a page", header(jwks, "Content-Type", "text/html")},
		{"rfc7517-no-private", "shows a private key", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			return own(func(key map[string]any) {
				if d, err := p.signer.key.Bytes(); err == nil {
					key["d"] = encode(d)
				}
			})(p, c, next)
		}},
		{"rfc7517-use-alg", "does not say what a key is for", own(func(key map[string]any) { delete(key, "use") })},
		{"rfc7517-kid-unique", "publishes a key twice", object(jwks, func(m map[string]any) {
			if keys, ok := m["keys"].([]any); ok && len(keys) > 0 {
				m["keys"] = append(keys, keys[0])
			}
		})},
		{"rfc7638-thumbprint", "names a key as it likes", own(func(key map[string]any) { key["kid"] = "key-1" })},
		{"rfc7518-key-size", "publishes an RSA key of 1024 bits", own(func(key map[string]any) {
			n := make([]byte, 128)
			_, _ = rand.Read(n) // never fails
			n[0] |= 0x80
			n[127] |= 1
			clear(key)
			key["kty"], key["n"], key["e"] = "RSA", encode(n), "AQAB"
			_ = identify(key, "RS256") // strings always marshal
		})},
		{"rfc9110-jwks-etag", "sends the JWKS again to who has it", question(jwks, func(c *call) { c.header.Del("If-None-Match") })},
		{"rfc9111-jwks-max-age", "lets the JWKS be cached for a year", header(jwks, "Cache-Control", "public, max-age=31536000")},
	}
}

func ofTokenEndpoint() []Breakage {
	return []Breakage{
		{"rfc6749-post-only", "reads GET at the token endpoint", instead(tokenEndpoint, isGet, refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc6749-form-only", "takes a JSON body", question(tokenEndpoint, jsonToForm)},
		{"rfc6749-body-limit", "reads a body of any size", question(tokenEndpoint, func(c *call) {
			if len(c.body) > 64<<10 {
				c.form.Del("parameter_nobody_defined")
				c.setForm(c.form)
			}
		})},
		{"rfc6749-basic", "takes Basic credentials as they come", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			r := http.Request{Header: c.header}
			id, _, ok := r.BasicAuth()
			return ok && strings.Contains(id, "%")
		}, refusal(http.StatusUnauthorized, "invalid_client"))},
		{"rfc6749-query-credentials", "reads credentials in the query", question(tokenEndpoint, func(c *call) {
			if q, err := url.ParseQuery(c.query); err == nil && c.query != "" && c.isForm() {
				maps.Copy(c.form, q)
				c.setForm(c.form)
				c.query = ""
			}
		})},
		{"rfc6749-two-methods", "ignores a secret beside Basic", question(tokenEndpoint, func(c *call) {
			if _, ok := c.basic(); ok && c.form.Has("client_secret") {
				c.form.Del("client_id")
				c.form.Del("client_secret")
				c.setForm(c.form)
			}
		})},
		{"rfc6749-duplicate-parameter", "takes the first of a repeated parameter", question(tokenEndpoint, func(c *call) {
			if len(c.form["grant_type"]) > 1 {
				c.form.Set("grant_type", c.form.Get("grant_type"))
				c.setForm(c.form)
			}
		})},
		{"rfc6749-empty-parameter", "refuses an empty parameter", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return c.form.Has("scope") && c.form.Get("scope") == ""
		}, refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc6749-unknown-parameter", "refuses a parameter it does not know", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return c.form.Has("parameter_nobody_defined")
		}, refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc6749-token-response", "issues another type of token", issued(with("token_type", "mac"))},
		{"rfc6749-no-store", "lets token answers be cached", answer(tokenEndpoint, func(r *reply) {
			if r.status == http.StatusOK {
				r.header.Del("Cache-Control")
			}
		})},
		{"rfc6749-scope", "grants more than was asked for", forging(func(_ *call, _, claims, answer map[string]any) {
			scope, _ := claims["scope"].(string)
			claims["scope"], answer["scope"] = scope+" more", scope+" more"
		})},
		{"rfc6749-no-refresh-token", "gives a service a refresh token", issued(with("refresh_token", "endless"))},
		{"rfc6749-public-client", "gives a public client a token of its own", withoutSecret(http.StatusBadRequest)},
		{"rfc6749-missing-grant-type", "has another error for no grant_type", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return c.isForm() && !c.form.Has("grant_type")
		}, refusal(http.StatusBadRequest, "unsupported_grant_type"))},
		{"rfc6749-unsupported-grant-type", "has another error for an unknown grant", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return strings.HasPrefix(c.form.Get("grant_type"), "urn:example:")
		}, refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc6749-unknown-scope", "ignores an unknown scope", letIn(func(_ *Proxy, c *call) bool {
			return c.form.Get("scope") == "no-such-scope-anywhere"
		})},
		{"rfc6749-made-up-code", "has another error for a wrong code", instead(tokenEndpoint, forGrant("authorization_code"), refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc6749-made-up-refresh-token", "has another error for a wrong refresh token", instead(tokenEndpoint, forGrant("refresh_token"), refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc6749-invalid-client-basic", "does not challenge", answer(tokenEndpoint, func(r *reply) { r.header.Del("WWW-Authenticate") })},
		{"rfc6749-invalid-client-post", "does not look at a secret in the body", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			_, basic := c.basic()
			r := next(c)
			if c.to == tokenEndpoint && !basic && c.form.Has("client_secret") && !c.form.Has("client_assertion") && r.status != http.StatusOK {
				return anyToken(p, c)
			}
			return r
		}},
		{"rfc6749-no-authentication", "asks no secret of a confidential client", withoutSecret(http.StatusUnauthorized)},
		{"rfc6749-unknown-client", "tells who is no client", func(_ *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if m, err := r.object(); err == nil && c.to == tokenEndpoint && c.client() == "no-such-client" {
				m["error_description"] = "There is no such client."
				r.setObject(m)
			}
			return r
		}},
		{"rfc6749-error-no-store", "lets errors be cached", answer(tokenEndpoint, func(r *reply) {
			if r.status >= http.StatusBadRequest {
				r.header.Del("Cache-Control")
			}
		})},
		{"rfc6749-error-form", "quotes in an error description", func(_ *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if m, err := r.object(); err == nil && c.to == tokenEndpoint && r.status >= http.StatusBadRequest {
				m["error_description"] = `say "please"`
				r.setObject(m)
			}
			return r
		}},
		{"rfc9700-password-grant", "reads the password grant", instead(tokenEndpoint, forGrant("password"), refusal(http.StatusBadRequest, "invalid_grant"))},
	}
}

func ofUserinfo() []Breakage {
	challenge := func(authorized bool, value string) breaking {
		return func(_ *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if c.to == userinfo && c.method == http.MethodGet && (c.header.Get("Authorization") != "") == authorized {
				r.header.Set("WWW-Authenticate", value)
			}
			return r
		}
	}
	return []Breakage{
		{"rfc6750-challenge", "finds fault with a token that was not sent", challenge(false, `Bearer error="invalid_token"`)},
		{"rfc6750-invalid-token", "does not say that the token is at fault", challenge(true, "Bearer")},
	}
}

func seconds(claims map[string]any, name string) (int64, bool) {
	n, ok := claims[name].(json.Number)
	s, err := n.Int64()
	return s, ok && err == nil
}

func fromNow(claims map[string]any, name string) time.Duration {
	s, _ := seconds(claims, name)
	return time.Until(time.Unix(s, 0))
}

func ofAssertions() []Breakage {
	// accepts lets in who brings an assertion like this.
	accepts := func(like func(p *Proxy, header, claims map[string]any) bool) breaking {
		return letIn(func(p *Proxy, c *call) bool {
			header, claims, err := decodeJWT(c.form.Get("client_assertion"))
			return err == nil && !c.form.Has("client_secret") && like(p, header, claims)
		})
	}
	faultless := func(p *Proxy, claims map[string]any) bool {
		_, exp := seconds(claims, "exp")
		jti, _ := claims["jti"].(string)
		return exp && jti != "" && p.note("jti:"+jti) && claims["aud"] == p.issuer && claims["iss"] == claims["sub"] &&
			fromNow(claims, "exp") > 0 && fromNow(claims, "exp") < 10*time.Minute && fromNow(claims, "iat") < time.Minute
	}
	return []Breakage{
		{"rfc7523-accepted", "knows no assertion", instead(tokenEndpoint, func(_ *Proxy, c *call) bool {
			return c.form.Has("client_assertion") && !c.form.Has("client_secret")
		}, refusal(http.StatusUnauthorized, "invalid_client"))},
		{"rfc7523-replay", "takes an assertion again", accepts(func(p *Proxy, _, claims map[string]any) bool {
			jti, _ := claims["jti"].(string)
			return jti != "" && !p.note("jti:"+jti)
		})},
		{"rfc7523-with-secret", "ignores a secret beside an assertion", question(tokenEndpoint, func(c *call) {
			if c.form.Has("client_assertion") {
				c.form.Del("client_secret")
				c.setForm(c.form)
			}
		})},
		{"rfc7523-aud-token-endpoint", "takes its token endpoint for its name", accepts(func(p *Proxy, _, claims map[string]any) bool {
			aud, _ := claims["aud"].(string)
			u, err := url.Parse(aud)
			return err == nil && p.purpose[u.Path] == tokenEndpoint
		})},
		{"rfc7523-aud-list", "shares assertions with others", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			_, ok := claims["aud"].([]any)
			return ok
		})},
		{"rfc7523-aud-foreign", "takes assertions for others", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			return claims["aud"] == "https://other.example"
		})},
		{"rfc7523-sub", "does not compare iss and sub", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			return claims["sub"] == "another-client"
		})},
		{"rfc7523-iss", "does not compare iss and the client", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			return claims["iss"] == "another-client"
		})},
		{"rfc7523-no-sub", "takes an assertion about nobody", accepts(func(_ *Proxy, _, claims map[string]any) bool { return claims["sub"] == nil })},
		{"rfc7523-no-aud", "takes an assertion for nobody", accepts(func(_ *Proxy, _, claims map[string]any) bool { return claims["aud"] == nil })},
		{"rfc7523-expired", "takes an expired assertion", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			_, ok := seconds(claims, "exp")
			return ok && fromNow(claims, "exp") < 0
		})},
		{"rfc7523-no-exp", "takes an assertion for ever", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			return claims["exp"] == nil
		})},
		{"rfc7523-no-jti", "takes an assertion it cannot tell again", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			return claims["jti"] == nil
		})},
		{"rfc7523-future", "takes an assertion from the future", accepts(func(_ *Proxy, _, claims map[string]any) bool {
			return fromNow(claims, "iat") > 10*time.Minute
		})},
		{"rfc7523-alg-none", "takes an unsigned assertion", accepts(func(_ *Proxy, header, _ map[string]any) bool {
			return header["alg"] == "none"
		})},
		{"rfc7523-alg-hs256", "takes its public key for a secret", accepts(func(_ *Proxy, header, _ map[string]any) bool {
			return header["alg"] == "HS256"
		})},
		{"rfc7523-wrong-key", "does not verify signatures", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			header, claims, err := decodeJWT(c.form.Get("client_assertion"))
			r := next(c)
			// Nothing to be seen is wrong with it, it is new, and still it was refused.
			if err == nil && header["jwk"] == nil && header["alg"] != "none" && header["alg"] != "HS256" &&
				faultless(p, claims) && r.status == http.StatusUnauthorized {
				return anyToken(p, c)
			}
			return r
		}},
		{"rfc7523-embedded-key", "verifies with the key that came along", accepts(func(_ *Proxy, header, _ map[string]any) bool {
			return header["jwk"] != nil
		})},
	}
}

func ofResources() []Breakage {
	askedFor := func(like func(resource string) bool) breaking {
		return letIn(func(_ *Proxy, c *call) bool { return c.form.Has("resource") && like(c.form.Get("resource")) })
	}
	audience := func(asked bool) breaking {
		return forging(func(c *call, _, claims, _ map[string]any) {
			if c.form.Has("resource") == asked {
				claims["aud"] = "https://other.example"
			}
		})
	}
	return []Breakage{
		{"rfc8707-audience", "issues for another resource", audience(true)},
		{"rfc8707-unknown", "issues for an unknown resource", askedFor(func(s string) bool { return s == "https://no-such-resource.example" })},
		{"rfc8707-relative", "issues for a relative resource", askedFor(func(s string) bool { return strings.HasPrefix(s, "/") })},
		{"rfc8707-fragment", "issues for a resource with a fragment", askedFor(func(s string) bool { return strings.Contains(s, "#") })},
		{"rfc9068-default-audience", "issues for another resource than the scope's", audience(false)},
	}
}

func ofTokens() []Breakage {
	claim := func(name string, value any) breaking {
		return forging(func(_ *call, _, claims, _ map[string]any) { claims[name] = value })
	}
	headed := func(name, value string) breaking {
		return forging(func(_ *call, header, _, _ map[string]any) { header[name] = value })
	}
	return []Breakage{
		{"rfc9068-typ", "does not tell an access token from another JWT", headed("typ", "JWT")},
		{"rfc9068-header", "tells verifiers where to fetch keys", headed("jku", "https://other.example/jwks")},
		{"rfc9068-signature", "signs wrongly", signingWrongly},
		{"rfc9068-claims", "leaves out jti", forging(func(_ *call, _, claims, _ map[string]any) { delete(claims, "jti") })},
		{"rfc9068-iss", "names another issuer", claim("iss", "https://other.example")},
		{"rfc9068-client", "names another client", claim("client_id", "another-client")},
		{"rfc9068-sub", "makes a service a person", claim("sub", "somebody")},
		{"rfc7519-dates", "dates to half a second", forging(func(_ *call, _, claims, _ map[string]any) {
			if n, ok := claims["iat"].(json.Number); ok {
				claims["iat"] = n + ".5"
			}
		})},
		{"rfc9068-lifetime", "promises a day", issued(with("expires_in", 86400))},
		{"rfc9068-scope", "writes scope as a list", forging(func(_ *call, _, claims, _ map[string]any) {
			scope, _ := claims["scope"].(string)
			claims["scope"] = strings.Fields(scope)
		})},
		{"rfc9068-privacy", "puts an address into the token", claim("email", "somebody@example.com")},
		{"rfc9068-jti", "gives every token one jti", claim("jti", "one-for-all")},
	}
}

// signingWrongly gives out tokens with one character of the signature changed,
// and knows them by it.
func signingWrongly(p *Proxy, c *call, next func(*call) *reply) *reply {
	if c.to == introspection || c.to == revocation {
		return p.answerForged(c, next)
	}
	r := next(c)
	if c.to != tokenEndpoint {
		return r
	}
	m, err := r.object()
	original, _ := m["access_token"].(string)
	i := strings.LastIndexByte(original, '.') + 1
	if err != nil || i == 0 || i+2 > len(original) {
		return r
	}
	// The second character, as the checker changes the first for its own ends.
	other := byte('A')
	if original[i+1] == other {
		other = 'B'
	}
	altered := original[:i+1] + string(other) + original[i+2:]
	p.mu.Lock()
	p.forged[altered] = forged{original: original}
	p.mu.Unlock()
	m["access_token"] = altered
	r.setObject(m)
	return r
}

func ofIntrospection() []Breakage {
	return []Breakage{
		{"rfc7662-post-only", "answers GET", instead(introspection, isGet, inactive)},
		{"rfc7662-authentication", "answers anybody", instead(introspection, func(_ *Proxy, c *call) bool {
			return c.method == http.MethodPost && c.client() == ""
		}, inactive)},
		{"rfc7662-wrong-secret", "answers a wrong secret", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if _, basic := c.basic(); c.to == introspection && basic && r.status == http.StatusUnauthorized {
				return inactive(p, c)
			}
			return r
		}},
		{"rfc7662-public-client", "answers public clients", instead(introspection, func(_ *Proxy, c *call) bool {
			return c.form.Has("client_id") && !c.form.Has("client_secret")
		}, inactive)},
		{"rfc7662-missing-token", "calls no token inactive", instead(introspection, func(_ *Proxy, c *call) bool {
			return c.isForm() && !c.form.Has("token")
		}, inactive)},
		{"rfc7662-active", "tells another subject", object(introspection, func(m map[string]any) {
			if m["active"] == true {
				m["sub"] = "somebody"
			}
		})},
		{"rfc7662-no-store", "lets its answers be cached", header(introspection, "Cache-Control", "max-age=60")},
		{"rfc7662-hint", "believes the hint", instead(introspection, func(_ *Proxy, c *call) bool {
			return c.form.Has("token_type_hint")
		}, inactive)},
		{"rfc7662-random-token", "says why a token is inactive", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			m, err := r.object()
			if err == nil && c.to == introspection && m["active"] == false && !strings.Contains(c.form.Get("token"), ".") {
				m["reason"] = "unknown"
				r.setObject(m)
			}
			return r
		}},
		{"rfc7662-altered-token", "does not verify signatures", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if t, ok := p.resembling(c.form.Get("token")); ok && c.to == introspection {
				c.form.Set("token", t)
				c.setForm(c.form)
			}
			return next(c)
		}},
		{"rfc7662-foreign-token", "tells one client of another's token", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			owner, ok := p.owner(c.form.Get("token"))
			if c.to == introspection && r.status == http.StatusOK && ok && owner != c.client() {
				return jsonReply(http.StatusOK, map[string]any{"active": true, "client_id": owner})
			}
			return r
		}},
	}
}

func ofRevocation() []Breakage {
	return []Breakage{
		{"rfc7009-post-only", "answers GET", instead(revocation, isGet, revoked)},
		{"rfc7009-authentication", "answers a wrong secret", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if c.to == revocation && r.status == http.StatusUnauthorized {
				return revoked(p, c)
			}
			return r
		}},
		{"rfc7009-missing-token", "revokes nothing with success", instead(revocation, func(_ *Proxy, c *call) bool {
			return c.isForm() && !c.form.Has("token")
		}, revoked)},
		{"rfc7009-unknown-token", "refuses a token it does not know", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if _, ok := p.owner(c.form.Get("token")); c.to == revocation && !ok && r.status == http.StatusOK {
				return refusal(http.StatusBadRequest, "invalid_token")(p, c)
			}
			return r
		}},
		{"rfc7009-revoked", "says that it revoked, and does not", instead(revocation, func(p *Proxy, c *call) bool {
			_, ok := p.owner(c.form.Get("token"))
			return ok && !c.form.Has("token_type_hint")
		}, revoked)},
		{"rfc7009-again", "refuses a token it has revoked", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			tok := c.form.Get("token")
			if _, ok := p.owner(tok); c.to == revocation && ok && !p.note("revoked:"+tok) {
				return refusal(http.StatusBadRequest, "invalid_token")(p, c)
			}
			return r
		}},
		{"rfc7009-hint", "believes the hint", instead(revocation, func(_ *Proxy, c *call) bool {
			return c.form.Has("token_type_hint")
		}, revoked)},
		{"rfc7009-foreign-token", "lets any client revoke", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			tok := c.form.Get("token")
			owner, ok := p.owner(tok)
			switch {
			case c.to == revocation && ok && owner != c.client():
				p.note("revoked:" + tok)
			case c.to == introspection && p.noted("revoked:"+tok):
				return jsonReply(http.StatusOK, map[string]any{"active": false})
			}
			return r
		}},
	}
}

func ofCORS() []Breakage {
	discovery := func(r *reply) { r.header.Del("Access-Control-Allow-Origin") }
	breakages := []Breakage{
		{"rfc9700-forwarded-host", "takes its name from a header", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if host := c.header.Get("X-Forwarded-Host"); host != "" {
				return object(openidConfiguration, with("issuer", "https://"+host))(p, c, next)
			}
			return next(c)
		}},
		{"rfc9700-cors-authorize", "lets pages read the authorization endpoint", header(authorization, "Access-Control-Allow-Origin", "*")},
		{"rfc9700-cors-discovery", "hides metadata from pages", answer(openidConfiguration, discovery)},
	}
	for _, to := range []string{jwks, tokenEndpoint, userinfo, revocation} {
		name, _, _ := strings.Cut(to, "_")
		breakages = append(breakages, Breakage{"rfc9700-cors-" + name, "lets pages call " + to + " with credentials",
			header(to, "Access-Control-Allow-Credentials", "true")})
	}
	return breakages
}

// answer alters every answer of an endpoint.
func answer(to string, change func(*reply)) breaking {
	return func(_ *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		if c.to == to {
			change(r)
		}
		return r
	}
}

func header(to, name, value string) breaking {
	return answer(to, func(r *reply) { r.header.Set(name, value) })
}

// object alters successful JSON answers of an endpoint.
func object(to string, change func(map[string]any)) breaking {
	return answer(to, func(r *reply) {
		if m, err := r.object(); err == nil && r.status == http.StatusOK {
			change(m)
			r.setObject(m)
		}
	})
}

// metadata alters both metadata documents alike.
func metadata(change func(map[string]any)) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		if c.to == oauthMetadata {
			return object(oauthMetadata, change)(p, c, next)
		}
		return object(openidConfiguration, change)(p, c, next)
	}
}

// issued alters token answers.
func issued(change func(map[string]any)) breaking { return object(tokenEndpoint, change) }

// question alters every request to an endpoint.
func question(to string, change func(*call)) breaking {
	return func(_ *Proxy, c *call, next func(*call) *reply) *reply {
		if c.to == to {
			change(c)
		}
		return next(c)
	}
}

// instead answers some requests to an endpoint in place of the issuer.
func instead(to string, when func(*Proxy, *call) bool, with func(*Proxy, *call) *reply) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		if c.to == to && c.method != http.MethodOptions && when(p, c) {
			return with(p, c)
		}
		return next(c)
	}
}

// letIn answers some token requests with a token.
func letIn(when func(*Proxy, *call) bool) breaking { return instead(tokenEndpoint, when, anyToken) }

// withoutSecret lets in who only names a client, where the issuer refuses with
// that status: 401 to a confidential client, 400 to a public one.
func withoutSecret(refused int) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		_, basic := c.basic()
		if c.to == tokenEndpoint && r.status == refused && !basic &&
			c.form.Has("client_id") && !c.form.Has("client_secret") && !c.form.Has("client_assertion") {
			return anyToken(p, c)
		}
		return r
	}
}

func inactive(*Proxy, *call) *reply {
	return jsonReply(http.StatusOK, map[string]any{"active": false})
}

// revoked is the answer to a revocation that worked.
func revoked(*Proxy, *call) *reply {
	return &reply{http.StatusOK, http.Header{"Access-Control-Allow-Origin": {"*"}}, nil}
}

func anyToken(*Proxy, *call) *reply {
	return jsonReply(http.StatusOK, map[string]any{"access_token": "let-in", "token_type": "Bearer", "expires_in": 60})
}

func refusal(status int, code string) func(*Proxy, *call) *reply {
	return func(*Proxy, *call) *reply {
		r := jsonReply(status, map[string]any{"error": code})
		if status == http.StatusUnauthorized {
			r.header.Set("WWW-Authenticate", "Basic")
		}
		return r
	}
}

func isGet(_ *Proxy, c *call) bool { return c.method == http.MethodGet }

func forGrant(name string) func(*Proxy, *call) bool {
	return func(_ *Proxy, c *call) bool { return c.form.Get("grant_type") == name }
}

func jsonToForm(c *call) {
	m, err := decodeObject(c.body)
	if err != nil {
		return
	}
	form := url.Values{}
	for k, v := range m {
		if s, ok := v.(string); ok && s != "" {
			form.Set(k, s)
		}
	}
	c.setForm(form)
}

func slashedIssuer(m map[string]any) {
	if s, ok := m["issuer"].(string); ok {
		m["issuer"] = s + "/"
	}
}

func with(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

func without(name string) func(map[string]any) {
	return func(m map[string]any) { delete(m, name) }
}

func listed(name, value string) func(map[string]any) {
	return func(m map[string]any) {
		list, _ := m[name].([]any)
		m[name] = append(list, value)
	}
}

func unlisted(name, value string) func(map[string]any) {
	return func(m map[string]any) {
		list, _ := m[name].([]any)
		m[name] = slices.DeleteFunc(list, func(v any) bool { return v == value })
	}
}
