package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

type clientCmd struct {
	Create       clientCreate  `cmd:"" help:"Register a client. Its secret is shown once."`
	List         clientList    `cmd:"" help:"List clients."`
	Show         clientShow    `cmd:"" help:"Show a client."`
	Update       clientUpdate  `cmd:"" help:"Change a client."`
	Disable      clientDisable `cmd:"" help:"Stop a client at once."`
	Enable       clientEnable  `cmd:"" help:"Let a disabled client get tokens again."`
	Delete       clientDelete  `cmd:"" help:"Remove a client for good."`
	RotateSecret clientRotate  `cmd:"" help:"Make a new secret; the old one works on for a while."`

	InitialAccessToken initialTokenCmd `cmd:"" help:"Make, list and revoke tokens with which others register clients."`
}

func (*clientCmd) Examples() string { return (*clientCreate)(nil).Examples() }

// clientJSON is a client as RFC 7591 §2 names its metadata.
type clientJSON struct {
	ClientID              string          `json:"client_id"`
	ClientSecret          string          `json:"client_secret,omitempty"`
	ClientSecretExpiresAt *int64          `json:"client_secret_expires_at,omitempty"` // RFC 7591 §3.2.1: 0 is never
	ClientName            string          `json:"client_name"`
	GrantTypes            []string        `json:"grant_types"`
	ResponseTypes         []string        `json:"response_types"`
	AuthMethod            string          `json:"token_endpoint_auth_method"`
	Scope                 string          `json:"scope"`
	JWKS                  json.RawMessage `json:"jwks,omitempty"`
	JWKSURI               string          `json:"jwks_uri,omitempty"`
	Roles                 []string        `json:"roles"`
	Enabled               bool            `json:"enabled"`
	Origin                string          `json:"origin"` // who registered it: operator, registration or metadata-document
	*signInJSON                           // nil for a client that signs nobody in
	provider.ClientExtra
	Secrets   []secretJSON `json:"secrets"`
	CreatedAt instant      `json:"created_at"`
	UpdatedAt instant      `json:"updated_at"`
}

// signInJSON is what matters only to a client with the authorization_code grant.
type signInJSON struct {
	ApplicationType        string   `json:"application_type"`
	RedirectURIs           []string `json:"redirect_uris"`
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris"`
	IDTokenAlg             string   `json:"id_token_signed_response_alg"`
	SubjectType            string   `json:"subject_type"`
	SectorIdentifier       string   `json:"sector_identifier,omitempty"` // of pairwise subjects
	FirstParty             bool     `json:"first_party"`
	RequirePKCE            bool     `json:"require_pkce"`
	RequirePushed          bool     `json:"require_pushed_authorization_requests"`
	ClaimsInIDToken        bool     `json:"claims_in_id_token"`
	BackChannelLogoutURI   string   `json:"backchannel_logout_uri,omitempty"`
	FrontChannelLogoutURI  string   `json:"frontchannel_logout_uri,omitempty"`
	RefreshWindow          *int64   `json:"refresh_window"` // seconds; null is the default
}

// secretJSON tells of a secret everything but itself.
type secretJSON struct {
	CreatedAt instant `json:"created_at"`
	ExpiresAt instant `json:"expires_at"`
}

func viewClient(c storage.Client) clientJSON {
	v := clientJSON{
		ClientID: c.ID, ClientName: c.Name,
		GrantTypes: orEmpty(c.GrantTypes), ResponseTypes: []string{}, AuthMethod: c.AuthMethod,
		Scope: words(sorted(c.Scopes)), JWKSURI: c.JWKSURI, Roles: orEmpty(c.Roles),
		Enabled: c.Enabled, Origin: c.Origin, Secrets: []secretJSON{}, ClientExtra: provider.ReadClientExtra(c),
		CreatedAt: instant(c.CreatedAt), UpdatedAt: instant(c.UpdatedAt),
	}
	if c.JWKS != "" {
		v.JWKS = json.RawMessage(c.JWKS)
	}
	if slices.Contains(c.GrantTypes, "authorization_code") {
		v.ResponseTypes = []string{"code"}
		v.signInJSON = &signInJSON{
			ApplicationType: c.ApplicationType, RedirectURIs: orEmpty(c.RedirectURIs), PostLogoutRedirectURIs: orEmpty(c.PostLogoutRedirectURIs),
			IDTokenAlg: c.IDTokenAlg, SubjectType: c.SubjectType, SectorIdentifier: c.SectorIdentifier, FirstParty: c.FirstParty, RequirePKCE: c.RequirePKCE, RequirePushed: c.RequirePushed, ClaimsInIDToken: c.ClaimsInIDToken,
			BackChannelLogoutURI: c.BackChannelLogoutURI, FrontChannelLogoutURI: c.FrontChannelLogoutURI,
		}
		if c.RefreshWindow >= 0 {
			seconds := int64(c.RefreshWindow / time.Second)
			v.RefreshWindow = &seconds
		}
	}
	for _, s := range c.Secrets {
		v.Secrets = append(v.Secrets, secretJSON{instant(s.CreatedAt), instant(s.ExpiresAt)})
	}
	return v
}

