package provider

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	scopeOpenID  = "openid"
	scopeOffline = "offline_access"
)

// oidcScopes are the scopes that belong to the issuer itself (OIDC Core §5.4, §11).
var oidcScopes = []string{"openid", "profile", "email", "address", "phone", "offline_access"}

// wish is what a token request asks for.
type wish struct {
	scopes    []string // requested; empty asks for the default
	resources []string // requested by RFC 8707
	inherited bool     // the resources are the grant's, not asked for now
}

// award is what it gets.
type award struct {
	audience []string
	scopes   []string
	roles    []string // for the roles claim
	alg      string
	lifetime time.Duration
}

// readWish takes scope and resource from a form and refuses what is too much
// or malformed before anything is looked up. token.go bounds scope's length.
func readWish(form url.Values, policy Policy) (wish, error) {
	var w wish
	for _, s := range strings.Split(form.Get("scope"), " ") {
		if s == "" {
			continue
		}
		if !ValidScope(s) {
			return w, invalidScope("scope holds a character that RFC 6749 section 3.3 does not allow.")
		}
		if !slices.Contains(w.scopes, s) {
			w.scopes = append(w.scopes, s)
		}
	}
	if len(w.scopes) > policy.MaxScopes {
		return w, invalidScope(fmt.Sprintf("More than %d scopes in one request.", policy.MaxScopes))
	}
	for _, r := range form["resource"] {
		if slices.Contains(w.resources, r) {
			continue
		}
		if len(w.resources) == policy.MaxResources {
			return w, invalidTarget(fmt.Sprintf("More than %d resources in one request.", policy.MaxResources))
		}
		if u, err := url.Parse(r); err != nil || !u.IsAbs() || strings.Contains(r, "#") {
			return w, invalidTarget("resource must be an absolute URI without a fragment.") // RFC 8707 §2
		}
		w.resources = append(w.resources, r)
	}
	return w, nil
}

// ValidScope reports whether s is a scope-token of RFC 6749 §3.3.
func ValidScope(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= 0x20 || c == '"' || c == '\\' || c > 0x7e {
			return false
		}
	}
	return s != ""
}

// decide settles audience and scopes. allowed are the scopes the client may
// ask for, held the roles of the token's subject.
//
// resource given: exactly those are the audience. None given: the one resource
// that owns the scopes; scopes of several are refused; scopes of none leave
// the issuer itself. A scope is granted if it means something to the audience
// and the subject has the role it needs.
func (s *snapshot) decide(issuer string, w wish, allowed, held []string, firstParty bool) (award, error) {
	for _, scope := range w.scopes {
		if _, known := s.scopes[scope]; !known && !slices.Contains(oidcScopes, scope) || !slices.Contains(allowed, scope) {
			return award{}, invalidScope(fmt.Sprintf("The scope '%s' does not exist or is not registered for this client.", clip(scope)))
		}
	}
	audience, err := s.audience(issuer, w, allowed)
	if err != nil {
		return award{}, err
	}
	a := award{audience: audience}
	asked := w.scopes
	if len(asked) == 0 { // RFC 6749 §3.3: the default is what the client is registered for
		asked = allowed
	}
	var missing []string
	for _, scope := range asked {
		if !s.meaningful(issuer, scope, audience) {
			continue
		}
		if role := s.scopes[scope].Role; role != "" && !slices.Contains(held, role) {
			missing = append(missing, role)
			continue
		}
		a.scopes = append(a.scopes, scope)
	}
	if len(a.scopes) == 0 {
		if len(missing) > 0 {
			slices.Sort(missing)
			return award{}, invalidScope(fmt.Sprintf("Every scope asked for needs a role that is missing here: %s.",
				strings.Join(slices.Compact(missing), ", ")))
		}
		return award{}, invalidScope("No scope is left that means something to the resource and is registered for this client.")
	}
	// A resource that gets no scope gets no token: otherwise any client could
	// add any API to its audience and pass where only the audience is checked.
	bare := func(uri string) bool {
		return !slices.ContainsFunc(a.scopes, func(scope string) bool { return s.meaningful(issuer, scope, []string{uri}) })
	}
	if w.inherited {
		a.audience = slices.DeleteFunc(slices.Clone(audience), bare)
	} else if i := slices.IndexFunc(audience, bare); i >= 0 {
		return award{}, invalidTarget(fmt.Sprintf("No scope granted belongs to the resource '%s'.", clip(audience[i])))
	}
	if err := s.shape(&a); err != nil {
		return award{}, err
	}
	a.roles = s.rolesClaim(a, held, firstParty)
	return a, nil
}

