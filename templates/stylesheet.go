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
