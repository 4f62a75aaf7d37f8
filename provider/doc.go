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
// # A sign-in, from end to end
//
// An app sends a person's browser here (RFC 6749 §4.1, OIDC Core §3.1):
//
//  1. web/authorize.go hands GET /authorize to BeginAuthorization in
//     authorize.go, which judges everything the request says: first who asks
//     and where the answer goes (redirect.go), then the rest, and then once more
//     through fosite's NewAuthorizeRequest. It writes nothing.
//  2. flow.go seals the request for this browser; from page to page it travels
//     in the URL or the form, and is judged again at every step.
//  3. Next in approve.go asks prompt.go, a pure function, what is missing: a
//     sign-in, a choice of account, consent, or nothing.
//  4. SignIn in signin.go counts the attempt, checks the password (password.go)
//     and starts a session; sessions.go knows who it is from then on.
//  5. Approve, or Next when there is nothing to ask, runs fosite's
//     NewAuthorizeResponse, whose handler in grant_code.go writes consent and
//     grant in one transaction. The grant's id is the flow's, so the same
//     approval twice makes one grant. What the app calls the person is settled
//     there (pairwise.go). Its code (code.go) goes back to the app.
//  6. The app sends the code to POST /token. The handler in grant_code.go reads
//     the truth about the grant and its person (person.go), asks the gate, signs
//     access token and ID token (idtoken.go), and then redeems the code with one
//     conditional update, which makes it the first of a family of refresh tokens.
//  7. Each refresh (grant_refresh.go) is the same again, with a compare-and-swap
//     on the grant's generation.
//
// What a person can end is in sessions.go, accounts.go and logout.go: each
// ending changes the truth that refresh, introspection and userinfo read, and
// appends what offline verifiers have to know, in one transaction. What clients
// have to be told of it (backchannel.go) goes into the outbox there, from where
// any replica sends it (outbox.go).
//
// # A revocation, from the event to an API
//
// The entry that an ending appends (revocation/log.go) is found by every
// replica, told by the database or within a second (revocation/feed.go), signed
// once (revocation/message.go) and sent to the verifiers that follow (feed.go);
// those that start read a snapshot (revocation/snapshot.go). Verifiers that know
// nothing of this read a status list (statuslist.go), made from the truth.
//
// What an operator does to clients, resources, roles and users is in
// admin*.go: each change, its entry in the revocation log and its audit event
// are one transaction.
package provider
