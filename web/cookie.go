package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/signet-oidc/signet/provider"
)

// cookies are the names of the issuer's cookies. They end in a hash of the
// issuer, because cookies tell neither ports nor paths apart.
type cookies struct {
	secure  bool
	binding string // ties flows and forms to this browser; set once, unchanged by signing in
	session string // who is signed in
	device  string // that somebody signed in here before
	notice  string // what the account page has to report, once
}

// deviceLifetime is how long a browser counts as known.
const deviceLifetime = 365 * 24 * time.Hour

func newCookies(issuer provider.Issuer) cookies {
	hash := sha256.Sum256([]byte(issuer.String()))
	prefix, suffix := "", "-"+hex.EncodeToString(hash[:4])
	if issuer.Secure() {
		prefix = "__Host-" // no other host of the domain can set it (RFC 6265bis §4.1.3.2)
	}
	return cookies{
		secure:  issuer.Secure(),
		binding: prefix + "signet-browser" + suffix,
		session: prefix + "signet-session" + suffix,
		device:  prefix + "signet-device" + suffix,
		notice:  prefix + "signet-notice" + suffix,
	}
}

// set sets a cookie that ends with the browser's session, or after lifetime.
func (c cookies) set(w http.ResponseWriter, name, value string, lifetime time.Duration) {
	c.write(w, name, value, int(lifetime.Seconds()))
}

func (c cookies) clear(w http.ResponseWriter, name string) { c.write(w, name, "", -1) }

func (c cookies) write(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge,
		Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// maxCookie bounds what is read of a cookie; ours are shorter.
const maxCookie = 512

// cookie returns the value of a cookie, "" when there is none.
func cookie(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil || len(c.Value) > maxCookie {
		return ""
	}
	return c.Value
}

// bindingLength is what rand.Text makes: at least 128 random bits.
const bindingLength = 26

// binding returns what this browser is known by, "" when it has no cookie.
func (s *Server) binding(r *http.Request) provider.Binding {
	value := cookie(r, s.cookies.binding)
	if len(value) != bindingLength {
		return ""
	}
	return provider.Binding(value)
}

// bind is binding for a browser that gets the cookie if it has none.
func (s *Server) bind(w http.ResponseWriter, r *http.Request) provider.Binding {
	if b := s.binding(r); b != "" {
		return b
	}
	value := rand.Text()
	s.cookies.set(w, s.cookies.binding, value, 0)
	return provider.Binding(value)
}

// proof is the value of a form's field csrf: only a page of ours, shown to
// this browser for this purpose, has it.
func proof(b provider.Binding, purpose string) string {
	mac := hmac.New(sha256.New, []byte(b))
	mac.Write([]byte(purpose))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// proven says whether a form came from a page that was shown to this browser
// for this purpose.
func proven(r *http.Request, b provider.Binding, purpose string) bool {
	return b != "" && hmac.Equal([]byte(r.PostForm.Get("csrf")), []byte(proof(b, purpose)))
}
