package breakage

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// The breakages of what relying parties use beyond the plain code flow:
// registration, pushed and signed requests, signed answers, and what they are
// told of a logout; and those of a protected resource.

func ofPushedRequests() []Breakage {
	let := func(*Proxy, *call) *reply {
		return jsonReply(http.StatusCreated, map[string]any{"request_uri": "urn:example:let-in", "expires_in": 60})
	}
	taking := func(when func(c *call) bool) breaking {
		return instead(pushed, func(_ *Proxy, c *call) bool { return c.method == http.MethodPost && when(c) }, let)
	}
	// bringing gives a code to some who bring a reference.
	bringing := func(when func(p *Proxy, client, uri string) bool) breaking {
		return func(p *Proxy, c *call, next func(*call) *reply) *reply {
			q := c.parameters()
			if uri := q.Get("request_uri"); c.to == authorization && uri != "" && when(p, q.Get("client_id"), uri) {
				return p.toApp(url.Values{"redirect_uri": {p.keep("redirect_uri", "")}}, "code", "let-in")
			}
			r := next(c)
			if m, err := r.object(); err == nil && c.to == pushed && r.status == http.StatusCreated {
				uri, _ := m["request_uri"].(string)
				p.keep("client of "+uri, c.client())
				p.keep("redirect_uri", c.form.Get("redirect_uri"))
			}
			return r
		}
	}
	return []Breakage{
		{"rfc9126-response", "answers a pushed request with 200", answer(pushed, func(r *reply) {
			if r.status == http.StatusCreated {
				r.status = http.StatusOK
			}
		})},
		{"rfc9126-no-store", "lets references be cached", answer(pushed, func(r *reply) { r.header.Del("Cache-Control") })},
		{"rfc9126-post-only", "reads GET where requests are pushed", instead(pushed, isGet, let)},
		{"rfc9126-authentication", "takes a pushed request with a wrong secret", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if _, basic := c.basic(); c.to == pushed && basic && r.status == http.StatusUnauthorized {
				return let(p, c)
			}
			return r
		}},
		{"rfc9126-no-authentication", "asks no secret for a pushed request", taking((*call).nameOnly)},
		{"rfc9126-nested", "lets pushed requests refer to others", taking(func(c *call) bool { return c.form.Has("request_uri") })},
		{"rfc9126-redirect", "keeps a pushed request with any redirect URI", taking(func(c *call) bool {
			return c.form.Get("redirect_uri") == "https://other.example/cb"
		})},
		{"rfc9126-judged", "keeps a pushed request without judging it", taking(func(c *call) bool { return !c.form.Has("response_type") })},
		{"rfc9126-repeated", "takes the first of a repeated parameter", question(pushed, func(c *call) {
			if len(c.form["scope"]) > 1 {
				c.form.Set("scope", c.form.Get("scope"))
				c.setForm(c.form)
			}
		})},
		{"rfc9126-code", "knows no reference", instead(authorization, func(_ *Proxy, c *call) bool { return c.parameters().Has("request_uri") }, page(http.StatusBadRequest))},
		{"rfc9126-beside", "lets the state beside the reference count", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if q := c.parameters(); c.to == authorization && q.Has("request_uri") && q.Has("state") {
				p.keep("beside", q.Get("state"))
			}
			return telling(func(_, q url.Values) {
				if state := p.keep("beside", ""); state != "" {
					q.Set("state", state)
				}
			})(p, c, next)
		}},
		{"rfc9126-other-client", "takes anybody's reference", bringing(func(p *Proxy, client, uri string) bool {
			owner := p.keep("client of "+uri, "")
			return owner != "" && owner != client
		})},
		{"rfc9126-once", "takes a reference twice", bringing(func(p *Proxy, _, uri string) bool { return !p.note("brought:" + uri) })},
		{"rfc9126-made-up", "takes any reference", bringing(func(p *Proxy, _, uri string) bool { return p.keep("client of "+uri, "") == "" })},
		{"rfc9126-unguessable", "counts its references", answer(pushed, func(r *reply) {
			if m, err := r.object(); err == nil && r.status == http.StatusCreated {
				m["request_uri"] = "urn:example:reference-1"
				r.setObject(m)
			}
		})},
		{"rfc9126-request-object", "lets no request object be pushed", instead(pushed, func(_ *Proxy, c *call) bool { return c.form.Has("request") }, refusal(http.StatusBadRequest, "invalid_request"))},
		{"rfc9126-required", "forgets that a client has to push", forgetting("require_pushed_authorization_requests")},
	}
}

