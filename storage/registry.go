package storage

import "time"

// Client is a registered OAuth client (RFC 7591 §2 names the metadata).
type Client struct {
	ID      string
	Name    string
	Origin  string // who registered it: "operator", "registration" or "metadata-document"
	Enabled bool
	// FirstParty clients belong to the operator; their consent page may be skipped.
	FirstParty      bool
	ApplicationType string // "web" or "native" (OIDC Registration §2)

	AuthMethod     string // token_endpoint_auth_method; "none" makes the client public
	AuthSigningAlg string // token_endpoint_auth_signing_alg, "" for any that is offered
	// AssertionAudTokenURL also accepts the token endpoint's URL as the
	// audience of an assertion, for software that cannot send the issuer.
	AssertionAudTokenURL bool

	GrantTypes             []string
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	Scopes                 []string // what the client may ask for
	JWKS                   string   // a JWK Set document, or ""
	JWKSURI                string

	IDTokenAlg      string // id_token_signed_response_alg
	ClaimsInIDToken bool
	RequirePKCE     bool
	RequirePushed   bool
	// RefreshWindow is how long a repeated refresh is answered with the same
	// successor; negative stands for the default, 0 turns it off.
	RefreshWindow time.Duration

	SubjectType           string // "public" or "pairwise"
	SectorIdentifier      string
	BackChannelLogoutURI  string
	FrontChannelLogoutURI string
	RegistrationTokenHash []byte
	Metadata              string // a JSON object with whatever else was registered, or ""

	CreatedAt  time.Time
	UpdatedAt  time.Time
	LastUsedAt time.Time

	Secrets []ClientSecret // by CreatedAt; filled by reads
	Roles   []string       // sorted; filled by reads
}

// ClientSecret is one secret of a client. Two are live while it is rotated.
type ClientSecret struct {
	ID        string
	ClientID  string
	Scheme    string // "hmac-sha256", or how an imported secret was hashed: "bcrypt", "argon2id"
	KeyID     string // the sealed secret that keys the hash, for hmac-sha256
	Hash      []byte
	CreatedAt time.Time
	ExpiresAt time.Time // zero: does not expire
}

// Resource is an API that access tokens are meant for (RFC 8707).
type Resource struct {
	URI           string
	Name          string
	TokenLifetime time.Duration
	SigningAlg    string // JWS algorithm of its access tokens
	RolesClaim    bool   // tokens carry the subject's roles
	StatusList    bool   // tokens carry a status list reference
	CreatedAt     time.Time
	UpdatedAt     time.Time

	Scopes        []Scope  // sorted by name
	Introspectors []string // ids of clients that may introspect its tokens, sorted
}

// Scope belongs to exactly one resource.
type Scope struct {
	Name        string
	Role        string // the role a subject needs to be granted it, or ""
	Description string // what it allows, in words for a consent page
}

// Role is global when Resource is "", otherwise it belongs to that resource.
type Role struct {
	Name        string
	Resource    string
	Description string
	CreatedAt   time.Time
}

// OneTime is a value that may be used once.
type OneTime struct {
	Kind      string
	KeyHash   []byte
	Subject   string // whom it concerns: a client's or user's id
	Data      string
	CreatedAt time.Time
	ExpiresAt time.Time
}
