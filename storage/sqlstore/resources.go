package sqlstore

import (
	"context"

	"github.com/signet-oidc/signet/storage"
)

const resourceColumns = `uri, name, token_lifetime_ms, signing_alg, roles_claim, status_list, created_at, updated_at`

func scanResource(row Row, r *storage.Resource) error {
	return row.Scan(&r.URI, &r.Name, durationOf{&r.TokenLifetime}, &r.SigningAlg,
		boolOf{&r.RolesClaim}, boolOf{&r.StatusList}, timeOf{&r.CreatedAt}, timeOf{&r.UpdatedAt})
}

// ownedScope is a scope with the resource it belongs to.
type ownedScope struct {
	resource string
	storage.Scope
}

func scanScope(row Row, s *ownedScope) error {
	return row.Scan(&s.resource, &s.Name, &s.Role, &s.Description)
}

// introspector is a client's right to introspect for a resource.
type introspector struct{ resource, client string }

func scanIntrospector(row Row, i *introspector) error { return row.Scan(&i.resource, &i.client) }

// Resource implements storage.Reader.
func (r *Reader) Resource(ctx context.Context, uri string) (storage.Resource, error) {
	res := make([]storage.Resource, 1)
	err := scanResource(r.db.QueryRow(ctx, `SELECT `+resourceColumns+` FROM resources WHERE uri = $1`, uri), &res[0])
	if err == nil {
		err = r.fillResources(ctx, res)
	}
	if err != nil {
		return storage.Resource{}, wrap(err, "read resource")
	}
	return res[0], nil
}

// Resources implements storage.Reader.
func (r *Reader) Resources(ctx context.Context, page storage.Page) ([]storage.Resource, error) {
	list, err := collect(ctx, r.db, scanResource,
		`SELECT `+resourceColumns+` FROM resources WHERE uri > $1 ORDER BY uri LIMIT $2`, page.After, page.Limit)
	if err == nil && len(list) > 0 {
		err = r.fillResources(ctx, list)
	}
	if err != nil {
		return nil, wrap(err, "list resources")
	}
	return list, nil
}

// fillResources adds scopes and introspectors to resources sorted by URI.
func (r *Reader) fillResources(ctx context.Context, list []storage.Resource) error {
	index := make(map[string]*storage.Resource, len(list))
	for i := range list {
		index[list[i].URI] = &list[i]
	}
	first, last := list[0].URI, list[len(list)-1].URI
	scopes, err := collect(ctx, r.db, scanScope, `SELECT resource_uri, name, role, description FROM scopes
		WHERE resource_uri >= $1 AND resource_uri <= $2 ORDER BY name`, first, last)
	if err != nil {
		return err
	}
	for _, s := range scopes {
		if res := index[s.resource]; res != nil {
			res.Scopes = append(res.Scopes, s.Scope)
		}
	}
	introspectors, err := collect(ctx, r.db, scanIntrospector, `SELECT resource_uri, client_id FROM resource_clients
		WHERE resource_uri >= $1 AND resource_uri <= $2 ORDER BY client_id`, first, last)
	if err != nil {
		return err
	}
	for _, i := range introspectors {
		if res := index[i.resource]; res != nil {
			res.Introspectors = append(res.Introspectors, i.client)
		}
	}
	return nil
}

// CreateResource implements storage.Tx.
func (t *Tx) CreateResource(ctx context.Context, r storage.Resource) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO resources (`+resourceColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		r.URI, r.Name, r.TokenLifetime, r.SigningAlg, r.RolesClaim, r.StatusList, r.CreatedAt, r.UpdatedAt)
	if err != nil {
		return wrap(err, "insert resource")
	}
	return t.insertRelations(ctx, r)
}

// UpdateResource implements storage.Tx.
func (t *Tx) UpdateResource(ctx context.Context, r storage.Resource) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	if err := affected(t.db.Exec(ctx, `UPDATE resources SET name = $1, token_lifetime_ms = $2, signing_alg = $3,
		roles_claim = $4, status_list = $5, updated_at = $6 WHERE uri = $7`,
		r.Name, r.TokenLifetime, r.SigningAlg, r.RolesClaim, r.StatusList, r.UpdatedAt, r.URI)); err != nil {
		return wrap(err, "update resource")
	}
	for _, query := range []string{
		`DELETE FROM scopes WHERE resource_uri = $1`,
		`DELETE FROM resource_clients WHERE resource_uri = $1`,
	} {
		if _, err := t.db.Exec(ctx, query, r.URI); err != nil {
			return wrap(err, "replace relations of resource")
		}
	}
	return t.insertRelations(ctx, r)
}

func (t *Tx) insertRelations(ctx context.Context, r storage.Resource) error {
	for _, s := range r.Scopes {
		if _, err := t.db.Exec(ctx, `INSERT INTO scopes (name, resource_uri, role, description) VALUES ($1, $2, $3, $4)`,
			s.Name, r.URI, s.Role, s.Description); err != nil {
			return wrap(err, "insert scope")
		}
	}
	for _, client := range r.Introspectors {
		if _, err := t.db.Exec(ctx, `INSERT INTO resource_clients (resource_uri, client_id, created_at) VALUES ($1, $2, $3)
			ON CONFLICT (resource_uri, client_id) DO NOTHING`, r.URI, client, r.UpdatedAt); err != nil {
			return wrap(err, "insert introspector")
		}
	}
	return nil
}

// DeleteResource implements storage.Tx.
func (t *Tx) DeleteResource(ctx context.Context, uri string) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	return wrap(affected(t.db.Exec(ctx, `DELETE FROM resources WHERE uri = $1`, uri)), "delete resource")
}
