package main

import (
	"context"
	"net/http"
)

// OAuth 2.0 Form Post Response Mode.
func formPostChecks() []Check {
	const spec = "Form Post"
	who := signIn(formPost())
	byForm := set("response_mode", "form_post")
	return []Check{
		{"form-post-code", spec, "§2", "the code comes in a form that is posted to the redirect URI", who, asking(byPost((*flow).wantCode), byForm)},
		{"form-post-error", spec, "§2", "an error comes in a form that is posted to the redirect URI", who,
			asking(byPost(func(f *flow) error { return f.wantRefused("unsupported_response_type", "invalid_request") }), byForm, unset("response_type"))},
		{"form-post-escaped", spec, "§2", "state is escaped in the page, and arrives as it was sent", who,
			asking(byPost(func(f *flow) error {
				if got := f.answer.Get("state"); got != f.asked.Get("state") {
					return unexpected("state", got, f.asked.Get("state"))
				}
				return f.wantCode()
			}), byForm, set("state", `"><script>alert(1)</script>&amp;`))},
		{"form-post-no-store", spec, "§2", "the page with the code is not cached", who,
			asking(byPost(func(f *flow) error { return f.answered.answer.wantNoStore() }), byForm)},
		{"form-post-tokens", spec, "§2", "a code that came in a form brings tokens", who,
			func(ctx context.Context, e *Env) error {
				_, err := e.tokens(ctx, byForm)
				return err
			}},
		{"response-mode-query", "Multiple Response Types", "§2.1", "response_mode query is the default, and can be asked for", signIn(),
			asking(func(f *flow) error {
				if f.left == nil {
					return unexpected("authorization", f, plain("a redirect"))
				}
				return f.wantCode()
			}, set("response_mode", "query"))},
		{"response-mode-unknown", "Multiple Response Types", "§2.1", "an unknown response_mode brings no code", signIn(),
			asking((*flow).wantNoCode, set("response_mode", "no_such_mode"))},
	}
}

func formPost() Need {
	return Need{"form_post in response_modes_supported", func(e *Env) bool { return e.supports("response_modes_supported", "form_post") }}
}

// byPost judges a flow whose answer has come in a form, and its form.
func byPost(rule func(*flow) error) func(*flow) error {
	return func(f *flow) error {
		if f.answer == nil || f.left != nil {
			return unexpected("authorization", f, plain("a form for the app"))
		}
		forms, err := f.forms()
		if err != nil {
			return err
		}
		for _, form := range forms {
			if form.method == http.MethodPost && form.action.String() == f.asked.Get("redirect_uri") {
				return rule(f)
			}
		}
		return unexpected("forms", len(forms), plain("one that is posted to the redirect URI"))
	}
}
