//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// patience is how long the cluster waits for what takes moments on an idle machine.
const patience = time.Minute

// process is a program that runs for the cluster.
type process struct {
	name  string
	log   string // the file with what it writes to standard error
	cmd   *exec.Cmd
	ended chan struct{} // closed once it has
}

// run starts a program. Its own process group keeps an interrupt at the
// terminal from it: the cluster ends it in order. ready reads standard output
// until the program says where it listens; nil: it says nothing.
func (c *cluster) run(name string, cmd *exec.Cmd, ready func(line []byte) error) (*process, error) {
	logfile, err := os.Create(filepath.Join(c.dir, fmt.Sprintf("%s-%d.log", name, c.started.Add(1))))
	if err != nil {
		return nil, err
	}
	defer logfile.Close()
	cmd.Dir, cmd.Stderr = c.dir, logfile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{name: name, log: logfile.Name(), cmd: cmd, ended: make(chan struct{})}
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if cmd.Stdout = logfile; ready != nil {
		cmd.Stdout = stdout
	}
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // how it ended is in the log
	}()
	if ready == nil {
		return p, nil
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = ready(line)
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%s is not ready: %w\n%s", name, err, p.text())
	}
	return p, nil
}

// listening reads the line with which the programs of this project say that they
// are ready.
func listening(line []byte) error {
	var ready struct{ Event string }
	if err := json.Unmarshal(line, &ready); err != nil {
		return err
	}
	if ready.Event != "ready" {
		return fmt.Errorf("it says %q", line)
	}
	return nil
}

// up says whether the program runs.
func (p *process) up() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the program as a crash does.
func (p *process) kill() { _ = p.end(syscall.SIGKILL) }

// end sends the program a signal and waits for its end.
func (p *process) end(sig syscall.Signal) error {
	if !p.up() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill() // it may have just ended
		return fmt.Errorf("%s did not end", p.name)
	}
}

// text returns the end of the program's log.
func (p *process) text() string {
	const enough = 4000
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-enough):])
}
