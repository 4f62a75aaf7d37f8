package provider

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// Grants a client can be registered for beside client_credentials (RFC 6749 §4.1, §6).
const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
)

// Application types (OIDC Registration §2).
const (
	appWeb    = "web"
	appNative = "native"
)

const (
	maxListed         = 100         // members of one list in a registration
	maxRefreshWindow  = time.Minute // longer would leave a stolen token too much room
	maxSecretOverlap  = 90 * 24 * time.Hour
	maxJWKS           = 64 << 10 // bytes
	maxJWKSKeys       = 16
	minRSAModulusBits = 2048 // RFC 7518 §3.3
)

// DefaultClient returns a client with the defaults of a new registration, to
// be filled in: confidential, authenticating with client_secret_basic, PKCE
// required, ID tokens signed with RS256 (OIDC Registration §2).
func DefaultClient() storage.Client {
	return storage.Client{
		Origin:        "operator",
		Enabled:       true,
		AuthMethod:    authBasic,
		IDTokenAlg:    "RS256",
		RequirePKCE:   true,
		RefreshWindow: -time.Second, // the default
		SubjectType:   subjectPublic,
	}
}

// Client returns the client with its secrets' times and its roles.
func (a *Admin) Client(ctx context.Context, id string) (storage.Client, error) {
	c, err := a.store.Client(ctx, id)
	return c, object("client", id, err)
}

// CreateClient registers c, which began as DefaultClient. An empty ID is
// replaced by a random one; the application type follows from the redirect
// URIs. The secret is returned for clients that authenticate with one, this
// once; only its keyed hash is stored.
func (a *Admin) CreateClient(ctx context.Context, c storage.Client) (created storage.Client, secret string, err error) {
	return a.createClient(ctx, c, func(context.Context, change) error { return nil })
}

// createClient is CreateClient if admit, in the same transaction, lets it.
func (a *Admin) createClient(ctx context.Context, c storage.Client, admit func(context.Context, change) error) (created storage.Client, secret string, err error) {
	if c.ID == "" {
		c.ID = randomReadable(3, 4)
	}
	tidyClient(&c)
	// Judged once before, so that faults are told even when the keys are out of reach.
	if err := checkClient(ctx, a.store, c); err != nil {
		return storage.Client{}, "", err
	}
	if sectorUnread(storage.Client{}, c) {
		d, err := a.readSector(ctx, c)
		if err == nil {
			err = d.check(c)
		}
		if err != nil {
			return storage.Client{}, "", err
		}
	}
	now := a.now()
	c.CreatedAt, c.UpdatedAt, c.LastUsedAt = now, now, time.Time{}
	c.Secrets = nil
	if hasSecret(c) {
		ring, err := a.ring(ctx)
		if err != nil {
			return storage.Client{}, "", err
		}
		plain, hashed := newClientSecret(ring, c.ID, now, time.Time{})
		secret, c.Secrets = plain, []storage.ClientSecret{hashed}
	}
	err = a.update(ctx, func(ctx context.Context, tx change) error {
		if err := admit(ctx, tx); err != nil {
			return err
		}
		if err := checkClient(ctx, tx, c); err != nil {
			return err
		}
		if err := tx.CreateClient(ctx, c); err != nil {
			return object("client", c.ID, err)
		}
		if err := tx.unblock(ctx, revocation.KindClient, c.ID, eventClientCreated); err != nil {
			return err
		}
		return tx.audit(ctx, eventClientCreated, "", c.ID, clientDetail(c))
	})
	if err != nil {
		return storage.Client{}, "", err
	}
	return c, secret, nil
}

// UpdateClient lets alter change the client's settings and roles. Identifier,
// origin, state and secrets are not alter's to change. A client that starts to
// authenticate with a secret gets one from RotateClientSecret; one that stops
// loses its secrets. What is taken from a client is gone from its next token
// on; a lost role is also refused in tokens that are out.
func (a *Admin) UpdateClient(ctx context.Context, id string, alter func(*storage.Client)) (storage.Client, error) {
	return a.updateClient(ctx, id, func(c *storage.Client) error {
		alter(c)
		// What an operator has settled, a client that registered itself does not
		// undo: from here on it cannot change its registration.
		c.RegistrationTokenHash = nil
		return nil
	})
}

