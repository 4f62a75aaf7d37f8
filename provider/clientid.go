package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json" // member names by case, and no duplicates

	"github.com/signet-oidc/signet/storage"
)

// CIMD below is draft-ietf-oauth-client-id-metadata-document-03: a client that
// nobody registered is known by a URL, at which it publishes its metadata.

// DocumentMode says whose Client Identifier URLs are accepted.
type DocumentMode string

// Nobody's; those of the hosts that the operator lists (CIMD §9.9); anybody's.
const (
	DocumentsOff    DocumentMode = "off"
	DocumentsListed DocumentMode = "listed"
	DocumentsOpen   DocumentMode = "open"
)

// Documents is the policy for OAuth Client ID Metadata Documents.
type Documents struct {
	Mode  DocumentMode // "" is off
	Hosts []string     // for listed, in lower case
	// Loopback lets documents, and what they refer to, be on this machine: for
	// development alone, with an issuer that is there too (CIMD §9.6).
	Loopback bool
}

// ValidHost says whether s can be one of the hosts.
func ValidHost(s string) bool {
	u, err := parseClientURL("https://" + s + "/")
	return err == nil && u.Hostname() == s
}

func (d Documents) on() bool { return d.Mode == DocumentsListed || d.Mode == DocumentsOpen }

// admit reports why the Client Identifier URL is not accepted, or nil.
func (d Documents) admit(id string) error {
	u, err := parseClientURL(id)
	switch {
	case !d.on():
		return errors.New("is a URL, and client ID metadata documents are turned off here")
	case err != nil:
		return err
	case d.Mode == DocumentsListed && !slices.Contains(d.Hosts, u.Hostname()):
		return errors.New("is at a host that is not accepted here")
	case u.Port() != "" && u.Port() != "443" && !d.Loopback:
		return errors.New("has another port than 443")
	}
	return nil
}

// maxClientURL bounds a Client Identifier URL, which CIMD §3 wants to be short.
const maxClientURL = 256

// isClientURL says whether the client identifier is a URL, well-formed or not.
// Registration makes none that is (CIMD §8.1).
func isClientURL(id string) bool { return strings.HasPrefix(id, "https:") }

// parseClientURL reads a Client Identifier URL (CIMD §3). What is compared to
// the byte has one spelling only: no capitals in the host, no escaped dots.
func parseClientURL(id string) (*url.URL, error) {
	if len(id) > maxClientURL {
		return nil, fmt.Errorf("is longer than %d bytes", maxClientURL)
	}
	u, err := parseURI(id)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "https":
		return nil, errors.New("has to begin with https://")
	case !strings.HasPrefix(u.EscapedPath(), "/"):
		return nil, errors.New("has no path")
	case u.ForceQuery:
		return nil, errors.New("has an empty query")
	}
	if err := checkHost(u); err != nil {
		return nil, err
	}
	for segment := range strings.SplitSeq(u.Path, "/") { // decoded
		if segment == "." || segment == ".." {
			return nil, errors.New("has a dot segment")
		}
	}
	return u, nil
}

// clientHost returns the host of a Client Identifier URL, for people (CIMD
// §9.5), or "" for other identifiers.
func clientHost(id string) string {
	if u, err := parseClientURL(id); err == nil && isClientURL(id) {
		return u.Host
	}
	return ""
}

// originDocument marks clients that are what their metadata document says.
const originDocument = "metadata-document"

// follows is what such a client has for a registration token hash while its
// document may change it; it is no hash of anything. As with clients that
// registered themselves, what an operator has settled stands.
const follows = "follows its document"

func followsDocument(c storage.Client) bool {
	return c.Origin == originDocument && string(c.RegistrationTokenHash) == follows
}

// documentError is why a Client Identifier URL leads to no client: as if there
// were none. What it says is safe to show: nothing of what is reached from here.
type documentError struct {
	description string
	cause       error
}

func (e *documentError) Error() string {
	if e.cause == nil {
		return e.description
	}
	return e.description + " " + e.cause.Error()
}

func (e *documentError) Is(target error) bool { return target == storage.ErrNotFound }

func (e *documentError) Unwrap() error { return e.cause }

// readDocument returns the client that the document at id describes. It is
// judged as a registration is, but that the same document serves every
// authorization server: what is not offered here is left out of it (RFC 7591
// §2), as far as anything is left.
func (p *Provider) readDocument(ctx context.Context, id string, body []byte) (*client, error) {
	c, method, err := p.parseDocument(id, body)
	if err == nil {
		tidyClient(&c)
		err = checkClient(ctx, p.store, c)
	}
	if err != nil {
		return nil, unusable(err)
	}
	c.AuthMethod = method
	return newClient(c), nil
}

// unusable makes what is wrong with a document the reason why there is no client;
// other errors it leaves as they are.
func unusable(err error) error {
	var ours *Error
	if errors.As(metadataError(err), &ours) && ours.Status == http.StatusBadRequest {
		return &documentError{"The metadata document at this client_id cannot be used: " + ours.Description, nil}
	}
	return err
}

