package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// RFC 9470: step-up authentication, at the issuer and at a protected resource.
func rfc9470Checks() []Check {
	const spec = "RFC 9470"
	challenged := []Need{protectedResource(), client(), {"--step-up", func(e *Env) bool { return e.StepUp != "" }}}
	return []Check{
		{"rfc9470-max-age", spec, "§6.1", "a token asked for with max_age says when the person signed in, no longer ago than that", signIn(),
			holding(func(_ context.Context, _ *Env, t *tokens) error {
				access, err := parseAccessToken(t.access)
				if err != nil {
					return err
				}
				at, err := access.seconds("auth_time")
				if err != nil {
					return err
				}
				iat, err := access.seconds("iat")
				if err != nil {
					return err
				}
				if iat-at > 60+int64(clockSkew.Seconds()) {
					return unexpected("auth_time", at, plain(fmt.Sprintf("less than a minute before iat %d", iat)))
				}
				return nil
			}, set("max_age", "60"), set("prompt", "login"))},
		{"rfc9470-acr", spec, "§6.1", "a token asked for with a class that the metadata offers has that acr", signIn(
			Need{"acr_values_supported in the metadata", func(e *Env) bool { list, _ := stringList(e.metadata()["acr_values_supported"]); return len(list) > 0 }}),
			func(ctx context.Context, e *Env) error {
				classes, _ := stringList(e.metadata()["acr_values_supported"])
				f, err := e.flow(ctx, set("acr_values", classes[0]))
				if err != nil {
					return err
				}
				if f.answer.Get("error") == "unmet_authentication_requirements" {
					return nil // §5: this person cannot, and the issuer says so
				}
				t, err := f.tokens(ctx)
				if err != nil {
					return err
				}
				access, err := parseAccessToken(t.access)
				if err != nil {
					return err
				}
				return access.wantClaim("acr", classes[0])
			}},
		{"rfc9470-challenge", spec, "§3", "who has not signed in as a resource wants is refused with 401 insufficient_user_authentication, and told what is wanted", challenged,
			func(ctx context.Context, e *Env) error { _, err := e.stepUpChallenge(ctx); return err }},
		{"rfc9470-step-up", spec, "§4", "a token asked for as the challenge says is accepted", with(signIn(), challenged...),
			func(ctx context.Context, e *Env) error {
				wanted, err := e.stepUpChallenge(ctx)
				if err != nil {
					return err
				}
				var changes []change
				for _, name := range []string{"acr_values", "max_age"} {
					if wanted[name] != "" {
						changes = append(changes, set(name, wanted[name]))
					}
				}
				t, err := e.tokens(ctx, append(changes, set("resource", e.Protected), set("scope", e.ProtectedScope))...)
				if err != nil {
					return err
				}
				a, err := e.get(ctx, e.StepUp, http.Header{"Authorization": {"Bearer " + t.access}})
				if err != nil {
					return err
				}
				if a.Status >= http.StatusBadRequest {
					return unexpected("answer", a, plain("an answer without an error"))
				}
				return nil
			}},
	}
}

// stepUpChallenge is what the resource wants of a token that no person signed in for.
func (e *Env) stepUpChallenge(ctx context.Context) (map[string]string, error) {
	t, err := e.issueProtected(ctx)
	if err != nil {
		return nil, err
	}
	a, err := e.get(ctx, e.StepUp, http.Header{"Authorization": {"Bearer " + t.raw}})
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusUnauthorized {
		return nil, unexpected("answer", a, plain("status 401"))
	}
	wanted, err := a.bearerChallenge()
	if err != nil {
		return nil, err
	}
	if wanted["error"] != "insufficient_user_authentication" {
		return nil, unexpected("error of the challenge", wanted["error"], "insufficient_user_authentication")
	}
	if wanted["acr_values"] == "" && wanted["max_age"] == "" {
		return nil, unexpected("challenge", wanted, plain("acr_values or max_age in it"))
	}
	return wanted, nil
}

// bearerChallenge is the Bearer challenge of WWW-Authenticate, taken apart.
func (a *Answer) bearerChallenge() (map[string]string, error) {
	lines := a.Header.Values("WWW-Authenticate")
	i := slices.IndexFunc(lines, func(line string) bool {
		scheme, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		return strings.EqualFold(scheme, "Bearer")
	})
	if i < 0 {
		return nil, unexpected("WWW-Authenticate", strings.Join(lines, ", "), plain("Bearer"))
	}
	_, rest, _ := strings.Cut(strings.TrimSpace(lines[i]), " ")
	parameters := map[string]string{}
	for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, errors.New("WWW-Authenticate: not a list of parameters")
		}
		if value, ok = strings.CutPrefix(value, `"`); ok {
			if value, rest, ok = strings.Cut(value, `"`); !ok {
				return nil, errors.New("WWW-Authenticate: a quote that does not end")
			}
		} else if value, rest, ok = strings.Cut(value, ","); !ok {
			rest = ""
		}
		parameters[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return parameters, nil
}
