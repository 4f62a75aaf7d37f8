//go:build unix

// Command pg runs a command with a throwaway PostgreSQL, so that all test
// packages of one run share it:
//
//	go run ./storage/storagetest/pg -- go test ./...
//
// The command finds the server in SIGNET_TEST_POSTGRES; its exit code is
// passed on. With -nosync commits do not wait for the disk.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/signet-oidc/signet/storage/storagetest"
)

func main() {
	nosync := flag.Bool("nosync", false, "turn fsync off")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: pg [-nosync] -- COMMAND [ARGUMENT…]\n\nStarts a PostgreSQL server, runs COMMAND with its URL in SIGNET_TEST_POSTGRES, and stops the server.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	code, err := run(*nosync, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "pg:", err)
	}
	os.Exit(code)
}

func run(nosync bool, args []string) (code int, err error) {
	server, err := storagetest.StartServer(storagetest.ServerOptions{NoSync: nosync})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	// An interrupt goes to the command, too; its end is ours.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)

	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), storagetest.Environment+"="+server.URL("postgres"))
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-interrupts:
			if s == syscall.SIGTERM {
				_ = cmd.Process.Signal(s) // a terminal sends interrupts to both of us
			}
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(1, exit.ExitCode()), nil
			}
			if err != nil {
				return 1, err
			}
			return 0, nil
		}
	}
}
