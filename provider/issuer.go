package provider

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Paths of the endpoints, below the issuer's own path.
const (
	PathAuthorize     = "/authorize"
	PathToken         = "/token"
	PathUserInfo      = "/userinfo"
	PathLogout        = "/logout"
	PathIntrospection = "/introspect"
	PathRevocation    = "/revoke"
	PathPushed        = "/par"
	PathRegistration  = "/register"
	PathJWKS          = "/jwks"
	PathFeed          = "/revocations" // what verifiers follow
	PathFeedSnapshot  = PathFeed + "/snapshot"
	PathFeedStream    = PathFeed + "/stream"
	PathFeedPoll      = PathFeed + "/poll"
	PathStatusLists   = "/statuslists"
	PathDoctor        = "/doctor" // how a request of `signet doctor` came here
	PathSetUp         = "/setup"  // where set-up links lead; a page of web's
)

// RequestIDHeader carries the id under which the log knows a request.
const RequestIDHeader = "X-Request-Id"

// Issuer is the issuer identifier. Every URL the server hands out is made
// from it, never from what a request says of itself.
type Issuer struct {
	raw string
	url *url.URL
}

// ParseIssuer reads an issuer identifier (RFC 8414 §2): an https URL without
// query and fragment; http only on loopback hosts, for development.
func ParseIssuer(s string) (Issuer, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Issuer{}, fmt.Errorf("issuer: %w", err)
	case u.Host == "" || u.User != nil || u.Opaque != "":
		return Issuer{}, errors.New("issuer: want a URL such as https://login.example.com")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return Issuer{}, errors.New("issuer: a query or fragment is not allowed (RFC 8414 §2)")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopbackHost(u.Hostname())):
		return Issuer{}, errors.New("issuer: want https (http works on localhost only)")
	case strings.HasSuffix(u.Path, "/"):
		return Issuer{}, errors.New("issuer: leave out the slash at the end; clients compare the issuer byte by byte")
	case u.String() != s || u.Path != u.EscapedPath() || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/."):
		return Issuer{}, errors.New("issuer: write the URL in its plain form, without escapes or dot segments")
	case strings.ToLower(u.Host) != u.Host:
		return Issuer{}, errors.New("issuer: write the host in lower case")
	}
	return Issuer{raw: s, url: u}, nil
}

// String returns the identifier exactly as configured.
func (i Issuer) String() string { return i.raw }

// Path is the issuer's path, "" when it has none.
func (i Issuer) Path() string { return i.url.Path }

// Secure says whether the issuer is reached by https.
func (i Issuer) Secure() bool { return i.url.Scheme == "https" }

// Loopback says whether the issuer is on this machine.
func (i Issuer) Loopback() bool { return i.url != nil && loopbackHost(i.url.Hostname()) }

// Endpoint returns the URL of a path below the issuer.
func (i Issuer) Endpoint(path string) string { return i.raw + path }

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
