package provider

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unsafe"
)

// What is remembered of a stranger's request must not keep its body alive: a
// parsed form's values point into it.
func TestClientIDIsItsOwnCopy(t *testing.T) {
	body := "x=" + strings.Repeat("A", 60_000) + "&client_id=stranger&client_secret=y"
	form, err := url.ParseQuery(body)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := readCredentials(httptest.NewRequest("POST", "/token", nil), form)
	if err != nil {
		t.Fatal(err)
	}
	at, begin := uintptr(unsafe.Pointer(unsafe.StringData(cred.clientID))), uintptr(unsafe.Pointer(unsafe.StringData(body)))
	if at >= begin && at < begin+uintptr(len(body)) {
		t.Fatal("the client id points into the request's body")
	}
}

func TestClientIDIsBounded(t *testing.T) {
	for _, tc := range []struct {
		length int
		ok     bool
	}{{maxClientID, true}, {maxClientID + 1, false}} {
		form := url.Values{"client_id": {strings.Repeat("c", tc.length)}}
		_, err := readCredentials(httptest.NewRequest("POST", "/token", nil), form)
		if (err == nil) != tc.ok {
			t.Errorf("client_id of %d bytes: %v", tc.length, err)
		}
	}
}
