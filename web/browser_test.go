package web_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// browser does what a browser does with our pages, without JavaScript: it
// keeps cookies, follows redirects within the issuer, fills in forms and says
// where each request comes from. A redirect to anywhere else stops it, so that
// a test can look at what the app would get.
type browser struct {
	t      testing.TB
	site   *site
	client *http.Client
	agent  string
	tab
}

// tab is what a browser shows.
type tab struct {
	at     *url.URL // the page's address
	status int
	header http.Header
	body   string
	left   *url.URL // where a redirect would take the browser, away from the issuer
	hops   []*http.Response
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{t: s.t, site: s, agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		client: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// another opens a second tab: the same cookies, another page.
func (b *browser) another() *browser {
	c := *b
	c.tab = tab{}
	return &c
}

// open follows a link that a person has typed or found on another site.
func (b *browser) open(address string) *browser {
	b.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.site.url + address
	}
	b.tab = tab{}
	b.fetch(http.MethodGet, address, "", "none")
	return b
}

// post sends a form from a page of ours, or as from says: the value of
// Sec-Fetch-Site.
func (b *browser) post(address string, form url.Values, from string) *browser {
	b.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.site.url + address
	}
	b.tab = tab{}
	b.fetch(http.MethodPost, address, form.Encode(), from)
	return b
}

func (b *browser) fetch(method, address, body, from string) {
	b.t.Helper()
	for range 10 {
		req, err := http.NewRequestWithContext(b.t.Context(), method, address, strings.NewReader(body))
		if err != nil {
			b.t.Fatal(err)
		}
		req.Header.Set("User-Agent", b.agent)
		req.Header.Set("Accept", "text/html,application/xhtml+xml")
		req.Header.Set("Accept-Language", "en")
		req.Header.Set("Sec-Fetch-Site", from)
		if method == http.MethodPost {
			req.Header.Set("Content-Type", formType)
			req.Header.Set("Origin", map[string]string{"same-origin": req.URL.Scheme + "://" + req.URL.Host, "none": "null"}[from])
			if from == "cross-site" {
				req.Header.Set("Origin", "https://evil.example")
			}
		}
		if from == "cross-site" && method == http.MethodPost { // SameSite=Lax
			bare := *b.client
			bare.Jar = nil
			b.receive(bare.Do(req))
		} else {
			b.receive(b.client.Do(req))
		}
		if b.left != nil || b.status != http.StatusSeeOther {
			return
		}
		method, address, body = http.MethodGet, b.at.String(), ""
	}
	b.t.Fatal("redirects without end")
}

func (b *browser) receive(res *http.Response, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.at, b.status, b.header, b.body = res.Request.URL, res.StatusCode, res.Header, string(body)
	b.hops = append(b.hops, res)
	if to := res.Header.Get("Location"); to != "" {
		target, err := res.Request.URL.Parse(to)
		if err != nil {
			b.t.Fatal(err)
		}
		if target.Scheme != res.Request.URL.Scheme || target.Host != res.Request.URL.Host {
			b.left = target
		} else {
			b.at = target
		}
	}
}

// node returns the element with this id, or nil.
func (b *browser) node(id string) *html.Node {
	b.t.Helper()
	root, err := html.Parse(strings.NewReader(b.body))
	if err != nil {
		b.t.Fatal(err)
	}
	for n := range root.Descendants() {
		if attr(n, "id") == id {
			return n
		}
	}
	return nil
}

// text returns the words in the element with this id, "" when there is none.
func (b *browser) text(id string) string {
	b.t.Helper()
	n := b.node(id)
	if n == nil {
		return ""
	}
	var words []string
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			words = append(words, strings.Fields(d.Data)...)
		}
	}
	return strings.Join(words, " ")
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}

// form returns the fields of the form that holds the button, as pressing it
// would send them, and where to.
func (b *browser) form(button string) (action string, fields url.Values) {
	b.t.Helper()
	n := b.node(button)
	if n == nil {
		b.t.Fatalf("no #%s at %s: %d %s", button, b.at, b.status, b.body)
	}
	fields = make(url.Values)
	if name := attr(n, "name"); name != "" {
		fields.Set(name, attr(n, "value"))
	}
	for n != nil && n.Data != "form" {
		n = n.Parent
	}
	if n == nil || attr(n, "method") != "post" {
		b.t.Fatalf("#%s is in no form to be posted", button)
	}
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == "input" && has(d, "name") {
			fields.Set(attr(d, "name"), attr(d, "value"))
		}
	}
	target, err := b.at.Parse(attr(n, "action"))
	if err != nil {
		b.t.Fatal(err)
	}
	return target.String(), fields
}

// press fills in names and values in turn and presses the button.
func (b *browser) press(button string, values ...string) *browser {
	b.t.Helper()
	action, fields := b.form(button)
	for i := 0; i < len(values); i += 2 {
		fields.Set(values[i], values[i+1])
	}
	return b.post(action, fields, "same-origin")
}

// signIn fills in the sign-in page.
func (b *browser) signIn(login, password string) *browser {
	b.t.Helper()
	return b.press("submit", "username", login, "password", password)
}

// cookie returns a cookie's value by a part of its name, "" when there is none.
func (b *browser) cookie(part string) string {
	b.t.Helper()
	u, err := url.Parse(b.site.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.client.Jar.Cookies(u) {
		if strings.Contains(c.Name, part) {
			return c.Value
		}
	}
	return ""
}

// isPage checks the path and the status of what is shown.
func (b *browser) isPage(status int, path string) *browser {
	b.t.Helper()
	if b.status != status || b.at.Path != path || b.left != nil {
		b.t.Fatalf("got %d at %s (left for %v), want %d at %s: %s", b.status, b.at, b.left, status, path, b.body)
	}
	return b
}

// answered returns what the app got at this address.
func (b *browser) answered(callback string) url.Values {
	b.t.Helper()
	if b.left == nil {
		b.t.Fatalf("still at %s: %d %s", b.at, b.status, b.body)
	}
	got := *b.left
	got.RawQuery = ""
	if got.String() != callback {
		b.t.Fatalf("sent to %s, want %s", b.left, callback)
	}
	return b.left.Query()
}