func ofRequestObjects() []Breakage {
	// objects gives a code to who sends an object like this.
	objects := func(like func(p *Proxy, header, claims map[string]any) bool) breaking {
		return instead(authorization, func(p *Proxy, c *call) bool {
			header, claims, err := decodeJWT(c.parameters().Get("request"))
			return err == nil && like(p, header, claims)
		}, func(p *Proxy, c *call) *reply { return p.toApp(c.parameters(), "code", "let-in") })
	}
	claim := func(name string, value any) breaking {
		return objects(func(_ *Proxy, _, claims map[string]any) bool { return claims[name] == value })
	}
	return []Breakage{
		{"rfc9101-accepted", "refuses every request object", instead(authorization, func(_ *Proxy, c *call) bool { return c.parameters().Has("request") }, page(http.StatusBadRequest))},
		{"rfc9101-inside", "adds to an object what is beside it", telling(func(_, q url.Values) {
			if !q.Has("state") {
				q.Set("state", "outside")
			}
		})},
		{"rfc9101-no-client-id", "finds the client in the object", sending(func(q url.Values) bool { return q.Has("request") && !q.Has("client_id") }, "code", "let-in")},
		{"rfc9101-both", "reads one of two objects", sending(func(q url.Values) bool { return q.Has("request") && q.Has("request_uri") }, "code", "let-in")},
		{"rfc9101-client-id", "does not compare client_id", claim("client_id", "another-client")},
		{"rfc9101-nested", "takes an object with another in it", objects(func(_ *Proxy, _, claims map[string]any) bool { return claims["request"] != nil })},
		{"rfc9101-nested-uri", "takes an object that refers to another", objects(func(_ *Proxy, _, claims map[string]any) bool { return claims["request_uri"] != nil })},
		{"rfc9101-aud", "takes objects for others", claim("aud", "https://other.example")},
		{"rfc9101-iss", "does not compare iss", claim("iss", "another-client")},
		{"rfc9101-expired", "takes an expired object", objects(func(_ *Proxy, _, claims map[string]any) bool { return fromNow(claims, "exp") < 0 })},
		{"rfc9101-not-before", "takes an object before its time", objects(func(_ *Proxy, _, claims map[string]any) bool { return fromNow(claims, "nbf") > 0 })},
		{"rfc9101-alg-none", "takes an unsigned object", objects(func(_ *Proxy, header, _ map[string]any) bool { return header["alg"] == "none" })},
		{"rfc9101-alg-hs256", "takes a public key for a secret", objects(func(_ *Proxy, header, _ map[string]any) bool { return header["alg"] == "HS256" })},
		{"rfc9101-wrong-key", "does not verify signatures", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			// Nothing to be seen is wrong with it, and still it was refused.
			if header, _, err := decodeJWT(c.parameters().Get("request")); err == nil && c.to == authorization && header["jwk"] == nil && !p.brings(r, "code") {
				return p.toApp(c.parameters(), "code", "let-in")
			}
			return r
		}},
		{"rfc9101-embedded-key", "verifies with the key that came along", objects(func(_ *Proxy, header, _ map[string]any) bool { return header["jwk"] != nil })},
		{"rfc9101-required", "forgets that a client has to sign", forgetting("require_signed_request_object")},
	}
}

// brings says whether an answer takes a browser to the app with a parameter.
func (p *Proxy) brings(r *reply, name string) bool {
	u := p.away(r)
	return u != nil && u.Query().Has(name)
}

