// Package clients has client libraries that others wrote, as they are, sign
// people in at the program: npm's openid-client, oauth4webapi with jose and
// express-openid-connect, Debian's mod_auth_openidc and Authlib, go-oidc,
// zitadel/oidc, Kubernetes' authenticator and oauth2-proxy, and when asked for
// Spring Security and Authlib's newest. Each is given the issuer's URL, and each
// has to refuse what an issuer may not say. The Model Context Protocol's
// SDKs for Go and TypeScript are given the URL of a server alone (cmd/notes).
//
// Those in Go are built from the module in go, which imports nothing of this one.
//
// Tests only: docs/relying-parties.md tells which library did what.
package clients
