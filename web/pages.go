package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"

	"github.com/a-h/templ"

	"github.com/signet-oidc/signet/templates"
)

// content is a page, and what its Content-Security-Policy allows it beyond our
// own stylesheet.
type content struct {
	body templ.Component
	// form says that the page has a form of ours. Its target is where the
	// answer to the form may redirect to: browsers apply form-action to that too.
	form   bool
	target string
	only   bool     // the form goes to the target itself, not to us
	nonce  string   // of the one script there may be, or ""
	frames []string // URLs of what it frames
}

// page renders a page with the headers every page has: nothing loads but our
// stylesheet, nobody may frame it, other sites learn no address of ours.
func (s *Server) page(w http.ResponseWriter, r *http.Request, status int, c content) {
	var body bytes.Buffer
	// That time is up, or that nobody waits any more, is no reason not to say so.
	if err := c.body.Render(context.WithoutCancel(r.Context()), &body); err != nil {
		panic(err) // plain structs in, a buffer out: only a bug fails here
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", c.policy())
	h.Set("X-Frame-Options", "DENY")
	// With no-referrer a browser would say "Origin: null" when it posts a form,
	// and be taken for another site.
	if c.form {
		h.Set("Referrer-Policy", "same-origin")
	} else {
		h.Set("Referrer-Policy", "no-referrer")
	}
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

func (c content) policy() string {
	script := "'none'"
	if c.nonce != "" {
		script = "'nonce-" + c.nonce + "'"
	}
	var forms []string
	if c.form {
		forms = append(forms, "'self'")
	}
	if source := formSource(c.target); source != "" && (c.form || c.only) {
		forms = append(forms, source)
	}
	if len(forms) == 0 {
		forms = append(forms, "'none'")
	}
	frames := ""
	for _, uri := range c.frames {
		if source := " " + formSource(uri); !strings.Contains(frames+" ", source+" ") {
			frames += source
		}
	}
	if frames != "" {
		frames = "frame-src" + frames + "; "
	}
	return "default-src 'none'; " + frames + "script-src " + script + "; style-src 'self'; img-src 'self'; form-action " +
		strings.Join(forms, " ") + "; frame-ancestors 'none'; base-uri 'none'"
}

// formSource returns a redirect URI as a source of form-action (CSP Level 3
// §2.3.1): its origin, or its scheme where there is no origin that a source
// can express, as for private-use schemes and IPv6 addresses.
func formSource(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" {
		return ""
	}
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-.:", c)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Contains(u.Host, "[") ||
		strings.ContainsFunc(u.Host, func(c rune) bool { return !plain(c) }) {
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}

// newNonce returns what lets one script of one answer run.
func newNonce() string { return rand.Text() }

// home tells a visitor what this address is, and a developer where to start.
func (s *Server) home(w http.ResponseWriter, r *http.Request) {
	s.page(w, r, http.StatusOK, content{body: templates.Home(templates.HomeView{
		Page:       s.view(w, r),
		Issuer:     s.issuer.String(),
		Discovery:  s.issuer.Endpoint("/.well-known/openid-configuration"),
		AccountURL: s.path(pathAccount),
	})})
}

// stylesheet serves the one stylesheet. Its name changes with its content.
func (s *Server) stylesheet(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(templates.Stylesheet)
}
