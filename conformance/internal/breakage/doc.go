// Package breakage is a proxy that makes an honest issuer break one rule. It
// stands between the checker and the issuer and alters questions or answers, so
// that exactly one check has to fail; breakages.go lists what it can do. It
// signs altered tokens with a key of its own, which it adds to the JWKS, and
// takes them back as the originals, so that nothing else looks wrong.
package breakage
