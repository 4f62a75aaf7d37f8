package provider

import "time"

// Policy holds the lifetimes and limits that an operator may want to know;
// DefaultPolicy is what `signet serve` runs with.
type Policy struct {
	// Access tokens: the default lifetime and the bounds a resource may choose within.
	AccessTokenLifetime    time.Duration
	MinAccessTokenLifetime time.Duration
	MaxAccessTokenLifetime time.Duration

	// IDTokenLifetime is the life of an ID token.
	IDTokenLifetime time.Duration
	// CodeLifetime is the life of an authorization code (RFC 9700 §4.5).
	CodeLifetime time.Duration
	// FlowLifetime is how long a person may take from the app's request to the answer.
	FlowLifetime time.Duration
	// PushedLifetime is how long a flow may begin with a pushed request (RFC 9126 §2.2).
	PushedLifetime time.Duration
	// RefreshIdle is how long a refresh token may lie unused, RefreshAbsolute
	// how long a family lives, however busy.
	RefreshIdle     time.Duration
	RefreshAbsolute time.Duration
	// RefreshWindow is how long a repeated refresh is answered with the same
	// successor, unless the client has its own.
	RefreshWindow time.Duration
	// SessionIdle and SessionAbsolute bound a sign-in; SessionTouch is how
	// often its use is written down.
	SessionIdle     time.Duration
	SessionAbsolute time.Duration
	SessionTouch    time.Duration
	// InvitationLifetime is how long a set-up link works.
	InvitationLifetime time.Duration
	// PasswordMemory, in KiB, and PasswordPasses are what a password hash costs.
	// The defaults are OWASP's recommendation for argon2id, and about 20 ms of
	// one core (BenchmarkHashPassword).
	PasswordMemory int
	PasswordPasses int
	// PasswordHashes is how many passwords are hashed at once, each in
	// PasswordMemory; PasswordQueue how many wait their turn before others get 503.
	PasswordHashes int
	PasswordQueue  int

	// ClockSkew is how far clocks of others may be off (RFC 7519 §4.1.4).
	ClockSkew time.Duration
	// AssertionLifetime is how far ahead a client assertion may expire (RFC 7523 §3).
	AssertionLifetime time.Duration
	// RequestTimeout is the longest a request may be worked on: then it is 503,
	// whatever it waits for.
	RequestTimeout time.Duration
	// SecretOverlap is how long a rotated client secret goes on working.
	SecretOverlap time.Duration

	// RegistryPoll is how often a replica asks whether the registry changed,
	// RegistryMaxAge how old the answer may be when a token rests on it.
	RegistryPoll   time.Duration
	RegistryMaxAge time.Duration
	// ClockPoll is how often a replica measures its clock against the
	// database's, MaxClockOffset how far off it may be and still issue.
	ClockPoll      time.Duration
	MaxClockOffset time.Duration
	// JWKSMaxAge is how long the JWK Set may be cached. It bounds how long others
	// go on trusting a compromised key.
	JWKSMaxAge time.Duration
	// KeysEvery is how often, at the least, the lives of keys are looked after.
	KeysEvery time.Duration
	// DeliverEvery is how often the outbox is looked into, BacklogEvery how often
	// counted. DeliveryLanes is how many clients get deliveries at once,
	// DeliveryLease how long a replica has for what it took from there.
	DeliverEvery  time.Duration
	BacklogEvery  time.Duration
	DeliveryLanes int
	DeliveryLease time.Duration
	// DeliveryRetry is the wait after the first attempt that failed; it doubles
	// up to DeliveryLongestRetry, and DeliveryPatience after the event nobody
	// tries any more.
	DeliveryRetry        time.Duration
	DeliveryLongestRetry time.Duration
	DeliveryPatience     time.Duration
	// PruneEvery is how often expired rows are looked for.
	PruneEvery time.Duration
	// AuditRetention is how long audit events are kept; 0 is for ever.
	AuditRetention time.Duration

	// RegisteredNeverUsed is how long a client that registered itself is kept
	// while nobody has signed in with it, RegisteredUnused how long after
	// somebody last did. MaxRegistered bounds how many there may be.
	RegisteredNeverUsed time.Duration
	RegisteredUnused    time.Duration
	MaxRegistered       int

	// MinDocumentAge and MaxDocumentAge bound how long a client ID metadata
	// document is used before it is fetched again; DocumentGrace is how long after
	// that it serves what people have allowed while it cannot be fetched.
	MinDocumentAge time.Duration
	MaxDocumentAge time.Duration
	DocumentGrace  time.Duration

	// MaxScopes and MaxScopeBytes bound the scope parameter before it is read.
	MaxScopes     int
	MaxScopeBytes int
	// MaxAuthorizeBytes bounds an authorization request, MaxFlowBytes what of
	// it travels through the browser, MaxStateBytes its state.
	MaxAuthorizeBytes int
	MaxFlowBytes      int
	MaxStateBytes     int
	// MaxPushedBytes bounds a pushed request, and a request object.
	MaxPushedBytes int
	// MaxTokenBytes bounds an access token: larger ones break proxies.
	MaxTokenBytes int
	// MaxResources bounds how many resource parameters a request may hold.
	MaxResources int
	// CachedClients and CachedTokens bound what a replica remembers.
	CachedClients int
	CachedTokens  int
	// FeedConnections bounds how many verifiers follow the revocation feed at
	// one replica; half as many may come from one network.
	FeedConnections int
	// FeedPatience is how long one of them may take to read what it was sent.
	FeedPatience time.Duration
}