// updateClient is UpdateClient unless alter returns an error.
func (a *Admin) updateClient(ctx context.Context, id string, alter func(*storage.Client) error) (storage.Client, error) {
	sector, err := a.readSectorAhead(ctx, id, alter)
	if err != nil {
		return storage.Client{}, err
	}
	var updated storage.Client
	err = a.update(ctx, func(ctx context.Context, tx change) error {
		before, err := tx.Client(ctx, id)
		if err != nil {
			return object("client", id, err)
		}
		c := before
		if err := alter(&c); err != nil {
			return err
		}
		c.ID, c.Origin, c.Enabled, c.Secrets, c.CreatedAt = before.ID, before.Origin, before.Enabled, before.Secrets, before.CreatedAt
		c.UpdatedAt = later(before.UpdatedAt, tx.now)
		tidyClient(&c)
		if err := checkClient(ctx, tx, c); err != nil {
			return err
		}
		if sectorUnread(before, c) {
			if sector.uri != ReadClientExtra(c).SectorIdentifierURI { // changed meanwhile
				return fmt.Errorf("%w: client %q is being changed by somebody else", storage.ErrUnavailable, id)
			}
			if err := sector.check(c); err != nil {
				return err
			}
		}
		if err := tx.UpdateClient(ctx, c); err != nil {
			return object("client", id, err)
		}
		if ChangesSubjects(before, c) {
			if err := tx.endGrants(ctx, storage.GrantFilter{ClientID: id}, "subjects changed"); err != nil {
				return err
			}
			if err := tx.revoke(ctx, epochUnless(!c.Enabled), revocation.KindClient, id, "subjects changed"); err != nil {
				return err
			}
		}
		if !hasSecret(c) && len(c.Secrets) > 0 {
			if err := tx.ExpireClientSecrets(ctx, id, "", tx.now, tx.now); err != nil {
				return fmt.Errorf("client secrets: %w", err)
			}
		}
		if err := tx.setClientRoles(ctx, id, before.Roles, c.Roles); err != nil {
			return err
		}
		if updated, err = tx.Client(ctx, id); err != nil {
			return object("client", id, err)
		}
		return tx.audit(ctx, eventClientUpdated, "", id, clientDetail(c))
	})
	return updated, err
}

// readSectorAhead fetches what updateClient will need, before its transaction.
func (a *Admin) readSectorAhead(ctx context.Context, id string, alter func(*storage.Client) error) (sectorDocument, error) {
	before, err := a.Client(ctx, id)
	if err != nil {
		return sectorDocument{}, err
	}
	c := before
	if err := alter(&c); err != nil {
		return sectorDocument{}, err
	}
	tidyClient(&c)
	if !sectorUnread(before, c) {
		return sectorDocument{}, nil
	}
	if err := checkClient(ctx, a.store, c); err != nil { // nothing is fetched for what is refused anyway
		return sectorDocument{}, err
	}
	return a.readSector(ctx, c)
}

// setClientRoles makes the client's roles those of after.
func (tx change) setClientRoles(ctx context.Context, id string, before, after []string) error {
	for _, role := range after {
		if !slices.Contains(before, role) {
			if err := tx.GrantClientRole(ctx, id, role, tx.now); err != nil {
				return fmt.Errorf("grant role: %w", err)
			}
		}
	}
	lost := false
	for _, role := range before {
		if !slices.Contains(after, role) {
			lost = true
			if err := tx.RevokeClientRole(ctx, id, role); err != nil {
				return fmt.Errorf("revoke role: %w", err)
			}
		}
	}
	if !lost {
		return nil
	}
	return tx.revoke(ctx, revocation.Epoch, revocation.KindClient, id, "role lost")
}

// DisableClient stops the client at once: it gets no token, and those it has
// are refused. EnableClient lets it get new ones. Both may be repeated.
func (a *Admin) DisableClient(ctx context.Context, id string) (storage.Client, error) {
	return a.setClientEnabled(ctx, id, false)
}

// EnableClient undoes DisableClient. Tokens from before stay refused.
func (a *Admin) EnableClient(ctx context.Context, id string) (storage.Client, error) {
	return a.setClientEnabled(ctx, id, true)
}

