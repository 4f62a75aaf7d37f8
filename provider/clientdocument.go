package provider

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/json" // member names by case, and no duplicates

	"github.com/signet-oidc/signet/storage"
)

// clientDocument is client metadata as a client states it about itself (RFC
// 7591 §2, OIDC Registration §2). What is not here is ignored, and missing from
// the answer, by which the client knows.
type clientDocument struct {
	ClientID     string `json:"client_id,omitempty"`     // RFC 7592 §2.2
	ClientSecret string `json:"client_secret,omitempty"` // RFC 7592 §2.2

	RedirectURIs           []string        `json:"redirect_uris,omitempty"`
	AuthMethod             string          `json:"token_endpoint_auth_method,omitempty"`
	AuthSigningAlg         string          `json:"token_endpoint_auth_signing_alg,omitempty"`
	GrantTypes             []string        `json:"grant_types,omitempty"`
	ResponseTypes          []string        `json:"response_types,omitempty"`
	ClientName             string          `json:"client_name,omitempty"`
	Scope                  string          `json:"scope,omitempty"`
	JWKS                   json.RawMessage `json:"jwks,omitempty"`
	JWKSURI                string          `json:"jwks_uri,omitempty"`
	ApplicationType        string          `json:"application_type,omitempty"`
	SubjectType            string          `json:"subject_type,omitempty"`
	IDTokenAlg             string          `json:"id_token_signed_response_alg,omitempty"`
	PostLogoutRedirectURIs []string        `json:"post_logout_redirect_uris,omitempty"`
	RequirePushed          bool            `json:"require_pushed_authorization_requests,omitempty"`
	BackChannelLogoutURI   string          `json:"backchannel_logout_uri,omitempty"`
	FrontChannelLogoutURI  string          `json:"frontchannel_logout_uri,omitempty"`
	ClientExtra

	// Encryption is not offered; who asks for it is told so.
	IDTokenEncryption  string `json:"id_token_encrypted_response_alg,omitempty"`
	UserInfoEncryption string `json:"userinfo_encrypted_response_alg,omitempty"`
	RequestEncryption  string `json:"request_object_encryption_alg,omitempty"`
}

// newClientDocument is what c is registered with.
func newClientDocument(c storage.Client) clientDocument {
	d := clientDocument{
		RedirectURIs: c.RedirectURIs, AuthMethod: c.AuthMethod, AuthSigningAlg: c.AuthSigningAlg, GrantTypes: c.GrantTypes,
		ClientName: c.Name, Scope: strings.Join(c.Scopes, " "), JWKSURI: c.JWKSURI, ApplicationType: c.ApplicationType,
		SubjectType: c.SubjectType, IDTokenAlg: c.IDTokenAlg, PostLogoutRedirectURIs: c.PostLogoutRedirectURIs,
		RequirePushed: c.RequirePushed, BackChannelLogoutURI: c.BackChannelLogoutURI, FrontChannelLogoutURI: c.FrontChannelLogoutURI,
		ClientExtra: ReadClientExtra(c),
	}
	if slices.Contains(c.GrantTypes, grantCode) {
		d.ResponseTypes = []string{"code"}
	}
	if c.JWKS != "" {
		d.JWKS = json.RawMessage(c.JWKS)
	}
	return d
}

// apply makes c, which is as DefaultClient, what the document states, if all
// of it is on offer. What remains to be judged is checkClient's.
func (d *clientDocument) apply(c *storage.Client, offer offering) error {
	var f InvalidError
	c.Name = d.ClientName
	if c.Name == "" { // optional in RFC 7591 §2; people have to see something
		c.Name = c.ID
		if len(d.RedirectURIs) > 0 {
			c.Name = cmp.Or(hostOf(d.RedirectURIs[0]), c.ID)
		}
	}
	c.RedirectURIs, c.PostLogoutRedirectURIs = d.RedirectURIs, d.PostLogoutRedirectURIs
	if d.AuthMethod != "" {
		c.AuthMethod = d.AuthMethod
	}
	c.RequirePKCE = !offer.withoutPKCE || c.AuthMethod == authNone
	c.BackChannelLogoutURI, c.FrontChannelLogoutURI = d.BackChannelLogoutURI, d.FrontChannelLogoutURI
	c.AuthSigningAlg, c.JWKSURI, c.RequirePushed = d.AuthSigningAlg, d.JWKSURI, d.RequirePushed
	if len(d.JWKS) > 0 && !bytes.Equal(d.JWKS, []byte("null")) {
		c.JWKS = string(d.JWKS)
	}
	if d.IDTokenAlg != "" {
		c.IDTokenAlg = d.IDTokenAlg
	}
	if c.GrantTypes = d.GrantTypes; len(c.GrantTypes) == 0 {
		c.GrantTypes = []string{grantCode}
	}
	for _, g := range c.GrantTypes {
		if !slices.Contains(offer.grants, g) {
			f.Add("grant_types", fmt.Sprintf("%q is not offered to clients that register themselves", clip(g)), "choose from "+strings.Join(offer.grants, ", "))
		}
	}
	for _, t := range d.ResponseTypes {
		if t != "code" {
			f.Add("response_types", fmt.Sprintf("%q is not offered", clip(t)), "choose code")
		}
	}
	scopes := offer.scopes
	if slices.Contains(c.GrantTypes, grantClientCredentials) {
		scopes = distinct(slices.Concat(oidcScopes, offer.alone))
	}
	if c.Scopes = strings.Fields(d.Scope); len(c.Scopes) == 0 {
		c.Scopes = slices.Clone(scopes)
		if !slices.Contains(c.GrantTypes, grantCode) {
			c.Scopes = slices.DeleteFunc(c.Scopes, func(s string) bool { return slices.Contains(oidcScopes, s) })
		}
	}
	for _, s := range c.Scopes {
		if !slices.Contains(scopes, s) {
			f.Add("scope", fmt.Sprintf("%q is not offered to clients that register themselves", clip(s)), "leave it out")
		}
	}
	native := slices.ContainsFunc(slices.Concat(d.RedirectURIs, d.PostLogoutRedirectURIs), needsNative)
	switch d.ApplicationType {
	case "", appNative:
	case appWeb: // OIDC Registration §2
		if native {
			f.Add("redirect_uris", "is for an application on a person's device, but application_type is web", "register it as native, or use https")
		}
	default:
		f.Add("application_type", fmt.Sprintf("%q is not known", clip(d.ApplicationType)), "choose web or native")
	}
	if d.SubjectType != "" {
		c.SubjectType = d.SubjectType
	}
	if d.IDTokenEncryption+d.UserInfoEncryption+d.RequestEncryption != "" {
		f.Add("id_token_encrypted_response_alg", "or another request for encryption is there; none is offered", "leave it out")
	}
	d.ClientExtra.Write(c)
	if err := f.Err(); err != nil {
		return metadataError(err)
	}
	return nil
}
