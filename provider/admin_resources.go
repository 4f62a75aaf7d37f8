package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/signet-oidc/signet/storage"
)

// DefaultResource returns a resource with the defaults of a new registration,
// to be filled in: ES256 and the policy's token lifetime.
func (a *Admin) DefaultResource() storage.Resource {
	return storage.Resource{TokenLifetime: a.policy.AccessTokenLifetime, SigningAlg: "ES256"}
}

// Resource returns the resource with its scopes and introspectors.
func (a *Admin) Resource(ctx context.Context, uri string) (storage.Resource, error) {
	return a.resource(ctx, a.store, uri)
}

func (a *Admin) resource(ctx context.Context, r storage.Reader, uri string) (storage.Resource, error) {
	res, err := r.Resource(ctx, uri)
	return res, object("resource", uri, err)
}

// CreateResource registers r, which began as DefaultResource: an API that
// tokens are meant for, and the scopes it owns.
func (a *Admin) CreateResource(ctx context.Context, r storage.Resource) (storage.Resource, error) {
	err := a.update(ctx, func(ctx context.Context, tx change) error {
		r.CreatedAt, r.UpdatedAt = tx.now, tx.now
		tidyResource(&r)
		if err := a.checkResource(ctx, tx, r); err != nil {
			return err
		}
		if err := tx.CreateResource(ctx, r); err != nil {
			return object("resource", r.URI, err)
		}
		return tx.audit(ctx, eventResourceCreated, "", "", resourceDetail(r))
	})
	return r, err
}

// LostScopes are scopes that a client can no longer ask for, because the
// resource they belonged to gave them up.
type LostScopes struct {
	ClientID string
	Scopes   []string // sorted
}

// ResourceChange is a resource after an update, and whom it took scopes from.
type ResourceChange struct {
	storage.Resource
	Lost []LostScopes // by client
}

// UpdateResource lets alter change everything but the URI. Clients lose the
// scopes that go, so that a later owner of the same name has to grant it anew.
// Tokens that are out keep what they say until they expire; the next one
// follows the change.
func (a *Admin) UpdateResource(ctx context.Context, uri string, alter func(*storage.Resource)) (ResourceChange, error) {
	var r storage.Resource
	var lost []LostScopes
	err := a.update(ctx, func(ctx context.Context, tx change) (err error) {
		if r, err = a.resource(ctx, tx, uri); err != nil {
			return err
		}
		created, before := r.CreatedAt, scopeNames(r)
		alter(&r)
		r.URI, r.CreatedAt, r.UpdatedAt = uri, created, tx.now
		tidyResource(&r)
		if err := a.checkResource(ctx, tx, r); err != nil {
			return err
		}
		if err := tx.UpdateResource(ctx, r); err != nil {
			return object("resource", uri, err)
		}
		if err := tx.audit(ctx, eventResourceUpdated, "", "", resourceDetail(r)); err != nil {
			return err
		}
		after := scopeNames(r)
		gone := slices.DeleteFunc(before, func(s string) bool { return slices.Contains(after, s) })
		lost, err = tx.takeScopes(ctx, uri, gone)
		return err
	})
	return ResourceChange{r, lost}, err
}

// DeleteResource removes the resource with its scopes and its own roles, and
// returns which clients lost scopes by it. No new token is meant for it; tokens
// that are out expire within their lifetime.
func (a *Admin) DeleteResource(ctx context.Context, uri string) (lost []LostScopes, err error) {
	err = a.update(ctx, func(ctx context.Context, tx change) error {
		r, err := a.resource(ctx, tx, uri)
		if err != nil {
			return err
		}
		roles, err := rolesByName(ctx, tx)
		if err != nil {
			return err
		}
		if err := tx.DeleteResource(ctx, uri); err != nil {
			return object("resource", uri, err)
		}
		for _, name := range rolesOf(roles, uri) {
			if err := tx.deleteRole(ctx, name); err != nil {
				return err
			}
		}
		if err := tx.audit(ctx, eventResourceDeleted, "", "", map[string]any{"resource": uri}); err != nil {
			return err
		}
		lost, err = tx.takeScopes(ctx, uri, scopeNames(r))
		return err
	})
	return lost, err
}

// takeScopes removes scopes that the resource no longer has from every client
// that lists them.
func (tx change) takeScopes(ctx context.Context, resource string, gone []string) ([]LostScopes, error) {
	if len(gone) == 0 {
		return nil, nil
	}
	isGone := func(s string) bool { return slices.Contains(gone, s) }
	var lost []LostScopes
	err := each(ctx, tx.Clients, func(c storage.Client) string { return c.ID }, func(c storage.Client) error {
		if !slices.ContainsFunc(c.Scopes, isGone) {
			return nil
		}
		had := c.Scopes
		c.Scopes = slices.DeleteFunc(slices.Clone(had), isGone)
		taken := slices.DeleteFunc(had, func(s string) bool { return !isGone(s) })
		slices.Sort(taken)
		lost = append(lost, LostScopes{ClientID: c.ID, Scopes: taken})
		c.UpdatedAt = later(c.UpdatedAt, tx.now)
		if err := tx.UpdateClient(ctx, c); err != nil {
			return object("client", c.ID, err)
		}
		return tx.audit(ctx, eventClientUpdated, "", c.ID, map[string]any{"scope": c.Scopes, "scope_lost": taken, "resource": resource})
	})
	if err != nil {
		return nil, fmt.Errorf("scopes of clients: %w", err)
	}
	return lost, nil
}

