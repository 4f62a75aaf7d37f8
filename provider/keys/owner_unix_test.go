//go:build unix

package keys

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whose a key file is decides who may read it: ours nobody else, root's the
// group as well, and somebody else's nobody.
func TestOwnersOfKeyFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(make([]byte, kekSize))), 0o440); err != nil {
		t.Fatal(err)
	}
	whose := func(path string) (ours, roots bool) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return owned(info)
	}
	refused := func(of string) {
		t.Helper()
		if _, _, err := LoadKEKFile(path, false); err == nil || !strings.Contains(err.Error(), "may be used by others") {
			t.Errorf("%s, which a group may read: %v", of, err)
		}
	}
	root := os.Geteuid() == 0
	if ours, roots := whose(path); !ours || roots != root {
		t.Errorf("our own is ours: %v, root's: %v", ours, roots)
	}
	refused("our own")
	if !root {
		if ours, roots := whose("/etc/passwd"); ours || !roots {
			t.Errorf("root's is ours: %v, root's: %v", ours, roots)
		}
		return // who may not give a file away either
	}
	if err := os.Chown(path, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	if ours, roots := whose(path); ours || roots {
		t.Errorf("somebody else's is ours: %v, root's: %v", ours, roots)
	}
	refused("somebody else's")
}
