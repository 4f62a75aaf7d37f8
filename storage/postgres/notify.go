package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is what replicas listen to for new entries of the revocation log.
const channel = "signet_revocations"

// relisten is how long a broken listener waits before it connects again.
const relisten = time.Second

// announce tells the listeners when, and only if, the transaction commits.
func announce(ctx context.Context, tx querier) error {
	_, err := tx.Exec(ctx, `SELECT pg_notify($1, '')`, channel)
	return err
}

// Changes implements storage.Store with LISTEN, on a connection of its own.
// Where that cannot be had, behind a transaction-mode pooler for one, nothing
// is announced.
func (s *Store) Changes(ctx context.Context) <-chan struct{} {
	changes := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			s.listen(ctx, changes)
			select {
			case <-ctx.Done():
			case <-time.After(relisten):
			}
		}
	}()
	return changes
}

// listen passes announcements on until the connection breaks.
func (s *Store) listen(ctx context.Context, changes chan<- struct{}) {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return // the pool's callers find out, and say so
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
		return
	}
	for {
		// Also after LISTEN: something may have been appended before it.
		select {
		case changes <- struct{}{}:
		default: // one that is not read yet says as much
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return
		}
	}
}
