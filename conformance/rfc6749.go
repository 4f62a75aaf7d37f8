package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// RFC 6749: the token endpoint and the client credentials grant.
func rfc6749Checks() []Check {
	const spec = "RFC 6749"
	anyone := []Need{endpoint("token_endpoint")}
	known := []Need{endpoint("token_endpoint"), client()}
	return []Check{
		{"rfc6749-post-only", spec, "§3.2", "the token endpoint serves only POST", anyone, tokenPostOnly},
		{"rfc6749-form-only", spec, "§4.4.2", "a JSON or multipart body gets no token", known, tokenFormOnly},
		{"rfc6749-body-limit", "RFC 9110", "§15.5.14", "a body of 256 KiB is refused", known, tokenBodyLimit},
		{"rfc6749-basic", spec, "§2.3.1", "Basic credentials are form-decoded", known, tokenBasicDecoded},
		{"rfc6749-query-credentials", spec, "§2.3.1", "credentials in the query are refused", known, tokenQueryCredentials},
		{"rfc6749-two-methods", spec, "§2.3", "two ways to authenticate in one request are refused", known, tokenTwoMethods},
		{"rfc6749-duplicate-parameter", spec, "§3.2", "a repeated parameter is refused", known, tokenDuplicateParameter},
		{"rfc6749-empty-parameter", spec, "§3.2", "a parameter without value counts as omitted", known, tokenEmptyParameter},
		{"rfc6749-unknown-parameter", spec, "§3.2", "an unrecognised parameter is ignored", known,
			func(ctx context.Context, e *Env) error {
				form := e.clientCredentials()
				form.Set("parameter_nobody_defined", "1")
				_, err := e.issueFor(ctx, form)
				return err
			}},
		{"rfc6749-token-response", spec, "§5.1", "a token answer has access_token, token_type Bearer and expires_in", known, tokenResponse},
		{"rfc6749-no-store", spec, "§5.1", "a token answer is never cached", known,
			func(ctx context.Context, e *Env) error {
				t, err := e.issue(ctx)
				if err != nil {
					return err
				}
				return t.answer.wantNoStore()
			}},
		{"rfc6749-scope", spec, "§5.1", "the scope granted is told, and is within the scope asked for", append(known, scope()), tokenScope},
		{"rfc6749-no-refresh-token", spec, "§4.4.3", "client credentials bring no refresh token", known,
			func(ctx context.Context, e *Env) error {
				t, err := e.issue(ctx)
				if err != nil {
					return err
				}
				if _, ok := t.member["refresh_token"]; ok {
					return unexpected("refresh_token", plain("one"), nil)
				}
				return nil
			}},
		{"rfc6749-public-client", spec, "§4.4", "a public client gets no token with client credentials",
			[]Need{endpoint("token_endpoint"), publicClient()}, tokenPublicClient},
		{"rfc6749-missing-grant-type", spec, "§5.2", "a request without grant_type is invalid_request", known,
			refusedGrant(url.Values{"scope": {"openid"}}, "invalid_request")},
		{"rfc6749-unsupported-grant-type", spec, "§5.2", "an unknown grant is unsupported_grant_type", known,
			refusedGrant(url.Values{"grant_type": {"urn:example:no-such-grant"}}, "unsupported_grant_type")},
		{"rfc6749-unknown-scope", spec, "§3.3", "an unknown scope is invalid_scope, or ignored and never granted", known,
			func(ctx context.Context, e *Env) error {
				form := e.clientCredentials()
				form.Set("scope", "no-such-scope-anywhere")
				a, err := e.postToken(ctx, &e.Client, form)
				if err != nil || a.wantError(http.StatusBadRequest, "invalid_scope") == nil {
					return err
				}
				m, err := a.wantJSON(http.StatusOK)
				if err != nil {
					return err
				}
				if scope := (token{member: m}).scope(form.Get("scope")); strings.Contains(scope, "no-such-scope") {
					return unexpected("scope", scope, plain("error invalid_scope, or another scope"))
				}
				return nil
			}},
		{"rfc6749-made-up-code", spec, "§5.2", "an authorization code nobody issued is refused",
			append(known, grant("authorization_code")),
			refusedGrant(url.Values{"grant_type": {"authorization_code"}, "code": {"made-up"}, "redirect_uri": {"https://client.example/cb"},
				"code_verifier": {strings.Repeat("v", 43)}}, "invalid_grant", "unauthorized_client")},
		{"rfc6749-made-up-refresh-token", spec, "§5.2", "a refresh token nobody issued is refused",
			append(known, grant("refresh_token")),
			refusedGrant(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"made-up"}}, "invalid_grant", "unauthorized_client")},
		{"rfc6749-invalid-client-basic", spec, "§5.2", "a wrong secret by Basic is invalid_client, 401, challenged with Basic", known, tokenWrongSecretBasic},
		{"rfc6749-invalid-client-post", spec, "§5.2", "a wrong secret in the body is invalid_client", known,
			func(ctx context.Context, e *Env) error {
				a, err := e.postToken(ctx, nil, e.Client.wrong().body(e.clientCredentials()))
				if err != nil {
					return err
				}
				return a.wantRefusedClient()
			}},
		{"rfc6749-no-authentication", spec, "§3.2.1", "a confidential client without credentials is invalid_client", known,
			func(ctx context.Context, e *Env) error {
				form := e.clientCredentials()
				form.Set("client_id", e.Client.ID)
				a, err := e.postToken(ctx, nil, form)
				if err != nil {
					return err
				}
				return a.wantRefusedClient()
			}},
		{"rfc6749-unknown-client", spec, "§5.2", "an unknown client and a wrong secret are answered alike", known, tokenUnknownClient},
		{"rfc6749-error-no-store", spec, "§5.2", "an error answer is never cached", known,
			func(ctx context.Context, e *Env) error {
				a, err := e.postToken(ctx, &e.Client, url.Values{"grant_type": {"urn:example:no-such-grant"}})
				if err != nil {
					return err
				}
				return a.wantNoStore()
			}},
		{"rfc6749-error-form", spec, "§5.2", "an error answer is JSON with members of the characters allowed", known, tokenErrorForm},
	}
}

