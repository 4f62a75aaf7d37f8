package proof

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// collector takes traces as an OpenTelemetry collector does, over OTLP/HTTP.
type collector struct {
	t      *testing.T
	url    string
	status int // that it answers with

	mu    sync.Mutex
	raw   bytes.Buffer // all that came, as it came
	spans []*tracepb.Span
	posts int
}

func newCollector(t *testing.T, status int) *collector {
	c := &collector{t: t, status: status}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var batch collected.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &batch)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.posts++
		c.raw.Write(body)
		for _, resource := range batch.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
		w.WriteHeader(c.status)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// has returns the spans that suit, waiting for the first.
func (c *collector) has(what string, suits func(*tracepb.Span) bool) []*tracepb.Span {
	c.t.Helper()
	var found []*tracepb.Span
	until(c.t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.spans {
			if suits(s) {
				found = append(found, s)
			}
		}
		return len(found) > 0
	})
	return found
}

func named(name string) func(*tracepb.Span) bool {
	return func(s *tracepb.Span) bool { return s.GetName() == name }
}

func inTrace(id, name string) func(*tracepb.Span) bool {
	return func(s *tracepb.Span) bool { return s.GetName() == name && hex.EncodeToString(s.GetTraceId()) == id }
}

// within returns a span of one name that is part of one of the other, waiting
// until both are there.
func (c *collector) within(name, whole string) *tracepb.Span {
	c.t.Helper()
	return c.has(name+" within "+whole, func(s *tracepb.Span) bool {
		return s.GetName() == name && slices.ContainsFunc(c.spans, func(parent *tracepb.Span) bool {
			return parent.GetName() == whole && bytes.Equal(parent.GetSpanId(), s.GetParentSpanId())
		})
	})[0]
}

// text returns a span's attribute as text, "" when it has none.
func text(s *tracepb.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			if v := a.GetValue().GetStringValue(); v != "" {
				return v
			}
			return strings.Trim(a.GetValue().String(), ` `)
		}
	}
	return ""
}

// eavesdropper notes every value that goes over the wire and might be somebody's.
type eavesdropper struct {
	via    http.RoundTripper
	mu     sync.Mutex
	values map[string]bool
}

// RoundTrip implements http.RoundTripper.
func (e *eavesdropper) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(sent))
	form, _ := url.ParseQuery(string(sent))
	e.note(form)
	e.note(r.URL.Query())
	e.note(r.Header)
	res, err := e.via.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	for _, c := range res.Cookies() {
		e.note(url.Values{"": {c.Value}})
	}
	if to, err := res.Location(); err == nil {
		e.note(to.Query())
	}
	var members map[string]any
	_ = json.Unmarshal(body, &members)
	for _, v := range members {
		if s, ok := v.(string); ok {
			e.note(url.Values{"": {s}})
		}
	}
	return res, nil
}

func (e *eavesdropper) note(values map[string][]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, list := range values {
		for _, v := range list {
			e.values[v] = true
			e.values[strings.TrimPrefix(v, "Basic ")] = true
		}
	}
}

