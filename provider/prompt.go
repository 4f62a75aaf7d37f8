package provider

import (
	"slices"
	"time"
)

// occasion is everything that the next step of an authorization depends on.
type occasion struct {
	// What the request asks for (OIDC Core §3.1.2.1).
	prompt    []string      // none, login, consent, select_account
	maxAge    time.Duration // negative: not given
	expected  []string      // the subs that id_token_hint or claims names (OIDC Core §5.5.1); none: anybody
	essential []string      // authentication classes one of which is essential (OIDC Core §5.5.1.1)

	// Who is there.
	signedIn bool
	subject  string
	authTime time.Time
	acr      string

	// What was done in this flow.
	signedInHere bool
	selectedHere bool
	consented    bool

	// What consent there is.
	consentMissing bool // for something that the request asks for
	alwaysAsk      bool // consent given before does not count for such a client

	now time.Time
}

// outcome is what comes next.
type outcome int

const (
	issue outcome = iota
	askLogin
	askLoginAgain // who is there has to sign in once more
	askLoginOther // somebody else is expected
	askSelect
	askConsent
	// Refusals (OIDC Core §3.1.2.6, and OpenID Connect Core Error Code
	// unmet_authentication_requirements 1.0).
	refuseLogin
	refuseConsent
	refuseUnmet
)

// decide says what comes next. It is a pure function, so that all its
// combinations can be tested.
func decide(o occasion) outcome {
	silent := slices.Contains(o.prompt, "none")
	ask := func(question, refusal outcome) outcome {
		if silent {
			return refusal
		}
		return question
	}
	stale := slices.Contains(o.prompt, "login") || o.maxAge >= 0 && !o.now.Before(o.authTime.Add(o.maxAge))
	switch {
	case !o.signedIn:
		return ask(askLogin, refuseLogin)
	case len(o.expected) > 0 && !slices.Contains(o.expected, o.subject):
		if o.signedInHere { // asked once already
			return refuseLogin
		}
		return ask(askLoginOther, refuseLogin)
	case stale && !o.signedInHere:
		return ask(askLoginAgain, refuseLogin)
	case len(o.essential) > 0 && !slices.Contains(o.essential, o.acr):
		return refuseUnmet
	case slices.Contains(o.prompt, "select_account") && !o.selectedHere && !o.signedInHere:
		return askSelect
	case !o.consented && (o.consentMissing || o.alwaysAsk || slices.Contains(o.prompt, "consent")):
		return ask(askConsent, refuseConsent)
	}
	return issue
}
