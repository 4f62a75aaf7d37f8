package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
)

// metadataMaxAge is how long a relying party may keep the metadata.
const metadataMaxAge = 15 * time.Minute

// document is an answer prepared once and served many times. The headers'
// values are shared between answers and never written to.
type document struct {
	body   []byte
	etag   string
	known  http.Header // of every answer, 304 too
	header http.Header // of the document
}

func newDocument(body []byte, etag, contentType string, maxAge time.Duration) *document {
	return &document{
		body: body, etag: etag,
		known:  http.Header{"Etag": {etag}, "Cache-Control": {"public, max-age=" + strconv.Itoa(int(maxAge.Seconds()))}},
		header: http.Header{"Content-Type": {contentType}, "Content-Length": {strconv.Itoa(len(body))}},
	}
}

func (d *document) serve(w http.ResponseWriter, r *http.Request) {
	maps.Copy(w.Header(), d.known)
	if etagMatches(r.Header.Get("If-None-Match"), d.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	maps.Copy(w.Header(), d.header)
	_, _ = w.Write(d.body)
}

// etagMatches compares weakly, as If-None-Match wants (RFC 9110 §13.1.2).
func etagMatches(header, etag string) bool {
	if header == "" {
		return false
	}
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == etag || candidate == "*" {
			return true
		}
	}
	return false
}