func (a *Admin) setClientEnabled(ctx context.Context, id string, enabled bool) (storage.Client, error) {
	event, entry := eventClientDisabled, revocation.Block
	if enabled {
		event, entry = eventClientEnabled, revocation.Epoch
	}
	var c storage.Client
	err := a.update(ctx, func(ctx context.Context, tx change) (err error) {
		if c, err = tx.Client(ctx, id); err != nil {
			return object("client", id, err)
		}
		if c.Enabled == enabled {
			return nil
		}
		c.Enabled, c.UpdatedAt = enabled, later(c.UpdatedAt, tx.now)
		if err := tx.UpdateClient(ctx, c); err != nil {
			return object("client", id, err)
		}
		if err := tx.revoke(ctx, entry, revocation.KindClient, id, event); err != nil {
			return err
		}
		return tx.audit(ctx, event, "", id, nil)
	})
	return c, err
}

// DeleteClient removes the client for good; its tokens are refused.
func (a *Admin) DeleteClient(ctx context.Context, id string) error {
	return a.update(ctx, func(ctx context.Context, tx change) error { return tx.deleteClient(ctx, id) })
}

func (tx change) deleteClient(ctx context.Context, id string) error {
	if err := tx.endGrants(ctx, storage.GrantFilter{ClientID: id}, eventClientDeleted); err != nil {
		return err
	}
	if err := tx.DeleteClient(ctx, id); err != nil {
		return object("client", id, err)
	}
	if err := tx.revoke(ctx, revocation.Block, revocation.KindClient, id, eventClientDeleted); err != nil {
		return err
	}
	return tx.audit(ctx, eventClientDeleted, "", id, nil)
}

