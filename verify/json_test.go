package verify

import (
	"encoding/json"
	"strings"
	"testing"
)

// Whatever the scanner accepts is JSON, and strings mean what encoding/json says.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":"b","c":[1,-2.5e+7,0,true,false,null,{"d":"\u00e9\ud83d\ude00\n"}]}`, ` { "a" : [ ] } `,
		`{"a":1,"a":2}`, `{"a":01}`, `{"a":"\ud800"}`, `{"a":- 1}`, `[1,]`, `"x`, "\"\x00\"", `nul`, `1e400`, strings.Repeat("[", 20),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := scan(text, nil)
		s.skip()
		if s.end() == "" && !json.Valid([]byte(text)) {
			t.Errorf("accepted %q", text)
		}
		s = scan(text, nil)
		got := s.text()
		var want string
		if s.end() == "" && (json.Unmarshal([]byte(text), &want) != nil || got != want) {
			t.Errorf("%q is %q, not %q", text, got, want)
		}
		s = scan(text, nil)
		n := s.integer()
		var number int64
		if s.end() == "" && (json.Unmarshal([]byte(text), &number) != nil || n != number) {
			t.Errorf("%q is %d, not %d", text, n, number)
		}
	})
}
