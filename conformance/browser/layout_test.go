package browser

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "a directory to write pictures of the pages to")

// shown are the pages that docs/pages.md shows, by width.
var shown = map[int64][]string{
	390: {"login", "login-refused", "select-account", "consent", "consent-unverified", "set-up-invite", "change-password", "account-fresh",
		"logout", "signed-out-return", "form-post", "home", "error-bad-redirect", "error-expired",
		"shop-orders", "shop-profile", "shop-refused"},
	1280: {"login", "account", "shop-signed-in"},
}

// widths, in CSS pixels: small phones, which is also 1280 pixels at a zoom of
// 400 % (WCAG 2.2, 1.4.10), phones, and desktops.
var widths = []int64{320, 390, 1280}

// layout checks that nothing of a page is out of sight to the side, and takes
// pictures where they are wanted.
func (b *tab) layout(name string) {
	b.t.Helper()
	for _, width := range widths {
		do(b, "resize", chromedp.EmulateViewport(width, 800))
		wide := do(b, "measure "+name, chromedp.Evaluate[[]string](`[...document.querySelectorAll("body *")].filter(e => {
			const box = e.getBoundingClientRect();
			return box.width > 1 && (box.right > innerWidth + 0.5 || box.left < -0.5) || e.matches("button, .button, h1, h2, dd") && e.scrollWidth > e.clientWidth + 1;
		}).map(e => e.outerHTML.slice(0, 200))`))
		for _, element := range wide {
			b.t.Errorf("%s at %d pixels: too wide: %s", name, width, element)
		}
		if *screenshots == "" || !slices.Contains(shown[width], name) {
			continue
		}
		for _, theme := range themes {
			b.theme(theme)
			picture := do(b, "screenshot", chromedp.FullScreenshot(50))
			path := filepath.Join(*screenshots, fmt.Sprintf("%s-%s-%d.jpg", name, theme, width))
			if err := os.WriteFile(path, picture, 0o644); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// At every width, in both languages, each page fits. With -screenshots they
// take the pictures of docs/pages.md as well: make screenshots.
func TestLayoutPages(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"de", "en"} { // the pictures of the latter stay
		url, names := gallery(t, language)
		b := newTab(t)
		for _, name := range names {
			b.open(url + name + ".html").layout(name)
		}
	}
}

func TestLayoutShop(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	walkShop(b, startDemo(t), b.layout)
}