// RotateClientSecret makes a new secret, shown once, and lets the one before
// work until oldExpires, which is overlap from now or sooner. Two are live at
// most: with two live, the older one ends now. oldExpires is zero when there
// was no live secret.
func (a *Admin) RotateClientSecret(ctx context.Context, id string, overlap time.Duration) (secret string, oldExpires time.Time, err error) {
	if overlap < 0 || overlap > maxSecretOverlap {
		return "", time.Time{}, &InvalidError{Faults: []Fault{{"overlap", "is out of range", "choose 0 to 2160h"}}}
	}
	// Before the keys are asked for, so that a misspelt name is told as one.
	if _, err := a.Client(ctx, id); err != nil {
		return "", time.Time{}, err
	}
	ring, err := a.ring(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	err = a.update(ctx, func(ctx context.Context, tx change) error {
		oldExpires = time.Time{}
		c, err := tx.Client(ctx, id)
		if err != nil {
			return object("client", id, err)
		}
		if !hasSecret(c) {
			return &InvalidError{Faults: []Fault{{"client", "authenticates with " + c.AuthMethod + " and has no secret",
				"set token_endpoint_auth_method to " + authBasic + " first"}}}
		}
		plain, s := newClientSecret(ring, id, tx.now, time.Time{})
		live := slices.DeleteFunc(slices.Clone(c.Secrets), func(s storage.ClientSecret) bool {
			return !s.ExpiresAt.IsZero() && !tx.now.Before(s.ExpiresAt)
		})
		if len(live) > 0 {
			newest := live[len(live)-1]
			if err := tx.ExpireClientSecrets(ctx, id, newest.ID, tx.now, tx.now); err != nil {
				return fmt.Errorf("client secrets: %w", err)
			}
			oldExpires = tx.now.Add(overlap)
			if !newest.ExpiresAt.IsZero() && newest.ExpiresAt.Before(oldExpires) {
				oldExpires = newest.ExpiresAt
			}
			if err := tx.ExpireClientSecrets(ctx, id, "", oldExpires, tx.now); err != nil {
				return fmt.Errorf("client secrets: %w", err)
			}
		}
		if err := tx.CreateClientSecret(ctx, s); err != nil {
			return fmt.Errorf("client secrets: %w", err)
		}
		secret = plain
		return tx.audit(ctx, eventClientSecretRotated, "", id, map[string]any{"overlap_seconds": int64(overlap / time.Second)})
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return secret, oldExpires, nil
}

func hasSecret(c storage.Client) bool { return c.AuthMethod == authBasic || c.AuthMethod == authPost }

// clientDetail is what the audit log keeps of a registration.
func clientDetail(c storage.Client) map[string]any {
	return map[string]any{
		"client_name":                c.Name,
		"grant_types":                c.GrantTypes,
		"token_endpoint_auth_method": c.AuthMethod,
		"redirect_uris":              clipList(c.RedirectURIs),
		"scope":                      clipList(c.Scopes),
		"roles":                      c.Roles,
		"require_pkce":               c.RequirePKCE,
		"first_party":                c.FirstParty,
		"subject_type":               c.SubjectType,
		"sector_identifier":          c.SectorIdentifier,
	}
}

// clipList keeps of a list that a stranger may have chosen what a log has room for.
func clipList(list []string) []string {
	const most = 10
	clipped := make([]string, 0, most+1)
	for i, s := range list {
		if i == most {
			return append(clipped, fmt.Sprintf("and %d more", len(list)-most))
		}
		if len(s) > 200 {
			s = s[:200] + "..."
		}
		clipped = append(clipped, s)
	}
	return clipped
}

// tidyClient drops repetitions and derives what follows from other settings.
func tidyClient(c *storage.Client) {
	for _, list := range []*[]string{&c.GrantTypes, &c.RedirectURIs, &c.PostLogoutRedirectURIs, &c.Scopes, &c.Roles} {
		*list = distinct(*list)
	}
	slices.Sort(c.Roles)
	c.ApplicationType = appWeb
	if slices.ContainsFunc(c.RedirectURIs, needsNative) || slices.ContainsFunc(c.PostLogoutRedirectURIs, needsNative) {
		c.ApplicationType = appNative
	}
	c.SectorIdentifier = sectorIdentifier(*c)
	var compact bytes.Buffer
	if c.JWKS != "" && json.Compact(&compact, []byte(c.JWKS)) == nil {
		c.JWKS = compact.String()
	}
}

// distinct returns the members of list without repetitions, in their order.
func distinct(list []string) []string {
	seen := make(map[string]bool, len(list))
	out := make([]string, 0, len(list))
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// checkClient returns everything that is wrong with a registration, or an
// error of the storage.
func checkClient(ctx context.Context, r storage.Reader, c storage.Client) error {
	var f InvalidError
	f.check("client_id", c.ID, checkClientID(c.ID))
	f.check("client_name", "", checkLabel(c.Name))
	if max(len(c.RedirectURIs), len(c.PostLogoutRedirectURIs), len(c.Scopes), len(c.Roles)) > maxListed {
		f.Add("client", fmt.Sprintf("has a list of more than %d members", maxListed), "register several clients")
		return f.Err()
	}
	checkGrants(&f, c)
	checkAuthentication(&f, c)
	checkRedirects(&f, c)
	checkLogoutURIs(&f, c)
	checkSubjects(&f, c)
	ReadClientExtra(c).check(&f, c)
	if !slices.Contains(answerAlgs(), c.IDTokenAlg) {
		f.Add("id_token_signed_response_alg", fmt.Sprintf("%q is not offered", c.IDTokenAlg), "choose RS256, ES256, PS256 or EdDSA")
	}
	if c.RefreshWindow > maxRefreshWindow {
		f.Add("refresh_window", fmt.Sprintf("is over %s", maxRefreshWindow), "choose 0 to 60s")
	}
	if !c.RequirePKCE && c.AuthMethod == authNone {
		// RFC 9700 §2.1.1
		f.Add("require_pkce", "cannot be turned off for a public client", "leave it on")
	}
	if err := checkClientReferences(ctx, r, &f, c); err != nil {
		return err
	}
	return f.Err()
}

func checkGrants(f *InvalidError, c storage.Client) {
	if len(c.GrantTypes) == 0 {
		f.Add("grant_types", "is empty", "name at least one of "+grantClientCredentials+", "+grantCode)
	}
	for _, g := range c.GrantTypes {
		switch g {
		case grantCode, grantClientCredentials:
		case grantRefresh:
			if !slices.Contains(c.GrantTypes, grantCode) {
				f.Add("grant_types", grantRefresh+" needs a grant that gives refresh tokens", "add "+grantCode)
			}
		default:
			f.Add("grant_types", fmt.Sprintf("%q is not offered", g), "choose from "+grantClientCredentials+", "+grantCode+", "+grantRefresh)
		}
	}
}

func checkAuthentication(f *InvalidError, c storage.Client) {
	switch c.AuthMethod {
	case authBasic, authPost:
	case authPrivateKeyJWT:
		if c.JWKS == "" && c.JWKSURI == "" {
			f.Add("jwks", "is needed for "+authPrivateKeyJWT, "give either the client's public keys (jwks) or their address (jwks_uri)")
		}
	case authNone:
		if slices.Contains(c.GrantTypes, grantClientCredentials) {
			// RFC 6749 §4.4
			f.Add("token_endpoint_auth_method", "none does not go with "+grantClientCredentials, "choose "+authBasic+" or "+authPrivateKeyJWT)
		}
	default:
		f.Add("token_endpoint_auth_method", fmt.Sprintf("%q is not offered", c.AuthMethod),
			"choose "+authBasic+", "+authPost+", "+authPrivateKeyJWT+" or "+authNone)
	}
	switch keys := c.JWKS != "" || c.JWKSURI != ""; {
	case c.JWKS != "" && c.JWKSURI != "":
		f.Add("jwks", "is there beside jwks_uri", "give one of them (RFC 7591 §2)")
	case keys && c.AuthMethod != authPrivateKeyJWT && !slices.Contains(c.GrantTypes, grantCode):
		f.Add("jwks", "is of use only with "+authPrivateKeyJWT, "set token_endpoint_auth_method to "+authPrivateKeyJWT+" or leave the keys out")
	}
	if c.JWKS != "" {
		f.check("jwks", "", checkJWKS(c.JWKS))
	}
	if c.JWKSURI != "" {
		f.check("jwks_uri", c.JWKSURI, checkJWKSURI(c.JWKSURI))
	}
}

func checkRedirects(f *InvalidError, c storage.Client) {
	native := c.ApplicationType == appNative
	for _, u := range c.RedirectURIs {
		f.check("redirect_uris", u, ValidateRedirectURI(u, native))
	}
	for _, u := range c.PostLogoutRedirectURIs {
		f.check("post_logout_redirect_uris", u, ValidateRedirectURI(u, native))
	}
	if code := slices.Contains(c.GrantTypes, grantCode); code && len(c.RedirectURIs) == 0 {
		f.Add("redirect_uris", "is empty", grantCode+" needs at least one")
	} else if !code && len(c.RedirectURIs) > 0 {
		f.Add("redirect_uris", "is of use only with "+grantCode, "add that grant or leave the URIs out")
	} else if !code && len(c.PostLogoutRedirectURIs) > 0 {
		f.Add("post_logout_redirect_uris", "is of use only with "+grantCode, "add that grant or leave the URIs out")
	}
}

// checkLogoutURIs judges where a client is told of logouts.
func checkLogoutURIs(f *InvalidError, c storage.Client) {
	if c.BackChannelLogoutURI != "" { // Back-Channel Logout §2.2
		f.check("backchannel_logout_uri", c.BackChannelLogoutURI, checkJWKSURI(c.BackChannelLogoutURI))
	}
	if c.FrontChannelLogoutURI != "" {
		f.check("frontchannel_logout_uri", c.FrontChannelLogoutURI, checkFrontChannelURI(c.FrontChannelLogoutURI, c.RedirectURIs))
	}
	if c.BackChannelLogoutURI+c.FrontChannelLogoutURI != "" && !slices.Contains(c.GrantTypes, grantCode) {
		f.Add("client", "has a logout URI without "+grantCode, "add that grant or leave it out")
	}
}

// checkFrontChannelURI wants scheme, host and port of a redirect URI
// (Front-Channel Logout §2), and that a Content-Security-Policy can name them.
func checkFrontChannelURI(uri string, redirectURIs []string) error {
	u, err := parseURI(uri)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("has to begin with https://")
	}
	if err := checkHost(u); err != nil {
		return err
	}
	if strings.Contains(u.Host, "[") {
		return errors.New("has an IPv6 address, which a Content-Security-Policy cannot name; use a domain name")
	}
	for _, redirect := range redirectURIs {
		if r, err := url.Parse(redirect); err == nil && r.Scheme == u.Scheme && r.Hostname() == u.Hostname() && portOf(r) == portOf(u) {
			return nil
		}
	}
	return errors.New("has not the scheme, host and port of a redirect URI (Front-Channel Logout §2)")
}

func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port != "":
		return port
	case u.Scheme == "https":
		return "443"
	default:
		return "80"
	}
}

// checkClientReferences adds a fault for every scope and role that does not exist.
func checkClientReferences(ctx context.Context, r storage.Reader, f *InvalidError, c storage.Client) error {
	if !slices.Contains(c.GrantTypes, grantCode) {
		for _, s := range c.Scopes {
			if slices.Contains(oidcScopes, s) {
				f.Add("scope", fmt.Sprintf("%q is about a person, and without %s there is none", s, grantCode), "leave it out, or add that grant")
			}
		}
	}
	if slices.ContainsFunc(c.Scopes, func(s string) bool { return !slices.Contains(oidcScopes, s) }) {
		resources, err := allResources(ctx, r)
		if err != nil {
			return err
		}
		known := make(map[string]bool)
		for _, res := range resources {
			for _, s := range res.Scopes {
				known[s.Name] = true
			}
		}
		for _, s := range c.Scopes {
			if !slices.Contains(oidcScopes, s) && !known[s] {
				f.Add("scope", fmt.Sprintf("%q belongs to no resource", s), "create the resource that owns it first: signet resource create URI --name NAME --scope "+s)
			}
		}
	}
	return checkRolesExist(ctx, r, f, c.Roles)
}

// checkRolesExist adds a fault for every role that does not exist.
func checkRolesExist(ctx context.Context, r storage.Reader, f *InvalidError, roles []string) error {
	if len(roles) == 0 {
		return nil
	}
	known, err := rolesByName(ctx, r)
	if err != nil {
		return err
	}
	for _, role := range roles {
		if _, ok := known[role]; !ok {
			f.Add("roles", fmt.Sprintf("%q does not exist", role), "create it first: signet role create "+role)
		}
	}
	return nil
}

func checkJWKSURI(uri string) error {
	u, err := parseURI(uri)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "https":
	case "http":
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			return errors.New("uses http; use https (plain http only to a numeric address that --outbound-allow lists)")
		}
	default:
		return errors.New("has to begin with https://")
	}
	return checkHost(u)
}

