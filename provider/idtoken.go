package provider

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

const typIDToken = "JWT"

// Authentication classes (acr), weakest first, and methods (amr, RFC 8176 §2).
const (
	acrPassword = "urn:signet:acr:password" // one factor that the person knows
	amrPassword = "pwd"
)

// authenticationClasses lists the acr values there are.
func authenticationClasses() []string { return []string{acrPassword} }

// answerPerson signs what a person's grant gives: the access token and, for
// openid, the ID token (OIDC Core §2, §3.1.3.3, §12.2).
func (p *Provider) answerPerson(r fosite.AccessRequester, answer fosite.AccessResponder, nonce string) error {
	s, c := r.GetSession().(*session), r.GetClient().(*client)
	access, err := p.answerAccessToken(r, answer)
	if err != nil || !s.wantsIDToken(r) {
		return err
	}
	g, alg := s.person.grant, c.IDTokenAlg
	if alg == "" {
		alg = keys.RS256 // OIDC Registration §2
	}
	claims := make(map[string]any)
	if c.ClaimsInIDToken {
		maps.Copy(claims, personClaims(s.person.user, g.Scopes))
		if roles := s.person.user.Roles; len(roles) > 0 {
			claims["roles"] = roles
		}
	}
	maps.Copy(claims, p.byName(s.person, c, wantedClaims(g).IDToken))
	issuedAt := s.view.asOf.Truncate(time.Second)
	maps.Copy(claims, map[string]any{
		"iss": p.issuer.String(), "sub": s.subject, "aud": c.ID, "azp": c.ID,
		"iat": issuedAt.Unix(), "exp": issuedAt.Add(p.policy.IDTokenLifetime).Unix(),
		"auth_time": g.AuthTime.Unix(), "acr": g.ACR, "amr": g.AMR, "sid": sidOf(g),
		"at_hash": accessTokenHash(alg, access),
	})
	if nonce != "" {
		claims["nonce"] = nonce
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return fmt.Errorf("id token: %w", err)
	}
	token, err := p.sign(s.view, alg, typIDToken, payload)
	if err != nil {
		return fmt.Errorf("id token: %w", err)
	}
	answer.SetExtra("id_token", token)
	return nil
}

// wantsIDToken says whether openid is granted and was not left out by asking for less.
func (s *session) wantsIDToken(r fosite.AccessRequester) bool {
	asked := r.GetRequestedScopes()
	return slices.Contains(s.person.grant.Scopes, scopeOpenID) && (len(asked) == 0 || asked.Has(scopeOpenID))
}

// accessTokenHash is the left half of the access token's digest, by the hash
// of the ID token's algorithm (OIDC Core §3.1.3.6); Ed25519 has SHA-512 inside.
func accessTokenHash(alg, token string) string {
	if alg == keys.EdDSA {
		sum := sha512.Sum512([]byte(token))
		return base64.RawURLEncoding.EncodeToString(sum[:32])
	}
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// hint is what an ID token of ours says of whom it was issued about.
type hint struct{ subject, clientID, sessionID string }

// readHint reads an id_token_hint: an ID token that this issuer signed,
// expired or not (OIDC Core §3.1.2.1, RP-Initiated Logout §4).
func (p *Provider) readHint(v view, token string) (hint, error) {
	payload, err := v.ring.VerifyHint(token, typIDToken)
	if err != nil {
		return hint{}, err
	}
	var c struct {
		Issuer    string        `json:"iss"`
		Subject   string        `json:"sub"`
		Audience  audienceClaim `json:"aud"`
		SessionID string        `json:"sid"`
	}
	if err := json.Unmarshal(payload, &c); err != nil || c.Issuer != p.issuer.String() || len(c.Audience) != 1 || c.Subject == "" {
		return hint{}, keys.ErrInvalidToken
	}
	return hint{subject: c.Subject, clientID: c.Audience[0], sessionID: c.SessionID}, nil
}

// scopeClaims says which claims a scope releases (OIDC Core §5.4).
var scopeClaims = map[string][]string{
	"profile": {"name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile",
		"picture", "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at"},
	"email":   {"email", "email_verified"},
	"address": {"address"},
	"phone":   {"phone_number", "phone_number_verified"},
}

// personClaims returns what the scopes release of a person.
func personClaims(u storage.User, scopes []string) map[string]any {
	all := make(map[string]any)
	if u.Profile != "" {
		_ = json.Unmarshal([]byte(u.Profile), &all) // an unreadable profile releases nothing
	}
	if all == nil {
		all = make(map[string]any)
	}
	// What has a column is said by the column alone.
	for _, name := range []string{"email", "email_verified"} {
		delete(all, name)
	}
	all["preferred_username"] = u.Username
	all["updated_at"] = u.UpdatedAt.Unix()
	if u.Locale != "" {
		all["locale"] = u.Locale
	}
	if u.Email != "" {
		all["email"], all["email_verified"] = u.Email, u.EmailVerified
	}
	released := make(map[string]any)
	for _, scope := range scopes {
		for _, name := range scopeClaims[scope] {
			if value, ok := all[name]; ok {
				released[name] = value
			}
		}
	}
	return released
}
