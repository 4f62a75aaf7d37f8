package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// Types of the answers that are signed for a client, each its own, so that
// none passes for another or for an ID token (RFC 8725 §3.11).
const (
	typAuthorization = "oauth-authz-resp+jwt"
	typIntrospection = "token-introspection+jwt" // RFC 9701 §5
	typUserInfo      = "userinfo+jwt"
)

// jarmLifetime is how long a signed authorization response is good for (JARM §2.1).
const jarmLifetime = time.Minute

// signAnswer signs claims for one client, by the algorithm or else RS256.
func (p *Provider) signAnswer(v view, alg, typ, clientID string, claims map[string]any) (string, error) {
	if alg == "" {
		alg = keys.RS256
	}
	claims = maps.Clone(claims)
	claims["iss"], claims["aud"] = p.issuer.String(), clientID
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("%s: %w", typ, err)
	}
	token, err := v.ring.Sign(alg, typ, payload, p.now())
	if err != nil {
		return "", fmt.Errorf("%s: %w", typ, err)
	}
	return token, nil
}

// writeJWT answers with a signed document that no cache may keep.
func writeJWT(w http.ResponseWriter, mediaType, token string) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(token)) // the connection is gone when this fails
}

// accepts says whether the Accept header names the media type itself: who
// would take anything gets what everybody gets.
func accepts(r *http.Request, mediaType string) bool {
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			if m, parameters, err := mime.ParseMediaType(part); err == nil && m == mediaType && parameters["q"] != "0" {
				return true
			}
		}
	}
	return false
}

// signed says whether a response mode wants the answer in a JWT (JARM §2.3).
func signed(mode string) bool { return mode == ModeQueryJWT || mode == ModeFormPostJWT }

// byForm says whether a response mode brings the answer by POST.
func byForm(mode string) bool { return mode == ModeFormPost || mode == ModeFormPostJWT }

// readMode reads response_mode (OAuth 2.0 Multiple Response Types §2.1, JARM §2.3).
func readMode(s string) (mode string, ok bool) {
	switch s {
	case "", ModeQuery:
		return ModeQuery, true
	case "jwt", ModeQueryJWT: // JARM §2.3.4: for a code, jwt is query.jwt
		return ModeQueryJWT, true
	case ModeFormPost, ModeFormPostJWT:
		return s, true
	}
	return ModeQuery, false
}

// ByForm says whether the answer goes to the app by POST, not in the URL.
func (r *Redirect) ByForm() bool { return byForm(r.Mode) }

// Parameters returns what goes to the app: the answer's parameters or, where
// the request asks for it, one signed response with all of them in it (JARM §2).
func (p *Provider) Parameters(ctx context.Context, r *Redirect) (url.Values, error) {
	if !signed(r.Mode) {
		return r.Params, nil
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := p.registry.client(ctx, v, r.clientID)
	if errors.Is(err, storage.ErrNotFound) { // deleted since it was judged
		return nil, &PageError{Status: http.StatusBadRequest, Kind: PageUnknownClient, Description: "No client has this client_id."}
	}
	if err != nil {
		return nil, err
	}
	claims := make(map[string]any)
	for name := range r.Params {
		claims[name] = r.Params.Get(name)
	}
	claims["exp"] = p.now().Add(jarmLifetime).Unix()
	response, err := p.signAnswer(v, c.extra.AuthorizationAlg, typAuthorization, c.ID, claims)
	if err != nil {
		return nil, err
	}
	return url.Values{"response": {response}}, nil
}
