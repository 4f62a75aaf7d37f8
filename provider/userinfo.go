package provider

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/signet-oidc/signet/storage"
)

// bearerError is a refusal of RFC 6750 §3.1.
type bearerError struct {
	status      int
	code        string // "" when the request has no token at all
	description string
	cause       error
}

func (e *bearerError) Error() string { return e.code + ": " + e.description }

func (e *bearerError) Unwrap() error { return e.cause }

func invalidToken(cause error) *bearerError {
	return &bearerError{http.StatusUnauthorized, "invalid_token", "The access token is not valid here, has expired or was revoked.", cause}
}

// UserInfo answers the userinfo endpoint (OIDC Core §5.3): what the scopes of
// an access token meant for this issuer release about its person.
func (p *Provider) UserInfo(w http.ResponseWriter, r *http.Request) {
	claims, signed, err := p.userInfo(w, r)
	switch {
	case err != nil:
		p.writeBearerError(w, r, err, scopeOpenID)
	case signed != "":
		writeJWT(w, "application/jwt", signed)
	default:
		writeJSON(w, http.StatusOK, claims)
	}
}

// writeBearerError answers with an error of RFC 6750 §3, or any other. scope is
// what the endpoint asks for.
func (p *Provider) writeBearerError(w http.ResponseWriter, r *http.Request, err error, scope string) {
	var refused *bearerError
	if !errors.As(err, &refused) {
		p.writeError(w, r, err)
		return
	}
	challenge := `Bearer realm="` + p.issuer.String() + `"`
	if refused.code != "" {
		challenge += `, error="` + refused.code + `", error_description="` + refused.description + `"`
	}
	if refused.code == "insufficient_scope" {
		challenge += `, scope="` + scope + `"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	p.log.LogAttrs(r.Context(), slog.LevelInfo, "request refused",
		slog.String("request_id", w.Header().Get(RequestIDHeader)), slog.String("path", r.URL.Path),
		slog.Int("status", refused.status), slog.String("error", refused.code), slog.Any("cause", refused.cause))
	writeJSON(w, refused.status, struct {
		Code        string `json:"error,omitempty"`
		Description string `json:"error_description,omitempty"`
	}{refused.code, refused.description})
}

// userInfo returns the claims and, for a client that registered an algorithm,
// the same signed (OIDC Core §5.3.2).
func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) (claims map[string]any, signed string, err error) {
	token, err := bearerToken(w, r)
	if err != nil {
		return nil, "", err
	}
	ctx := r.Context()
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, "", err
	}
	now := p.now()
	t, err := p.readToken(v, token)
	switch {
	case err != nil:
		return nil, "", invalidToken(err)
	case !now.Before(t.expiresAt):
		return nil, "", invalidToken(errors.New("expired"))
	case !slices.Contains(t.audience, p.issuer.String()):
		return nil, "", invalidToken(errors.New("meant for another resource"))
	}
	scopes := strings.Fields(t.scope)
	if !slices.Contains(scopes, scopeOpenID) {
		return nil, "", &bearerError{http.StatusForbidden, "insufficient_scope", "The access token needs the scope openid.", nil}
	}
	if revoked, err := p.revoked(ctx, t, now); err != nil {
		return nil, "", err
	} else if revoked {
		return nil, "", invalidToken(errors.New("revoked"))
	}
	// What a person may be asked about is answered from the truth, not from the token.
	c, err := p.registry.client(ctx, v, t.clientID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !c.Enabled {
		return nil, "", invalidToken(errors.New("the client is gone or disabled"))
	}
	if err != nil {
		return nil, "", err
	}
	who, err := p.person(ctx, t.grantID)
	if errors.Is(err, errGone) {
		return nil, "", invalidToken(err)
	}
	if err != nil {
		return nil, "", err
	}
	if err := who.check(v.snapshot, p.issuer.String(), c, now); err != nil {
		return nil, "", invalidToken(err)
	}
	claims = personClaims(who.user, scopes)
	maps.Copy(claims, p.byName(who, c, wantedClaims(who.grant).UserInfo))
	claims["sub"] = subjectOf(who.grant)
	if alg := c.extra.UserInfoAlg; alg != "" {
		signed, err = p.signAnswer(v, alg, typUserInfo, c.ID, claims)
	}
	return claims, signed, err
}

// bearerToken takes the access token from the one place it is in: the header,
// or the form of a POST (RFC 6750 §2.1, §2.2), never the URL (§2.3).
func bearerToken(w http.ResponseWriter, r *http.Request) (string, error) {
	missing := &bearerError{status: http.StatusUnauthorized} // §3.1: no error code
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		return "", oauthError(http.StatusMethodNotAllowed, "invalid_request", "This endpoint takes GET and POST requests.")
	}
	malformed := func(description string) error {
		return &bearerError{http.StatusBadRequest, "invalid_request", description, nil}
	}
	if r.URL.Query().Has("access_token") {
		return "", malformed("Send the access token in the Authorization header: URLs end up in logs.")
	}
	header := r.Header.Values("Authorization")
	if len(header) > 1 {
		return "", malformed("The Authorization header appears more than once.")
	}
	inForm := ""
	if r.Method == http.MethodPost && r.ContentLength != 0 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		if err := readForm(w, r); err != nil {
			return "", err
		}
		inForm = r.PostForm.Get("access_token")
	}
	switch {
	case len(header) == 1 && inForm != "":
		return "", malformed("The access token is in more than one place.")
	case inForm != "":
		return inForm, nil
	case len(header) == 0:
		return "", missing
	}
	scheme, token, _ := strings.Cut(header[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", missing
	}
	return strings.TrimSpace(token), nil
}
