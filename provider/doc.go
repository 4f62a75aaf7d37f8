// Package provider is the authorization server: OAuth 2 and OpenID Connect
// policy on top of github.com/ory/fosite, which is imported nowhere else. It
// knows HTTP requests and the storage contract; pages, cookies and routes are
// web's, SQL is storage's.
//
// # A token request, from end to end
//
// A service asks for a token with client credentials (RFC 6749 §4.4):
//
//  1. web/router.go sends POST /token to Provider.Token in token.go.
//  2. form.go reads the form and refuses what cannot be right: wrong method or
//     type, too large, a parameter twice, credentials in the URL.
//  3. fosite's NewAccessRequest calls our client authentication in
//     clientauth.go (assertion.go for private_key_jwt, secret.go for secrets),
//     then the one grant handler that claims the request: grant_client.go.
//  4. The handler takes a view of the registry (registry.go): clients,
//     resources, roles and keys as of a known moment, from memory.
//  5. gate.go decides: may this client use this grant, and for which audience,
//     scopes and roles (audience.go).
//  6. fosite's NewAccessResponse calls the handler's second half, which writes
//     the claims (claims.go) and signs them (keys/signer.go). The moment of
//     step 4 is the token's iat.
//  7. token.go writes the answer; errors.go every refusal.
//
// Nothing was written and nothing was read from the database. Whether the
// token is still good is answered without this package by offline verifiers
// (the package verify), or asked of it: introspect.go and revoke.go.
//
// What an operator does to clients, resources, roles and users is in
// admin*.go: each change, its entry in the revocation log and its audit event
// are one transaction.
package provider
