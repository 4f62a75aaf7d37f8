package provider

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/json" // member names by case, and no duplicates

	"github.com/signet-oidc/signet/storage"
)

// The claims parameter's bounds, far above what anybody needs.
const (
	maxClaims      = 100 // in each of its members, and values of each claim
	maxClaimsDepth = 8
)

// claimsRequest is the part of the claims parameter that is understood (OIDC
// Core §5.5): which claims are wanted in the ID token and at userinfo.
type claimsRequest struct {
	UserInfo map[string]*claimWanted `json:"userinfo,omitempty"`
	IDToken  map[string]*claimWanted `json:"id_token,omitempty"`
}

type claimWanted struct {
	Essential bool  `json:"essential,omitempty"`
	Value     any   `json:"value,omitempty"`
	Values    []any `json:"values,omitempty"`
}

func readClaims(s string) (claimsRequest, error) {
	var c claimsRequest
	if s == "" {
		return c, nil
	}
	if depth(s) > maxClaimsDepth {
		return c, invalidRequest(fmt.Sprintf("claims is nested deeper than %d.", maxClaimsDepth))
	}
	if err := json.Unmarshal([]byte(s), &c); err != nil || !strings.HasPrefix(strings.TrimLeft(s, " \t\r\n"), "{") {
		return claimsRequest{}, invalidRequest("claims is not a JSON object as OpenID Connect Core section 5.5 has it.")
	}
	for _, member := range []map[string]*claimWanted{c.UserInfo, c.IDToken} {
		if len(member) > maxClaims {
			return claimsRequest{}, invalidRequest(fmt.Sprintf("claims asks for more than %d claims.", maxClaims))
		}
		for _, w := range member {
			if w != nil && len(w.Values) > maxClaims {
				return claimsRequest{}, invalidRequest(fmt.Sprintf("claims has more than %d values of a claim.", maxClaims))
			}
		}
	}
	if id, info := c.IDToken["sub"].accepted(), c.UserInfo["sub"].accepted(); len(id) > 0 && len(info) > 0 && len(c.subjects()) == 0 {
		return claimsRequest{}, invalidRequest("claims names different subjects for the ID token and for userinfo.")
	}
	return c, nil
}

// depth returns how deeply the JSON text is nested, at the most.
func depth(text string) (deepest int) {
	now, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// subjects returns the subs one of which has to sign in; none: anybody. Where
// both members name some, it is one of both.
func (c claimsRequest) subjects() []string {
	id, info := c.IDToken["sub"].accepted(), c.UserInfo["sub"].accepted()
	switch {
	case len(id) == 0:
		return info
	case len(info) == 0:
		return id
	}
	return slices.DeleteFunc(id, func(sub string) bool { return !slices.Contains(info, sub) })
}

// essentialACR returns the authentication classes one of which is essential (OIDC Core §5.5.1.1).
func (c claimsRequest) essentialACR() []string {
	if w := c.IDToken["acr"]; w != nil && w.Essential {
		return w.accepted()
	}
	return nil
}

// accepted returns what value and values name. What is no text is kept as some
// text that nothing equals, so that it is not taken for no demand.
func (w *claimWanted) accepted() []string {
	if w == nil {
		return nil
	}
	var list []string
	for _, v := range append([]any{w.Value}, w.Values...) {
		if v != nil {
			list = append(list, fmt.Sprint(v))
		}
	}
	return list
}

// scopes returns the scopes that the claims are part of which are asked for by
// name. A person consents to those, and only what is named is released.
func (c claimsRequest) scopes() (scopes []string) {
	for _, scope := range oidcScopes {
		if slices.ContainsFunc(scopeClaims[scope], func(name string) bool {
			_, info := c.UserInfo[name]
			_, id := c.IDToken[name]
			return info || id
		}) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// byName returns what of the wanted claims the client may know of the person,
// whatever scopes it has now: it is registered for the scope that a claim is
// part of, and the person has consented to that.
func (p *Provider) byName(who *person, c *client, wanted map[string]*claimWanted) map[string]any {
	if len(wanted) == 0 {
		return nil
	}
	have := consentsOf(who.consents)
	var allowed []string
	for _, scope := range c.Scopes {
		if implicit, there := have[consentKey{scope, p.issuer.String()}]; there && (!implicit || c.FirstParty) {
			allowed = append(allowed, scope)
		}
	}
	claims := personClaims(who.user, allowed)
	for name := range claims {
		if _, ok := wanted[name]; !ok {
			delete(claims, name)
		}
	}
	return claims
}

// wantedClaims returns what was asked for by name when the grant was made.
func wantedClaims(g storage.Grant) claimsRequest {
	c, err := readClaims(g.ClaimsRequest)
	if err != nil { // written by an earlier release, which was less strict
		return claimsRequest{}
	}
	return c
}
