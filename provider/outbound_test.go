package provider

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestOutboundRefusesPrivateAddresses(t *testing.T) {
	o := NewOutbound(nil)
	for _, address := range []string{
		"127.0.0.1:443", "[::1]:443", "10.1.2.3:443", "172.16.0.1:443", "192.168.1.1:443",
		"169.254.169.254:443", "100.64.0.1:443", "0.0.0.0:443", "[::]:443", "224.0.0.1:443",
		"255.255.255.255:443", "[::ffff:127.0.0.1]:443", "[fe80::1]:443", "[fc00::1]:443",
		"[64:ff9b::7f00:1]:443", "[2002:7f00:1::]:443", "[fd00:ec2::254]:443", "192.0.0.170:443",
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
