package deploy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const unit = "docs/deploy/signet.service"

// directive returns the values of a directive of the unit, in order.
func directive(t *testing.T, name string) (values []string) {
	t.Helper()
	for line := range strings.Lines(read(t, unit)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			values = append(values, value)
		}
	}
	return values
}

func one(t *testing.T, name string) string {
	t.Helper()
	values := directive(t, name)
	if len(values) != 1 {
		t.Fatalf("%s: %q", name, values)
	}
	return values[0]
}

func TestUnit(t *testing.T) {
	// With the program where the unit expects it.
	text := strings.ReplaceAll(read(t, unit), "/usr/local/bin/signet", signet())
	path := filepath.Join(t.TempDir(), "signet.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", path).CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, said)
	}
	// Of 10, in tenths. What is left is the network, and the root that it shares.
	if said, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", path).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v: %s", err, said)
	}

	words := strings.Fields(one(t, "ExecStart"))
	knowsFlags(t, words[2:], "serve")
	drain := words[slices.Index(words, "--drain")+1]
	if stop := one(t, "TimeoutStopSec"); duration(t, stop) <= duration(t, drain) {
		t.Errorf("it is killed after %s, and drains for %s", stop, drain)
	}
}

// What docs/deploying.md adds for TLS on port 443 is a unit to systemd, too, has
// what binding the port takes, and reads a key with a credential's owner and mode.
func TestUnitWithCertificate(t *testing.T) {
	_, text, found := strings.Cut(read(t, "docs/deploying.md"), "\n    # /etc/systemd/system/signet.service.d/override.conf\n")
	text, _, ended := strings.Cut(text, "\n\n")
	if !found || !ended {
		t.Fatal("docs/deploying.md has no override.conf")
	}
	override := strings.ReplaceAll("\n"+text+"\n", "\n    ", "\n")
	units := t.TempDir()
	path := filepath.Join(units, "signet.service")
	for name, text := range map[string]string{path: read(t, unit), path + ".d/override.conf": override} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700),
			os.WriteFile(name, []byte(strings.ReplaceAll(text, "/usr/local/bin/signet", signet())), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", "verify", path)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+units+":")
	if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, said)
	}
	// A port below 1024 is bound by the capability in the machine's own user
	// namespace: systemd.exec(5), PrivateUsers=.
	for _, want := range []string{"PrivateUsers=no", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"} {
		if !strings.Contains(override, "\n"+want+"\n") {
			t.Errorf("it has not %s", want)
		}
	}

	dir, err := os.MkdirTemp("", "signet-unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	certificate, key := selfSigned(t)
	for name, text := range map[string]string{"tls-cert": certificate, "tls-key": key, "kek": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			giveAccess(t, filepath.Join(dir, name))
		}
		if name != "kek" && !strings.Contains(override, "\nLoadCredential="+name+":/") {
			t.Errorf("there is no credential %s", name)
		}
	}
	state, config := filepath.Join(dir, "state"), filepath.Join(dir, "signet.yaml")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(state, 0o700), os.WriteFile(config, []byte("issuer: https://login.example.com\nadmin-listen: 127.0.0.1:0\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(override, "\nExecStart=\nExecStart=")
	words := strings.Fields(strings.NewReplacer("${CREDENTIALS_DIRECTORY}", dir, "/usr/local/bin/signet", signet(),
		"/etc/signet/signet.yaml", config, "/var/lib/signet", state, ":443", "127.0.0.1:0").Replace(line))
	service := exec.Command(words[0], words[1:]...)
	if os.Geteuid() == 0 {
		service.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if err := os.Chown(state, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	service.Env = []string{}
	s := begin(t, service).ready()
	conn, err := tls.Dial("tcp", s.listen, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	s.signal(syscall.SIGHUP) // the same copies again
	until(t, "it has reloaded", func() bool { return strings.Contains(s.log.String(), "configuration read again") })
}

// selfSigned returns a certificate and its key, in PEM.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"login.example.com"}}
	c, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}))
}

// What the unit says works when somebody does what systemd does: hands over the
// key, waits for the notification, sends the signals.
func TestUnitAsProcess(t *testing.T) {
	dir, err := os.MkdirTemp("", "signet-unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, step := range []error{
		os.Chmod(dir, 0o755),
		os.Mkdir(filepath.Join(dir, "credentials"), 0o755),
		os.Mkdir(filepath.Join(dir, "state"), 0o700),
		os.WriteFile(filepath.Join(dir, "credentials", "kek"), []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), 0o400),
		os.WriteFile(filepath.Join(dir, "signet.yaml"), []byte("issuer: https://login.example.com\nlisten: 127.0.0.1:0\nadmin-listen: 127.0.0.1:0\n"), 0o644),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	socket := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	next := func() string {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}

	places := strings.NewReplacer("${CREDENTIALS_DIRECTORY}", filepath.Join(dir, "credentials"),
		"/usr/local/bin/signet", signet(), "/etc/signet", dir, "/var/lib/signet", filepath.Join(dir, "state"))
	words := strings.Fields(places.Replace(one(t, "ExecStart")))
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{"NOTIFY_SOCKET=" + socket, places.Replace(one(t, "Environment"))}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		// Of systemd 254 and later: root's, and the access list's mask shows where
		// the group's permissions are.
		giveAccess(t, filepath.Join(dir, "credentials", "kek"))
		for _, step := range []error{os.Chmod(socket, 0o777), os.Chown(filepath.Join(dir, "state"), nobody, nobody)} {
			if step != nil {
				t.Fatal(step)
			}
		}
	}
	s := begin(t, cmd).ready()
	if got := next(); got != "READY=1" {
		t.Errorf("at the start: %q", got)
	}
	if got := status("http://" + s.admin + "/readyz"); got != 200 {
		t.Errorf("ready, and readyz answers %d", got)
	}
	if reload := one(t, "ExecReload"); reload != "/bin/kill -HUP $MAINPID" {
		t.Fatalf("reload is %q", reload)
	}
	s.signal(syscall.SIGHUP)
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\n") {
		t.Errorf("on reload: %q", got)
	}
	if got := next(); got != "READY=1" {
		t.Errorf("after the reload: %q", got)
	}
	s.signal(syscall.SIGTERM)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("at the end: %q", got)
	}
	s.signal(syscall.SIGTERM) // not to wait for balancers
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d:\n%s", code, s.log.String())
	}
}

// giveAccess lets nobody read a file by an access list, as acl(5) writes it down.
func giveAccess(t *testing.T, path string) {
	t.Helper()
	const undefined = 0xffffffff
	list := []byte{2, 0, 0, 0} // version
	for _, entry := range []struct {
		tag, permissions uint16
		id               uint32
	}{
		{0x01, 4, undefined}, // the owner reads
		{0x02, 4, nobody},    // so does this user
		{0x04, 0, undefined}, // the group does not
		{0x10, 4, undefined}, // mask
		{0x20, 0, undefined}, // nor others
	} {
		list = binary.LittleEndian.AppendUint16(list, entry.tag)
		list = binary.LittleEndian.AppendUint16(list, entry.permissions)
		list = binary.LittleEndian.AppendUint32(list, entry.id)
	}
	err := syscall.Setxattr(path, "system.posix_acl_access", list, 0)
	if errors.Is(err, syscall.ENOTSUP) { // by this file system; the group shows the same
		err = errors.Join(os.Chown(path, 0, nobody), os.Chmod(path, 0o440))
	}
	if err != nil {
		t.Fatalf("access: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o440 {
		t.Fatalf("mode %v (%v), want that of a credential", info.Mode(), err)
	}
}
