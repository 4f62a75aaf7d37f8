package templates

import (
	"net/url"
	"strconv"
	"time"
)

// Page is what every view begins with. Base and Locale are always needed, Now
// where the page shows times, RequestID where it reports an error.
type Page struct {
	Base      string // the issuer's path, "" when it has none
	Locale    *Locale
	Now       time.Time
	RequestID string
	// Nonce is the one of the page's Content-Security-Policy. Only FormPost
	// has a script; without a nonce it has none.
	Nonce string
}

// text returns a message in the page's language.
func (p Page) text(key string, pairs ...any) string { return p.Locale.Text(key, pairs...) }

func (p Page) home() string { return p.Base + "/" }

// Form is where a page's form is posted to, and what it carries unseen.
type Form struct {
	Action string
	Flow   string // the sealed request, as field "flow"; left out when ""
	CSRF   string // the token bound to the browser, as field "csrf"; left out when ""
}

// Client is an application as its pages name it. Name is shown as it is, set
// apart from our own words and cut to two lines: whatever could deceive in it
// is to be neutralised before. An empty one is shown as the ID.
type Client struct {
	ID    string
	Name  string
	Host  string // whose metadata document it has (its identifier is a URL there), or ""
	Trust Trust
	// Https URLs where its maker tells people of it, what it does with data, and
	// its terms; or "".
	Home, Policy, Terms string
}

func (c Client) name() string {
	if c.Name == "" {
		return c.ID
	}
	return c.Name
}

// link is one of a client's links.
type link struct{ id, text, url string }

// host is what people see of a link's target before they follow it.
func (l link) host() string {
	u, err := url.Parse(l.url)
	if err != nil {
		return ""
	}
	return u.Host
}

func (c Client) links() (links []link) {
	for _, l := range []link{{"client-uri", "consent.about_home", c.Home}, {"policy-uri", "consent.about_policy", c.Policy}, {"tos-uri", "consent.about_terms", c.Terms}} {
		if l.url != "" {
			links = append(links, l)
		}
	}
	return links
}

// Trust is what the operator knows of a client.
type Trust int

// Registered clients were entered by the operator, Operator clients are the
// operator's own (first-party), Unverified ones registered themselves.
const (
	Registered Trust = iota
	Operator
	Unverified
)

// LoginView is the sign-in page. Fields sent: flow, csrf, username, password,
// and decision=cancel from the button that gives up.
type LoginView struct {
	Page
	Form
	Client   *Client // who asks, nil when the person comes for the account page
	Username string  // as typed before, or the login_hint
	Confirm  bool    // somebody is signed in and has to prove it again
	// CanCancel adds the button that takes the person back to the client.
	CanCancel bool
	Problems  []Problem
}

func (v LoginView) title() string {
	if v.Confirm {
		return v.text("login.confirm_title")
	}
	return v.text("login.title")
}

// SelectAccountView asks with which account to go on. Fields sent: flow, csrf,
// account=current or account=other.
type SelectAccountView struct {
	Page
	Form
	Client   *Client
	Username string
	Email    string // "" when there is none
}

// ConsentView asks whether a client may have access. Fields sent: flow, csrf,
// decision=allow, decision=deny, or decision=switch (with another account).
type ConsentView struct {
	Page
	Form
	Client   Client
	Username string
	// Host is where the answer goes: the host of the redirect URI, with its
	// port when it has one, or the scheme of a private-use one.
	Host string
	// NewHost marks a host that answers to the client did not go to when the
	// person allowed it before.
	NewHost bool
	// OnDevice marks loopback and private-use redirect URIs: any program on
	// the device may pose as the client (RFC 8252 §8.6).
	OnDevice bool
	Groups   []ScopeGroup
	Access   Access
}

// ScopeGroup is what one resource lets a client do.
type ScopeGroup struct {
	// Name of the resource; "" is the provider itself, whose scopes need no
	// description.
	Name   string
	Scopes []Scope
}

// Scope is one thing a client may do.
type Scope struct {
	Name        string
	Description string // in words, from whoever defined it; "" shows the name
	Before      bool   // it was allowed before
}

