// Package storage is the contract between the provider and its database: the
// row types, the Store and Tx interfaces, and the errors they return. It
// holds no SQL and knows no driver; sqlstore has the statements, postgres and
// sqlite execute them, and storagetest proves that both keep this contract.
//
// Times are UTC and are kept to the millisecond; the zero time means "never"
// or "not yet". The caller passes the time in: no statement reads a clock.
// Empty and nil slices are the same, and are read back as nil. Keys sort by
// their bytes.
package storage

import (
	"context"
	"errors"
	"time"
)

// Errors a Store returns, to be compared with errors.Is. Any other error is a
// fault of the program or of the data.
var (
	// ErrNotFound says that no such row exists.
	ErrNotFound = errors.New("not found")
	// ErrExists says that a row with this key exists already.
	ErrExists = errors.New("exists already")
	// ErrReference says that a row names another one that does not exist, or
	// that a row cannot go because others still name it.
	ErrReference = errors.New("refers to something that does not exist, or is still referred to")
	// ErrConsumed says that a single-use value was used before.
	ErrConsumed = errors.New("used already")
	// ErrInvalid says that a value cannot be stored by any engine: a string
	// that is not UTF-8 or holds a NUL, a key that is too long, or a single-use
	// value that has already expired. It is the caller's input that is at
	// fault; a read by such a value returns it too.
	ErrInvalid = errors.New("invalid value")
	// ErrUnavailable says that the database cannot be reached, is full, or
	// did not answer in time. The operation may be tried again; whether it
	// took effect is unknown only when the error came from Update's commit.
	ErrUnavailable = errors.New("database unavailable")
)

