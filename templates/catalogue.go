package templates

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"
)

//go:embed locales/*.json
var localeFiles embed.FS

// sourceLanguage is what the other files are translations of, and what a
// person reads of whose languages we have none.
const sourceLanguage = "en"

// Catalogue holds the texts of all pages in all languages. It doesn't change,
// so it may be shared.
type Catalogue struct {
	locales []*Locale // the source language first
	matcher language.Matcher
}

// NewCatalogue reads the languages that are built in: one file each in
// locales/, named after its BCP 47 tag. A file that doesn't say the same as
// the others is a fault of the build, so it panics then.
func NewCatalogue() *Catalogue {
	c, err := readCatalogue(localeFiles)
	if err != nil {
		panic(err)
	}
	return c
}

func readCatalogue(files fs.FS) (*Catalogue, error) {
	names, err := fs.Glob(files, "locales/*.json")
	if err != nil {
		return nil, err
	}
	var c Catalogue
	for _, name := range names {
		l, err := readLocale(files, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if l.tag == language.Make(sourceLanguage) {
			c.locales = slices.Insert(c.locales, 0, l)
		} else {
			c.locales = append(c.locales, l)
		}
	}
	if len(c.locales) == 0 || c.locales[0].tag != language.Make(sourceLanguage) {
		return nil, fmt.Errorf("locales/%s.json is missing", sourceLanguage)
	}
	source := c.locales[0]
	tags := make([]language.Tag, len(c.locales))
	for i, l := range c.locales {
		tags[i] = l.tag
		if fault := l.differs(source); fault != nil {
			return nil, fmt.Errorf("%s, compared with %s: %w", l.tag, source.tag, fault)
		}
	}
	c.matcher = language.NewMatcher(tags)
	return &c, nil
}

// Bounds on what strangers send; both are lists that begin with the favourite.
const (
	maxUILocales      = 10
	maxAcceptLanguage = 500 // bytes
)

// Match returns the language to speak with somebody: the first of uiLocales
// (OIDC Core §3.1.2.1) that we have, otherwise the best for acceptLanguage
// (RFC 9110 §12.5.4), otherwise English. It ignores what it can't read.
func (c *Catalogue) Match(uiLocales, acceptLanguage string) *Locale {
	var asked []language.Tag
	for field := range strings.FieldsSeq(uiLocales) {
		if tag, err := language.Parse(field); err == nil {
			asked = append(asked, tag)
		}
		if len(asked) == maxUILocales {
			break
		}
	}
	if _, i, confidence := c.matcher.Match(asked...); confidence > language.No {
		return c.locales[i]
	}
	if len(acceptLanguage) > maxAcceptLanguage {
		acceptLanguage = acceptLanguage[:strings.LastIndex(acceptLanguage[:maxAcceptLanguage], ",")+1]
	}
	// With an error comes nothing, for which the matcher has the first.
	accepted, _, _ := language.ParseAcceptLanguage(acceptLanguage)
	_, i, _ := c.matcher.Match(accepted...)
	return c.locales[i]
}

// Tags returns the BCP 47 tags of the languages, English first: what
// ui_locales_supported says (OpenID Connect Discovery §3).
func (c *Catalogue) Tags() []string {
	tags := make([]string, len(c.locales))
	for i, l := range c.locales {
		tags[i] = l.Tag()
	}
	return tags
}

// Locale is one language's texts.
type Locale struct {
	tag      language.Tag
	dir      string // "ltr" or "rtl"
	messages map[string]message
}

// message is a text cut at its placeholders.
type message []part

// part is either text or the name of a placeholder.
type part struct{ text, placeholder string }

func readLocale(files fs.FS, name string) (*Locale, error) {
	tag, err := language.Parse(strings.TrimSuffix(path.Base(name), ".json"))
	if err != nil {
		return nil, err
	}
	content, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	var file struct {
		Dir      string            `json:"dir"`
		Messages map[string]string `json:"messages"`
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, err
	}
	if file.Dir != "ltr" && file.Dir != "rtl" {
		return nil, fmt.Errorf("dir is %q, neither ltr nor rtl", file.Dir)
	}
	l := &Locale{tag: tag, dir: file.Dir, messages: make(map[string]message, len(file.Messages))}
	for key, text := range file.Messages {
		if l.messages[key], err = parseMessage(text); err != nil {
			return nil, fmt.Errorf("message %s: %w", key, err)
		}
	}
	return l, nil
}

// parseMessage cuts a text such as "Back to {client}" at its placeholders.
func parseMessage(text string) (message, error) {
	var m message
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		if before != "" {
			m = append(m, part{text: before})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" {
			return nil, errors.New("a placeholder is not closed or has no name")
		}
		m = append(m, part{placeholder: name})
		text = after
	}
	if m == nil {
		return nil, errors.New("is empty")
	}
	return m, nil
}

