// Package verify checks Signet's access tokens (RFC 9068) inside a resource
// server, without a call to the provider: the keys are fetched and revocations
// followed in the background, and everything else happens in memory.
//
// What a revocation forbids is refused within a second while the issuer's feed can
// be followed. What happens while it cannot is a [Policy], by route: [WhenStale].
//
// [New] makes a [Verifier] for one issuer and one audience; its Middleware
// guards handlers, [RequireScope] and its siblings narrow a route, and
// [ClaimsFrom] tells the handler who is calling. It depends on the standard
// library and go-jose only. Tests of a resource server use verifytest.
package verify
