package provider

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

// F16: fosite's own go.mod asks for versions with published weaknesses; ours
// holds them above.
func TestDependencyFloors(t *testing.T) {
	file, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	required := make(map[string]string)
	for line := range strings.Lines(string(file)) {
		if f := strings.Fields(strings.TrimPrefix(line, "require ")); len(f) >= 2 && semver.IsValid(f[1]) {
			required[f[0]] = f[1]
		}
	}
	for module, floor := range map[string]string{
		"github.com/go-jose/go-jose/v3": "v3.0.5", // CVE-2025-27144, CVE-2026-34986
		"github.com/go-jose/go-jose/v4": "v4.0.5", // CVE-2025-27144
		"github.com/jackc/pgx/v5":       "v5.9.2", // CVE-2026-33815, -33816, -41889
		"github.com/go-chi/chi/v5":      "v5.3.0", // GHSA-3fxj, -9g5q, -rjr7, -vrw8, -mqqf
		"github.com/ory/fosite":         "v0.49.0",
		"golang.org/x/crypto":           "v0.32.0",
		"golang.org/x/net":              "v0.26.0",
		"google.golang.org/grpc":        "v1.79.3",
	} {
		if got := required[module]; semver.Compare(got, floor) < 0 {
			t.Errorf("F16 %s %q, want at least %s", module, got, floor)
		}
	}
}
