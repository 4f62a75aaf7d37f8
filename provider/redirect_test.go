package provider

import (
	"regexp"
	"strings"
	"testing"
)

func TestValidateRedirectURI(t *testing.T) {
	const web, native, never = "web", "native", "never"
	tests := []struct {
		name string
		uri  string
		who  string // whose it may be; a native client may have all a web client may
	}{
		{"https", "https://shop.example.com/cb", web},
		{"https with port and query", "https://shop.example.com:8443/cb?tenant=7", web},
		{"https without path", "https://shop.example.com", web},
		{"https on loopback", "https://127.0.0.1/cb", web},
		{"https on an IPv6 address", "https://[2001:db8::1]/cb", web},
		{"http on 127.0.0.1", "http://127.0.0.1/cb", native},
		{"http on 127.0.0.1 with port", "http://127.0.0.1:49152/cb", native},
		{"http on ::1", "http://[::1]/cb", native},
		{"http on localhost", "http://localhost:3000/cb", native},
		{"private-use scheme", "com.example.app:/cb", native},
		{"private-use scheme with authority", "com.example.app://cb", native},
		{"private-use scheme, opaque", "com.example.app:cb", native},

		{"empty", "", never},
		{"relative", "/cb", never},
		{"without a scheme", "shop.example.com/cb", never},
		{"https without authority", "https:/cb", never},
		{"https, opaque", "https:shop.example.com", never},
		{"https with an empty host", "https://:443/cb", never},
		{"javascript", "javascript:alert(1)", never},
		{"javascript with authority", "javascript://example.com/%0aalert(1)", never},
		{"javascript in capitals", "JavaScript:alert(1)", never},
		{"data", "data:text/html,x", never},
		{"file", "file:///etc/passwd", never},
		{"blob", "blob:https://example.com/1", never},
		{"vbscript", "vbscript:x", never},
		{"ftp", "ftp://example.com/", never},
		{"private-use scheme without a dot", "myapp:/cb", never},
		{"scheme that only ends with a dot", "http.:1/cb", never},
		{"scheme with two dots in a row", "com..app:/cb", never},
		{"private-use scheme with nothing after it", "com.example.app:", never},
		{"http", "http://shop.example.com/cb", never},
		{"http on a name that begins like loopback", "http://localhost.example.com/cb", never},
		{"http on a name that begins like 127.0.0.1", "http://127.0.0.1.example.com/cb", never},
		{"http on 127.0.0.1 in hexadecimal", "http://0x7f.1/cb", never},
		{"http on another loopback address", "http://127.0.0.2/cb", never},
		{"http on ::1 with a zone", "http://[::1%25lo]/cb", never},
		{"fragment", "https://shop.example.com/cb#x", never},
		{"empty fragment", "https://shop.example.com/cb#", never},
		{"fragment of a private-use scheme", "com.example.app:/cb#x", never},
		{"user", "https://user@shop.example.com/cb", never},
		{"user and password", "https://user:pass@shop.example.com/cb", never},
		{"user on loopback", "http://evil@127.0.0.1/cb", never},
		{"wildcard host", "https://*.example.com/cb", never},
		{"wildcard path", "https://shop.example.com/*", never},
		{"space", "https://shop.example.com/c b", never},
		{"line break", "https://shop.example.com/cb\r\nX: y", never},
		{"NUL", "https://shop.example.com/cb\x00", never},
		{"tab in the scheme", "java\tscript:alert(1)", never},
		{"leading space", " https://shop.example.com/cb", never},
		{"backslash", `https://shop.example.com\@evil.example/cb`, never},
		{"beyond ASCII", "https://bücher.example/cb", never},
		{"escape in the host", "https://shop%2eexample.com/cb", never},
		{"host in capitals", "https://Shop.example.com/cb", never},
		{"scheme in capitals", "HTTPS://shop.example.com/cb", never},
		{"port out of range", "https://shop.example.com:65536/cb", never},
		{"port 0", "http://127.0.0.1:0/cb", never},
		{"colon without a port", "https://shop.example.com:/cb", never},
		{"broken escape in the query", "https://shop.example.com/cb?a=%zz", never},
		{"too long", "https://shop.example.com/" + strings.Repeat("a", maxURI), never},
	}
	for _, parameter := range []string{"code", "state", "iss", "error", "error_description", "error_uri", "response", "access_token", "id_token", "session_state", "%63ode"} {
		tests = append(tests, struct{ name, uri, who string }{"response parameter " + parameter, "https://shop.example.com/cb?a=b&" + parameter + "=x", never})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := ValidateRedirectURI(test.uri, false); (err == nil) != (test.who == web) {
				t.Errorf("web client: %v", err)
			}
			if err := ValidateRedirectURI(test.uri, true); (err == nil) != (test.who != never) {
				t.Errorf("native client: %v", err)
			}
		})
	}
}

