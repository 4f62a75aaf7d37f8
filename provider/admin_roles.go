package provider

import (
	"context"
	"fmt"
	"slices"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// CreateRole makes a role, global or of one resource.
func (a *Admin) CreateRole(ctx context.Context, role storage.Role) (storage.Role, error) {
	err := a.update(ctx, func(ctx context.Context, tx change) error {
		role.CreatedAt = tx.now
		var f InvalidError
		f.check("role", role.Name, checkRole(role.Name))
		if role.Resource != "" {
			switch _, err := a.resource(ctx, tx, role.Resource); {
			case isNotFound(err):
				f.Add("resource", fmt.Sprintf("%q does not exist", role.Resource), "create the resource first, or leave it out for a global role")
			case err != nil:
				return err
			}
		}
		if err := f.Err(); err != nil {
			return err
		}
		if err := tx.CreateRole(ctx, role); err != nil {
			return object("role", role.Name, err)
		}
		return tx.audit(ctx, eventRoleCreated, "", "", map[string]any{"role": role.Name, "resource": role.Resource})
	})
	return role, err
}

// DeleteRole takes the role from everyone who has it and removes it. Tokens
// of theirs that are out are refused. A role that a scope demands stays.
func (a *Admin) DeleteRole(ctx context.Context, name string) error {
	return a.update(ctx, func(ctx context.Context, tx change) error {
		resources, err := allResources(ctx, tx)
		if err != nil {
			return err
		}
		var f InvalidError
		for _, r := range resources {
			for _, s := range r.Scopes {
				if s.Role == name {
					f.Add("role", fmt.Sprintf("%q is demanded by the scope %s of %s", name, s.Name, r.URI), "update that resource first")
				}
			}
		}
		if err := f.Err(); err != nil {
			return err
		}
		return tx.deleteRole(ctx, name)
	})
}

func (tx change) deleteRole(ctx context.Context, name string) error {
	users, clients, err := tx.RoleHolders(ctx, name)
	if err != nil {
		return fmt.Errorf("holders of the role: %w", err)
	}
	slices.Sort(users) // whoever else locks several does so in this order
	for _, id := range users {
		if err := tx.LockUser(ctx, id); err != nil && !isNotFound(err) { // deleted meanwhile
			return fmt.Errorf("holders of the role: %w", err)
		}
	}
	if err := tx.DeleteRole(ctx, name); err != nil {
		return object("role", name, err)
	}
	for _, id := range users {
		if _, err := tx.revokePerson(ctx, revocation.Epoch, id, "role lost"); err != nil {
			return err
		}
	}
	for _, id := range clients {
		if err := tx.revoke(ctx, revocation.Epoch, revocation.KindClient, id, "role lost"); err != nil {
			return err
		}
	}
	return tx.audit(ctx, eventRoleDeleted, "", "", map[string]any{"role": name, "users": len(users), "clients": len(clients)})
}

// rolesOf returns the names of the roles that belong to the resource.
func rolesOf(roles map[string]storage.Role, resource string) []string {
	var names []string
	for name, role := range roles {
		if role.Resource == resource {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
