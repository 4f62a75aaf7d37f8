package provider

import (
	"fmt"
	"slices"
)

// ask is one redemption of one grant, as the gate sees it.
type ask struct {
	client    *client
	grantType string
	wish      wish
}

// gate is the one check that every grant passes at every redemption: the
// client may use this grant now, and audience, scopes and roles are still
// allowed. No grant handler decides any of it for itself.
func (p *Provider) gate(v view, a ask) (award, error) {
	c := a.client
	if !c.Enabled {
		return award{}, invalidClient(fmt.Errorf("client %q is disabled", c.ID))
	}
	if !slices.Contains(c.GrantTypes, a.grantType) {
		return award{}, unauthorizedClient(fmt.Sprintf("This client is not registered for the grant type '%s'.", clip(a.grantType)))
	}
	allowed := c.Scopes
	if a.grantType == grantClientCredentials {
		// There is no person whose identity these scopes could speak of.
		for _, scope := range a.wish.scopes {
			if slices.Contains(oidcScopes, scope) {
				return award{}, invalidScope(fmt.Sprintf("The scope '%s' is about a person; this grant has none.", scope))
			}
		}
		allowed = slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return slices.Contains(oidcScopes, s) })
	}
	aw, err := v.decide(p.issuer.String(), a.wish, allowed, c.Roles, c.FirstParty)
	if err != nil {
		return award{}, err
	}
	if aw.alg == "" {
		aw.alg, aw.lifetime = defaultAccessTokenAlg, p.policy.AccessTokenLifetime
	}
	return aw, nil
}
