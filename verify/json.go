package verify

import (
	"strings"
	"unicode/utf8"
)

// Bounds on the JSON of a token, so that its cost is known before it is read.
const (
	maxDepth   = 16
	maxMembers = 256          // of all objects in one text together
	maxInteger = 253402300799 // the end of the year 9999 as a NumericDate
)

// A scanner reads one JSON text (RFC 8259) in a single pass, more strictly than
// encoding/json: member names are unique in their object (RFC 8725 §2.4), text
// is valid UTF-8 without lone surrogates or NUL, and depth and size are bounded.
//
// The first fault sticks in fault and ends every loop; values read after it are
// meaningless. Strings without escapes are parts of src, not copies.
type scanner struct {
	src     string
	pos     int
	depth   int
	members int
	names   []string // of the objects now open, innermost last
	fault   string
}

// scan starts at the beginning of src; buf holds member names and may be reused.
func scan(src string, buf []string) scanner {
	s := scanner{src: src, names: buf[:0]}
	if !utf8.ValidString(src) {
		s.fail("not UTF-8")
	}
	return s
}

func (s *scanner) fail(fault string) {
	if s.fault == "" {
		s.fault = fault
		s.pos = len(s.src)
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) accept(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) expect(c byte) {
	if !s.accept(c) {
		s.fail("JSON syntax")
	}
}

// end reports the first fault, or that something follows the value.
func (s *scanner) end() string {
	if s.peek(); s.pos < len(s.src) {
		s.fail("data after the JSON value")
	}
	return s.fault
}

// A group is an object or array being read; name belongs to the current member.
type group struct {
	close   byte
	started bool
	base    int
	name    string
}

func (s *scanner) open(open, close byte) group {
	s.expect(open)
	if s.depth++; s.depth > maxDepth {
		s.fail("JSON nested too deeply")
	}
	return group{close: close, base: len(s.names)}
}

func (s *scanner) object() group { return s.open('{', '}') }
func (s *scanner) array() group  { return s.open('[', ']') }

// next moves to the next member or element, whose value the caller then reads.
func (s *scanner) next(g *group) bool {
	if s.fault != "" {
		return false
	}
	if s.accept(g.close) {
		s.depth--
		s.names = s.names[:g.base]
		return false
	}
	if g.started {
		s.expect(',')
	}
	g.started = true
	if g.close == '}' {
		g.name = s.text()
		s.expect(':')
		for _, name := range s.names[g.base:] {
			if name == g.name {
				s.fail("duplicate JSON member")
			}
		}
		s.names = append(s.names, g.name)
		if s.members++; s.members > maxMembers {
			s.fail("too many JSON members")
		}
	}
	return s.fault == ""
}

// skip reads any value and checks it as strictly as the rest.
func (s *scanner) skip() {
	switch c := s.peek(); {
	case c == '{':
		for g := s.object(); s.next(&g); {
			s.skip()
		}
	case c == '[':
		for g := s.array(); s.next(&g); {
			s.skip()
		}
	case c == '"':
		s.text()
	case c == '-' || '0' <= c && c <= '9':
		s.number()
	default:
		s.literal()
	}
}

func (s *scanner) literal() {
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(s.src[s.pos:], word) {
			s.pos += len(word)
			return
		}
	}
	s.fail("JSON syntax")
}

func (s *scanner) digits() (n int) {
	for s.pos < len(s.src) && '0' <= s.src[s.pos] && s.src[s.pos] <= '9' {
		s.pos++
		n++
	}
	if n == 0 {
		s.fail("JSON syntax")
	}
	return n
}

// number checks the grammar of RFC 8259 §6; no claim we read may use all of it.
func (s *scanner) number() {
	s.accept('-')
	if s.pos < len(s.src) && s.src[s.pos] == '0' {
		s.pos++
	} else {
		s.digits()
	}
	if s.pos < len(s.src) && s.src[s.pos] == '.' {
		s.pos++
		s.digits()
	}
	if s.pos < len(s.src) && (s.src[s.pos] == 'e' || s.src[s.pos] == 'E') {
		s.pos++
		if s.pos < len(s.src) && (s.src[s.pos] == '+' || s.src[s.pos] == '-') {
			s.pos++
		}
		s.digits()
	}
}

// integer reads a NumericDate: digits only, since a fraction, an exponent or a
// sign is never needed and invites readers to disagree.
func (s *scanner) integer() (n int64) {
	s.peek()
	start := s.pos
	if s.digits() > len("253402300799") || s.fault == "" && s.src[start] == '0' && s.pos > start+1 {
		s.fail("a time is not an integer of seconds")
		return 0
	}
	for _, c := range []byte(s.src[start:s.pos]) {
		n = n*10 + int64(c-'0')
	}
	if n > maxInteger {
		s.fail("a time is not an integer of seconds")
	}
	return n
}

// texts reads an array of strings.
func (s *scanner) texts() (list []string) {
	for g := s.array(); s.next(&g); {
		list = append(list, s.text())
	}
	return list
}

// text reads a string.
func (s *scanner) text() string {
	s.expect('"')
	start := s.pos
	for ; s.pos < len(s.src); s.pos++ {
		switch c := s.src[s.pos]; {
		case c == '"':
			s.pos++
			return s.src[start : s.pos-1]
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			s.fail("control character in a JSON string")
			return ""
		}
	}
	s.fail("JSON syntax")
	return ""
}

// escaped continues a string at its first backslash.
func (s *scanner) escaped(start int) string {
	b := []byte(s.src[start:s.pos])
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		s.pos++
		switch {
		case c == '"':
			return string(b)
		case c < ' ':
			s.fail("control character in a JSON string")
			return ""
		case c != '\\':
			b = append(b, c)
			continue
		}
		if s.pos == len(s.src) {
			break
		}
		c = s.src[s.pos]
		s.pos++
		if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
			b = append(b, "\"\\/\b\f\n\r\t"[i])
			continue
		}
		if c != 'u' {
			break
		}
		r := s.hex4()
		if 0xD800 <= r && r < 0xDC00 && strings.HasPrefix(s.src[s.pos:], `\u`) {
			s.pos += 2
			if low := s.hex4(); 0xDC00 <= low && low < 0xE000 {
				r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
			}
		}
		if r == 0 || !utf8.ValidRune(r) {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	s.fail("JSON string escape")
	return ""
}

// hex4 reads the four digits of a \u escape; 0, which no caller accepts, when
// they are not.
func (s *scanner) hex4() (r rune) {
	if len(s.src)-s.pos < 4 {
		return 0
	}
	for _, c := range []byte(s.src[s.pos : s.pos+4]) {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 + rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 + rune(c|0x20-'a') + 10
		default:
			return 0
		}
	}
	s.pos += 4
	return r
}