// orEmpty keeps null out of JSON where a list belongs.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func describeClient(w io.Writer, v clientJSON) {
	field(w, "client_id", v.ClientID)
	if v.ClientSecret != "" {
		field(w, "client_secret", v.ClientSecret+"   (shown only now)")
	}
	field(w, "name", v.ClientName)
	field(w, "state", mark(v.Enabled, "enabled", "disabled"))
	switch v.Origin {
	case "registration":
		field(w, "origin", "registered itself")
	case "metadata-document":
		field(w, "origin", "known by its metadata document")
	}
	field(w, "grants", words(v.GrantTypes))
	field(w, "authenticates with", v.AuthMethod)
	field(w, "scope", v.Scope)
	field(w, "roles", words(v.Roles))
	field(w, "keys at", v.JWKSURI)
	if v.signInJSON != nil {
		for _, u := range v.RedirectURIs {
			field(w, "redirect URI", u)
		}
		for _, u := range v.PostLogoutRedirectURIs {
			field(w, "post-logout redirect URI", u)
		}
		field(w, "application", v.ApplicationType+mark(v.FirstParty, ", first party", ""))
		field(w, "ID token", v.IDTokenAlg+mark(v.ClaimsInIDToken, ", with the claims of its scopes", ""))
		field(w, "subjects", v.SubjectType+mark(v.SectorIdentifier != "", ", for "+v.SectorIdentifier, ""))
		field(w, "PKCE", mark(v.RequirePKCE, "required", "not required"))
		field(w, "pushed requests", mark(v.RequirePushed, "required", ""))
		field(w, "request objects", mark(v.RequireRequestObject, "required", "")+mark(v.RequestObjectAlg != "", " "+v.RequestObjectAlg, ""))
		for _, u := range v.RequestURIs {
			field(w, "request object at", u)
		}
		field(w, "userinfo signed with", v.UserInfoAlg)
		field(w, "website", v.ClientURI)
		field(w, "privacy policy", v.PolicyURI)
		field(w, "terms of service", v.TermsURI)
		field(w, "begins sign-ins at", v.InitiateLoginURI)
		field(w, "told of logouts at", v.BackChannelLogoutURI)
		field(w, "logout page", v.FrontChannelLogoutURI)
	}
	for _, s := range v.Secrets {
		field(w, "secret", "made "+s.CreatedAt.String()+mark(s.ExpiresAt.String() != "", ", ends "+s.ExpiresAt.String(), ""))
	}
	field(w, "created", v.CreatedAt.String())
	if v.UpdatedAt != v.CreatedAt {
		field(w, "updated", v.UpdatedAt.String())
	}
}