// A trace tells where the time of a request went, and nothing about anybody.
func TestTraces(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *deployment) {
		c := newCollector(t, http.StatusOK)
		tracing := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url, "OTEL_BSP_SCHEDULE_DELAY=100"}
		servers := d.start(d.replicas(), tracing...)
		ear := &eavesdropper{via: d.to(nil), values: make(map[string]bool)}
		shop, ada := d.app("harbour-shop", "--grant", "client_credentials"), d.person("ada-of-the-harbour")
		shop.Via = ear
		b := &browser{people.NewBrowser(d.issuer, ada, ear), d}
		must(t, b.SignIn())
		tokens := shop.redeem(b.code(shop, "state", "state-of-the-app", "nonce", "nonce-of-the-app"))
		next := shop.refresh(tokens.Member("refresh_token"))
		if next.Status != http.StatusOK || !shop.active(next.Member("access_token")) {
			t.Fatalf("%s", next)
		}
		me, err := people.Send(ear, http.MethodGet, d.issuer+"/userinfo", nil, "Authorization", "Bearer "+next.Member("access_token"))
		must(t, err)
		shop.answer(shop.Post("/revoke", url.Values{"token": {next.Member("refresh_token")}}))
		shop.answer(shop.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}}))
		wrong := *shop.App
		wrong.Secret = "sgs_not-the-secret-of-the-shop"
		if r, err := wrong.Post("/token", url.Values{"grant_type": {"client_credentials"}}); err != nil || r.Status != http.StatusUnauthorized {
			t.Fatalf("%s, %v", r, err)
		}

		// The proxies of this deployment are trusted: theirs is the trace.
		const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		told := "00-" + trace + "-" + parent + "-01"
		r, err := people.Send(d.to(nil), http.MethodPost, d.issuer+"/token", url.Values{"grant_type": {"authorization_code"}, "code": {"sgc_nothing"}},
			"Traceparent", told, "Baggage", "user=somebody-in-baggage")
		must(t, err)
		request := c.has("the request in its proxy's trace", inTrace(trace, "POST /token"))[0]
		if hex.EncodeToString(request.GetParentSpanId()) != parent || text(request, "http.route") != "/token" {
			t.Errorf("%v", request)
		}
		requestID := r.Header.Get("X-Request-Id")
		if requestID == "" || text(request, "signet.request_id") != requestID {
			t.Errorf("request id %q: %v", requestID, request)
		}
		lines := 0
		for _, log := range d.logs() {
			for line := range strings.Lines(log) {
				if strings.Contains(line, requestID) {
					lines++
					if !strings.Contains(line, `"trace_id":"`+trace+`"`) {
						t.Errorf("a line of the request without its trace: %s", line)
					}
				}
			}
		}
		if lines != 2 { // the refusal's cause, and the request
			t.Errorf("%d lines of the log for one refused request", lines)
		}

		// A code's exchange is an update of its own in the request's trace, and its
		// statements are parts of that.
		c.within("update", "POST /token")
		if statement := c.within("UPDATE grants", "update"); !strings.Contains(text(statement, "db.query.text"), "$1") {
			t.Errorf("%v", statement)
		}
		for _, job := range []string{"keys", "revocations"} {
			if root := c.has("the job "+job, named(job))[0]; len(root.GetParentSpanId()) != 0 {
				t.Errorf("%v", root)
			}
		}

		// What nobody asked for on behalf of somebody is not in there.
		for _, path := range []string{"/livez", "/readyz", "/jwks", "/.well-known/openid-configuration"} {
			_, err := people.Send(d.to(nil), http.MethodGet, d.issuer+path, nil)
			must(t, err)
		}

		// A stranger's trace is linked to, and decides nothing: this one says that
		// it is not to be recorded.
		for _, s := range servers {
			s.end(syscall.SIGINT) // which sends what is left
		}
		d.args = d.args[:len(d.args)-2] // no proxy is trusted any more
		d.start(1, tracing...)
		const stranger = "0af7651916cd43dd8448eb211c80319c"
		_, err = people.Send(d.to(nil), http.MethodPost, d.issuer+"/token", url.Values{}, "Traceparent", "00-"+stranger+"-b7ad6b7169203331-00")
		must(t, err)
		linked := c.has("a request with a link", func(s *tracepb.Span) bool { return len(s.GetLinks()) > 0 })[0]
		if got := hex.EncodeToString(linked.GetLinks()[0].GetTraceId()); got != stranger || len(linked.GetParentSpanId()) != 0 ||
			hex.EncodeToString(linked.GetTraceId()) == stranger {
			t.Errorf("%v", linked)
		}

		c.mu.Lock()
		defer c.mu.Unlock()
		known := []string{"http.request.method", "http.route", "http.response.status_code", "signet.request_id",
			"db.system.name", "db.query.summary", "db.query.text", "error.type", "signet.entries"}
		for _, s := range c.spans {
			for _, a := range s.GetAttributes() {
				if !slices.Contains(known, a.GetKey()) {
					t.Errorf("%s has the attribute %s", s.GetName(), a)
				}
			}
			if s.GetStatus().GetMessage() != "" || len(s.GetEvents()) > 0 || s.GetTraceState() != "" {
				t.Errorf("%s says more than how it went: %v", s.GetName(), s)
			}
			for _, quiet := range []string{"livez", "readyz", "jwks", "well-known"} {
				if strings.Contains(s.GetName(), quiet) {
					t.Errorf("a trace of %s", s.GetName())
				}
			}
		}
		secrets := slices.Collect(maps.Keys(ear.values))
		secrets = append(secrets, ada.Name, ada.Password, me.Member("sub"), ada.Name+"@people.example", shop.Secret, shop.Verifier, "somebody-in-baggage")
		searched := 0
		for _, secret := range secrets {
			// Shorter ones, and names of the protocol, are in any text.
			if len(secret) < 8 || slices.Contains([]string{"authorization_code", "refresh_token", "client_credentials"}, secret) {
				continue
			}
			searched++
			if bytes.Contains(c.raw.Bytes(), []byte(secret)) {
				t.Errorf("the traces hold %q", secret)
			}
		}
		if searched < 30 || me.Member("sub") == "" {
			t.Errorf("only %d secrets went over the wire; userinfo: %s", searched, me)
		}
	})
}

// Who cannot send traces serves all the same, and says so once.
func TestTracesLost(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onSQLite)
	c := newCollector(t, http.StatusBadRequest)
	s := d.start(1, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_BSP_SCHEDULE_DELAY=50")[0]
	for posts := 0; posts < 3; {
		r, err := people.Send(d.to(s), http.MethodPost, d.issuer+"/token", url.Values{})
		if err != nil || r.Status != http.StatusBadRequest {
			t.Fatalf("%s, %v", r, err)
		}
		until(t, "a batch", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			defer func() { posts = c.posts }()
			return c.posts > posts
		})
	}
	s.end(syscall.SIGINT)
	log, err := os.ReadFile(s.log)
	must(t, err)
	if n := strings.Count(string(log), "traces cannot be sent"); n != 1 {
		t.Errorf("it says so %d times:\n%s", n, log)
	}
}

// Nothing asked for traces: there are none, and no line of the log names one.
func TestNoTraces(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onSQLite)
	s := d.start(1)[0]
	r, err := people.Send(d.to(s), http.MethodPost, d.issuer+"/token", url.Values{}, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	must(t, err)
	log, err := os.ReadFile(s.log)
	must(t, err)
	if !strings.Contains(string(log), r.Header.Get("X-Request-Id")) || strings.Contains(string(log), "trace_id") {
		t.Errorf("%s", log)
	}
}