// DefaultPolicy returns the settings the documentation describes.
func DefaultPolicy() Policy {
	return Policy{
		AccessTokenLifetime:    10 * time.Minute,
		MinAccessTokenLifetime: 5 * time.Minute,
		MaxAccessTokenLifetime: 15 * time.Minute,
		IDTokenLifetime:        10 * time.Minute,
		CodeLifetime:           60 * time.Second,
		FlowLifetime:           time.Hour,
		PushedLifetime:         60 * time.Second,
		RefreshIdle:            30 * 24 * time.Hour,
		RefreshAbsolute:        180 * 24 * time.Hour,
		RefreshWindow:          10 * time.Second,
		SessionIdle:            24 * time.Hour,
		SessionAbsolute:        14 * 24 * time.Hour,
		SessionTouch:           time.Minute,
		InvitationLifetime:     24 * time.Hour,
		PasswordMemory:         19 << 10,
		PasswordPasses:         2,
		PasswordHashes:         2,
		PasswordQueue:          32,
		ClockSkew:              60 * time.Second,
		AssertionLifetime:      5 * time.Minute,
		RequestTimeout:         5 * time.Second,
		SecretOverlap:          24 * time.Hour,
		RegistryPoll:           250 * time.Millisecond,
		RegistryMaxAge:         time.Second,
		ClockPoll:              10 * time.Second,
		MaxClockOffset:         2 * time.Second,
		JWKSMaxAge:             15 * time.Minute,
		KeysEvery:              time.Minute,
		DeliverEvery:           time.Second,
		BacklogEvery:           15 * time.Second,
		DeliveryLanes:          16,
		DeliveryLease:          time.Minute,
		DeliveryRetry:          5 * time.Second,
		DeliveryLongestRetry:   time.Hour,
		DeliveryPatience:       24 * time.Hour,
		PruneEvery:             time.Minute,
		AuditRetention:         365 * 24 * time.Hour,
		RegisteredNeverUsed:    24 * time.Hour,
		RegisteredUnused:       90 * 24 * time.Hour,
		MaxRegistered:          10_000,
		MinDocumentAge:         5 * time.Minute,
		MaxDocumentAge:         24 * time.Hour,
		DocumentGrace:          24 * time.Hour,
		MaxScopes:              50,
		MaxScopeBytes:          2 << 10,
		MaxAuthorizeBytes:      8 << 10,
		MaxFlowBytes:           4 << 10,
		MaxStateBytes:          1 << 10,
		MaxPushedBytes:         32 << 10,
		MaxTokenBytes:          4 << 10,
		MaxResources:           8,
		CachedClients:          10_000,
		CachedTokens:           10_000,
		FeedConnections:        2_000,
		FeedPatience:           10 * time.Second,
	}
}

func (p Policy) passwordCost() argonCost {
	return argonCost{memory: uint32(p.PasswordMemory), time: uint32(p.PasswordPasses), threads: argonThreads}
}

// RevokedUntil returns when an entry of the revocation log that is appended
// now may go: nothing minted from older truth is still valid then.
func (p Policy) RevokedUntil(now time.Time) time.Time {
	return p.lastAccepted(now.Add(p.MaxAccessTokenLifetime + p.RequestTimeout))
}

// lastAccepted returns until when a token that expires then may be taken by
// somebody: a verifier adds up to ClockSkew, by a clock that is behind by no
// more than it allows and 15 seconds, or it would not believe the feed.
func (p Policy) lastAccepted(expires time.Time) time.Time {
	return expires.Add(2*p.ClockSkew + 15*time.Second)
}