// checkJWKS reports why document may not be a client's key set (RFC 7517 §5):
// it holds public signature keys, each strong enough and with a name of its own.
func checkJWKS(document string) error {
	if len(document) > maxJWKS {
		return fmt.Errorf("is longer than %d bytes", maxJWKS)
	}
	var raw struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if json.Unmarshal([]byte(document), &raw) != nil || len(raw.Keys) == 0 {
		return errors.New(`is not a JWK Set: want {"keys":[...]} with at least one key (RFC 7517 §5)`)
	}
	for i, members := range raw.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, ok := members[private]; ok {
				return fmt.Errorf("holds the private or secret half of key %d; give public keys only, and replace this key, which has now been seen", i+1)
			}
		}
	}
	set, err := parseClientKeys([]byte(document))
	if err != nil {
		return fmt.Errorf("cannot be used: %w", err)
	}
	kids := make(map[string]bool)
	for i, k := range set.Keys {
		if err := checkKeyUse(k); err != nil {
			return fmt.Errorf("cannot be used: key %d: %w", i+1, err)
		}
		if kids[k.KeyID] {
			return fmt.Errorf("has two keys with the kid %q; name each", k.KeyID)
		}
		kids[k.KeyID] = true
	}
	return nil
}

// checkKeyUse admits keys that are for signatures and for an algorithm that
// assertions are verified with (RFC 7517 §4.2, §4.4).
func checkKeyUse(k jose.JSONWebKey) error {
	if k.Use != "" && k.Use != "sig" {
		return fmt.Errorf("use is %q; want sig", k.Use)
	}
	var algs []string
	switch k.Key.(type) {
	case *rsa.PublicKey:
		algs = []string{"RS256", "PS256"}
	case *ecdsa.PublicKey:
		algs = []string{"ES256"}
	case ed25519.PublicKey:
		algs = []string{"EdDSA"}
	}
	if k.Algorithm != "" && !slices.Contains(algs, k.Algorithm) {
		return fmt.Errorf("alg is %q; a key of its type is for %s", k.Algorithm, strings.Join(algs, " or "))
	}
	return nil
}
