package provider

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

const (
	defaultAccessTokenAlg = "ES256"
	typAccessToken        = "at+jwt" // RFC 9068 §2.1
)

// accessToken holds the claims of RFC 9068 §2.2 that we issue.
type accessToken struct {
	issuer    string
	subject   string
	audience  []string
	clientID  string
	issuedAt  time.Time
	expiresAt time.Time
	id        string
	scopes    []string
	roles     []string

	// For people only.
	grantID   string
	sessionID string // of a grant that ends with its session
	authTime  time.Time
	acr       string
	amr       []string
	status    *statusRef // nil: none of its audience asks for it
}

// statusRef says where a token's status is listed (Token Status List §6.1).
type statusRef struct {
	index int64
	uri   string
}

// encode writes the claims as JSON. By hand, because this is the busiest line
// of the server; strings go through encoding/json's own escaping.
func (t *accessToken) encode() []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"iss":`...)
	b = appendString(b, t.issuer)
	b = append(b, `,"sub":`...)
	b = appendString(b, t.subject)
	b = append(b, `,"aud":`...)
	if len(t.audience) == 1 {
		b = appendString(b, t.audience[0])
	} else {
		b = appendStrings(b, t.audience)
	}
	b = append(b, `,"client_id":`...)
	b = appendString(b, t.clientID)
	b = append(b, `,"iat":`...)
	b = strconv.AppendInt(b, t.issuedAt.Unix(), 10)
	b = append(b, `,"exp":`...)
	b = strconv.AppendInt(b, t.expiresAt.Unix(), 10)
	b = append(b, `,"jti":`...)
	b = appendString(b, t.id)
	b = append(b, `,"scope":`...)
	b = appendString(b, strings.Join(t.scopes, " "))
	if len(t.roles) > 0 {
		b = append(b, `,"roles":`...)
		b = appendStrings(b, t.roles)
	}
	if t.grantID != "" {
		b = append(b, `,"grant_id":`...)
		b = appendString(b, t.grantID)
		b = append(b, `,"auth_time":`...)
		b = strconv.AppendInt(b, t.authTime.Unix(), 10)
		b = append(b, `,"acr":`...)
		b = appendString(b, t.acr)
		b = append(b, `,"amr":`...)
		b = appendStrings(b, t.amr)
	}
	if t.sessionID != "" {
		b = append(b, `,"sid":`...)
		b = appendString(b, t.sessionID)
	}
	if t.status != nil {
		b = append(b, `,"status":{"status_list":{"idx":`...)
		b = strconv.AppendInt(b, t.status.index, 10)
		b = append(b, `,"uri":`...)
		b = appendString(b, t.status.uri)
		b = append(b, `}}`...)
	}
	return append(b, '}')
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// newTokenID returns a jti of 128 random bits (RFC 7519 §4.1.7).
func newTokenID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: it aborts the program instead
	return base64.RawURLEncoding.EncodeToString(random[:])
}
