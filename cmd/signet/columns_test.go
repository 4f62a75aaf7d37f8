package main

import "testing"

func TestAlign(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no columns", "Deleted a.\n", "Deleted a.\n"},
		{"columns", "A\tB\naaa\tb\n", "A    B\naaa  b\n"},
		{"an empty last cell", "A\tB\t\naaa\tb\t\n", "A    B  \naaa  b  \n"},
		{"wide characters take two columns", "日本\tx\nabc\ty\n", "日本  x\nabc   y\n"},
		{"combining marks take none", "é\tx\nab\ty\n", "é   x\nab  y\n"},
		{"an empty line ends a table", "a\tb\n\nlonger\tb\n", "a  b\n\nlonger  b\n"},
		{"a line without cells does too", "a\tb\nplain\nlonger\tb\n", "a  b\nplain\nlonger  b\n"},
	} {
		if got := align(test.text); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"12345", "12345"},
		{"123456", "1234…"},
		{"日本語", "日本…"},
		{"a日本語", "a日…"},
		{"", ""},
	} {
		got := shorten(test.text, 5)
		if got != test.want || displayWidth(got) > 5 {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
}
