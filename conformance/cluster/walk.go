//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// step is one request of a walk.
type step struct {
	what    string
	method  string
	path    string
	status  int
	replica string
}

// walk is a person who signs in to an app, which acts for them, until they sign
// out.
type walk struct {
	cluster *cluster
	person  *people.Person
	app     *people.App // of its own: its requests are of the walk
	steps   []step
	told    io.Writer // each step is written here
	stage   string
}

// newWalk prepares a walk through a lane.
func (c *cluster) newWalk(l *lane, p *people.Person, a *people.App, told io.Writer) (*walk, *people.Browser) {
	w := &walk{cluster: c, person: p, told: told}
	via := c.via(l, w.note)
	own := *a
	own.Via, w.app = via, &own
	return w, people.NewBrowser(c.issuer, p, via)
}

func (w *walk) note(req *http.Request, res *http.Response, replica string) {
	s := step{w.stage, req.Method, req.URL.Path, res.StatusCode, replica}
	w.steps = append(w.steps, s)
	fmt.Fprintf(w.told, "  %-9s %-4s %-22s %d  %s\n", s.what, s.method, s.path, s.status, s.replica)
}

// run walks. Its error is the first answer that is not what it has to be.
func (w *walk) run(b *people.Browser) error {
	token := func(what string, r people.Reply, err error) (string, string, error) {
		if err == nil && (r.Status != http.StatusOK || r.Member("access_token") == "" || r.Member("refresh_token") == "") {
			err = fmt.Errorf("%s is answered %s", what, r)
		}
		return r.Member("access_token"), r.Member("refresh_token"), err
	}
	w.stage = "login"
	if err := b.Ask(w.app, "prompt", "consent"); err != nil {
		return err
	}
	if err := b.SignIn(); err != nil {
		return err
	}
	w.stage = "consent"
	if err := b.Press("allow"); err != nil {
		return err
	}
	code := b.Answered(w.app).Get("code")
	if code == "" {
		return fmt.Errorf("no code: %s", b.Page)
	}
	w.stage = "token"
	r, err := w.app.TryRedeem(code)
	access, refresh, err := token("the code", r, err)
	if err != nil {
		return err
	}
	hint := r.Member("id_token")
	for range 2 {
		if err := w.use(access); err != nil {
			return err
		}
		w.stage = "refresh"
		r, err = w.app.TryRefresh(refresh)
		if access, refresh, err = token("the refresh token", r, err); err != nil {
			return err
		}
	}
	w.stage = "account"
	if err := b.Open("/account"); err != nil {
		return err
	}
	if b.Status != http.StatusOK || b.URL.Path != "/account" {
		return fmt.Errorf("the account page: %s", b.Page)
	}
	w.stage = "logout"
	back := "https://" + w.app.ID + ".example/bye"
	if err := b.Open("/logout?" + url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {back}}.Encode()); err != nil {
		return err
	}
	if b.Left == nil || b.Left.String() != back {
		return fmt.Errorf("not signed out: %s", b.Page)
	}
	if err := b.Open("/account"); err != nil {
		return err
	}
	if !strings.HasSuffix(b.URL.Path, "/login") {
		return fmt.Errorf("still signed in: %s", b.Page)
	}
	return nil
}

// use uses an access token: for what it releases about the person, and at the API.
func (w *walk) use(access string) error {
	w.stage = "userinfo"
	r, err := people.Send(w.app.Via, http.MethodGet, w.app.Issuer+"/userinfo", nil, "Authorization", "Bearer "+access)
	if err == nil && r.Status != http.StatusOK {
		err = fmt.Errorf("userinfo: %s", r)
	}
	if err != nil {
		return err
	}
	r, err = people.Send(http.DefaultTransport, http.MethodGet, w.cluster.apiURL+"/orders", nil, "Authorization", "Bearer "+access)
	if err == nil && r.Status != http.StatusOK {
		err = fmt.Errorf("the API: %s", r)
	}
	return err
}

// elsewhere says whether each step went to another replica than the one before.
func (w *walk) elsewhere() error {
	if len(w.steps) == 0 {
		return errors.New("no step was taken")
	}
	for i, s := range w.steps[1:] {
		if s.replica == w.steps[i].replica {
			return fmt.Errorf("%s %s went to %s, as did the request before", s.method, s.path, s.replica)
		}
	}
	return nil
}
