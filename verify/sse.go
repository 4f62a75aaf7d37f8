package verify

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A streamEvent is one server-sent event (HTML Living Standard §9.2). Its id is
// not kept: a position counts only when it is signed.
type streamEvent struct {
	name, data string
}

// An eventReader takes server-sent events off a stream, none larger than a
// message may be.
type eventReader struct {
	in    *bufio.Reader
	retry time.Duration // the last delay the server asked for; 0 none
	begun bool
}

func newEventReader(in io.Reader) *eventReader {
	return &eventReader{in: bufio.NewReaderSize(in, 16<<10)}
}

// next returns the next event that has data. Comments and unknown fields are
// passed over; an event the stream breaks off in does not count.
func (r *eventReader) next() (streamEvent, error) {
	var e streamEvent
	var data strings.Builder
	hasData := false
	for {
		line, err := r.line()
		if err != nil {
			return streamEvent{}, err
		}
		if line == "" {
			if !hasData {
				e = streamEvent{}
				continue
			}
			e.data = data.String()
			return e, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			e.name = value
		case "data":
			if hasData {
				data.WriteByte('\n')
			}
			hasData = true
			if data.Len()+len(value) > maxMessage {
				return streamEvent{}, fmt.Errorf("event longer than %d bytes", maxMessage)
			}
			data.WriteString(value)
		case "retry":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 {
				r.retry = time.Duration(min(n, 60_000)) * time.Millisecond
			}
		}
	}
}

// line reads to a line feed, with a carriage return before it or without. A lone
// carriage return would end a line too, but Signet sends none, and waiting for
// the byte after it could hold an event back.
func (r *eventReader) line() (string, error) {
	line, err := readLine(r.in, maxMessage+64)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if !r.begun && err == nil {
		r.begun = true
		line = strings.TrimPrefix(line, "\ufeff")
	}
	line = strings.TrimSuffix(line, "\r")
	if err == nil && strings.Contains(line, "\r") {
		return "", errors.New("a line of the stream holds a carriage return")
	}
	return line, err
}