// wantTokenError sends a form as the main client and checks for status 400 and a code.
func (e *Env) wantTokenError(ctx context.Context, form url.Values, codes ...string) error {
	a, err := e.postToken(ctx, &e.Client, form)
	if err != nil {
		return err
	}
	return a.wantError(http.StatusBadRequest, codes...)
}

// refusedGrant makes a check of a form that must be refused with one of the codes.
func refusedGrant(form url.Values, codes ...string) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error { return e.wantTokenError(ctx, form, codes...) }
}

func tokenPostOnly(ctx context.Context, e *Env) error {
	a, err := e.get(ctx, e.endpoint("token_endpoint")+"?grant_type=client_credentials", nil)
	if err != nil {
		return err
	}
	return a.wantMethodNotAllowed()
}

func tokenFormOnly(ctx context.Context, e *Env) error {
	object, err := json.Marshal(map[string]string{
		"grant_type": "client_credentials", "resource": e.Resource, "scope": e.Scope,
	})
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	multipart := []byte("--b\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nclient_credentials\r\n--b--\r\n")
	for _, request := range []struct {
		mediaType string
		body      []byte
	}{
		{"application/json", object},
		{"multipart/form-data; boundary=b", multipart},
	} {
		a, err := e.do(ctx, http.MethodPost, e.endpoint("token_endpoint"), http.Header{
			"Content-Type":  {request.mediaType},
			"Authorization": {e.Client.basic(url.QueryEscape)},
		}, request.body)
		if err != nil {
			return err
		}
		if a.Status != http.StatusUnsupportedMediaType && a.Status != http.StatusBadRequest {
			return unexpected("answer to "+request.mediaType, a, plain("status 415 or 400"))
		}
	}
	return nil
}

func tokenBodyLimit(ctx context.Context, e *Env) error {
	form := e.clientCredentials()
	form.Set("parameter_nobody_defined", string(bytes.Repeat([]byte("x"), 256<<10)))
	a, err := e.postToken(ctx, &e.Client, form)
	if err != nil {
		return err
	}
	if a.Status != http.StatusRequestEntityTooLarge && a.Status != http.StatusBadRequest {
		return unexpected("answer", a, plain("status 413 or 400"))
	}
	return nil
}

// tokenBasicDecoded escapes every byte of the credentials: a server that skips
// the decoding knows neither the client nor its secret.
func tokenBasicDecoded(ctx context.Context, e *Env) error {
	escapeAll := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
		return b.String()
	}
	a, err := e.do(ctx, http.MethodPost, e.endpoint("token_endpoint"), http.Header{
		"Content-Type":  {"application/x-www-form-urlencoded"},
		"Authorization": {e.Client.basic(escapeAll)},
	}, []byte(e.clientCredentials().Encode()))
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return unexpected("answer to percent-encoded credentials", a, plain("status 200"))
	}
	return nil
}

// tokenQueryCredentials sends a wrong secret, so that no log of addresses holds
// the right one: a server that looks in the query says invalid_client.
func tokenQueryCredentials(ctx context.Context, e *Env) error {
	address, err := url.Parse(e.endpoint("token_endpoint"))
	if err != nil {
		return fmt.Errorf("token_endpoint: %w", err)
	}
	address.RawQuery = e.Client.wrong().body(url.Values{}).Encode()
	a, err := e.post(ctx, address.String(), nil, e.clientCredentials())
	if err != nil {
		return err
	}
	return a.wantError(http.StatusBadRequest, "invalid_request")
}

func tokenTwoMethods(ctx context.Context, e *Env) error {
	return e.wantTokenError(ctx, e.Client.body(e.clientCredentials()), "invalid_request")
}

