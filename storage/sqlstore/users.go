package sqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const userColumns = `id, username, username_key, email, email_key, email_verified, enabled, profile, locale, created_at, updated_at`

// userRoles is the last column wherever one user is read.
const userRoles = `COALESCE((SELECT string_agg(length(role) || ':' || role, '') FROM user_roles WHERE user_id = users.id), '')`

func scanUser(row Row, u *storage.User) error { return row.Scan(userTargets(u)[:11]...) }

// userTargets are what userColumns and userRoles are scanned into.
func userTargets(u *storage.User) []any {
	return []any{&u.ID, &u.Username, &u.UsernameKey, &u.Email, &u.EmailKey, boolOf{&u.EmailVerified},
		boolOf{&u.Enabled}, &u.Profile, &u.Locale, timeOf{&u.CreatedAt}, timeOf{&u.UpdatedAt}, packedOf{&u.Roles}}
}

// User implements storage.Reader.
func (r *Reader) User(ctx context.Context, id string) (storage.User, error) {
	return r.user(ctx, `SELECT `+userColumns+`, `+userRoles+` FROM users WHERE id = $1`, id)
}

// UserByLogin implements storage.Reader.
func (r *Reader) UserByLogin(ctx context.Context, key string) (storage.User, error) {
	return r.user(ctx, `SELECT `+userColumns+`, `+userRoles+` FROM users
		WHERE username_key = $1 OR (email_key = $1 AND email_key <> '')
		ORDER BY CASE WHEN username_key = $1 THEN 0 ELSE 1 END LIMIT 1`, key)
}

func (r *Reader) user(ctx context.Context, query, key string) (storage.User, error) {
	var u storage.User
	if err := r.db.QueryRow(ctx, query, key).Scan(userTargets(&u)...); err != nil {
		return storage.User{}, wrap(err, "read user")
	}
	slices.Sort(u.Roles)
	return u, nil
}

// Users implements storage.Reader.
func (r *Reader) Users(ctx context.Context, page storage.Page) ([]storage.User, error) {
	users, err := collect(ctx, r.db, scanUser, `SELECT `+userColumns+` FROM users
		WHERE username_key > $1 ORDER BY username_key LIMIT $2`, page.After, page.Limit)
	if err != nil || len(users) == 0 {
		return nil, wrap(err, "list users")
	}
	index := make(map[string]*storage.User, len(users))
	for i := range users {
		index[users[i].ID] = &users[i]
	}
	roles, err := collect(ctx, r.db, scanHolding, `SELECT user_id, role FROM user_roles
		WHERE user_id IN (SELECT id FROM users WHERE username_key >= $1 AND username_key <= $2) ORDER BY role`,
		users[0].UsernameKey, users[len(users)-1].UsernameKey)
	if err != nil {
		return nil, wrap(err, "list user roles")
	}
	for _, h := range roles {
		if u := index[h.holder]; u != nil {
			u.Roles = append(u.Roles, h.role)
		}
	}
	return users, nil
}

// CreateUser implements storage.Tx.
func (t *Tx) CreateUser(ctx context.Context, u storage.User) error {
	_, err := t.db.Exec(ctx, `INSERT INTO users (`+userColumns+`) VALUES (`+placeholders(1, 11)+`)`,
		u.ID, u.Username, u.UsernameKey, u.Email, u.EmailKey, u.EmailVerified,
		u.Enabled, u.Profile, u.Locale, u.CreatedAt, u.UpdatedAt)
	if err != nil {
		return wrap(err, "insert user")
	}
	for _, role := range u.Roles {
		if err := t.GrantUserRole(ctx, u.ID, role, u.CreatedAt); err != nil {
			return err
		}
	}
	return nil
}

// UpdateUser implements storage.Tx.
func (t *Tx) UpdateUser(ctx context.Context, u storage.User) error {
	return wrap(affected(t.db.Exec(ctx, `UPDATE users SET email = $1, email_key = $2, email_verified = $3,
			profile = $4, locale = $5, updated_at = $6 WHERE id = $7`,
		u.Email, u.EmailKey, u.EmailVerified, u.Profile, u.Locale, u.UpdatedAt, u.ID)), "update user")
}

// SetUserEnabled implements storage.Tx.
func (t *Tx) SetUserEnabled(ctx context.Context, id string, enabled bool, at time.Time) error {
	return wrap(affected(t.db.Exec(ctx,
		`UPDATE users SET enabled = $1, updated_at = $2 WHERE id = $3`, enabled, at, id)), "enable or disable user")
}

// LockUser implements storage.Tx. To write a row as it is keeps other writers out.
func (t *Tx) LockUser(ctx context.Context, id string) error {
	return wrap(affected(t.db.Exec(ctx, `UPDATE users SET enabled = enabled WHERE id = $1`, id)), "lock user")
}

// DeleteUser implements storage.Tx.
func (t *Tx) DeleteUser(ctx context.Context, id string) error {
	return wrap(affected(t.db.Exec(ctx, `DELETE FROM users WHERE id = $1`, id)), "delete user")
}

// GrantUserRole implements storage.Tx.
func (t *Tx) GrantUserRole(ctx context.Context, userID, role string, at time.Time) error {
	_, err := t.db.Exec(ctx, `INSERT INTO user_roles (user_id, role, created_at) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, role) DO NOTHING`, userID, role, at)
	return wrap(err, "grant role to user")
}

// RevokeUserRole implements storage.Tx.
func (t *Tx) RevokeUserRole(ctx context.Context, userID, role string) error {
	return wrap(affected(t.db.Exec(ctx,
		`DELETE FROM user_roles WHERE user_id = $1 AND role = $2`, userID, role)), "revoke role of user")
}

// Password implements storage.Reader.
func (r *Reader) Password(ctx context.Context, userID string) (storage.Password, error) {
	var p storage.Password
	err := r.db.QueryRow(ctx, `SELECT user_id, secret, must_change, created_at, updated_at FROM credentials
		WHERE user_id = $1 AND kind = 'password'`, userID).
		Scan(&p.UserID, &p.Hash, boolOf{&p.MustChange}, timeOf{&p.CreatedAt}, timeOf{&p.UpdatedAt})
	if err != nil {
		return storage.Password{}, wrap(err, "read password")
	}
	return p, nil
}

// SetPassword implements storage.Tx.
func (t *Tx) SetPassword(ctx context.Context, p storage.Password) error {
	// A user has one password (credentials_one_password), so its row can be
	// named after the user.
	_, err := t.db.Exec(ctx, `INSERT INTO credentials
		(id, user_id, kind, name, secret, sealed, counter, must_change, created_at, updated_at, last_used_at)
		VALUES ($1, $2, 'password', '', $3, $4, 0, $5, $6, $7, 0)
		ON CONFLICT (id) DO UPDATE SET secret = excluded.secret, must_change = excluded.must_change,
			created_at = excluded.created_at, updated_at = excluded.updated_at`,
		"password:"+p.UserID, p.UserID, p.Hash, []byte{}, p.MustChange, p.CreatedAt, p.UpdatedAt)
	return wrap(err, "store password")
}

// UpdatePasswordHash implements storage.Tx.
func (t *Tx) UpdatePasswordHash(ctx context.Context, userID, from, to string, at time.Time) error {
	return wrap(affected(t.db.Exec(ctx, `UPDATE credentials SET secret = $1, last_used_at = $2
		WHERE user_id = $3 AND kind = 'password' AND secret = $4`, to, at, userID, from)), "update password hash")
}
