package browser

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Somebody signs in at the shop, allows it, orders, withdraws its access, sees
// that refused, and signs out; whichever way the answers come, and without
// scripts.
func TestShop(t *testing.T) {
	for _, test := range []struct {
		name             string
		formPost, script bool
	}{
		{"query", false, true},
		{"form_post", true, true},
		{"query without scripts", false, false},
		{"form_post without scripts", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var args []string
			if test.formPost {
				args = append(args, "--form-post")
			}
			d := startDemo(t, args...)
			b := newTab(t)
			if !test.script {
				b.withoutScripts()
			}
			// answered is where a form post takes a click.
			answered := func() {
				if test.formPost && !test.script {
					b.sees("form-post").click("submit")
				}
			}

			b.open(d.StorefrontURL).click("sign-in")
			b.sees("login").reads("client", "Harbour Street Goods")
			b.types("username", d.User.Username).types("password", "not the password").click("submit")
			b.sees("error-summary").types("password", d.User.Password).click("submit")
			b.sees("consent", "device-note").reads("client", "Harbour Street Goods").reads("scopes", "Place and cancel orders").reads("host", "127.0.0.1:").click("allow")
			answered()
			b.sees("sign-out").reads("nav-profile", "Ada Lovelace")
			if at := b.address(); at != d.StorefrontURL+"/" {
				t.Errorf("the browser is at %s", at)
			}
			b.click("order-lamp").sees("placed").reads("orders", "Desk lamp")
			b.click("nav-profile").sees("email").reads("email", "ada@example.com (verified)")

			b.click("account").sees("apps").reads("app-1-title", "Harbour Street Goods").click("app-1-withdraw")
			b.sees("notice", "no-apps")
			withdrawn := time.Now()
			deadline := withdrawn.Add(soon)
			for b.open(d.StorefrontURL + "/orders"); !b.has("refused"); b.open(d.StorefrontURL + "/orders") {
				if time.Now().After(deadline) {
					t.Fatal("the API still takes the token")
				}
			}
			t.Logf("refused %s after access was withdrawn", time.Since(withdrawn).Round(time.Millisecond))
			b.reads("refused", "The shop may no longer act for you")

			b.click("again").sees("consent").click("deny") // the person is still signed in at the provider
			answered()
			b.sees("refused").reads("advice", "You have not allowed the shop to act for you").click("again")
			b.sees("consent").click("allow")
			answered()
			b.sees("orders").reads("orders", "Desk lamp")

			b.click("sign-out").sees("signed-out")
			if at := b.address(); !strings.HasPrefix(at, d.StorefrontURL+"/signed-out") {
				t.Errorf("the browser is at %s", at)
			}
			b.open(d.StorefrontURL + "/orders").sees("login") // of the shop, and of the provider
		})
	}
}

// Keys change under somebody who is signed in. Rotation is not noticed; of a
// key that was given up every token is refused, and the shop gets another one
// without asking anybody.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	operate := func(args ...string) (keys []signingKey) {
		t.Helper()
		cmd := exec.Command(filepath.Join(binaries, "signet"), append(args, "--json", "--database", d.Database)...)
		out, err := cmd.Output()
		var list struct{ Items []signingKey }
		if err == nil {
			err = json.Unmarshal(out, &list)
		}
		if err != nil {
			t.Fatalf("signet %v: %v\n%s", args, err, out)
		}
		return list.Items
	}
	active := func(keys []signingKey) string {
		t.Helper()
		for _, k := range keys {
			if k.Alg == "ES256" && k.Purpose == "token" && k.State == "active" {
				return k.KID
			}
		}
		t.Fatalf("no key signs: %+v", keys)
		return ""
	}
	b := newTab(t)
	b.open(d.StorefrontURL).click("sign-in").sees("login").types("username", d.User.Username).types("password", d.User.Password).click("submit")
	b.sees("consent").click("allow").sees("sign-out").click("order-lamp").sees("placed")
	first := active(operate("key", "list"))
	second := active(operate("key", "rotate"))
	if first == second {
		t.Error("the key has not changed")
	}
	b.open(d.StorefrontURL).click("order-clock").sees("placed").reads("orders", "Wall clock")
	for _, kid := range []string{first, second} {
		if third := active(operate("key", "compromise", kid)); third == kid {
			t.Errorf("%s still signs", kid)
		}
		// For the moment until the provider has heard of it, it signs with a key
		// that is refused. Nobody is signed out over that.
		deadline := time.Now().Add(soon)
		for b.open(d.StorefrontURL + "/profile"); !b.has("sub"); b.open(d.StorefrontURL + "/profile") {
			if !b.has("sign-out") || time.Now().After(deadline) {
				t.Fatalf("with %s given up the shop is at %s", kid, b.address())
			}
		}
		for range 3 {
			b.open(d.StorefrontURL).click("order-bell").sees("placed")
		}
	}
}

// signingKey is a line of `signet key list`.
type signingKey struct{ KID, Alg, Purpose, State string }
