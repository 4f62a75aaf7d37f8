package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
)

const backChannelEvent = "http://schemas.openid.net/event/backchannel-logout"

// OpenID Connect Back-Channel Logout 1.0: the checker is the app that is told.
func backChannelChecks() []Check {
	const spec = "Back-Channel Logout"
	who := signIn(secondApp(), metadataFlag("backchannel_logout_supported", true), endpoint("end_session_endpoint"),
		Need{"--backchannel-logout-uri", func(e *Env) bool { return e.told != nil }})
	judged := func(id, section, name string, rule func(e *Env, l *ending) error) Check {
		return Check{id, spec, section, name, who, func(ctx context.Context, e *Env) error {
			l, err := e.ended(ctx)
			if err != nil {
				return err
			}
			return rule(e, l)
		}}
	}
	return []Check{
		judged("backchannel-delivered", "§2.5", "when a session ends, its app is told by a form with a logout_token", func(_ *Env, l *ending) error {
			return (&Answer{Header: l.header}).wantMediaType("application/x-www-form-urlencoded")
		}),
		{"backchannel-signature", spec, "§2.4", "the logout token verifies with the published key of its kid and algorithm", who,
			func(ctx context.Context, e *Env) error {
				l, err := e.ended(ctx)
				if err != nil {
					return err
				}
				return e.wantSigned(ctx, l.token)
			}},
		judged("backchannel-alg", "§2.6", "the logout token is signed with the algorithm of the app's ID tokens", func(_ *Env, l *ending) error {
			if l.token.header["alg"] != l.id.header["alg"] {
				return unexpected("alg", l.token.header["alg"], l.id.header["alg"])
			}
			return nil
		}),
		judged("backchannel-typ", "§2.4", "the typ of the logout token, where it is there, is logout+jwt", func(_ *Env, l *ending) error {
			if typ, _ := l.token.header["typ"].(string); typ != "" && !strings.EqualFold(strings.TrimPrefix(typ, "application/"), "logout+jwt") {
				return unexpected("typ", typ, "logout+jwt")
			}
			return nil
		}),
		judged("backchannel-iss", "§2.4", "iss of the logout token is the issuer", func(e *Env, l *ending) error { return l.token.wantClaim("iss", e.Issuer) }),
		judged("backchannel-aud", "§2.4", "aud of the logout token is the app", func(e *Env, l *ending) error { return l.token.wantAudience(e.SecondWeb.ID) }),
		judged("backchannel-dates", "§2.4", "iat and exp of the logout token are whole seconds, iat now and exp later", func(e *Env, l *ending) error { return tokenDates(e, l.token) }),
		judged("backchannel-jti", "§2.4", "the logout token has a jti", func(_ *Env, l *ending) error {
			if jti, _ := l.token.claims["jti"].(string); jti == "" {
				return unexpected("jti", l.token.claims["jti"], plain("a string"))
			}
			return nil
		}),
		judged("backchannel-events", "§2.4", "events of the logout token has the one of a logout, with an object", func(_ *Env, l *ending) error {
			events, _ := l.token.claims["events"].(map[string]any)
			if _, ok := events[backChannelEvent].(map[string]any); !ok {
				return unexpected("events", l.token.claims["events"], plain("an object with "+backChannelEvent))
			}
			return nil
		}),
		judged("backchannel-subject", "§2.4", "the logout token says whose session or which one ended: sub or sid, as in the ID token", func(_ *Env, l *ending) error {
			if l.token.claims["sub"] == nil && l.token.claims["sid"] == nil {
				return unexpected("sub and sid", nil, plain("at least one of them"))
			}
			for _, name := range []string{"sub", "sid"} {
				if l.token.claims[name] != nil && l.token.claims[name] != l.id.claims[name] {
					return unexpected(name, l.token.claims[name], l.id.claims[name])
				}
			}
			return nil
		}),
		judged("backchannel-sid", "§2.1", "where sessions are named, sid is in the ID token and in the logout token", func(e *Env, l *ending) error {
			if e.metadata()["backchannel_logout_session_supported"] != true {
				return notOffered("needs backchannel_logout_session_supported true in the metadata")
			}
			if sid, _ := l.id.claims["sid"].(string); sid == "" {
				return unexpected("sid of the ID token", l.id.claims["sid"], plain("a string"))
			}
			return l.token.wantClaim("sid", fmt.Sprint(l.id.claims["sid"]))
		}),
		judged("backchannel-no-nonce", "§2.4", "the logout token has no nonce, so that it passes for no ID token", func(_ *Env, l *ending) error {
			if l.token.claims["nonce"] != nil {
				return unexpected("nonce", l.token.claims["nonce"], nil)
			}
			return nil
		}),
	}
}

