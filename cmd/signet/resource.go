package main

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

type resourceCmd struct {
	Create resourceCreate `cmd:"" help:"Register an API and the scopes it owns."`
	List   resourceList   `cmd:"" help:"List resources."`
	Show   resourceShow   `cmd:"" help:"Show a resource."`
	Update resourceUpdate `cmd:"" help:"Change a resource."`
	Delete resourceDelete `cmd:"" help:"Remove a resource, its scopes and its roles."`
}

func (*resourceCmd) Examples() string { return (*resourceCreate)(nil).Examples() }

type resourceJSON struct {
	Resource      string      `json:"resource"`
	ResourceName  string      `json:"resource_name"`
	Scopes        []scopeJSON `json:"scopes"`
	TokenLifetime int64       `json:"token_lifetime"` // seconds
	Alg           string      `json:"alg"`
	RolesClaim    bool        `json:"roles_claim"`
	StatusList    bool        `json:"status_list"`
	Introspectors []string    `json:"introspectors"`
	CreatedAt     instant     `json:"created_at"`
	UpdatedAt     instant     `json:"updated_at"`
}

type scopeJSON struct {
	Scope string `json:"scope"`
	Role  string `json:"role,omitempty"`
}

func (s scopeJSON) String() string {
	if s.Role == "" {
		return s.Scope
	}
	return s.Scope + "=" + s.Role
}

func viewResource(r storage.Resource) resourceJSON {
	v := resourceJSON{
		Resource: r.URI, ResourceName: r.Name, Scopes: []scopeJSON{},
		TokenLifetime: int64(r.TokenLifetime / time.Second), Alg: r.SigningAlg, RolesClaim: r.RolesClaim, StatusList: r.StatusList,
		Introspectors: orEmpty(r.Introspectors), CreatedAt: instant(r.CreatedAt), UpdatedAt: instant(r.UpdatedAt),
	}
	for _, s := range r.Scopes {
		v.Scopes = append(v.Scopes, scopeJSON{s.Name, s.Role})
	}
	return v
}

func (v resourceJSON) scopes() string {
	list := make([]string, len(v.Scopes))
	for i, s := range v.Scopes {
		list[i] = s.String()
	}
	return words(list)
}

// resourceChangedJSON also tells which clients lost scopes by the change.
type resourceChangedJSON struct {
	resourceJSON
	ClientsChanged []clientLostJSON `json:"clients_changed"`
}

type clientLostJSON struct {
	ClientID  string `json:"client_id"`
	ScopeLost string `json:"scope_lost"`
}

func viewLost(lost []provider.LostScopes) []clientLostJSON {
	v := []clientLostJSON{}
	for _, l := range lost {
		v = append(v, clientLostJSON{l.ClientID, words(l.Scopes)})
	}
	return v
}

func describeLost(w io.Writer, lost []clientLostJSON) {
	for _, l := range lost {
		fmt.Fprintf(w, "The client %s can no longer ask for %s.\n", l.ClientID, l.ScopeLost)
	}
}

func describeResource(w io.Writer, v resourceJSON) {
	field(w, "resource", v.Resource)
	field(w, "name", v.ResourceName)
	for _, s := range v.Scopes {
		field(w, "scope", s.Scope+mark(s.Role != "", "   (needs the role "+s.Role+")", ""))
	}
	field(w, "tokens", fmt.Sprintf("%s, %s%s", v.Alg, time.Duration(v.TokenLifetime)*time.Second, mark(v.RolesClaim, ", with roles", "")+mark(v.StatusList, ", with a status list", "")))
	field(w, "introspectors", words(v.Introspectors))
	field(w, "created", v.CreatedAt.String())
	if v.UpdatedAt != v.CreatedAt {
		field(w, "updated", v.UpdatedAt.String())
	}
}

// parseScopes reads S or S=ROLE. A scope that is in before keeps its description.
func parseScopes(given []string, before []storage.Scope) []storage.Scope {
	var scopes []storage.Scope
	for _, s := range given {
		if s == "" {
			continue
		}
		name, role, _ := strings.Cut(s, "=")
		scope := storage.Scope{Name: name, Role: role}
		for _, b := range before {
			if b.Name == name {
				scope.Description = b.Description
			}
		}
		scopes = append(scopes, scope)
	}
	return scopes
}

type resourceCreate struct {
	URI           string        `arg:"" name:"uri" help:"The API's URI; tokens have it as aud (RFC 8707)."`
	Name          string        `required:"" placeholder:"TEXT" help:"Name that people see."`
	Scope         []string      `required:"" sep:"none" placeholder:"S[=ROLE]" help:"Scope it owns, and the role a subject needs for it; may repeat."`
	TokenLifetime time.Duration `default:"10m" placeholder:"DUR" help:"Lifetime of its access tokens, 5m to 15m (${default})."`
	Alg           string        `default:"ES256" placeholder:"ALG" help:"Signature of its access tokens: ES256 (default), RS256, PS256 or EdDSA."`
	RolesClaim    bool          `help:"Its tokens tell the subject's roles."`
	StatusList    bool          `help:"Tokens that people let apps have name their place in a Token Status List."`
	Introspector  []string      `sep:"none" placeholder:"CLIENT" help:"client_id that may introspect its tokens; may repeat."`
}

func (*resourceCreate) Examples() string {
	return `signet resource create https://orders.example.com --name "Orders" --scope orders:read --scope orders:write=orders-clerk --token-lifetime 5m`
}

