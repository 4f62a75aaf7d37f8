package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/ory/fosite"
	"golang.org/x/text/language"

	"github.com/signet-oidc/signet/storage"
)

// Authorization is one authorization request on its way from the app to the
// answer, and what was done for it. It lives in no database: sealed, it
// travels through the browser (flow.go). Its ID becomes the grant's. It
// belongs to one request: the next one opens its own.
type Authorization struct {
	ID      string // UUIDv7
	BegunAt time.Time

	// What was done in this flow.
	SignedIn string // id of the session in which the person signed in, or signed in again
	Selected string // id of the session the person chose to go on with
	// Whom the consent form was shown to.
	Session, User string

	form     url.Values // canonical: known parameters only
	pushed   string     // the request_uri that stands for form (RFC 9126), or ""
	expected string     // the sub that id_token_hint says has to sign in, or ""
	offer    string     // a digest of what the consent form listed
	request  *authorizationRequest
}

// authorizationRequest is what the form says, judged against what is known now.
type authorizationRequest struct {
	view        view
	client      *client
	redirectURI string
	mode        string
	wish        wish
	challenge   string
	nonce       string
	prompt      []string
	maxAge      time.Duration // negative: not given
	uiLocales   []string
	claims      claimsRequest
	fosite      fosite.AuthorizeRequester
}

// MarkSignedIn notes that the person signed in for this flow.
func (a *Authorization) MarkSignedIn(s *SignedIn) { a.SignedIn = s.Session.ID }

// MarkSelected notes that the person chose to go on as who is signed in.
func (a *Authorization) MarkSelected(s *SignedIn) { a.Selected = s.Session.ID }

// ClientName returns the name of the app that asks.
func (a *Authorization) ClientName() string { return a.request.client.Name }

// Unverified says that nobody but itself vouches for the app that asks.
func (a *Authorization) Unverified() bool { return a.request.client.Origin != originOperator }

// ClientHost returns the host of the app's identifier where that is a URL, or "".
func (a *Authorization) ClientHost() string { return clientHost(a.request.client.ID) }

// LoginHint returns what the app says the person signs in with, or "".
func (a *Authorization) LoginHint() string { return a.form.Get("login_hint") }

// UILocales returns the languages asked for, the preferred first (OIDC Core §3.1.2.1).
func (a *Authorization) UILocales() []string { return a.request.uiLocales }

// RedirectTarget returns where the answer goes as a CSP source: the origin of
// an http URI, otherwise the scheme.
func (a *Authorization) RedirectTarget() string { return cspSource(a.request.redirectURI) }

func cspSource(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || uri == "":
		return ""
	case u.Scheme == "http" || u.Scheme == "https":
		return u.Scheme + "://" + u.Host
	}
	return u.Scheme + ":"
}

// PageKind is what a PageError is about; pages have words for each.
type PageKind int

// A PageError is about a request that cannot be read, an app that is not known
// or was turned off, an address the app has not registered, or the method.
const (
	PageBadRequest PageKind = iota + 1
	PageUnknownClient
	PageClientDisabled
	PageBadRedirect
	PageMethod
)

// PageError is a request that must not be answered by a redirect, because it
// is not known to come from a registered app that waits at a registered
// address (RFC 6749 §4.1.2.1). The person is told.
type PageError struct {
	Status      int
	Kind        PageKind
	Description string // for the app's developer; safe to show
	ClientName  string // "" when not known
}

func (e *PageError) Error() string { return e.Description }

func badRequest(description string) *PageError {
	return &PageError{Status: http.StatusBadRequest, Kind: PageBadRequest, Description: description}
}

// unknownClient says that nobody has the client_id, and why not if that is known.
func unknownClient(err error) *PageError {
	description := "No client has this client_id."
	var document *documentError
	if errors.As(err, &document) {
		description = document.description
	}
	return &PageError{Status: http.StatusBadRequest, Kind: PageUnknownClient, Description: description}
}