// words says what a scope allows.
func (p Page) words(group ScopeGroup, s Scope) string {
	if group.Name == "" {
		switch s.Name {
		case "openid":
			return p.text("scope.openid")
		case "profile":
			return p.text("scope.profile")
		case "email":
			return p.text("scope.email")
		case "address":
			return p.text("scope.address")
		case "phone":
			return p.text("scope.phone")
		case "groups":
			return p.text("scope.groups")
		case "roles":
			return p.text("scope.roles")
		case "offline_access":
			return p.text("scope.offline_access")
		}
	}
	if s.Description == "" {
		return s.Name
	}
	return s.Description
}

// Access is how long a client keeps what it is allowed.
type Access struct {
	Kind AccessKind
	// Idle is how long unused offline access lasts.
	Idle time.Duration
	// Longest is when it ends in any case: the lifetime of an access token, of
	// a session, of a refresh family.
	Longest time.Duration
}

// AccessKind is what ends a client's access.
type AccessKind int

// AccessOnce is a client without refresh tokens, AccessSession one whose
// refresh tokens end with the session, AccessOffline one whose don't.
const (
	AccessOnce AccessKind = iota
	AccessSession
	AccessOffline
)

func (p Page) lasts(a Access) string {
	switch a.Kind {
	case AccessOffline:
		return p.text("consent.lasts_offline", "idle", a.Idle, "time", a.Longest)
	case AccessSession:
		return p.text("consent.lasts_session", "time", a.Longest)
	default:
		return p.text("consent.lasts_once", "time", a.Longest)
	}
}

// SetUpView lets the bearer of a set-up link make an account. Fields sent:
// flow (the link's token), csrf, username, new_password, repeat_password.
type SetUpView struct {
	Page
	Form
	First bool // nobody has an account yet; otherwise it is an invitation
	// Username as typed before. FixedUsername when the invitation says it: it
	// is shown, and sent, but can't be changed.
	Username      string
	FixedUsername bool
	MinPassword   int // characters
	Problems      []Problem
}

func (v SetUpView) title() string {
	if v.First {
		return v.text("setup.first_title")
	}
	return v.text("setup.invite_title")
}

// ChangePasswordView changes the password, on the way in when somebody else
// has set it (Required) or from the account page. Fields sent: flow, csrf,
// current_password (unless Required), new_password, repeat_password.
type ChangePasswordView struct {
	Page
	Form
	Required    bool
	Username    string // for password managers
	MinPassword int    // characters
	AccountURL  string // the way back, not shown when Required
	Problems    []Problem
}

func (v ChangePasswordView) title() string {
	if v.Required {
		return v.text("password.required_title")
	}
	return v.text("password.title")
}

// AccountView is a person's own page. Every form on it sends csrf; besides
// that, EndSession gets session=ID, EndOthers nothing, Withdraw client=ID.
type AccountView struct {
	Page
	CSRF       string
	Username   string
	Email      string // "" when there is none
	Notice     Notice
	Sessions   []Session // this browser's first
	Apps       []App
	EndSession string // URLs, as the following
	EndOthers  string
	Withdraw   string
	Password   string
	Logout     string
}

func (v AccountView) hasOthers() bool { return len(v.Sessions) > 1 }

// Notice says what has just been done.
type Notice int

// What may have been done before the account page is shown.
const (
	NoNotice Notice = iota
	PasswordChanged
	SessionEnded
	OthersEnded
	AccessWithdrawn
	AccountCreated
)

func (v AccountView) notice() string {
	switch v.Notice {
	case PasswordChanged:
		return v.text("account.password_changed")
	case SessionEnded:
		return v.text("account.session_ended")
	case OthersEnded:
		return v.text("account.others_ended")
	case AccessWithdrawn:
		return v.text("account.withdrawn")
	case AccountCreated:
		return v.text("account.created")
	default:
		return ""
	}
}

// Session is a browser in which a person is signed in.
type Session struct {
	ID         string // what ending it sends; not the cookie
	Browser    string // as "Firefox", "" when it isn't known
	System     string // as "Windows", "" when it isn't known
	Address    string
	SignedInAt time.Time
	LastSeenAt time.Time
	Current    bool // the one that looks at the page; it is ended by signing out
}

func (p Page) browser(s Session) string {
	switch {
	case s.Browser == "":
		return p.text("account.browser_unknown")
	case s.System == "":
		return s.Browser
	default:
		return p.text("account.browser", "browser", s.Browser, "system", s.System)
	}
}