func scopeNames(r storage.Resource) []string {
	names := make([]string, len(r.Scopes))
	for i, s := range r.Scopes {
		names[i] = s.Name
	}
	return names
}

func resourceDetail(r storage.Resource) map[string]any {
	scopes := make(map[string]string, len(r.Scopes))
	for _, s := range r.Scopes {
		scopes[s.Name] = s.Role
	}
	return map[string]any{
		"resource":               r.URI,
		"scopes":                 scopes,
		"token_lifetime_seconds": int64(r.TokenLifetime.Seconds()),
		"alg":                    r.SigningAlg,
		"status_list":            r.StatusList,
		"introspectors":          r.Introspectors,
	}
}

func tidyResource(r *storage.Resource) {
	r.Introspectors = distinct(r.Introspectors)
	slices.Sort(r.Introspectors)
	slices.SortFunc(r.Scopes, func(a, b storage.Scope) int { return strings.Compare(a.Name, b.Name) })
}

// checkResource returns everything that is wrong with a resource, or an error
// of the storage.
func (a *Admin) checkResource(ctx context.Context, tx storage.Reader, r storage.Resource) error {
	var f InvalidError
	f.check("resource", r.URI, a.checkResourceURI(r.URI))
	f.check("resource_name", "", checkLabel(r.Name))
	if r.TokenLifetime < a.policy.MinAccessTokenLifetime || r.TokenLifetime > a.policy.MaxAccessTokenLifetime {
		f.Add("token_lifetime", fmt.Sprintf("of %s is out of range", r.TokenLifetime),
			fmt.Sprintf("choose %s to %s", a.policy.MinAccessTokenLifetime, a.policy.MaxAccessTokenLifetime))
	}
	switch r.SigningAlg {
	case "ES256", "RS256", "PS256", "EdDSA":
	default:
		f.Add("alg", fmt.Sprintf("%q is not offered", r.SigningAlg), "choose ES256, RS256, PS256 or EdDSA")
	}
	if max(len(r.Scopes), len(r.Introspectors)) > maxListed {
		f.Add("resource", fmt.Sprintf("has a list of more than %d members", maxListed), "split it into several resources")
		return f.Err()
	}
	if err := checkScopes(ctx, tx, &f, r); err != nil {
		return err
	}
	for _, id := range r.Introspectors {
		switch c, err := tx.Client(ctx, id); {
		case isNotFound(err):
			f.Add("introspectors", fmt.Sprintf("%q does not exist", id), "create the client first")
		case err != nil:
			return fmt.Errorf("client: %w", err)
		case c.AuthMethod == authNone:
			// RFC 7662 §2.1
			f.Add("introspectors", fmt.Sprintf("%q is a public client", id), "name one that authenticates")
		}
	}
	return f.Err()
}

// checkScopes adds what is wrong with the resource's scopes: each belongs to
// one resource and demands only a role that is global or the resource's own.
func checkScopes(ctx context.Context, tx storage.Reader, f *InvalidError, r storage.Resource) error {
	others, err := allResources(ctx, tx)
	if err != nil {
		return err
	}
	owner := make(map[string]string)
	for _, o := range others {
		if o.URI != r.URI {
			for _, s := range o.Scopes {
				owner[s.Name] = o.URI
			}
		}
	}
	roles, err := rolesByName(ctx, tx)
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, s := range r.Scopes {
		f.check("scope", s.Name, checkScopeToken(s.Name))
		if seen[s.Name] {
			f.Add("scope", fmt.Sprintf("%q is named twice", s.Name), "name it once")
		}
		seen[s.Name] = true
		if uri, ok := owner[s.Name]; ok {
			f.Add("scope", fmt.Sprintf("%q belongs to %s already", s.Name, uri), "choose a name of its own, beginning with the API's")
		}
		if s.Role == "" {
			continue
		}
		switch role, ok := roles[s.Role]; {
		case !ok:
			f.Add("scope", fmt.Sprintf("%q demands the role %q, which does not exist", s.Name, s.Role), "create it first: signet role create "+s.Role)
		case role.Resource != "" && role.Resource != r.URI:
			f.Add("scope", fmt.Sprintf("%q demands the role %q of %s", s.Name, s.Role, role.Resource), "choose a global role or one of this resource")
		}
	}
	return nil
}

// checkResourceURI reports why uri may not name a resource (RFC 8707 §2).
func (a *Admin) checkResourceURI(uri string) error {
	u, err := parseURI(uri)
	if err != nil {
		return err
	}
	if u.Scheme == "https" || u.Scheme == "http" {
		if err := checkHost(u); err != nil {
			return err
		}
	}
	if a.issuer != "" && strings.TrimSuffix(uri, "/") == strings.TrimSuffix(a.issuer, "/") {
		return errors.New("is the issuer, which owns OpenID Connect's scopes already; choose the API's own URI")
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, storage.ErrNotFound) }
