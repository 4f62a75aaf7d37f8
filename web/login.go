package web

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/templates"
)

// loginPage is what there is to say on the sign-in page.
type loginPage struct {
	flow     *provider.Authorization // nil on the way to the account page
	username string
	again    bool // who is signed in has to prove it once more
	status   int  // 0: it is shown for the first time
	problems []templates.Problem
}

// purposeLogin is what a sign-in form without a flow is shown for.
const purposeLogin = "login"

// login shows the sign-in page: for a flow, or for the account page.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("flow") {
		s.step(w, r)
		return
	}
	who, err := s.visitor(r)
	switch {
	case err != nil:
		s.refuse(w, r, nil, err)
	case who != nil:
		seeOther(w, s.path(pathAccount))
	default:
		s.showLogin(w, r, loginPage{})
	}
}

func (s *Server) showLogin(w http.ResponseWriter, r *http.Request, p loginPage) {
	view := templates.LoginView{
		Page: s.flowView(w, r, p.flow), Form: templates.Form{Action: s.path(pathLogin)},
		Username: p.username, Confirm: p.again, Problems: p.problems,
	}
	target := ""
	if p.flow == nil {
		view.CSRF = proof(s.bind(w, r), purposeLogin)
	} else {
		sealed, err := s.provider.SealFlow(p.flow, s.binding(r))
		if err != nil {
			s.refuse(w, r, p.flow, err)
			return
		}
		view.Flow, view.Client, target = sealed, clientOf(p.flow, nil), p.flow.RedirectTarget()
	}
	s.page(w, r, cmp.Or(p.status, http.StatusOK), content{body: templates.Login(view), form: true, target: target})
}

// postLogin signs a person in.
func (s *Server) postLogin(w http.ResponseWriter, r *http.Request) {
	a, ok := s.openLogin(w, r)
	if !ok {
		return
	}
	attempt := provider.SignInAttempt{Login: r.PostForm.Get("username"), Password: r.PostForm.Get("password")}
	p := loginPage{flow: a, username: attempt.Login, status: http.StatusUnprocessableEntity}
	if attempt.Login == "" {
		p.problems = append(p.problems, templates.UsernameMissing())
	}
	if attempt.Password == "" {
		p.problems = append(p.problems, templates.PasswordMissing())
	}
	if len(p.problems) > 0 {
		s.showLogin(w, r, p)
		return
	}
	s.signIn(w, r, a, attempt)
}

// openLogin reads a sign-in form: one of a flow, or one for the account page
// that was shown to this browser. Without that, another site could sign a
// person in to an account of its own.
func (s *Server) openLogin(w http.ResponseWriter, r *http.Request) (*provider.Authorization, bool) {
	if err := readForm(w, r); err != nil {
		s.refuse(w, r, nil, err)
		return nil, false
	}
	if sealed := r.PostForm.Get("flow"); sealed != "" {
		a, err := s.openFlow(r, sealed)
		if err != nil {
			s.refuse(w, r, a, err)
			return nil, false
		}
		return a, true
	}
	if !proven(r, s.binding(r), purposeLogin) {
		s.fail(w, r, http.StatusForbidden)
		return nil, false
	}
	return nil, true
}

// signIn tries the attempt and goes on, or says what is wrong.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request, a *provider.Authorization, attempt provider.SignInAttempt) {
	previous, err := s.visitor(r)
	if err != nil {
		s.refuse(w, r, a, err)
		return
	}
	attempt.Address, attempt.UserAgent = r.RemoteAddr, r.UserAgent()
	attempt.Device, attempt.Previous = cookie(r, s.cookies.device), previous

	p := loginPage{flow: a, username: attempt.Login}
	var throttled *provider.ThrottledError
	var busy *provider.BusyError
	var invalid *provider.InvalidError
	result, err := s.provider.SignIn(r.Context(), attempt)
	switch {
	case err == nil:
		s.signedIn(w, r, a, result)
	case errors.Is(err, provider.ErrBadCredentials):
		p.status, p.problems = http.StatusUnprocessableEntity, []templates.Problem{templates.SignInRefused()}
		s.showLogin(w, r, p)
	case errors.As(err, &throttled):
		retryAfter(w, throttled.RetryAfter)
		p.status, p.problems = http.StatusTooManyRequests, []templates.Problem{templates.Throttled(throttled.RetryAfter)}
		s.showLogin(w, r, p)
	case errors.As(err, &busy):
		retryAfter(w, busy.RetryAfter)
		p.status, p.problems = http.StatusServiceUnavailable, []templates.Problem{templates.Busy()}
		s.showLogin(w, r, p)
	case errors.Is(err, provider.ErrPasswordChangeRequired):
		s.showReplace(w, r, a, attempt, http.StatusOK)
	case errors.As(err, &invalid):
		s.showReplace(w, r, a, attempt, http.StatusUnprocessableEntity, passwordProblems(invalid)...)
	default:
		s.refuse(w, r, a, err)
	}
}

