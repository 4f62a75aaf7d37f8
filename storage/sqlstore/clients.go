package sqlstore

import (
	"context"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const clientColumns = `id, name, origin, enabled, first_party, application_type,
	auth_method, auth_signing_alg, assertion_aud_token_url,
	grant_types, redirect_uris, post_logout_redirect_uris, scopes, jwks, jwks_uri,
	id_token_alg, claims_in_id_token, require_pkce, require_pushed, refresh_window_ms,
	subject_type, sector_identifier, backchannel_logout_uri, frontchannel_logout_uri,
	registration_token_hash, metadata, created_at, updated_at, last_used_at`

func scanClient(row Row, c *storage.Client) error {
	return row.Scan(&c.ID, &c.Name, &c.Origin, boolOf{&c.Enabled}, boolOf{&c.FirstParty}, &c.ApplicationType,
		&c.AuthMethod, &c.AuthSigningAlg, boolOf{&c.AssertionAudTokenURL},
		listOf{&c.GrantTypes}, listOf{&c.RedirectURIs}, listOf{&c.PostLogoutRedirectURIs}, listOf{&c.Scopes}, &c.JWKS, &c.JWKSURI,
		&c.IDTokenAlg, boolOf{&c.ClaimsInIDToken}, boolOf{&c.RequirePKCE}, boolOf{&c.RequirePushed}, durationOf{&c.RefreshWindow},
		&c.SubjectType, &c.SectorIdentifier, &c.BackChannelLogoutURI, &c.FrontChannelLogoutURI,
		bytesOf{&c.RegistrationTokenHash}, &c.Metadata, timeOf{&c.CreatedAt}, timeOf{&c.UpdatedAt}, timeOf{&c.LastUsedAt})
}

// Client implements storage.Reader.
func (r *Reader) Client(ctx context.Context, id string) (storage.Client, error) {
	var c storage.Client
	err := scanClient(r.db.QueryRow(ctx, `SELECT `+clientColumns+` FROM clients WHERE id = $1`, id), &c)
	if err == nil {
		c.Secrets, err = collect(ctx, r.db, scanClientSecret,
			`SELECT `+secretColumns+` FROM client_secrets WHERE client_id = $1 ORDER BY created_at, id`, id)
	}
	if err == nil {
		c.Roles, err = collect(ctx, r.db, scanText,
			`SELECT role FROM client_roles WHERE client_id = $1 ORDER BY role`, id)
	}
	if err != nil {
		return storage.Client{}, wrap(err, "read client")
	}
	return c, nil
}

// Clients implements storage.Reader.
func (r *Reader) Clients(ctx context.Context, page storage.Page) ([]storage.Client, error) {
	clients, err := collect(ctx, r.db, scanClient,
		`SELECT `+clientColumns+` FROM clients WHERE id > $1 ORDER BY id LIMIT $2`, page.After, page.Limit)
	if err != nil || len(clients) == 0 {
		return nil, wrap(err, "list clients")
	}
	index := make(map[string]*storage.Client, len(clients))
	for i := range clients {
		index[clients[i].ID] = &clients[i]
	}
	first, last := clients[0].ID, clients[len(clients)-1].ID

	secrets, err := collect(ctx, r.db, scanClientSecret,
		`SELECT `+secretColumns+` FROM client_secrets
		WHERE client_id >= $1 AND client_id <= $2 ORDER BY created_at, id`, first, last)
	if err != nil {
		return nil, wrap(err, "list client secrets")
	}
	for _, s := range secrets {
		if c := index[s.ClientID]; c != nil {
			c.Secrets = append(c.Secrets, s)
		}
	}
	roles, err := collect(ctx, r.db, scanHolding,
		`SELECT client_id, role FROM client_roles
		WHERE client_id >= $1 AND client_id <= $2 ORDER BY role`, first, last)
	if err != nil {
		return nil, wrap(err, "list client roles")
	}
	for _, h := range roles {
		if c := index[h.holder]; c != nil {
			c.Roles = append(c.Roles, h.role)
		}
	}
	return clients, nil
}

// CountClients implements storage.Reader.
func (r *Reader) CountClients(ctx context.Context, origin string) (int64, error) {
	var n int64
	err := r.db.QueryRow(ctx, `SELECT count(*) FROM clients WHERE origin = $1`, origin).Scan(&n)
	return n, wrap(err, "count clients")
}

// UnusedClients implements storage.Reader.
func (r *Reader) UnusedClients(ctx context.Context, origin string, never, last time.Time, limit int) ([]string, error) {
	ids, err := collect(ctx, r.db, scanText, `SELECT id FROM clients
		WHERE origin = $1 AND enabled = 1 AND (last_used_at = 0 AND created_at <= $2 OR last_used_at > 0 AND last_used_at <= $3)
		AND grant_types NOT LIKE '%client_credentials%'
		AND NOT EXISTS (SELECT 1 FROM grants WHERE client_id = clients.id AND revoked_at = 0)
		ORDER BY id LIMIT $4`, origin, never, last, limit)
	return ids, wrap(err, "find unused clients")
}

// TouchClient implements storage.Tx.
func (t *Tx) TouchClient(ctx context.Context, id string, at, unless time.Time) error {
	_, err := t.db.Exec(ctx, `UPDATE clients SET last_used_at = $1 WHERE id = $2 AND last_used_at <= $3`, at, id, unless)
	return wrap(err, "touch client")
}

// CreateClient implements storage.Tx.
func (t *Tx) CreateClient(ctx context.Context, c storage.Client) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO clients (`+clientColumns+`) VALUES (`+placeholders(1, 29)+`)`,
		c.ID, c.Name, c.Origin, c.Enabled, c.FirstParty, c.ApplicationType,
		c.AuthMethod, c.AuthSigningAlg, c.AssertionAudTokenURL,
		c.GrantTypes, c.RedirectURIs, c.PostLogoutRedirectURIs, c.Scopes, c.JWKS, c.JWKSURI,
		c.IDTokenAlg, c.ClaimsInIDToken, c.RequirePKCE, c.RequirePushed, c.RefreshWindow,
		c.SubjectType, c.SectorIdentifier, c.BackChannelLogoutURI, c.FrontChannelLogoutURI,
		c.RegistrationTokenHash, c.Metadata, c.CreatedAt, c.UpdatedAt, c.LastUsedAt)
	if err != nil {
		return wrap(err, "insert client")
	}
	for _, s := range c.Secrets {
		s.ClientID = c.ID
		if err := t.CreateClientSecret(ctx, s); err != nil {
			return err
		}
	}
	for _, role := range c.Roles {
		if err := t.GrantClientRole(ctx, c.ID, role, c.CreatedAt); err != nil {
			return err
		}
	}
	return nil
}

// UpdateClient implements storage.Tx.
func (t *Tx) UpdateClient(ctx context.Context, c storage.Client) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	return wrap(affected(t.db.Exec(ctx, `UPDATE clients SET
		name = $1, origin = $2, enabled = $3, first_party = $4, application_type = $5,
		auth_method = $6, auth_signing_alg = $7, assertion_aud_token_url = $8,
		grant_types = $9, redirect_uris = $10, post_logout_redirect_uris = $11, scopes = $12, jwks = $13, jwks_uri = $14,
		id_token_alg = $15, claims_in_id_token = $16, require_pkce = $17, require_pushed = $18, refresh_window_ms = $19,
		subject_type = $20, sector_identifier = $21, backchannel_logout_uri = $22, frontchannel_logout_uri = $23,
		registration_token_hash = $24, metadata = $25, updated_at = $26
		WHERE id = $27`,
		c.Name, c.Origin, c.Enabled, c.FirstParty, c.ApplicationType,
		c.AuthMethod, c.AuthSigningAlg, c.AssertionAudTokenURL,
		c.GrantTypes, c.RedirectURIs, c.PostLogoutRedirectURIs, c.Scopes, c.JWKS, c.JWKSURI,
		c.IDTokenAlg, c.ClaimsInIDToken, c.RequirePKCE, c.RequirePushed, c.RefreshWindow,
		c.SubjectType, c.SectorIdentifier, c.BackChannelLogoutURI, c.FrontChannelLogoutURI,
		c.RegistrationTokenHash, c.Metadata, c.UpdatedAt, c.ID)), "update client")
}

// VoidRegistrations implements storage.Tx.
func (t *Tx) VoidRegistrations(ctx context.Context, origin string) error {
	_, err := t.db.Exec(ctx, `UPDATE clients SET registration_token_hash = $1 WHERE origin = $2`, []byte{}, origin)
	return wrap(err, "void registrations")
}

// DeleteClient implements storage.Tx.
func (t *Tx) DeleteClient(ctx context.Context, id string) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	if _, err := t.db.Exec(ctx, `DELETE FROM outbox WHERE target = $1`, id); err != nil {
		return wrap(err, "delete client's deliveries")
	}
	return wrap(affected(t.db.Exec(ctx, `DELETE FROM clients WHERE id = $1`, id)), "delete client")
}

const secretColumns = `id, client_id, scheme, key_id, hash, created_at, expires_at`

func scanClientSecret(row Row, s *storage.ClientSecret) error {
	return row.Scan(&s.ID, &s.ClientID, &s.Scheme, &s.KeyID, bytesOf{&s.Hash}, timeOf{&s.CreatedAt}, timeOf{&s.ExpiresAt})
}

// CreateClientSecret implements storage.Tx.
func (t *Tx) CreateClientSecret(ctx context.Context, s storage.ClientSecret) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO client_secrets (`+secretColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		s.ID, s.ClientID, s.Scheme, s.KeyID, s.Hash, s.CreatedAt, s.ExpiresAt)
	return wrap(err, "insert client secret")
}

