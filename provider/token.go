package provider

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ory/fosite"
)

// Token answers the token endpoint (RFC 6749 §3.2): it reads and bounds the
// form, lets fosite authenticate the client and pick the grant's handler
// (grant_*.go), and writes what that one decided and signed.
func (p *Provider) Token(w http.ResponseWriter, r *http.Request) {
	answer, err := p.token(w, r)
	if err != nil {
		p.metrics.tokenErrors.WithLabelValues(toError(err).Code).Inc()
		p.writeError(w, r, err)
		return
	}
	p.metrics.tokensIssued.WithLabelValues(r.PostForm.Get("grant_type")).Inc()
	writeTokens(w, answer)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) (fosite.AccessResponder, error) {
	if err := p.clock.check(); err != nil {
		return nil, err
	}
	if err := readForm(w, r); err != nil {
		return nil, err
	}
	// fosite would call an unknown grant an invalid request, and take a list.
	switch grantType := r.PostForm.Get("grant_type"); {
	case grantType == "":
		return nil, invalidRequest("The parameter grant_type is missing.")
	case !slices.Contains(p.grantTypes(), grantType):
		return nil, unsupportedGrantType("Grant types supported here: " + strings.Join(p.grantTypes(), ", ") + ".")
	}
	// Bounded here, because fosite takes the scopes apart before a handler
	// sees them, at quadratic cost.
	if len(r.PostForm.Get("scope")) > p.policy.MaxScopeBytes {
		return nil, invalidScope(fmt.Sprintf("scope is longer than %d bytes.", p.policy.MaxScopeBytes))
	}
	ctx := withRequest(w, r)
	request, err := p.fosite.NewAccessRequest(ctx, r, &session{})
	if err != nil {
		return nil, err
	}
	return p.fosite.NewAccessResponse(ctx, request)
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
