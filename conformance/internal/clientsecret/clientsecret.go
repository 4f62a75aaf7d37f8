// Package clientsecret reads the secrets of clients, and passwords, for the
// commands here: from a file, a line of standard input or the environment, never
// from an argument, which every user of the machine could see.
package clientsecret

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// A Source says where one client's secret, or one password, comes from.
type Source struct {
	name     string
	file     string
	stdin    bool
	variable string
}

// Flags defines the flags of a client whose other flags have that prefix ("" or
// "second-"), and names the environment variable that serves without them.
func (s *Source) Flags(f *flag.FlagSet, prefix string) {
	s.Named(f, prefix+"client-secret", "--"+prefix+"client-id")
}

// Named is Flags for a secret of any name, which belongs to what the flag of
// gives.
func (s *Source) Named(f *flag.FlagSet, name, of string) {
	s.name = name
	s.variable = "SIGNET_CONFORMANCE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	f.StringVar(&s.file, name+"-file", "", "read the "+name+" of "+of+" from the `file`")
	f.BoolVar(&s.stdin, name+"-stdin", false, "read it from a line of standard input")
}

// Read returns the secret, or nothing when no source has one. Several sources
// that read standard input take its lines in turn.
func (s *Source) Read(stdin *bufio.Reader, getenv func(string) string) (string, error) {
	switch {
	case s.file != "":
		b, err := os.ReadFile(s.file)
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.name, err)
		}
		return strings.TrimSpace(string(b)), nil
	case s.stdin:
		line, err := stdin.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%s from standard input: %w", s.name, err)
		}
		return strings.TrimSpace(line), nil
	}
	return getenv(s.variable), nil
}