type clientCreate struct {
	Name                  string         `required:"" placeholder:"TEXT" help:"Name that people see."`
	ID                    string         `name:"id" placeholder:"ID" help:"client_id; without it a random one is made."`
	Grant                 []string       `required:"" sep:"none" placeholder:"GRANT" help:"client_credentials, authorization_code or refresh_token; may repeat."`
	AuthMethod            string         `default:"client_secret_basic" placeholder:"METHOD" help:"client_secret_basic (default), client_secret_post, private_key_jwt, or none for a public client."`
	RedirectURI           []string       `name:"redirect-uri" sep:"none" placeholder:"URI" help:"Where people return to; compared exactly; may repeat."`
	PostLogoutRedirectURI []string       `name:"post-logout-redirect-uri" sep:"none" placeholder:"URI" help:"Where people return to after signing out; may repeat."`
	Scope                 []string       `sep:"none" placeholder:"SCOPE" help:"Scope it may ask for; may repeat."`
	Role                  []string       `sep:"none" placeholder:"ROLE" help:"Role it has when it acts for itself; may repeat."`
	JWKSFile              string         `name:"jwks-file" placeholder:"FILE" xor:"jwks" help:"Its public keys, a JWK Set, for private_key_jwt and request objects."`
	JWKSURI               string         `name:"jwks-uri" placeholder:"URL" xor:"jwks" help:"Where its public keys are, for private_key_jwt and request objects."`
	IDTokenAlg            string         `name:"id-token-alg" default:"RS256" placeholder:"ALG" help:"RS256 (default), ES256, PS256 or EdDSA."`
	SubjectType           string         `default:"public" placeholder:"TYPE" help:"public (default): it knows a person by the sub that other apps know as well. pairwise: by one of its own, or its sector's."`
	SectorIdentifierURI   string         `name:"sector-identifier-uri" placeholder:"URL" help:"Where a JSON array of its redirect URIs is, and of those of the apps that share its pairwise subs: the URL's host is the sector. Without it that is the one host of the redirect URIs."`
	OutboundAllow         []string       `placeholder:"CIDR" help:"Private network that --sector-identifier-uri may be fetched from; may repeat."`
	ClaimsInIDToken       bool           `name:"claims-in-id-token" help:"Put the claims of granted scopes into the ID token as well."`
	RefreshWindow         *time.Duration `placeholder:"DUR" help:"How long a repeated refresh gets the same answer; 0 never. Default 10s."`
	FirstParty            bool           `help:"It is the operator's own: people are not asked for consent unless it runs on their device."`
	RequirePKCE           bool           `name:"require-pkce" default:"true" help:"Demand PKCE (default); only a confidential client can do without, with =false."`
	RequirePushed         bool           `name:"require-pushed" help:"Demand pushed authorization requests (RFC 9126)."`
	RequestObjectAlg      string         `name:"request-object-alg" placeholder:"ALG" help:"Its request objects are signed with this algorithm only (RFC 9101)."`
	RequireRequestObject  bool           `name:"require-request-object" help:"Demand signed request objects."`
	RequestURI            []string       `name:"request-uri" sep:"none" placeholder:"URL" help:"Where its request objects may be fetched from; may repeat."`
	UserInfoAlg           string         `name:"userinfo-alg" placeholder:"ALG" help:"Sign what userinfo tells it: RS256, ES256, PS256 or EdDSA."`
	IntrospectionAlg      string         `placeholder:"ALG" help:"What signs introspection answers that it asks to be signed (RFC 9701). Default RS256."`
	AuthorizationAlg      string         `placeholder:"ALG" help:"What signs authorization answers that it asks to be signed (JARM). Default RS256."`
	ClientURI             string         `name:"client-uri" placeholder:"URL" help:"Its website, which the consent page links to."`
	PolicyURI             string         `name:"policy-uri" placeholder:"URL" help:"Its privacy policy, which the consent page links to."`
	TermsURI              string         `name:"tos-uri" placeholder:"URL" help:"Its terms of service, which the consent page links to."`
	InitiateLoginURI      string         `name:"initiate-login-uri" placeholder:"URL" help:"Where it begins a sign-in by itself (OpenID Connect Core, section 4): people open it from their account page."`
	BackChannelURI        string         `name:"backchannel-logout-uri" placeholder:"URL" help:"Where it is told when a session ends (Back-Channel Logout)."`
	BackChannelSession    bool           `name:"backchannel-logout-session-required" help:"It wants the session's sid with that; it always gets it."`
	FrontChannelURI       string         `name:"frontchannel-logout-uri" placeholder:"URL" help:"Page of its own that is shown, unseen, to who signs out (Front-Channel Logout)."`
	FrontChannelSession   bool           `name:"frontchannel-logout-session-required" help:"Name issuer and sid to that page."`
}

func (*clientCreate) Examples() string {
	return `
signet client create --name "Nightly report" --id nightly-report --grant client_credentials --scope orders:read
signet client create --name "Storefront" --id storefront --grant authorization_code --redirect-uri https://storefront.example.com/cb --scope openid --scope orders:read`
}

