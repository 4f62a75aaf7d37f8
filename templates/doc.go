// Package templates holds the pages as templ components over plain view
// structs, and the one stylesheet. It knows nothing of HTTP, grants or storage.
// After editing a .templ file run `make generate`.
package templates

import (
	"crypto/sha256"
	_ "embed" // for the stylesheet
	"encoding/hex"
	"sync"
)

// Stylesheet is the one stylesheet of all pages.
//
//go:embed static/signet.css
var Stylesheet []byte

// StylesheetRoute is where the stylesheet is served, below the issuer's path.
const StylesheetRoute = "/static/signet.css"

// stylesheetVersion changes with the stylesheet's content, so that browsers
// may keep it for ever.
var stylesheetVersion = sync.OnceValue(func() string {
	sum := sha256.Sum256(Stylesheet)
	return hex.EncodeToString(sum[:6])
})

func stylesheetURL(base string) string {
	return base + StylesheetRoute + "?v=" + stylesheetVersion()
}

// HomeView is what the page at the issuer's own address shows.
type HomeView struct {
	Base      string // the issuer's path, "" when it has none
	Issuer    string
	Discovery string
}

// ErrorView is what a page about a failed request shows.
type ErrorView struct {
	Base      string
	Title     string
	Advice    string
	RequestID string
}
