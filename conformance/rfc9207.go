package main

import "context"

// RFC 9207: the issuer names itself in authorization answers.
func rfc9207Checks() []Check {
	return []Check{
		{"rfc9207-advertised", "RFC 9207", "§3", "authorization_response_iss_parameter_supported is true",
			[]Need{endpoint("authorization_endpoint")},
			func(_ context.Context, e *Env) error {
				const member = "authorization_response_iss_parameter_supported"
				if v := e.metadata()[member]; v != true {
					return unexpected(member, v, true)
				}
				return nil
			}},
	}
}