// placeholders returns the names in the message, sorted.
func (m message) placeholders() []string {
	var names []string
	for _, p := range m {
		if p.placeholder != "" {
			names = append(names, p.placeholder)
		}
	}
	slices.Sort(names)
	return names
}

// differs says where l and the source have other keys or other placeholders.
func (l *Locale) differs(source *Locale) error {
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(source.messages)) {
		switch translated, ok := l.messages[key]; {
		case !ok:
			faults = append(faults, fmt.Errorf("%s is missing", key))
		case !slices.Equal(translated.placeholders(), source.messages[key].placeholders()):
			faults = append(faults, fmt.Errorf("%s has other placeholders", key))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(l.messages)) {
		if _, ok := source.messages[key]; !ok {
			faults = append(faults, fmt.Errorf("%s is unknown", key))
		}
	}
	return errors.Join(faults...)
}

// Tag returns the language's BCP 47 tag, as for the lang attribute.
func (l *Locale) Tag() string { return l.tag.String() }

// Text returns the message in this language. pairs are the names of its
// placeholders, each followed by its value: a string, an int, or a
// time.Duration, which is put into words. The message of an unknown key is the
// key itself; a test finds those.
func (l *Locale) Text(key string, pairs ...any) string {
	m, ok := l.messages[key]
	if !ok {
		return key
	}
	var b strings.Builder
	for _, p := range m {
		if p.placeholder == "" {
			b.WriteString(p.text)
		} else {
			b.WriteString(l.value(p.placeholder, pairs))
		}
	}
	return b.String()
}

// value returns what stands for a placeholder.
func (l *Locale) value(placeholder string, pairs []any) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] != placeholder {
			continue
		}
		switch v := pairs[i+1].(type) {
		case string:
			return v
		case int:
			return strconv.Itoa(v)
		case time.Duration:
			return l.duration(v)
		}
	}
	return "{" + placeholder + "}"
}

// duration puts d into words, in the largest unit of which there are at least
// two, so that no message needs a singular. It rounds up: nobody is told to
// come back too early.
func (l *Locale) duration(d time.Duration) string {
	in := func(unit time.Duration) int { return int((d + unit - 1) / unit) }
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return l.Text("duration.days", "n", in(day))
	case d >= 2*time.Hour:
		return l.Text("duration.hours", "n", in(time.Hour))
	case d >= 2*time.Minute:
		return l.Text("duration.minutes", "n", in(time.Minute))
	default:
		return l.Text("duration.seconds", "n", max(2, in(time.Second)))
	}
}

// moment says when t was, for somebody who reads it now: in short, and exactly.
// It is in UTC, because a server doesn't know where a person is.
func (l *Locale) moment(t, now time.Time) string {
	return l.Text("date.both", "relative", l.ago(now.Sub(t)), "absolute", l.date(t))
}

// ago says how long ago something was. A minute or an hour is short for one
// and for many; a day is not.
func (l *Locale) ago(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute: // the clocks of two replicas may differ
		return l.Text("date.now")
	case d < time.Hour:
		return l.Text("date.minutes", "n", int(d/time.Minute))
	case d < day:
		return l.Text("date.hours", "n", int(d/time.Hour))
	case d < 2*day:
		return l.Text("date.day")
	default:
		return l.Text("date.days", "n", int(d/day))
	}
}

func (l *Locale) date(t time.Time) string {
	t = t.UTC()
	return l.Text("date.absolute", "day", t.Day(), "month", l.Text(monthKeys[t.Month()-1]), "year", t.Year(), "time", t.Format("15:04"))
}

var monthKeys = [...]string{"month.1", "month.2", "month.3", "month.4", "month.5", "month.6",
	"month.7", "month.8", "month.9", "month.10", "month.11", "month.12"}