// Response modes.
const (
	ModeQuery    = "query"
	ModeFormPost = "form_post" // OAuth 2.0 Form Post Response Mode

	// The same, the answer in a JWT (JARM §2.3).
	ModeQueryJWT    = "query.jwt"
	ModeFormPostJWT = "form_post.jwt"
)

// Redirect is the answer to the app: a code or an error (RFC 6749 §4.1.2). As
// an error value it ends the flow at once.
type Redirect struct {
	URL    string // the redirect URI
	Mode   string
	Params url.Values
	// Stranger says that nobody here vouches for where it leads, and that the
	// person may be asked. Only who is signed in is sent there, or any link would
	// send anybody anywhere by way of this server (RFC 9700 §4.11.2).
	Stranger bool

	clientID string
}

// Page returns the error answer as a page says it, which sends nobody anywhere.
func (r *Redirect) Page() *PageError {
	return badRequest(r.Params.Get("error") + ": " + r.Params.Get("error_description"))
}

func (r *Redirect) Error() string {
	return "authorization refused: " + r.Params.Get("error") + ": " + r.Params.Get("error_description")
}

// Location returns the URL to answer with, where it has the parameters.
func (r *Redirect) Location(parameters url.Values) string {
	separator := "?"
	if strings.Contains(r.URL, "?") {
		separator = "&"
	}
	return r.URL + separator + parameters.Encode()
}

// answer returns an answer for the request: with the client's state exactly as
// it was sent and our issuer identifier (RFC 9207).
func (p *Provider) answer(redirectURI, mode string, form url.Values) *Redirect {
	params := url.Values{"iss": {p.issuer.String()}}
	if form.Has("state") {
		params.Set("state", form.Get("state"))
	}
	return &Redirect{URL: redirectURI, Mode: mode, Params: params, clientID: form.Get("client_id")}
}

// refuse returns the error answer of RFC 6749 §4.1.2.1.
func (p *Provider) refuse(redirectURI, mode string, form url.Values, code, description string) *Redirect {
	r := p.answer(redirectURI, mode, form)
	r.Params.Set("error", code)
	r.Params.Set("error_description", description)
	return r
}

func (a *Authorization) refuse(p *Provider, code, description string) *Redirect {
	r := p.refuse(a.request.redirectURI, a.request.mode, a.form, code, description)
	r.Stranger = leadsAnywhere(a.request.client, a.form)
	return r
}

// leadsAnywhere says whether an error answer leads to a place that a stranger
// chose. Silent requests are left out: they want no page (OIDC Core §3.1.2.1).
func leadsAnywhere(c *client, form url.Values) bool {
	return c.Origin != originOperator && !slices.Contains(strings.Fields(form.Get("prompt")), "none")
}

// authorizeParameters are those that count; others are ignored (RFC 6749 §3.1)
// and travel no further.
var authorizeParameters = []string{
	"response_type", "client_id", "redirect_uri", "scope", "state", "resource",
	"code_challenge", "code_challenge_method", "response_mode",
	"nonce", "prompt", "max_age", "ui_locales", "login_hint", "acr_values", "claims",
	"id_token_hint", "request", "request_uri", "registration",
}

// BeginAuthorization reads and judges an authorization request (RFC 6749
// §4.1.1, OIDC Core §3.1.2.1). It writes nothing. It returns a *PageError when
// the answer must be a page, a *Redirect when the app is to be told of an
// error, or an error of the database.
func (p *Provider) BeginAuthorization(ctx context.Context, r *http.Request) (*Authorization, error) {
	form, err := p.readFront(r, authorizeParameters)
	if err != nil {
		return nil, err
	}
	a := &Authorization{ID: uuid.Must(uuid.NewV7()).String(), BegunAt: p.now(), form: form}
	if uri := form.Get("request_uri"); isPushed(uri) { // nothing beside it counts (RFC 9126 §4)
		a.pushed = uri
		if err := p.loadPushed(ctx, a, form.Get("client_id"), true); err != nil {
			return nil, err
		}
		return a, p.judge(ctx, a)
	}
	if err := p.begin(ctx, a, false); err != nil {
		return nil, err
	}
	if len(a.encode())*4/3 > p.policy.MaxFlowBytes-maxFlowOverhead {
		return nil, a.refuse(p, "invalid_request", "The request is too large to be carried through a sign-in; push it instead (RFC 9126).")
	}
	return a, nil
}

