package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const (
	outboundTimeout = 4 * time.Second // who waits for it has an end as well, see Policy.RequestTimeout
	outboundLimit   = 64 << 10
)

// Outbound fetches documents whose URL somebody else chose. It connects to
// public addresses on port 443 only, unless the operator allowed a network,
// checks the address it really dials (a name may resolve differently the
// second time), follows no redirect, and bounds time and size.
type Outbound struct {
	client *http.Client
	dialer *net.Dialer
	allow  []netip.Prefix
	tracer trace.Tracer
	// How fetches ended.
	fetched, failed *atomic.Int64
}

// NewOutbound returns a fetcher that may also reach the allowed networks,
// over plain http too.
func NewOutbound(allow []netip.Prefix) *Outbound {
	o := &Outbound{allow: allow, tracer: noop.Tracer{}, fetched: new(atomic.Int64), failed: new(atomic.Int64)}
	o.dialer = &net.Dialer{Timeout: outboundTimeout, Control: o.checkDial}
	o.client = &http.Client{
		Timeout: outboundTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
		Transport: &http.Transport{
			DialContext:            o.dialer.DialContext,
			TLSHandshakeTimeout:    outboundTimeout,
			MaxIdleConns:           10,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
		},
	}
	return o
}

// traced returns the same fetcher, whose fetches are part of traces.
func (o *Outbound) traced(t trace.Tracer) *Outbound {
	traced := *o
	traced.tracer = t
	return &traced
}

// public returns the same fetcher without the networks that the operator
// allowed: those are for what the operator registered.
func (o *Outbound) public() *Outbound {
	public := NewOutbound(nil)
	public.tracer, public.fetched, public.failed = o.tracer, o.fetched, o.failed
	return public
}

// loopback returns the same fetcher for what is public or on this machine.
func (o *Outbound) loopback() *Outbound {
	local := NewOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")})
	local.tracer, local.fetched, local.failed = o.tracer, o.fetched, o.failed
	return local
}

// outboundFor returns what fetches from where the client says.
func (p *Provider) outboundFor(c *client) *Outbound {
	switch c.Origin {
	case originRegistration:
		return p.public
	case originDocument:
		return p.documents.outbound
	}
	return p.outbound
}

// notPublic lists networks that are not the public internet beyond what
// netip.Addr's own predicates know (RFC 6890, RFC 6052, RFC 6598).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's virtual machines know their host by it
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"),
}

func (o *Outbound) checkDial(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("outbound address %q: %w", address, err)
	}
	addr := ap.Addr().Unmap()
	if o.allowed(addr) {
		return nil
	}
	if ap.Port() != 443 {
		return fmt.Errorf("outbound to port %d is not allowed: it is not 443 (see --outbound-allow)", ap.Port())
	}
	// Of IPv6, 2000::/3 is all that was ever given out (RFC 4291 §2.4).
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.Is6() && addr.As16()[0]>>5 != 1 {
		return fmt.Errorf("outbound to %s is not allowed: not a public address (see --outbound-allow)", addr)
	}
	for _, p := range notPublic {
		if p.Contains(addr) {
			return fmt.Errorf("outbound to %s is not allowed: not a public address (see --outbound-allow)", addr)
		}
	}
	return nil
}

func (o *Outbound) allowed(addr netip.Addr) bool {
	for _, p := range o.allow {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Get returns the body of a 200 answer of at most 64 KiB. The other side is not
// told of the trace this may be part of.
func (o *Outbound) Get(ctx context.Context, target string) ([]byte, error) {
	body, _, err := o.fetch(ctx, target, "", outboundLimit)
	return body, err
}

// fetch returns body and header of a 200 answer of at most limit bytes. accept
// is the media type asked for, or "".
func (o *Outbound) fetch(ctx context.Context, target, accept string, limit int64) ([]byte, http.Header, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, nil, fmt.Errorf("outbound URL: %w", err)
	}
	ctx, span := o.tracer.Start(ctx, "fetch", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", http.MethodGet), attribute.String("server.address", u.Hostname())))
	defer span.End()
	body, header, err := o.get(ctx, u, accept, limit)
	if err != nil {
		o.failed.Add(1)
		span.SetStatus(codes.Error, "")
		return nil, nil, err
	}
	o.fetched.Add(1)
	return body, header, nil
}

// checkScheme wants https. Plain http is only for an address the operator allowed
// by number.
func (o *Outbound) checkScheme(u *url.URL) error {
	if u.Scheme == "https" {
		return nil
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "http" || err != nil || !o.allowed(addr.Unmap()) {
		return errors.New("outbound URL: want https")
	}
	return nil
}

func (o *Outbound) get(ctx context.Context, u *url.URL, accept string, limit int64) ([]byte, http.Header, error) {
	if err := o.checkScheme(u); err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("outbound request: %w", err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, err := o.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("outbound fetch: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("outbound fetch: status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("outbound fetch: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("outbound fetch: more than %d bytes", limit)
	}
	return body, res.Header, nil
}

// PostForm sends a form and returns nil for an answer of 200 or 204, whose body
// does not matter. It is bound by the rules of Get.
func (o *Outbound) PostForm(ctx context.Context, target string, form url.Values) error {
	u, err := url.Parse(target)
	if err != nil {
		return errors.New("outbound URL: is not one")
	}
	ctx, span := o.tracer.Start(ctx, "post", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", http.MethodPost), attribute.String("server.address", u.Hostname())))
	defer span.End()
	if err := o.post(ctx, u, form); err != nil {
		span.SetStatus(codes.Error, "")
		return err
	}
	return nil
}

func (o *Outbound) post(ctx context.Context, u *url.URL, form url.Values) error {
	if err := o.checkScheme(u); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("outbound request: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := o.client.Do(req)
	if err != nil {
		var whole *url.Error
		if errors.As(err, &whole) { // without the URL, whose query may be nobody's business
			err = whole.Err
		}
		return fmt.Errorf("outbound post: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, outboundLimit)) // so that the connection can be used again
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("outbound post: status %d", res.StatusCode)
	}
	return nil
}
