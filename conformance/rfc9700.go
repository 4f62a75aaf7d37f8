package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// RFC 9700: the security practice of today, where it can be seen from outside.
func rfc9700Checks() []Check {
	const spec = "RFC 9700"
	authorization := []Need{endpoint("authorization_endpoint")}
	checks := []Check{
		{"rfc9700-no-old-grants", spec, "§2.4", "neither the password nor the implicit grant is offered", nil, metadataNoOldGrants},
		{"rfc9700-no-token-response", spec, "§2.1.2", "no response type puts an access token into a URL", authorization, metadataNoTokenResponse},
		{"rfc9700-pkce", spec, "§2.1.1", "PKCE is offered with S256 and not with plain", authorization, metadataPKCE},
		{"rfc9700-password-grant", spec, "§2.4", "the password grant is unsupported_grant_type",
			[]Need{endpoint("token_endpoint"), client()},
			refusedGrant(url.Values{"grant_type": {"password"}, "username": {"u"}, "password": {"p"}}, "unsupported_grant_type")},
		{"rfc9700-forwarded-host", spec, "§4.13", "a header that names another host changes nothing in the metadata", nil,
			func(ctx context.Context, e *Env) error {
				a, err := e.get(ctx, e.openid.url, http.Header{"X-Forwarded-Host": {"other.example"}, "Forwarded": {"host=other.example"}})
				if err != nil {
					return err
				}
				m, err := a.object()
				if err != nil {
					return err
				}
				for _, name := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"} {
					if m[name] != e.metadata()[name] {
						return unexpected(name, m[name], e.metadata()[name])
					}
				}
				return nil
			}},
		{"rfc9700-cors-authorize", spec, "§2.6", "pages of other origins cannot read the authorization endpoint", authorization, corsRefusedAtAuthorize},
		{"rfc9700-cors-discovery", spec, "§2.6", "pages of any origin may read the metadata, without credentials", nil,
			func(ctx context.Context, e *Env) error {
				for _, address := range []string{e.openid.url, e.oauth.url} {
					if err := e.wantOpenCORS(ctx, http.MethodGet, address, false); err != nil {
						return err
					}
				}
				return nil
			}},
	}
	for _, at := range []struct {
		name, member, method string
		authorized           bool
	}{
		{"jwks", "jwks_uri", http.MethodGet, false},
		{"token", "token_endpoint", http.MethodPost, true},
		{"userinfo", "userinfo_endpoint", http.MethodGet, true},
		{"revocation", "revocation_endpoint", http.MethodPost, true},
	} {
		checks = append(checks, Check{"rfc9700-cors-" + at.name, spec, "§2.6",
			"pages of any origin may call " + at.member + ", without credentials", []Need{endpoint(at.member)},
			func(ctx context.Context, e *Env) error {
				return e.wantOpenCORS(ctx, at.method, e.endpoint(at.member), at.authorized)
			}})
	}
	return checks
}

func metadataNoOldGrants(_ context.Context, e *Env) error {
	m := e.metadata()
	if m == nil {
		return errNoMetadata
	}
	grants, ok := stringList(m["grant_types_supported"])
	if !ok { // RFC 8414 §2: the default includes implicit
		return unexpected("grant_types_supported", m["grant_types_supported"], plain("a list, as its default includes implicit"))
	}
	for _, old := range []string{"password", "implicit"} {
		if slices.Contains(grants, old) {
			return unexpected("grant_types_supported", grants, plain("no "+old))
		}
	}
	return nil
}

func metadataNoTokenResponse(_ context.Context, e *Env) error {
	types, _ := stringList(e.metadata()["response_types_supported"])
	for _, t := range types {
		if slices.Contains(strings.Fields(t), "token") {
			return unexpected("response_types_supported", types, plain("none with token"))
		}
	}
	return nil
}

func metadataPKCE(_ context.Context, e *Env) error {
	const member = "code_challenge_methods_supported"
	if !e.supports(member, "S256") || e.supports(member, "plain") {
		return unexpected(member, e.metadata()[member], []string{"S256"})
	}
	return nil
}

const foreignOrigin = "https://app.example"

// wantOpenCORS asks as a browser does for a page of another origin: where a
// request carries Authorization, first whether it may, then in earnest.
func (e *Env) wantOpenCORS(ctx context.Context, method, address string, authorized bool) error {
	if authorized {
		preflight, err := e.do(ctx, http.MethodOptions, address, http.Header{
			"Origin":                         {foreignOrigin},
			"Access-Control-Request-Method":  {method},
			"Access-Control-Request-Headers": {"authorization"},
		}, nil)
		if err != nil {
			return err
		}
		if err := preflight.allowsPreflight(); err != nil {
			return fmt.Errorf("preflight: %w", err)
		}
	}
	header := http.Header{"Origin": {foreignOrigin}}
	var body []byte
	if method == http.MethodPost {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		body = []byte("token=made-up&grant_type=urn:example:no-such-grant")
	}
	a, err := e.do(ctx, method, address, header, body)
	if err != nil {
		return err
	}
	return a.allowsAnyOrigin()
}

func (a *Answer) allowsAnyOrigin() error {
	if got := a.Header.Get("Access-Control-Allow-Origin"); got != "*" && got != foreignOrigin {
		return unexpected("Access-Control-Allow-Origin", got, "*")
	}
	if got := a.Header.Get("Access-Control-Allow-Credentials"); got != "" {
		return unexpected("Access-Control-Allow-Credentials", got, nil)
	}
	return nil
}

func (a *Answer) allowsPreflight() error {
	if a.Status != http.StatusNoContent && a.Status != http.StatusOK {
		return unexpected("answer", a, plain("status 204 or 200"))
	}
	if err := a.allowsAnyOrigin(); err != nil {
		return err
	}
	// Fetch: GET and POST need no leave of their own, and "*" never covers
	// Authorization.
	const header = "Access-Control-Allow-Headers"
	for part := range strings.SplitSeq(strings.Join(a.Header.Values(header), ","), ",") {
		if strings.EqualFold(strings.TrimSpace(part), "authorization") {
			return nil
		}
	}
	return unexpected(header, a.Header.Get(header), "authorization")
}

func corsRefusedAtAuthorize(ctx context.Context, e *Env) error {
	a, err := e.get(ctx, e.endpoint("authorization_endpoint"), http.Header{"Origin": {foreignOrigin}})
	if err != nil {
		return err
	}
	if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" {
		return unexpected("Access-Control-Allow-Origin", got, nil)
	}
	return nil
}