// App is a client with access to the account.
type App struct {
	Client
	Groups     []ScopeGroup
	Since      time.Time
	LastUsedAt time.Time // zero when it isn't known, and then not shown
	Live       bool      // it has access now
	Remembered bool      // it gets access without a question
	Offline    bool      // it keeps its access after the person has signed out
	Once       bool      // it cannot keep its access, for it gets no refresh tokens
	// Open is where the app begins a sign-in by itself (OIDC Core §4), or "".
	Open string
}

// LogoutView asks whether to sign out. Fields sent: flow, csrf,
// decision=logout or decision=stay.
type LogoutView struct {
	Page
	Form
	Client   *Client // who asks, nil when it is the person, or isn't known
	Username string
}

// SignedOutView says that somebody is signed out.
type SignedOutView struct {
	Page
	Client    *Client  // whom ReturnURL belongs to
	ReturnURL string   // "" shows no link back
	LoginURL  string   // to sign in again
	Frames    []string // pages of apps that sign the person out there; the Content-Security-Policy has to allow them
}

// FormPostView takes an authorization response to the client (OAuth 2.0 Form
// Post Response Mode). The Content-Security-Policy has to allow its nonce and,
// as form-action, the client.
type FormPostView struct {
	Page
	Client     Client
	Action     string // the validated redirect URI
	Parameters []Parameter
}

// Parameter is a name with a value.
type Parameter struct{ Name, Value string }

// HomeView is the page at the issuer's own address.
type HomeView struct {
	Page
	Issuer     string
	Discovery  string // URL of the discovery document
	AccountURL string // "" shows no link to it
}

// ErrorView is a page about a request that failed.
type ErrorView struct {
	Page
	Title, Advice string // bridge until error.templ is rewritten: delete then
	Kind          ErrorKind
	// Retry is where to start again, "" when only the client can do that.
	Retry string
	// Wait is how long to wait first, zero when that isn't known.
	Wait time.Duration
	// Developer is shown on demand: error, error_description, client_id.
	Developer []Parameter
}

// ErrorKind is what went wrong.
type ErrorKind int

// Everything that a page reports.
const (
	ErrorServer       ErrorKind = iota // an internal fault
	ErrorUnavailable                   // 503
	ErrorNotFound                      // 404
	ErrorMethod                        // 405
	ErrorTooMany                       // 429
	ErrorForbidden                     // a request from another site
	ErrorBadClient                     // client_id is missing or unknown, or the client is disabled
	ErrorBadRedirect                   // redirect_uri is missing or not registered
	ErrorBadRequest                    // a request that can't be answered at the client
	ErrorExpired                       // a form that was left open for too long
	ErrorOtherUser                     // another tab has switched the user
	ErrorOtherBrowser                  // a flow that began in another browser, or no cookies
	ErrorLink                          // a set-up link that was used or has expired
)

// words returns what happened, and what to do.
func (v ErrorView) words() (title, advice string) {
	switch v.Kind {
	case ErrorUnavailable:
		return v.text("error.unavailable_title"), v.text("error.unavailable")
	case ErrorNotFound:
		return v.text("error.not_found_title"), v.text("error.not_found")
	case ErrorMethod:
		return v.text("error.method_title"), v.text("error.method")
	case ErrorTooMany:
		return v.text("error.too_many_title"), v.text("error.too_many")
	case ErrorForbidden:
		return v.text("error.forbidden_title"), v.text("error.forbidden")
	case ErrorBadClient:
		return v.text("error.bad_client_title"), v.text("error.bad_client")
	case ErrorBadRedirect:
		return v.text("error.bad_redirect_title"), v.text("error.bad_redirect")
	case ErrorBadRequest:
		return v.text("error.bad_request_title"), v.text("error.bad_request")
	case ErrorExpired:
		return v.text("error.expired_title"), v.text("error.expired")
	case ErrorOtherUser:
		return v.text("error.other_user_title"), v.text("error.other_user")
	case ErrorOtherBrowser:
		return v.text("error.other_browser_title"), v.text("error.other_browser")
	case ErrorLink:
		return v.text("error.link_title"), v.text("error.link")
	default:
		return v.text("error.server_title"), v.text("error.server")
	}
}

// nth makes the id of a part of the nth item of a list, counted from 1.
func nth(kind string, i int, part string) string {
	id := kind + "-" + strconv.Itoa(i+1)
	if part == "" {
		return id
	}
	return id + "-" + part
}
