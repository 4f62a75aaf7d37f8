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
const maxClientID = 128

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
	c, err := p.registry.client(ctx, view, cred.clientID)
	known := err == nil
	if !known {
		if !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
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
		cause = errors.New("no such client")
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
	bodyID := form.Get("client_id")
	var found []credentials

	if header := r.Header.Values("Authorization"); len(header) > 1 {
		return credentials{}, invalidRequest("The Authorization header appears more than once.")
	} else if len(header) == 1 {
		id, secret, err := readBasic(header[0])
		if err != nil {
			return credentials{}, invalidClient(err)
		}
		if bodyID != "" && bodyID != id {
			return credentials{}, invalidRequest("client_id in the body names another client than the Authorization header.")
		}
		found = append(found, credentials{method: authBasic, clientID: id, secret: secret})
	}
	if form.Has("client_secret") {
		found = append(found, credentials{method: authPost, clientID: bodyID, secret: form.Get("client_secret")})
	}
	if form.Has("client_assertion") || form.Has("client_assertion_type") {
		if form.Get("client_assertion_type") != assertionType {
			return credentials{}, invalidRequest("client_assertion_type must be " + assertionType + ".")
		}
		assertion := form.Get("client_assertion")
		id, err := assertionSubject(assertion)
		if err != nil {
			return credentials{}, invalidClient(err)
		}
		if bodyID != "" && bodyID != id {
			return credentials{}, invalidRequest("client_id names another client than the assertion.") // RFC 7521 §4.2
		}
		found = append(found, credentials{method: authPrivateKeyJWT, clientID: id, assertion: assertion})
	}
	switch len(found) {
	case 0:
		if bodyID == "" {
			return credentials{}, invalidClient(errors.New("no client authentication in the request"))
		}
		found = []credentials{{method: authNone, clientID: bodyID}}
	case 1:
		if found[0].clientID == "" {
			return credentials{}, invalidClient(errors.New("no client_id in the request"))
		}
	default:
		return credentials{}, invalidRequest("Use one client authentication method, not several at once.")
	}
	cred := found[0]
	if len(cred.clientID) > maxClientID {
		return credentials{}, invalidClient(errors.New("client_id is longer than any there is"))
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
