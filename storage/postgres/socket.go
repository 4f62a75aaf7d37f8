package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// silence is how long a server may say nothing to a question before the other
// connections to it count for nothing, too.
const silence = connectTimeout - 500*time.Millisecond

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
	from   *dialer
	failed atomic.Bool
	asked  atomic.Int64 // Unix nanoseconds: since when it waits for an answer; 0: it does not
}

// dialer makes sockets. When one of them gets no answer, it ends those that are
// idle: each would be tried in turn, and wait as long.
type dialer struct {
	dial pgconn.DialFunc

	mu   sync.Mutex // held while using open
	open map[*socket]bool
}

func newDialer(dial pgconn.DialFunc) *dialer {
	return &dialer{dial: dial, open: make(map[*socket]bool)}
}

// DialContext is a pgconn.DialFunc.
func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == nowhere.Network() {
		return nil, errors.New("nothing is cancelled")
	}
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: conn, from: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[s] = true
	return s, nil
}

// endIdle ends the sockets that wait for nothing.
func (d *dialer) endIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.open {
		if s.asked.Load() == 0 {
			s.failed.Store(true)
			_ = s.Conn.SetDeadline(time.Unix(1, 0)) // whoever listens is told, too
		}
	}
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	if s.failed.Load() {
		return 0, net.ErrClosed
	}
	n, err := s.Conn.Read(b)
	asked := s.asked.Load()
	if n > 0 {
		s.asked.Store(0)
	}
	if err != nil {
		s.failed.Store(true)
		if errors.Is(err, os.ErrDeadlineExceeded) && asked != 0 && time.Since(time.Unix(0, asked)) > silence {
			s.from.endIdle()
		}
	}
	return n, err
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	if s.failed.Load() {
		return 0, net.ErrClosed
	}
	s.asked.CompareAndSwap(0, time.Now().UnixNano())
	n, err := s.Conn.Write(b)
	if err != nil {
		s.failed.Store(true)
	}
	return n, err
}

// Close implements net.Conn.
func (s *socket) Close() error {
	s.from.mu.Lock()
	delete(s.from.open, s)
	s.from.mu.Unlock()
	return s.Conn.Close()
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
