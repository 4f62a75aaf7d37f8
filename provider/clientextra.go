package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/signet-oidc/signet/storage"
)

// ClientExtra is what a client registered beyond the columns of its row, by the
// names of RFC 7591 §2, OIDC Registration §2, the Logout specifications, RFC
// 9101 §10.5, RFC 9701 §6 and JARM §3. It is kept as JSON in
// storage.Client.Metadata; the zero value stands for the defaults.
type ClientExtra struct {
	// Whose pairwise subjects the client shares (OIDC Registration §5).
	SectorIdentifierURI string `json:"sector_identifier_uri,omitempty"`

	// For people who are asked for consent.
	ClientURI string   `json:"client_uri,omitempty"`
	LogoURI   string   `json:"logo_uri,omitempty"`
	PolicyURI string   `json:"policy_uri,omitempty"`
	TermsURI  string   `json:"tos_uri,omitempty"`
	Contacts  []string `json:"contacts,omitempty"`

	SoftwareID      string `json:"software_id,omitempty"`
	SoftwareVersion string `json:"software_version,omitempty"`

	// What an authorization request has when it does not say otherwise.
	DefaultMaxAge    *int64   `json:"default_max_age,omitempty"` // seconds
	RequireAuthTime  bool     `json:"require_auth_time,omitempty"`
	DefaultACRValues []string `json:"default_acr_values,omitempty"`
	InitiateLoginURI string   `json:"initiate_login_uri,omitempty"`

	// Request objects: what they are signed with ("": any algorithm offered),
	// whether there has to be one, and where they may be fetched from.
	RequestObjectAlg     string   `json:"request_object_signing_alg,omitempty"`
	RequireRequestObject bool     `json:"require_signed_request_object,omitempty"`
	RequestURIs          []string `json:"request_uris,omitempty"`

	// What answers are signed with; "" leaves them unsigned, and for JARM RS256.
	UserInfoAlg      string `json:"userinfo_signed_response_alg,omitempty"`
	IntrospectionAlg string `json:"introspection_signed_response_alg,omitempty"`
	AuthorizationAlg string `json:"authorization_signed_response_alg,omitempty"`

	BackChannelSession  bool `json:"backchannel_logout_session_required,omitempty"`
	FrontChannelSession bool `json:"frontchannel_logout_session_required,omitempty"`
}

// ReadClientExtra returns what c registered beyond its columns. What cannot be
// read, which registration never writes, is as good as not there.
func ReadClientExtra(c storage.Client) ClientExtra {
	var e ClientExtra
	if c.Metadata != "" && json.Unmarshal([]byte(c.Metadata), &e) != nil {
		return ClientExtra{}
	}
	return e
}

// Write makes e what c registered beyond its columns.
func (e ClientExtra) Write(c *storage.Client) {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	if c.Metadata = string(b); c.Metadata == "{}" {
		c.Metadata = ""
	}
}

// check adds what is wrong with e, registered by c, to f.
func (e ClientExtra) check(f *InvalidError, c storage.Client) {
	code := slices.Contains(c.GrantTypes, grantCode)
	for name, uri := range map[string]string{
		"client_uri": e.ClientURI, "logo_uri": e.LogoURI, "policy_uri": e.PolicyURI, "tos_uri": e.TermsURI, "initiate_login_uri": e.InitiateLoginURI,
	} {
		if uri != "" {
			f.check(name, uri, checkHTTPS(uri))
		}
	}
	if len(e.Contacts) > maxListed || len(e.RequestURIs) > maxListed || len(e.DefaultACRValues) > maxListed {
		f.Add("client", fmt.Sprintf("has a list of more than %d members", maxListed), "leave some out")
		return
	}
	for name, value := range map[string]string{"software_id": e.SoftwareID, "software_version": e.SoftwareVersion} {
		if len(value) > 200 || !validText(value) {
			f.Add(name, "is longer than 200 bytes, or no text", "shorten it")
		}
	}
	for _, contact := range e.Contacts {
		if len(contact) > 320 || !validText(contact) {
			f.Add("contacts", "has a member that is longer than 320 bytes, or no text", "shorten it")
		}
	}
	if age := e.DefaultMaxAge; age != nil && (*age < 0 || *age > 1<<31-1) {
		f.Add("default_max_age", "is out of range", "choose a number of seconds from 0")
	}
	for _, acr := range e.DefaultACRValues {
		if !slices.Contains(authenticationClasses(), acr) {
			f.Add("default_acr_values", fmt.Sprintf("%q is not offered", clip(acr)), "choose from acr_values_supported of the metadata")
		}
	}
	e.checkRequestObjects(f, c)
	for name, alg := range map[string]string{
		"userinfo_signed_response_alg": e.UserInfoAlg, "introspection_signed_response_alg": e.IntrospectionAlg, "authorization_signed_response_alg": e.AuthorizationAlg,
	} {
		if alg != "" && !slices.Contains(answerAlgs(), alg) {
			f.Add(name, fmt.Sprintf("%q is not offered", clip(alg)), "choose RS256, ES256, PS256 or EdDSA")
		}
	}
	if !code && (e.InitiateLoginURI != "" || e.RequireRequestObject || len(e.RequestURIs) > 0) {
		f.Add("client", "has settings of sign-ins without "+grantCode, "add that grant or leave them out")
	}
}

func (e ClientExtra) checkRequestObjects(f *InvalidError, c storage.Client) {
	if alg := e.RequestObjectAlg; alg != "" && !slices.Contains(algNames(), alg) { // "none" proves nothing (RFC 9101 §10.2)
		f.Add("request_object_signing_alg", fmt.Sprintf("%q is not offered", clip(alg)), "choose RS256, ES256, PS256 or EdDSA")
	}
	if (e.RequestObjectAlg != "" || e.RequireRequestObject || len(e.RequestURIs) > 0) && c.JWKS == "" && c.JWKSURI == "" {
		f.Add("jwks", "is needed for request objects", "give the client's public keys (jwks) or their address (jwks_uri)")
	}
	for _, uri := range e.RequestURIs {
		// The fragment may be a digest of what is there (OIDC Core §6.2).
		plain, _, _ := strings.Cut(uri, "#")
		f.check("request_uris", uri, checkJWKSURI(plain))
	}
}

// answerAlgs lists what ID tokens and other answers may be signed with.
func answerAlgs() []string { return []string{"RS256", "ES256", "PS256", "EdDSA"} }

// checkHTTPS reports why uri is not an https URL to show or send people to.
func checkHTTPS(uri string) error {
	u, err := parseURI(uri)
	if err != nil {
		return err
	}
	if u.Scheme != "https" {
		return errors.New("has to begin with https://")
	}
	return checkHost(u)
}
