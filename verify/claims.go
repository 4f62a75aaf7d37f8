package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const maxAudiences = 64

// Claims are what a verified access token says (RFC 9068 §2.2). They cannot be
// changed: slices are copies. A person is known by Issuer and Subject together,
// never by a name or an address.
type Claims struct {
	raw                          string
	issuer, subject, clientID    string
	id, grantID, sessionID, acr  string
	audience, scopes, roles, amr []string

	// NumericDates; 0 is absent.
	expiresAt, issuedAt, notBefore, authTime int64

	bound bool // cnf: only the holder of some key may use the token

	revocation revocationKeys
	status     statusReference
}

// Issuer is the iss claim, always the configured one.
func (c *Claims) Issuer() string { return c.issuer }

// Subject is the sub claim: the person, or the client itself, unique within Issuer.
func (c *Claims) Subject() string { return c.subject }

// ClientID is the client the token was issued to.
func (c *Claims) ClientID() string { return c.clientID }

// Audience is the aud claim; it contains the configured audience.
func (c *Claims) Audience() []string { return slices.Clone(c.audience) }

// Scopes are the items of the scope claim.
func (c *Claims) Scopes() []string { return slices.Clone(c.scopes) }

// HasScope reports whether scope is exactly one of Scopes.
func (c *Claims) HasScope(scope string) bool { return slices.Contains(c.scopes, scope) }

// Roles is the roles claim. A role alone permits nothing: see [RequireRole].
func (c *Claims) Roles() []string { return slices.Clone(c.roles) }

// HasRole reports whether role is exactly one of Roles.
func (c *Claims) HasRole(role string) bool { return slices.Contains(c.roles, role) }

// ID is the jti claim, unique to this token.
func (c *Claims) ID() string { return c.id }

// GrantID names the authorization the token came from; it may be empty.
func (c *Claims) GrantID() string { return c.grantID }

// SessionID is the sid claim, on tokens that end with a session; else empty.
func (c *Claims) SessionID() string { return c.sessionID }

// ACR is the authentication context class; empty when nobody signed in.
func (c *Claims) ACR() string { return c.acr }

// AMR are the authentication methods; none when nobody signed in.
func (c *Claims) AMR() []string { return slices.Clone(c.amr) }

// AuthTime is when the person signed in; zero when nobody did.
func (c *Claims) AuthTime() time.Time { return date(c.authTime) }

// IssuedAt is the iat claim.
func (c *Claims) IssuedAt() time.Time { return date(c.issuedAt) }

// ExpiresAt is the exp claim.
func (c *Claims) ExpiresAt() time.Time { return date(c.expiresAt) }

// Decode unmarshals all claims into v, as encoding/json would, except that member
// names match by case (RFC 7519 §4) and so "Roles" never overwrites "roles".
func (c *Claims) Decode(v any) error {
	if err := json.Unmarshal([]byte(c.raw), v); err != nil {
		return fmt.Errorf("verify: decoding claims: %w", err)
	}
	return nil
}

func date(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// parseClaims reads a payload whose signature is right.
func parseClaims(payload string) (*Claims, error) {
	var names [24]string
	c := &Claims{raw: payload}
	s := scan(payload, names[:])
	for g := s.object(); s.next(&g); {
		switch g.name {
		case "iss":
			c.issuer = s.text()
		case "sub":
			c.subject = s.text()
		case "client_id":
			c.clientID = s.text()
		case "aud":
			if s.peek() == '[' {
				c.audience = s.texts()
			} else {
				c.audience = []string{s.text()}
			}
			if len(c.audience) > maxAudiences {
				s.fail("too many audiences")
			}
		case "exp":
			c.expiresAt = s.integer()
		case "iat":
			c.issuedAt = s.integer()
		case "nbf":
			c.notBefore = s.integer()
		case "auth_time":
			c.authTime = s.integer()
		case "jti":
			c.id = s.text()
		case "grant_id":
			c.grantID = s.text()
		case "sid":
			c.sessionID = s.text()
		case "acr":
			c.acr = s.text()
		case "amr":
			c.amr = s.texts()
		case "roles":
			c.roles = s.texts()
		case "scope":
			// RFC 6749 §3.3: only the space separates.
			c.scopes = strings.FieldsFunc(s.text(), func(r rune) bool { return r == ' ' })
		case "status":
			c.status = s.readStatus()
		case "cnf":
			c.bound = true
			s.skip()
		default:
			s.skip()
		}
	}
	if fault := s.end(); fault != "" {
		return nil, malformed("claims: " + fault)
	}
	// RFC 9068 §2.2: these are required; iss and aud are compared by the caller.
	if c.expiresAt == 0 || c.issuedAt == 0 || c.subject == "" || c.clientID == "" || c.id == "" {
		return nil, malformed("claims: exp, iat, sub, client_id or jti is missing")
	}
	return c, nil
}

// size estimates the memory c holds, in bytes.
func (c *Claims) size() int {
	const fixed, perString = 768, 16
	return fixed + len(c.raw) + perString*(len(c.audience)+len(c.scopes)+len(c.roles)+len(c.amr))
}