// ExpireClientSecrets implements storage.Tx.
func (t *Tx) ExpireClientSecrets(ctx context.Context, clientID, keepID string, end, now time.Time) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	if _, err := t.db.Exec(ctx, `UPDATE client_secrets SET expires_at = $1
		WHERE client_id = $2 AND id <> $3 AND (expires_at = 0 OR expires_at > $1)`, end, clientID, keepID); err != nil {
		return wrap(err, "expire client secrets")
	}
	_, err := t.db.Exec(ctx, `DELETE FROM client_secrets
		WHERE client_id = $1 AND id <> $2 AND expires_at > 0 AND expires_at <= $3`, clientID, keepID, now)
	return wrap(err, "remove client secrets")
}

// GrantClientRole implements storage.Tx.
func (t *Tx) GrantClientRole(ctx context.Context, clientID, role string, at time.Time) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO client_roles (client_id, role, created_at) VALUES ($1, $2, $3)
		ON CONFLICT (client_id, role) DO NOTHING`, clientID, role, at)
	return wrap(err, "grant role to client")
}

// RevokeClientRole implements storage.Tx.
func (t *Tx) RevokeClientRole(ctx context.Context, clientID, role string) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	return wrap(affected(t.db.Exec(ctx,
		`DELETE FROM client_roles WHERE client_id = $1 AND role = $2`, clientID, role)), "revoke role of client")
}