// forgetting says that a client registered something, and does not keep it.
func forgetting(name string) breaking {
	return both(told(func(_ *Proxy, m map[string]any) { m[name] = true }), stated(without(name)))
}

// told alters what a registration is answered with.
func told(change func(p *Proxy, m map[string]any)) breaking {
	return func(p *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		if m, err := r.object(); err == nil && c.to == registrations && r.status == http.StatusCreated {
			change(p, m)
			r.setObject(m)
		}
		return r
	}
}

// stated alters what a client registers.
func stated(change func(m map[string]any)) breaking {
	return question(registrations, func(c *call) {
		if m, err := decodeObject(c.body); err == nil {
			change(m)
			c.body, _ = json.Marshal(m) // it came from JSON
		}
	})
}

// enrolling takes some registrations as they are, beside what the issuer keeps.
func enrolling(when func(m map[string]any) bool) breaking {
	return instead(registrations, func(_ *Proxy, c *call) bool {
		m, err := decodeObject(c.body)
		return err == nil && when(m)
	}, func(_ *Proxy, c *call) *reply {
		m, _ := decodeObject(c.body)
		answer := maps.Clone(m)
		answer["client_id"] = "let-in"
		return jsonReply(http.StatusCreated, answer)
	})
}

func redirectingTo(part string) func(map[string]any) bool {
	return func(m map[string]any) bool {
		list, _ := m["redirect_uris"].([]any)
		return len(list) > 0 && strings.Contains(list[0].(string), part)
	}
}

func there(name string) func(map[string]any) bool {
	return func(m map[string]any) bool { return m[name] != nil }
}

