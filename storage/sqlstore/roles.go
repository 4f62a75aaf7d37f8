package sqlstore

import (
	"context"
	"fmt"

	"github.com/signet-oidc/signet/storage"
)

func scanRole(row Row, r *storage.Role) error {
	return row.Scan(&r.Name, &r.Resource, &r.Description, timeOf{&r.CreatedAt})
}

// holding is a user's or client's role.
type holding struct{ holder, role string }

func scanHolding(row Row, h *holding) error { return row.Scan(&h.holder, &h.role) }

// Roles implements storage.Reader.
func (r *Reader) Roles(ctx context.Context, page storage.Page) ([]storage.Role, error) {
	roles, err := collect(ctx, r.db, scanRole, `SELECT name, resource_uri, description, created_at FROM roles
		WHERE name > $1 ORDER BY name LIMIT $2`, page.After, page.Limit)
	return roles, wrap(err, "list roles")
}

// CreateRole implements storage.Tx.
func (t *Tx) CreateRole(ctx context.Context, r storage.Role) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO roles (name, resource_uri, description, created_at) VALUES ($1, $2, $3, $4)`,
		r.Name, r.Resource, r.Description, r.CreatedAt)
	return wrap(err, "insert role")
}

// DeleteRole implements storage.Tx.
func (t *Tx) DeleteRole(ctx context.Context, name string) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	// scopes.role is '' when no role is needed, so no foreign key can hold
	// this rule; the registry's lock does.
	scopes, err := collect(ctx, t.db, scanText, `SELECT name FROM scopes WHERE role = $1 ORDER BY name LIMIT 1`, name)
	if err != nil {
		return wrap(err, "read scopes of role")
	}
	if len(scopes) > 0 && name != "" {
		return t.db.keep(fmt.Errorf("delete role: %w: the scope %q demands it", storage.ErrReference, scopes[0]))
	}
	return wrap(affected(t.db.Exec(ctx, `DELETE FROM roles WHERE name = $1`, name)), "delete role")
}

// RoleHolders implements storage.Tx.
func (t *Tx) RoleHolders(ctx context.Context, name string) (users, clients []string, err error) {
	users, err = collect(ctx, t.db, scanText, `SELECT user_id FROM user_roles WHERE role = $1 ORDER BY user_id`, name)
	if err == nil {
		clients, err = collect(ctx, t.db, scanText, `SELECT client_id FROM client_roles WHERE role = $1 ORDER BY client_id`, name)
	}
	if err != nil {
		return nil, nil, wrap(err, "list holders of role")
	}
	return users, clients, nil
}
