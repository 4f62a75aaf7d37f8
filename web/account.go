package web

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/templates"
)

// purposeAccount, with the id of the session, is what the forms of the account
// pages are shown for: they work for the person who saw them only.
const purposeAccount = "account "

// account shows a person where they are signed in and which apps have access.
func (s *Server) account(w http.ResponseWriter, r *http.Request) {
	who, ok := s.resident(w, r)
	if !ok {
		return
	}
	sessions, err := s.provider.Sessions(r.Context(), who)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	apps, err := s.provider.Apps(r.Context(), who)
	if err != nil {
		s.refuse(w, r, nil, err)
		return
	}
	s.page(w, r, http.StatusOK, content{form: true, body: templates.Account(templates.AccountView{
		Page:       s.view(w, r),
		CSRF:       proof(s.bind(w, r), purposeAccount+who.Session.ID),
		Username:   who.User.Username,
		Email:      who.User.Email,
		Notice:     s.notice(w, r),
		Sessions:   sessionViews(sessions, who.Session.ID),
		Apps:       appViews(apps),
		EndSession: s.path(pathEndSession),
		EndOthers:  s.path(pathEndOthers),
		Withdraw:   s.path(pathWithdraw),
		Password:   s.path(pathPassword),
		Logout:     s.path(provider.PathLogout),
	})})
}

// resident returns who is signed in, or sends the browser to sign in first.
func (s *Server) resident(w http.ResponseWriter, r *http.Request) (*provider.SignedIn, bool) {
	who, err := s.visitor(r)
	switch {
	case err != nil:
		s.refuse(w, r, nil, err)
		return nil, false
	case who == nil:
		seeOther(w, s.path(pathLogin))
		return nil, false
	}
	return who, true
}

// resolute reads a form of an account page and returns whose it is.
func (s *Server) resolute(w http.ResponseWriter, r *http.Request) (*provider.SignedIn, bool) {
	if err := readForm(w, r); err != nil {
		s.refuse(w, r, nil, err)
		return nil, false
	}
	who, ok := s.resident(w, r)
	if !ok {
		return nil, false
	}
	if !proven(r, s.binding(r), purposeAccount+who.Session.ID) {
		s.refuse(w, r, nil, provider.ErrSwitched)
		return nil, false
	}
	return who, true
}

func (s *Server) endSession(w http.ResponseWriter, r *http.Request) {
	if who, ok := s.resolute(w, r); ok {
		s.done(w, r, templates.SessionEnded, s.provider.EndSession(r.Context(), who, r.PostForm.Get("session")))
	}
}

func (s *Server) endOthers(w http.ResponseWriter, r *http.Request) {
	if who, ok := s.resolute(w, r); ok {
		_, err := s.provider.EndOtherSessions(r.Context(), who)
		s.done(w, r, templates.OthersEnded, err)
	}
}

func (s *Server) withdraw(w http.ResponseWriter, r *http.Request) {
	if who, ok := s.resolute(w, r); ok {
		s.done(w, r, templates.AccessWithdrawn, s.provider.WithdrawApp(r.Context(), who, r.PostForm.Get("client")))
	}
}

// done goes back to the account page, which reports what was done. What is not
// there any more has been ended before, by a double click or in another tab.
func (s *Server) done(w http.ResponseWriter, r *http.Request, notice templates.Notice, err error) {
	if err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrInvalid) {
		s.refuse(w, r, nil, err)
		return
	}
	s.notify(w, notice)
	seeOther(w, s.path(pathAccount))
}

// notify leaves a notice for the account page. It is in a cookie, because a
// link from another site could put one into the URL.
func (s *Server) notify(w http.ResponseWriter, notice templates.Notice) {
	s.cookies.set(w, s.cookies.notice, strconv.Itoa(int(notice)), time.Minute)
}

// notice returns what notify left, once.
func (s *Server) notice(w http.ResponseWriter, r *http.Request) templates.Notice {
	value := cookie(r, s.cookies.notice)
	if value == "" {
		return templates.NoNotice
	}
	s.cookies.clear(w, s.cookies.notice)
	n, err := strconv.Atoi(value)
	if err != nil {
		return templates.NoNotice
	}
	return templates.Notice(n) // the page knows nothing to say for an unknown one
}

