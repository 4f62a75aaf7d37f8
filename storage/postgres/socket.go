package postgres

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// socket is a connection to the server that ends at its first failure and says
// nothing more then. pgx would do two things otherwise:
//
// It would ask the server to cancel what was under way. Of a commit that waits
// for a synchronous standby, this cancels the wait: the transaction counts from
// then on, though no standby has it, and whoever asks next is answered with what
// is lost if the primary dies. Statements end by statement_timeout anyway.
//
// And it would wait up to 15 s for the server to close, keeping the connection's
// place in the pool: the server that does not answer may be the one that died.
type socket struct {
	net.Conn
	failed atomic.Bool
}

// dialer makes dial return sockets.
func dialer(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == nowhere.Network() {
			return nil, errors.New("nothing is cancelled")
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &socket{Conn: conn}, nil
	}
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) { return s.once(s.Conn.Read, b) }

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) { return s.once(s.Conn.Write, b) }

func (s *socket) once(do func([]byte) (int, error), b []byte) (int, error) {
	if s.failed.Load() {
		return 0, net.ErrClosed
	}
	n, err := do(b)
	if err != nil {
		s.failed.Store(true)
	}
	return n, err
}

// nowhere is where a request to cancel would go.
const nowhere = noAddress("nowhere")

// noAddress implements net.Addr.
type noAddress string

// Network implements net.Addr.
func (a noAddress) Network() string { return string(a) }

// String implements net.Addr.
func (a noAddress) String() string { return string(a) }

// RemoteAddr implements net.Conn. pgx asks it only where to send a request to cancel.
func (s *socket) RemoteAddr() net.Addr { return nowhere }
