package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const grantColumns = `id, client_id, user_id, session_id, offline,
	scopes, resources, auth_time, acr, amr, nonce, claims_request, redirect_uri, code_challenge,
	code_expires_at, code_used_at, seed, generation, key_version, rotated_at, idle_end, absolute_end,
	bound_jkt, status_index, created_at, revoked_at, revoke_reason, subject, sid`

func scanGrant(row Row, g *storage.Grant) error { return row.Scan(grantTargets(g)...) }

// grantTargets are what grantColumns are scanned into.
func grantTargets(g *storage.Grant) []any {
	return []any{&g.ID, &g.ClientID, &g.UserID, &g.SessionID, boolOf{&g.Offline},
		listOf{&g.Scopes}, listOf{&g.Resources}, timeOf{&g.AuthTime}, &g.ACR, listOf{&g.AMR}, &g.Nonce, &g.ClaimsRequest,
		&g.RedirectURI, &g.CodeChallenge, timeOf{&g.CodeExpiresAt}, timeOf{&g.CodeUsedAt}, bytesOf{&g.Seed}, &g.Generation,
		&g.KeyVersion, timeOf{&g.RotatedAt}, timeOf{&g.IdleEnd}, timeOf{&g.AbsoluteEnd},
		&g.BoundJKT, &g.StatusIndex, timeOf{&g.CreatedAt}, timeOf{&g.RevokedAt}, &g.RevokeReason, &g.Subject, &g.SID}
}

// Grant implements storage.Reader.
func (r *Reader) Grant(ctx context.Context, id string) (storage.Grant, error) {
	var g storage.Grant
	if err := scanGrant(r.db.QueryRow(ctx, `SELECT `+grantColumns+` FROM grants WHERE id = $1`, id), &g); err != nil {
		return storage.Grant{}, wrap(err, "read grant")
	}
	return g, nil
}

// GrantsOfUser implements storage.Reader.
func (r *Reader) GrantsOfUser(ctx context.Context, userID string, now time.Time) ([]storage.Grant, error) {
	grants, err := collect(ctx, r.db, scanGrant, `SELECT `+grantColumns+` FROM grants
		WHERE user_id = $1 AND revoked_at = 0 AND idle_end > $2 AND absolute_end > $2 ORDER BY id`, userID, now)
	return grants, wrap(err, "list grants")
}

// PairwiseSubjects implements storage.Reader.
func (r *Reader) PairwiseSubjects(ctx context.Context, userID string) ([]string, error) {
	subs, err := collect(ctx, r.db, scanText, `SELECT DISTINCT subject FROM grants
		WHERE user_id = $1 AND subject <> '' ORDER BY subject`, userID)
	return subs, wrap(err, "list pairwise subjects")
}

// PairwiseUser implements storage.Reader.
func (r *Reader) PairwiseUser(ctx context.Context, subject string) (string, error) {
	var id string
	err := r.db.QueryRow(ctx, `SELECT user_id FROM grants WHERE subject = $1 AND sid <> '' LIMIT 1`, subject).Scan(&id)
	return id, wrap(err, "read pairwise subject")
}

// PairwiseSIDs implements storage.Reader.
func (r *Reader) PairwiseSIDs(ctx context.Context, sessionID string) ([]string, error) {
	sids, err := collect(ctx, r.db, scanText, `SELECT DISTINCT sid FROM grants
		WHERE session_id = $1 AND revoked_at = 0 AND offline = 0 ORDER BY sid`, sessionID)
	if len(sids) > 0 && sids[0] == "" { // public clients'; asked for the others alone, PostgreSQL would read an index of all of them
		sids = sids[1:]
	}
	return sids, wrap(err, "list pairwise sids")
}

// PairwiseSession implements storage.Reader.
func (r *Reader) PairwiseSession(ctx context.Context, sid string) (string, error) {
	var id string
	err := r.db.QueryRow(ctx, `SELECT session_id FROM grants WHERE sid = $1 AND sid <> '' LIMIT 1`, sid).Scan(&id)
	return id, wrap(err, "read pairwise sid")
}

