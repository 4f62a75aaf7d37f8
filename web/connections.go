package web

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections bounds how many connections a server holds, so that strangers
// who keep them open take neither its memory nor the files that its database
// needs. A connection more than that costs the one that has waited longest for
// a request, or is closed itself if none waits.
type connections struct {
	most    int
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time

	mu      sync.Mutex
	open    map[net.Conn]*list.Element // nil while a request is under way
	waiting *list.List                 // of those without one, the longest first
	warned  time.Time
}

// LimitConnections lets srv hold at most so many connections.
func (s *Server) LimitConnections(srv *http.Server, most int) {
	c := &connections{most: most, metrics: s.metrics, log: s.log, now: s.now, open: make(map[net.Conn]*list.Element), waiting: list.New()}
	srv.ConnState = c.changed
}

func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.open[conn]; e != nil {
		c.waiting.Remove(e)
	}
	switch state {
	case http.StateNew:
		if len(c.open) >= c.most && !c.shed() {
			_ = conn.Close()
			return
		}
		c.open[conn] = c.waiting.PushBack(conn)
	case http.StateIdle:
		if _, ok := c.open[conn]; ok { // and was not closed meanwhile
			c.open[conn] = c.waiting.PushBack(conn)
		}
	case http.StateActive:
		if _, ok := c.open[conn]; ok {
			c.open[conn] = nil
		}
	default: // closed, or no longer the server's
		delete(c.open, conn)
	}
	c.metrics.connections.Set(float64(len(c.open)))
}

// shed closes the connection that has waited longest, if one waits.
func (c *connections) shed() bool {
	c.metrics.shed.Inc()
	if now := c.now(); now.Sub(c.warned) >= time.Minute {
		c.warned = now
		c.log.Warn("too many connections: those that wait longest for a request are closed; if these are not strangers', "+
			"run more replicas or let the process open more files", "at_most", c.most)
	}
	e := c.waiting.Front()
	if e == nil {
		return false
	}
	conn := c.waiting.Remove(e).(net.Conn)
	delete(c.open, conn)
	_ = conn.Close()
	return true
}
