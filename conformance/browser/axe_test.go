package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// themes are what a browser may prefer.
var themes = []string{"light", "dark"}

// A violation is what axe reports.
type violation struct {
	ID    string
	Help  string
	Nodes []struct {
		HTML           string
		FailureSummary string
	}
}

// axe runs axe-core on the page, with every rule that it turns on by itself.
// The page's own Content-Security-Policy stays in force: the DevTools protocol
// is not held to it.
func (b *tab) axe(name string) {
	b.t.Helper()
	source, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Fatalf("%v; .ci/deps installs it", err)
	}
	do(b, "axe", chromedp.Evaluate[chromedp.Void](string(source)))
	for _, theme := range themes {
		b.theme(theme)
		raw := do(b, "axe "+name, chromedp.Evaluate[string](
			`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify({violations: r.violations, passes: r.passes.length}))`, chromedp.EvalAwaitPromise))
		var result struct {
			Violations []violation
			Passes     int
		}
		if err := json.Unmarshal([]byte(raw), &result); err != nil {
			b.t.Fatal(err)
		}
		if result.Passes < 10 {
			b.t.Errorf("%s, %s: only %d rules had something to look at", name, theme, result.Passes)
		}
		for _, v := range result.Violations {
			for _, n := range v.Nodes {
				b.t.Errorf("%s, %s: %s (%s)\n%s\n%s", name, theme, v.Help, v.ID, n.HTML, n.FailureSummary)
			}
		}
	}
}

// gallery serves every page of the provider in every state, as the templates'
// own test writes them, and returns the names.
func gallery(t *testing.T, language string) (url string, names []string) {
	t.Helper()
	dir := t.TempDir()
	write := exec.Command("go", "test", "../../templates", "-run", "^TestGallery$", "-count", "1", "-gallery", dir)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, language, "*.html"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		names = append(names, strings.TrimSuffix(filepath.Base(page), ".html"))
	}
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// As the pages are served, but for where forms go: one of them posts itself.
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'none'")
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/" + language + "/", names
}

// Every page of the provider in every state.
func TestAxePages(t *testing.T) {
	t.Parallel()
	url, names := gallery(t, "en")
	b := newTab(t)
	for _, name := range names {
		b.open(url + name + ".html").axe(name)
	}
}

// Every page of the shop.
func TestAxeShop(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	walkShop(b, startDemo(t), b.axe)
}

// walkShop stops at every page of the shop.
func walkShop(b *tab, d demo, stop func(name string)) {
	b.t.Helper()
	b.open(d.StorefrontURL).sees("sign-in")
	stop("shop")
	b.click("sign-in").sees("login").types("username", d.User.Username).types("password", d.User.Password).click("submit")
	b.sees("consent").click("deny").sees("refused")
	stop("shop-denied")
	b.click("again").sees("consent").click("allow").sees("sign-out")
	stop("shop-signed-in")
	b.open(d.StorefrontURL + "/orders").sees("no-orders")
	stop("shop-orders-none")
	b.open(d.StorefrontURL).click("order-lamp").sees("placed")
	b.open(d.StorefrontURL).click("order-clock").sees("placed")
	stop("shop-orders")
	b.open(d.StorefrontURL + "/profile").sees("email")
	stop("shop-profile")
	b.open(d.StorefrontURL + "/callback?state=other").sees("refused")
	stop("shop-lost")
	b.open(d.StorefrontURL + "/signed-out")
	stop("shop-not-signed-out")
	b.open(d.Issuer + "/account").click("app-1-withdraw").sees("no-apps")
	b.open(d.StorefrontURL + "/profile").sees("refused")
	stop("shop-refused")
	b.click("again").sees("consent").click("allow").sees("orders").click("sign-out").sees("signed-out")
	stop("shop-signed-out")
	b.open(fmt.Sprintf("%s/nothing", d.StorefrontURL)).sees("refused")
	stop("shop-nothing")
}