func (c *clientCreate) Run(ctx context.Context, a *app) error {
	if err := singleClientFlags(c.Grant, c.Scope, c.Role); err != nil {
		return err
	}
	row := provider.DefaultClient()
	row.ID, row.Name = c.ID, c.Name
	row.GrantTypes, row.AuthMethod = c.Grant, c.AuthMethod
	row.RedirectURIs, row.PostLogoutRedirectURIs = c.RedirectURI, c.PostLogoutRedirectURI
	row.Scopes, row.Roles = c.Scope, c.Role
	row.JWKSURI = c.JWKSURI
	row.SubjectType = c.SubjectType
	row.IDTokenAlg, row.ClaimsInIDToken = c.IDTokenAlg, c.ClaimsInIDToken
	row.FirstParty, row.RequirePKCE, row.RequirePushed = c.FirstParty, c.RequirePKCE, c.RequirePushed
	row.BackChannelLogoutURI, row.FrontChannelLogoutURI = c.BackChannelURI, c.FrontChannelURI
	provider.ClientExtra{SectorIdentifierURI: c.SectorIdentifierURI, ClientURI: c.ClientURI, PolicyURI: c.PolicyURI, TermsURI: c.TermsURI, InitiateLoginURI: c.InitiateLoginURI,
		BackChannelSession: c.BackChannelSession, FrontChannelSession: c.FrontChannelSession,
		RequestObjectAlg: c.RequestObjectAlg, RequireRequestObject: c.RequireRequestObject, RequestURIs: c.RequestURI,
		UserInfoAlg: c.UserInfoAlg, IntrospectionAlg: c.IntrospectionAlg, AuthorizationAlg: c.AuthorizationAlg}.Write(&row)
	if c.RefreshWindow != nil {
		row.RefreshWindow = *c.RefreshWindow
	}
	var err error
	if row.JWKS, err = readJWKS(c.JWKSFile); err != nil {
		return err
	}
	outbound, err := outbound(c.OutboundAllow)
	if err != nil {
		return err
	}
	i, err := a.openOrMake(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	i.outbound = outbound
	created, secret, err := i.Admin().CreateClient(ctx, row)
	if err != nil {
		return nameJWKS(err, c.JWKSFile)
	}
	v := viewClient(created)
	if secret != "" {
		v.ClientSecret, v.ClientSecretExpiresAt = secret, new(int64)
	}
	return a.print(v, func(w io.Writer) { describeClient(w, v) })
}

// outbound returns what fetches from public addresses and the allowed networks.
func outbound(allow []string) (*provider.Outbound, error) {
	var faults provider.InvalidError
	networks := parsePrefixes("--outbound-allow", allow, faults.Add)
	return provider.NewOutbound(networks), faults.Err()
}

// readJWKS reads a file a little beyond what is admitted; what it holds is
// judged with the rest of the registration.
func readJWKS(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", usage(fmt.Sprintf("--jwks-file cannot be read: %v", err), "check the path")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return "", usage(fmt.Sprintf("--jwks-file cannot be read: %v", err), "check the path")
	}
	return string(b), nil
}

type clientList struct {
	listFlags
}

func (*clientList) Examples() string { return "signet client list --limit 20" }

func (c *clientList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := page(c.listFlags, func(p storage.Page) ([]storage.Client, error) { return i.Store.Clients(ctx, p) },
		func(row storage.Client) string { return row.ID }, viewClient)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			c.none(w, "client")
			return
		}
		fmt.Fprintln(w, "CLIENT_ID\tNAME\tGRANTS\tSCOPE\tSTATE")
		for _, v := range l.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.ClientID, shorten(v.ClientName, widestName),
				words(v.GrantTypes), shorten(v.Scope, widestList), mark(v.Enabled, "enabled", "disabled"))
		}
		more(w, l)
	})
}

// clientArg names one client.
type clientArg struct {
	ID string `arg:"" name:"id" help:"client_id"`
}

type clientShow struct{ clientArg }

func (*clientShow) Examples() string { return "signet client show nightly-report" }

func (c *clientShow) Run(ctx context.Context, a *app) error {
	return a.client(ctx, func(admin *provider.Admin) (storage.Client, error) { return admin.Client(ctx, c.ID) })
}

