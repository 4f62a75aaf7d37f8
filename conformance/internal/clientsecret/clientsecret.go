// Package clientsecret reads the secrets of clients for the commands here: from
// a file, a line of standard input or the environment, never from an argument,
// which every user of the machine could see.
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

// A Source says where one client's secret comes from.
type Source struct {
	file     string
	stdin    bool
	variable string
}

// Flags defines the flags of a client whose other flags have that prefix ("" or
// "second-"), and names the environment variable that serves without them.
func (s *Source) Flags(f *flag.FlagSet, prefix string) {
	s.variable = "SIGNET_CONFORMANCE_" + strings.ToUpper(strings.ReplaceAll(prefix, "-", "_")) + "CLIENT_SECRET"
	f.StringVar(&s.file, prefix+"client-secret-file", "", "read the secret of --"+prefix+"client-id from the `file`")
	f.BoolVar(&s.stdin, prefix+"client-secret-stdin", false, "read that secret from a line of standard input")
}

// Read returns the secret, or nothing when no source has one. Several sources
// that read standard input take its lines in turn.
func (s *Source) Read(stdin *bufio.Reader, getenv func(string) string) (string, error) {
	switch {
	case s.file != "":
		b, err := os.ReadFile(s.file)
		if err != nil {
			return "", fmt.Errorf("client secret: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	case s.stdin:
		line, err := stdin.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("client secret from standard input: %w", err)
		}
		return strings.TrimSpace(line), nil
	}
	return getenv(s.variable), nil
}
