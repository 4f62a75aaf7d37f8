package verify

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
)

// identityHeaders are the names by which proxies tell a backend who the user is.
// Behind the Middleware only the token says that, so they are removed, in any
// case and with _ for -, which CGI-like backends do not tell apart.
var identityHeaders = [...]string{
	"Remote-User", "X-Remote-User", "X-Remote-Group",
	"X-User", "X-User-Id", "X-User-Name", "X-User-Email", "X-User-Roles",
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username",
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username",
	"X-Authenticated-User", "X-Authenticated-Userid",
}

type contextKey struct{}

// authenticated is what the Middleware leaves for the policies and the handler.
type authenticated struct {
	claims   *Claims
	verifier *Verifier
}

// Middleware lets a request through to next when it carries a valid access token
// in its Authorization header (RFC 6750 §2.1); a token in the query or the body
// is never read. Other requests are answered as RFC 6750 §3 says, or with 503
// while the issuer's keys or revocations are not known.
//
// It removes the headers by which a proxy might name the user, in whatever
// spelling: Remote-User, X-Remote-User and -Group; X-User, X-User-Id, -Name,
// -Email and -Roles; X-Forwarded-User, -Email, -Groups and -Preferred-Username,
// the same four of X-Auth-Request; X-Authenticated-User and -Userid.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, refusal := bearerToken(r)
		if refusal != nil {
			v.refuse(w, refusal)
			return
		}
		claims, err := v.Verify(r.Context(), token)
		if err != nil {
			v.log.LogAttrs(r.Context(), slog.LevelDebug, "verify: token refused", slog.Any("error", err))
			v.refuse(w, refusalOf(err))
			return
		}
		ctx := context.WithValue(r.Context(), contextKey{}, &authenticated{claims, v})
		next.ServeHTTP(w, withoutIdentity(r.WithContext(ctx)))
	})
}

// ClaimsFrom returns the claims of the token that came with a request. It panics
// when the request has not passed [Verifier.Middleware]: that is a fault in the
// wiring, which must not look like an anonymous caller.
func ClaimsFrom(ctx context.Context) *Claims {
	a := from(ctx)
	if a == nil {
		panic("verify: ClaimsFrom without Middleware: this route is not protected")
	}
	return a.claims
}

func from(ctx context.Context) *authenticated {
	a, _ := ctx.Value(contextKey{}).(*authenticated)
	return a
}

// bearerToken takes the token out of the one Authorization header.
func bearerToken(r *http.Request) (string, *refusal) {
	headers := r.Header["Authorization"]
	if len(headers) > 1 {
		return "", invalidRequest("more than one Authorization header")
	}
	if len(headers) == 0 {
		return "", &refusal{status: http.StatusUnauthorized}
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1: in any case
		return "", &refusal{status: http.StatusUnauthorized}
	}
	token = strings.Trim(token, " ")
	if token == "" {
		return "", invalidRequest("no token after Bearer")
	}
	// RFC 6750 §2: one method only. The query is looked at, never used.
	if strings.ContainsAny(r.URL.RawQuery, "%_") && r.URL.Query().Has("access_token") {
		return "", invalidRequest("more than one method of sending a token")
	}
	return token, nil
}

// withoutIdentity removes the identity headers; the caller's own map stays.
func withoutIdentity(r *http.Request) *http.Request {
	copied := false
	for name := range r.Header {
		if !identifies(name) {
			continue
		}
		if !copied {
			r.Header = r.Header.Clone() // r is ours, its map is not
			copied = true
		}
		delete(r.Header, name)
	}
	return r
}

func identifies(name string) bool {
	for _, known := range identityHeaders {
		if len(name) == len(known) && strings.EqualFold(strings.ReplaceAll(name, "_", "-"), known) {
			return true
		}
	}
	return false
}

// A refusal is an answer in place of the handler's.
type refusal struct {
	status      int
	code        string // empty: no token was sent, so nothing is wrong with it (RFC 6750 §3.1)
	description string
	param       string // one more parameter of the challenge: scope, acr_values or max_age
	value       string
}

func invalidRequest(description string) *refusal {
	return &refusal{status: http.StatusBadRequest, code: "invalid_request", description: description}
}

// refusalOf puts an error of Verify into the words of RFC 6750 §3.1. The client
// learns the sentinel's sentence, never the detail.
func refusalOf(err error) *refusal {
	for _, ours := range [...]error{ErrNotReady, ErrStale} {
		if errors.Is(err, ours) {
			return &refusal{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", description: ours.Error()}
		}
	}
	description := err.Error()
	for _, detailed := range [...]error{ErrMalformed, ErrStatus} {
		if errors.Is(err, detailed) {
			description = detailed.Error()
		}
	}
	return &refusal{status: http.StatusUnauthorized, code: "invalid_token", description: description}
}

// refuse writes the answer: a challenge (RFC 6750 §3, RFC 9728 §5.1) and the same
// in JSON for people who read bodies.
func (v *Verifier) refuse(w http.ResponseWriter, no *refusal) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if no.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	} else {
		h.Set("WWW-Authenticate", no.challenge(v))
	}
	if no.code == "" {
		w.WriteHeader(no.status)
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(no.status)
	_ = json.NewEncoder(w).Encode(struct { // an error here is the client gone
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{no.code, no.description})
}

// challenge needs no quoting: every value is a constant sentence, a number, a
// checked scope or an escaped URL.
func (no *refusal) challenge(v *Verifier) string {
	var params []string
	add := func(name, value string) {
		if value != "" {
			params = append(params, name+`="`+value+`"`)
		}
	}
	add("error", no.code)
	add("error_description", no.description)
	add(no.param, no.value)
	if no.status == http.StatusUnauthorized && no.param == "" {
		add("scope", v.firstScope)
	}
	add("resource_metadata", v.resourceMetadata)
	return strings.TrimSuffix("Bearer "+strings.Join(params, ", "), " ")
}
