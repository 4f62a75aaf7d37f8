package main

import (
	"fmt"
	"io"
	"strings"
)

// A column is what came of one run, by the checks' identifiers.
type column struct {
	heading string
	results map[string]Outcome
}

// writeMarkdown lists requirement, check and results, by specification.
func writeMarkdown(w io.Writer, checks []Check, columns ...column) error {
	var b strings.Builder
	var specs []string
	by := map[string][]Check{}
	for _, c := range checks {
		if by[c.Spec] == nil {
			specs = append(specs, c.Spec)
		}
		by[c.Spec] = append(by[c.Spec], c)
	}
	for _, spec := range specs {
		fmt.Fprintf(&b, "\n## %s\n\n| section | requirement | check |", spec)
		for _, col := range columns {
			fmt.Fprintf(&b, " %s |", col.heading)
		}
		b.WriteString("\n" + strings.Repeat("|---", 3+len(columns)) + "|\n")
		for _, c := range by[spec] {
			fmt.Fprintf(&b, "| %s | %s | `%s` |", c.Section, c.Name, c.ID)
			for _, col := range columns {
				fmt.Fprintf(&b, " %s |", strings.ToLower(string(col.results[c.ID])))
			}
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printMarkdown reports one run as a document's tables.
func printMarkdown(w io.Writer, checks []Check) reporter {
	results := map[string]Outcome{}
	return reporter{
		result: func(r Result) { results[r.ID] = r.Outcome },
		end: func(n tally) {
			fmt.Fprintf(w, "%d passed, %d failed, %d skipped.\n", n.passed, n.failed, n.skipped)
			// A report that cannot be written shows at whoever reads it.
			_ = writeMarkdown(w, checks, column{"result", results})
		},
	}
}
