// Command gotest runs go test with the arguments it is given, prints a line per
// package and everything a failed test said, and ends by saying what ran. What
// comes after a -- is another run of go test, with -C in front when it is of
// another module. In the end it says of all of them:
//
//	N packages on SQLite and PostgreSQL in 1m2s
//	N passed, N failed, N skipped
//
// Of a test with subtests the subtests are counted. When CI is true a skipped
// test is a failure: there, everything needed has been installed. What a package
// leaves out by default it says in lines that begin with "not run: "; they are
// printed and count as nothing.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

// run returns the exit code of the whole.
func run(args []string) (int, error) {
	began := time.Now()
	var total result
	for more := true; more; {
		var these []string
		these, args, more = split(args)
		result, err := goTest(these)
		if err != nil {
			return 1, err
		}
		total = total.plus(result)
	}
	inCI, _ := strconv.ParseBool(os.Getenv("CI"))
	strict := inCI && total.skipped > 0
	if strict {
		fmt.Println("A test was skipped, which CI=true doesn't allow.")
	}
	databases := "SQLite only"
	if os.Getenv("SIGNET_TEST_POSTGRES") != "" {
		databases = "SQLite and PostgreSQL"
	}
	fmt.Printf("%d packages on %s in %s\n", total.packages, databases, time.Since(began).Round(time.Second))
	fmt.Println(total)
	if strict || total.failed > 0 {
		return 1, nil
	}
	return 0, nil
}

// split returns the arguments of one run, those of the runs after it and
// whether there are any.
func split(args []string) (these, rest []string, more bool) {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i], args[i+1:], true
	}
	return args, nil, false
}

// goTest runs go test once. When it fails, so has at least one test.
func goTest(args []string) (result, error) {
	cmd := exec.Command("go", "test")
	if len(args) > 1 && args[0] == "-C" { // go test takes it in front only
		cmd.Dir, args = args[1], args[2:]
	}
	cmd.Args = append(append(cmd.Args, "-json"), args...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	r, err := report(events, os.Stdout)
	if err != nil {
		return r, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if cmd.Wait() != nil && r.failed == 0 {
		r.failed++ // go test itself failed, and has said why
	}
	return r, nil
}

// An event of go test -json, see go doc cmd/test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // in place of Package while building
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// A test is one test or subtest of a package; the one named "" stands for the
// package itself.
type test struct {
	output  bytes.Buffer
	outcome string // pass, fail or skip; empty while it runs

	parent      bool // has subtests
	childFailed bool
}

type result struct {
	passed, failed, skipped int

	packages int // that have tests
}

func (r result) plus(other result) result {
	return result{r.passed + other.passed, r.failed + other.failed, r.skipped + other.skipped, r.packages + other.packages}
}

func (r result) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
}

// report reads the events of a run, prints what matters of them and counts.
func report(events io.Reader, w io.Writer) (result, error) {
	var total result
	packages := map[string]map[string]*test{}
	builds := map[string]*bytes.Buffer{} // what the compiler said, by import path
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			fmt.Fprintf(w, "%s", line) // go test in trouble speaks plainly
			continue
		}
		if e.Action == "build-output" {
			if builds[e.ImportPath] == nil {
				builds[e.ImportPath] = new(bytes.Buffer)
			}
			builds[e.ImportPath].WriteString(e.Output)
			continue
		}
		if e.Package == "" {
			continue
		}
		tests := packages[e.Package]
		if tests == nil {
			tests = map[string]*test{}
			packages[e.Package] = tests
		}
		t := tests[e.Test]
		if t == nil {
			t = &test{}
			tests[e.Test] = t
		}
		parent := &test{} // stands in when there is none
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 && tests[e.Test[:i]] != nil {
			parent = tests[e.Test[:i]]
			parent.parent = true
		}
		switch e.Action {
		case "output":
			if !strings.HasPrefix(e.Output, "=== ") && !strings.HasPrefix(strings.TrimLeft(e.Output, " "), "--- ") {
				t.output.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			t.outcome = e.Action
			if e.Test != "" {
				parent.childFailed = parent.childFailed || e.Action == "fail"
				continue
			}
			if build := builds[e.FailedBuild]; build != nil {
				w.Write(build.Bytes())
			}
			total = finish(w, e, tests, total)
			delete(packages, e.Package)
		}
	}
}

// finish prints a package that has ended and adds its tests to the total.
func finish(w io.Writer, e event, tests map[string]*test, total result) result {
	var here result
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t := tests[name]
		switch {
		case name == "":
		case t.outcome == "skip":
			here.skipped++
			fmt.Fprintf(w, "skip  %s %s\n%s", e.Package, name, t.output.String())
		case t.outcome == "pass":
			if !t.parent {
				here.passed++
			}
			// A race in a goroutine that outlives its test is reported while
			// another one runs.
			if e.Action == "fail" && bytes.Contains(t.output.Bytes(), []byte("DATA RACE")) {
				w.Write(t.output.Bytes())
			}
		case t.parent && (t.childFailed || t.outcome == "") && t.output.Len() == 0:
			// its subtest failed and is shown
		default: // failed, or was running when the package died
			if !t.childFailed {
				here.failed++
			}
			fmt.Fprintf(w, "FAIL  %s %s\n%s", e.Package, name, t.output.String())
		}
	}
	if e.Action == "fail" {
		if here.failed == 0 { // it didn't build, its TestMain failed, …
			here.failed++
		}
		w.Write(tests[""].output.Bytes())
	}
	if len(tests) > 1 || here.failed > 0 {
		here.packages++
	}
	for line := range strings.Lines(tests[""].output.String()) {
		if strings.HasPrefix(line, "not run: ") && e.Action == "pass" {
			fmt.Fprintf(w, "      %s", line)
		}
	}
	if e.Action == "pass" && here.packages > 0 {
		fmt.Fprintf(w, "ok    %-60s %6.2fs %5d\n", e.Package, e.Elapsed, here.passed)
	}
	return total.plus(here)
}