// begin judges a request that comes from outside, pushed or not.
func (p *Provider) begin(ctx context.Context, a *Authorization, pushed bool) (err error) {
	if err := p.unpack(ctx, a); err != nil {
		return err
	}
	if err := p.judge(ctx, a); err != nil {
		return err
	}
	if c := a.request.client; c.RequirePushed && !pushed { // RFC 9126 §6
		return a.refuse(p, "invalid_request", "This client has to push its authorization requests (RFC 9126).")
	}
	a.expected, err = p.hintedSubject(a)
	a.form.Del("id_token_hint") // what it said is kept in expected
	return err
}

// readFront reads the parameters of a request that a browser brings, by GET in
// the query or by POST in the body, and keeps those that are known.
func (p *Provider) readFront(r *http.Request, known []string) (url.Values, error) {
	raw := r.URL.RawQuery
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/x-www-form-urlencoded" {
			return nil, badRequest("A POST request has its parameters in a body of type application/x-www-form-urlencoded.")
		}
		if raw != "" {
			return nil, badRequest("A POST request has its parameters in the body, none in the URL.")
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, int64(p.policy.MaxAuthorizeBytes)+1))
		if err != nil {
			return nil, badRequest("The body could not be read.")
		}
		raw = string(body)
	default:
		return nil, &PageError{Status: http.StatusMethodNotAllowed, Kind: PageMethod, Description: "This endpoint takes GET and POST requests."}
	}
	if len(raw) > p.policy.MaxAuthorizeBytes {
		return nil, badRequest(fmt.Sprintf("The request is larger than %d bytes.", p.policy.MaxAuthorizeBytes))
	}
	parsed, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("The parameters are not well-formed.")
	}
	form := make(url.Values)
	for _, name := range known {
		values := parsed[name]
		if len(values) > 1 && name != "resource" { // RFC 6749 §3.1; RFC 8707 §2
			return nil, badRequest(fmt.Sprintf("The parameter %s appears more than once.", name))
		}
		for _, v := range values {
			if !validText(v) {
				return nil, badRequest(fmt.Sprintf("The parameter %s is not valid UTF-8 text.", name))
			}
			if v != "" { // RFC 6749 §3.1: without a value it counts as omitted
				form.Add(name, v)
			}
		}
	}
	if len(form.Get("state")) > p.policy.MaxStateBytes {
		return nil, badRequest(fmt.Sprintf("state is longer than %d bytes.", p.policy.MaxStateBytes))
	}
	return form, nil
}