func (c *resourceCreate) Run(ctx context.Context, a *app) error {
	if err := singleResourceFlags(c.Scope, c.Introspector); err != nil {
		return err
	}
	i, err := a.openOrMake(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	admin := i.Admin()
	row := admin.DefaultResource()
	row.URI, row.Name = c.URI, c.Name
	row.Scopes = parseScopes(c.Scope, nil)
	row.TokenLifetime, row.SigningAlg, row.RolesClaim, row.StatusList = c.TokenLifetime, c.Alg, c.RolesClaim, c.StatusList
	row.Introspectors = c.Introspector
	if row, err = admin.CreateResource(ctx, row); err != nil {
		return err
	}
	v := viewResource(row)
	return a.print(v, func(w io.Writer) { describeResource(w, v) })
}

func singleResourceFlags(scopes, introspectors []string) error {
	var faults provider.InvalidError
	single(faults.Add, "--scope", scopes)
	single(faults.Add, "--introspector", introspectors)
	return faults.Err()
}

type resourceList struct {
	listFlags
}

func (*resourceList) Examples() string { return "signet resource list" }

func (c *resourceList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := page(c.listFlags, func(p storage.Page) ([]storage.Resource, error) { return i.Store.Resources(ctx, p) },
		func(row storage.Resource) string { return row.URI }, viewResource)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			c.none(w, "resource")
			return
		}
		fmt.Fprintln(w, "RESOURCE\tNAME\tSCOPES")
		for _, v := range l.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\n", v.Resource, shorten(v.ResourceName, widestName), v.scopes())
		}
		more(w, l)
	})
}

// resourceArg names one resource.
type resourceArg struct {
	URI string `arg:"" name:"uri" help:"The resource's URI."`
}

type resourceShow struct{ resourceArg }

func (*resourceShow) Examples() string { return "signet resource show https://orders.example.com" }

func (c *resourceShow) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err := i.Admin().Resource(ctx, c.URI)
	if err != nil {
		return err
	}
	v := viewResource(row)
	return a.print(v, func(w io.Writer) { describeResource(w, v) })
}

type resourceUpdate struct {
	resourceArg
	resourceChanges
}

type resourceChanges struct {
	Name          *string        `placeholder:"TEXT" help:"Name that people see."`
	Scope         []string       `sep:"none" placeholder:"S[=ROLE]" help:"Scopes in place of those it has; may repeat."`
	TokenLifetime *time.Duration `placeholder:"DUR" help:"Lifetime of its access tokens, 5m to 15m."`
	Alg           *string        `placeholder:"ALG" help:"ES256, RS256, PS256 or EdDSA."`
	RolesClaim    *bool          `help:"Its tokens tell the subject's roles."`
	StatusList    *bool          `help:"Tokens that people let apps have name their place in a Token Status List."`
	Introspector  []string       `sep:"none" placeholder:"CLIENT" help:"Introspectors in place of those it has; may repeat."`
}

// Help says what a change means for tokens that are out.
func (*resourceUpdate) Help() string {
	return `Only what is given changes; an empty value, as in --introspector "", clears a list.

A change counts from the next token on. A scope that goes is taken from every client that has it; the answer says from which. Tokens that are out keep their scopes until they expire (15 minutes at most), also when a scope goes or starts to demand a role. Letting a scope demand no role opens it to everyone who may ask for it.`
}

func (*resourceUpdate) Examples() string {
	return `signet resource update https://orders.example.com --scope orders:read --scope orders:write=orders-clerk --roles-claim`
}

func (c *resourceUpdate) Run(ctx context.Context, a *app) error {
	if reflect.ValueOf(c.resourceChanges).IsZero() {
		return usage("there is nothing to change", "`signet resource update --help` shows what can be")
	}
	if err := singleResourceFlags(c.Scope, c.Introspector); err != nil {
		return err
	}
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err := i.Admin().UpdateResource(ctx, c.URI, func(row *storage.Resource) {
		set(&row.Name, c.Name)
		set(&row.TokenLifetime, c.TokenLifetime)
		set(&row.SigningAlg, c.Alg)
		set(&row.RolesClaim, c.RolesClaim)
		set(&row.StatusList, c.StatusList)
		setList(&row.Introspectors, c.Introspector)
		if c.Scope != nil {
			row.Scopes = parseScopes(c.Scope, row.Scopes)
		}
	})
	if err != nil {
		return err
	}
	v := resourceChangedJSON{viewResource(row.Resource), viewLost(row.Lost)}
	return a.print(v, func(w io.Writer) {
		describeResource(w, v.resourceJSON)
		describeLost(w, v.ClientsChanged)
	})
}

type resourceDelete struct{ resourceArg }

// Help says what it means for tokens that are out.
func (*resourceDelete) Help() string {
	return "Its scopes and the roles that belong to it go with it. Clients lose those scopes; the answer says which ones did. No new token is meant for it; those that are out expire within 15 minutes."
}

func (*resourceDelete) Examples() string {
	return "signet resource delete https://orders.example.com"
}

func (c *resourceDelete) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	gone, err := i.Admin().DeleteResource(ctx, c.URI)
	if err != nil {
		return err
	}
	lost := viewLost(gone)
	return a.print(map[string]any{"resource": c.URI, "deleted": true, "clients_changed": lost}, func(w io.Writer) {
		fmt.Fprintf(w, "Deleted %s.\n", c.URI)
		describeLost(w, lost)
	})
}
