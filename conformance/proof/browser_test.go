package proof

import (
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// person makes an account with a password that an operator has set: the first
// sign-in replaces it.
func (d *deployment) person(name string) *people.Person {
	d.t.Helper()
	p := &people.Person{Name: name, Password: "set by an operator once"}
	d.signet(p.Password+"\n", "user", "create", name, "--email", name+"@people.example", "--password-stdin")
	return p
}

// browser is a person's browser. It goes to any server.
type browser struct {
	*people.Browser
	d *deployment
}

// browser returns a browser in which the person has signed in.
func (d *deployment) browser(p *people.Person) *browser {
	d.t.Helper()
	b := &browser{people.NewBrowser(d.issuer, p, d.to(nil)), d}
	must(d.t, b.SignIn())
	return b
}

// code asks the person, lets them allow it, and returns the code the app gets.
func (b *browser) code(a *app, alter ...string) string {
	b.d.t.Helper()
	must(b.d.t, b.Ask(a.App, append([]string{"prompt", "consent"}, alter...)...))
	if b.Left == nil {
		must(b.d.t, b.Press("allow"))
	}
	code := b.Answered(a.App).Get("code")
	if code == "" {
		b.d.t.Fatalf("no code: %s", b.Page)
	}
	return code
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
