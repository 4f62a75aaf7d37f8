package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/storage"
)

// Client authentication methods (OIDC Core §9).
const (
	authBasic         = "client_secret_basic"
	authPost          = "client_secret_post"
	authPrivateKeyJWT = "private_key_jwt"
	authNone          = "none"
)

// maxClientID bounds what is looked up; registration makes none longer.
const maxClientID = maxClientURL

// assertionType is the one client_assertion_type (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// credentials are what a request offers to prove who the client is.
type credentials struct {
	method    string
	clientID  string
	secret    string
	assertion string
}

// authenticateClient is fosite's client authentication hook. It judges the
// request by the one method it uses, which must be the one the client is
// registered with. Every failure is answered alike, and a wrong secret costs
// the same whether or not there is such a client.
func (p *Provider) authenticateClient(ctx context.Context, r *http.Request, form url.Values) (fosite.Client, error) {
	cred, err := readCredentials(r, form)
	if err != nil {
		return nil, err
	}
	view, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	now, address := p.now(), r.RemoteAddr
	c, err := p.resolveClient(ctx, view, cred.clientID, forGrants)
	known, unknown := err == nil, error(nil)
	if !known {
		if !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		unknown = err
		c = &client{} // has no secret and no key: what follows fails at the same cost
	}

	var cause error
	switch cred.method {
	case authBasic, authPost:
		if !verifyClientSecret(view.ring, c.Client, cred.secret, now) {
			cause = errors.New("wrong secret")
		}
	case authPrivateKeyJWT:
		cause = p.verifyAssertion(ctx, c, cred.assertion, now)
		if errors.Is(cause, storage.ErrUnavailable) || errors.Is(cause, errKeysUnavailable) {
			return nil, unavailable(cause)
		}
	}
	switch {
	case !known:
		cause = unknown
	case cred.method != c.AuthMethod:
		cause = fmt.Errorf("used %s, registered for %s", cred.method, c.AuthMethod)
	case !c.Enabled && cause == nil:
		cause = errors.New("client is disabled")
	}
	if cause != nil {
		p.metrics.authFailures.Inc()
		cause = fmt.Errorf("client %q from %s: %w", clip(cred.clientID), address, cause)
		// Only failures are throttled: a neighbour's must not keep out a
		// client that has the right credentials.
		if p.throttle.failed(cred.clientID, address, now) {
			return nil, tooManyFailures(cause)
		}
		return nil, invalidClient(cause)
	}
	return c, nil
}

// readCredentials finds the one way in which the request authenticates its
// client. Two at once are refused (RFC 6749 §2.3).
func readCredentials(r *http.Request, form url.Values) (credentials, error) {
	header := r.Header.Values("Authorization")
	assertion := form.Has("client_assertion") || form.Has("client_assertion_type")
	several := len(header) > 0 && (form.Has("client_secret") || assertion) || form.Has("client_secret") && assertion

	cred := credentials{clientID: form.Get("client_id")}
	var err error
	switch {
	case len(header) > 1:
		return cred, invalidRequest("The Authorization header appears more than once.")
	case several:
		return cred, invalidRequest("Use one client authentication method, not several at once.")
	case len(header) == 1:
		cred.method = authBasic
		cred.clientID, cred.secret, err = readBasic(header[0])
	case form.Has("client_secret"):
		cred.method, cred.secret = authPost, form.Get("client_secret")
	case assertion && form.Get("client_assertion_type") != assertionType:
		return cred, invalidRequest("client_assertion_type must be " + assertionType + ".")
	case assertion:
		cred.method, cred.assertion = authPrivateKeyJWT, form.Get("client_assertion")
		cred.clientID, err = assertionSubject(cred.assertion)
	default:
		cred.method = authNone
	}
	switch body := form.Get("client_id"); {
	case err != nil:
		return cred, invalidClient(err)
	case body != "" && body != cred.clientID: // for assertions RFC 7521 §4.2
		return cred, invalidRequest("client_id in the body names another client than the client authentication.")
	case cred.clientID == "":
		return cred, invalidClient(errors.New("the request does not say which client it is from"))
	case len(cred.clientID) > maxClientID:
		return cred, invalidClient(errors.New("client_id is longer than any there is"))
	}
	// What is remembered of it must not keep the whole body in memory.
	cred.clientID = strings.Clone(cred.clientID)
	return cred, nil
}

// readBasic reads Basic credentials, both halves of which are form-encoded
// before they are joined (RFC 6749 §2.3.1).
func readBasic(header string) (id, secret string, err error) {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", errors.New("authorization scheme is not Basic")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", errors.New("basic credentials are not base64")
	}
	id, secret, ok := strings.Cut(string(raw), ":")
	if !ok {
		return "", "", errors.New("basic credentials have no colon")
	}
	if id, err = url.QueryUnescape(id); err == nil {
		secret, err = url.QueryUnescape(secret)
	}
	if err != nil || !validText(id) || !validText(secret) {
		return "", "", errors.New("basic credentials are not form-encoded text")
	}
	return id, secret, nil
}
