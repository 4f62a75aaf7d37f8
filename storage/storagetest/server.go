//go:build unix

package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a throwaway PostgreSQL: its own data directory, port, password
// and processes. It ends with the process that started it, however that ends.
type Server struct {
	bin      string
	dir      string
	port     int
	password string
	cred     *syscall.Credential // whom it runs as, when we are root
	fsync    bool

	supervisor *exec.Cmd
	stdin      interface{ Close() error }
}

// ServerOptions are settings of a throwaway server.
type ServerOptions struct {
	// NoSync turns fsync off. Commits then do not wait for the disk, which is
	// right for tests of behaviour and wrong for those of durability or speed.
	NoSync bool
}

// supervise runs the server until its input ends: by Stop, or because the
// process that started it is gone. It removes the directory unless told to keep it.
const supervise = `"$1/postgres" -D "$2/data" >"$2/log" 2>&1 & pid=$!
read -r keep
kill -QUIT $pid 2>/dev/null
wait $pid
[ -n "$keep" ] || rm -rf "$2"`

// StartServer makes a database cluster and starts it. The caller calls Close.
func StartServer(opts ServerOptions) (_ *Server, err error) {
	bin, err := findServer()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, password: rand.Text(), fsync: !opts.NoSync}
	if s.cred, err = unprivileged(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	pwfile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(pwfile, []byte(s.password), 0o600); err != nil {
		return nil, err
	}
	if err := s.own(pwfile); err != nil {
		return nil, err
	}
	initdb := s.command(filepath.Join(bin, "initdb"), "-D", s.data(), "-U", "signet",
		"-A", "scram-sha-256", "--pwfile", pwfile, "-E", "UTF8", "--no-locale", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// prepare makes the server's folder and chooses its port.
func (s *Server) prepare() (err error) {
	if s.dir, err = os.MkdirTemp("", "signet-postgres-"); err != nil {
		return err
	}
	if s.port, err = freePort(); err != nil {
		return err
	}
	return s.own(s.dir)
}

// own gives a file to the user whom the server runs as.
func (s *Server) own(name string) error {
	if s.cred == nil {
		return nil
	}
	return os.Chown(name, int(s.cred.Uid), int(s.cred.Gid))
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// freePort finds a port that nobody listens at, below those that connections
// get: one of them could take it while the server is down.
func freePort() (int, error) {
	const low, high = 15000, 32000
	for range 100 {
		port := low + mrand.IntN(high-low)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d", low, high)
}

// configure appends our settings.
func (s *Server) configure() error {
	conf := fmt.Sprintf(`
listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%s'
max_connections = 300
shared_buffers = 64MB
fsync = %t
full_page_writes = %t
autovacuum_naptime = 10s
`, s.port, s.dir, s.fsync, s.fsync)
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(conf)
	return errors.Join(err, f.Close())
}

// command prepares a command that runs as the server's user.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") // another server's settings
	}), "LC_ALL=C")
	// A group of its own: an interrupt at the terminal ends the tests first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.cred}
	return cmd
}

// Start starts the server, after StartServer or Stop, and waits until it answers.
func (s *Server) Start() error {
	cmd := s.command("/bin/sh", "-c", supervise, "sh", s.bin, s.dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	s.supervisor, s.stdin = cmd, stdin
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			err = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("start PostgreSQL: %w\n%s", err, log)
		}
	}
}

// Stop ends the server at once, as a crash would: nothing is flushed, every
// connection breaks. The data stays, for Start.
func (s *Server) Stop() error {
	if s.supervisor == nil {
		return nil
	}
	if w, ok := s.stdin.(interface{ Write([]byte) (int, error) }); ok {
		if _, err := w.Write([]byte("keep\n")); err != nil {
			return fmt.Errorf("stop PostgreSQL: %w", err)
		}
	}
	return s.end()
}

// Restart is what `pg_ctl restart -m immediate` does: Stop, Start.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

// Kill sends SIGKILL to every process of the server. The data stays, for Start.
func (s *Server) Kill() error {
	if s.supervisor == nil {
		return nil
	}
	return errors.Join(s.signal(syscall.SIGKILL), s.Stop())
}

// Freeze stops every process of the server where it is: connections stay, and
// nothing answers. It needs /proc. The next call has to be Kill.
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// signal sends a signal to every process of the server.
func (s *Server) signal(sig syscall.Signal) error {
	file, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(file), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		return err
	}
	// Linux names the children. Elsewhere those of a killed one end by
	// themselves once they notice that they have no parent.
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	err = syscall.Kill(pid, sig)
	for child := range strings.FieldsSeq(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
	return err
}

func (s *Server) end() error {
	if s.supervisor == nil {
		return nil
	}
	closing := s.stdin.Close()
	waiting := s.supervisor.Wait()
	s.supervisor = nil
	var exit *exec.ExitError
	if errors.As(waiting, &exit) {
		waiting = nil // the shell passes on how the killed server ended
	}
	return errors.Join(closing, waiting)
}

// Close ends the server and removes everything it made.
func (s *Server) Close() error {
	return errors.Join(s.end(), os.RemoveAll(s.dir))
}

// do executes statements, each on its own.
func (s *Server) do(queries ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, query := range queries {
		if _, err := conn.Exec(ctx, query); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return nil
}

// URL returns the address of one of the server's databases.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("signet", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// findServer returns the folder of the newest PostgreSQL server programs.
func findServer() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { // 9.6 before 15 before 16
		version := func(dir string) float64 {
			v, _ := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
			return v
		}
		return int(10 * (version(b) - version(a)))
	})
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, string(bytes.TrimSpace(out)))
	}
	if name, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(name))
	}
	for _, dir := range dirs {
		if executable(filepath.Join(dir, "postgres")) && executable(filepath.Join(dir, "initdb")) {
			return dir, nil
		}
	}
	return "", errors.New("these tests need the PostgreSQL server programs (postgres, initdb) and found none; " +
		"install them (on Debian: apt-get install postgresql) or put their folder into PATH")
}

func executable(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// unprivileged returns whom to run as when we are root, which PostgreSQL refuses to.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as; run the tests as another user")
}
