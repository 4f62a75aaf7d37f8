package breakage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What a request is for, by the metadata member that names its address.
const (
	openidConfiguration = "openid-configuration"
	oauthMetadata       = "oauth-authorization-server"
	jwks                = "jwks_uri"
	tokenEndpoint       = "token_endpoint"
	introspection       = "introspection_endpoint"
	revocation          = "revocation_endpoint"
	userinfo            = "userinfo_endpoint"
	authorization       = "authorization_endpoint"
	endSession          = "end_session_endpoint"
	pushed              = "pushed_authorization_request_endpoint"
	registrations       = "registration_endpoint"
	management          = "registration_client_uri"  // below the former
	backChannel         = "backchannel_logout_uri"   // of an app
	protected           = "resource"                 // of a host that is not the issuer's
	resourceMetadata    = "oauth-protected-resource" // there
)

// maxBody bounds what is read of a request or an answer, in bytes.
const maxBody = 1 << 20

// A Proxy breaks one rule of the issuer behind it. It serves any number of
// callers, but its memory of tokens only grows: it is made for one run.
type Proxy struct {
	upstream *url.URL
	resource *url.URL // a protected resource's; its host is "" where there is none
	issuer   string
	purpose  map[string]string // by path
	client   *http.Client
	handle   func(*call) *reply
	signer   *signer

	mu     sync.Mutex
	issued map[string]string // the client of each token the issuer gave out
	forged map[string]forged // by the altered token
	seen   map[string]bool   // whatever a breakage remembers between requests
	kept   map[string]string
	asked  map[string]url.Values // authorization requests, by their state
	codes  map[string]url.Values // and by the code that came of them
	newest url.Values
}

// New makes a proxy that breaks the rule with that id, between its callers and
// the issuer at upstream, whose metadata it reads. Callers keep using the
// issuer's own name and only connect to the proxy (--connect-to), so the issuer
// must speak plain http. So it is with a protected resource, whose address is
// "" where there is none.
func New(ctx context.Context, upstream, resource, id string) (*Proxy, error) {
	b, ok := find(id)
	if !ok {
		return nil, fmt.Errorf("no breakage is called %q", id)
	}
	u, err := url.Parse(upstream)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("upstream: want an http URL")
	}
	api, err := url.Parse(resource)
	if err != nil || resource != "" && (api.Scheme != "http" || api.Host == "") {
		return nil, errors.New("resource: want an http URL")
	}
	s, err := newSigner()
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		upstream: u,
		resource: api,
		issuer:   upstream,
		client: &http.Client{
			Timeout:       15 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		},
		signer: s,
		issued: map[string]string{},
		forged: map[string]forged{},
		seen:   map[string]bool{},
		kept:   map[string]string{},
		asked:  map[string]url.Values{},
		codes:  map[string]url.Values{},
	}
	p.handle = func(c *call) *reply { return b.breakIt(p, c, p.remember) }
	return p, p.readMetadata(ctx)
}

// readMetadata learns which path is which endpoint.
func (p *Proxy) readMetadata(ctx context.Context) error {
	base := strings.TrimSuffix(p.upstream.Path, "/")
	p.purpose = map[string]string{
		base + "/.well-known/openid-configuration":       openidConfiguration,
		"/.well-known/oauth-authorization-server" + base: oauthMetadata,
	}
	for at := range p.purpose {
		r := p.forward(&call{ctx: ctx, method: http.MethodGet, path: at, header: http.Header{"Host": {p.upstream.Host}}})
		m, err := r.object()
		if r.status != http.StatusOK || err != nil {
			continue
		}
		for _, member := range []string{jwks, tokenEndpoint, introspection, revocation, userinfo, authorization, endSession, pushed, registrations} {
			s, _ := m[member].(string)
			if u, err := url.Parse(s); err == nil && u.Path != "" {
				p.purpose[u.Path] = member
			}
		}
	}
	if len(p.purpose) == 2 {
		return fmt.Errorf("%s: no metadata that names an endpoint", p.issuer)
	}
	return nil
}

// ServeHTTP reads the request, lets the breakage at it, and writes the answer.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the request could not be read", http.StatusBadRequest)
		return
	}
	c := &call{
		ctx: r.Context(), method: r.Method, path: r.URL.Path, query: r.URL.RawQuery,
		header: r.Header.Clone(), body: body, to: p.purpose[r.URL.Path],
	}
	c.header.Set("Host", r.Host)
	switch {
	case r.Host == p.resource.Host:
		c.to, c.at = protected, p.resource
		if strings.HasPrefix(r.URL.Path, "/.well-known/"+resourceMetadata) {
			c.to = resourceMetadata
		}
	case c.to == "" && p.purpose[path.Dir(r.URL.Path)] == registrations:
		c.to = management
	}
	if c.isForm() {
		c.form, _ = url.ParseQuery(string(body)) // what does not parse is passed on as it came
	}
	answer := p.handle(c)
	for k, v := range answer.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
	if answer.status == http.StatusNotModified || answer.status == http.StatusNoContent {
		w.Header().Del("Content-Length")
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // the caller has gone: nobody is left to tell
}

