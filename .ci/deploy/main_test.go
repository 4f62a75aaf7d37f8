package deploy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what takes moments on an idle machine.
const patience = time.Minute

// root is the repository.
const root = "../.."

// out is what the Dockerfile's first stage leaves in its folder /out.
var out string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if out, err = os.MkdirTemp("", "signet-deploy-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(out)
		if err := os.Chmod(out, 0o755); err != nil { // other users run what is in there
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := buildAsDockerfile(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// signet is the path of the program as it is in the image.
func signet() string { return filepath.Join(out, "signet") }

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// settings returns the flags of a command of signet, and the variables that
// stand for them.
func settings(t *testing.T, command ...string) (flags, variables []string) {
	t.Helper()
	help, err := exec.CommandContext(t.Context(), signet(), append(command, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		flags = append(flags, m[1])
	}
	for _, m := range regexp.MustCompile(`\[(SIGNET_\w+)\]`).FindAllStringSubmatch(string(help), -1) {
		variables = append(variables, m[1])
	}
	if len(flags) < 5 || len(variables) < 5 {
		t.Fatalf("the help of %v names only %v and %v", command, flags, variables)
	}
	return flags, append(variables, "SIGNET_KEK")
}

// knowsFlags fails the test for flags among args that the command does not have.
func knowsFlags(t *testing.T, args []string, command ...string) {
	t.Helper()
	flags, _ := settings(t, command...)
	for _, arg := range args {
		if name, _, _ := strings.Cut(arg, "="); strings.HasPrefix(name, "--") && !slices.Contains(flags, name) {
			t.Errorf("signet %s has no %s", strings.Join(command, " "), name)
		}
	}
}

// process is a running program.
type process struct {
	*exec.Cmd
	t      *testing.T
	out    *bufio.Reader
	log    lockedBuffer
	ended  chan struct{}
	listen string // where it says that it listens
	admin  string // signet's other listener
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts a program, which ends with the test.
func begin(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd, t: t, ended: make(chan struct{})}
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr, p.out = w, &p.log, bufio.NewReader(stdout)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // its status is in ProcessState
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
		stdout.Close()
	})
	return p
}

// ready waits for the line that says where the program listens.
func (p *process) ready() *process {
	p.t.Helper()
	var said struct {
		Event, Listen string
		AdminListen   string `json:"admin_listen"`
	}
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &said)
	}
	if err != nil || said.Event != "ready" {
		p.t.Fatalf("%s is not ready: %q %v\n%s", p.Path, line, err, p.log.String())
	}
	p.listen, p.admin = said.Listen, said.AdminListen
	return p
}

func (p *process) signal(sig syscall.Signal) {
	if err := p.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
}

// wait returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("%s does not end:\n%s", p.Path, p.log.String())
		return 0
	}
}

// status returns what a URL answers, 0 when nobody does.
func status(url string) int {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// until waits until something comes true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// freePort returns a port nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
