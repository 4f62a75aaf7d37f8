package provider

import (
	"fmt"
	"slices"

	"github.com/signet-oidc/signet/storage"
)

// ask is one redemption of one grant, as the gate sees it.
type ask struct {
	client    *client
	grantType string
	wish      wish
	person    *person // who gave the grant; nil when the client acts for itself
}

// gate is the one check that every grant passes at every redemption: the
// client may use this grant now, the person who gave it is active and still
// consents, the grant and its session live, and audience, scopes and roles are
// still allowed. No grant handler decides any of it for itself.
func (p *Provider) gate(v view, a ask) (award, error) {
	c := a.client
	if !c.Enabled {
		return award{}, invalidClient(fmt.Errorf("client %q is disabled", c.ID))
	}
	if !slices.Contains(c.GrantTypes, a.grantType) {
		return award{}, unauthorizedClient(fmt.Sprintf("This client is not registered for the grant type '%s'.", clip(a.grantType)))
	}
	allowed, held, wish := c.Scopes, c.Roles, v.asRegistered(p.issuer.String(), a.wish)
	if a.person != nil {
		if err := a.person.check(v.snapshot, p.issuer.String(), c, p.now()); err != nil {
			return award{}, invalidGrant("The grant is no longer good; the person has to sign in again.", err)
		}
		var err error
		if allowed, wish, err = v.within(a.person.grant, c, wish); err != nil {
			return award{}, err
		}
		held = a.person.user.Roles
	}
	if a.grantType == grantClientCredentials {
		// There is no person whose identity these scopes could speak of.
		for _, scope := range a.wish.scopes {
			if slices.Contains(oidcScopes, scope) {
				return award{}, invalidScope(fmt.Sprintf("The scope '%s' is about a person; this grant has none.", scope))
			}
		}
		allowed = slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return slices.Contains(oidcScopes, s) })
	}
	aw, err := v.decide(p.issuer.String(), wish, allowed, held, c.FirstParty)
	if err != nil {
		return award{}, err
	}
	if aw.alg == "" {
		aw.alg, aw.lifetime = defaultAccessTokenAlg, p.policy.AccessTokenLifetime
	}
	return aw, nil
}

// within narrows a wish to what the grant holds: scopes and resources may only
// be a part of it (RFC 6749 §6, RFC 8707 §2.2). What the client may no longer
// ask for, or exists no more, is left out where nothing was asked for.
func (s *snapshot) within(g storage.Grant, c *client, w wish) (allowed []string, narrowed wish, err error) {
	for _, scope := range g.Scopes {
		if slices.Contains(c.Scopes, scope) && s.exists(scope) {
			allowed = append(allowed, scope)
		}
	}
	if len(w.scopes) == 0 {
		w.scopes = allowed
	}
	for _, scope := range w.scopes {
		if !slices.Contains(g.Scopes, scope) {
			return nil, w, invalidScope(fmt.Sprintf("The scope '%s' is not part of the grant.", clip(scope)))
		}
	}
	if len(allowed) == 0 {
		return nil, w, invalidScope("No scope of the grant is left that this client may ask for.")
	}
	if len(w.resources) == 0 {
		w.resources, w.inherited = g.Resources, true
	}
	for _, resource := range w.resources {
		if !slices.Contains(g.Resources, resource) {
			return nil, w, invalidTarget(fmt.Sprintf("The resource '%s' is not part of the grant.", clip(resource)))
		}
	}
	return allowed, w, nil
}
