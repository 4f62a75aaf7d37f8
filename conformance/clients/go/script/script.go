// Package script speaks with the Go test that started the program, a line of
// JSON each way; script_test.go of the folder above is the other side.
package script

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// Config is what the test tells in the first argument.
type Config struct {
	Issuer        string
	CAFile        string            // PEM, what signed the issuer's certificate
	Secrets       map[string]string // by client
	RedirectURI   string
	PostLogoutURI string
	Email         string
	Listen        string   // an address for back-channel logout
	Lies          []string // what the library has to hear
	File          string   // a configuration file of the client's own
}

// Script is the conversation.
type Script struct {
	Config
	lines *bufio.Scanner
}

// Start reads the configuration.
func Start() (*Script, error) {
	s := &Script{lines: bufio.NewScanner(os.Stdin)}
	s.lines.Buffer(nil, 1<<20)
	if len(os.Args) != 2 {
		return nil, errors.New("the configuration is missing: the tests of conformance/clients give it")
	}
	return s, json.Unmarshal([]byte(os.Args[1]), &s.Config)
}

func (s *Script) ask(message map[string]any, into any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		return err
	}
	if !s.lines.Scan() {
		return fmt.Errorf("the test has ended: %w", s.lines.Err())
	}
	var failed struct{ Error string }
	if err := json.Unmarshal(s.lines.Bytes(), &failed); err != nil {
		return err
	}
	if failed.Error != "" {
		return errors.New(failed.Error)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(s.lines.Bytes(), into)
}

// Browse opens an address as a willing person, who signs in and allows what is
// asked for, and returns where that ended.
func (s *Script) Browse(address string) (*url.URL, error) {
	var ended struct{ URL string }
	if err := s.ask(map[string]any{"do": "browse", "url": address}, &ended); err != nil {
		return nil, err
	}
	return url.Parse(ended.URL)
}

// Step is something that has to go well. After it nothing else is done when it
// does not.
func (s *Script) Step(name string, run func() error) error {
	if err := run(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", name, err), s.ask(map[string]any{"do": "failed", "name": name, "why": err.Error()}, nil))
	}
	return s.ask(map[string]any{"do": "passed", "name": name}, nil)
}

// Refuse is something that the library has to refuse; the test judges why it does.
func (s *Script) Refuse(name string, run func() error) error {
	if err := run(); err != nil {
		return s.ask(map[string]any{"do": "refused", "name": name, "why": strings.ReplaceAll(err.Error(), "\n", " ")}, nil)
	}
	return s.ask(map[string]any{"do": "accepted", "name": name}, nil)
}

// EachLie has the library refuse each of the issuer's lies.
func (s *Script) EachLie(run func() error) error {
	for _, lie := range s.Lies {
		if err := s.ask(map[string]any{"do": "tell", "name": lie}, nil); err != nil {
			return err
		}
		if err := s.Refuse(lie, run); err != nil {
			return err
		}
	}
	return s.ask(map[string]any{"do": "tell", "name": ""}, nil)
}

// End says that everything was done.
func (s *Script) End() error { return s.ask(map[string]any{"do": "end"}, nil) }

// Equal returns an error unless a value is what it should be.
func Equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}
