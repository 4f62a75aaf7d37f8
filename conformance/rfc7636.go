package main

import (
	"context"
	"net/http"
	"strings"
)

// RFC 7636: proof key for code exchange.
func rfc7636Checks() []Check {
	const spec = "RFC 7636"
	who := signIn()
	invalid := []string{"invalid_request"}
	return []Check{
		{"rfc7636-public-required", spec, "§4.4.1", "a public client without code_challenge is invalid_request", signIn(nativeApp()),
			func(ctx context.Context, e *Env) error {
				f, err := e.flowFor(ctx, e.native(), unset("code_challenge", "code_challenge_method"))
				if err != nil {
					return err
				}
				return f.wantRefused(invalid...)
			}},
		{"rfc7636-plain", spec, "§4.4.1", "code_challenge_method plain is invalid_request", who,
			refusing(invalid, set("code_challenge_method", "plain"))},
		{"rfc7636-method-default", spec, "§4.3", "a challenge without method, which means plain, is invalid_request", who,
			refusing(invalid, unset("code_challenge_method"))},
		{"rfc7636-unknown-method", spec, "§4.4.1", "an unknown code_challenge_method is invalid_request", who,
			refusing(invalid, set("code_challenge_method", "S257"))},
		{"rfc7636-challenge-syntax", spec, "§4.2", "a code_challenge that no verifier has is invalid_request", who,
			func(ctx context.Context, e *Env) error {
				for _, challenge := range []string{"short", strings.Repeat("a", 42) + "=", strings.Repeat("a", 42) + "+", strings.Repeat("a", 129)} {
					if err := refusing(invalid, set("code_challenge", challenge))(ctx, e); err != nil {
						return err
					}
				}
				return nil
			}},
		{"rfc7636-accepted", spec, "§4.6", "a code with the verifier of its challenge brings tokens", who,
			func(ctx context.Context, e *Env) error {
				// Appendix B
				_, err := e.tokensFor(ctx, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
				return err
			}},
		{"rfc7636-wrong-verifier", spec, "§4.6", "another verifier is invalid_grant", who,
			redeeming([]string{"invalid_grant"}, set("code_verifier", newVerifier()))},
		{"rfc7636-no-verifier", spec, "§4.6", "a code without its verifier is refused", who,
			redeeming([]string{"invalid_grant", "invalid_request"}, unset("code_verifier"))},
		{"rfc7636-second-try", spec, "§4.6", "after a wrong verifier, leaving it out does not help", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.flow(ctx)
				if err != nil {
					return err
				}
				if _, err := f.redeem(ctx, set("code_verifier", newVerifier())); err != nil {
					return err
				}
				a, err := f.redeem(ctx, unset("code_verifier"))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_grant", "invalid_request")
			}},
		{"rfc7636-challenge-as-verifier", spec, "§4.6", "the challenge is no verifier, as plain would have it", who,
			func(ctx context.Context, e *Env) error {
				f, err := e.flow(ctx)
				if err != nil {
					return err
				}
				a, err := f.redeem(ctx, set("code_verifier", challengeOf(f.verifier)))
				if err != nil {
					return err
				}
				return a.wantError(http.StatusBadRequest, "invalid_grant")
			}},
		{"rfc7636-verifier-syntax", spec, "§4.1", "a verifier too short or of other characters is refused, though its digest is right", who,
			func(ctx context.Context, e *Env) error {
				for _, verifier := range []string{strings.Repeat("a", 42), strings.Repeat("a", 129), strings.Repeat("a", 42) + "+"} {
					f, err := e.flow(ctx, set("code_challenge", challengeOf(verifier)))
					if err != nil {
						return err
					}
					a, err := f.redeem(ctx, set("code_verifier", verifier))
					if err != nil {
						return err
					}
					if err := a.wantError(http.StatusBadRequest, "invalid_grant", "invalid_request"); err != nil {
						return err
					}
				}
				return nil
			}},
	}
}

// tokensFor gets tokens with a verifier and challenge of the check's own.
func (e *Env) tokensFor(ctx context.Context, verifier, challenge string) (*tokens, error) {
	f, err := e.flow(ctx, set("code_challenge", challenge))
	if err != nil {
		return nil, err
	}
	return f.tokens(ctx, set("code_verifier", verifier))
}
