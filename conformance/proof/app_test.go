package proof

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
)

// ordersAPI is the API that the apps ask for.
const ordersAPI = "https://orders.example"

// app is a relying party: a confidential client that may do all a test needs.
type app struct {
	d          *deployment
	id, secret string
	callback   string
	verifier   string // the same for each of its requests; a test may want others
	at         *server
}

// app registers an app, and the API it asks for when that is not there. more
// are flags for `signet client create`.
func (d *deployment) app(id string, more ...string) *app {
	d.t.Helper()
	apis := signetJSON[struct{ Items []struct{} }](d, "resource", "list")
	if len(apis.Items) == 0 {
		d.signet("", "resource", "create", ordersAPI, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write")
	}
	a := &app{d: d, id: id, callback: "https://" + id + ".example/cb", verifier: oauth2.GenerateVerifier()}
	args := []string{"client", "create", "--id", id, "--name", id, "--grant", "authorization_code", "--grant", "refresh_token",
		"--redirect-uri", a.callback, "--id-token-alg", "ES256"}
	for _, scope := range []string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write"} {
		args = append(args, "--scope", scope)
	}
	a.secret = signetJSON[struct {
		ClientSecret string `json:"client_secret"`
	}](d, append(args, more...)...).ClientSecret
	for _, server := range d.servers() { // within a second each has noticed
		until(d.t, "the app is known", func() bool {
			r, err := d.send(server, http.MethodGet, "/authorize?"+a.request("prompt", "none").Encode(), nil)
			return err == nil && strings.Contains(r.header.Get("Location"), "error=login_required")
		})
	}
	return a
}

// request is an authorization request; alter holds parameters and values in
// turn, "" takes one out.
func (a *app) request(alter ...string) url.Values {
	v := url.Values{
		"response_type": {"code"}, "client_id": {a.id}, "redirect_uri": {a.callback}, "state": {"st"}, "nonce": {"no"},
		"scope":          {"openid offline_access orders:read"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(a.verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i+1 < len(alter); i += 2 {
		v.Set(alter[i], alter[i+1])
		if alter[i+1] == "" {
			v.Del(alter[i])
		}
	}
	return v
}

// post sends a form to an endpoint as the app. The error is of the connection.
func (a *app) post(path string, form url.Values) (reply, error) {
	pair := url.QueryEscape(a.id) + ":" + url.QueryEscape(a.secret)
	return a.d.send(a.at, http.MethodPost, path, form, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
}

func (a *app) tryRedeem(code string) (reply, error) {
	return a.post("/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.callback}, "code_verifier": {a.verifier}})
}

func (a *app) tryRefresh(token string) (reply, error) {
	return a.post("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// redeem exchanges a code while all is well.
func (a *app) redeem(code string) reply { return a.answer(a.tryRedeem(code)) }

// refresh uses a refresh token while all is well.
func (a *app) refresh(token string) reply { return a.answer(a.tryRefresh(token)) }

// active introspects a token of the app's.
func (a *app) active(token string) bool {
	a.d.t.Helper()
	r := a.answer(a.post("/introspect", url.Values{"token": {token}}))
	if r.status != http.StatusOK {
		a.d.t.Fatalf("introspection: %s", r)
	}
	return r.member("active") == "true"
}

func (a *app) answer(r reply, err error) reply {
	a.d.t.Helper()
	if err != nil {
		a.d.t.Fatal(err)
	}
	return r
}
