package proof

import (
	"net/http"
	"strings"

	"golang.org/x/oauth2"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// ordersAPI is the API that the apps ask for.
const ordersAPI = "https://orders.example"

// app is an app that is registered with all a test needs. It goes to any server.
type app struct {
	*people.App
	d *deployment
}

// client registers a client with flags for `signet client create`.
func (d *deployment) client(id string, flags ...string) *app {
	d.t.Helper()
	secret := signetJSON[struct {
		ClientSecret string `json:"client_secret"`
	}](d, append([]string{"client", "create", "--id", id}, flags...)...).ClientSecret
	return &app{&people.App{Issuer: d.issuer, Via: d.to(nil), ID: id, Secret: secret, Callback: "https://" + id + ".example/cb", Verifier: oauth2.GenerateVerifier()}, d}
}

// app registers an app, and the API it asks for when that is not there. more
// are flags for `signet client create`.
func (d *deployment) app(id string, more ...string) *app {
	d.t.Helper()
	apis := signetJSON[struct{ Items []struct{} }](d, "resource", "list")
	if len(apis.Items) == 0 {
		d.signet("", "resource", "create", ordersAPI, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write")
	}
	args := []string{"--name", id, "--grant", "authorization_code", "--grant", "refresh_token",
		"--redirect-uri", "https://" + id + ".example/cb", "--id-token-alg", "ES256"}
	for _, scope := range []string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write"} {
		args = append(args, "--scope", scope)
	}
	a := d.client(id, append(args, more...)...)
	for _, server := range d.servers() { // within a second each has noticed
		until(d.t, "the app is known", func() bool {
			r, err := d.send(server, http.MethodGet, "/authorize?"+a.Request("prompt", "none").Encode(), nil)
			return err == nil && strings.Contains(r.Header.Get("Location"), "error=login_required")
		})
	}
	return a
}

// by returns the app as it goes to one server, or to any when at is nil.
func (a *app) by(at *server) *app {
	one := *a.App
	one.Via = a.d.to(at)
	return &app{&one, a.d}
}

// redeem exchanges a code while all is well.
func (a *app) redeem(code string) people.Reply { return a.answer(a.TryRedeem(code)) }

// refresh uses a refresh token while all is well.
func (a *app) refresh(token string) people.Reply { return a.answer(a.TryRefresh(token)) }

// active introspects a token of the app's.
func (a *app) active(token string) bool {
	a.d.t.Helper()
	active, err := a.Active(token)
	must(a.d.t, err)
	return active
}

func (a *app) answer(r people.Reply, err error) people.Reply {
	a.d.t.Helper()
	must(a.d.t, err)
	return r
}
