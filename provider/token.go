package provider

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/ory/fosite"
)

// Token answers the token endpoint (RFC 6749 §3.2): it reads and bounds the
// form, lets fosite authenticate the client and pick the grant's handler
// (grant_*.go), and writes what that one decided and signed.
func (p *Provider) Token(w http.ResponseWriter, r *http.Request) {
	request, answer, err := p.token(w, r)
	if err != nil {
		p.metrics.tokenErrors.WithLabelValues(toError(err).Code).Inc()
		p.writeError(w, r, err)
		return
	}
	s, grantType := request.GetSession().(*session), r.PostForm.Get("grant_type")
	p.metrics.tokensIssued.WithLabelValues(grantType).Inc()
	if log, ok := w.(Noter); ok {
		log.Note(
			slog.String("grant_type", grantType),
			slog.String("client_id", request.GetClient().GetID()),
			slog.String("sub", s.subject),
			slog.String("jti", s.tokenID),
			slog.String("aud", strings.Join(s.award.audience, " ")),
			slog.String("scope", strings.Join(s.award.scopes, " ")))
	}
	writeTokens(w, answer)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) (fosite.AccessRequester, fosite.AccessResponder, error) {
	if err := p.clock.check(); err != nil {
		return nil, nil, err
	}
	if err := readForm(w, r); err != nil {
		return nil, nil, err
	}
	// fosite would call an unknown grant an invalid request, and take a list.
	switch grantType := r.PostForm.Get("grant_type"); {
	case grantType == "":
		return nil, nil, invalidRequest("The parameter grant_type is missing.")
	case !slices.Contains(p.grantTypes(), grantType):
		return nil, nil, unsupportedGrantType("Grant types supported here: " + strings.Join(p.grantTypes(), ", ") + ".")
	}
	// Bounded here, because fosite takes the scopes apart before a handler
	// sees them, at quadratic cost.
	if len(r.PostForm.Get("scope")) > p.policy.MaxScopeBytes {
		return nil, nil, invalidScope(fmt.Sprintf("scope is longer than %d bytes.", p.policy.MaxScopeBytes))
	}
	ctx := withRequest(w, r)
	request, err := p.fosite.NewAccessRequest(ctx, r, &session{})
	if err != nil {
		if request != nil && request.GetClient() != nil {
			err = refused(request.GetClient().GetID(), err)
		}
		return nil, nil, err
	}
	answer, err := p.fosite.NewAccessResponse(ctx, request)
	if err != nil {
		return nil, nil, refused(request.GetClient().GetID(), err)
	}
	return request, answer, nil
}

// writeTokens writes the successful answer of RFC 6749 §5.1.
func writeTokens(w http.ResponseWriter, a fosite.AccessResponder) {
	expiresIn, _ := a.GetExtra("expires_in").(int64)
	scope, _ := a.GetExtra("scope").(string)
	refresh, _ := a.GetExtra("refresh_token").(string)
	idToken, _ := a.GetExtra("id_token").(string)
	writeJSON(w, http.StatusOK, struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"`
		Scope        string `json:"scope"`
		RefreshToken string `json:"refresh_token,omitempty"`
		IDToken      string `json:"id_token,omitempty"` // OIDC Core §3.1.3.3
	}{a.GetAccessToken(), a.GetTokenType(), expiresIn, scope, refresh, idToken})
}
