package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestKEKIDIsAFingerprintAndNotTheKey(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	id := NewKEK([32]byte(key)).ID()
	if id != NewKEK([32]byte(key)).ID() {
		t.Error("the same key has two ids")
	}
	if id == testKEK(8).ID() {
		t.Error("two keys share an id")
	}
	if strings.Contains(hex.EncodeToString(key), id) {
		t.Error("the id is a piece of the key")
	}
}

func TestParseKEK(t *testing.T) {
	key := []byte("\xfb\xff\xfe 0123456789abcdefghijklmnopq\xff")
	want := NewKEK([32]byte(key)).ID()
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"standard alphabet", base64.StdEncoding.EncodeToString(key), true},
		{"without padding", base64.RawStdEncoding.EncodeToString(key), true},
		{"URL alphabet", base64.URLEncoding.EncodeToString(key), true},
		{"URL alphabet without padding", base64.RawURLEncoding.EncodeToString(key), true},
		{"line break at the end", base64.StdEncoding.EncodeToString(key) + "\n", true},
		{"empty", "", false},
		{"too short", base64.StdEncoding.EncodeToString(key[:31]), false},
		{"too long", base64.StdEncoding.EncodeToString(append(key, 0)), false},
		{"hexadecimal", hex.EncodeToString(key), false},
		{"not base64", "correct horse battery staple, correct horse", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kek, err := ParseKEK(tt.text)
			if !tt.ok {
				if err == nil {
					t.Fatal("accepted")
				}
				if tt.text != "" && strings.Contains(err.Error(), tt.text) {
					t.Errorf("the error shows the input: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if kek.ID() != want {
				t.Errorf("got key %s, want %s", kek.ID(), want)
			}
		})
	}
}

func TestLoadKEKFile(t *testing.T) {
	key := bytes.Repeat([]byte{9}, 32)
	for _, tt := range []struct {
		name    string
		content []byte
		mode    fs.FileMode
		refused string // part of the message; "" when accepted
	}{
		{"raw bytes", key, 0o600, ""},
		{"base64", []byte(base64.StdEncoding.EncodeToString(key) + "\n"), 0o600, ""},
		{"read-only", key, 0o400, ""},
		{"readable by the group", key, 0o640, "chmod 600"},
		{"readable by everyone", key, 0o644, "chmod 600"},
		{"writable by others", key, 0o602, "chmod 600"},
		{"executable by others", key, 0o601, "chmod 600"},
		{"truncated", key[:20], 0o600, "32 bytes"},
		{"empty", nil, 0o600, "32 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek")
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			kek, created, err := LoadKEKFile(path, true)
			if created {
				t.Error("an existing file was created")
			}
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v, want a refusal that names the file and says %q", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if kek.ID() != testKEK(9).ID() {
				t.Error("another key was read")
			}
		})
	}
}

func TestMissingKEKFileIsMadeOnlyWhenAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if _, _, err := LoadKEKFile(path, false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want not exist", err)
	}
	kek, created, err := LoadKEKFile(path, true)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	again, created, err := LoadKEKFile(path, true)
	if err != nil || created || again.ID() != kek.ID() {
		t.Errorf("second start: created %v, key %v, %v", created, again, err)
	}
}

func TestConcurrentFirstStartsAgreeOnOneKEKFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kek")
	const n = 16
	var ids [n]string
	var made [n]bool
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			kek, created, err := LoadKEKFile(path, true)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i], made[i] = kek.ID(), created
		})
	}
	wg.Wait()
	creators := 0
	for i := range n {
		if ids[i] != ids[0] {
			t.Errorf("keys %s and %s", ids[0], ids[i])
		}
		if made[i] {
			creators++
		}
	}
	if creators != 1 {
		t.Errorf("%d created the file", creators)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestKEKFromFD(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{4}, 32))); err != nil {
		t.Fatal(err)
	}
	w.Close()
	kek, err := KEKFromFD(int(r.Fd()))
	if err != nil || kek.ID() != testKEK(4).ID() {
		t.Fatalf("got %v, %v", kek, err)
	}
	if _, err := KEKFromFD(-1); err == nil {
		t.Error("-1 was accepted")
	}
}

func TestKEKFromCommand(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{5}, 32))
	kek, err := KEKFromCommand(t.Context(), "printf %s "+text)
	if err != nil || kek.ID() != testKEK(5).ID() {
		t.Fatalf("got %v, %v", kek, err)
	}
	_, err = KEKFromCommand(t.Context(), "printf not-a-key-but-secret")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("bad output: %v", err)
	}
	_, err = KEKFromCommand(t.Context(), "printf %s "+text+"; exit 3")
	if err == nil || strings.Contains(err.Error(), text) {
		t.Errorf("a failing command: %v", err)
	}
}

// Whose a key file is decides what its group may do; others never may anything.
func TestForbidden(t *testing.T) {
	for _, tt := range []struct {
		ours, roots bool
		mode        fs.FileMode
		refused     bool
	}{
		{true, false, 0o600, false},
		{true, false, 0o440, true},
		{true, true, 0o440, true}, // we are root
		{false, true, 0o440, false},
		{false, true, 0o640, false},
		{false, true, 0o660, true},
		{false, true, 0o444, true},
		{false, false, 0o440, true}, // somebody else's, shared with us
	} {
		if got := tt.mode&forbidden(tt.ours, tt.roots) != 0; got != tt.refused {
			t.Errorf("ours %v, root's %v, mode %04o: refused %v", tt.ours, tt.roots, tt.mode, got)
		}
	}
}
