package main

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Env is what the checks know and use: the issuer under judgement, the caller's
// credentials at it, and the metadata once it has been read.
type Env struct {
	Issuer         string // exactly as the operator configured it
	AllowHTTP      bool   // plain http is accepted although the host is not loopback
	Client, Second Credentials
	PublicClientID string
	KeyClient      *KeyClient // nil when none was given
	Resource       string     // RFC 8707 identifier that Client may ask for
	Scope          string     // scope of that resource
	Person         Person     // empty when nobody is to sign in
	Web, SecondWeb App        // the apps people sign in to
	Native         App        // a public one, on the person's device
	PostLogoutURI  string     // registered by Web
	Pages          Pages

	Register        bool   // clients may be registered
	InitialToken    string // with which; empty where anybody may
	KeyRedirectURI  string // of KeyClient, where people sign in to it too
	Protected       string // identifier and address of a protected resource
	ProtectedScope  string // which it wants
	StepUp          string // address at which it wants the person to have signed in
	FrontChannelURI string // registered by SecondWeb

	HTTP *http.Client
	Now  func() time.Time

	openid, oauth document
	live          *browser // where the person is signed in
	refused       error    // why they could not sign in

	registrationKey *ecdsa.PrivateKey // of clients that register with keys
	told            *receiver         // the back channel of SecondWeb, nil without one
	over            *ending           // a session of SecondWeb's that has ended
	notOver, untold error             // why it has not, or nothing was told of it
}

// Credentials are a client's identifier and secret.
type Credentials struct{ ID, Secret string }

func (c Credentials) complete() bool { return c.ID != "" && c.Secret != "" }

// wrong is the same client with a secret that nobody issued.
func (c Credentials) wrong() Credentials { return Credentials{c.ID, "not-the-secret-of-this-client"} }

// A document is one of the issuer's metadata documents, read once.
type document struct {
	url     string
	answer  *Answer
	members map[string]any // nil when it is not a JSON object
	err     error          // why it could not be fetched
}

// readMetadata fetches both metadata documents. It fails when neither request
// was answered; any other fault is kept with its document, for the checks to
// report.
func (e *Env) readMetadata(ctx context.Context) error {
	read := func(address string) document {
		d := document{url: address}
		if d.answer, d.err = e.get(ctx, address, nil); d.err != nil {
			return d
		}
		if d.answer.Status == http.StatusOK {
			d.members, _ = d.answer.object()
		}
		return d
	}
	e.openid = read(strings.TrimSuffix(e.Issuer, "/") + "/.well-known/openid-configuration")
	e.oauth = read(insertWellKnown(e.Issuer, "oauth-authorization-server"))
	if e.openid.err != nil && e.oauth.err != nil {
		return fmt.Errorf("the issuer cannot be reached: %w", e.openid.err)
	}
	return nil
}

// clientRefused says whether the issuer refuses the main client's credentials
// (RFC 6749 §5.2), which then shows in most of the checks.
func (e *Env) clientRefused(ctx context.Context) bool {
	if !e.Client.complete() || e.endpoint("token_endpoint") == "" {
		return false
	}
	a, err := e.postToken(ctx, &e.Client, e.clientCredentials())
	if err != nil {
		return false
	}
	m, err := a.object()
	return err == nil && m["error"] == "invalid_client"
}

// personRefused says why the person cannot sign in, which then shows in all the
// checks that need one.
func (e *Env) personRefused(ctx context.Context) error {
	for _, n := range signIn() {
		if !n.met(e) {
			return nil
		}
	}
	_, err := e.signedIn(ctx)
	return err
}

// insertWellKnown puts the well-known path between host and path of the issuer
// (RFC 8414 §3.1). The issuer has been parsed before.
func insertWellKnown(issuer, name string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	u.Path = "/.well-known/" + name + strings.TrimSuffix(u.Path, "/")
	return u.String()
}

// metadata is the document the endpoints are taken from.
func (e *Env) metadata() map[string]any {
	if e.openid.members != nil {
		return e.openid.members
	}
	return e.oauth.members
}

// endpoint is the URL the issuer advertises as that member, or nothing.
func (e *Env) endpoint(member string) string {
	s, _ := e.metadata()[member].(string)
	return s
}

// supports reports whether a list of the metadata holds a value.
func (e *Env) supports(member, value string) bool {
	list, _ := stringList(e.metadata()[member])
	return slices.Contains(list, value)
}

// secureURL reports whether an issuer or endpoint may be used: absolute, https
// (http on loopback), without a fragment.
func (e *Env) secureURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Host == "":
		return errors.New("not absolute")
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return errors.New("has a fragment")
	case u.Scheme == "https", u.Scheme == "http" && (e.AllowHTTP || isLoopback(u.Hostname())):
		return nil
	}
	return errors.New("not https")
}

// stringList reads a JSON array of strings; false for anything else.
func stringList(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// show renders a value for a report line, short and on one line.
func show(v any) string {
	var s string
	switch v := v.(type) {
	case nil:
		return "nothing"
	case fmt.Stringer:
		s = v.String()
	case plain:
		s = string(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprintf("%T", v)
		}
		s = string(b)
	}
	const limit = 200
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return s
}

// plain is text that show prints without quotes.
type plain string