// CreateGrant implements storage.Tx. A grant ends with its code until that is
// redeemed, so that a code nobody fetched goes like any other grant that ended.
func (t *Tx) CreateGrant(ctx context.Context, g storage.Grant) error {
	var never time.Time
	_, err := t.db.Exec(ctx, `INSERT INTO grants (`+grantColumns+`) VALUES (`+placeholders(1, 29)+`)`,
		g.ID, g.ClientID, g.UserID, g.SessionID, g.Offline,
		g.Scopes, g.Resources, g.AuthTime, g.ACR, g.AMR, g.Nonce, g.ClaimsRequest,
		g.RedirectURI, g.CodeChallenge, g.CodeExpiresAt, never, g.Seed, 0,
		g.KeyVersion, never, g.CodeExpiresAt, g.CodeExpiresAt,
		g.BoundJKT, g.StatusIndex, g.CreatedAt, never, "", g.Subject, g.SID)
	return wrap(err, "insert grant")
}

// RedeemCode implements storage.Tx. One conditional statement decides.
func (t *Tx) RedeemCode(ctx context.Context, id string, now time.Time, r storage.Redemption) error {
	return wrap(consumed(t.db.Exec(ctx, `UPDATE grants
		SET code_used_at = $1, generation = 1, key_version = $2, idle_end = $3, absolute_end = $4
		WHERE id = $5 AND code_used_at = 0 AND code_expires_at > $1 AND revoked_at = 0`,
		now, r.KeyVersion, r.IdleEnd, r.AbsoluteEnd, id)), "redeem code")
}

// RotateGrant implements storage.Tx. One conditional statement decides. It
// writes no column that an index names, which keeps it cheap in PostgreSQL.
func (t *Tx) RotateGrant(ctx context.Context, id string, from int64, now time.Time, keyVersion string, idleEnd time.Time) error {
	return wrap(consumed(t.db.Exec(ctx, `UPDATE grants
		SET generation = generation + 1, rotated_at = $1, key_version = $2, idle_end = $3
		WHERE id = $4 AND generation = $5 AND code_used_at > 0 AND revoked_at = 0
			AND idle_end > $1 AND absolute_end > $1`,
		now, keyVersion, idleEnd, id, from)), "rotate grant")
}

// RevokeGrant implements storage.Tx.
func (t *Tx) RevokeGrant(ctx context.Context, id string, at time.Time, reason string) (bool, error) {
	n, err := t.db.Exec(ctx, `UPDATE grants SET revoked_at = $1, revoke_reason = $2
		WHERE id = $3 AND revoked_at = 0`, at, reason, id)
	return n > 0, wrap(err, "revoke grant")
}

// RevokeGrants implements storage.Tx.
func (t *Tx) RevokeGrants(ctx context.Context, f storage.GrantFilter, at time.Time, reason string) ([]string, error) {
	args := []any{at, reason}
	where := []string{`revoked_at = 0`} // as the indexes say: each batch finds only what is left
	add := func(condition, value string) {
		if value != "" {
			args = append(args, value)
			where = append(where, fmt.Sprintf(condition, len(args)))
		}
	}
	add(`user_id = $%d`, f.UserID)
	add(`client_id = $%d`, f.ClientID)
	add(`session_id = $%d AND offline = 0`, f.SessionID)
	if len(where) == 1 {
		return nil, t.db.keep(fmt.Errorf("revoke grants: %w: of whom?", storage.ErrInvalid))
	}
	condition := strings.Join(where, ` AND `)
	if f.Limit > 0 {
		args = append(args, f.Limit)
		condition = fmt.Sprintf(`revoked_at = 0 AND id IN (SELECT id FROM grants WHERE %s LIMIT $%d)`, condition, len(args))
	}
	ids, err := collect(ctx, t.db, scanText,
		`UPDATE grants SET revoked_at = $1, revoke_reason = $2 WHERE `+condition+` RETURNING id`, args...)
	return ids, wrap(err, "revoke grants")
}
