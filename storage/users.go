package storage

import "time"

// User is a person who can sign in.
type User struct {
	ID            string // the sub claim: a UUID, never reused
	Username      string // as typed at creation
	UsernameKey   string // canonical form, unique
	Email         string
	EmailKey      string // canonical form, unique unless ""
	EmailVerified bool
	Enabled       bool
	Profile       string // a JSON object of standard claims (OIDC Core §5.1), or ""
	Locale        string
	CreatedAt     time.Time
	UpdatedAt     time.Time

	Roles []string // sorted; filled by reads
}

// Password is a user's password credential.
type Password struct {
	UserID     string
	Hash       string // PHC string, argon2id
	MustChange bool   // set by someone else: to be replaced at the next sign-in
	CreatedAt  time.Time
	UpdatedAt  time.Time
}
