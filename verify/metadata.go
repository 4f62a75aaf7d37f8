package verify

import (
	"encoding/json"
	"net/http"
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
// resource is not an https URL, or http on loopback.
func MetadataPath(resource string) string {
	u, err := secureURL(resource)
	if err != nil || u.Fragment != "" {
		panic("verify: a resource is an https URL without fragment: " + resource)
	}
	path := u.EscapedPath()
	if path == "/" {
		path = ""
	}
	return "/.well-known/oauth-protected-resource" + path
}
