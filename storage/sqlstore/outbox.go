package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// In the outbox next_attempt_at is 0 for what was given up, so that its index
// finds what is due and what failed; what was delivered has no row.
const outboxColumns = `id, kind, target, payload, attempts, next_attempt_at, last_error, created_at`

func scanDelivery(row Row, d *storage.Delivery) error {
	return row.Scan(&d.ID, &d.Kind, &d.ClientID, &d.Payload, &d.Attempts, timeOf{&d.NextAttemptAt}, &d.LastError, timeOf{&d.CreatedAt})
}

// LogoutTargets implements storage.Reader.
func (r *Reader) LogoutTargets(ctx context.Context, userID string) ([]storage.LogoutTarget, error) {
	list, err := collect(ctx, r.db, func(row Row, t *storage.LogoutTarget) error {
		return row.Scan(&t.ClientID, &t.SessionID, &t.Subject, &t.SID, boolOf{&t.BackChannel}, boolOf{&t.FrontChannel})
	}, `SELECT DISTINCT grants.client_id, grants.session_id, grants.subject, grants.sid,
			CASE WHEN clients.backchannel_logout_uri <> '' THEN 1 ELSE 0 END,
			CASE WHEN clients.frontchannel_logout_uri <> '' THEN 1 ELSE 0 END
		FROM grants JOIN clients ON clients.id = grants.client_id
		WHERE grants.user_id = $1 AND grants.revoked_at = 0 AND grants.scopes LIKE '%"openid"%'
			AND clients.enabled = 1 AND (clients.backchannel_logout_uri <> '' OR clients.frontchannel_logout_uri <> '')
		ORDER BY grants.client_id, grants.session_id, grants.sid`, userID)
	return list, wrap(err, "list clients to tell of a logout")
}

// DeliveryDue implements storage.Reader.
func (r *Reader) DeliveryDue(ctx context.Context, now time.Time) (bool, error) {
	ids, err := collect(ctx, r.db, scanText, `SELECT id FROM outbox
		WHERE next_attempt_at > 0 AND next_attempt_at <= $1 LIMIT 1`, now)
	return len(ids) > 0, wrap(err, "look for deliveries")
}

// Deliveries implements storage.Reader.
func (r *Reader) Deliveries(ctx context.Context, f storage.DeliveryFilter) ([]storage.Delivery, error) {
	failed := ``
	if f.Failed {
		failed = ` AND next_attempt_at = 0`
	}
	list, err := collect(ctx, r.db, scanDelivery, `SELECT `+outboxColumns+` FROM outbox
		WHERE id > $1`+failed+` ORDER BY id LIMIT $2`, f.After, f.Limit)
	return list, wrap(err, "list deliveries")
}

// Backlog implements storage.Reader.
func (r *Reader) Backlog(ctx context.Context) (storage.Backlog, error) {
	var b storage.Backlog
	err := r.db.QueryRow(ctx, `SELECT count(*),
			COALESCE(sum(CASE WHEN next_attempt_at = 0 THEN 1 ELSE 0 END), 0),
			COALESCE(min(CASE WHEN next_attempt_at > 0 THEN created_at END), 0) FROM outbox`).
		Scan(&b.Pending, &b.Failed, timeOf{&b.Oldest})
	b.Pending -= b.Failed
	return b, wrap(err, "count deliveries")
}

// CreateDelivery implements storage.Tx.
func (t *Tx) CreateDelivery(ctx context.Context, d storage.Delivery) error {
	var never time.Time
	_, err := t.db.Exec(ctx, `INSERT INTO outbox (`+outboxColumns+`, delivered_at) VALUES (`+placeholders(1, 9)+`)`,
		d.ID, d.Kind, d.ClientID, d.Payload, 0, d.NextAttemptAt, "", d.CreatedAt, never)
	return wrap(err, "insert delivery")
}

// ClaimDeliveries implements storage.Tx. One conditional statement decides.
func (t *Tx) ClaimDeliveries(ctx context.Context, c storage.DeliveryClaim) ([]storage.Delivery, error) {
	args := []any{c.Until, c.Now}
	except := ``
	if len(c.Except) > 0 {
		except = ` AND target NOT IN (` + placeholders(len(args)+1, len(c.Except)) + `)`
		for _, id := range c.Except {
			args = append(args, id)
		}
	}
	args = append(args, c.Limit)
	limit := fmt.Sprintf(` ORDER BY next_attempt_at LIMIT $%d`, len(args))
	list, err := collect(ctx, t.db, scanDelivery, `UPDATE outbox SET next_attempt_at = $1, attempts = attempts + 1
		WHERE next_attempt_at > 0 AND next_attempt_at <= $2 AND id IN (SELECT id FROM outbox
			WHERE next_attempt_at > 0 AND next_attempt_at <= $2`+except+limit+`)
		RETURNING `+outboxColumns, args...)
	return list, wrap(err, "claim deliveries")
}

// RetryDelivery implements storage.Tx.
func (t *Tx) RetryDelivery(ctx context.Context, id string, attempt int64, next time.Time, cause string) error {
	_, err := t.db.Exec(ctx, `UPDATE outbox SET next_attempt_at = $1, last_error = $2
		WHERE id = $3 AND attempts = $4`, next, cause, id, attempt)
	return wrap(err, "put off delivery")
}

// DeleteDelivery implements storage.Tx.
func (t *Tx) DeleteDelivery(ctx context.Context, id string) error {
	_, err := t.db.Exec(ctx, `DELETE FROM outbox WHERE id = $1`, id)
	return wrap(err, "delete delivery")
}
