// Package issuer runs the program as an operator does, for tests of clients
// that others wrote: on a port of its own, over TLS, with people who sign in.
//
// Clients have to trust the certificate at CAFile, by whatever means they have.
package issuer
