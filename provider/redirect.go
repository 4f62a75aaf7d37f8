package provider

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxURI bounds every URI that is registered, in bytes.
const maxURI = 2048

// ValidateRedirectURI reports why uri may not be registered as a redirect URI,
// or nil. Only a native client, one that runs on a person's device, may have
// loopback http and private-use schemes (RFC 8252 §7). Web clients have https.
func ValidateRedirectURI(uri string, native bool) error {
	u, err := parseURI(uri)
	if err != nil {
		return err
	}
	if strings.Contains(uri, "*") {
		return errors.New("has a wildcard; URIs are compared exactly (RFC 9700 §4.1.3)")
	}
	switch {
	case u.Scheme == "https":
		if err := checkHost(u); err != nil {
			return err
		}
	case u.Scheme == "http":
		if err := checkHost(u); err != nil {
			return err
		}
		if !isLoopback(u.Hostname()) {
			return errors.New("uses http on a host other than 127.0.0.1, [::1] or localhost; use https (RFC 9700 §2.6)")
		}
	case !strings.Contains(u.Scheme, ".") || slices.Contains(strings.Split(u.Scheme, "."), ""):
		// RFC 8252 §7.1. A dot also keeps out what browsers run or read
		// themselves: javascript, data, file, blob, vbscript (§8.4).
		return fmt.Errorf("uses the scheme %q; a private-use scheme is a domain name in reverse, as com.example.app (RFC 8252 §7.1)", u.Scheme)
	case u.Opaque == "" && u.Host == "" && u.Path == "":
		return errors.New("has nothing after its scheme")
	}
	if isNativeURI(u) && !native {
		return errors.New("is for native clients; a web client has https")
	}
	return checkRedirectQuery(u)
}

// needsNative says whether uri is one that only native clients have.
func needsNative(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && isNativeURI(u)
}

func isNativeURI(u *url.URL) bool {
	return u.Scheme != "https" && (u.Scheme != "http" || isLoopback(u.Hostname()))
}

// isLoopback knows loopback hosts by their three exact spellings (RFC 8252
// §7.3, §8.3); other spellings of the same addresses are left out on purpose.
func isLoopback(host string) bool {
	return host == "127.0.0.1" || host == "::1" || host == "localhost"
}

// matchRedirectURI returns whether an answer may go to requested: it is one of
// the registered URIs to the byte (RFC 9700 §4.1.3), or differs only in the port
// from a loopback http URI of theirs, because a native client listens on
// whichever is free (RFC 8252 §7.3). matched is the registered one.
func matchRedirectURI(requested string, registered []string) (matched string, ok bool) {
	if slices.Contains(registered, requested) {
		return requested, true
	}
	plain, ok := withoutLoopbackPort(requested)
	if !ok {
		return "", false
	}
	for _, uri := range registered {
		if other, ok := withoutLoopbackPort(uri); ok && other == plain {
			return uri, true
		}
	}
	return "", false
}

// withoutLoopbackPort takes the port out of a loopback http URI that could be
// registered; for other URIs it returns false.
func withoutLoopbackPort(uri string) (string, bool) {
	u, err := parseURI(uri)
	if err != nil || !isLoopback(u.Hostname()) || checkHost(u) != nil {
		return "", false
	}
	port := ""
	if p := u.Port(); p != "" {
		port = ":" + p
	}
	rest, ok := strings.CutPrefix(uri, "http://"+u.Host) // https is compared to the byte
	if !ok {
		return "", false
	}
	return "http://" + strings.TrimSuffix(u.Host, port) + rest, true
}

// checkRedirectQuery keeps out query parameters that the response adds, so
// that none appears twice (RFC 6749 §4.1.2, RFC 9207 §2, OIDC Core §3.3.2.5).
func checkRedirectQuery(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("has a query that cannot be read")
	}
	for name := range query {
		switch name {
		case "code", "state", "iss", "error", "error_description", "error_uri", "response",
			"access_token", "token_type", "expires_in", "scope", "id_token", "session_state":
			return fmt.Errorf("has the query parameter %q, which belongs to the response", name)
		}
	}
	return nil
}

// parseURI reads an absolute URI as RFC 3986 §4.3 spells it: ASCII, no
// fragment (RFC 6749 §3.1.2), and no user information, which only misleads.
func parseURI(uri string) (*url.URL, error) {
	if uri == "" {
		return nil, errors.New("is empty")
	}
	if len(uri) > maxURI {
		return nil, fmt.Errorf("is longer than %d bytes", maxURI)
	}
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c > '~' || strings.IndexByte(`\"<>^{}|`+"`", c) >= 0 {
			return nil, errors.New("has a character that URIs write with % (RFC 3986 §2)")
		}
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return nil, errors.New("is not a URI (RFC 3986)")
	case u.Scheme == "":
		return nil, errors.New("is not absolute; it has to begin with a scheme, as https://")
	case !strings.HasPrefix(uri, u.Scheme+":"):
		return nil, errors.New("has a scheme in capitals; write it in lower case (RFC 3986 §3.1)")
	case strings.Contains(uri, "#"):
		return nil, errors.New("has a fragment (RFC 6749 §3.1.2)")
	case u.User != nil || strings.Contains(u.Host, "@"):
		return nil, errors.New("has user information before the host")
	}
	return u, nil
}

// checkHost reports what is wrong with the authority of an http or https URI.
func checkHost(u *url.URL) error {
	switch host := u.Hostname(); {
	case host == "":
		return errors.New("has no host")
	case strings.ContainsAny(host, "%,;=!$&'()+*"):
		return errors.New("has a host that is neither a domain name nor an address")
	case host != strings.ToLower(host):
		return errors.New("has a host in capitals; write it in lower case (RFC 3986 §6.2.2.1)")
	}
	if strings.HasSuffix(u.Host, ":") {
		return errors.New("has a colon without a port")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("has the port %s, which does not exist", port)
		}
	}
	return nil
}
