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
	Browser []struct {
		Match string
		Tasks []struct {
			Task, Match string
			Commands    [][]any
		}
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
	page := map[string]string{"ISSUER/login*": "login", "ISSUER/select*": "select account", "ISSUER/consent*": "consent", "ISSUER/logout*": "log out"}
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
			for _, at := range p.Browser {
				if !slices.Contains([]string{"ISSUER/authorize*", "ISSUER/logout*"}, at.Match) {
					t.Errorf("nobody is sent to %s", at.Match)
				}
				for _, task := range at.Tasks {
					name, ours := page[task.Match]
					for _, c := range task.Commands {
						if id, _ := c[2].(string); ours && (c[1] != "id" || !strings.Contains(pages[id], name)) {
							t.Errorf("%s: %v: IDS.md does not promise it for the page %q, but for %q", task.Task, c, name, pages[id])
						}
					}
					if !ours && !strings.HasPrefix(task.Match, "SUITE/") {
						t.Errorf("%s: no page is at %s", task.Task, task.Match)
					}
				}
			}
		})
	}
}
