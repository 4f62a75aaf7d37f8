package provider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
)

// Binding ties what travels through a browser to that browser: the value of
// a cookie that is set once, shared by all tabs and unchanged by signing in.
// "" stands for not bound yet: a POST from another site brings no cookie.
type Binding string

var (
	// ErrFlowExpired says that a person took longer than the flow's lifetime.
	ErrFlowExpired = errors.New("this sign-in took too long")
	// ErrFlowInvalid says that a flow was begun in another browser, was changed,
	// or never was one. Nobody can tell which.
	ErrFlowInvalid = errors.New("this sign-in was not begun in this browser")
	// ErrFlowSpent says that the flow's code was used or has expired.
	ErrFlowSpent = errors.New("this sign-in is finished")
	// ErrSwitched says that the consent form does not fit any more: somebody
	// else is signed in by now, or something else would be given. Ask again.
	ErrSwitched = errors.New("the form was made for another account or another request")
)

// What is sealed; a flow of one kind does not open as another.
const (
	flowAuthorize = "authorize"
	flowLogout    = "logout"
)

// maxFlowOverhead is what sealing and what is done in a flow add to a request.
const maxFlowOverhead = 512

// sealedFlow is the form in which an Authorization travels.
type sealedFlow struct {
	ID       string `json:"i"`
	BegunAt  int64  `json:"b"` // Unix milliseconds
	Form     string `json:"f,omitempty"`
	Pushed   string `json:"p,omitempty"` // with Client, in place of Form and Expected (RFC 9126)
	Client   string `json:"d,omitempty"`
	Expected string `json:"e,omitempty"`
	SignedIn string `json:"l,omitempty"`
	Selected string `json:"s,omitempty"`
	Session  string `json:"c,omitempty"`
	User     string `json:"u,omitempty"`
	Offer    string `json:"o,omitempty"`
}

func (a *Authorization) encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // every & of the form would take six bytes
	s := sealedFlow{
		ID: a.ID, BegunAt: a.BegunAt.UnixMilli(), Form: a.form.Encode(), Expected: a.expected,
		SignedIn: a.SignedIn, Selected: a.Selected, Session: a.Session, User: a.User, Offer: a.offer,
	}
	if a.pushed != "" {
		s.Pushed, s.Client, s.Form, s.Expected = a.pushed, a.form.Get("client_id"), "", ""
	}
	if err := e.Encode(s); err != nil {
		panic(err) // strings and a number always marshal
	}
	return b.Bytes()
}

// SealFlow returns the authorization as text for a URL or a form, which only
// this issuer can read, only with the same binding, for the flow's lifetime. A
// flow in which something was done is never sealed unbound.
func (p *Provider) SealFlow(a *Authorization, b Binding) (string, error) {
	if b == "" && a.SignedIn+a.Selected+a.Session != "" {
		return "", errors.New("a flow that is under way has to be bound to a browser")
	}
	sealed, err := p.seal(flowAuthorize, b, a.encode())
	if err != nil {
		return "", err
	}
	if len(sealed) > p.policy.MaxFlowBytes {
		return "", a.refuse(p, "invalid_request", "The request is too large to be carried through a sign-in.")
	}
	return sealed, nil
}

// OpenFlow returns what SealFlow sealed, judged again as BeginAuthorization
// does. ErrFlowExpired comes with the authorization, so that a page can name
// the app; ErrFlowInvalid alone.
func (p *Provider) OpenFlow(ctx context.Context, sealed string, b Binding) (*Authorization, error) {
	plain, err := p.open(ctx, flowAuthorize, b, sealed)
	if err != nil {
		return nil, err
	}
	var s sealedFlow
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	form, err := url.ParseQuery(s.Form)
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	a := &Authorization{
		ID: s.ID, BegunAt: time.UnixMilli(s.BegunAt).UTC(), SignedIn: s.SignedIn, Selected: s.Selected,
		Session: s.Session, User: s.User, offer: s.Offer, form: form, expected: s.Expected, pushed: s.Pushed,
	}
	if a.pushed != "" {
		if err := p.loadPushed(ctx, a, s.Client, false); err != nil {
			return nil, err
		}
	}
	if err := p.judge(ctx, a); err != nil {
		return nil, err
	}
	if p.now().After(a.BegunAt.Add(p.policy.FlowLifetime)) {
		return a, ErrFlowExpired
	}
	return a, nil
}

// seal encrypts a value for the browser with this binding.
func (p *Provider) seal(kind string, b Binding, plain []byte) (string, error) {
	s := p.registry.current.Load()
	if s == nil {
		return "", unavailable(nil)
	}
	sealed, err := s.ring.SealValue(keys.PurposeFlow, flowContext(kind, b), plain)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// open decrypts what seal made, or returns ErrFlowInvalid.
func (p *Provider) open(ctx context.Context, kind string, b Binding, sealed string) ([]byte, error) {
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	if len(sealed) > p.policy.MaxFlowBytes || strings.ContainsAny(sealed, "\r\n") {
		return nil, ErrFlowInvalid
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, ErrFlowInvalid
	}
	plain, err := v.ring.OpenValue(keys.PurposeFlow, flowContext(kind, b), raw)
	if errors.Is(err, keys.ErrNotSealed) {
		return nil, ErrFlowInvalid
	}
	return plain, err
}

func flowContext(kind string, b Binding) []byte { return []byte(kind + "\x00" + string(b)) }
