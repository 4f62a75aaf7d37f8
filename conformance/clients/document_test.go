package clients

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"strings"
	"testing"
)

// docs/clients.md names the versions that are locked.
func TestDocumentNamesVersions(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	var npm struct{ Dependencies map[string]string }
	readFile(t, "npm/package.json", json.Unmarshal, &npm)
	for _, name := range []string{"openid-client", "oauth4webapi", "jose", "express-openid-connect", "express"} {
		if want := "`" + name + "` " + npm.Dependencies[name]; !strings.Contains(string(document), want) {
			t.Errorf("%s is not in docs/clients.md", want)
		}
	}
	var pom struct {
		Parent struct {
			Version string `xml:"version"`
		} `xml:"parent"`
	}
	readFile(t, "spring/pom.xml", xml.Unmarshal, &pom)
	if want := "Spring Boot " + pom.Parent.Version; !strings.Contains(string(document), want) {
		t.Errorf("%s is not in docs/clients.md", want)
	}
}

func readFile(t *testing.T, path string, unmarshal func([]byte, any) error, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
