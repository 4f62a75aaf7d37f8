package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // member names by case, and no duplicates

	"github.com/signet-oidc/signet/storage"
)

// typRequestObject is the type of a request object (RFC 9101 §10.8).
const typRequestObject = "oauth-authz-req+jwt"

// unpack replaces a request object, given by value or by reference, with the
// request in it, which then is all that counts (RFC 9101 §5, §6.3). It does
// nothing where the client is not known: judge says so.
func (p *Provider) unpack(ctx context.Context, a *Authorization) error {
	form := a.form
	v, err := p.registry.view(ctx)
	if err != nil {
		return err
	}
	c, err := p.resolveClient(ctx, v, form.Get("client_id"), forSignIns)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrInvalid) || err == nil && !c.Enabled {
		return nil
	}
	if err != nil {
		return err
	}
	// Until the object is verified, what was sent in the open says where an
	// error goes, if it is a registered place.
	refuse := func(e *Error) error {
		if _, ok := matchRedirectURI(form.Get("redirect_uri"), c.RedirectURIs); !ok {
			return badRequest(e.Description)
		}
		mode, _ := readMode(form.Get("response_mode"))
		r := p.refuse(form.Get("redirect_uri"), mode, form, e.Code, e.Description)
		r.Stranger = leadsAnywhere(c, form)
		return r
	}
	object, err := p.requestObject(ctx, c, form)
	if err == nil && object != "" {
		a.form, err = p.readRequestObject(ctx, c, object)
	} else if err == nil && c.extra.RequireRequestObject {
		err = invalidRequest("This client has to send its requests as signed request objects (RFC 9101 §10.5).")
	}
	var ours *Error
	if errors.As(err, &ours) && ours.Status < http.StatusInternalServerError {
		return refuse(ours)
	}
	return err
}

func invalidRequestObject(description string) *Error {
	return oauthError(http.StatusBadRequest, "invalid_request_object", description)
}

func invalidRequestURI(description string) *Error {
	return oauthError(http.StatusBadRequest, "invalid_request_uri", description)
}

// requestObject returns the request object of the request, or "". One by
// reference is fetched only from where the client registered (OIDC Core §6.2,
// RFC 9101 §10.4).
func (p *Provider) requestObject(ctx context.Context, c *client, form url.Values) (string, error) {
	uri := form.Get("request_uri")
	switch {
	case uri != "" && form.Has("request"): // RFC 9101 §5
		return "", invalidRequest("request and request_uri are both there.")
	case uri == "":
		return form.Get("request"), nil
	case !slices.Contains(c.extra.RequestURIs, uri):
		return "", invalidRequestURI("request_uri is not one that this client registered as request_uris.")
	case p.fetches.failed(c.ID, originOf(ctx).Address, p.now()):
		return "", invalidRequestURI("request_uri was fetched too often just now; try again shortly.")
	}
	location, digest, _ := strings.Cut(uri, "#")
	ctx, cancel := context.WithTimeout(ctx, outboundTimeout)
	defer cancel()
	body, err := p.outboundFor(c).Get(ctx, location)
	if err != nil {
		return "", invalidRequestURI("request_uri could not be fetched.").because(err)
	}
	if sum := sha256.Sum256(body); digest != "" && digest != base64.RawURLEncoding.EncodeToString(sum[:]) {
		return "", invalidRequestURI("What is at request_uri does not have the digest in its fragment (OIDC Core §6.2).")
	}
	return string(body), nil
}

