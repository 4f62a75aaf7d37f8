package templates

import (
	"context"
	"io"

	"github.com/a-h/templ"
)

// named renders a message whose values are names that others chose. Each is
// isolated, so that its direction can't reorder our words, and cut by the
// stylesheet when it is long.
func (p Page) named(key string, pairs ...any) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		html := ""
		for _, part := range p.Locale.messages[key] {
			if part.placeholder == "" {
				html += templ.EscapeString(part.text)
			} else {
				html += `<bdi class="name">` + templ.EscapeString(p.Locale.value(part.placeholder, pairs)) + `</bdi>`
			}
		}
		_, err := io.WriteString(w, html)
		return err
	})
}

// field is an input with its label.
type field struct {
	id, name     string
	label        string
	hint         string // "" for none
	kind         string // the input's type
	autocomplete string
	value        string
	fixed        bool // it can't be changed
	focus        bool // the page begins here
}

func newPasswordFields(p Page, label string, min int) []field {
	return []field{
		{id: "new-password", name: "new_password", label: label, hint: p.text("field.password_hint", "min", min),
			kind: "password", autocomplete: "new-password"},
		{id: "repeat-password", name: "repeat_password", label: p.text("field.repeat_password"),
			kind: "password", autocomplete: "new-password"},
	}
}

// problemsOf returns the problems to mend in the field with this id.
func problemsOf(id string, problems []Problem) (of []Problem) {
	for _, problem := range problems {
		if problem.field == id {
			of = append(of, problem)
		}
	}
	return of
}

// describedBy names the elements that explain the field, the problem first.
func (f field) describedBy(problems []Problem) string {
	ids := ""
	if len(problemsOf(f.id, problems)) > 0 {
		ids = f.id + "-problem"
	}
	if f.hint != "" {
		if ids != "" {
			ids += " "
		}
		ids += f.id + "-hint"
	}
	return ids
}