// Store is a database opened for use. It is safe for concurrent use by many
// goroutines, and by many processes on the same database.
type Store interface {
	Reader

	// Update runs fn in one transaction, at READ COMMITTED or stronger, and
	// commits when fn returns nil. When Update returns nil the changes are
	// durable. When fn returns an error nothing is kept and that error is
	// returned, wrapped. fn must be quick: it performs no I/O of its own and
	// never signs or hashes slowly, because on SQLite it holds the one writer.
	// fn may run more than once, each time on a fresh transaction. It must not
	// call Update itself, nor use tx from another goroutine or after it returned.
	//
	// After a method of tx returned ErrNotFound or ErrConsumed, nothing was
	// changed by it and the transaction goes on. After any other error it
	// cannot be committed: Update returns that error even if fn returns nil.
	Update(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error

	// View runs fn in a read-only transaction: all that r returns is of one
	// moment, which is not before the call. It may read for longer than
	// other calls may take; what it returns is fn's error, or ErrUnavailable.
	View(ctx context.Context, fn func(ctx context.Context, r Reader) error) error

	// Changes returns a channel that can be read soon after entries were
	// appended to the revocation log, by this process or another, until ctx
	// ends. Several entries may be announced once, and now and then it can be
	// read for nothing. It is a hint that makes waiting short, not a promise:
	// an announcement may be lost, so whoever must see an entry also polls.
	Changes(ctx context.Context) <-chan struct{}

	// Now returns the time of the database's clock, so that a replica can
	// measure its own clock against the one all replicas share.
	Now(ctx context.Context) (time.Time, error)

	// Ping returns ErrUnavailable when the database cannot be reached.
	Ping(ctx context.Context) error

	// Load tells how busy the connections are at this moment.
	Load() Load

	// Close releases every connection. Calls that are under way may fail.
	Close() error
}

// Page bounds a listing. Rows come in ascending order of their key; After is
// the last key already seen, or "" for the beginning. Limit is at least 1.
type Page struct {
	After string
	Limit int
}

// Reader holds the reads. Each returns freshly allocated rows that the caller
// may change, and sees every commit that was answered before it began. A row
// and its relations may come from successive moments, none before the call.
type Reader interface {
	// RegistryVersion returns a number that grows with every committed change
	// to clients, resources, scopes, roles, their relations, signing keys and
	// sealed secrets. While it stands still, cached copies of these are current.
	RegistryVersion(ctx context.Context) (int64, error)

	// Client returns the client with its secrets and roles, or ErrNotFound.
	Client(ctx context.Context, id string) (Client, error)
	// Clients lists clients by id, with secrets and roles.
	Clients(ctx context.Context, page Page) ([]Client, error)

	// CountClients returns how many clients have this Origin.
	CountClients(ctx context.Context, origin string) (int64, error)
	// UnusedClients returns the ids of up to limit enabled clients of this Origin
	// that act for people only, have no live grant, and were either never used and
	// registered at or before never, or used last at or before last.
	UnusedClients(ctx context.Context, origin string, never, last time.Time, limit int) ([]string, error)

	// Resource returns the resource with its scopes and introspectors, or ErrNotFound.
	Resource(ctx context.Context, uri string) (Resource, error)
	// Resources lists resources by URI, with scopes and introspectors.
	Resources(ctx context.Context, page Page) ([]Resource, error)

	// Roles lists roles by name.
	Roles(ctx context.Context, page Page) ([]Role, error)

	// User returns the user with this subject identifier and their roles, or ErrNotFound.
	User(ctx context.Context, id string) (User, error)
	// UserByLogin returns the user whose UsernameKey or, failing that,
	// EmailKey equals key, or ErrNotFound.
	UserByLogin(ctx context.Context, key string) (User, error)
	// Users lists users by UsernameKey; Page.After is such a key.
	Users(ctx context.Context, page Page) ([]User, error)
	// Password returns the user's password credential, or ErrNotFound.
	Password(ctx context.Context, userID string) (Password, error)

	// SigningKeys returns every signing key row, removed and compromised ones
	// included, ordered by SignFrom, then KID.
	SigningKeys(ctx context.Context) ([]SigningKey, error)
	// SealedSecrets returns the rows of one purpose, ordered by UseFrom, then ID.
	SealedSecrets(ctx context.Context, purpose string) ([]SealedSecret, error)
	// ClientSecretKeys returns the KeyIDs that client secrets have, each once.
	ClientSecretKeys(ctx context.Context) ([]string, error)

	// Setting returns the value stored under name, or ErrNotFound.
	Setting(ctx context.Context, name string) (string, error)

	// Revocations returns the latest entry for each of the keys that has one
	// whose Until is after now, in no particular order. An entry that has ended
	// never lets an earlier one for its key count again.
	Revocations(ctx context.Context, keys []RevocationKey, now time.Time) ([]Revocation, error)
	// RevocationLog returns how far the log is, or ErrNotFound when it was not
	// started yet.
	RevocationLog(ctx context.Context) (RevocationLog, error)
	// RevocationsAfter returns the first limit entries whose sequence number is
	// greater than seq, in its order. Since commit order is that order, whoever
	// has read up to a number never finds a lower one later; those that have
	// ended may be missing.
	RevocationsAfter(ctx context.Context, seq int64, limit int) ([]Revocation, error)
	// EachRevocation hands visit every entry that is in the log, ended or not,
	// one by one and in no particular order; Reason, Chain and CreatedAt are left
	// out. visit's error ends it and is returned. Inside View it goes with the
	// RevocationLog read there.
	EachRevocation(ctx context.Context, visit func(Revocation) error) error

	// NextStatusIndex returns the first status index that was not taken yet.
	NextStatusIndex(ctx context.Context) (int64, error)
	// EachInvalidStatus hands visit the status indexes of grants whose tokens a
	// status list has to call invalid: those revoked after since, and those
	// not ended at now whose user or client is disabled. An index may come twice.
	EachInvalidStatus(ctx context.Context, since, now time.Time, visit func(index int64) error) error

	// Session returns the session, live or not, or ErrNotFound.
	Session(ctx context.Context, id string) (Session, error)
	// SessionUser returns the session, live or not, and whose it is, as of one
	// moment, or ErrNotFound.
	SessionUser(ctx context.Context, id string) (Session, User, error)
	// Sessions returns the user's sessions that are live at now, the last seen first.
	Sessions(ctx context.Context, userID string, now time.Time) ([]Session, error)
	// Consents returns what the user lets the client do, by resource and scope.
	Consents(ctx context.Context, userID, clientID string) ([]Consent, error)
	// ConsentsOfUser returns all the user's consents, by client, resource and scope.
	ConsentsOfUser(ctx context.Context, userID string) ([]Consent, error)
	// ConsentHost reports whether PutConsentHost stored the host.
	ConsentHost(ctx context.Context, userID, clientID, host string) (bool, error)
	// Grant returns the grant, live or not, or ErrNotFound.
	Grant(ctx context.Context, id string) (Grant, error)
	// Standing returns the grant, live or not, with what it rests on, as of one
	// moment. ErrNotFound when it or its user is gone.
	Standing(ctx context.Context, grantID string) (Standing, error)
	// GrantsOfUser returns the user's grants that are neither revoked nor
	// ended at now, by id (which is by time).
	GrantsOfUser(ctx context.Context, userID string, now time.Time) ([]Grant, error)
	// PairwiseSubjects returns the subjects that the user's grants have for
	// clients with pairwise ones, each once, in order. Grants count as long as
	// there are rows of them.
	PairwiseSubjects(ctx context.Context, userID string) ([]string, error)
	// PairwiseUser returns whose subject this is as grants have it, or ErrNotFound.
	PairwiseUser(ctx context.Context, subject string) (userID string, err error)
	// PairwiseSIDs returns the sids that the session has in grants which end with
	// it and were not revoked, each once, in order.
	PairwiseSIDs(ctx context.Context, sessionID string) ([]string, error)
	// PairwiseSession returns which session's sid this is as grants have it, or ErrNotFound.
	PairwiseSession(ctx context.Context, sid string) (sessionID string, err error)
	// Throttle returns the counter, or ErrNotFound when there were no failures.
	Throttle(ctx context.Context, key string) (Throttle, error)
	// OneTime returns a single-use value that can still be taken at now, and
	// leaves it there. ErrNotFound.
	OneTime(ctx context.Context, kind string, keyHash []byte, now time.Time) (OneTime, error)
	// OneTimes returns up to limit single-use values of the kind that can still
	// be taken at now and come after the key hash, in their order.
	OneTimes(ctx context.Context, kind string, after []byte, limit int, now time.Time) ([]OneTime, error)

	// LogoutTargets returns the clients with a logout URI, not disabled, that have a
	// grant of the user's which includes openid and was not revoked, each with the
	// sessions those were given in and what it calls them and the user. It does not
	// matter whether the grant has ended: what a client made of its ID token lives on.
	LogoutTargets(ctx context.Context, userID string) ([]LogoutTarget, error)
	// DeliveryDue reports whether ClaimDeliveries would find any.
	DeliveryDue(ctx context.Context, now time.Time) (bool, error)
	// Deliveries lists the deliveries that f selects by id, which is by time.
	Deliveries(ctx context.Context, f DeliveryFilter) ([]Delivery, error)
	// Backlog counts the deliveries there are.
	Backlog(ctx context.Context) (Backlog, error)

	// AuditEvents lists the audit events that f selects, the latest first.
	// ErrNotFound when there is no event f.Before.
	AuditEvents(ctx context.Context, f AuditFilter) ([]AuditEvent, error)
}

// Tx is a transaction: what it has written, its own reads see.
type Tx interface {
	Reader

	// LockRegistry waits for the lock that serialises changes to the registry
	// (see RegistryVersion), holds it to the end of the transaction, and
	// advances the version once per transaction. Every method below that
	// changes the registry calls it; a transaction that decides on what it
	// reads calls it before reading.
	LockRegistry(ctx context.Context) error

	// CreateClient inserts the client, its secrets and its roles. ErrExists
	// when the id is taken, ErrReference when a role does not exist.
	CreateClient(ctx context.Context, c Client) error
	// UpdateClient writes every column of the client's own row except
	// CreatedAt and LastUsedAt; secrets and roles are left alone. ErrNotFound.
	UpdateClient(ctx context.Context, c Client) error
	// TouchClient notes that the client was used, unless it was used after
	// unless. It leaves the registry as it is. An unknown id changes nothing.
	TouchClient(ctx context.Context, id string, at, unless time.Time) error
	// DeleteClient removes the client with its secrets, roles, consents,
	// introspection rights and deliveries. ErrNotFound.
	DeleteClient(ctx context.Context, id string) error
	// CreateClientSecret adds a secret. ErrReference when the client does not exist.
	CreateClientSecret(ctx context.Context, s ClientSecret) error
	// ExpireClientSecrets lets every secret of the client except keepID end at
	// the given time, unless it ends sooner, and removes those whose end is
	// not after now.
	ExpireClientSecrets(ctx context.Context, clientID, keepID string, end, now time.Time) error
	// GrantClientRole gives the client a role; giving it again changes
	// nothing. ErrReference when either does not exist.
	GrantClientRole(ctx context.Context, clientID, role string, at time.Time) error
	// RevokeClientRole takes the role away. ErrNotFound when the client lacks it.
	RevokeClientRole(ctx context.Context, clientID, role string) error

	// CreateResource inserts the resource, its scopes and its introspectors.
	// ErrExists when the URI or a scope's name is taken, ErrReference when an
	// introspector does not exist.
	CreateResource(ctx context.Context, r Resource) error
	// UpdateResource replaces the resource, its scopes and its introspectors,
	// keeping CreatedAt. Errors as CreateResource, or ErrNotFound.
	UpdateResource(ctx context.Context, r Resource) error
	// DeleteResource removes the resource, its scopes and its introspectors. ErrNotFound.
	DeleteResource(ctx context.Context, uri string) error

	// CreateRole inserts a role. ErrExists.
	CreateRole(ctx context.Context, r Role) error
	// DeleteRole removes a role and takes it from everyone who had it.
	// ErrNotFound; ErrReference while a scope demands it.
	DeleteRole(ctx context.Context, name string) error
	// RoleHolders returns the ids of the users and the clients that have the role.
	RoleHolders(ctx context.Context, name string) (users, clients []string, err error)

	// CreateUser inserts the user and their roles. ErrExists when the
	// username or the e-mail address is taken, ErrReference when a role does not exist.
	CreateUser(ctx context.Context, u User) error
	// SetUserEnabled enables or disables the user. ErrNotFound.
	SetUserEnabled(ctx context.Context, id string, enabled bool, at time.Time) error
	// LockUser makes others that call it for the same user, or change the user's
	// own row, wait until the end of the transaction. ErrNotFound.
	LockUser(ctx context.Context, id string) error
	// DeleteUser removes the user with their roles, credentials, sessions and consents. ErrNotFound.
	DeleteUser(ctx context.Context, id string) error
	// GrantUserRole gives the user a role; giving it again changes nothing.
	// ErrReference when either does not exist.
	GrantUserRole(ctx context.Context, userID, role string, at time.Time) error
	// RevokeUserRole takes the role away. ErrNotFound when the user lacks it.
	RevokeUserRole(ctx context.Context, userID, role string) error
	// SetPassword stores the user's password credential in place of any
	// earlier one. ErrReference when the user does not exist.
	SetPassword(ctx context.Context, p Password) error

	// CreateSigningKey inserts a key. ErrExists when the kid is taken.
	CreateSigningKey(ctx context.Context, k SigningKey) error
	// UpdateSigningKey writes what may change of a key: its sealed private half,
	// its times (CreatedAt excepted) and its MAC. ErrNotFound.
	UpdateSigningKey(ctx context.Context, k SigningKey) error
	// DeleteSigningKey removes a key. ErrNotFound.
	DeleteSigningKey(ctx context.Context, kid string) error
	// CreateSealedSecret inserts a sealed secret. ErrExists when the id is taken.
	CreateSealedSecret(ctx context.Context, s SealedSecret) error
	// UpdateSealedSecret writes what may change of a sealed secret: how it is
	// sealed, its times (CreatedAt excepted) and its MAC. ErrNotFound.
	UpdateSealedSecret(ctx context.Context, s SealedSecret) error
	// DeleteSealedSecret removes a sealed secret. ErrNotFound.
	DeleteSealedSecret(ctx context.Context, id string) error

	// SetSetting stores the value under name in place of any earlier one.
	SetSetting(ctx context.Context, name, value string) error

	// UseOnce records that the value with this hash is used, or returns
	// ErrConsumed when it was recorded before and that record has not expired
	// at now. Of any number of concurrent calls one succeeds. ErrInvalid when
	// the new record would itself have expired at now, since it would protect
	// nothing.
	UseOnce(ctx context.Context, v OneTime, now time.Time) error

	// AppendRevocation adds an entry at the end of the log, computes its chain
	// hash and returns its sequence number. It holds the log's lock to the end
	// of the transaction, so that commit order is sequence order. r.Seq and
	// r.Chain are ignored. An epoch that follows an epoch of the same key gets at
	// least the NotBefore of that one: whose clock was read first must not let
	// pass what the other refuses. A transaction that also locks the registry must do
	// that first: the other order would deadlock, so it is an error.
	AppendRevocation(ctx context.Context, r Revocation) (seq int64, err error)

	// StartRevocationLog makes an empty log with a feed id of its own, unless
	// there is one.
	StartRevocationLog(ctx context.Context) error

	// RestartRevocationLog gives the log, which is started if need be, a new feed
	// id: no position of before means anything in it. Its entries stay.
	RestartRevocationLog(ctx context.Context) error
	// VoidRegistrations takes from all clients of the origin what they change
	// their registration with.
	VoidRegistrations(ctx context.Context, origin string) error

	// AppendAudit adds an audit event. ErrExists when the id is taken.
	AppendAudit(ctx context.Context, e AuditEvent) error

	// UpdateUser writes the user's e-mail address (with its key and whether it
	// is verified), profile, locale and UpdatedAt. ErrNotFound; ErrExists when
	// the address is taken.
	UpdateUser(ctx context.Context, u User) error
	// UpdatePasswordHash replaces the hash if it is still the given one, and
	// notes that the password was used; from and to may be equal. ErrNotFound
	// when it is another by now: in the transaction that creates a session it
	// makes sure that the password was not changed since it was checked.
	UpdatePasswordHash(ctx context.Context, userID, from, to string, at time.Time) error

	// CreateSession inserts a session. ErrExists when the id is taken,
	// ErrReference when the user does not exist.
	CreateSession(ctx context.Context, s Session) error
	// TouchSession records that the session was used and lets its idle end
	// move forward, never back. ErrNotFound when it is not live at lastSeen.
	TouchSession(ctx context.Context, id string, lastSeen, idleEnd time.Time) error
	// RenewSession writes everything about a session's sign-in anew, as when
	// its person signed in again: all columns but ID, UserID, CreatedAt and the
	// two of its end. ErrNotFound when it is not that user's or was ended.
	RenewSession(ctx context.Context, s Session) error
	// EndSession ends a session. ErrNotFound when it was ended before. One that
	// is idle or too old can still be ended: tokens may have outlived it.
	EndSession(ctx context.Context, id string, at time.Time, reason string) error
	// EndSessions ends the user's sessions except exceptID ("": none excepted)
	// and those ended before, and returns the ids of those it ended.
	EndSessions(ctx context.Context, userID, exceptID string, at time.Time, reason string) (ids []string, err error)

	// PutConsents stores consents. Where there is one already it stays, except
	// that an explicit one replaces an implicit one. ErrReference when a user
	// or client does not exist.
	PutConsents(ctx context.Context, consents []Consent) error
	// PutConsentHost stores that the user agreed that the client's answers go to
	// the host. Again changes nothing. ErrReference as for PutConsents.
	PutConsentHost(ctx context.Context, userID, clientID, host string, at time.Time) error
	// DeleteConsents removes all that the user lets the client do, hosts
	// included, and returns how many consents there were.
	DeleteConsents(ctx context.Context, userID, clientID string) (int, error)

	// TakeStatusIndexes takes n status indexes in a row that were never taken
	// before, nor will be again, and returns the first of them.
	TakeStatusIndexes(ctx context.Context, n int) (first int64, err error)

	// CreateGrant inserts a grant whose code is not used yet. Only the columns
	// of a new grant are taken from g: CodeUsedAt, Generation, RotatedAt,
	// RevokedAt and RevokeReason start empty, IdleEnd and AbsoluteEnd at
	// CodeExpiresAt. ErrExists when the id is taken.
	CreateGrant(ctx context.Context, g Grant) error
	// RedeemCode makes generation 1 of a grant whose code is unused, unexpired
	// at now and not revoked; otherwise ErrConsumed. Of any number of
	// concurrent calls one succeeds.
	RedeemCode(ctx context.Context, id string, now time.Time, r Redemption) error
	// RotateGrant moves a grant from one generation to the next, unless it is
	// at another, unredeemed, revoked or ended at now: then ErrConsumed. Of any
	// number of concurrent calls one succeeds.
	RotateGrant(ctx context.Context, id string, from int64, now time.Time, keyVersion string, idleEnd time.Time) error
	// RevokeGrant revokes a grant, code and refresh tokens alike, and reports
	// whether it was not revoked before. An unknown id changes nothing.
	RevokeGrant(ctx context.Context, id string, at time.Time, reason string) (changed bool, err error)
	// RevokeGrants revokes the grants that f selects, except those revoked
	// before, and returns the ids of those it revoked. ErrInvalid when f
	// selects nothing in particular.
	RevokeGrants(ctx context.Context, f GrantFilter, at time.Time, reason string) (ids []string, err error)

	// AddFailure counts a failure at the given time and returns the counter as
	// it is then. It holds the counter to the end of the transaction: whoever
	// counts before checking a password lets no parallel attempt slip by.
	AddFailure(ctx context.Context, key string, at time.Time) (Throttle, error)
	// SaveThrottle stores the counter in place of any earlier one.
	SaveThrottle(ctx context.Context, t Throttle) error
	// ClearThrottle forgets the counter, if there is one.
	ClearThrottle(ctx context.Context, key string) error

	// TakeOnce removes a single-use value that UseOnce recorded and returns
	// it, or ErrConsumed when it is not there or has expired at now. Of any
	// number of concurrent calls one succeeds.
	TakeOnce(ctx context.Context, kind string, keyHash []byte, now time.Time) (OneTime, error)

	// CreateDelivery adds a delivery that nobody has tried yet. ErrExists when the
	// id is taken.
	CreateDelivery(ctx context.Context, d Delivery) error
	// ClaimDeliveries takes up to c.Limit deliveries that are due, those due first,
	// counts an attempt of each and puts the next off to c.Until. They come in no
	// particular order. Of any number of concurrent calls one gets each.
	ClaimDeliveries(ctx context.Context, c DeliveryClaim) ([]Delivery, error)
	// RetryDelivery notes why an attempt failed and when the next one is due, zero
	// for never, unless another attempt has begun since.
	RetryDelivery(ctx context.Context, id string, attempt int64, next time.Time, cause string) error
	// DeleteDelivery removes a delivery, if it is there.
	DeleteDelivery(ctx context.Context, id string) error

	// PruneExpired deletes up to limit rows of each kind that ended at or
	// before now (single-use values, revocations, client secrets, sessions; grants,
	// throttles and failed deliveries as long after as GrantMemory,
	// ThrottleMemory and DeliveryMemory say) and
	// returns how many went. Called until it returns 0. Signing keys and sealed
	// secrets stay: their lifecycle is the key ring's.
	PruneExpired(ctx context.Context, now time.Time, limit int) (int, error)
	// PruneAudit deletes up to limit of the audit events that happened at or
	// before then and returns how many went.
	PruneAudit(ctx context.Context, before time.Time, limit int) (int, error)
}