func ofRegistration() []Breakage {
	letIn := func(*Proxy, *call) *reply {
		return jsonReply(http.StatusCreated, map[string]any{"client_id": "let-in"})
	}
	bearing := func(value string) func(*Proxy, *call) bool {
		return func(_ *Proxy, c *call) bool {
			return c.method == http.MethodPost && c.header.Get("Authorization") == value
		}
	}
	named := func(name, value string) breaking { return told(func(_ *Proxy, m map[string]any) { m[name] = value }) }
	return []Breakage{
		{"rfc7591-response", "registers another name", named("client_name", "Another")},
		{"rfc7591-secret", "does not say when a secret expires", told(func(_ *Proxy, m map[string]any) { delete(m, "client_secret_expires_at") })},
		{"rfc7591-no-store", "lets secrets be cached", answer(registrations, func(r *reply) { r.header.Del("Cache-Control") })},
		{"rfc7591-post-only", "answers GET where clients register", instead(registrations, isGet, func(*Proxy, *call) *reply { return jsonReply(http.StatusOK, nil) })},
		{"rfc7591-json-only", "registers by a form", instead(registrations, func(_ *Proxy, c *call) bool { return c.isForm() }, letIn)},
		{"rfc7591-no-token", "registers anybody", instead(registrations, bearing(""), letIn)},
		{"rfc7591-made-up-token", "registers with any token", instead(registrations, bearing("Bearer made-up"), letIn)},
		{"rfc7591-redirect-uris", "registers no redirect URI", enrolling(func(m map[string]any) bool { return m["redirect_uris"] == nil })},
		{"rfc7591-redirect-fragment", "registers a fragment", enrolling(redirectingTo("#"))},
		{"rfc7591-redirect-script", "registers a script", enrolling(redirectingTo("javascript:"))},
		{"rfc7591-redirect-relative", "registers a path", enrolling(func(m map[string]any) bool {
			list, _ := m["redirect_uris"].([]any)
			return len(list) > 0 && list[0] == "/cb"
		})},
		{"rfc7591-wrong-type", "takes a string for a list", enrolling(func(m map[string]any) bool { _, ok := m["redirect_uris"].(string); return ok })},
		{"rfc7591-two-key-sets", "takes two key sets", enrolling(there("jwks_uri"))},
		{"rfc7591-auth-method", "registers an unknown method", enrolling(func(m map[string]any) bool { return m["token_endpoint_auth_method"] == "client_secret_guess" })},
		{"rfc7591-grant-type", "registers an unknown grant", enrolling(func(m map[string]any) bool {
			list, _ := m["grant_types"].([]any)
			return slices.Contains(list, any("urn:example:no-such-grant"))
		})},
		{"rfc7591-unknown-member", "refuses a member it does not know", instead(registrations, func(_ *Proxy, c *call) bool {
			return strings.Contains(string(c.body), "member_nobody_defined")
		}, refusal(http.StatusBadRequest, "invalid_client_metadata"))},
		{"rfc7591-defaults", "does not say what it chose", told(func(_ *Proxy, m map[string]any) { delete(m, "grant_types") })},
		{"rfc7591-unique", "gives every client one name", told(func(p *Proxy, m map[string]any) {
			id, _ := m["client_id"].(string)
			m["client_id"] = p.keep("client_id", id)
		})},
		{"rfc7591-authenticates", "gives out a secret that is none", named("client_secret", "none")},
		{"rfc7591-public", "gives a public client a secret", named("client_secret", "none")},
		{"rfc7591-keys", "does not keep a client's keys", instead(tokenEndpoint, func(_ *Proxy, c *call) bool { return c.form.Has("client_assertion") }, refusal(http.StatusUnauthorized, "invalid_client"))},
		{"rfc7591-software-statement", "believes an unsigned statement", func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if c.to == registrations && strings.Contains(string(c.body), "software_statement") {
				return jsonReply(http.StatusCreated, map[string]any{"client_id": "let-in", "client_name": "Stated"})
			}
			return next(c)
		}},
		{"rfc7591-error-no-store", "lets refusals be cached", answer(registrations, func(r *reply) { r.header.Del("Cache-Control") })},
		{"rfc8252-redirects", "knows no schemes of apps' own", instead(registrations, func(_ *Proxy, c *call) bool {
			return strings.Contains(string(c.body), "com.example.app:")
		}, refusal(http.StatusBadRequest, "invalid_redirect_uri"))},
		{"oidc-registration-flow", "gives out a secret that is none", named("client_secret", "none")},
		{"oidc-registration-redirect", "redirects to anywhere", sending(having("redirect_uri", "https://other.example/cb"), "code", "let-in")},
		{"oidc-registration-id-token-alg", "does not keep the algorithm of ID tokens", stated(without("id_token_signed_response_alg"))},
		{"oidc-registration-userinfo-alg", "does not keep the algorithm of userinfo", stated(without("userinfo_signed_response_alg"))},
		{"oidc-registration-auth-time", "does not say when the person signed in", forgingID(func(_ *Proxy, _ *call, _, claims map[string]any) { delete(claims, "auth_time") })},
		{"oidc-registration-max-age", "does not keep default_max_age", stated(without("default_max_age"))},
		{"oidc-registration-initiate-login", "registers an address without https", enrolling(there("initiate_login_uri"))},
		{"oidc-pairwise", "calls people the same everywhere", stated(with("subject_type", "public"))},
		{"oidc-pairwise-hosts", "guesses the sector of two hosts", enrolling(func(m map[string]any) bool {
			list, _ := m["redirect_uris"].([]any)
			return len(list) == 2
		})},
		{"oidc-sector-https", "asks a sector without https", enrolling(there("sector_identifier_uri"))},
		{"oidc-registration-subject-type", "registers an unknown subject type", enrolling(there("subject_type"))},
	}
}