// asRegistered puts the resources of a wish as they are registered, where the
// request spells one in another way: scheme and host in capitals, or with or
// without the slash that an empty path stands for (RFC 3986 §6.2.2.1, §6.2.3).
// Libraries that parse URLs write them so. Everything else about a resource is
// compared exactly, and an unknown one stays as it is.
func (s *snapshot) asRegistered(issuer string, w wish) wish {
	if len(w.resources) == 0 {
		return w
	}
	known := func(uri string) bool { return uri == issuer || s.resources[uri] != nil }
	same := slices.Clone(w.resources)
	for i, r := range same {
		u, err := url.Parse(r)
		if known(r) || err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			continue
		}
		u.Host = strings.ToLower(u.Host) // and Parse has done so to the scheme
		forms := []string{u.String()}
		switch u.Path {
		case "":
			u.Path = "/"
			forms = append(forms, u.String())
		case "/":
			u.Path = ""
			forms = append(forms, u.String())
		}
		if j := slices.IndexFunc(forms, known); j >= 0 {
			same[i] = forms[j]
		}
	}
	w.resources = distinct(same)
	return w
}

// audience applies the rule for whom the token is.
func (s *snapshot) audience(issuer string, w wish, allowed []string) ([]string, error) {
	for _, r := range w.resources {
		if r != issuer && s.resources[r] == nil {
			return nil, invalidTarget(fmt.Sprintf("The resource '%s' is not known here.", clip(r)))
		}
	}
	if len(w.resources) > 0 {
		return w.resources, nil
	}
	scopes := w.scopes
	if len(scopes) == 0 {
		scopes = allowed
	}
	var owners []string
	for _, scope := range scopes {
		if owner := s.owners[scope]; owner != nil && !slices.Contains(owners, owner.URI) {
			owners = append(owners, owner.URI)
		}
	}
	switch len(owners) {
	case 0:
		return []string{issuer}, nil
	case 1:
		if slices.Contains(w.scopes, "openid") {
			return []string{owners[0], issuer}, nil // userinfo takes the same token
		}
		return owners, nil
	default:
		slices.Sort(owners)
		return nil, invalidScope(fmt.Sprintf("The scopes belong to several resources (%s): name one with the resource parameter.",
			strings.Join(owners, ", ")))
	}
}

// meaningful says whether a scope belongs to one of the audience.
func (s *snapshot) meaningful(issuer, scope string, audience []string) bool {
	if owner := s.owners[scope]; owner != nil {
		return slices.Contains(audience, owner.URI)
	}
	return slices.Contains(audience, issuer)
}

// ownerOf returns the resource a scope belongs to, the issuer for OpenID Connect's own.
func (s *snapshot) ownerOf(issuer, scope string) string {
	if owner := s.owners[scope]; owner != nil {
		return owner.URI
	}
	return issuer
}

// exists says whether anything is meant by the scope.
func (s *snapshot) exists(scope string) bool {
	return s.owners[scope] != nil || slices.Contains(oidcScopes, scope)
}

// roleNames returns every role there is.
func (s *snapshot) roleNames() []string { return slices.Collect(maps.Keys(s.roles)) }

// shape settles algorithm and lifetime. One token has one signature, so
// resources that want different algorithms cannot share one.
func (s *snapshot) shape(a *award) error {
	for _, uri := range a.audience {
		r := s.resources[uri]
		if r == nil { // the issuer reads whatever it signs
			continue
		}
		if a.alg != "" && a.alg != r.SigningAlg {
			return invalidTarget("The resources want different signing algorithms: ask for one token each.")
		}
		a.alg = r.SigningAlg
		if a.lifetime == 0 || r.TokenLifetime < a.lifetime {
			a.lifetime = r.TokenLifetime
		}
	}
	return nil
}

// rolesClaim lists the subject's roles for the resources that ask for them: a
// first party's token all that are global or the resource's own, others only
// the roles that gate a granted scope.
func (s *snapshot) rolesClaim(a award, held []string, firstParty bool) []string {
	var roles []string
	for _, uri := range a.audience {
		r := s.resources[uri]
		if r == nil || !r.RolesClaim {
			continue
		}
		for _, role := range held {
			of := s.roles[role].Resource
			gates := slices.ContainsFunc(a.scopes, func(scope string) bool {
				return s.owners[scope] == r && s.scopes[scope].Role == role
			})
			if gates || firstParty && (of == "" || of == uri) {
				roles = append(roles, role)
			}
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}
