package provider

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/storage"
)

// Error is an OAuth error answer: the code of the RFC, a sentence for the
// developer at the other end, and the HTTP status. The cause is for the log
// only and never leaves the server.
type Error struct {
	Code        string
	Description string
	Status      int
	cause       error
	client      string        // who was refused, once that is known; for the log
	retry       time.Duration // of a 503: when to come back; 0: soon
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Code + ": " + e.Description + ": " + e.cause.Error()
	}
	return e.Code + ": " + e.Description
}

func (e *Error) Unwrap() error { return e.cause }

// because returns a copy of e that carries the cause for the log.
func (e *Error) because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// refused returns the error with the client it was about.
func refused(clientID string, err error) error {
	e := *toError(err)
	e.client = clientID
	return &e
}

func oauthError(status int, code, description string) *Error {
	return &Error{Code: code, Description: description, Status: status}
}

// RFC 6749 §5.2 and, for invalid_target, RFC 8707 §2.
func invalidRequest(description string) *Error {
	return oauthError(http.StatusBadRequest, "invalid_request", description)
}
func invalidScope(description string) *Error {
	return oauthError(http.StatusBadRequest, "invalid_scope", description)
}
func invalidTarget(description string) *Error {
	return oauthError(http.StatusBadRequest, "invalid_target", description)
}

// invalidGrant is for a code or refresh token that is worth nothing, or a
// person's grant behind it; the log has the cause.
func invalidGrant(description string, cause error) *Error {
	return oauthError(http.StatusBadRequest, "invalid_grant", description).because(cause)
}
func unauthorizedClient(description string) *Error {
	return oauthError(http.StatusBadRequest, "unauthorized_client", description)
}
func unsupportedGrantType(description string) *Error {
	return oauthError(http.StatusBadRequest, "unsupported_grant_type", description)
}

// invalidClient is one sentence for every cause, so that the answer never
// tells whether a client exists; the log has the cause.
func invalidClient(cause error) *Error {
	return oauthError(http.StatusUnauthorized, "invalid_client",
		"Client authentication failed: check the client identifier, its credentials and its registered authentication method.").because(cause)
}

func tooManyFailures(cause error) *Error {
	return oauthError(http.StatusTooManyRequests, "invalid_client",
		"Too many failed client authentications from this address; try again later.").because(cause)
}

// tooMany is for who needs no credentials to send what is kept.
func tooMany(what string) *Error {
	return oauthError(http.StatusTooManyRequests, "invalid_request", "Too many "+what+" from this address; try again later.")
}

func unavailable(cause error) *Error {
	return oauthError(http.StatusServiceUnavailable, "temporarily_unavailable",
		"The authorization server cannot answer right now; try again shortly.").because(cause)
}

// busyFor is a 503 for whom the server has no room before wait is over.
func busyFor(wait time.Duration, cause error) *Error {
	e := unavailable(cause)
	e.retry = wait
	return e
}

// toError is the single table from what the house returns to what a client is
// told: ours as they are, the database's absence as 503, fosite's own findings
// by their RFC code, and everything else as a fault of ours.
func toError(err error) *Error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	if errors.Is(err, storage.ErrUnavailable) {
		return unavailable(err)
	}
	if errors.Is(err, storage.ErrInvalid) {
		return invalidRequest("A parameter holds a character that is not allowed.").because(err)
	}
	var framework *fosite.RFC6749Error
	if errors.As(err, &framework) && framework.CodeField < http.StatusInternalServerError {
		description := framework.HintField
		if description == "" {
			description = framework.DescriptionField
		}
		return oauthError(framework.CodeField, framework.ErrorField, description).because(err)
	}
	return oauthError(http.StatusInternalServerError, "server_error",
		"The authorization server met an unexpected condition; the request id is in its log.").because(err)
}

// writeError answers with the error as JSON (RFC 6749 §5.2) and logs the cause.
func (p *Provider) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := toError(err)
	h := w.Header()
	switch e.Status {
	case http.StatusUnauthorized:
		// RFC 9110 §11.6.1; RFC 6749 §5.2 asks for it where Basic was tried.
		h.Set("WWW-Authenticate", `Basic realm="`+p.issuer.String()+`", charset="UTF-8"`)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(max(2, int(e.retry.Seconds()))))
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "30")
	}
	level := slog.LevelInfo
	if busy := (*BusyError)(nil); e.Status >= http.StatusInternalServerError && !errors.As(err, &busy) { // a limit that held is no fault
		level = slog.LevelError
	}
	p.log.LogAttrs(r.Context(), level, "request refused",
		slog.String("request_id", h.Get(RequestIDHeader)),
		slog.String("path", LogPath(r)),
		slog.Int("status", e.Status),
		slog.String("error", e.Code),
		slog.String("client_id", e.client),
		slog.String("cause", e.Error()))
	writeJSON(w, e.Status, struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}{e.Code, e.Description})
}

// LogPath is the path of a request as far as a log should hold it: strangers
// choose it.
func LogPath(r *http.Request) string {
	const most = 200
	if len(r.URL.Path) > most {
		return r.URL.Path[:most] + "..."
	}
	return r.URL.Path
}

// writeJSON answers with a body that no cache may keep (RFC 6749 §5.1).
func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // every body is one of our own structs or maps
	}
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the connection is gone when this fails
}