// client runs do and prints the client it returns.
func (a *app) client(ctx context.Context, do func(*provider.Admin) (storage.Client, error)) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err := do(i.Admin())
	if err != nil {
		return err
	}
	v := viewClient(row)
	return a.print(v, func(w io.Writer) { describeClient(w, v) })
}

type clientUpdate struct {
	clientArg
	clientChanges
	OutboundAllow []string `placeholder:"CIDR" help:"Private network that --sector-identifier-uri may be fetched from; may repeat."`
	Yes           bool     `help:"Do not ask when people get other subs by it."`
}

type clientChanges struct {
	Name                  *string        `placeholder:"TEXT" help:"Name that people see."`
	Grant                 []string       `sep:"none" placeholder:"GRANT" help:"Grants in place of those it has; may repeat."`
	AuthMethod            *string        `placeholder:"METHOD" help:"client_secret_basic, client_secret_post, private_key_jwt or none. Without a secret its secrets end."`
	RedirectURI           []string       `name:"redirect-uri" sep:"none" placeholder:"URI" help:"Redirect URIs in place of those it has; may repeat."`
	PostLogoutRedirectURI []string       `name:"post-logout-redirect-uri" sep:"none" placeholder:"URI" help:"Post-logout redirect URIs in place of those it has; may repeat."`
	Scope                 []string       `sep:"none" placeholder:"SCOPE" help:"Scopes in place of those it has; may repeat."`
	Role                  []string       `sep:"none" placeholder:"ROLE" help:"Roles in place of those it has; may repeat."`
	JWKSFile              string         `name:"jwks-file" placeholder:"FILE" xor:"jwks" help:"Its public keys, a JWK Set."`
	JWKSURI               *string        `name:"jwks-uri" placeholder:"URL" xor:"jwks" help:"Where its public keys are."`
	IDTokenAlg            *string        `name:"id-token-alg" placeholder:"ALG" help:"RS256, ES256, PS256 or EdDSA."`
	SubjectType           *string        `placeholder:"TYPE" help:"public or pairwise."`
	SectorIdentifierURI   *string        `name:"sector-identifier-uri" placeholder:"URL" help:"Where a JSON array of its redirect URIs is; its host is the sector of its pairwise subs. \"\" for the host of the redirect URIs."`
	ClaimsInIDToken       *bool          `name:"claims-in-id-token" help:"Put the claims of granted scopes into the ID token as well."`
	RefreshWindow         *time.Duration `placeholder:"DUR" help:"How long a repeated refresh gets the same answer; 0 never."`
	FirstParty            *bool          `help:"It is the operator's own."`
	RequirePKCE           *bool          `name:"require-pkce" help:"Demand PKCE; only a confidential client can do without, with =false."`
	RequirePushed         *bool          `name:"require-pushed" help:"Demand pushed authorization requests (RFC 9126)."`
	RequestObjectAlg      *string        `name:"request-object-alg" placeholder:"ALG" help:"Its request objects are signed with this algorithm only; \"\" for any."`
	RequireRequestObject  *bool          `name:"require-request-object" help:"Demand signed request objects."`
	RequestURI            []string       `name:"request-uri" sep:"none" placeholder:"URL" help:"Places of request objects instead of those it has; may repeat."`
	UserInfoAlg           *string        `name:"userinfo-alg" placeholder:"ALG" help:"Sign what userinfo tells it; \"\" to stop."`
	IntrospectionAlg      *string        `placeholder:"ALG" help:"What signs introspection answers that it asks to be signed."`
	AuthorizationAlg      *string        `placeholder:"ALG" help:"What signs authorization answers that it asks to be signed."`
	ClientURI             *string        `name:"client-uri" placeholder:"URL" help:"Its website; \"\" for none."`
	PolicyURI             *string        `name:"policy-uri" placeholder:"URL" help:"Its privacy policy; \"\" for none."`
	TermsURI              *string        `name:"tos-uri" placeholder:"URL" help:"Its terms of service; \"\" for none."`
	InitiateLoginURI      *string        `name:"initiate-login-uri" placeholder:"URL" help:"Where it begins a sign-in by itself; \"\" for nowhere."`
	BackChannelURI        *string        `name:"backchannel-logout-uri" placeholder:"URL" help:"Where it is told when a session ends; \"\" to stop."`
	BackChannelSession    *bool          `name:"backchannel-logout-session-required" help:"It wants the session's sid with that; it always gets it."`
	FrontChannelURI       *string        `name:"frontchannel-logout-uri" placeholder:"URL" help:"Page of its own that is shown, unseen, to who signs out; \"\" to stop."`
	FrontChannelSession   *bool          `name:"frontchannel-logout-session-required" help:"Name issuer and sid to that page."`
}

