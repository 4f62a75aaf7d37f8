package keys

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kekSize is how many bytes a key-encryption key has.
const kekSize = 32

// localKEK is a key-encryption key held in memory.
type localKEK struct {
	id   string
	aead cipher.AEAD
}

// NewKEK returns the key-encryption key with these 32 bytes, which must be
// random: they are not a passphrase.
func NewKEK(key [kekSize]byte) KEK {
	aead, err := newGCM(key[:])
	if err != nil {
		panic(err) // the size is right, so AES cannot refuse it
	}
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte("signet key-encryption key id v1"))
	return &localKEK{id: hex.EncodeToString(mac.Sum(nil)[:8]), aead: aead}
}

func (k *localKEK) ID() string { return k.id }

func (k *localKEK) Wrap(_ context.Context, dek, aad []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, dek, aad), nil
}

func (k *localKEK) Unwrap(_ context.Context, wrapped, aad []byte) ([]byte, error) {
	dek, err := k.aead.Open(nil, nil, wrapped, aad)
	if err != nil {
		return nil, errDamaged
	}
	return dek, nil
}

func (k *localKEK) String() string       { return "KEK(" + k.id + ")" }
func (k *localKEK) GoString() string     { return k.String() }
func (k *localKEK) LogValue() slog.Value { return slog.StringValue(k.String()) }

// ParseKEK reads a key-encryption key from text: 32 bytes in base64, standard
// or URL alphabet, padded or not, white space around it ignored. What
// `openssl rand -base64 32` prints is one.
func ParseKEK(text string) (KEK, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("a key-encryption key is 32 bytes in base64 (`openssl rand -base64 32` makes one); this is not base64")
	}
	if len(b) != kekSize {
		return nil, fmt.Errorf("a key-encryption key is 32 bytes in base64 (`openssl rand -base64 32` makes one); this has %d bytes", len(b))
	}
	return NewKEK([kekSize]byte(b)), nil
}

// LoadKEKFile reads a key-encryption key from a file: 32 raw bytes, or text as
// for ParseKEK. It refuses a file that anyone but its owner may use; one of
// root's that another user reads may be readable by the group. When the
// file does not exist and create is set it makes one with a new random key and
// reports that it did: without that file the database cannot be read, so the
// operator must be told to keep it. Of several processes that create the same
// file at once one does, and the others read it.
func LoadKEKFile(path string, create bool) (kek KEK, created bool, err error) {
	kek, err = readKEKFile(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		if created, err = createKEKFile(path); err == nil {
			kek, err = readKEKFile(path)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("key-encryption key: %w", err)
	}
	return kek, created, nil
}

func readKEKFile(path string) (KEK, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Asked of the open file, so that it is the one that is read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	ours, roots := owned(info)
	if mode := info.Mode().Perm(); mode&forbidden(ours, roots) != 0 {
		return nil, fmt.Errorf("%s may be used by others than its owner (mode %04o): run `chmod 600 %s`, and replace the key if others could have read it", path, mode, path)
	}
	kek, err := readKEK(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return kek, nil
}

// forbidden returns the permissions that a key file must not give. Of a file
// that is root's and not ours, the group may read: so it was handed to us, by
// systemd, whose access list shows there, or as a volume by Kubernetes.
func forbidden(ours, roots bool) fs.FileMode {
	if roots && !ours {
		return 0o037
	}
	return 0o077
}

// createKEKFile writes a new key under another name and links it into place,
// so that the file is never seen half written and never overwritten.
func createKEKFile(path string) (created bool, err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".*") // O_EXCL, mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := fmt.Fprintln(tmp, base64.StdEncoding.EncodeToString(randomBytes(kekSize))); err != nil {
		return false, err
	}
	if err := tmp.Sync(); err != nil {
		return false, err
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	if err := d.Sync(); err != nil { // or the name may be lost with the power
		return false, fmt.Errorf("sync %s: %w", dir, err)
	}
	return true, nil
}

// KEKFromFD reads a key-encryption key, in the form of LoadKEKFile, from an
// open file descriptor to its end, and closes it.
func KEKFromFD(fd int) (KEK, error) {
	f := os.NewFile(uintptr(fd), fmt.Sprintf("file descriptor %d", fd))
	if f == nil {
		return nil, fmt.Errorf("key-encryption key: %d is not a file descriptor", fd)
	}
	defer f.Close()
	kek, err := readKEK(f)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: file descriptor %d: %w", fd, err)
	}
	return kek, nil
}

// KEKFromCommand runs a command in the shell and reads a key-encryption key,
// in the form of LoadKEKFile, from its output. What the command writes to
// standard error goes to ours.
func KEKFromCommand(ctx context.Context, command string) (KEK, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdout = &out
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("key-encryption key: the command failed: %w", err)
	}
	kek, err := readKEK(&out)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: the command's output: %w", err)
	}
	return kek, nil
}

// readKEK reads 32 raw bytes, or text for ParseKEK.
func readKEK(r io.Reader) (KEK, error) {
	const most = 1 << 10
	b, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return nil, err
	}
	if len(b) == kekSize {
		return NewKEK([kekSize]byte(b)), nil
	}
	return ParseKEK(string(b))
}