// password shows the page to change one's password.
func (s *Server) password(w http.ResponseWriter, r *http.Request) {
	if who, ok := s.resident(w, r); ok {
		s.showPassword(w, r, who, http.StatusOK)
	}
}

func (s *Server) showPassword(w http.ResponseWriter, r *http.Request, who *provider.SignedIn, status int, problems ...templates.Problem) {
	s.page(w, r, status, content{form: true, body: templates.ChangePassword(templates.ChangePasswordView{
		Page:     s.view(w, r),
		Form:     templates.Form{Action: s.path(pathPassword), CSRF: proof(s.bind(w, r), purposeAccount+who.Session.ID)},
		Username: who.User.Username, MinPassword: provider.MinPassword, AccountURL: s.path(pathAccount), Problems: problems,
	})})
}

// postPassword changes the password.
func (s *Server) postPassword(w http.ResponseWriter, r *http.Request) {
	who, ok := s.resolute(w, r)
	if !ok {
		return
	}
	current := r.PostForm.Get("current_password")
	password, problems := newPassword(r.PostForm)
	if current == "" {
		problems = slices.Insert(problems, 0, templates.CurrentPasswordMissing())
	}
	if len(problems) > 0 {
		s.showPassword(w, r, who, http.StatusUnprocessableEntity, problems...)
		return
	}
	var throttled *provider.ThrottledError
	var busy *provider.BusyError
	var invalid *provider.InvalidError
	result, err := s.provider.ChangePassword(r.Context(), who, current, password, r.RemoteAddr)
	switch {
	case err == nil:
		s.cookies.set(w, s.cookies.session, result.Cookie, 0)
		s.cookies.set(w, s.cookies.device, result.Device, deviceLifetime)
		s.done(w, r, templates.PasswordChanged, nil)
	case errors.Is(err, provider.ErrBadCredentials):
		s.showPassword(w, r, who, http.StatusUnprocessableEntity, templates.CurrentPasswordWrong())
	case errors.As(err, &throttled):
		retryAfter(w, throttled.RetryAfter)
		s.showPassword(w, r, who, http.StatusTooManyRequests, templates.Throttled(throttled.RetryAfter))
	case errors.As(err, &busy):
		retryAfter(w, busy.RetryAfter)
		s.showPassword(w, r, who, http.StatusServiceUnavailable, templates.Busy())
	case errors.As(err, &invalid):
		s.showPassword(w, r, who, http.StatusUnprocessableEntity, passwordProblems(invalid)...)
	case errors.Is(err, provider.ErrNoSession): // ended meanwhile
		seeOther(w, s.path(pathLogin))
	default:
		s.refuse(w, r, nil, err)
	}
}

func sessionViews(sessions []storage.Session, current string) []templates.Session {
	views := make([]templates.Session, 0, len(sessions))
	for _, session := range sessions {
		browser, system := browserOf(session.UserAgent)
		view := templates.Session{
			ID: session.ID, Browser: browser, System: system, Address: session.Address,
			SignedInAt: session.AuthTime, LastSeenAt: session.LastSeenAt, Current: session.ID == current,
		}
		if view.Current {
			views = slices.Insert(views, 0, view)
		} else {
			views = append(views, view)
		}
	}
	return views
}

// browserOf reads a User-Agent header, as far as a person needs it to tell
// their devices apart. Browsers name those they descend from, so the order
// counts: what is special comes first.
func browserOf(userAgent string) (browser, system string) {
	first := func(marks [][2]string) string {
		for _, m := range marks {
			if strings.Contains(userAgent, m[0]) {
				return m[1]
			}
		}
		return ""
	}
	browser = first([][2]string{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"}, {"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},
		{"Chrome/", "Chrome"}, {"CriOS/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
	})
	system = first([][2]string{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"},
		{"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"},
	})
	return browser, system
}

func appViews(apps []provider.App) []templates.App {
	views := make([]templates.App, len(apps))
	for i, a := range apps {
		views[i] = templates.App{
			Client: templates.Client{ID: a.ClientID, Name: a.Name, Host: a.Host, Trust: trust(a.FirstParty, a.Unverified)},
			Groups: scopeGroups(a.Groups), Since: a.Since, LastUsedAt: a.LastUsed, Live: a.Live, Remembered: a.Remembered, Offline: a.Offline, Once: a.Once, Open: a.Open,
		}
		forget(views[i].Groups) // all of it was allowed before: that is what the page is about
	}
	return views
}