// readRequestObject returns the request in a request object that the client
// signed, for this issuer, and that is valid now.
func (p *Provider) readRequestObject(ctx context.Context, c *client, object string) (url.Values, error) {
	if len(object) > p.policy.MaxPushedBytes {
		return nil, invalidRequestObject(fmt.Sprintf("The request object is larger than %d bytes.", p.policy.MaxPushedBytes))
	}
	jws, err := jose.ParseSignedCompact(object, assertionAlgs())
	if err != nil {
		return nil, invalidRequestObject("The request object is not a JWS that is signed with " + strings.Join(algNames(), ", ") + ".").because(err)
	}
	header := jws.Signatures[0].Protected
	if alg := c.extra.RequestObjectAlg; alg != "" && alg != header.Algorithm {
		return nil, invalidRequestObject("The request object is signed with another algorithm than the registered " + alg + ".")
	}
	// RFC 8725 §3.11: what was signed for another purpose is no request.
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok && typ != "JWT" && typ != typRequestObject {
		return nil, invalidRequestObject("The request object has another type than " + typRequestObject + ".")
	}
	if header.JSONWebKey != nil { // RFC 8725 §3.5
		return nil, invalidRequestObject("The request object brings its own key.")
	}
	candidates, err := p.clientKeys(ctx, c, header.KeyID, p.now())
	if errors.Is(err, errKeysUnavailable) {
		return nil, unavailable(err)
	}
	if err != nil {
		return nil, invalidRequestObject("This client has registered no key for request objects.").because(err)
	}
	payload := verifyAny(jws, candidates)
	if payload == nil {
		return nil, invalidRequestObject("No key that this client registered verifies the request object.")
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, invalidRequestObject("The request object holds no JSON object.").because(err)
	}
	if err := p.judgeRequestObject(c, payload); err != nil {
		return nil, err
	}
	form := make(url.Values)
	for _, name := range authorizeParameters {
		raw, ok := claims[name]
		if !ok {
			continue
		}
		if name == "request" || name == "request_uri" { // RFC 9101 §4
			return nil, invalidRequestObject("A request object holds neither request nor request_uri.")
		}
		values, err := parameterOf(name, raw)
		if err != nil {
			return nil, err
		}
		form[name] = values
	}
	if id := form.Get("client_id"); id != "" && id != c.ID { // RFC 9101 §5
		return nil, invalidRequestObject("client_id in the request object is another one.")
	}
	form.Set("client_id", c.ID)
	if len(form.Get("state")) > p.policy.MaxStateBytes {
		return nil, invalidRequestObject(fmt.Sprintf("state is longer than %d bytes.", p.policy.MaxStateBytes))
	}
	return form, nil
}

// judgeRequestObject checks whose request object it is, whom it is for and
// when (RFC 9101 §4). One with a subject is a client assertion (§10.8).
func (p *Provider) judgeRequestObject(c *client, payload []byte) error {
	var claims struct {
		Issuer    string          `json:"iss"`
		Subject   json.RawMessage `json:"sub"`
		Audience  audienceClaim   `json:"aud"`
		Expires   *float64        `json:"exp"`
		NotBefore *float64        `json:"nbf"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return invalidRequestObject("iss, aud, exp or nbf of the request object is of the wrong kind.").because(err)
	}
	at, skew := float64(p.now().UnixMilli())/1000, p.policy.ClockSkew.Seconds()
	switch {
	case claims.Issuer != c.ID:
		return invalidRequestObject("iss of the request object is the client_id.")
	case !slices.Contains(claims.Audience, p.issuer.String()):
		return invalidRequestObject("aud of the request object is the issuer identifier " + p.issuer.String() + ".")
	case len(claims.Subject) > 0:
		return invalidRequestObject("A request object has no sub.")
	case claims.Expires != nil && *claims.Expires+skew <= at:
		return invalidRequestObject("The request object has expired.")
	case claims.NotBefore != nil && *claims.NotBefore > at+skew:
		return invalidRequestObject("The request object is not valid yet.")
	}
	return nil
}

// parameterOf returns the value of a parameter as a form would have it: a JSON
// string as it is, max_age as a number, claims as an object, resource as one or
// several strings (RFC 9101 §4, RFC 8707 §2).
func parameterOf(name string, raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		if !validText(one) {
			return nil, invalidRequestObject("The parameter " + name + " of the request object is not valid text.")
		}
		if one == "" {
			return nil, nil
		}
		return []string{one}, nil
	}
	switch name {
	case "max_age":
		var seconds json.Number
		if json.Unmarshal(raw, &seconds) == nil {
			return []string{seconds.String()}, nil
		}
	case "claims":
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) == nil && validText(string(raw)) {
			return []string{string(raw)}, nil
		}
	case "resource":
		var several []string
		if json.Unmarshal(raw, &several) == nil && !slices.ContainsFunc(several, func(s string) bool { return !validText(s) }) {
			return several, nil
		}
	}
	return nil, invalidRequestObject("The parameter " + name + " of the request object is of the wrong kind.")
}
