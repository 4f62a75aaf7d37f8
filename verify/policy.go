package verify

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RequireScope lets a request through when its token has all the scopes, each
// compared exactly; else 403 insufficient_scope (RFC 6750 §3.1). Like its
// siblings it goes inside [Verifier.Middleware], answers 500 without it, and
// panics at once on arguments that would require nothing or fit no header.
func RequireScope(scopes ...string) func(http.Handler) http.Handler {
	mustBeTokens("scope", scopes)
	return require(func(a *authenticated) *refusal {
		for _, scope := range scopes {
			if !a.claims.HasScope(scope) {
				return insufficientScope("the access token lacks a scope", scopes...)
			}
		}
		return nil
	})
}

// RequireRole lets a request through when its subject has the role and its token
// the scope. One without the other permits nothing: the role is what a person may
// do, the scope what this client may do in their name.
func RequireRole(role, scope string) func(http.Handler) http.Handler {
	mustBeTokens("role", []string{role})
	mustBeTokens("scope", []string{scope})
	return require(func(a *authenticated) *refusal {
		switch {
		case !a.claims.HasScope(scope):
			return insufficientScope("the access token lacks a scope", scope)
		case !a.claims.HasRole(role):
			return insufficientScope("the subject lacks a role", scope)
		}
		return nil
	})
}

// RequireACR lets a request through when the person signed in at one of these
// authentication context classes; else 401 insufficient_user_authentication with
// acr_values, for the client to ask for it (RFC 9470 §3).
func RequireACR(acr ...string) func(http.Handler) http.Handler {
	mustBeTokens("acr", acr)
	return require(func(a *authenticated) *refusal {
		if slices.Contains(acr, a.claims.acr) {
			return nil
		}
		return insufficientAuthentication("acr_values", strings.Join(acr, " "))
	})
}

// RequireMaxAge lets a request through when the person signed in no longer than d
// ago, in whole seconds of at least one; else 401 insufficient_user_authentication
// with max_age (RFC 9470 §3). A token nobody signed in for does not pass.
func RequireMaxAge(d time.Duration) func(http.Handler) http.Handler {
	seconds := int64(d / time.Second)
	if seconds < 1 {
		panic("verify: RequireMaxAge of less than a second")
	}
	return require(func(a *authenticated) *refusal {
		now := a.verifier.now().Unix()
		if at := a.claims.authTime; at != 0 && now-at <= seconds && at-now <= a.verifier.skew/1000 {
			return nil
		}
		return insufficientAuthentication("max_age", strconv.FormatInt(seconds, 10))
	})
}

// require makes a middleware of a policy, which returns nil to let pass.
func require(policy func(*authenticated) *refusal) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := from(r.Context())
			if a == nil {
				slog.ErrorContext(r.Context(), "verify: a policy without Middleware: this route is not protected", "path", r.URL.Path)
				http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
				return
			}
			if no := policy(a); no != nil {
				a.verifier.refuse(w, no)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func insufficientScope(description string, scopes ...string) *refusal {
	return &refusal{
		status: http.StatusForbidden, code: "insufficient_scope", description: description,
		param: "scope", value: strings.Join(scopes, " "),
	}
}

func insufficientAuthentication(param, value string) *refusal {
	return &refusal{
		status: http.StatusUnauthorized, code: "insufficient_user_authentication",
		description: "a different or more recent sign-in is required",
		param:       param, value: value,
	}
}

// mustBeTokens holds the arguments of a policy to the characters of a scope
// (RFC 6749 §3.3): they are compared with parts of a list and sent in quotes.
func mustBeTokens(what string, list []string) {
	if len(list) == 0 {
		panic("verify: a policy without any " + what)
	}
	for _, s := range list {
		if !isToken(s) {
			panic("verify: not a " + what + ": " + strconv.Quote(s))
		}
	}
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
}
