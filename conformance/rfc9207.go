package main

import "context"

// RFC 9207: the issuer names itself in authorization answers.
func rfc9207Checks() []Check {
	const spec = "RFC 9207"
	return []Check{
		{"rfc9207-advertised", spec, "§3", "authorization_response_iss_parameter_supported is true",
			[]Need{endpoint("authorization_endpoint")},
			func(_ context.Context, e *Env) error {
				const member = "authorization_response_iss_parameter_supported"
				if v := e.metadata()[member]; v != true {
					return unexpected(member, v, true)
				}
				return nil
			}},
		{"rfc9207-code", spec, "§2", "a code comes with iss, the issuer", signIn(), asking((*flow).wantIssuer)},
		{"rfc9207-error", spec, "§2", "an error comes with iss, the issuer", signIn(), asking((*flow).wantIssuer, unset("response_type"))},
		{"rfc9207-form", spec, "§2", "a code in a form comes with iss, the issuer", signIn(formPost()), asking((*flow).wantIssuer, set("response_mode", "form_post"))},
	}
}

func (f *flow) wantIssuer() error {
	if got := f.answer["iss"]; len(got) != 1 || got[0] != f.env.Issuer {
		return unexpected("iss", got, f.env.Issuer)
	}
	return nil
}