// Help says what a change means for tokens that are out.
func (*clientUpdate) Help() string {
	return `Only what is given changes; an empty value, as in --scope "", clears a list.

A change counts from the client's next token on. Tokens it has keep their scopes until they expire (15 minutes at most), except that taking a role away refuses all its tokens from before at once. To stop everything use "signet client disable". A client that registered itself cannot change its registration any more after that.

With another --subject-type or sector the app gets another sub for everybody, and takes them for strangers. What it was given under the old ones ends. It is asked about, for there is no way to bring the app's accounts over but the app's own.`
}

func (*clientUpdate) Examples() string {
	return `signet client update nightly-report --name "Morning report" --scope orders:read --scope orders:write --role orders-clerk`
}

func (c *clientUpdate) Run(ctx context.Context, a *app) error {
	if reflect.ValueOf(c.clientChanges).IsZero() {
		return usage("there is nothing to change", "`signet client update --help` shows what can be")
	}
	if err := singleClientFlags(c.Grant, c.Scope, c.Role); err != nil {
		return err
	}
	jwks, err := readJWKS(c.JWKSFile)
	if err != nil {
		return err
	}
	outbound, err := outbound(c.OutboundAllow)
	if err != nil {
		return err
	}
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	i.outbound = outbound
	admin := i.Admin()
	before, err := admin.Client(ctx, c.ID)
	if err != nil {
		return err
	}
	alter := func(row *storage.Client) { c.apply(row, jwks) }
	after := before
	if alter(&after); provider.ChangesSubjects(before, after) {
		err := a.confirm(ctx, c.Yes, "signet client update", fmt.Sprintf("By this the app %s gets another sub for everybody, and takes them for strangers. Its tokens from before are refused, and people have to sign in again.", c.ID))
		if err != nil {
			return err
		}
	}
	row, err := admin.UpdateClient(ctx, c.ID, alter)
	if err != nil {
		return nameJWKS(err, c.JWKSFile)
	}
	v := viewClient(row)
	return a.print(v, func(w io.Writer) { describeClient(w, v) })
}

// apply changes what flags were given for; jwks is what --jwks-file holds.
func (c *clientChanges) apply(row *storage.Client, jwks string) {
	set(&row.Name, c.Name)
	set(&row.AuthMethod, c.AuthMethod)
	set(&row.IDTokenAlg, c.IDTokenAlg)
	set(&row.SubjectType, c.SubjectType)
	set(&row.ClaimsInIDToken, c.ClaimsInIDToken)
	set(&row.RefreshWindow, c.RefreshWindow)
	set(&row.FirstParty, c.FirstParty)
	set(&row.RequirePKCE, c.RequirePKCE)
	set(&row.RequirePushed, c.RequirePushed)
	extra := provider.ReadClientExtra(*row)
	set(&extra.SectorIdentifierURI, c.SectorIdentifierURI)
	set(&extra.RequestObjectAlg, c.RequestObjectAlg)
	set(&extra.RequireRequestObject, c.RequireRequestObject)
	setList(&extra.RequestURIs, c.RequestURI)
	set(&extra.UserInfoAlg, c.UserInfoAlg)
	set(&extra.IntrospectionAlg, c.IntrospectionAlg)
	set(&extra.AuthorizationAlg, c.AuthorizationAlg)
	set(&extra.ClientURI, c.ClientURI)
	set(&extra.PolicyURI, c.PolicyURI)
	set(&extra.TermsURI, c.TermsURI)
	set(&extra.InitiateLoginURI, c.InitiateLoginURI)
	set(&extra.BackChannelSession, c.BackChannelSession)
	set(&extra.FrontChannelSession, c.FrontChannelSession)
	extra.Write(row)
	set(&row.BackChannelLogoutURI, c.BackChannelURI)
	set(&row.FrontChannelLogoutURI, c.FrontChannelURI)
	setList(&row.GrantTypes, c.Grant)
	setList(&row.RedirectURIs, c.RedirectURI)
	setList(&row.PostLogoutRedirectURIs, c.PostLogoutRedirectURI)
	setList(&row.Scopes, c.Scope)
	setList(&row.Roles, c.Role)
	switch { // of the two places for keys only one counts
	case jwks != "":
		row.JWKS, row.JWKSURI = jwks, ""
	case c.JWKSURI != nil:
		row.JWKS, row.JWKSURI = "", *c.JWKSURI
	case c.AuthMethod != nil && *c.AuthMethod != "private_key_jwt":
		row.JWKS, row.JWKSURI = "", ""
	}
}

