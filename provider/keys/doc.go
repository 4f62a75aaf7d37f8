// Package keys holds the provider's key material: the signing keys and their
// lifecycle, the JWK Set that publishes them, the MAC keys, and how all of it
// is encrypted at rest. Ensure makes what a new database lacks; Load turns the
// rows of one moment into a Ring, which signs, verifies and answers /jwks
// without a database. What is signed, and for whom, is decided in provider.
package keys
