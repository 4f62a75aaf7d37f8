package sqlstore

import (
	"context"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const sessionColumns = `id, secret_hash, user_id, auth_time, acr, amr, user_agent, address,
	created_at, last_seen_at, idle_end, absolute_end, ended_at, end_reason`

func scanSession(row Row, s *storage.Session) error { return row.Scan(sessionTargets(s)...) }

// sessionTargets are what sessionColumns are scanned into.
func sessionTargets(s *storage.Session) []any {
	return []any{&s.ID, bytesOf{&s.SecretHash}, &s.UserID, timeOf{&s.AuthTime}, &s.ACR, listOf{&s.AMR}, &s.UserAgent, &s.Address,
		timeOf{&s.CreatedAt}, timeOf{&s.LastSeenAt}, timeOf{&s.IdleEnd}, timeOf{&s.AbsoluteEnd}, timeOf{&s.EndedAt}, &s.EndReason}
}

// Session implements storage.Reader.
func (r *Reader) Session(ctx context.Context, id string) (storage.Session, error) {
	var s storage.Session
	if err := scanSession(r.db.QueryRow(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE id = $1`, id), &s); err != nil {
		return storage.Session{}, wrap(err, "read session")
	}
	return s, nil
}

// Sessions implements storage.Reader.
func (r *Reader) Sessions(ctx context.Context, userID string, now time.Time) ([]storage.Session, error) {
	sessions, err := collect(ctx, r.db, scanSession, `SELECT `+sessionColumns+` FROM sessions
		WHERE user_id = $1 AND ended_at = 0 AND idle_end > $2 AND absolute_end > $2
		ORDER BY last_seen_at DESC, id`, userID, now)
	return sessions, wrap(err, "list sessions")
}

// CreateSession implements storage.Tx.
func (t *Tx) CreateSession(ctx context.Context, s storage.Session) error {
	_, err := t.db.Exec(ctx, `INSERT INTO sessions (`+sessionColumns+`) VALUES (`+placeholders(1, 14)+`)`,
		s.ID, s.SecretHash, s.UserID, s.AuthTime, s.ACR, s.AMR, s.UserAgent, s.Address,
		s.CreatedAt, s.LastSeenAt, s.IdleEnd, s.AbsoluteEnd, s.EndedAt, s.EndReason)
	return wrap(err, "insert session")
}

// TouchSession implements storage.Tx.
func (t *Tx) TouchSession(ctx context.Context, id string, lastSeen, idleEnd time.Time) error {
	return wrap(affected(t.db.Exec(ctx, `UPDATE sessions SET
			last_seen_at = CASE WHEN last_seen_at < $1 THEN $1 ELSE last_seen_at END,
			idle_end = CASE WHEN idle_end < $2 THEN $2 ELSE idle_end END
		WHERE id = $3 AND ended_at = 0 AND idle_end > $1 AND absolute_end > $1`, lastSeen, idleEnd, id)), "touch session")
}

// RenewSession implements storage.Tx.
func (t *Tx) RenewSession(ctx context.Context, s storage.Session) error {
	return wrap(affected(t.db.Exec(ctx, `UPDATE sessions SET secret_hash = $1, auth_time = $2, acr = $3, amr = $4,
			user_agent = $5, address = $6, last_seen_at = $7, idle_end = $8, absolute_end = $9
		WHERE id = $10 AND user_id = $11 AND ended_at = 0`,
		s.SecretHash, s.AuthTime, s.ACR, s.AMR, s.UserAgent, s.Address, s.LastSeenAt, s.IdleEnd, s.AbsoluteEnd,
		s.ID, s.UserID)), "renew session")
}

// EndSession implements storage.Tx.
func (t *Tx) EndSession(ctx context.Context, id string, at time.Time, reason string) error {
	return wrap(affected(t.db.Exec(ctx, `UPDATE sessions SET ended_at = $1, end_reason = $2
		WHERE id = $3 AND ended_at = 0`, at, reason, id)), "end session")
}

// EndSessions implements storage.Tx.
func (t *Tx) EndSessions(ctx context.Context, userID, exceptID string, at time.Time, reason string) ([]string, error) {
	ids, err := collect(ctx, t.db, scanText, `UPDATE sessions SET ended_at = $1, end_reason = $2
		WHERE user_id = $3 AND id <> $4 AND ended_at = 0 RETURNING id`, at, reason, userID, exceptID)
	return ids, wrap(err, "end sessions")
}
