package proof

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// person is somebody with an account.
type person struct{ name, password string }

// person makes an account with a password that an operator has set: the first
// sign-in replaces it.
func (d *deployment) person(name string) *person {
	d.t.Helper()
	p := &person{name, "set by an operator once"}
	d.signet(p.password+"\n", "user", "create", name, "--email", name+"@people.example", "--password-stdin")
	return p
}

// browser is a person's browser, without JavaScript. It keeps cookies, follows
// redirects within the issuer, and stops where one leads away from it. Its
// methods return an error when a server dies under them; what was shown before
// is then still there. It is for one goroutine.
type browser struct {
	d      *deployment
	person *person
	at     *server // it talks to this one only, unless nil
	jar    http.CookieJar
	page
}

// page is what a browser shows.
type page struct {
	url    *url.URL
	status int
	body   string
	left   *url.URL // where a redirect leads, away from the issuer
}

func (p page) String() string {
	return fmt.Sprintf("%d at %s (left for %v): %s", p.status, p.url, p.left, p.body)
}

// browser returns a browser in which the person has signed in.
func (d *deployment) browser(p *person) *browser {
	d.t.Helper()
	b := d.stranger(p)
	if err := b.signIn(); err != nil {
		d.t.Fatal(err)
	}
	return b
}

// stranger returns a browser in which nobody has signed in.
func (d *deployment) stranger(p *person) *browser {
	d.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return &browser{d: d, person: p, jar: jar}
}

// open goes to a path below the issuer.
func (b *browser) open(path string) error { return b.fetch(http.MethodGet, b.d.issuer+path, nil) }

func (b *browser) fetch(method, address string, form url.Values) error {
	client := &http.Client{Transport: b.d.to(b.at), Jar: b.jar, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for range 10 {
		req, err := http.NewRequest(method, address, strings.NewReader(form.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
		req.Header.Set("Accept-Language", "en")
		req.Header.Set("Sec-Fetch-Site", "none")
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", b.d.issuer)
			req.Header.Set("Sec-Fetch-Site", "same-origin")
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		b.page = page{url: req.URL, status: res.StatusCode, body: string(body)}
		if res.StatusCode != http.StatusSeeOther {
			return nil
		}
		to, err := req.URL.Parse(res.Header.Get("Location"))
		if err != nil {
			return err
		}
		if to.Scheme+"://"+to.Host != b.d.issuer {
			b.left = to
			return nil
		}
		method, address, form = http.MethodGet, to.String(), nil
	}
	return errors.New("redirects without end")
}

// form returns where the form with this button goes and what pressing it sends,
// or an error when the page has none.
func (b *browser) form(button string) (action string, fields url.Values, err error) {
	root, err := html.Parse(strings.NewReader(b.body))
	if err != nil {
		return "", nil, err
	}
	var at *html.Node
	for n := range root.Descendants() {
		if attribute(n, "id") == button {
			at = n
		}
	}
	if at == nil {
		return "", nil, fmt.Errorf("no #%s: %s", button, b.page)
	}
	fields = make(url.Values)
	if name := attribute(at, "name"); name != "" {
		fields.Set(name, attribute(at, "value"))
	}
	for at != nil && at.Data != "form" {
		at = at.Parent
	}
	if at == nil {
		return "", nil, fmt.Errorf("#%s is in no form", button)
	}
	for n := range at.Descendants() {
		if name := attribute(n, "name"); n.Data == "input" && name != "" {
			fields.Set(name, attribute(n, "value"))
		}
	}
	to, err := b.url.Parse(attribute(at, "action"))
	if err != nil {
		return "", nil, err
	}
	return to.String(), fields, nil
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// press fills in names and values in turn and presses the button.
func (b *browser) press(button string, values ...string) error {
	action, fields, err := b.form(button)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(values); i += 2 {
		fields.Set(values[i], values[i+1])
	}
	return b.fetch(http.MethodPost, action, fields)
}

// signIn signs the person in, by way of the page that is shown or else of
// /login, and replaces a password that an operator has set.
func (b *browser) signIn() error {
	if _, _, err := b.form("submit"); err != nil || !strings.HasSuffix(b.url.Path, "/login") {
		if err := b.open("/login"); err != nil {
			return err
		}
	}
	if err := b.press("submit", "username", b.person.name, "password", b.person.password); err != nil {
		return err
	}
	if _, fields, err := b.form("submit"); err == nil && fields.Has("new_password") {
		const chosen = "a quiet heron at dawn"
		if err := b.press("submit", "new_password", chosen, "repeat_password", chosen); err != nil {
			return err
		}
		b.person.password = chosen
	}
	if b.left == nil && (b.status != http.StatusOK || strings.HasSuffix(b.url.Path, "/login")) {
		return fmt.Errorf("not signed in: %s", b.page)
	}
	return nil
}

// ask opens an authorization request of the app's. alter holds parameters and
// values in turn.
func (b *browser) ask(a *app, alter ...string) error {
	return b.open("/authorize?" + a.request(alter...).Encode())
}

// code asks the person, lets them allow it, and returns the code the app gets.
func (b *browser) code(a *app, alter ...string) string {
	b.d.t.Helper()
	must(b.d.t, b.ask(a, append([]string{"prompt", "consent"}, alter...)...))
	if b.left == nil {
		must(b.d.t, b.press("allow"))
	}
	code := b.answered(a).Get("code")
	if code == "" {
		b.d.t.Fatalf("no code: %s", b.page)
	}
	return code
}

// answered returns what the app got at its redirect URI, nil when it got nothing.
func (b *browser) answered(a *app) url.Values {
	if b.left == nil || !strings.HasPrefix(b.left.String(), a.callback+"?") {
		return nil
	}
	return b.left.Query()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
