// Package verify checks Signet's access tokens (RFC 9068) inside a resource
// server, without a call to the provider: the keys are fetched in the
// background and everything else happens in memory.
//
// [New] makes a [Verifier] for one issuer and one audience; its Middleware
// guards handlers, [RequireScope] and its siblings narrow a route, and
// [ClaimsFrom] tells the handler who is calling. It depends on the standard
// library and go-jose only. Tests of a resource server use verifytest.
package verify
