package templates

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// Every message is used, and every message that is used exists.
func TestMessagesAreTheOnesUsed(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"*.go", "*.templ"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_templ.go") {
				continue
			}
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(content)
		}
	}
	messages := NewCatalogue().locales[0].messages
	for key := range messages {
		if !strings.Contains(source.String(), `"`+key+`"`) {
			t.Errorf("nothing uses %s", key)
		}
	}
	used := regexp.MustCompile(`(?:[tT]ext\(|named\(|key: )"([^"]+)"`).FindAllStringSubmatch(source.String(), -1)
	if len(used) < len(messages)/2 {
		t.Fatalf("found only %d uses", len(used))
	}
	for _, use := range used {
		if _, ok := messages[use[1]]; !ok {
			t.Errorf("%s is used and doesn't exist", use[1])
		}
	}
}

// A file that says something else than the others doesn't pass.
func TestLocalesAgree(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	english := file(`{"dir": "ltr", "messages": {"a": "A {x} and {y}", "b": "B"}}`)
	for _, test := range []struct{ name, german, fault string }{
		{"the same", `{"dir": "ltr", "messages": {"a": "{y} und {x}", "b": "B"}}`, ""},
		{"a message is missing", `{"dir": "ltr", "messages": {"a": "{y} und {x}"}}`, "b is missing"},
		{"a message too many", `{"dir": "ltr", "messages": {"a": "{y} und {x}", "b": "B", "c": "C"}}`, "c is unknown"},
		{"another placeholder", `{"dir": "ltr", "messages": {"a": "{y} und {z}", "b": "B"}}`, "a has other placeholders"},
		{"a placeholder is missing", `{"dir": "ltr", "messages": {"a": "{y}", "b": "B"}}`, "a has other placeholders"},
		{"a placeholder is open", `{"dir": "ltr", "messages": {"a": "{y} und {x", "b": "B"}}`, "not closed"},
		{"an empty message", `{"dir": "ltr", "messages": {"a": "{y} und {x}", "b": ""}}`, "is empty"},
		{"no direction", `{"messages": {"a": "{y} und {x}", "b": "B"}}`, "neither ltr nor rtl"},
		{"not JSON", `dir: ltr`, "invalid character"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readCatalogue(fstest.MapFS{"locales/en.json": english, "locales/de.json": file(test.german)})
			if err == nil && test.fault != "" || err != nil && (test.fault == "" || !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("%v, want %q", err, test.fault)
			}
		})
	}
	if _, err := readCatalogue(fstest.MapFS{"locales/de.json": english}); err == nil {
		t.Error("no English, and nobody minds")
	}
}

func TestMatch(t *testing.T) {
	catalogue := NewCatalogue()
	if got := catalogue.Tags(); !slices.Equal(got, []string{"en", "de"}) {
		t.Errorf("languages %v", got)
	}
	for _, test := range []struct{ name, uiLocales, acceptLanguage, want string }{
		{"nothing is known", "", "", "en"},
		{"the browser's favourite", "", "de-CH, en;q=0.8", "de"},
		{"its second when we lack the first", "", "fr, de;q=0.9, en;q=0.8", "de"},
		{"weights count, not places", "", "en;q=0.5, de", "de"},
		{"the client's wish goes first", "de-AT en", "en", "de"},
		{"a wish we can't grant", "fr ja", "de", "de"},
		{"neither can be granted", "fr", "ja", "en"},
		{"no languages", "-- !! de_", "de", "de"},
		{"not a header", "", ";;q=,", "en"},
		{"a header without end", "", "de," + strings.Repeat("x-", 100_000), "de"},
		{"a header without commas", "", strings.Repeat("-", 100_000), "en"},
		{"a list without end", strings.Repeat("fr ", 100_000) + "de", "", "en"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := catalogue.Match(test.uiLocales, test.acceptLanguage).Tag(); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestTextPutsTimesIntoWords(t *testing.T) {
	catalogue := NewCatalogue()
	english, german := catalogue.Match("en", ""), catalogue.Match("de", "")
	now := time.Date(2026, time.March, 9, 7, 5, 0, 0, time.FixedZone("", 3600))
	const day = 24 * time.Hour
	for _, test := range []struct{ got, want string }{
		{english.duration(0), "2 seconds"},
		{english.duration(41*time.Second + time.Millisecond), "42 seconds"},
		{english.duration(119 * time.Second), "119 seconds"},
		{english.duration(121 * time.Second), "3 minutes"},
		{english.duration(36 * time.Hour), "36 hours"},
		{german.duration(30 * day), "30 Tage"},
		{english.ago(-time.Second), "just now"},
		{english.ago(59 * time.Minute), "59 min ago"},
		{english.ago(23*time.Hour + 59*time.Minute), "23 h ago"},
		{english.ago(day), "1 day ago"},
		{german.ago(2 * day), "vor 2 Tagen"},
		{english.moment(now.Add(-time.Hour), now), "1 h ago (9 March 2026, 05:05 UTC)"},
		{german.moment(now, now), "gerade eben (9. März 2026, 06:05 Uhr UTC)"},
		{english.Text("problem.throttled", "wait", 5*time.Minute), "There have been too many attempts. Try again in 5 minutes."},
		{english.Text("problem.new_password_short", "min", 15), "The password is too short. Use at least 15 characters."},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}
