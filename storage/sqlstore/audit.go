package sqlstore

import (
	"context"

	"github.com/signet-oidc/signet/storage"
)

const auditColumns = `id, at, event, actor, user_id, client_id, address, request_id, detail`

func scanAuditEvent(row Row, e *storage.AuditEvent) error {
	return row.Scan(&e.ID, timeOf{&e.At}, &e.Event, &e.Actor, &e.UserID, &e.ClientID, &e.Address, &e.RequestID, &e.Detail)
}

// AuditEvents implements storage.Reader.
func (r *Reader) AuditEvents(ctx context.Context, page storage.Page) ([]storage.AuditEvent, error) {
	events, err := collect(ctx, r.db, scanAuditEvent,
		`SELECT `+auditColumns+` FROM audit_events WHERE id > $1 ORDER BY id LIMIT $2`, page.After, page.Limit)
	return events, wrap(err, "list audit events")
}

// AppendAudit implements storage.Tx.
func (t *Tx) AppendAudit(ctx context.Context, e storage.AuditEvent) error {
	_, err := t.db.Exec(ctx, `INSERT INTO audit_events (`+auditColumns+`) VALUES (`+placeholders(1, 9)+`)`,
		e.ID, e.At, e.Event, e.Actor, e.UserID, e.ClientID, e.Address, e.RequestID, e.Detail)
	return wrap(err, "insert audit event")
}
