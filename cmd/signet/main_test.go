package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write the output of the scripts in testdata into them")

// binaries is the folder with the signet that the tests run as a process.
var binaries string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "signet-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "signet"), ".")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build signet:", err)
			return 1
		}
		return m.Run()
	}())
}

// place is where commands run: a working directory with a data directory in it.
type place struct {
	t    *testing.T
	dir  string
	vars []string
}

func newPlace(t *testing.T, vars ...string) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{t: t, dir: dir, vars: append([]string{
		"PATH=" + binaries + string(os.PathListSeparator) + os.Getenv("PATH"),
		"HOME=" + dir, "COLUMNS=80", "LC_ALL=C.UTF-8", "SIGNET_DATA=" + filepath.Join(dir, "data"),
	}, vars...)}
	// A token with nothing behind it, for `token inspect`.
	p.write("token.jwt", "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJzdWIiOiJuaWdodGx5IiwiaWF0IjoxNzAwMDAwMDAwfQ.AAAA\n")
	return p
}

func (p *place) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// run executes a line of shell and returns what it writes and its exit status.
func (p *place) run(line string) (stdout, stderr string, status int) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "sh", "-c", line)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.vars, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%s: %v", line, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs lines that have to succeed.
func (p *place) must(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		if out, errs, status := p.run(line); status != 0 {
			p.t.Fatalf("$ %s\n%s%s[exit %d]", line, out, errs, status)
		}
	}
}

// decode runs a line and reads its standard output as JSON.
func decode[T any](p *place, line string) T {
	p.t.Helper()
	out, errs, status := p.run(line)
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != 0 {
		p.t.Fatalf("$ %s\n%s%s[exit %d] %v", line, out, errs, status, err)
	}
	return v
}

// Each script in testdata is a session: commands after "$ ", below each what it
// writes, standard error included, and its exit status unless that is 0.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			p := newPlace(t)
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				switch {
				case strings.HasPrefix(line, "# "):
					got.WriteString(line)
				case strings.HasPrefix(line, "$ "):
					out, errs, status := p.run(strings.TrimPrefix(line, "$ "))
					got.WriteString(line + settle(p, out+errs))
					if status != 0 {
						fmt.Fprintf(&got, "[exit %d]\n", status)
					}
					got.WriteByte('\n')
				}
			}
			if *update {
				want = []byte(got.String())
				if err := os.WriteFile(script, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			compare(t, string(want), got.String())
		})
	}
}

// settle replaces what differs from run to run, and leaves out the log.
func settle(p *place, text string) string {
	text = strings.ReplaceAll(text, p.dir, "DIR")
	for _, r := range []struct{ pattern, with string }{
		{`(?m)^time=.*\n`, ""},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
		{`\d{8}T\d{6}Z(-\d+)?`, "TIME"},
		{`"feed_id":"[A-Z2-7]{26}"`, `"feed_id":"FEED"`},
		{`sgs_[A-Za-z0-9_-]{43}`, "SECRET"},
		{`sgi_[A-Za-z0-9_-]{43}`, "INVITATION"},
		{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "UUID"},
		{`\b[2-9bcdfghjkmnpqrstvwxyz]{5}(-[2-9bcdfghjkmnpqrstvwxyz]{5}){3}\b`, "PASSWORD"},
		{`\b[2-9bcdfghjkmnpqrstvwxyz]{4}(-[2-9bcdfghjkmnpqrstvwxyz]{4}){2}\b`, "RANDOM"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

func compare(t *testing.T, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			t.Fatalf("differs from line %d on (-update writes it down):\nwant %q\ngot  %q\n\n%s", i+1, at(w, i), at(g, i), got)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

// Every --help ends with an example, and every example works as printed.
func TestHelpExamples(t *testing.T) {
	// What the examples of a noun build on: those of create, of the nouns before
	// it. Made once and copied: every command is a process and every write
	// reaches the disk.
	roles, resources, furnished := newPlace(t), newPlace(t), newPlace(t)
	roles.must(examplesOf(t, "signet role create")...)
	resources.must("cp -rp " + roles.dir + "/data .")
	resources.must(examplesOf(t, "signet resource create")...)
	furnished.must("cp -rp " + resources.dir + "/data .")
	furnished.must(slices.Concat(examplesOf(t, "signet client create"), examplesOf(t, "signet client initial-access-token create"), examplesOf(t, "signet user create"), examplesOf(t, "signet key rotate"))...)
	for _, node := range nodes(t) {
		path := node.FullPath()
		t.Run(path, func(t *testing.T) {
			lines := examplesOf(t, path)
			if len(lines) == 0 {
				t.Fatal("no example in --help")
			}
			if help, _, _ := newPlace(t).run(path + " --help"); strings.Contains(help, "\n\n\n") {
				t.Errorf("two empty lines in a row:\n%s", help)
			}
			if path == "signet serve" || path == "signet demo" {
				return // they do not end by themselves; serve's and demo's own tests run them
			}
			p := newPlace(t)
			makes := strings.HasSuffix(path, "create") || slices.ContainsFunc(node.Children, func(n *kong.Node) bool { return n.Name == "create" })
			switch noun, _, _ := strings.Cut(strings.TrimPrefix(path, "signet "), " "); {
			case noun == "token": // one of nobody's, so the keys of a database would refuse it
			case noun == "signet" || makes && noun == "role":
			case makes && (noun == "resource" || noun == "user"):
				p.must("cp -rp " + roles.dir + "/data .")
			case makes:
				p.must("cp -rp " + resources.dir + "/data .")
			default:
				p.must("cp -rp " + furnished.dir + "/data .")
			}
			p.must(lines...)
		})
	}
}

// nodes returns every command and group of commands, the root first.
func nodes(t *testing.T) []*kong.Node {
	t.Helper()
	k, err := kong.New(&root{}, kong.Name("signet"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*kong.Node
	var walk func(*kong.Node)
	walk = func(n *kong.Node) {
		all = append(all, n)
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(k.Model.Node)
	return all
}

func examplesOf(t *testing.T, path string) []string {
	t.Helper()
	out, errs, status := newPlace(t).run(path + " --help")
	_, text, found := strings.Cut(out, "\nExample:\n")
	if status != 0 || !found {
		t.Fatalf("$ %s --help\n%s%s[exit %d]", path, out, errs, status)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
