package main

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Widest that cells of a listing become, in columns of a terminal; `show` has
// them whole.
const (
	widestName = 32
	widestList = 48
)

// align pads the cells of consecutive lines, which end with a tab each, to the
// width they have on a terminal; the last cell of a line is left as it is.
// (text/tabwriter counts characters, and many are two columns wide.)
func align(text string) string {
	const gap = 2
	lines := strings.Split(text, "\n")
	var out strings.Builder
	for from := 0; from < len(lines); {
		to := from
		var widths []int
		for ; to < len(lines) && strings.Contains(lines[to], "\t"); to++ {
			cells := strings.Split(lines[to], "\t")
			for i, cell := range cells[:len(cells)-1] {
				if i == len(widths) {
					widths = append(widths, 0)
				}
				widths[i] = max(widths[i], displayWidth(cell)+gap)
			}
		}
		for _, line := range lines[from:to] {
			cells := strings.Split(line, "\t")
			last := len(cells) - 1
			for i, cell := range cells[:last] {
				out.WriteString(cell + strings.Repeat(" ", widths[i]-displayWidth(cell)))
			}
			out.WriteString(cells[last] + "\n")
		}
		if to < len(lines) {
			out.WriteString(lines[to] + "\n")
		}
		from = to + 1
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// shorten cuts s to so many columns, the last of them an ellipsis.
func shorten(s string, most int) string {
	if displayWidth(s) <= most {
		return s
	}
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > most-1 {
			return s[:i] + "…"
		}
	}
	return s
}

func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth returns how many columns of a terminal a character takes.
func runeWidth(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
