package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const auditColumns = `id, at, event, actor, user_id, client_id, address, request_id, detail`

func scanAuditEvent(row Row, e *storage.AuditEvent) error {
	return row.Scan(&e.ID, timeOf{&e.At}, &e.Event, &e.Actor, &e.UserID, &e.ClientID, &e.Address, &e.RequestID, &e.Detail)
}

// AuditEvents implements storage.Reader. Each of the columns it selects by has
// an index that goes on with the time, so that a page costs what is on it.
func (r *Reader) AuditEvents(ctx context.Context, f storage.AuditFilter) ([]storage.AuditEvent, error) {
	var where []string
	var args []any
	add := func(condition string, value any) {
		args = append(args, value)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if f.UserID != "" {
		add(`user_id = $%d`, f.UserID)
	}
	if f.ClientID != "" {
		add(`client_id = $%d`, f.ClientID)
	}
	if !f.Since.IsZero() {
		add(`at >= $%d`, f.Since)
	}
	if f.Before != "" {
		var at time.Time
		if err := r.db.QueryRow(ctx, `SELECT at FROM audit_events WHERE id = $1`, f.Before).Scan(timeOf{&at}); err != nil {
			return nil, wrap(err, "find audit event")
		}
		add(`at <= $%d`, at)
		args = append(args, at, f.Before)
		where = append(where, fmt.Sprintf(`(at < $%d OR id < $%d)`, len(args)-1, len(args)))
	}
	query := `SELECT ` + auditColumns + ` FROM audit_events`
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	args = append(args, f.Limit)
	query += fmt.Sprintf(` ORDER BY at DESC, id DESC LIMIT $%d`, len(args))
	events, err := collect(ctx, r.db, scanAuditEvent, query, args...)
	return events, wrap(err, "list audit events")
}

// PruneAudit implements storage.Tx.
func (t *Tx) PruneAudit(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := t.db.Exec(ctx, `DELETE FROM audit_events WHERE id IN (
		SELECT id FROM audit_events WHERE at <= $1 ORDER BY at LIMIT $2)`, before, limit)
	return int(n), wrap(err, "prune audit events")
}

// AppendAudit implements storage.Tx.
func (t *Tx) AppendAudit(ctx context.Context, e storage.AuditEvent) error {
	_, err := t.db.Exec(ctx, `INSERT INTO audit_events (`+auditColumns+`) VALUES (`+placeholders(1, 9)+`)`,
		e.ID, e.At, e.Event, e.Actor, e.UserID, e.ClientID, e.Address, e.RequestID, e.Detail)
	return wrap(err, "insert audit event")
}
