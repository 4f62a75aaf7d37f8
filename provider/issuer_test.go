package provider

import "testing"

func TestParseIssuer(t *testing.T) {
	for _, tc := range []struct {
		issuer string
		ok     bool
	}{
		{"https://login.example.com", true},
		{"https://login.example.com/tenant/a", true},
		{"https://login.example.com:8443", true},
		{"http://localhost:8080", true},
		{"http://127.0.0.1:8080", true},
		{"http://[::1]:8080", true},
		{"", false},
		{"login.example.com", false},
		{"http://login.example.com", false},
		{"https://login.example.com/", false},
		{"https://login.example.com/a/", false},
		{"https://login.example.com?x=1", false},
		{"https://login.example.com?", false},
		{"https://login.example.com#x", false},
		{"https://login.example.com#", false},
		{"https://user@login.example.com", false},
		{"https://Login.example.com", false},
		{"https://login.example.com/a%20b", false},
		{"https://login.example.com/a/../b", false},
		{"https://login.example.com//a", false},
		{"https:login.example.com", false},
		{"ftp://login.example.com", false},
	} {
		if _, err := ParseIssuer(tc.issuer); (err == nil) != tc.ok {
			t.Errorf("ParseIssuer(%q): %v, want ok = %v", tc.issuer, err, tc.ok)
		}
	}
}