func singleClientFlags(grants, scopes, roles []string) error {
	var faults provider.InvalidError
	single(faults.Add, "--grant", grants)
	single(faults.Add, "--scope", scopes)
	single(faults.Add, "--role", roles)
	return faults.Err()
}

// nameJWKS says which file the fault in a key set is in.
func nameJWKS(err error, path string) error {
	var invalid *provider.InvalidError
	if path != "" && errors.As(err, &invalid) {
		for i, f := range invalid.Faults {
			if f.Field == "jwks" {
				invalid.Faults[i].Field = "jwks " + path
			}
		}
	}
	return err
}

// set changes what a flag was given for.
func set[T any](at, given *T) {
	if given != nil {
		*at = *given
	}
}

// setList replaces a list that a flag was given for; one empty value clears it.
func setList(at *[]string, given []string) {
	if given != nil {
		*at = slices.DeleteFunc(slices.Clone(given), func(s string) bool { return s == "" })
	}
}

type clientDisable struct{ clientArg }

// Help says what it means for tokens that are out.
func (*clientDisable) Help() string {
	return "The client gets no token, and those it has are refused: by introspection at once, by offline verifiers as they hear of it."
}

func (*clientDisable) Examples() string { return "signet client disable nightly-report" }

func (c *clientDisable) Run(ctx context.Context, a *app) error {
	return a.client(ctx, func(admin *provider.Admin) (storage.Client, error) { return admin.DisableClient(ctx, c.ID) })
}

type clientEnable struct{ clientArg }

func (*clientEnable) Examples() string { return "signet client enable nightly-report" }

func (c *clientEnable) Run(ctx context.Context, a *app) error {
	return a.client(ctx, func(admin *provider.Admin) (storage.Client, error) { return admin.EnableClient(ctx, c.ID) })
}

type clientDelete struct{ clientArg }

// Help says what it means for tokens that are out.
func (*clientDelete) Help() string {
	return "Its secrets and consents go with it, and its tokens are refused. There is no way back; disable is the way to stop it for now."
}

func (*clientDelete) Examples() string { return "signet client delete nightly-report" }

func (c *clientDelete) Run(ctx context.Context, a *app) error {
	return a.remove(ctx, "client_id", func(admin *provider.Admin) (string, error) { return c.ID, admin.DeleteClient(ctx, c.ID) })
}

// remove runs do, which returns the name of what is gone, and prints it.
func (a *app) remove(ctx context.Context, key string, do func(*provider.Admin) (string, error)) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	name, err := do(i.Admin())
	if err != nil {
		return err
	}
	return a.print(map[string]any{key: name, "deleted": true}, func(w io.Writer) { fmt.Fprintf(w, "Deleted %s.\n", name) })
}

type clientRotate struct {
	clientArg
	Overlap time.Duration `default:"24h" placeholder:"DUR" help:"How long the old secret works on (${default}); 0 ends it now."`
}

// Help says how many secrets there can be.
func (*clientRotate) Help() string {
	return "Two secrets work at most: rotating again while two do ends the older one at once."
}

func (*clientRotate) Examples() string {
	return "signet client rotate-secret nightly-report --overlap 24h"
}

func (c *clientRotate) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	secret, oldExpires, err := i.Admin().RotateClientSecret(ctx, c.ID, c.Overlap)
	if err != nil {
		return err
	}
	v := struct {
		ClientID     string  `json:"client_id"`
		ClientSecret string  `json:"client_secret"`
		OldExpiresAt instant `json:"old_expires_at"`
	}{c.ID, secret, instant(oldExpires)}
	return a.print(v, func(w io.Writer) {
		field(w, "client_id", v.ClientID)
		field(w, "client_secret", v.ClientSecret+"   (shown only now)")
		field(w, "old secret ends", v.OldExpiresAt.String())
	})
}