// metadata is the document of RFC 8414 §2 and OpenID Connect Discovery §3. It
// names only what works today.
func (p *Provider) newMetadata() *document {
	registration := ""
	if p.registration.on() {
		registration = p.issuer.Endpoint(PathRegistration)
	}
	body, err := json.Marshal(struct {
		Issuer                                     string   `json:"issuer"`
		AuthorizationEndpoint                      string   `json:"authorization_endpoint"`
		TokenEndpoint                              string   `json:"token_endpoint"`
		UserInfoEndpoint                           string   `json:"userinfo_endpoint"`
		EndSessionEndpoint                         string   `json:"end_session_endpoint"`
		JWKSURI                                    string   `json:"jwks_uri"`
		IntrospectionEndpoint                      string   `json:"introspection_endpoint"`
		RevocationEndpoint                         string   `json:"revocation_endpoint"`
		PushedEndpoint                             string   `json:"pushed_authorization_request_endpoint"`
		RequirePushed                              bool     `json:"require_pushed_authorization_requests"`
		RegistrationEndpoint                       string   `json:"registration_endpoint,omitempty"`
		DocumentsSupported                         bool     `json:"client_id_metadata_document_supported,omitempty"` // CIMD §7
		RevocationFeedEndpoint                     string   `json:"revocation_feed_endpoint"`                        // ours, for the package verify
		ScopesSupported                            []string `json:"scopes_supported"`
		ResponseTypesSupported                     []string `json:"response_types_supported"`
		ResponseModesSupported                     []string `json:"response_modes_supported"`
		CodeChallengeMethodsSupported              []string `json:"code_challenge_methods_supported"`
		PromptValuesSupported                      []string `json:"prompt_values_supported"`
		ACRValuesSupported                         []string `json:"acr_values_supported"`
		ClaimsSupported                            []string `json:"claims_supported"`
		ClaimsParameterSupported                   bool     `json:"claims_parameter_supported"`
		RequestParameterSupported                  bool     `json:"request_parameter_supported"`
		RequestURIParameterSupported               bool     `json:"request_uri_parameter_supported"`
		RequireRequestURIRegistration              bool     `json:"require_request_uri_registration"`
		RequestObjectSigningAlgsSupported          []string `json:"request_object_signing_alg_values_supported"`
		IssParameterSupported                      bool     `json:"authorization_response_iss_parameter_supported"`
		GrantTypesSupported                        []string `json:"grant_types_supported"`
		TokenEndpointAuthMethodsSupported          []string `json:"token_endpoint_auth_methods_supported"`
		TokenEndpointAuthSigningAlgsSupported      []string `json:"token_endpoint_auth_signing_alg_values_supported"`
		IntrospectionEndpointAuthMethodsSupported  []string `json:"introspection_endpoint_auth_methods_supported"`
		IntrospectionEndpointAuthSigningAlgs       []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
		RevocationEndpointAuthMethodsSupported     []string `json:"revocation_endpoint_auth_methods_supported"`
		RevocationEndpointAuthSigningAlgsSupported []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
		SubjectTypesSupported                      []string `json:"subject_types_supported"`
		IDTokenSigningAlgsSupported                []string `json:"id_token_signing_alg_values_supported"`
		UserInfoSigningAlgsSupported               []string `json:"userinfo_signing_alg_values_supported"`
		BackChannelLogoutSupported                 bool     `json:"backchannel_logout_supported"` // Back-Channel Logout §2.1
		BackChannelLogoutSessionSupported          bool     `json:"backchannel_logout_session_supported"`
		FrontChannelLogoutSupported                bool     `json:"frontchannel_logout_supported"` // Front-Channel Logout §3
		FrontChannelLogoutSessionSupported         bool     `json:"frontchannel_logout_session_supported"`
		IntrospectionSigningAlgsSupported          []string `json:"introspection_signing_alg_values_supported"` // RFC 9701 §7
		AuthorizationSigningAlgsSupported          []string `json:"authorization_signing_alg_values_supported"` // JARM §4
	}{
		Issuer:                                     p.issuer.String(),
		AuthorizationEndpoint:                      p.issuer.Endpoint(PathAuthorize),
		UserInfoEndpoint:                           p.issuer.Endpoint(PathUserInfo),
		EndSessionEndpoint:                         p.issuer.Endpoint(PathLogout),
		TokenEndpoint:                              p.issuer.Endpoint(PathToken),
		JWKSURI:                                    p.issuer.Endpoint(PathJWKS),
		IntrospectionEndpoint:                      p.issuer.Endpoint(PathIntrospection),
		RevocationEndpoint:                         p.issuer.Endpoint(PathRevocation),
		PushedEndpoint:                             p.issuer.Endpoint(PathPushed),
		RegistrationEndpoint:                       registration,
		DocumentsSupported:                         p.documents.policy.on(),
		RevocationFeedEndpoint:                     p.issuer.Endpoint(PathFeed),
		ScopesSupported:                            oidcScopes,
		ResponseTypesSupported:                     []string{"code"},
		ResponseModesSupported:                     []string{ModeQuery, ModeFormPost, "jwt", ModeQueryJWT, ModeFormPostJWT},
		CodeChallengeMethodsSupported:              []string{"S256"},
		PromptValuesSupported:                      []string{"none", "login", "consent", "select_account"},
		ACRValuesSupported:                         authenticationClasses(),
		ClaimsSupported:                            claimNames(),
		ClaimsParameterSupported:                   true,
		RequestParameterSupported:                  true,
		RequestURIParameterSupported:               true,
		RequireRequestURIRegistration:              true,
		RequestObjectSigningAlgsSupported:          algNames(),
		IssParameterSupported:                      true,
		GrantTypesSupported:                        p.grantTypes(),
		TokenEndpointAuthMethodsSupported:          []string{authBasic, authPost, authPrivateKeyJWT, authNone},
		TokenEndpointAuthSigningAlgsSupported:      algNames(),
		IntrospectionEndpointAuthMethodsSupported:  []string{authBasic, authPost, authPrivateKeyJWT},
		IntrospectionEndpointAuthSigningAlgs:       algNames(),
		RevocationEndpointAuthMethodsSupported:     []string{authBasic, authPost, authPrivateKeyJWT, authNone},
		RevocationEndpointAuthSigningAlgsSupported: algNames(),
		SubjectTypesSupported:                      SubjectTypes(),
		IDTokenSigningAlgsSupported:                answerAlgs(),
		UserInfoSigningAlgsSupported:               answerAlgs(),
		BackChannelLogoutSupported:                 true,
		BackChannelLogoutSessionSupported:          true,
		FrontChannelLogoutSupported:                true,
		FrontChannelLogoutSessionSupported:         true,
		IntrospectionSigningAlgsSupported:          answerAlgs(),
		AuthorizationSigningAlgsSupported:          answerAlgs(),
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	sum := sha256.Sum256(body)
	return newDocument(body, `"`+base64.RawURLEncoding.EncodeToString(sum[:12])+`"`, "application/json", metadataMaxAge)
}

// claimNames lists what ID token and userinfo may say of a person.
func claimNames() []string {
	names := []string{"sub", "auth_time", "acr", "amr", "sid"}
	for _, scope := range oidcScopes {
		names = append(names, scopeClaims[scope]...)
	}
	return names
}

func algNames() []string {
	var names []string
	for _, alg := range assertionAlgs() {
		names = append(names, string(alg))
	}
	return names
}

func (p *Provider) grantTypes() []string {
	return []string{grantCode, grantRefresh, grantClientCredentials}
}

// Metadata serves the authorization server metadata, under both well-known names.
func (p *Provider) Metadata(w http.ResponseWriter, r *http.Request) {
	p.metadata.serve(w, r)
}

// JWKS serves the public keys (RFC 7517 §5). It answers from memory even
// while the database is away, because keys are published long before they
// sign; but not for so long that a key may sign by then which is not in it.
func (p *Provider) JWKS(w http.ResponseWriter, r *http.Request) {
	s := p.registry.current.Load()
	if s == nil || p.registry.age(s) > p.keeper.Schedule.JWKSGood(p.policy.JWKSMaxAge) {
		p.writeError(w, r, unavailable(nil))
		return
	}
	s.jwks.serve(w, r)
}

func jwksDocument(ring *keys.Ring, maxAge time.Duration) *document {
	body, etag := ring.JWKS()
	return newDocument(body, etag, "application/jwk-set+json", maxAge)
}
