package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
)

// patience is how long a script may take, which needs seconds on an idle machine.
const patience = 3 * time.Minute

// A script is a program that uses a client library. What it does is up to the
// script; what it has to have done is listed here, so that nothing is left out
// in silence.
type script struct {
	command []string
	env     []string
	steps   []string          // what goes well, in this order
	refuses map[string]string // what the library refuses, and a regular expression of its reason
	// believes is what the library takes for true, as its makers decided: nothing
	// that docs/relying-parties.md may claim.
	believes []issuer.Lie
}

// message is what a script says, a line of JSON.
type message struct {
	Do, Name, Why, URL string
	Fresh              bool
	Args               []string
}

// run starts the script with a configuration, does what it asks for and judges
// what it tells.
func (s script) run(t *testing.T, i *issuer.Issuer, ada *people.Person, config map[string]any) {
	t.Helper()
	config["issuer"], config["lies"] = i.URL, s.lies()
	given, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.command[0], append(slices.Clone(s.command[1:]), string(given))...)
	var said bytes.Buffer
	cmd.Stderr, cmd.Env = &said, append(os.Environ(), s.env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; .ci/deps installs it", err)
	}
	tooLong := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		tooLong.Stop()
		_ = cmd.Process.Kill() // where it has not ended by itself
		_ = cmd.Wait()
	})
	c := conversation{t: t, s: s, i: i, ada: ada}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for !c.ended && lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("%s: %q: %v", s.command, lines.Text(), err)
		}
		answer, err := c.answer(m)
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		if answer == nil {
			answer = map[string]any{} // done
		}
		line, err := json.Marshal(answer)
		if err == nil {
			_, err = in.Write(append(line, '\n'))
		}
		if err != nil && !c.ended && !errors.Is(err, io.ErrClosedPipe) {
			break // it has ended; what it said tells why
		}
	}
	if !c.ended {
		_ = cmd.Wait() // what it said tells more
		t.Errorf("%s did not come to its end: %v\n%s", s.command, lines.Err(), said.String())
	}
	c.judge()
}

// lies are those the script has to hear.
func (s script) lies() (lies []issuer.Lie) {
	for _, lie := range issuer.Lies() {
		if _, ok := s.refuses[string(lie)]; ok || slices.Contains(s.believes, lie) {
			lies = append(lies, lie)
		}
	}
	return lies
}

// A conversation is with a script that runs.
type conversation struct {
	t       *testing.T
	s       script
	i       *issuer.Issuer
	ada     *people.Person
	browser *people.Browser
	passed  []string
	refused []string
	ended   bool
}

// answer does what a script asks for.
func (c *conversation) answer(m message) (map[string]any, error) {
	switch m.Do {
	case "browse":
		if c.browser == nil || m.Fresh {
			c.browser = c.i.Browser(c.ada)
		}
		if err := c.browser.Consent(m.URL); err != nil {
			return nil, err
		}
		if c.browser.Left == nil {
			return nil, fmt.Errorf("the browser stays: %s", c.browser.Page)
		}
		return map[string]any{"url": c.browser.Left.String()}, nil
	case "signet":
		told := make(map[string]any)
		c.i.Signet(&told, m.Args...)
		return map[string]any{"told": told}, nil
	case "tell":
		return nil, c.i.Tell(issuer.Lie(m.Name))
	case "passed":
		c.passed = append(c.passed, m.Name)
		return nil, nil
	case "failed":
		c.t.Errorf("%s: %s", m.Name, m.Why)
		return nil, nil
	case "refused":
		c.refused = append(c.refused, m.Name)
		reason, ok := c.s.refuses[m.Name]
		if matched, err := regexp.MatchString(reason, m.Why); err != nil || !ok || !matched {
			c.t.Errorf("%s was refused for another reason: %s; want %q, %v", m.Name, m.Why, reason, err)
		}
		return nil, nil
	case "accepted":
		if !slices.Contains(c.s.believes, issuer.Lie(m.Name)) {
			c.t.Errorf("%s was accepted", m.Name)
		}
		c.refused = append(c.refused, m.Name)
		return nil, nil
	case "end":
		c.ended = true
		return nil, nil
	}
	return nil, fmt.Errorf("nobody knows how to do %q", m.Do)
}

// judge finds what the script has left out.
func (c *conversation) judge() {
	c.t.Helper()
	if !slices.Equal(c.passed, c.s.steps) {
		c.t.Errorf("done: %q\nwant: %q", c.passed, c.s.steps)
	}
	want := slices.Collect(maps.Keys(c.s.refuses))
	for _, lie := range c.s.believes {
		want = append(want, string(lie))
	}
	slices.Sort(want)
	slices.Sort(c.refused)
	if !slices.Equal(c.refused, want) {
		c.t.Errorf("tried: %q\nwant: %q", c.refused, want)
	}
}
