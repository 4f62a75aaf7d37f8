package proof

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/signet-oidc/signet/storage/storagetest"
)

var (
	long  = flag.Bool("long", os.Getenv("SIGNET_LONG") != "", "as often as a release deserves, rather than every change")
	raced = flag.Bool("raced", false, "build the servers with the race detector")

	// binaries is where the programs under test are.
	binaries string
	// Built when the first test asks for it.
	ordinary = sync.OnceValues(func() (string, error) { return build("signet") })
	withTag  = sync.OnceValues(func() (string, error) { return build("signet-faults", "-tags", "faults") })
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "signet-proof-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		return storagetest.Main(m)
	}())
}

// build builds the program as its makefile does, and returns the path.
func build(name string, args ...string) (string, error) {
	path := filepath.Join(binaries, name)
	if *raced {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", path}, args...), "../../cmd/signet")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return path, nil
}

// often is how many rounds a claim takes: by default, and with -long.
func often(short, full int) int {
	if *long {
		return full
	}
	return short
}
