package app

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// sessionLifetime is how long somebody stays signed in to the shop at most.
const sessionLifetime = 30 * 24 * time.Hour

// A session is who is signed in, and the shop's tokens for them. It is all in
// a cookie: what a page changes goes out with the page.
type session struct {
	Subject  string    `json:"sub"`
	Name     string    `json:"name"`
	SignedIn time.Time `json:"at"`
	IDToken  string    `json:"id,omitempty"` // says at sign-out whose session ends

	Refresh string    `json:"refresh"`
	Access  string    `json:"access,omitempty"` // for the orders API; "" before it is needed
	Expires time.Time `json:"expires,omitzero"`

	changed bool // since the cookie was read
}

// sealer encrypts what travels through browsers. Every value is bound to its
// purpose: one cannot stand in for another.
type sealer struct{ cipher.AEAD }

func newSealer(key []byte) (sealer, error) {
	if len(key) != 32 {
		return sealer{}, fmt.Errorf("key: want 32 bytes, not %d", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead}, err
}

func (s sealer) close(purpose string, v any) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(s.Seal(nil, nil, plain, []byte(purpose))), nil
}

func (s sealer) open(purpose, sealed string, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return err
	}
	plain, err := s.Open(nil, nil, raw, []byte(purpose))
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}

// cookies are the names of the shop's cookies.
type cookies struct {
	secure  bool
	session string // its pieces have -1, -2 and so on behind it
	signIn  string // begins the name of one for each sign-in under way
}

// Names end in a hash of the shop's address: cookies do not tell ports apart.
func newCookies(home *url.URL) cookies {
	sum := sha256.Sum256([]byte(home.String()))
	prefix, suffix := "", "-"+hex.EncodeToString(sum[:4])
	if home.Scheme == "https" {
		prefix = "__Host-" // no other host of the domain can set it (RFC 6265bis §4.1.3.2)
	}
	return cookies{
		secure:  home.Scheme == "https",
		session: prefix + "shop-session" + suffix,
		signIn:  prefix + "shop-signin" + suffix + "-",
	}
}

// set sets a cookie, for lifetime or, with a negative one, no more. Lax: it has
// to be there when the provider sends the browser back.
func (c cookies) set(w http.ResponseWriter, name, value string, lifetime time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(lifetime / time.Second),
		Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// Browsers keep cookies of 4096 bytes, name and attributes included. A session
// is one cookie as a rule, and more when tokens are large.
const (
	maxPiece  = 3800
	maxPieces = 4
)

func (c cookies) piece(i int) string { return c.session + "-" + strconv.Itoa(i+1) }

// session returns who is signed in, nil when nobody is.
func (a *App) session(r *http.Request) *session {
	var sealed strings.Builder
	for i := range maxPieces {
		c, err := r.Cookie(a.cookies.piece(i))
		if err != nil {
			break
		}
		sealed.WriteString(c.Value)
		if len(c.Value) < maxPiece {
			break // the last one; what follows is left over from a larger session
		}
	}
	var s session
	if a.seal.open("session", sealed.String(), &s) != nil || !a.now().Before(s.SignedIn.Add(sessionLifetime)) {
		return nil
	}
	return &s
}

// save sends the session to the browser if it has changed.
func (a *App) save(w http.ResponseWriter, s *session) {
	if s == nil || !s.changed {
		return
	}
	sealed, err := a.seal.close("session", s)
	if err != nil {
		panic(err) // strings and times
	}
	if len(sealed) >= maxPiece*maxPieces {
		panic(errors.New("session: the tokens are too large for cookies"))
	}
	left := s.SignedIn.Add(sessionLifetime).Sub(a.now())
	for i := 0; ; i++ {
		n := min(len(sealed), maxPiece)
		a.cookies.set(w, a.cookies.piece(i), sealed[:n], left)
		if n < maxPiece {
			break
		}
		sealed = sealed[n:]
	}
	s.changed = false
}

// forget signs out of the shop.
func (a *App) forget(w http.ResponseWriter) {
	for i := range maxPieces {
		a.cookies.set(w, a.cookies.piece(i), "", -time.Second)
	}
}