// parseDocument reads the metadata in the document at id. method is how the
// client authenticates: where none of its methods is offered, one of those, by
// which nobody can authenticate here.
func (p *Provider) parseDocument(id string, body []byte) (c storage.Client, method string, err error) {
	var members map[string]json.RawMessage
	var doc clientDocument
	if json.Unmarshal(body, &members) != nil || members == nil || json.Unmarshal(body, &doc) != nil {
		return c, "", invalidMetadata("It is no JSON object of client metadata, or a member is of the wrong kind (RFC 7591 section 2).")
	}
	if doc.ClientID != id { // CIMD §4: to the byte
		return c, "", invalidMetadata("Its client_id is not the URL it was fetched from.")
	}
	for name := range members { // CIMD §4.1
		if strings.HasPrefix(name, "client_secret") {
			return c, "", invalidMetadata("It holds " + plainASCII(name) + ", and there can be no secret in public.")
		}
	}
	var methods []string
	if raw, ok := members["token_endpoint_auth_methods_supported"]; ok && json.Unmarshal(raw, &methods) != nil {
		return c, "", invalidMetadata("Its token_endpoint_auth_methods_supported is no list.")
	}
	if method, err = documentAuthMethod(doc.AuthMethod, methods); err != nil {
		return c, "", err
	}
	if doc.AuthMethod = method; method != authPrivateKeyJWT {
		doc.AuthMethod = authNone // to be judged: the rest does not depend on it
	}
	if doc.SubjectType == subjectPairwise && doc.SectorIdentifierURI != "" {
		return c, "", invalidMetadata("Its sector_identifier_uri is not taken here: the pairwise subjects of a client that nobody registered are for the one host of its redirect URIs.")
	}
	doc.SectorIdentifierURI = ""
	offer := p.offer(initialToken{})
	offer.withoutPKCE = false
	doc.GrantTypes = common(doc.GrantTypes, offer.grants)
	if wanted := strings.Fields(doc.Scope); len(wanted) > 0 {
		left := common(wanted, offer.scopes)
		if len(left) == 0 {
			return c, "", invalidMetadata("None of the scopes that it names is offered to clients that nobody registered.")
		}
		doc.Scope = strings.Join(left, " ")
	}
	if len(doc.ResponseTypes) > 0 && slices.Contains(doc.ResponseTypes, "code") {
		doc.ResponseTypes = []string{"code"}
	}
	if !slices.Contains(doc.GrantTypes, grantCode) && len(members["grant_types"]) > 0 {
		return c, "", invalidMetadata("Its grant_types lack " + grantCode + ", without which there is nothing for it here.")
	}
	c = DefaultClient()
	c.ID, c.Origin, c.RegistrationTokenHash = id, originDocument, []byte(follows)
	if err := doc.apply(&c, offer); err != nil {
		return c, "", err
	}
	if doc.ClientName == "" {
		c.Name = clientHost(id)
	}
	return c, method, nil
}

// common returns the members of list that are offered.
func common(list, offered []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !slices.Contains(offered, s) })
}

// documentAuthMethod settles how the client authenticates (CIMD §6): as the
// document says, by the best of those it supports, and as a public client when
// it says nothing.
func documentAuthMethod(one string, supported []string) (string, error) {
	for _, m := range append([]string{one}, supported...) { // CIMD §4.1
		if strings.HasPrefix(m, "client_secret") {
			return "", invalidMetadata("It names " + plainASCII(clip(m)) + ", which needs a shared secret.")
		}
	}
	offered := func(m string) bool { return m == authPrivateKeyJWT || m == authNone }
	switch {
	case one == "" && len(supported) == 0:
		return authNone, nil
	case one != "" && len(supported) > 0 && !slices.Contains(supported, one):
		return "", invalidMetadata("Its token_endpoint_auth_method is not among its token_endpoint_auth_methods_supported.")
	case offered(one):
		return one, nil
	case slices.Contains(supported, authPrivateKeyJWT):
		return authPrivateKeyJWT, nil
	case slices.Contains(supported, authNone):
		return authNone, nil
	case one != "":
		return clip(one), nil
	default:
		return clip(supported[0]), nil
	}
}

// authenticatesElsewhere says whether the client supports no authentication
// method that is offered here.
func (c *client) authenticatesElsewhere() bool {
	return c.Origin == originDocument && c.AuthMethod != authNone && c.AuthMethod != authPrivateKeyJWT
}

// sameDocument says whether two rows say the same of a client.
func sameDocument(a, b storage.Client) bool {
	x, errX := json.Marshal(newClientDocument(a))
	y, errY := json.Marshal(newClientDocument(b))
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// isJSON says whether a media type is application/json or one with its suffix
// (CIMD §4).
func isJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	kind, sub, _ := strings.Cut(mediaType, "/")
	return err == nil && kind == "application" && (sub == "json" || len(sub) > len("+json") && path.Base(sub) == sub && strings.HasSuffix(sub, "+json"))
}

// freshFor returns how long an answer may be kept by its caching headers (RFC
// 9111 §4.2, CIMD §5.2), within the bounds given.
func freshFor(h http.Header, least, most time.Duration) time.Duration {
	var fresh time.Duration
	stated, never := false, false
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				never = true
			case "max-age":
				seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
				if err != nil { // RFC 9111 §4.2.1: what cannot be read is stale
					never = true
				}
				fresh, stated = time.Duration(seconds)*time.Second, true
			}
		}
	}
	if !stated {
		expires, err := http.ParseTime(h.Get("Expires"))
		date, errDate := http.ParseTime(h.Get("Date"))
		if err == nil && errDate == nil {
			fresh = expires.Sub(date)
		}
	}
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		fresh -= time.Duration(age) * time.Second
	}
	if never {
		fresh = 0
	}
	return min(max(fresh, least), most)
}