func ofManagement() []Breakage {
	asked := func(method string, when func(c *call) bool, answer *reply) breaking {
		return instead(management, func(_ *Proxy, c *call) bool { return c.method == method && when(c) }, func(*Proxy, *call) *reply {
			again := *answer
			again.header = answer.header.Clone()
			return &again
		})
	}
	read := jsonReply(http.StatusOK, map[string]any{"client_id": "let-in"})
	gone := &reply{http.StatusNoContent, http.Header{}, nil}
	saying := func(part string) func(*call) bool {
		return func(c *call) bool { return strings.Contains(string(c.body), part) }
	}
	always := func(*call) bool { return true }
	// foreign answers who brings another client's token.
	foreign := func(method string, answer *reply) breaking {
		return func(_ *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if c.to == management && c.method == method && r.status == http.StatusUnauthorized {
				return answer
			}
			return r
		}
	}
	return []Breakage{
		{"rfc7592-pair", "says where a registration is, and gives no token for it", told(func(_ *Proxy, m map[string]any) { delete(m, "registration_access_token") })},
		{"rfc7592-read", "tells another name", object(management, with("client_name", "Another"))},
		{"rfc7592-no-token", "tells anybody", asked(http.MethodGet, func(c *call) bool { return c.header.Get("Authorization") == "" }, read)},
		{"rfc7592-made-up-token", "tells who brings any token", asked(http.MethodGet, func(c *call) bool { return c.header.Get("Authorization") == "Bearer made-up" }, read)},
		{"rfc7592-foreign-token", "tells any client", foreign(http.MethodGet, read)},
		{"rfc7592-foreign-delete", "removes any client", foreign(http.MethodDelete, gone)},
		{"rfc7592-replace", "keeps what was left out", func(_ *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			if m, err := r.object(); err == nil && c.to == management && c.method == http.MethodPut {
				m["contacts"] = []string{"somebody@app.example"}
				r.setObject(m)
			}
			return r
		}},
		{"rfc7592-client-id", "lets clients take another name", asked(http.MethodPut, saying("another-client"), read)},
		{"rfc7592-secret", "lets clients choose their secret", asked(http.MethodPut, saying("own-choice"), read)},
		{"rfc7592-invalid", "takes any replacement", asked(http.MethodPut, saying("/relative"), read)},
		{"rfc7592-invalid-kept", "keeps half of what it refuses", asked(http.MethodGet, always, jsonReply(http.StatusOK, map[string]any{"client_name": "Another name"}))},
		{"rfc7592-remove", "says that a client is gone, and keeps it", asked(http.MethodDelete, always, gone)},
		{"rfc7592-remove-grants", "keeps what a client was given", asked(http.MethodDelete, always, gone)},
	}
}

func ofSignedIntrospection() []Breakage {
	// forgingAnswer alters signed answers and signs them anew.
	forgingAnswer := func(change func(header, claims map[string]any)) breaking {
		return func(p *Proxy, c *call, next func(*call) *reply) *reply {
			r := next(c)
			switch {
			case c.to == jwks:
				addKey(r, p.signer.jwk)
			case c.to == introspection && strings.HasPrefix(r.header.Get("Content-Type"), "application/token-introspection+jwt"):
				header, claims, err := decodeJWT(string(r.body))
				if err != nil {
					break
				}
				header["alg"], header["kid"] = "ES256", p.signer.jwk["kid"]
				change(header, claims)
				if altered, err := p.signer.sign(header, claims); err == nil {
					r.body = []byte(altered)
				}
			}
			return r
		}
	}
	inside := func(change func(m map[string]any)) breaking {
		return forgingAnswer(func(_, claims map[string]any) {
			if m, ok := claims["token_introspection"].(map[string]any); ok {
				change(m)
			}
		})
	}
	return []Breakage{
		{"rfc9701-response", "signs no answer", question(introspection, func(c *call) { c.header.Del("Accept") })},
		{"rfc9701-typ", "does not tell its answers from other JWTs", forgingAnswer(func(header, _ map[string]any) { header["typ"] = "JWT" })},
		{"rfc9701-signature", "signs answers wrongly", answer(introspection, func(r *reply) {
			if strings.HasPrefix(r.header.Get("Content-Type"), "application/token-introspection+jwt") && len(r.body) > 6 {
				r.body = append(slices.Clone(r.body[:len(r.body)-6]), "AAAAAA"...)
			}
		})},
		{"rfc9701-claims", "answers somebody else", forgingAnswer(func(_, claims map[string]any) { claims["aud"] = "another-client" })},
		{"rfc9701-no-sub", "makes an answer look like a token", forgingAnswer(func(_, claims map[string]any) { claims["sub"] = "somebody" })},
		{"rfc9701-content", "signs another answer", inside(func(m map[string]any) { m["sub"] = "somebody" })},
		{"rfc9701-inactive", "says why a token is inactive", inside(func(m map[string]any) {
			if m["active"] == false {
				m["reason"] = "unknown"
			}
		})},
		{"rfc9701-no-token", "takes an answer for a token", instead(introspection, func(_ *Proxy, c *call) bool {
			header, _, err := decodeJWT(c.form.Get("token"))
			return err == nil && header["typ"] == "token-introspection+jwt"
		}, func(*Proxy, *call) *reply { return jsonReply(http.StatusOK, map[string]any{"active": true}) })},
		{"rfc9701-authentication", "answers anybody", instead(introspection, func(_ *Proxy, c *call) bool { return c.client() == "" }, inactive)},
	}
}

