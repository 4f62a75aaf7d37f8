package verify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Metadata describes a protected resource (RFC 9728 §2).
type Metadata struct {
	Resource               string   `json:"resource"`              // the audience of its tokens
	AuthorizationServers   []string `json:"authorization_servers"` // issuers
	ScopesSupported        []string `json:"scopes_supported,omitempty"`
	BearerMethodsSupported []string `json:"bearer_methods_supported"` // the Middleware's: "header", if nil
	ResourceName           string   `json:"resource_name,omitempty"`
	ResourceDocumentation  string   `json:"resource_documentation,omitempty"`
}

// ResourceMetadata serves m, which says to a client that knows only the resource
// where its tokens come from. Mount it at [MetadataPath], outside the Middleware.
// It panics when m's resource is not a URL.
func ResourceMetadata(m Metadata) http.Handler {
	MetadataPath(m.Resource)
	if m.BearerMethodsSupported == nil {
		m.BearerMethodsSupported = []string{"header"}
	}
	document, err := json.Marshal(m)
	if err != nil {
		panic("verify: " + err.Error()) // not possible: strings only
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Access-Control-Allow-Origin", "*") // public, and clients in browsers need it
		_, _ = w.Write(document)
	})
}

// MetadataPath is where the metadata of a resource lives on its host: the
// well-known path put before the resource's own (RFC 9728 §3.1). It panics when
// [MetadataURL] fails.
func MetadataPath(resource string) string {
	u, err := metadataURL(resource)
	if err != nil {
		panic("verify: " + err.Error())
	}
	return u.EscapedPath()
}

// MetadataURL is the whole address, for [WithResourceMetadata]. It fails when
// resource is not an https URL, or http on loopback, without fragment.
func MetadataURL(resource string) (string, error) {
	u, err := metadataURL(resource)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

func metadataURL(resource string) (*url.URL, error) {
	u, err := secureURL(resource)
	if err != nil || strings.Contains(resource, "#") {
		return nil, fmt.Errorf("a resource is an https URL without fragment: %q", resource)
	}
	at := *u // with its query, if it has one
	if at.Path == "/" {
		at.Path = ""
	}
	at.Path, at.RawPath = "/.well-known/oauth-protected-resource"+at.Path, ""
	if u.RawPath != "" {
		at.RawPath = "/.well-known/oauth-protected-resource" + u.RawPath
	}
	return &at, nil
}
