package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// A conn sends prepared requests over one kept connection, one at a time, and
// reads as much of HTTP/1.1 as answers to them can hold (RFC 9112). It costs less
// than half of what net/http's client does.
type conn struct {
	address string // host:port
	net     net.Conn
	r       *bufio.Reader
	body    []byte
	until   time.Time // the deadline set

	location string   // where the last answer redirects to, or ""
	cookies  []string // what it sets, as name=value
}

const (
	answerTimeout = 10 * time.Second
	maxBody       = 1 << 20
)

// A failure is an error with the name it is counted under.
type failure struct {
	kind string
	err  error
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %v", f.kind, f.err) }
func (f *failure) Unwrap() error { return f.err }

// do sends a request and returns the answer's status and body. The body is good
// until the next call. An error leaves the connection closed; the next call
// opens another.
func (c *conn) do(request []byte, now time.Time) (status int, body []byte, err error) {
	if c.net == nil {
		if err := c.dial(); err != nil {
			return 0, nil, &failure{"connecting", err}
		}
	}
	// A deadline that is at most a second too early, set once a second.
	if until := now.Add(answerTimeout); until.Sub(c.until) > time.Second {
		c.until = until
		if err := c.net.SetDeadline(until); err != nil {
			return 0, nil, c.fail(err)
		}
	}
	if _, err := c.net.Write(request); err != nil {
		return 0, nil, c.fail(err)
	}
	status, keep, err := c.read()
	if err != nil {
		return 0, nil, c.fail(err)
	}
	if !keep {
		c.close()
	}
	return status, c.body, nil
}

func (c *conn) dial() error {
	d := net.Dialer{Timeout: answerTimeout}
	nc, err := d.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	c.net, c.until = nc, time.Time{}
	if c.r == nil {
		c.r = bufio.NewReaderSize(nc, 16<<10)
	}
	c.r.Reset(nc)
	return nil
}

func (c *conn) close() {
	if c.net != nil {
		_ = c.net.Close() // nothing is lost with it
		c.net = nil
	}
}

// fail closes the connection and names the fault.
func (c *conn) fail(err error) error {
	c.close()
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return &failure{"timeout", err}
	case errors.Is(err, errMalformed):
		return &failure{"malformed answer", err}
	}
	return &failure{"connection lost", err}
}

var errMalformed = errors.New("not an HTTP/1.1 answer")

// read reads one answer into c.body.
func (c *conn) read() (status int, keep bool, err error) {
	line, err := c.line()
	if err != nil {
		return 0, false, err
	}
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
		return 0, false, errMalformed
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil || status < 200 {
		return 0, false, errMalformed
	}
	length, chunked, keep := -1, false, true
	c.location, c.cookies = "", c.cookies[:0]
	for {
		if line, err = c.line(); err != nil {
			return 0, false, err
		}
		if len(line) == 0 {
			break
		}
		// Only five fields matter; they begin with these letters.
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := field(line, "content-length"); ok {
				if length, err = strconv.Atoi(string(v)); err != nil || length < 0 {
					return 0, false, errMalformed
				}
			} else if v, ok := field(line, "connection"); ok {
				keep = !bytes.EqualFold(v, []byte("close"))
			}
		case 'l':
			if v, ok := field(line, "location"); ok {
				c.location = string(v)
			}
		case 's':
			if v, ok := field(line, "set-cookie"); ok {
				pair, _, _ := bytes.Cut(v, []byte(";"))
				c.cookies = append(c.cookies, string(pair))
			}
		case 't':
			if v, ok := field(line, "transfer-encoding"); ok {
				chunked = bytes.EqualFold(v, []byte("chunked"))
			}
		}
	}
	c.body = c.body[:0]
	switch {
	case status == 204 || status == 304:
		return status, keep, nil
	case chunked:
		return status, keep, c.readChunks()
	case length < 0: // until the connection ends
		return 0, false, fmt.Errorf("%w: without length", errMalformed)
	}
	return status, keep, c.extend(length)
}

// line reads up to the end of a line, without it.
func (c *conn) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// field returns the value of a header line if it has that name (in lower case).
func field(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// extend reads n more bytes into c.body.
func (c *conn) extend(n int) error {
	old := len(c.body)
	if n > maxBody-old {
		return fmt.Errorf("%w: over %d bytes", errMalformed, maxBody)
	}
	if cap(c.body) < old+n {
		c.body = append(make([]byte, 0, old+n+4<<10), c.body...)
	}
	c.body = c.body[:old+n]
	_, err := io.ReadFull(c.r, c.body[old:])
	return err
}

func (c *conn) readChunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil {
			return errMalformed
		}
		if n > 0 {
			if err := c.extend(int(n)); err != nil {
				return err
			}
		}
		// After a chunk, the end of its line; after the last, trailers and an empty line.
		for {
			if line, err = c.line(); err != nil {
				return err
			}
			if len(line) == 0 {
				break
			}
			if n > 0 {
				return errMalformed
			}
		}
		if n == 0 {
			return nil
		}
	}
}
