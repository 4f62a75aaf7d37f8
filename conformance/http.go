package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// newHTTPClient makes the client the checks call the issuer with. It follows no
// redirect and uses no proxy from the environment. Connections meant for a host
// and port in connectTo go to the address there instead, so that a proxy can
// stand in the way without changing the issuer's name.
func newHTTPClient(connectTo map[string]string) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Client{
		Timeout:       15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if to := connectTo[addr]; to != "" {
					addr = to
				}
				return dialer.DialContext(ctx, network, addr)
			},
			DisableCompression:     true,
			MaxIdleConnsPerHost:    4,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// An Answer is a response, read whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// String tells status and OAuth error code; never the body, which may hold a token.
func (a *Answer) String() string {
	s := fmt.Sprintf("status %d", a.Status)
	if m, err := a.object(); err == nil {
		if code, ok := m["error"].(string); ok {
			return fmt.Sprintf("%s with error %q", s, code)
		}
		if _, ok := m["access_token"]; ok {
			return s + " with an access token"
		}
	}
	return s
}

// object decodes the body as one JSON object. Numbers keep their spelling.
func (a *Answer) object() (map[string]any, error) { return decodeObject(a.Body) }

func decodeObject(b []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, errors.New("not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return m, nil
}

// wantJSON checks status and media type, and decodes the body.
func (a *Answer) wantJSON(status int) (map[string]any, error) {
	if a.Status != status {
		return nil, unexpected("answer", a, plain(fmt.Sprintf("status %d", status)))
	}
	if err := a.wantMediaType("application/json"); err != nil {
		return nil, err
	}
	m, err := a.object()
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return m, nil
}

func (a *Answer) wantMediaType(allowed ...string) error {
	got, _, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(allowed, got) {
		return unexpected("Content-Type", a.Header.Get("Content-Type"), plain(strings.Join(allowed, " or ")))
	}
	return nil
}

// wantError checks an OAuth error answer: the status and one of the codes.
func (a *Answer) wantError(status int, codes ...string) error {
	m, err := a.object()
	code, _ := m["error"].(string)
	if err != nil || a.Status != status || !slices.Contains(codes, code) {
		return unexpected("answer", a, plain(fmt.Sprintf("status %d with error %s", status, strings.Join(codes, " or "))))
	}
	return nil
}

// wantRefusedClient checks that client authentication failed (RFC 6749 §5.2
// allows 400 as well as 401 where no Authorization header was sent).
func (a *Answer) wantRefusedClient() error {
	if a.Status == http.StatusBadRequest {
		return a.wantError(http.StatusBadRequest, "invalid_client")
	}
	return a.wantError(http.StatusUnauthorized, "invalid_client")
}

// hasDirective reports whether Cache-Control carries a directive, and its value.
func (a *Answer) hasDirective(name string) (string, bool) {
	for _, line := range a.Header.Values("Cache-Control") {
		for part := range strings.SplitSeq(line, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			if strings.EqualFold(k, name) {
				return strings.Trim(v, `"`), true
			}
		}
	}
	return "", false
}

func (a *Answer) wantNoStore() error {
	if _, ok := a.hasDirective("no-store"); !ok {
		return unexpected("Cache-Control", a.Header.Get("Cache-Control"), plain("no-store"))
	}
	return nil
}

// wantMethodNotAllowed checks that only POST is served. Some servers know a path
// by the method it is for, and nothing under another.
func (a *Answer) wantMethodNotAllowed() error {
	if a.Status == http.StatusNotFound {
		return nil
	}
	if a.Status != http.StatusMethodNotAllowed {
		return unexpected("answer to GET", a, plain("status 405 or 404"))
	}
	// RFC 9110 §15.5.6
	if allow := strings.Join(a.Header.Values("Allow"), ","); !strings.Contains(allow, http.MethodPost) {
		return unexpected("Allow", allow, "POST")
	}
	return nil
}

// get fetches an address with further header fields.
func (e *Env) get(ctx context.Context, address string, header http.Header) (*Answer, error) {
	return e.do(ctx, http.MethodGet, address, header, nil)
}

// post sends a form. With credentials, they go in a Basic Authorization header.
func (e *Env) post(ctx context.Context, address string, as *Credentials, form url.Values) (*Answer, error) {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	if as != nil {
		header.Set("Authorization", as.basic(url.QueryEscape))
	}
	return e.do(ctx, http.MethodPost, address, header, []byte(form.Encode()))
}

// do sends a request. An issuer that slows down the wrong guesses the checks have
// to make says for how long: that is waited for, once.
func (e *Env) do(ctx context.Context, method, address string, header http.Header, body []byte) (*Answer, error) {
	a, err := e.send(ctx, method, address, header, body)
	if err != nil || a.Status != http.StatusTooManyRequests {
		return a, err
	}
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil || seconds < 0 || seconds > 60 {
		return a, nil
	}
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
		return e.send(ctx, method, address, header, body)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: waiting as the issuer asked: %w", method, ctx.Err())
	}
}

func (e *Env) send(ctx context.Context, method, address string, header http.Header, body []byte) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := e.HTTP.Do(req)
	if err != nil {
		// *url.Error would repeat the address, and with it a query.
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: reading the answer: %w", method, req.URL.Path, err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("%s %s: the answer is over %d bytes", method, req.URL.Path, maxAnswer)
	}
	return &Answer{resp.StatusCode, resp.Header, b}, nil
}
