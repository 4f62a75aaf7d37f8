package browser

import (
	"encoding/json"
	"os"

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
