// Package oidf holds configurations for the OpenID Foundation's conformance
// suite; see README.md.
package oidf

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// plan is the part of a configuration that has to fit our pages.
type plan struct {
	Alias  string
	Server struct{ DiscoveryURL string }
	Client struct {
		ID   string `json:"client_id"`
		Name string `json:"client_name"`
	}
	Browser  []visit
	Override map[string]struct{ Browser []visit } // by module: where a picture of the page is wanted
}

// visit is what the suite's browser does where it is sent to.
type visit struct {
	Match string
	Tasks []struct {
		Task, Match string
		Commands    [][]any
	}
}

// Every element that a plan touches is promised for the page it is on, and
// README.md says how each plan is run and which clients it needs.
func TestPlansFitThePages(t *testing.T) {
	files, err := filepath.Glob("*.json")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	promises, err := os.ReadFile("../../templates/IDS.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]string) // by id
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(string(promises), -1) {
		pages[row[1]] += row[2]
	}
	page := map[string]*regexp.Regexp{
		"ISSUER/login*": regexp.MustCompile("login"), "ISSUER/select*": regexp.MustCompile("select account"), "ISSUER/consent*": regexp.MustCompile("consent"),
		"ISSUER/logout*": regexp.MustCompile("log out|signed out"), "ISSUER/authorize*": regexp.MustCompile("error"),
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var p plan
			if err := json.Unmarshal(b, &p); err != nil {
				t.Fatal(err)
			}
			if p.Alias != "ALIAS" || p.Server.DiscoveryURL != "ISSUER/.well-known/openid-configuration" {
				t.Errorf("%+v", p)
			}
			if !strings.Contains(string(readme), "| `"+file+"` | `oidcc-") || p.Client.ID != "" && !strings.Contains(string(readme), p.Client.ID) {
				t.Error("README.md does not say how it is run")
			}
			visits := slices.Clone(p.Browser)
			for module, o := range p.Override {
				if !strings.HasPrefix(module, "oidcc-") || len(o.Browser) == 0 {
					t.Errorf("%s: no module, or nothing to do", module)
				}
				visits = append(visits, o.Browser...)
			}
			for _, at := range visits {
				if !slices.Contains([]string{"ISSUER/authorize*", "ISSUER/logout*"}, at.Match) {
					t.Errorf("nobody is sent to %s", at.Match)
				}
				for _, task := range at.Tasks {
					name := page[task.Match]
					for _, c := range task.Commands {
						if id, _ := c[2].(string); name != nil && (c[1] != "id" || !name.MatchString(pages[id])) {
							t.Errorf("%s: %v: IDS.md does not promise it for the page %q, but for %q", task.Task, c, name, pages[id])
						}
					}
					if name == nil && !strings.HasPrefix(task.Match, "SUITE/") {
						t.Errorf("%s: no page is at %s", task.Task, task.Match)
					}
				}
			}
		})
	}
}
