package provider

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBody bounds every request body before it is read.
const maxBody = 64 << 10

// repeatable are the parameters that may appear more than once: RFC 8707 §2
// for resource, RFC 8693 §2.1 for audience. RFC 6749 §3.2 forbids all others.
var repeatable = []string{"resource", "audience"}

// neverInQuery are parameters whose presence in a URL leaks them to logs and
// histories (RFC 6749 §2.3.1, RFC 9700 §4.3), or that change what is asked.
var neverInQuery = []string{
	"client_id", "client_secret", "client_assertion", "client_assertion_type",
	"grant_type", "code", "code_verifier", "redirect_uri", "refresh_token",
	"token", "token_type_hint", "username", "password", "scope", "resource",
	"audience", "assertion", "device_code", "subject_token", "actor_token",
}

// readForm reads the request of an endpoint that takes a form by POST, and
// leaves the parsed form where fosite looks for it. Everything a form may be
// refused for is refused here, before anything is looked up.
func readForm(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return oauthError(http.StatusMethodNotAllowed, "invalid_request", "This endpoint takes POST requests only.") // RFC 6749 §3.2
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/x-www-form-urlencoded" {
		return oauthError(http.StatusUnsupportedMediaType, "invalid_request",
			"Send the parameters as application/x-www-form-urlencoded in the body.")
	}
	if r.URL.RawQuery != "" {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return invalidRequest("The query string is malformed.")
		}
		for name := range query {
			if slices.Contains(neverInQuery, name) {
				return invalidRequest("Send parameters in the body, never in the query string: it ends up in logs.")
			}
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return oauthError(http.StatusRequestEntityTooLarge, "invalid_request",
				fmt.Sprintf("The body is larger than %d bytes.", maxBody))
		}
		return invalidRequest("The body could not be read.").because(err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return invalidRequest("The body is not a well-formed form.")
	}
	for name, values := range form {
		if !validText(name) {
			return invalidRequest("A parameter's name is not valid UTF-8 text.")
		}
		if len(values) > 1 && !slices.Contains(repeatable, name) {
			return invalidRequest(fmt.Sprintf("The parameter '%s' appears more than once.", clip(name)))
		}
		for _, v := range values {
			if !validText(v) {
				return invalidRequest(fmt.Sprintf("The parameter '%s' is not valid UTF-8 text.", clip(name)))
			}
		}
		// RFC 6749 §3.1: a parameter without a value counts as omitted.
		if form[name] = slices.DeleteFunc(values, func(v string) bool { return v == "" }); len(form[name]) == 0 {
			delete(form, name)
		}
	}
	r.PostForm, r.Form = form, form
	return nil
}

// validText says whether s is UTF-8 without NUL, which no database text and
// no RFC 6749 Appendix A syntax admits.
func validText(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// clip shortens what a stranger sent before it is repeated in an answer. RFC
// 6749 §5.2 keeps quotes, backslashes and control characters out of descriptions.
func clip(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return '?'
		}
		return c
	}, s)
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