func FuzzValidateRedirectURI(f *testing.F) {
	for _, seed := range []string{"https://shop.example.com/cb", "http://127.0.0.1:8080/cb?x=y", "com.example.app:/cb", "javascript:alert(1)", "https://a@b/#"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if ValidateRedirectURI(uri, true) != nil {
			return
		}
		if strings.ContainsAny(uri, "#*\\ \x00\r\n\t") || len(uri) > maxURI {
			t.Errorf("%q is accepted", uri)
		}
		scheme, rest, _ := strings.Cut(uri, ":")
		switch {
		case scheme == "https" || strings.Contains(scheme, "."):
		case scheme == "http":
			host, _, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
			host, _, _ = strings.Cut(host, "?")
			if !strings.HasPrefix(host, "127.0.0.1") && !strings.HasPrefix(host, "[::1]") && !strings.HasPrefix(host, "localhost") {
				t.Errorf("%q is accepted", uri)
			}
		default:
			t.Errorf("%q is accepted", uri)
		}
	})
}

// FuzzMatchRedirectURI: an answer goes where a client is registered to the
// byte, or to another port of the same loopback address, and nowhere else.
func FuzzMatchRedirectURI(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://shop.example.com/cb", "https://shop.example.com/cb"}, {"https://shop.example.com/CB", "https://shop.example.com/cb"},
		{"http://127.0.0.1:1234/cb", "http://127.0.0.1/cb"}, {"http://127.0.0.1:1234/cb?x", "http://127.0.0.1/cb"}, {"http://127.0.0.1:99999/cb", "http://127.0.0.1/cb"},
		{"http://evil@127.0.0.1/cb", "http://127.0.0.1/cb"}, {"http://127.0.0.1:1@evil.example/cb", "http://127.0.0.1:1/cb"}, {"https://127.0.0.1:1/cb", "https://127.0.0.1/cb"},
		{"http://[::1]:1/cb", "http://[::1]/cb"}, {"http://localhost:/cb", "http://localhost/cb"}, {"http://127.1:1/cb", "http://127.0.0.1/cb"}, {"http://LOCALHOST/cb", "http://localhost/cb"},
		{"com.example.app:/cb", "com.example.app:/cb"}, {"http://127.0.0.1:1", "http://127.0.0.1"}, {"http://127.0.0.1?:1", "http://127.0.0.1?:2"}, {"http://127.0.0.1:1/:2/cb", "http://127.0.0.1/:3/cb"},
		{"", ""}, {"http://127.0.0.1:1/cb#", "http://127.0.0.1/cb#"},
	} {
		f.Add(seed[0], seed[1])
	}
	loopback := regexp.MustCompile(`^(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[0-9]+)?((?:[/?].*)?)$`)
	f.Fuzz(func(t *testing.T, requested, registered string) {
		if ValidateRedirectURI(registered, true) != nil {
			return // nobody has it
		}
		matched, ok := matchRedirectURI(requested, []string{registered})
		switch {
		case requested == registered:
			if !ok || matched != registered {
				t.Errorf("%q is not taken for itself", requested)
			}
		case ok:
			a, b := loopback.FindStringSubmatch(requested), loopback.FindStringSubmatch(registered)
			if a == nil || b == nil || a[1] != b[1] || a[2] != b[2] || ValidateRedirectURI(requested, true) != nil || matched != registered {
				t.Errorf("%q is taken for %q", requested, registered)
			}
		}
	})
}
