package clients

import (
	"fmt"
	"os"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// program is the one under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
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