func ofChannels() []Breakage {
	// relaying alters logout tokens and signs them anew.
	relaying := func(change func(header, claims map[string]any)) breaking {
		return func(p *Proxy, c *call, next func(*call) *reply) *reply {
			if c.to == backChannel {
				if header, claims, err := decodeJWT(c.form.Get("logout_token")); err == nil {
					header["alg"], header["kid"] = "ES256", p.signer.jwk["kid"]
					change(header, claims)
					if altered, err := p.signer.sign(header, claims); err == nil {
						c.setForm(url.Values{"logout_token": {altered}})
					}
				}
			}
			r := next(c)
			if c.to == jwks {
				addKey(r, p.signer.jwk)
			}
			return r
		}
	}
	claim := func(name string, value any) breaking {
		return relaying(func(_, claims map[string]any) {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		})
	}
	return []Breakage{
		{"backchannel-delivered", "tells of a logout in JSON", question(backChannel, func(c *call) { c.header.Set("Content-Type", "application/json") })},
		{"backchannel-signature", "signs logout tokens wrongly", question(backChannel, func(c *call) {
			if s := c.form.Get("logout_token"); len(s) > 6 {
				c.setForm(url.Values{"logout_token": {s[:len(s)-6] + "AAAAAA"}})
			}
		})},
		{"backchannel-alg", "signs logout tokens with another algorithm", relaying(func(_, _ map[string]any) {})},
		{"backchannel-typ", "does not tell logout tokens from access tokens", relaying(func(header, _ map[string]any) { header["typ"] = "at+jwt" })},
		{"backchannel-iss", "names another issuer", claim("iss", "https://other.example")},
		{"backchannel-aud", "names another app", claim("aud", "another-client")},
		{"backchannel-dates", "sends expired logout tokens", claim("exp", 1)},
		{"backchannel-jti", "leaves out jti", claim("jti", nil)},
		{"backchannel-events", "tells of no event", claim("events", map[string]any{})},
		{"backchannel-subject", "tells of somebody else", claim("sub", "somebody")},
		{"backchannel-sid", "does not say which session", claim("sid", nil)},
		{"backchannel-no-nonce", "makes a logout token look like an ID token", claim("nonce", "some")},
		{"frontchannel-frame", "loads no app's page", onPages(func(r *reply) { r.body = []byte(strings.ReplaceAll(string(r.body), "<iframe", "<x-frame")) })},
		{"frontchannel-session", "does not say which session", onPages(func(r *reply) { r.body = []byte(strings.ReplaceAll(string(r.body), "sid=", "session=")) })},
		{"frontchannel-loads", "forbids the frame it has", onPages(func(r *reply) {
			r.header.Set("Content-Security-Policy", "frame-ancestors 'none'; frame-src 'none'; script-src 'none'")
		})},
	}
}

