package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A target is the issuer under load and what to ask it with.
type target struct {
	issuer           string
	clientID, secret string
	resource, scope  string
	redirectURI      string
	user, password   string

	idTokenAlg string   // seen in an answer, or ""
	host       string   // as requests name it
	address    string   // as connections reach it
	replicas   []string // addresses that answer in its stead
	discovery  string   // path of the OpenID configuration
}

// locate finds the address of the issuer, which must be a loopback address:
// load is for one's own machine.
func (t *target) locate() error {
	u, err := url.Parse(t.issuer)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("want http://HOST:PORT on a loopback address")
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	ips, err := net.LookupIP(u.Hostname())
	if err != nil {
		return fmt.Errorf("%s: %w", u.Hostname(), err)
	}
	for _, ip := range ips {
		if !ip.IsLoopback() {
			return fmt.Errorf("%s is not a loopback address: load is for this machine only", ip)
		}
	}
	for _, replica := range t.replicas {
		if host, _, err := net.SplitHostPort(replica); err != nil || !net.ParseIP(host).IsLoopback() {
			return fmt.Errorf("replica %s: want HOST:PORT of a loopback address, in numbers", replica)
		}
	}
	t.host, t.discovery = u.Host, strings.TrimSuffix(u.Path, "/")+"/.well-known/openid-configuration"
	if len(t.replicas) > 0 { // nothing need answer at the issuer itself
		t.address = t.replicas[0]
		return nil
	}
	t.address = net.JoinHostPort(ips[0].String(), port)
	for _, ip := range ips[1:] {
		// localhost may be two addresses, with the server on the second.
		if c, err := net.DialTimeout("tcp", t.address, time.Second); err == nil {
			return c.Close()
		}
		t.address = net.JoinHostPort(ip.String(), port)
	}
	return nil
}

// addressOf is where the i-th worker's requests go.
func (t *target) addressOf(i int) string {
	if len(t.replicas) == 0 {
		return t.address
	}
	return t.replicas[i%len(t.replicas)]
}

// path reads one endpoint of the metadata, which must be at the issuer's host.
func (t *target) path(member string) (string, error) {
	body, err := t.fetch(t.get(t.discovery))
	if err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	var metadata map[string]any
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	s, _ := metadata[member].(string)
	u, err := url.Parse(s)
	if err != nil || s == "" {
		return "", fmt.Errorf("metadata: no %s", member)
	}
	if u.Host != t.host {
		return "", fmt.Errorf("%s is at %s, another host than the issuer's", member, u.Host)
	}
	return u.RequestURI(), nil
}

// fetch sends one request over a connection of its own and wants status 200.
func (t *target) fetch(request []byte) ([]byte, error) {
	c := &conn{address: t.address}
	defer c.close()
	status, body, err := c.do(request, time.Now())
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d", status)
	}
	return body, nil
}

// get makes the bytes of a request.
func (t *target) get(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, t.host)
}

// post makes the bytes of a form request as the client (RFC 6749 §2.3.1).
func (t *target) post(path string, form url.Values) []byte {
	body := form.Encode()
	credentials := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(t.clientID) + ":" + url.QueryEscape(t.secret)))
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		path, t.host, credentials, len(body), body)
}

// tokenRequest makes a client credentials request.
func (t *target) tokenRequest() ([]byte, error) {
	path, err := t.path("token_endpoint")
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if t.resource != "" {
		form.Set("resource", t.resource)
	}
	if t.scope != "" {
		form.Set("scope", t.scope)
	}
	return t.post(path, form), nil
}

// tokens gets some access tokens.
func (t *target) tokens(ctx context.Context, n int) ([]string, error) {
	request, err := t.tokenRequest()
	if err != nil {
		return nil, err
	}
	tokens := make([]string, n)
	for i := range tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		body, err := t.fetch(request)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
			return nil, errors.New("token: the answer has no access_token")
		}
		tokens[i] = answer.AccessToken
	}
	return tokens, nil
}
