package clients

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/storage/storagetest"
)

var all = flag.Bool("all", os.Getenv("SIGNET_ALL_CLIENTS") != "", "sign people in with the clients of Maven Central and PyPI as well")

// byFlag are the tests that run with -all only, for they fetch much, and by what
// no lock file has the digests of.
var byFlag = map[string]string{
	"TestSpringSecurity": "Spring Security",
	"TestNewestAuthlib":  "Authlib's newest",
}

// program is the one under test.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if err := leaveOut(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "signet-clients-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if program, err = issuer.Build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return storagetest.Main(m)
	}())
}

// leaveOut leaves out what only -all runs, and says so: it then counts neither
// as passed nor as skipped.
func leaveOut() error {
	if *all {
		return nil
	}
	names := slices.Sorted(maps.Keys(byFlag))
	for _, name := range names {
		fmt.Printf("not run: %s, only with -all or SIGNET_ALL_CLIENTS=1\n", byFlag[name])
	}
	skip := "^(" + strings.Join(names, "|") + ")$"
	if given := flag.Lookup("test.skip").Value.String(); given != "" {
		skip += "|" + given
	}
	return flag.Set("test.skip", skip)
}