// judge checks the form against what is registered now and fills in a.request.
func (p *Provider) judge(ctx context.Context, a *Authorization) error {
	form := a.form
	v, err := p.registry.view(ctx)
	if err != nil {
		return err
	}
	// Who asks, and where the answer goes: until both are good, nothing is
	// redirected (RFC 6749 §4.1.2.1, RFC 9700 §4.11).
	id := form.Get("client_id")
	if id == "" {
		return badRequest("The parameter client_id is missing.")
	}
	c, err := p.resolveClient(ctx, v, id, forSignIns)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrInvalid) {
		return unknownClient(err)
	}
	if err != nil {
		return err
	}
	if !c.Enabled {
		return &PageError{Status: http.StatusBadRequest, Kind: PageClientDisabled, Description: "This client is disabled.", ClientName: c.Name}
	}
	redirectURI := form.Get("redirect_uri")
	registered, ok := matchRedirectURI(redirectURI, c.RedirectURIs)
	if redirectURI == "" {
		// RFC 6749 §3.1.2.3; OpenID Connect always wants it (OIDC Core §3.1.2.1).
		ok = len(c.RedirectURIs) == 1 && !slices.Contains(strings.Fields(form.Get("scope")), "openid")
		if ok {
			redirectURI, registered = c.RedirectURIs[0], c.RedirectURIs[0]
		}
	}
	if !ok {
		return &PageError{Status: http.StatusBadRequest, Kind: PageBadRedirect, ClientName: c.Name,
			Description: "redirect_uri is not one that this client registered, compared character by character."}
	}

	// From here on the app is told.
	q := &authorizationRequest{view: v, client: c, redirectURI: redirectURI, mode: ModeQuery, maxAge: -1}
	a.request = q
	var known bool
	if q.mode, known = readMode(form.Get("response_mode")); !known {
		return a.refuse(p, "invalid_request", "response_mode is query, form_post, jwt, query.jwt or form_post.jwt.")
	}
	if c.authenticatesElsewhere() { // CIMD §6
		return a.refuse(p, "unauthorized_client", "None of the client authentication methods in this client's metadata document is offered: none, private_key_jwt.")
	}
	if err := p.judgeParameters(a); err != nil {
		var ours *Error
		if errors.As(err, &ours) {
			return a.refuse(p, ours.Code, ours.Description)
		}
		return err
	}
	// fosite reads the same request again, reduced to what it understands: its
	// view of client, redirect URI, response type and scopes must be ours.
	state := form.Get("state")
	if state == "" {
		state = "none" // optional in RFC 6749 §4.1.1, demanded by fosite; never sent
	}
	framed := &http.Request{Method: http.MethodGet, URL: &url.URL{}, Header: http.Header{}, Form: url.Values{
		"client_id": {id}, "redirect_uri": {registered}, "response_type": {"code"},
		"scope": {strings.Join(q.wish.scopes, " ")}, "state": {state},
	}}
	if q.fosite, err = p.fosite.NewAuthorizeRequest(ctx, framed); err != nil {
		e := toError(err)
		if e.Status >= http.StatusInternalServerError {
			return err
		}
		return a.refuse(p, e.Code, e.Description)
	}
	return nil
}

// judgeParameters checks everything but client and redirect URI. It returns an
// *Error for what the app did wrong.
func (p *Provider) judgeParameters(a *Authorization) error {
	form, q, c := a.form, a.request, a.request.client
	if form.Has("registration") { // OIDC Core §7.2.1
		return oauthError(http.StatusBadRequest, "registration_not_supported", "The parameter registration is not supported.")
	}
	switch form.Get("response_type") {
	case "code":
	case "":
		return invalidRequest("The parameter response_type is missing.")
	default: // RFC 9700 §2.1.2: neither implicit nor hybrid
		return oauthError(http.StatusBadRequest, "unsupported_response_type", "response_type is code.")
	}
	if !slices.Contains(c.GrantTypes, grantCode) {
		return unauthorizedClient("This client is not registered for the grant type authorization_code.")
	}
	var err error
	if q.challenge, err = readChallenge(form, c.RequirePKCE); err != nil {
		return err
	}
	if q.wish, err = p.readAuthorizeWish(form, c); err != nil {
		return err
	}
	q.wish = q.view.asRegistered(p.issuer.String(), q.wish)
	// Roles are the person's, who is not known yet: whether anything is left
	// without them is judged again in plan.
	if _, err := q.view.decide(p.issuer.String(), q.wish, c.Scopes, q.view.roleNames(), c.FirstParty); err != nil {
		return err
	}
	if q.nonce = form.Get("nonce"); len(q.nonce) > 512 {
		return invalidRequest("nonce is longer than 512 bytes.")
	}
	if q.prompt, err = readPrompt(form.Get("prompt")); err != nil {
		return err
	}
	if age := form.Get("max_age"); age != "" {
		seconds, err := strconv.ParseUint(age, 10, 31)
		if err != nil {
			return invalidRequest("max_age is a number of seconds, from 0.")
		}
		q.maxAge = time.Duration(seconds) * time.Second
	} else if age := c.extra.DefaultMaxAge; age != nil { // OIDC Registration §2
		q.maxAge = time.Duration(*age) * time.Second
	}
	if len(form.Get("login_hint")) > 320 { // an e-mail address, at most
		return invalidRequest("login_hint is longer than 320 bytes.")
	}
	q.uiLocales = readLocales(form.Get("ui_locales"))
	q.claims, err = readClaims(form.Get("claims"))
	return err
}

