package storage

import "time"

// Consent is a person's agreement that a client may use one scope at one resource.
type Consent struct {
	UserID    string
	ClientID  string
	Scope     string
	Resource  string
	Implicit  bool // nobody was asked, because the operator owns the client
	GrantedAt time.Time
}

// Grant is one authorization that a person gave a client: born as a code, it
// lives on as a family of refresh tokens in the same row.
type Grant struct {
	ID        string // UUIDv7, the grant_id claim
	ClientID  string
	UserID    string
	SessionID string // the session it was given in
	Offline   bool   // survives that session; otherwise it ends with it

	// What a client with pairwise subjects calls the person and the session (OIDC
	// Core §8.1); "" for any other, which calls them UserID and SessionID.
	Subject string
	SID     string

	Scopes        []string
	Resources     []string
	AuthTime      time.Time
	ACR           string
	AMR           []string
	Nonce         string
	ClaimsRequest string // the claims parameter (OIDC Core §5.5), or ""
	RedirectURI   string
	CodeChallenge string // S256, or "" for a code without PKCE

	CodeExpiresAt time.Time
	CodeUsedAt    time.Time // zero until the code is redeemed
	Seed          []byte    // keys the inner MAC of its code and refresh tokens
	Generation    int64     // of its refresh token; 0 until the code is redeemed
	KeyVersion    string    // the sealed secret behind the outer MAC of what was issued last
	RotatedAt     time.Time // when Generation last went from one refresh token to the next
	IdleEnd       time.Time // CodeExpiresAt until the code is redeemed
	AbsoluteEnd   time.Time // CodeExpiresAt until the code is redeemed

	BoundJKT     string // thumbprint of the key its tokens are bound to (RFC 9449 §6), or ""
	StatusIndex  int64  // in the status list, from 1; 0 for none
	CreatedAt    time.Time
	RevokedAt    time.Time
	RevokeReason string
}

// Standing is a grant with what it rests on.
type Standing struct {
	Grant    Grant
	User     User
	Consents []Consent // of the user to the client, in no particular order
	Session  Session   // without SecretHash; zero when it is gone or the grant is offline
}

// GrantMemory is how long a grant's row outlives its AbsoluteEnd: a repeated
// approval or an old token is still recognised in that time.
const GrantMemory = 7 * 24 * time.Hour

// Redemption is what a grant becomes when its code is redeemed.
type Redemption struct {
	KeyVersion  string
	IdleEnd     time.Time
	AbsoluteEnd time.Time
}

// GrantFilter selects grants that have everything named here; "" asks for
// nothing. At least one field is set.
type GrantFilter struct {
	UserID    string
	ClientID  string
	SessionID string // only those that end with this session

	Limit int // how many at most; 0: all of them
}
