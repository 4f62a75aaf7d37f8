package proof

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// failpoints are the places at which the servers die, see cmd/signet/faults.go.
func failpoints() []string {
	var all []string
	for _, name := range []string{"approve", "redeem", "rotate", "revoke"} {
		all = append(all, name+".before_commit", name+".after_commit")
	}
	return all
}

// deaths counts how often servers died at each failpoint.
func (d *deployment) deaths() map[string]int {
	count := make(map[string]int)
	for _, text := range d.logs() {
		for line := range strings.Lines(text) {
			if name, ok := strings.CutPrefix(line, "failpoint "); ok {
				count[strings.TrimSpace(name)]++
			}
		}
	}
	return count
}

// Nothing of the failpoints is in the program as it is shipped.
func TestOrdinaryProgramHasNoFailpoints(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		build func() (string, error)
		has   bool
	}{{ordinary, false}, {withTag, true}} {
		path, err := test.build()
		must(t, err)
		program, err := os.ReadFile(path)
		must(t, err)
		for _, sign := range []string{"SIGNET_FAILPOINT", "faultyStore", "built to die"} {
			if bytes.Contains(program, []byte(sign)) != test.has {
				t.Errorf("%s: %q in it: %t", path, sign, !test.has)
			}
		}
	}
	d := newDeployment(t, onSQLite)
	d.start(1, "SIGNET_FAILPOINT=approve.before_commit=kill@1")
	b := d.browser(d.person("ada"))
	if r := d.app("shop"); b.code(r) == "" || len(d.servers()) != 1 {
		t.Error("it died")
	}
}

// What a server was doing when it died comes about or it does not, as the
// failpoint says; and who asks again gets what design says they get.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *deployment) {
		// life ends the server's life and begins another, which ends at the point.
		life := func(point string) {
			t.Helper()
			for _, s := range d.servers() {
				s.kill()
			}
			if point != "" {
				point += "=kill@1"
			}
			d.start(1, "SIGNET_FAILPOINT="+point)
		}
		life("")
		shop, b := d.app("shop"), d.browser(d.person("ada"))
		dies := func(point string, do func() error) {
			t.Helper()
			life(point)
			if err := do(); err == nil || errors.Is(err, errDown) {
				t.Fatalf("%s: %v", point, err)
			}
			until(t, "the server is dead", func() bool { return len(d.servers()) == 0 })
			life("")
		}
		redeem := func(code string) func() error {
			return func() error { _, err := shop.TryRedeem(code); return err }
		}
		refresh := func(token string) func() error {
			return func() error { _, err := shop.TryRefresh(token); return err }
		}
		ok := func(what string, r people.Reply) string {
			t.Helper()
			if r.Status != http.StatusOK {
				t.Fatalf("%s: %s", what, r)
			}
			return r.Member("refresh_token")
		}
		refused := func(what string, r people.Reply) {
			t.Helper()
			if r.Member("error") != "invalid_grant" {
				t.Fatalf("%s: %s", what, r)
			}
		}
		rounds := often(1, 10)
		for _, when := range slices.Repeat([]string{".before_commit", ".after_commit"}, rounds) {
			must(t, b.Ask(shop.App, "prompt", "consent"))
			form := b.Page
			dies("approve"+when, func() error { return b.Press("allow") })
			must(t, b.Press("allow"))
			code := b.Answered(shop.App)
			b.Page = form
			must(t, b.Press("allow"))
			if again := b.Answered(shop.App); code.Get("code") == "" || again.Encode() != code.Encode() {
				t.Errorf("approve%s: the approval sent again is answered %v, then %v", when, code, again)
			}

			dies("redeem"+when, redeem(code.Get("code")))
			if r := shop.redeem(code.Get("code")); when == ".before_commit" {
				ok("redeem"+when, r)
			} else {
				refused("redeem"+when, r) // a replay, as far as anybody can tell: sign in again
			}

			first := ok("a new code", shop.redeem(b.code(shop)))
			dies("rotate"+when, refresh(first))
			second := ok("rotate"+when, shop.refresh(first))
			if again := ok("rotate"+when+", a third time", shop.refresh(first)); again != second {
				t.Errorf("rotate%s: two successors", when)
			}
			third := ok("the successor", shop.refresh(second))

			dies("revoke"+when, refresh(first)) // reuse
			if when == ".before_commit" {
				third = ok("a family that was not revoked", shop.refresh(third))
				refused("reuse", shop.refresh(first))
			}
			refused("the family after reuse", shop.refresh(third))
		}
		deaths := d.deaths()
		for _, point := range failpoints() {
			if deaths[point] != rounds {
				t.Errorf("%d deaths at %s: %v", deaths[point], point, deaths)
			}
		}
	}, faulty)
}