// readChallenge applies PKCE (RFC 7636 §4.2–4.4, RFC 9700 §2.1.1): S256 only.
func readChallenge(form url.Values, required bool) (string, error) {
	challenge := form.Get("code_challenge")
	switch {
	case challenge == "" && form.Has("code_challenge_method"):
		return "", invalidRequest("code_challenge_method is there without code_challenge.")
	case challenge == "" && required:
		return "", invalidRequest("This client has to use PKCE: code_challenge is missing (RFC 7636).")
	case challenge == "":
		return "", nil
	case form.Get("code_challenge_method") != "S256":
		return "", invalidRequest("code_challenge_method is S256.")
	}
	if raw, err := base64.RawURLEncoding.Strict().DecodeString(challenge); err != nil || len(raw) != 32 || len(challenge) != 43 {
		return "", invalidRequest("code_challenge is the SHA-256 of the verifier in base64url: 43 characters.")
	}
	return challenge, nil
}

// readAuthorizeWish reads scope and resource. Without scope the client gets
// what it is registered for, but nothing that goes on after signing out (RFC
// 6749 §3.3); offline_access is ignored for clients that cannot refresh (OIDC
// Core §11).
func (p *Provider) readAuthorizeWish(form url.Values, c *client) (wish, error) {
	if len(form.Get("scope")) > p.policy.MaxScopeBytes {
		return wish{}, invalidScope(fmt.Sprintf("scope is longer than %d bytes.", p.policy.MaxScopeBytes))
	}
	w, err := readWish(form, p.policy)
	if err != nil {
		return wish{}, err
	}
	asked := len(w.scopes) > 0
	if !asked {
		w.scopes = slices.Clone(c.Scopes)
	}
	if !asked || !slices.Contains(c.GrantTypes, grantRefresh) {
		w.scopes = slices.DeleteFunc(w.scopes, func(s string) bool { return s == scopeOffline })
	}
	if len(w.scopes) == 0 {
		return wish{}, invalidScope("No scope is left that this client may ask for.")
	}
	return w, nil
}

// readPrompt reads prompt (OIDC Core §3.1.2.1).
func readPrompt(s string) ([]string, error) {
	values := strings.Fields(s)
	for _, v := range values {
		switch v {
		case "none", "login", "consent", "select_account":
		default:
			return nil, invalidRequest("prompt has a value other than none, login, consent and select_account.")
		}
	}
	if len(values) > 1 && slices.Contains(values, "none") {
		return nil, invalidRequest("prompt=none goes with no other value.")
	}
	return values, nil
}

// readLocales keeps what is a language tag (BCP 47); the rest is ignored.
func readLocales(s string) []string {
	var tags []string
	for _, field := range strings.Fields(s) {
		if tag, err := language.Parse(field); err == nil && len(tags) < 8 {
			tags = append(tags, tag.String())
		}
	}
	return tags
}

// hintedSubject returns the sub of id_token_hint, or "" (OIDC Core §3.1.2.1).
func (p *Provider) hintedSubject(a *Authorization) (string, error) {
	given := a.form.Get("id_token_hint")
	if given == "" {
		return "", nil
	}
	h, err := p.readHint(a.request.view, given)
	if err != nil || h.clientID != a.request.client.ID {
		return "", a.refuse(p, "invalid_request", "id_token_hint is not an ID token that was issued here to this client.")
	}
	if wanted := a.request.claims.subjects(); len(wanted) > 0 && !slices.Contains(wanted, h.subject) {
		return "", a.refuse(p, "invalid_request", "id_token_hint and claims name different subjects.")
	}
	return h.subject, nil
}
