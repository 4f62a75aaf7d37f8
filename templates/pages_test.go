package templates

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestPages holds every page to what all of them promise.
func TestPages(t *testing.T) {
	for _, locale := range NewCatalogue().locales {
		for name, page := range samples(locale) {
			t.Run(locale.Tag()+"/"+name, func(t *testing.T) {
				checkPage(t, render(t, page), locale, strings.HasPrefix(name, "error-"))
			})
		}
	}
}

func checkPage(t *testing.T, source string, locale *Locale, failed bool) {
	root, err := html.Parse(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	labelled := map[string]bool{}
	count := map[string]int{}
	for n := range root.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "script" && strings.ContainsAny(n.Data, "{}") {
			t.Errorf("a placeholder stands for nothing: %q", n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		if id := attribute(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("two elements have the id %s", id)
			}
			ids[id] = true
		}
		if n.Data == "label" {
			labelled[attribute(n, "for")] = true
		}
		if n.Data == "html" && (attribute(n, "lang") != locale.Tag() || attribute(n, "dir") != locale.dir) {
			t.Errorf("lang %q, dir %q", attribute(n, "lang"), attribute(n, "dir"))
		}
		for _, a := range n.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("<%s> has the attribute %s, which the Content-Security-Policy forbids", n.Data, a.Key)
			}
		}
		if n.Data == "script" && attribute(n, "nonce") == "" || n.Data == "style" {
			t.Errorf("<%s> without a nonce", n.Data)
		}
		if n.Data == "form" && attribute(n, "method") != "post" {
			t.Error("a form that isn't posted")
		}
		if n.Data == "button" && attribute(n, "type") != "submit" {
			t.Error("a button that doesn't work without scripts")
		}
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		for _, key := range []string{"aria-describedby", "aria-labelledby", "for"} {
			for id := range strings.FieldsSeq(attribute(n, key)) {
				if !ids[id] {
					t.Errorf("<%s> refers to #%s, which isn't there", n.Data, id)
				}
			}
		}
		if to, ok := strings.CutPrefix(attribute(n, "href"), "#"); ok && !ids[to] {
			t.Errorf("a link to #%s, which isn't there", to)
		}
		if kind := attribute(n, "type"); n.Data == "input" && kind != "hidden" && !has(n, "hidden") {
			if !labelled[attribute(n, "id")] {
				t.Errorf("#%s has no label", attribute(n, "id"))
			}
			if want := []string{"username", "current-password", "new-password"}; !slices.Contains(want, attribute(n, "autocomplete")) {
				t.Errorf("#%s has autocomplete %q", attribute(n, "id"), attribute(n, "autocomplete"))
			}
			if has(n, "aria-invalid") != ids[attribute(n, "id")+"-problem"] {
				t.Errorf("#%s is invalid without a problem, or the reverse", attribute(n, "id"))
			}
		}
	}
	if count["h1"] != 1 || count["main"] != 1 || count["title"] != 1 {
		t.Errorf("one of each is needed: %d h1, %d main, %d title", count["h1"], count["main"], count["title"])
	}
	if failed && (!ids["home"] || !ids["request-id"]) {
		t.Error("no way back, or no request id")
	}
}

// A name that others chose is never markup, never an attribute, and isolated
// wherever it is shown.
func TestNamesAreIsolated(t *testing.T) {
	const name = "<i>\u202eevil"
	locale := NewCatalogue().locales[0]
	page, client := Page{Locale: locale}, Client{ID: "x", Name: name}
	for _, component := range []string{
		render(t, Login(LoginView{Page: page, Client: &client})),
		render(t, SelectAccount(SelectAccountView{Page: page, Client: &client, Username: name, Email: name})),
		render(t, Consent(ConsentView{Page: page, Client: client, Username: name, Host: name,
			Groups: []ScopeGroup{{Name: name, Scopes: []Scope{{Name: "s", Description: name}}}}})),
		render(t, Account(AccountView{Page: page, Username: name, Email: name, Sessions: []Session{{Browser: name, Address: name}}, Apps: []App{{Client: client}}})),
		render(t, Logout(LogoutView{Page: page, Client: &client, Username: name})),
		render(t, SignedOut(SignedOutView{Page: page, Client: &client, ReturnURL: "/"})),
		render(t, FormPost(FormPostView{Page: page, Client: client})),
		render(t, Error(ErrorView{Page: page, Developer: []Parameter{{"client_name", name}}})),
	} {
		root, err := html.Parse(strings.NewReader(component))
		if err != nil {
			t.Fatal(err)
		}
		seen := false
		for n := range root.Descendants() {
			if n.Type == html.TextNode && strings.Contains(n.Data, "evil") {
				seen = true
				if n.Parent.Data != "bdi" || n.Data != name {
					t.Errorf("<%s>%s", n.Parent.Data, n.Data)
				}
			}
			for _, a := range n.Attr {
				if strings.Contains(a.Val, "evil") {
					t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
				}
			}
		}
		if !seen {
			t.Errorf("the name is not on the page: %s", component)
		}
	}
}

// A login_hint is shown as it came, and never as markup.
func TestHintIsEscaped(t *testing.T) {
	page := Page{Locale: NewCatalogue().locales[0]}
	got := render(t, Login(LoginView{Page: page, Username: `"><script>alert(1)</script>`}))
	if strings.Contains(got, "<script") || !strings.Contains(got, "&#34;&gt;&lt;script&gt;") {
		t.Error(got)
	}
}

// Without a nonce there is no script, and the button does its work.
func TestFormPostWithoutNonce(t *testing.T) {
	got := render(t, FormPost(FormPostView{Page: Page{Locale: NewCatalogue().locales[0]}, Action: "com.example.app:/callback"}))
	if strings.Contains(got, "<script") || !strings.Contains(got, `action="com.example.app:/callback"`) {
		t.Error(got)
	}
}

// IDS.md lists what the pages have, no more and no less.
func TestDocumentedIDs(t *testing.T) {
	documented, err := os.ReadFile("IDS.md")
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(string(documented), "## Field names")
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
	number := regexp.MustCompile(`-\d+`)
	for _, part := range []struct{ attribute, text string }{{"id", before}, {"name", after}} {
		var listed []string
		for _, match := range row.FindAllStringSubmatch(part.text, -1) {
			listed = append(listed, match[1])
		}
		if !slices.IsSorted(listed) {
			t.Errorf("the list by %s isn't sorted", part.attribute)
		}
		found := map[string]bool{}
		for name, page := range samples(NewCatalogue().locales[0]) {
			root, err := html.Parse(strings.NewReader(render(t, page)))
			if err != nil {
				t.Fatal(err)
			}
			for n := range root.Descendants() {
				value := number.ReplaceAllString(attribute(n, part.attribute), "-N")
				if value == "" || n.Data == "meta" || part.attribute == "name" && name == "form-post" {
					continue
				}
				found[value] = true
				if !slices.Contains(listed, value) {
					t.Errorf("%s: %s %q is not in IDS.md", name, part.attribute, value)
				}
			}
		}
		for _, value := range listed {
			if !found[value] {
				t.Errorf("no page has the %s %q of IDS.md", part.attribute, value)
			}
		}
	}
}

func TestStylesheetIsSmall(t *testing.T) {
	if len(Stylesheet) > 12<<10 {
		t.Errorf("%d bytes", len(Stylesheet))
	}
	if strings.Contains(string(Stylesheet), "url(") || strings.Contains(string(Stylesheet), "@import") {
		t.Error("it loads something else")
	}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, key string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
}
