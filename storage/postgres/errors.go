package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/signet-oidc/signet/storage"
)

// classify wraps err in the storage sentinel that it amounts to, if any. The
// text of err stays, except that PostgreSQL's detail, which quotes values, is
// never part of it.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if sentinel := sentinelOf(err); sentinel != nil && !errors.Is(err, sentinel) {
		var server *pgconn.PgError
		if errors.As(err, &server) && server.Code == "53100" { // disk_full
			return fmt.Errorf("%w: nothing can be written until there is space on the disk of the database: %w", sentinel, err)
		}
		return fmt.Errorf("%w: %w", sentinel, err)
	}
	return err
}

func sentinelOf(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil // the caller left; nobody is at fault
	}
	var connect *pgconn.ConnectError
	var server *pgconn.PgError
	var network net.Error
	switch {
	case errors.As(err, &connect):
		return storage.ErrUnavailable
	case errors.As(err, &server):
		return sentinelOfState(server.Code)
	case errors.Is(err, pgx.ErrNoRows):
		return storage.ErrNotFound
	case errors.As(err, &network),
		errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, puddle.ErrClosedPool), pgconn.SafeToRetry(err):
		return storage.ErrUnavailable
	}
	return nil
}

// readOnly is read_only_sql_transaction: the server is a standby, or is to be one.
const readOnly = "25006"

// sentinelOfState maps SQLSTATE codes (PostgreSQL manual, appendix A).
func sentinelOfState(code string) error {
	switch code {
	case "23505": // unique_violation
		return storage.ErrExists
	case "23503": // foreign_key_violation
		return storage.ErrReference
	case "22021", "22P05", // character_not_in_repertoire, untranslatable_character
		"54000": // program_limit_exceeded: a key too long for its index
		return storage.ErrInvalid
	case readOnly,
		"25P03", // idle_in_transaction_session_timeout
		"40003", // statement_completion_unknown
		"55P03": // lock_not_available
		return storage.ErrUnavailable
	}
	switch code[:min(2, len(code))] {
	case "08", // connection exceptions
		"53", // insufficient resources: disk full, out of memory, too many connections
		"57", // operator intervention: shutdown, starting up, statement_timeout
		"58": // system error: I/O
		return storage.ErrUnavailable
	}
	return nil
}

// lostRace reports whether the transaction was undone only because of others
// and may succeed when it is tried again.
func lostRace(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) &&
		(server.Code == "40001" || server.Code == "40P01") // serialization_failure, deadlock_detected
}
