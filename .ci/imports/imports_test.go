// Package imports holds the packages of this module to who may import whom.
package imports

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/signet-oidc/signet/"

// rooms says which rooms of this module each one may enter besides its own. A
// package belongs to the longest room its path starts with.
var rooms = map[string][]string{
	"cmd/signet": {"cmd/orders", "cmd/storefront", "web", "provider", "storage", "storage/postgres", "storage/sqlite",
		"templates", "migrations", "verify"},
	"cmd/orders":          {"verify"},
	"cmd/notes":           {"verify"},
	"cmd/storefront":      {},
	"web":                 {"provider", "templates", "storage"},
	"provider":            {"storage"},
	"storage":             {},
	"storage/sqlstore":    {"storage"},
	"storage/postgres":    {"storage", "storage/sqlstore"},
	"storage/sqlite":      {"storage", "storage/sqlstore"},
	"storage/storagetest": {"storage", "storage/postgres", "storage/sqlite", "migrations"},
	"templates":           {},
	"migrations":          {},
	"verify":              {},
	"conformance":         {},
	"conformance/cluster": {"conformance", "storage/storagetest"},
}

// tight rooms import, beyond the standard library, nobody's code but this.
var tight = map[string][]string{
	"storage":          {},
	"storage/sqlstore": {},
	"storage/postgres": {"github.com/jackc"},
	"storage/sqlite":   {"modernc.org/sqlite"},
	"templates":        {"github.com/a-h/templ", "golang.org/x/text"},
	"verify":           {"github.com/go-jose/go-jose/v4"},
}

// kept is code by others that no room but these imports.
var kept = map[string][]string{
	"github.com/ory":           {"provider"},
	"github.com/jackc":         {"storage/postgres", "storage/storagetest"},
	"modernc.org/sqlite":       {"storage/sqlite", "cmd/orders"},
	"github.com/pressly/goose": {"migrations"},
	"github.com/chromedp":      {"conformance"},

	"github.com/modelcontextprotocol": {"cmd/notes", "conformance"}, // not in the server's binary

	"go.opentelemetry.io":                {"cmd/signet", "web", "provider"},
	"go.opentelemetry.io/otel/sdk":       {"cmd/signet"}, // who is traced does not know where to
	"go.opentelemetry.io/otel/exporters": {"cmd/signet"},
}

func TestImports(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		from := strings.TrimPrefix(fields[0], module)
		for _, to := range fields[1:] {
			if why := refusal(from, to); why != "" {
				t.Errorf("%s imports %s: %s", from, to, why)
			}
		}
	}
}

// A service that verifies tokens builds the standard library and go-jose only.
func TestVerifyDependsOnGoJoseOnly(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"verify").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		if path != module+"verify" && !within(path, "github.com/go-jose/go-jose/v4") {
			t.Errorf("verify needs %s", path)
		}
	}
}

// Each kind of rule refuses something, and lets pass what it should.
func TestRefusal(t *testing.T) {
	for _, test := range []struct{ from, to, why string }{
		{"web", module + "provider/keys", ""},
		{"provider", module + "provider/keys", ""},
		{"provider/keys", "github.com/ory/fosite/token/jwt", ""},
		{"storage/postgres", module + "storage/sqlstore", ""},
		{"verify", "net/http", ""},
		{"verify", "github.com/go-jose/go-jose/v4/json", ""},

		{"storage", module + "provider", "may enter"},
		{"web", module + "storage/postgres", "may enter"},
		{"provider", module + "web", "may enter"},
		{"verify/verifytest", module + "storage", "may enter"},
		{"verify", module + "cmd/orders/app", "may enter"},
		{"web", "github.com/ory/fosite", "kept to"},
		{"provider", "github.com/jackc/pgx/v5", "kept to"},
		{"provider", "go.opentelemetry.io/otel/sdk/trace", "kept to"},
		{"cmd/signet", "github.com/modelcontextprotocol/go-sdk/mcp", "kept to"},
		{"verify", "github.com/google/uuid", "standard library"},
		{"verify", "github.com/go-jose/go-jose/v3", "standard library"},
		{"attic", module + "storage", "no room"},
	} {
		if why := refusal(test.from, test.to); !strings.Contains(why, test.why) || why != "" && test.why == "" {
			t.Errorf("%s imports %s: %q, want %q", test.from, test.to, why, test.why)
		}
	}
}

// refusal says why the package at from, a path below the module's, may not
// import to; or "".
func refusal(from, to string) string {
	room := roomOf(from)
	if room == "" {
		return "it is in no room: say here who it may import"
	}
	if own, ok := strings.CutPrefix(to, module); ok {
		if next := roomOf(own); next != room && !slices.Contains(rooms[room], next) {
			return "from " + room + " it may enter only: " + strings.Join(rooms[room], ", ")
		}
		return ""
	}
	if host, _, _ := strings.Cut(to, "/"); !strings.Contains(host, ".") {
		return "" // the standard library
	}
	anyOf := func(prefixes []string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return within(to, prefix) })
	}
	if allowed, ok := tight[room]; ok && !anyOf(allowed) {
		return "from " + room + " it may import only the standard library and: " + strings.Join(allowed, ", ")
	}
	for path, where := range kept {
		if within(to, path) && !slices.Contains(where, room) {
			return "that is kept to: " + strings.Join(where, ", ")
		}
	}
	return ""
}

func roomOf(path string) (longest string) {
	for room := range rooms {
		if within(path, room) && len(room) > len(longest) {
			longest = room
		}
	}
	return longest
}

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}
