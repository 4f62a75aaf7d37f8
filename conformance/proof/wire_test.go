package proof

import (
	"io"
	mrand "math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// wire is a network between two parties: it passes TCP connections on to an
// address, and a test can make it a bad one.
type wire struct {
	address  string // where it listens
	target   string
	listener net.Listener

	mu    sync.Mutex
	state trouble
	lines map[*line]bool
}

// trouble is what is wrong with a network; the zero value is nothing.
type trouble struct {
	latency time.Duration // each piece takes up to so long
	reset   bool          // connections are reset, new ones as soon as they are made
	silent  bool          // connections are made and stay, and nothing arrives
	loss    float64       // the chance of a piece to be lost for good, with all that come after it
}

// line is one connection.
type line struct {
	near, far *net.TCPConn
	dead      bool // something was lost: nothing arrives any more, ever
}

// newWire returns a network in front of an address, in good order.
func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &wire{address: l.Addr().String(), target: target, listener: l, lines: make(map[*line]bool)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.carry(near.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		all.Wait()
	})
	return w
}

// is makes the network as bad as s says, connections that exist included.
func (w *wire) is(s trouble) {
	w.mu.Lock()
	w.state = s
	w.mu.Unlock()
	if s.reset {
		w.cut()
	}
}

// cut resets every connection.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.lines {
		for _, c := range []*net.TCPConn{l.near, l.far} {
			_ = c.SetLinger(0) // RST, not FIN
			_ = c.Close()
		}
	}
}

func (w *wire) carry(near *net.TCPConn) {
	far, err := net.Dial("tcp", w.target)
	if err != nil {
		_ = near.SetLinger(0)
		_ = near.Close()
		return
	}
	l := &line{near: near, far: far.(*net.TCPConn)}
	w.mu.Lock()
	w.lines[l] = true
	reset := w.state.reset
	w.mu.Unlock()
	if reset {
		w.cut()
	}
	var both sync.WaitGroup
	both.Go(func() { w.pump(l, l.near, l.far) })
	both.Go(func() { w.pump(l, l.far, l.near) })
	both.Wait()
	w.mu.Lock()
	delete(w.lines, l)
	w.mu.Unlock()
	_ = l.near.Close()
	_ = l.far.Close()
}

// pump passes on what one side says. A line on which something was lost also
// swallows its own end.
func (w *wire) pump(l *line, from, to *net.TCPConn) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		w.mu.Lock()
		s := w.state
		if s.silent || s.loss > 0 && mrand.Float64() < s.loss {
			l.dead = true
		}
		dead := l.dead
		w.mu.Unlock()
		if s.latency > 0 {
			time.Sleep(mrand.N(s.latency))
		}
		if n > 0 && !dead {
			if _, werr := to.Write(piece[:n]); werr != nil {
				_, _ = io.Copy(io.Discard, from)
				return
			}
		}
		if err != nil {
			if !dead {
				_ = to.CloseWrite()
			}
			return
		}
	}
}
