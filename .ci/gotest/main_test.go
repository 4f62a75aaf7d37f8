package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each row is a package of tests that is really run.
func TestReport(t *testing.T) {
	tests := []struct {
		name, source string

		want         result
		shown, quiet string
	}{
		{"passing subtests are counted, their parent isn't",
			`func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Run("y", func(t *testing.T) { t.Log("chatter") }) }`,
			result{passed: 2, packages: 1}, "ok    p", "chatter"},
		{"a failed subtest counts once and is shown in full",
			`func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Log("before"); t.Error("wrong") }) }`,
			result{failed: 1, packages: 1}, "before\n    p_test.go:3: wrong", "FAIL  p TestA\n"},
		{"a parent that fails by itself",
			`func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Error("wrong") }`,
			result{passed: 1, failed: 1, packages: 1}, "wrong", "ok "},
		{"a skipped test is named",
			`func TestA(t *testing.T) { t.Skip("no moon") }`,
			result{skipped: 1, packages: 1}, "no moon", "FAIL"},
		{"a panic",
			`func TestA(t *testing.T) { panic("boom") }`,
			result{failed: 1, packages: 1}, "boom", "ok "},
		{"a test that ends the process",
			`func TestA(t *testing.T) { os.Exit(3) }`,
			result{failed: 1, packages: 1}, "FAIL  p TestA", "ok "},
		{"a TestMain that fails",
			`func TestMain(m *testing.M) { os.Exit(3) }`,
			result{failed: 1, packages: 1}, "FAIL\tp", "ok "},
		{"what a package left out is told",
			`func TestMain(m *testing.M) { println("chatter"); os.Stdout.WriteString("not run: the moon\n"); m.Run() }; func TestA(t *testing.T) {}`,
			result{passed: 1, packages: 1}, "not run: the moon", "chatter"},
		{"a package that doesn't build",
			`func TestA(t *testing.T) { missing() }`,
			result{failed: 1, packages: 1}, "undefined: missing", "ok "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			for name, text := range map[string]string{
				"go.mod":    "module p\n\ngo 1.26\n",
				"p_test.go": "package p; import (\"os\"; \"testing\")\nvar _, _ = os.Args, testing.Short\n" + test.source + "\n",
			} {
				if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-json", "./...")
			cmd.Dir = directory
			events, _ := cmd.Output() // its failures are in the events
			var said strings.Builder
			got, err := report(strings.NewReader(string(events)), &said)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("counted %+v, want %+v", got, test.want)
			}
			if !strings.Contains(said.String(), test.shown) || strings.Contains(said.String(), test.quiet) {
				t.Errorf("printed\n%swant %q in it and not %q", said.String(), test.shown, test.quiet)
			}
		})
	}
}

// Each run between the -- counts, in its own module.
func TestRuns(t *testing.T) {
	var args []string
	for name, body := range map[string]string{"good": "", "bad": `t.Error("wrong")`} {
		directory := t.TempDir()
		for file, text := range map[string]string{
			"go.mod":    "module " + name + "\n\ngo 1.26\n",
			"p_test.go": "package p; import \"testing\"\nfunc TestA(t *testing.T) {" + body + "}\n",
		} {
			if err := os.WriteFile(filepath.Join(directory, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, "-C", directory, "-count=1", "./...", "--")
	}
	args = append(args, "-C", t.TempDir(), "./...") // nothing there: go test itself fails
	var total result
	runs := 0
	for more := true; more; runs++ {
		var these []string
		these, args, more = split(args)
		r, err := goTest(these)
		if err != nil {
			t.Fatal(err)
		}
		total = total.plus(r)
	}
	if want := (result{passed: 1, failed: 2, packages: 3}); total != want || runs != 3 {
		t.Errorf("%d runs: %+v, want %+v of 3", runs, total, want)
	}
}
