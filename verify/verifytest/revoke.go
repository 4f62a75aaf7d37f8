package verifytest

import (
	"time"

	"github.com/signet-oidc/signet/verify"
)

// Revoke refuses from now on every token that one value names, by kind: "jti" one
// token, "grant" (its grant_id), "sid", "sub", "client" (its client_id), "kid", or
// "iss" (the issuer's URL) all of them. It returns once each of the verifiers
// named has heard of it:
//
//	issuer.Revoke("sub", "alice", v)
//
// A Verifier made after the revocation knows it from the start.
func (i *Issuer) Revoke(kind, value string, verifiers ...*verify.Verifier) {
	i.t.Helper()
	i.heard(i.feed.Block(kind, value, time.Hour), verifiers)
}

// RevokeBefore refuses what was issued up to a moment, in whole seconds, for
// whatever a value of a kind names, and lets later tokens pass. It lifts an earlier
// Revoke of the same, and returns when Revoke does.
func (i *Issuer) RevokeBefore(kind, value string, moment time.Time, verifiers ...*verify.Verifier) {
	i.t.Helper()
	i.heard(i.feed.Epoch(kind, value, moment, time.Hour), verifiers)
}

func (i *Issuer) heard(seq int64, verifiers []*verify.Verifier) {
	i.t.Helper()
	const patience = 30 * time.Second
	for _, v := range verifiers {
		for deadline := time.Now().Add(patience); v.Revocation().Seq < seq; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				i.t.Fatalf("verifytest: the verifier has not heard of the revocation in %v: %+v", patience, v.Revocation())
			}
		}
	}
}

// Silence lets the feed say nothing any more, as if it could not be reached: the
// state of verifiers is stale 15 seconds later.
func (i *Issuer) Silence() {
	i.silent.Store(true)
	i.feed.Cut()
}