func ofProtectedResource() []Breakage {
	ok := func(*Proxy, *call) *reply { return jsonReply(http.StatusOK, map[string]any{}) }
	challenged := func(challenge string) func(*Proxy, *call) *reply {
		return func(*Proxy, *call) *reply {
			return &reply{http.StatusUnauthorized, http.Header{"Www-Authenticate": {challenge}}, nil}
		}
	}
	token := func(c *call) string { return strings.TrimPrefix(c.header.Get("Authorization"), "Bearer ") }
	has := func(_ *Proxy, c *call) bool { return token(c) != "" }
	// accepting takes who brings a token that is refused.
	accepting := func(p *Proxy, c *call, next func(*call) *reply) *reply {
		r := next(c)
		if c.to == protected && has(p, c) && r.status == http.StatusUnauthorized {
			return ok(p, c)
		}
		return r
	}
	described := func(name string, value any) breaking { return object(resourceMetadata, with(name, value)) }
	return []Breakage{
		{"rfc9728-response", "describes itself in text", header(resourceMetadata, "Content-Type", "text/plain")},
		{"rfc9728-resource", "calls itself something else", described("resource", "https://other.example")},
		{"rfc9728-issuer", "names another issuer", described("authorization_servers", []string{"https://other.example"})},
		{"rfc9728-lists", "lists nothing", described("scopes_supported", []string{})},
		{"rfc9728-values", "takes tokens in cookies, it says", described("bearer_methods_supported", []string{"cookie"})},
		{"rfc9728-challenge", "says wrongly where it describes itself", header(protected, "WWW-Authenticate", `Bearer resource_metadata="https://other.example"`)},
		{"resource-no-token", "finds fault with a token that was not sent", header(protected, "WWW-Authenticate", `Bearer error="invalid_token"`)},
		{"resource-accepted", "takes no token", instead(protected, has, challenged(`Bearer error="invalid_token"`))},
		{"resource-made-up", "takes any token", accepting},
		{"resource-altered", "does not verify signatures", accepting},
		{"resource-audience", "takes tokens meant for others", accepting},
		{"resource-query", "reads a token in the address", instead(protected, func(_ *Proxy, c *call) bool { return strings.Contains(c.query, "access_token=") }, ok)},
		{"resource-id-token", "takes ID tokens", accepting},
		{"rfc9470-max-age", "forgets when the person signed in", forging(func(_ *call, _, claims, _ map[string]any) { claims["auth_time"] = 1 })},
		{"rfc9470-acr", "has a class of its own", forging(func(_ *call, _, claims, _ map[string]any) { claims["acr"] = "urn:example:another" })},
		{"rfc9470-challenge", "has another error for a sign-in that is not enough", answer(protected, func(r *reply) {
			r.header.Set("WWW-Authenticate", strings.ReplaceAll(r.header.Get("WWW-Authenticate"), "insufficient_user_authentication", "insufficient_scope"))
		})},
		{"rfc9470-step-up", "is never content", instead(protected, func(_ *Proxy, c *call) bool {
			_, claims, err := decodeJWT(token(c))
			return err == nil && claims["acr"] != nil
		}, challenged(`Bearer error="insufficient_user_authentication", acr_values="urn:example:more"`))},
	}
}

// Relay stands between the issuer and an app that it tells of logouts, at to.
// It passes on what is about sessions of people who signed in through the proxy.
func (p *Proxy) Relay(to *url.URL) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		form, broken := url.ParseQuery(string(body))
		if err != nil || broken != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if _, claims, err := decodeJWT(form.Get("logout_token")); err != nil || !p.signedIn(claims["sid"]) {
			return
		}
		answer := p.handle(&call{
			ctx: r.Context(), method: r.Method, path: to.Path, header: r.Header.Clone(), body: body, form: form, to: backChannel, at: to,
		})
		w.WriteHeader(answer.status)
	})
}

// signedIn says whether an ID token of that session came through the proxy.
func (p *Proxy) signedIn(sid any) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for tok := range p.issued {
		if _, claims, err := decodeJWT(tok); err == nil && sid != nil && claims["sid"] == sid {
			return true
		}
	}
	return false
}
