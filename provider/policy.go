package provider

import "time"

// Policy holds the lifetimes and limits that an operator may want to know;
// DefaultPolicy is what `signet serve` runs with.
type Policy struct {
	// Access tokens: the default lifetime and the bounds a resource may choose within.
	AccessTokenLifetime    time.Duration
	MinAccessTokenLifetime time.Duration
	MaxAccessTokenLifetime time.Duration

	// ClockSkew is how far clocks of others may be off (RFC 7519 §4.1.4).
	ClockSkew time.Duration
	// AssertionLifetime is how far ahead a client assertion may expire (RFC 7523 §3).
	AssertionLifetime time.Duration
	// RequestTimeout is the longest a request may be worked on.
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
	// PruneEvery is how often expired rows are looked for.
	PruneEvery time.Duration

	// MaxScopes and MaxScopeBytes bound the scope parameter before it is read.
	MaxScopes     int
	MaxScopeBytes int
	// MaxResources bounds how many resource parameters a request may hold.
	MaxResources int
	// CachedClients and CachedTokens bound what a replica remembers.
	CachedClients int
	CachedTokens  int
}

// DefaultPolicy returns the settings the documentation describes.
func DefaultPolicy() Policy {
	return Policy{
		AccessTokenLifetime:    10 * time.Minute,
		MinAccessTokenLifetime: 5 * time.Minute,
		MaxAccessTokenLifetime: 15 * time.Minute,
		ClockSkew:              60 * time.Second,
		AssertionLifetime:      5 * time.Minute,
		RequestTimeout:         10 * time.Second,
		SecretOverlap:          24 * time.Hour,
		RegistryPoll:           250 * time.Millisecond,
		RegistryMaxAge:         time.Second,
		ClockPoll:              10 * time.Second,
		MaxClockOffset:         2 * time.Second,
		PruneEvery:             time.Minute,
		MaxScopes:              50,
		MaxScopeBytes:          2 << 10,
		MaxResources:           8,
		CachedClients:          10_000,
		CachedTokens:           10_000,
	}
}

// RevokedUntil returns when an entry of the revocation log that is appended
// now may go: nothing minted from older truth is still valid then.
func (p Policy) RevokedUntil(now time.Time) time.Time {
	return now.Add(p.MaxAccessTokenLifetime + p.ClockSkew + p.RequestTimeout)
}
