package sqlstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/signet-oidc/signet/storage"
)

func scanConsent(row Row, c *storage.Consent) error {
	return row.Scan(&c.UserID, &c.ClientID, &c.Scope, &c.Resource, boolOf{&c.Implicit}, timeOf{&c.GrantedAt})
}

// Consents implements storage.Reader.
func (r *Reader) Consents(ctx context.Context, userID, clientID string) ([]storage.Consent, error) {
	return r.consents(ctx, `user_id = $1 AND client_id = $2`, userID, clientID)
}

// ConsentsOfUser implements storage.Reader.
func (r *Reader) ConsentsOfUser(ctx context.Context, userID string) ([]storage.Consent, error) {
	return r.consents(ctx, `user_id = $1`, userID)
}

func (r *Reader) consents(ctx context.Context, where string, args ...any) ([]storage.Consent, error) {
	list, err := collect(ctx, r.db, scanConsent, `SELECT user_id, client_id, scope, resource_uri, implicit, granted_at
		FROM consents WHERE `+where, args...)
	// Sorted here, because a database sorts these columns by its own locale.
	slices.SortFunc(list, func(a, b storage.Consent) int {
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Scope, b.Scope))
	})
	return list, wrap(err, "list consents")
}

// ConsentHost implements storage.Reader.
func (r *Reader) ConsentHost(ctx context.Context, userID, clientID, host string) (bool, error) {
	var n int
	err := r.db.QueryRow(ctx, `SELECT COUNT(*) FROM consent_hosts WHERE user_id = $1 AND client_id = $2 AND host = $3`,
		userID, clientID, host).Scan(&n)
	return n > 0, wrap(err, "read consent host")
}

// PutConsents implements storage.Tx.
func (t *Tx) PutConsents(ctx context.Context, consents []storage.Consent) error {
	for _, c := range consents {
		if _, err := t.db.Exec(ctx, `INSERT INTO consents (user_id, client_id, scope, resource_uri, implicit, granted_at)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (user_id, client_id, scope, resource_uri)
			DO UPDATE SET implicit = excluded.implicit, granted_at = excluded.granted_at
			WHERE consents.implicit > excluded.implicit`,
			c.UserID, c.ClientID, c.Scope, c.Resource, c.Implicit, c.GrantedAt); err != nil {
			return wrap(err, "store consent")
		}
	}
	return nil
}

// PutConsentHost implements storage.Tx.
func (t *Tx) PutConsentHost(ctx context.Context, userID, clientID, host string, at time.Time) error {
	_, err := t.db.Exec(ctx, `INSERT INTO consent_hosts (user_id, client_id, host, granted_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, client_id, host) DO NOTHING`, userID, clientID, host, at)
	return wrap(err, "store consent host")
}

// DeleteConsents implements storage.Tx.
func (t *Tx) DeleteConsents(ctx context.Context, userID, clientID string) (int, error) {
	if _, err := t.db.Exec(ctx, `DELETE FROM consent_hosts WHERE user_id = $1 AND client_id = $2`, userID, clientID); err != nil {
		return 0, wrap(err, "delete consent hosts")
	}
	n, err := t.db.Exec(ctx, `DELETE FROM consents WHERE user_id = $1 AND client_id = $2`, userID, clientID)
	return int(n), wrap(err, "delete consents")
}
