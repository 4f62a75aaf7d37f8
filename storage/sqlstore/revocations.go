package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const revocationColumns = `seq, kind, hash, effect, not_before, until, reason, chain, created_at`

func scanRevocation(row Row, r *storage.Revocation) error {
	return row.Scan(&r.Seq, &r.Key.Kind, bytesOf{&r.Key.Hash}, &r.Effect,
		timeOf{&r.NotBefore}, timeOf{&r.Until}, &r.Reason, bytesOf{&r.Chain}, timeOf{&r.CreatedAt})
}

// maxRevocationKeys is how many keys one statement looks up.
const maxRevocationKeys = 64

// Revocations implements storage.Reader. It is on the path of every
// introspection: one statement for all keys. Its callers ask for a handful of
// keys, so the statements are few and each stays prepared.
func (r *Reader) Revocations(ctx context.Context, keys []storage.RevocationKey, now time.Time) ([]storage.Revocation, error) {
	var found []storage.Revocation
	for chunk := range slices.Chunk(keys, maxRevocationKeys) {
		args := make([]any, 0, 1+len(chunk))
		args = append(args, now)
		for _, key := range chunk {
			args = append(args, key.Hash)
		}
		// Only the latest entry for a (kind, hash) counts, ended or not.
		rows, err := collect(ctx, r.db, scanRevocation, `SELECT `+revocationColumns+` FROM revocations AS r
			WHERE (r.until > $1 OR r.until = 0) AND r.hash IN (`+placeholders(2, len(chunk))+`)
			AND NOT EXISTS (SELECT 1 FROM revocations AS later
				WHERE later.hash = r.hash AND later.kind = r.kind AND later.seq > r.seq)`, args...)
		if err != nil {
			return nil, wrap(err, "look up revocations")
		}
		for _, row := range rows {
			same := func(k storage.RevocationKey) bool {
				return k.Kind == row.Key.Kind && string(k.Hash) == string(row.Key.Hash)
			}
			if slices.ContainsFunc(chunk, same) {
				found = append(found, row)
			}
		}
	}
	return found, nil
}

// RevocationLog implements storage.Reader.
func (r *Reader) RevocationLog(ctx context.Context) (storage.RevocationLog, error) {
	var l storage.RevocationLog
	err := r.db.QueryRow(ctx, `SELECT feed_id, last_seq, chain_head FROM feed_state WHERE id = 1`).
		Scan(&l.FeedID, &l.Seq, bytesOf{&l.Chain})
	if err != nil {
		return storage.RevocationLog{}, wrap(err, "read revocation log")
	}
	return l, nil
}

// RevocationsAfter implements storage.Reader.
func (r *Reader) RevocationsAfter(ctx context.Context, seq int64, limit int) ([]storage.Revocation, error) {
	list, err := collect(ctx, r.db, scanRevocation, `SELECT `+revocationColumns+` FROM revocations
		WHERE seq > $1 ORDER BY seq LIMIT $2`, seq, limit)
	return list, wrap(err, "read revocations")
}

// EachRevocation implements storage.Reader. A million rows pass through it, so
// none is kept and no more of each is read than a verifier needs. To find the
// latest entry for each key here would take as many look-ups all over the index.
func (r *Reader) EachRevocation(ctx context.Context, visit func(storage.Revocation) error) error {
	rows, err := r.db.Query(ctx, `SELECT seq, kind, hash, effect, not_before, until FROM revocations`)
	if err != nil {
		return wrap(err, "list revocations")
	}
	defer rows.Close()
	for rows.Next() {
		var e storage.Revocation
		if err := rows.Scan(&e.Seq, &e.Key.Kind, bytesOf{&e.Key.Hash}, &e.Effect, timeOf{&e.NotBefore}, timeOf{&e.Until}); err != nil {
			return wrap(err, "list revocations")
		}
		if err := visit(e); err != nil {
			return err
		}
	}
	return wrap(rows.Err(), "list revocations")
}

// StartRevocationLog implements storage.Tx.
func (t *Tx) StartRevocationLog(ctx context.Context) error {
	_, err := t.db.Exec(ctx, `INSERT INTO feed_state (id, feed_id, last_seq, chain_head) VALUES (1, $1, 0, $2)
		ON CONFLICT (id) DO NOTHING`, rand.Text(), []byte{})
	return wrap(err, "start revocation log")
}

// RestartRevocationLog implements storage.Tx.
func (t *Tx) RestartRevocationLog(ctx context.Context) error {
	if err := t.StartRevocationLog(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `UPDATE feed_state SET feed_id = $1 WHERE id = 1`, rand.Text())
	t.logLocked = err == nil
	return wrap(err, "restart revocation log")
}

// AppendRevocation implements storage.Tx. Updating the feed's one row is the
// log's lock, as in LockRegistry.
func (t *Tx) AppendRevocation(ctx context.Context, r storage.Revocation) (int64, error) {
	var prev []byte
	next := func() error {
		return t.db.QueryRow(ctx, `UPDATE feed_state SET last_seq = last_seq + 1 WHERE id = 1
			RETURNING last_seq, chain_head`).Scan(&r.Seq, bytesOf{&prev})
	}
	err := next()
	if errors.Is(err, storage.ErrNotFound) { // the very first entry makes the feed
		if err = t.StartRevocationLog(ctx); err == nil {
			err = next()
		}
	}
	if err != nil {
		return 0, wrap(err, "lock revocation log")
	}
	t.logLocked = true
	if r.Effect == storage.EffectEpoch {
		var effect string
		var notBefore time.Time
		err := t.db.QueryRow(ctx, `SELECT effect, not_before FROM revocations WHERE hash = $1 AND kind = $2
			ORDER BY seq DESC LIMIT 1`, r.Key.Hash, r.Key.Kind).Scan(&effect, timeOf{&notBefore})
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return 0, wrap(err, "read the latest revocation")
		}
		if effect == storage.EffectEpoch && notBefore.After(r.NotBefore) {
			r.NotBefore = notBefore
		}
	}
	r.Chain = r.ChainAfter(prev)
	if _, err := t.db.Exec(ctx, `INSERT INTO revocations (`+revocationColumns+`) VALUES (`+placeholders(1, 9)+`)`,
		r.Seq, r.Key.Kind, r.Key.Hash, r.Effect, r.NotBefore, r.Until, r.Reason, r.Chain, r.CreatedAt); err != nil {
		return 0, wrap(err, "append revocation")
	}
	if _, err := t.db.Exec(ctx, `UPDATE feed_state SET chain_head = $1 WHERE id = 1`, r.Chain); err != nil {
		return 0, wrap(err, "advance revocation log")
	}
	return r.Seq, nil
}
