package people

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// patience is how long a client waits for an answer.
const patience = time.Minute

// Person is somebody with an account.
type Person struct{ Name, Password string }

// Browser is a person's browser, without JavaScript. It keeps cookies, follows
// redirects within the issuer and Apps, and stops where one leads away from
// them. It is for one goroutine.
type Browser struct {
	Issuer string
	Apps   []string // origins, as https://app.example
	Person *Person
	Via    http.RoundTripper
	jar    http.CookieJar
	Page
}

// Page is what a browser shows.
type Page struct {
	URL    *url.URL
	Status int
	Body   string
	Left   *url.URL // where a redirect leads, away from the issuer
}

func (p Page) String() string {
	return fmt.Sprintf("%d at %s (left for %v): %s", p.Status, p.URL, p.Left, p.Body)
}

// NewBrowser returns a browser in which nobody has signed in.
func NewBrowser(issuer string, p *Person, via http.RoundTripper) *Browser {
	jar, _ := cookiejar.New(nil) // fails never
	return &Browser{Issuer: issuer, Person: p, Via: via, jar: jar}
}

// Open goes to a path below the issuer.
func (b *Browser) Open(path string) error { return b.Visit(b.Issuer + path) }

// Visit goes to an address.
func (b *Browser) Visit(address string) error { return b.fetch(http.MethodGet, address, nil) }

func (b *Browser) fetch(method, address string, form url.Values) error {
	client := &http.Client{Transport: b.Via, Jar: b.jar, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	from := b.URL
	for range 10 {
		req, err := http.NewRequest(method, address, strings.NewReader(form.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
		req.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
		req.Header.Set("Accept-Language", "en")
		req.Header.Set("Sec-Fetch-Site", "none")
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			// Our pages are sent with Referrer-Policy: same-origin, which makes the
			// origin of what is posted elsewhere null.
			req.Header.Set("Origin", "null")
			req.Header.Set("Sec-Fetch-Site", "cross-site")
			if from != nil && origin(from) == origin(req.URL) {
				req.Header.Set("Origin", origin(from))
				req.Header.Set("Sec-Fetch-Site", "same-origin")
			}
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
		b.Page = Page{URL: req.URL, Status: res.StatusCode, Body: string(body)}
		if res.StatusCode != http.StatusSeeOther && res.StatusCode != http.StatusFound {
			return nil
		}
		to, err := req.URL.Parse(res.Header.Get("Location"))
		if err != nil {
			return err
		}
		if !b.own(to) && !slices.Contains(b.Apps, origin(to)) {
			b.Left = to
			return nil
		}
		method, address, form = http.MethodGet, to.String(), nil
	}
	return errors.New("redirects without end")
}

// own says whether an address is the issuer's, which may have a path.
func (b *Browser) own(u *url.URL) bool {
	issuer, err := url.Parse(b.Issuer)
	return err == nil && origin(u) == origin(issuer)
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// Form returns where the form with this button goes and what pressing it sends,
// or an error when the page has none.
func (b *Browser) Form(button string) (action string, fields url.Values, err error) {
	root, err := html.Parse(strings.NewReader(b.Body))
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
		return "", nil, fmt.Errorf("no #%s: %s", button, b.Page)
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
	to, err := b.URL.Parse(attribute(at, "action"))
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

// Press fills in names and values in turn and presses the button.
func (b *Browser) Press(button string, values ...string) error {
	action, fields, err := b.Form(button)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(values); i += 2 {
		fields.Set(values[i], values[i+1])
	}
	return b.fetch(http.MethodPost, action, fields)
}

// SignIn signs the person in, by way of the page that is shown or else of
// /login, and replaces a password that an operator has set.
func (b *Browser) SignIn() error {
	if _, _, err := b.Form("submit"); err != nil || !strings.HasSuffix(b.URL.Path, "/login") {
		if err := b.Open("/login"); err != nil {
			return err
		}
	}
	if err := b.Press("submit", "username", b.Person.Name, "password", b.Person.Password); err != nil {
		return err
	}
	if _, fields, err := b.Form("submit"); err == nil && fields.Has("new_password") {
		const chosen = "a quiet heron at dawn"
		if err := b.Press("submit", "new_password", chosen, "repeat_password", chosen); err != nil {
			return err
		}
		b.Person.Password = chosen
	}
	if b.Left == nil && (b.Status != http.StatusOK || strings.HasSuffix(b.URL.Path, "/login")) {
		return fmt.Errorf("not signed in: %s", b.Page)
	}
	return nil
}

// Consent opens an app's request at an address and does as a willing person
// does: signs in where that is asked, allows what is asked for, sends on by
// hand an answer that a page without scripts holds.
func (b *Browser) Consent(address string) error {
	if err := b.Visit(address); err != nil {
		return err
	}
	for range 4 {
		if b.Left != nil {
			return nil
		}
		press := func() error { return b.Press("allow") }
		switch {
		case strings.HasPrefix(b.URL.String(), b.Issuer+"/login"):
			press = b.SignIn
		case strings.Contains(b.Body, `id="form-post"`):
			press = func() error { return b.Press("submit") }
		case !strings.Contains(b.Body, `id="allow"`):
			return nil
		}
		if err := press(); err != nil {
			return err
		}
	}
	return fmt.Errorf("asked without end: %s", b.Page)
}

// Ask opens an authorization request of the app's. alter holds parameters and
// values in turn.
func (b *Browser) Ask(a *App, alter ...string) error {
	return b.Open("/authorize?" + a.Request(alter...).Encode())
}

// Answered returns what the app got at its redirect URI, nil when it got nothing.
func (b *Browser) Answered(a *App) url.Values {
	if b.Left == nil || !strings.HasPrefix(b.Left.String(), a.Callback+"?") {
		return nil
	}
	return b.Left.Query()
}
