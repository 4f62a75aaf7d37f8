package storage

import "time"

// Session is one browser in which a person is signed in. It is live until it
// is ended, idle or too old: while EndedAt is zero and both IdleEnd and
// AbsoluteEnd are ahead.
type Session struct {
	ID         string // the sid claim: a UUID, no secret
	SecretHash []byte // of what the cookie holds
	UserID     string

	AuthTime  time.Time
	ACR       string
	AMR       []string
	UserAgent string
	Address   string

	CreatedAt   time.Time
	LastSeenAt  time.Time
	IdleEnd     time.Time
	AbsoluteEnd time.Time
	EndedAt     time.Time
	EndReason   string
}

// Throttle counts the failed sign-ins of one account or one address.
type Throttle struct {
	Key       string // what is counted, in canonical form
	Failures  int64  // in a row
	LastAt    time.Time
	BlockedTo time.Time // no attempt before; zero: not blocked
}

// ThrottleMemory is how long a counter is kept after its last failure, or
// after its block, whichever is later.
const ThrottleMemory = 24 * time.Hour
