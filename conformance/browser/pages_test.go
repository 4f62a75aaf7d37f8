package browser

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every page of the provider, in every state, fits in both languages and has
// nothing that axe reports. With -screenshots the pictures of docs/pages.md are
// taken as well: make screenshots.
func TestPages(t *testing.T) {
	url, names := gallery(t)
	for _, language := range []string{"en", "de"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			b := newTab(t)
			for _, name := range names {
				b.open(url + "/" + language + "/" + name + ".html")
				if language == "en" {
					b.axe(name)
					b.pictures(name)
				}
				b.layout(name)
			}
		})
	}
}

// And so does every page of the shop.
func TestShopPages(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	walkShop(b, startDemo(t), func(name string) {
		b.axe(name)
		b.pictures(name)
		b.layout(name)
	})
}

// gallery serves every page of the provider in every state and language, as the
// templates' own test writes them, and returns the names.
func gallery(t *testing.T) (url string, names []string) {
	t.Helper()
	dir := t.TempDir()
	write := exec.Command("go", "test", "../../templates", "-run", "^TestGallery$", "-count", "1", "-gallery", dir)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "en", "*.html"))
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
	return server.URL, names
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
	b.open(d.StorefrontURL + "/nothing").sees("refused")
	stop("shop-nothing")
}