// OpenID Connect Front-Channel Logout 1.0.
func frontChannelChecks() []Check {
	const spec = "Front-Channel Logout"
	who := signIn(secondApp(), metadataFlag("frontchannel_logout_supported", true), endpoint("end_session_endpoint"),
		Need{"--frontchannel-logout-uri", func(e *Env) bool { return e.FrontChannelURI != "" }})
	framed := func(id, section, name string, rule func(e *Env, l *ending, frame *url.URL, page hop) error) Check {
		return Check{id, spec, section, name, who, func(ctx context.Context, e *Env) error {
			l, err := e.endedInFrames(ctx)
			if err != nil {
				return err
			}
			for _, page := range l.hops {
				for _, frame := range page.frames() {
					if (App{RedirectURI: e.FrontChannelURI}).receives(frame) {
						return rule(e, l, frame, page)
					}
				}
			}
			return unexpected("frames of the pages", plain("none of the app's"), e.FrontChannelURI)
		}}
	}
	return []Check{
		framed("frontchannel-frame", "§2", "who signs out loads the app's page in a frame, its own query kept", func(e *Env, _ *ending, frame *url.URL, _ hop) error {
			own, err := url.Parse(e.FrontChannelURI)
			if err != nil {
				return fmt.Errorf("--frontchannel-logout-uri: %w", err)
			}
			for name := range own.Query() {
				if frame.Query().Get(name) != own.Query().Get(name) {
					return unexpected(name, frame.Query().Get(name), own.Query().Get(name))
				}
			}
			return nil
		}),
		framed("frontchannel-session", "§2", "an app that needs to know the session is told iss and sid, as in its ID token", func(e *Env, l *ending, frame *url.URL, _ hop) error {
			if e.metadata()["frontchannel_logout_session_supported"] != true {
				return notOffered("needs frontchannel_logout_session_supported true in the metadata")
			}
			if got := frame.Query().Get("iss"); got != e.Issuer {
				return unexpected("iss", got, e.Issuer)
			}
			if got := frame.Query().Get("sid"); got == "" || got != l.id.claims["sid"] {
				return unexpected("sid", got, l.id.claims["sid"])
			}
			return nil
		}),
		framed("frontchannel-loads", "§2", "the page's own policy lets the frame load", func(_ *Env, _ *ending, frame *url.URL, page hop) error {
			sources := directive(page.answer, "frame-src")
			if sources == "" {
				if sources = directive(page.answer, "child-src"); sources == "" {
					sources = directive(page.answer, "default-src")
				}
			}
			origin := frame.Scheme + "://" + frame.Host
			if sources != "" && !slices.ContainsFunc(strings.Fields(sources), func(s string) bool {
				return s == "*" || s == frame.Scheme+":" || s == origin || strings.HasPrefix(frame.String(), s) && strings.HasPrefix(s, origin)
			}) {
				return unexpected("frame-src", sources, origin)
			}
			return nil
		}),
	}
}

// frames are where the frames of a page lead.
func (h hop) frames() []*url.URL {
	root, err := html.Parse(strings.NewReader(string(h.answer.Body)))
	if err != nil || !strings.HasPrefix(h.answer.Header.Get("Content-Type"), "text/html") {
		return nil
	}
	var all []*url.URL
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "iframe" {
			if to, err := h.at.Parse(attribute(n, "src")); err == nil {
				all = append(all, to)
			}
		}
	}
	return all
}

// An ending is a session of the second app's that has ended, and what was told of it.
type ending struct {
	id     token       // ID token of the session
	hops   []hop       // the pages of signing out
	header http.Header // of the back-channel request
	token  token       // logout token
}

// endedInFrames has a person sign in to the second app, in a browser of their
// own, and sign out. It is done once.
func (e *Env) endedInFrames(ctx context.Context) (*ending, error) {
	if e.over == nil && e.notOver == nil {
		e.over, e.notOver = e.end(ctx)
	}
	return e.over, e.notOver
}

func (e *Env) end(ctx context.Context) (*ending, error) {
	b, err := e.newBrowser()
	if err != nil {
		return nil, err
	}
	f, err := b.authorize(ctx, e.SecondWeb)
	if err != nil {
		return nil, err
	}
	t, err := f.tokens(ctx)
	if err != nil {
		return nil, err
	}
	l := &ending{}
	if l.id, err = t.idToken(); err != nil {
		return nil, err
	}
	if e.told != nil {
		e.told.forget()
	}
	out, err := t.logout(ctx, http.MethodGet)
	if err != nil {
		return nil, err
	}
	l.hops = out.hops
	return l, nil
}

// ended is endedInFrames, with what the back channel brought.
func (e *Env) ended(ctx context.Context) (*ending, error) {
	l, err := e.endedInFrames(ctx)
	if err != nil || l.header != nil {
		return l, err
	}
	if e.untold == nil {
		e.untold = l.await(ctx, e.told)
	}
	return l, e.untold
}

// await reads what the back channel brings.
func (l *ending) await(ctx context.Context, told *receiver) error {
	d, err := told.next(ctx)
	if err != nil {
		return err
	}
	form, err := url.ParseQuery(string(d.body))
	if err != nil || form.Get("logout_token") == "" {
		return errors.New("the request of the back channel has no logout_token")
	}
	if l.token, err = parseJWT("logout token", form.Get("logout_token")); err != nil {
		return err
	}
	l.header = d.header
	return nil
}

// A receiver is the app's end of the back channel.
type receiver struct {
	came   chan delivery
	server *http.Server
}

type delivery struct {
	header http.Header
	body   []byte
}

// backChannelWait is how long the issuer may take to tell of a logout.
const backChannelWait = 20 * time.Second

// listen waits for what is posted to the address.
func listen(address string) (*receiver, net.Addr, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("back channel: %w", err)
	}
	r := &receiver{came: make(chan delivery, 64)}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }() // ends with close
	return r, l.Addr(), nil
}

func (r *receiver) close() { _ = r.server.Close() }

// ServeHTTP takes what the issuer says, and answers as an app does (§2.8).
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 64<<10))
	if err != nil || req.Method != http.MethodPost {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case r.came <- delivery{req.Header, body}:
	default: // nobody is reading: this is told too often
	}
}

// forget drops what came before.
func (r *receiver) forget() {
	for {
		select {
		case <-r.came:
		default:
			return
		}
	}
}

// next waits for what comes next.
func (r *receiver) next(ctx context.Context) (delivery, error) {
	select {
	case d := <-r.came:
		return d, nil
	case <-time.After(backChannelWait):
		return delivery{}, fmt.Errorf("nothing came to --backchannel-logout-uri within %s", backChannelWait)
	case <-ctx.Done():
		return delivery{}, fmt.Errorf("waiting for the back channel: %w", ctx.Err())
	}
}
