package provider

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestOutboundRefusesPrivateAddresses(t *testing.T) {
	o := NewOutbound(nil)
	for _, address := range []string{
		"127.0.0.1:443", "[::1]:443", "10.1.2.3:443", "172.16.0.1:443", "192.168.1.1:443",
		"169.254.169.254:443", "100.64.0.1:443", "0.0.0.0:443", "[::]:443", "224.0.0.1:443",
		"255.255.255.255:443", "[::ffff:127.0.0.1]:443", "[fe80::1]:443", "[fc00::1]:443",
		"[64:ff9b::7f00:1]:443", "[2002:7f00:1::]:443", "[fd00:ec2::254]:443", "192.0.0.170:443",
		"100.100.100.200:443", "168.63.129.16:443", "192.0.0.192:443", "[::ffff:10.0.0.1]:443", "[::ffff:169.254.169.254]:443", "[64:ff9b:1::a00:1]:443", "[2001:0:7f00:1::]:443", "[fe80::1%eth0]:443",
		"198.18.0.1:443", "192.88.99.1:443", "[::127.0.0.1]:443", "[::ffff:0:127.0.0.1]:443", "[fec0::1]:443", "[3fff::1]:443", "[5f00::1]:443", "93.184.215.14:80", "93.184.215.14:22",
	} {
		if err := o.checkDial("tcp", address, nil); err == nil {
			t.Errorf("dialling %s is allowed", address)
		}
	}
	for _, address := range []string{"93.184.215.14:443", "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443"} {
		if err := o.checkDial("tcp", address, nil); err != nil {
			t.Errorf("dialling %s: %v", address, err)
		}
	}
}

func TestOutboundGet(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			_, _ = w.Write([]byte("fine"))
		case "/large":
			_, _ = w.Write(make([]byte, outboundLimit+1))
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, tc := range []struct {
		name, url string
		allow     []netip.Prefix
		want      string // "" for success, or a word of the error
	}{
		{"allowed network", srv.URL + "/ok", loopback, ""},
		{"loopback by default", strings.Replace(srv.URL, "http:", "https:", 1) + "/ok", nil, "not allowed"},
		{"plain http to a name", strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) + "/ok", loopback, "want https"},
		{"a name that resolves to loopback", "https://localhost/ok", nil, "not a public address"},
		{"too large", srv.URL + "/large", loopback, "more than"},
		{"redirect", srv.URL + "/redirect", loopback, "status 302"},
		{"missing", srv.URL + "/nowhere", loopback, "status 404"},
		{"file", "file:///etc/passwd", loopback, "want https"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body, err := NewOutbound(tc.allow).Get(context.Background(), tc.url)
			if tc.want == "" {
				if err != nil || string(body) != "fine" {
					t.Fatalf("got %q, %v", body, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v, want one about %q", err, tc.want)
			}
		})
	}
}

// nameServer answers queries for addresses: the first one for a name with the
// first of its answers, and so on; the last one stays.
func nameServer(t *testing.T, answers map[string][][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var mu sync.Mutex
	asked := make(map[string]int)
	reply := func(q dnsmessage.Message) []byte {
		mu.Lock()
		defer mu.Unlock()
		question := q.Questions[0]
		name := strings.TrimSuffix(question.Name.String(), ".")
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, Authoritative: true}, Questions: q.Questions}
		turn := asked[name+question.Type.String()]
		asked[name+question.Type.String()]++
		if known := answers[name]; len(known) > 0 {
			for _, text := range known[min(turn, len(known)-1)] {
				header := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: dnsmessage.ClassINET}
				switch addr := netip.MustParseAddr(text); {
				case addr.Is4() && question.Type == dnsmessage.TypeA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
				case addr.Is6() && question.Type == dnsmessage.TypeAAAA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
				}
			}
		} else {
			m.RCode = dnsmessage.RCodeNameError
		}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buffer[:n]) == nil && len(q.Questions) == 1 {
				_, _ = conn.WriteTo(reply(q), from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

var errNotDialled = errors.New("the test dials nobody")

// N3, N4: it is the address that is dialled which is judged, whatever a name
// meant before, and of several only the public ones.
func TestOutboundJudgesWhatItDials(t *testing.T) {
	const public = "93.184.215.14"
	var vetted []string
	o := NewOutbound(nil)
	o.dialer.Resolver = nameServer(t, map[string][][]string{
		"rebinding.example": {{public}, {"127.0.0.1"}},
		"mixed.example":     {{"10.0.0.1", "127.0.0.1"}},
		"loopback.example":  {{"127.0.0.1", "::1"}},
		"metadata.example":  {{"169.254.169.254"}},
		"mapped.example":    {{"::ffff:10.0.0.1"}},
		"nat64.example":     {{"64:ff9b::7f00:1"}},
		"ula.example":       {{"fd00::1"}},
		"cgnat.example":     {{"100.64.0.1"}},
	})
	var mu sync.Mutex
	o.dialer.Control = func(network, address string, conn syscall.RawConn) error {
		if err := o.checkDial(network, address, conn); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		vetted = append(vetted, address)
		return errNotDialled
	}
	get := func(host string) error {
		_, err := o.Get(t.Context(), "https://"+host+"/x")
		return err
	}
	if err := get("rebinding.example"); !errors.Is(err, errNotDialled) || !slices.Equal(vetted, []string{public + ":443"}) {
		t.Fatalf("first %v, dialled %v", err, vetted)
	}
	for _, host := range []string{"rebinding.example", "mixed.example", "loopback.example", "metadata.example", "mapped.example", "nat64.example", "ula.example", "cgnat.example"} {
		if err := get(host); err == nil || !strings.Contains(err.Error(), "not a public address") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := get("rebinding.example:8443"); err == nil || errors.Is(err, errNotDialled) {
		t.Errorf("another port: %v", err)
	}
	if len(vetted) != 1 {
		t.Errorf("dialled %v", vetted)
	}
}

// N3: nobody keeps a fetch going, neither before the answer nor within it.
func TestOutboundGivesUp(t *testing.T) {
	if limit := NewOutbound(nil).client.Timeout; limit <= 0 || limit > 5*time.Second {
		t.Errorf("the limit is %s", limit)
	}
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.URL.Path == "/drip" {
			if _, err := w.Write([]byte("x")); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-ended:
				return
			case <-time.After(time.Millisecond):
			}
		}
		<-ended
	}))
	defer srv.Close()
	defer close(ended)
	for _, path := range []string{"/silent", "/drip"} {
		o := NewOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
		o.client.Timeout = 50 * time.Millisecond
		if _, err := o.Get(t.Context(), srv.URL+path); err == nil || !strings.Contains(err.Error(), "Client.Timeout") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
