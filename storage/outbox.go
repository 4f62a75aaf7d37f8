package storage

import "time"

// Delivery is a message that is owed to a client: a row of the outbox. It is
// written in the transaction that makes it due, and goes once it is delivered.
type Delivery struct {
	ID       string // UUIDv7; the message has it as well, however often it is sent
	Kind     string
	ClientID string
	Payload  string // JSON, without a secret
	// Attempts is how many were begun.
	Attempts int64
	// NextAttemptAt is when it is due; zero once it was given up.
	NextAttemptAt time.Time
	LastError     string // why the last attempt failed, or ""
	CreatedAt     time.Time
}

// DeliveryMemory is how long after it was made a delivery that failed is kept,
// for operators to see.
const DeliveryMemory = 7 * 24 * time.Hour

// DeliveryClaim selects deliveries that are due.
type DeliveryClaim struct {
	Now   time.Time
	Until time.Time // when they are due again, if nothing is heard of them
	Limit int
	// Except are clients who get none now.
	Except []string
}

// DeliveryFilter selects deliveries for a listing.
type DeliveryFilter struct {
	Failed bool // only those that were given up
	Page
}

// Backlog tells how many deliveries there are.
type Backlog struct {
	Pending, Failed int64
	Oldest          time.Time // when the oldest pending one was made; zero: there is none
}

// LogoutTarget is a client in which a person is signed in by one session.
type LogoutTarget struct {
	ClientID, SessionID       string
	Subject, SID              string // as in Grant
	BackChannel, FrontChannel bool   // which logout URIs it has
}