// A call is a request on its way to the issuer.
type call struct {
	ctx                 context.Context
	method, path, query string
	header              http.Header // Host among it
	form                url.Values  // of a form body; setForm changes it
	body                []byte
	to                  string   // the purpose of the path
	at                  *url.URL // whose it is, if not the issuer's
}

func (c *call) isForm() bool {
	t, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	return err == nil && t == "application/x-www-form-urlencoded"
}

// setForm replaces the body with a form.
func (c *call) setForm(form url.Values) {
	c.form, c.body = form, []byte(form.Encode())
	c.header.Set("Content-Type", "application/x-www-form-urlencoded")
}

// basic returns the client identifier of the Authorization header.
func (c *call) basic() (id string, ok bool) {
	r := http.Request{Header: c.header}
	id, _, ok = r.BasicAuth()
	if u, err := url.QueryUnescape(id); err == nil {
		id = u
	}
	return id, ok
}

// client is the identifier the caller gives, by whichever method.
func (c *call) client() string {
	if id, ok := c.basic(); ok {
		return id
	}
	return c.form.Get("client_id")
}

// A reply is the answer on its way back.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r *reply) object() (map[string]any, error) { return decodeObject(r.body) }

// setObject replaces the body. Members come from JSON, so they go back into it.
func (r *reply) setObject(m map[string]any) {
	b, err := json.Marshal(m)
	if err != nil {
		b = []byte(`{}`)
	}
	r.body = b
}

func decodeObject(b []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, errors.New("not a JSON object")
	}
	return m, nil
}

// jsonReply makes an answer of the proxy's own.
func jsonReply(status int, m map[string]any) *reply {
	r := &reply{status: status, header: http.Header{
		"Content-Type":                {"application/json"},
		"Cache-Control":               {"no-store"},
		"Access-Control-Allow-Origin": {"*"},
	}}
	r.setObject(m)
	return r
}

// forward asks the issuer. A fault of the transport becomes a 502.
func (p *Proxy) forward(c *call) *reply {
	at := p.upstream
	if c.at != nil {
		at = c.at
	}
	u := &url.URL{Scheme: at.Scheme, Host: at.Host, Path: c.path, RawQuery: c.query}
	req, err := http.NewRequestWithContext(c.ctx, c.method, u.String(), bytes.NewReader(c.body))
	if err != nil {
		return jsonReply(http.StatusBadGateway, map[string]any{"error": "server_error"})
	}
	req.Header = c.header.Clone()
	req.Host = req.Header.Get("Host")
	for _, hop := range []string{"Host", "Connection", "Content-Length"} {
		req.Header.Del(hop)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return jsonReply(http.StatusBadGateway, map[string]any{"error": "server_error"})
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return jsonReply(http.StatusBadGateway, map[string]any{"error": "server_error"})
	}
	header := resp.Header.Clone()
	header.Del("Connection")
	return &reply{resp.StatusCode, header, body}
}

// remember forwards, and notes what the issuer gave to whom.
func (p *Proxy) remember(c *call) *reply {
	r := p.forward(c)
	p.rememberFlow(c, r)
	m, err := r.object()
	if c.to != tokenEndpoint || r.status != http.StatusOK || err != nil {
		return r
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range []string{"access_token", "refresh_token", "id_token"} {
		if t, ok := m[name].(string); ok {
			p.issued[t] = c.client()
		}
	}
	return r
}

// owner is the client a token was issued to, if the issuer gave it out.
func (p *Proxy) owner(tok string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.issued[tok]
	return id, ok
}

// resembling finds an issued token that differs at most in its signature.
func (p *Proxy) resembling(tok string) (string, bool) {
	signed := tok[:strings.LastIndexByte(tok, '.')+1]
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.issued {
		if signed != "" && strings.HasPrefix(t, signed) {
			return t, true
		}
	}
	return "", false
}

// note remembers a key, and reports whether it is new.
func (p *Proxy) note(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.seen[key]
	p.seen[key] = true
	return !known
}

func (p *Proxy) noted(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[key]
}