// signedIn takes a person who has just signed in to where they wanted to go.
func (s *Server) signedIn(w http.ResponseWriter, r *http.Request, a *provider.Authorization, result *provider.SignInResult) {
	s.cookies.set(w, s.cookies.session, result.Cookie, 0)
	s.cookies.set(w, s.cookies.device, result.Device, deviceLifetime)
	if a == nil {
		seeOther(w, s.path(pathAccount))
		return
	}
	a.MarkSignedIn(result.SignedIn)
	s.proceed(w, r, a, result.SignedIn)
}

// replacement is a sign-in that waits for a new password. It goes to the
// browser and back encrypted under its binding, which no page ever holds.
type replacement struct {
	Login    string    `json:"login"`
	Password string    `json:"password"`
	At       time.Time `json:"at"`
}

// replacementLifetime is how long a person has to think of a password.
const replacementLifetime = 15 * time.Minute

// showReplace asks for a new password in place of one that somebody else set.
func (s *Server) showReplace(w http.ResponseWriter, r *http.Request, a *provider.Authorization, attempt provider.SignInAttempt, status int, problems ...templates.Problem) {
	b := s.binding(r)
	view := templates.ChangePasswordView{
		Page: s.flowView(w, r, a), Required: true, Username: attempt.Login, MinPassword: provider.MinPassword, Problems: problems,
		Form: templates.Form{
			Action: s.path(pathLoginPassword),
			CSRF:   sealReplacement(b, replacement{attempt.Login, attempt.Password, s.now()}),
		},
	}
	target := ""
	if a != nil {
		sealed, err := s.provider.SealFlow(a, b)
		if err != nil {
			s.refuse(w, r, a, err)
			return
		}
		view.Flow, target = sealed, a.RedirectTarget()
	}
	s.page(w, r, status, content{body: templates.ChangePassword(view), form: true, target: target})
}

// postReplace signs a person in with the new password.
func (s *Server) postReplace(w http.ResponseWriter, r *http.Request) {
	if err := readForm(w, r); err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	waiting, err := openReplacement(s.binding(r), r.PostForm.Get("csrf"))
	if err != nil {
		s.refuse(w, r, nil, provider.ErrFlowInvalid)
		return
	}
	var a *provider.Authorization
	if sealed := r.PostForm.Get("flow"); sealed != "" {
		if a, err = s.openFlow(r, sealed); err != nil {
			s.refuse(w, r, a, err)
			return
		}
	}
	if s.now().After(waiting.At.Add(replacementLifetime)) {
		s.refuse(w, r, a, provider.ErrFlowExpired)
		return
	}
	attempt := provider.SignInAttempt{Login: waiting.Login, Password: waiting.Password}
	password, problems := newPassword(r.PostForm)
	if len(problems) > 0 {
		s.showReplace(w, r, a, attempt, http.StatusUnprocessableEntity, problems...)
		return
	}
	attempt.NewPassword = password
	s.signIn(w, r, a, attempt)
}

func sealReplacement(b provider.Binding, x replacement) string {
	plain, err := json.Marshal(x)
	if err != nil {
		panic(err) // strings and a time always marshal
	}
	return base64.RawURLEncoding.EncodeToString(replacementCipher(b).Seal(nil, nil, plain, nil))
}

func openReplacement(b provider.Binding, sealed string) (replacement, error) {
	var x replacement
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || b == "" {
		return x, provider.ErrFlowInvalid
	}
	plain, err := replacementCipher(b).Open(nil, nil, raw, nil)
	if err != nil {
		return x, err
	}
	return x, json.Unmarshal(plain, &x)
}

func replacementCipher(b provider.Binding) cipher.AEAD {
	mac := hmac.New(sha256.New, []byte(b))
	mac.Write([]byte("replacement"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has the block size that GCM wants
	}
	return aead
}
