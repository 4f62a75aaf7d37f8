package main

import (
	"context"
	"fmt"
	"io"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

type roleCmd struct {
	Create roleCreate `cmd:"" help:"Make a role."`
	List   roleList   `cmd:"" help:"List roles."`
	Delete roleDelete `cmd:"" help:"Take a role from everyone and remove it."`
}

func (*roleCmd) Examples() string { return (*roleCreate)(nil).Examples() }

type roleJSON struct {
	Role      string  `json:"role"`
	Resource  *string `json:"resource"` // null: global
	CreatedAt instant `json:"created_at"`
}

func viewRole(r storage.Role) roleJSON {
	v := roleJSON{Role: r.Name, CreatedAt: instant(r.CreatedAt)}
	if r.Resource != "" {
		v.Resource = &r.Resource
	}
	return v
}

func (v roleJSON) where() string {
	if v.Resource == nil {
		return "everywhere"
	}
	return *v.Resource
}

type roleCreate struct {
	Name     string `arg:"" help:"Name of the role."`
	Resource string `placeholder:"URI" help:"The resource it belongs to; without it the role counts everywhere."`
}

func (*roleCreate) Examples() string {
	return `
signet role create orders-clerk
signet role create support`
}

func (c *roleCreate) Run(ctx context.Context, a *app) error {
	i, err := a.openOrMake(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	row, err := i.Admin().CreateRole(ctx, storage.Role{Name: c.Name, Resource: c.Resource})
	if err != nil {
		return err
	}
	v := viewRole(row)
	return a.print(v, func(w io.Writer) {
		field(w, "role", v.Role)
		field(w, "counts", mark(v.Resource == nil, "", "for ")+v.where())
	})
}

type roleList struct {
	listFlags
}

func (*roleList) Examples() string { return "signet role list" }

func (c *roleList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := page(c.listFlags, func(p storage.Page) ([]storage.Role, error) { return i.Store.Roles(ctx, p) },
		func(row storage.Role) string { return row.Name }, viewRole)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			c.none(w, "role")
			return
		}
		fmt.Fprintln(w, "ROLE\tCOUNTS FOR")
		for _, v := range l.Items {
			fmt.Fprintf(w, "%s\t%s\n", v.Role, v.where())
		}
		more(w, l)
	})
}

type roleDelete struct {
	Name string `arg:"" help:"Name of the role."`
}

// Help says what it means for tokens that are out.
func (*roleDelete) Help() string {
	return "Everyone who has the role loses it, and their tokens from before are refused; a refresh brings new ones without it. A role that a scope demands cannot go before the scope does."
}

func (*roleDelete) Examples() string { return "signet role delete support" }

func (c *roleDelete) Run(ctx context.Context, a *app) error {
	return a.remove(ctx, "role", func(admin *provider.Admin) (string, error) { return c.Name, admin.DeleteRole(ctx, c.Name) })
}
