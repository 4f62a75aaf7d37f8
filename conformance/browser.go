package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// A browser is what a person sits at, without scripts: it keeps cookies, follows
// redirects within the issuer and fills in forms. A redirect to anywhere else
// stops it. Tabs share its cookies.
type browser struct {
	env  *Env
	jar  http.CookieJar
	hops []hop    // since the journey began
	left *url.URL // where a redirect took it, away from the issuer
}

// A hop is one request of a journey with its answer.
type hop struct {
	method string
	at     *url.URL
	answer *Answer
}

func (e *Env) newBrowser() (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("cookies: %w", err)
	}
	return &browser{env: e, jar: jar}, nil
}

// maxHops bounds a journey.
const maxHops = 40

// visit sends a request and follows where it leads, until there is a page or
// the issuer is left.
func (b *browser) visit(ctx context.Context, method string, at *url.URL, form url.Values) error {
	for len(b.hops) < maxHops {
		a, err := b.send(ctx, method, at, form)
		if err != nil {
			return err
		}
		b.hops = append(b.hops, hop{method, at, a})
		target := b.last().redirect()
		if target == nil {
			return nil
		}
		if !b.env.isOwn(target) {
			b.left = target
			return nil
		}
		// RFC 9110 §15.4: 307 and 308 repeat the request.
		if a.Status != http.StatusTemporaryRedirect && a.Status != http.StatusPermanentRedirect {
			method, form = http.MethodGet, nil
		}
		at = target
	}
	return errors.New("the browser was sent around without end")
}

func (b *browser) send(ctx context.Context, method string, at *url.URL, form url.Values) (*Answer, error) {
	header := http.Header{"Accept": {"text/html,application/xhtml+xml"}, "Accept-Language": {"en"}}
	for _, c := range b.jar.Cookies(at) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	if len(header["Cookie"]) > 0 {
		header.Set("Cookie", strings.Join(header["Cookie"], "; "))
	}
	var body []byte
	if method == http.MethodPost {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		if len(b.hops) > 0 { // from a page of the issuer's
			header.Set("Origin", at.Scheme+"://"+at.Host)
			header.Set("Sec-Fetch-Site", "same-origin")
		}
		body = []byte(form.Encode())
	}
	a, err := b.env.do(ctx, method, at.String(), header, body)
	if err == nil {
		b.jar.SetCookies(at, (&http.Response{Header: a.Header}).Cookies())
	}
	return a, err
}

// last is the hop that led to what is shown.
func (b *browser) last() hop { return b.hops[len(b.hops)-1] }

// redirect is where the answer sends a browser, or nil.
func (h hop) redirect() *url.URL {
	switch h.answer.Status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil
	}
	target, err := h.at.Parse(h.answer.Header.Get("Location"))
	if err != nil {
		return nil
	}
	return target
}

// isOwn says whether an address is of the issuer's own origin, and no redirect
// URI of an app that happens to live there.
func (e *Env) isOwn(u *url.URL) bool {
	own, err := url.Parse(e.endpoint("authorization_endpoint"))
	return err == nil && u.Scheme == own.Scheme && u.Host == own.Host && !e.Web.receives(u) && !e.SecondWeb.receives(u)
}

// document is the page shown.
func (b *browser) document() (*html.Node, error) {
	root, err := html.Parse(strings.NewReader(string(b.last().answer.Body)))
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	return root, nil
}

// A form is one that can be sent: what its fields hold, and where to.
type form struct {
	node   *html.Node
	method string
	action *url.URL
	fields url.Values
}

// forms returns the forms of the page.
func (b *browser) forms() ([]*form, error) {
	root, err := b.document()
	if err != nil {
		return nil, err
	}
	var all []*form
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		action, err := b.last().at.Parse(attribute(n, "action"))
		if err != nil {
			return nil, fmt.Errorf("action of a form: %w", err)
		}
		f := &form{node: n, method: http.MethodGet, action: action, fields: url.Values{}}
		if strings.EqualFold(attribute(n, "method"), "post") {
			f.method = http.MethodPost
		}
		for _, field := range f.elements(root, "input") {
			kind := strings.ToLower(attribute(field, "type"))
			if name := attribute(field, "name"); name != "" && !slices.Contains([]string{"submit", "button", "image", "reset"}, kind) {
				f.fields.Add(name, attribute(field, "value"))
			}
		}
		all = append(all, f)
	}
	return all, nil
}

// elements returns the elements that belong to the form: inside it, or by its id.
func (f *form) elements(root *html.Node, tag string) []*html.Node {
	var found []*html.Node
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != tag {
			continue
		}
		if owner := attribute(n, "form"); owner != "" {
			if owner == attribute(f.node, "id") {
				found = append(found, n)
			}
			continue
		}
		for up := n.Parent; up != nil; up = up.Parent {
			if up == f.node {
				found = append(found, n)
				break
			}
		}
	}
	return found
}

// root is the document the form is in.
func (f *form) root() *html.Node {
	n := f.node
	for n.Parent != nil {
		n = n.Parent
	}
	return n
}

// field returns the name of the form's field with this id or name, or else of
// its first one of that type.
func (f *form) field(called, kind string) (name string, ok bool) {
	fallback := ""
	for _, n := range f.elements(f.root(), "input") {
		if attribute(n, "id") == called || attribute(n, "name") == called {
			return attribute(n, "name"), true
		}
		if fallback == "" && kind != "" && strings.EqualFold(attribute(n, "type"), kind) {
			fallback = attribute(n, "name")
		}
	}
	return fallback, fallback != ""
}

// button returns the form's button with this id, name or value.
func (f *form) button(called string) *html.Node {
	for _, n := range f.buttons() {
		if called == attribute(n, "id") || called == attribute(n, "name") || called == attribute(n, "value") {
			return n
		}
	}
	return nil
}

func (f *form) buttons() []*html.Node {
	var found []*html.Node
	for _, n := range f.elements(f.root(), "button") {
		if kind := attribute(n, "type"); kind == "" || strings.EqualFold(kind, "submit") {
			found = append(found, n)
		}
	}
	for _, n := range f.elements(f.root(), "input") {
		if strings.EqualFold(attribute(n, "type"), "submit") {
			found = append(found, n)
		}
	}
	return found
}

// submit sends a form as its button would: the one called so, or the first.
func (b *browser) submit(ctx context.Context, f *form, button string) error {
	pressed := f.button(button)
	if pressed == nil {
		if all := f.buttons(); len(all) > 0 {
			pressed = all[0]
		}
	}
	fields := url.Values{}
	for name, values := range f.fields {
		fields[name] = values
	}
	if pressed != nil && attribute(pressed, "name") != "" {
		fields.Set(attribute(pressed, "name"), attribute(pressed, "value"))
	}
	if f.method == http.MethodGet {
		to := *f.action
		to.RawQuery = fields.Encode()
		return b.visit(ctx, http.MethodGet, &to, nil)
	}
	return b.visit(ctx, http.MethodPost, f.action, fields)
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// follow opens the link with this id, or whose address ends so.
func (b *browser) follow(ctx context.Context, called string) error {
	root, err := b.document()
	if err != nil {
		return err
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "a" {
			continue
		}
		to, err := b.last().at.Parse(attribute(n, "href"))
		if err == nil && (attribute(n, "id") == called || path.Base(to.Path) == called) {
			return b.visit(ctx, http.MethodGet, to, nil)
		}
	}
	return fmt.Errorf("the page has no %q", called)
}
