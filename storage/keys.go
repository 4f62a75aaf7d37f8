package storage

import "time"

// SigningKey is a key pair and its lifecycle, as times: published from
// PublishAt, signing from SignFrom to SignUntil, in the JWKS until RemoveAt.
type SigningKey struct {
	KID       string // RFC 7638 thumbprint
	Alg       string // the one JWS algorithm it is used with
	Purpose   string // "token", or "feed" for the revocation feed
	PublicJWK string

	SealedPrivate []byte // empty once destroyed
	WrappedDEK    []byte
	KEKID         string

	PublishAt     time.Time
	SignFrom      time.Time
	SignUntil     time.Time
	RemoveAt      time.Time
	CompromisedAt time.Time
	CreatedAt     time.Time

	MAC []byte // over what was published or decides when it is; empty in rows of an older release
}

// SealedSecret is a symmetric key, encrypted at rest.
type SealedSecret struct {
	ID      string
	Purpose string

	Sealed     []byte
	WrappedDEK []byte
	KEKID      string

	UseFrom   time.Time // makes MACs from here
	UseUntil  time.Time // until here; zero while no successor is planned
	RemoveAt  time.Time // verifies until here
	CreatedAt time.Time

	MAC []byte // over all but Sealed, WrappedDEK and KEKID; empty in rows of an older release
}