func tokenDuplicateParameter(ctx context.Context, e *Env) error {
	form := e.clientCredentials()
	form.Add("grant_type", "client_credentials")
	return e.wantTokenError(ctx, form, "invalid_request")
}

// tokenEmptyParameter compares, as it is the issuer's to decide what no scope means.
func tokenEmptyParameter(ctx context.Context, e *Env) error {
	for _, name := range []string{"scope", "resource", "client_secret"} {
		form := e.clientCredentials()
		form.Del(name)
		without, err := e.postToken(ctx, &e.Client, form)
		if err != nil {
			return err
		}
		form.Set(name, "")
		empty, err := e.postToken(ctx, &e.Client, form)
		if err != nil {
			return err
		}
		if empty.String() != without.String() {
			return unexpected("answer to an empty "+name, empty, without)
		}
	}
	return nil
}

func tokenResponse(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	if _, err := t.answer.wantJSON(http.StatusOK); err != nil {
		return err
	}
	// RFC 6749 §5.1: the type is compared without regard to case.
	if kind, _ := t.member["token_type"].(string); !strings.EqualFold(kind, "Bearer") {
		return unexpected("token_type", t.member["token_type"], "Bearer")
	}
	n, ok := t.member["expires_in"].(json.Number)
	if seconds, err := n.Int64(); !ok || err != nil || seconds <= 0 {
		return unexpected("expires_in", t.member["expires_in"], plain("a positive integer"))
	}
	return nil
}

func tokenScope(ctx context.Context, e *Env) error {
	t, err := e.issue(ctx)
	if err != nil {
		return err
	}
	asked := strings.Fields(e.Scope)
	granted := strings.Fields(t.scope(e.Scope))
	if len(granted) == 0 {
		return unexpected("scope", t.member["scope"], e.Scope)
	}
	for _, s := range granted {
		if !slices.Contains(asked, s) {
			return unexpected("scope", t.member["scope"], plain("nothing beyond "+e.Scope))
		}
	}
	return nil
}

func tokenPublicClient(ctx context.Context, e *Env) error {
	form := e.clientCredentials()
	form.Set("client_id", e.PublicClientID)
	a, err := e.postToken(ctx, nil, form)
	if err != nil {
		return err
	}
	if a.Status == http.StatusUnauthorized {
		return a.wantRefusedClient()
	}
	return a.wantError(http.StatusBadRequest, "unauthorized_client", "invalid_client")
}

func tokenWrongSecretBasic(ctx context.Context, e *Env) error {
	wrong := e.Client.wrong()
	a, err := e.postToken(ctx, &wrong, e.clientCredentials())
	if err != nil {
		return err
	}
	if err := a.wantError(http.StatusUnauthorized, "invalid_client"); err != nil {
		return err
	}
	return a.wantChallenge("Basic")
}

// wantChallenge checks that WWW-Authenticate names a scheme.
func (a *Answer) wantChallenge(scheme string) error {
	for _, line := range a.Header.Values("WWW-Authenticate") {
		first, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.EqualFold(first, scheme) {
			return nil
		}
	}
	return unexpected("WWW-Authenticate", a.Header.Get("WWW-Authenticate"), plain(scheme))
}

func tokenUnknownClient(ctx context.Context, e *Env) error {
	wrong := e.Client.wrong()
	known, err := e.postToken(ctx, &wrong, e.clientCredentials())
	if err != nil {
		return err
	}
	if err := known.wantRefusedClient(); err != nil {
		return fmt.Errorf("a wrong secret: %w", err)
	}
	unknown, err := e.postToken(ctx, &Credentials{"no-such-client", wrong.Secret}, e.clientCredentials())
	if err != nil {
		return err
	}
	if unknown.Status != known.Status {
		return unexpected("answer to an unknown client", unknown, known)
	}
	a, errA := unknown.object()
	b, errB := known.object()
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !reflect.DeepEqual(a, b) {
		return unexpected("answer to an unknown client", a, b)
	}
	return nil
}

func tokenErrorForm(ctx context.Context, e *Env) error {
	a, err := e.postToken(ctx, &e.Client, url.Values{"grant_type": {"urn:example:no-such-grant"}})
	if err != nil {
		return err
	}
	m, err := a.wantJSON(http.StatusBadRequest)
	if err != nil {
		return err
	}
	for name, v := range m {
		if name != "error" && name != "error_description" && name != "error_uri" {
			continue
		}
		s, ok := v.(string)
		if !ok || strings.ContainsFunc(s, outsideErrorCharset) {
			return unexpected(name, v, plain("a string of printable ASCII without quotes and backslashes"))
		}
	}
	return nil
}

// outsideErrorCharset: RFC 6749 §5.2 allows %x20-21 / %x23-5B / %x5D-7E.
func outsideErrorCharset(r rune) bool {
	return r < 0x20 || r > 0x7e || r == '"' || r == '\\'
}
