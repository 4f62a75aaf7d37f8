package browser

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

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

// layout checks that nothing of a page is out of sight to the side, from small
// phones, which is also 1280 pixels at a zoom of 400 % (WCAG 2.2, 1.4.10), to
// desktops.
func (b *tab) layout(name string) {
	b.t.Helper()
	for _, width := range []int64{320, 390, 1280} {
		b.resize(width)
		wide := do(b, "measure "+name, chromedp.Evaluate[[]string](`[...document.querySelectorAll("body *")].filter(e => {
			const box = e.getBoundingClientRect();
			return box.width > 1 && (box.right > innerWidth + 0.5 || box.left < -0.5) || e.matches("button, .button, h1, h2, dd") && e.scrollWidth > e.clientWidth + 1;
		}).map(e => e.outerHTML.slice(0, 200))`))
		for _, element := range wide {
			b.t.Errorf("%s at %d pixels: too wide: %s", name, width, element)
		}
	}
}

// resize sets the size of the window, in CSS pixels.
func (b *tab) resize(width int64) {
	b.t.Helper()
	do(b, "resize", chromedp.EmulateViewport(width, 800))
}

// pictures takes those of this page that docs/pages.md shows, if they are wanted.
func (b *tab) pictures(name string) {
	b.t.Helper()
	for width, names := range shown {
		if *screenshots == "" || !slices.Contains(names, name) {
			continue
		}
		b.resize(width)
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
