package provider

import (
	"slices"
	"testing"
	"time"
)

func TestPrompt(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ann := occasion{maxAge: -1, signedIn: true, subject: "ann", authTime: now.Add(-time.Hour), acr: acrPassword, now: now}
	nobody := occasion{maxAge: -1, now: now}
	with := func(o occasion, change func(*occasion)) occasion { change(&o); return o }
	for _, tc := range []struct {
		name string
		o    occasion
		want outcome
	}{
		{"signed in, nothing to ask", ann, issue},
		{"nobody", nobody, askLogin},
		{"nobody, silently", with(nobody, func(o *occasion) { o.prompt = []string{"none"} }), refuseLogin},
		{"consent is missing", with(ann, func(o *occasion) { o.consentMissing = true }), askConsent},
		{"consent is missing, silently", with(ann, func(o *occasion) { o.consentMissing, o.prompt = true, []string{"none"} }), refuseConsent},
		{"consent was just given", with(ann, func(o *occasion) { o.consentMissing, o.consented = true, true }), issue},
		{"always asked", with(ann, func(o *occasion) { o.alwaysAsk = true }), askConsent},
		{"always asked, silently", with(ann, func(o *occasion) { o.alwaysAsk, o.prompt = true, []string{"none"} }), refuseConsent},
		{"prompt=consent", with(ann, func(o *occasion) { o.prompt = []string{"consent"} }), askConsent},
		{"prompt=consent, given", with(ann, func(o *occasion) { o.prompt, o.consented = []string{"consent"}, true }), issue},
		{"prompt=login", with(ann, func(o *occasion) { o.prompt = []string{"login"} }), askLoginAgain},
		{"prompt=login, done", with(ann, func(o *occasion) { o.prompt, o.signedInHere = []string{"login"}, true }), issue},
		{"prompt=login consent, signed in", with(ann, func(o *occasion) { o.prompt, o.signedInHere = []string{"login", "consent"}, true }), askConsent},
		{"prompt=select_account", with(ann, func(o *occasion) { o.prompt = []string{"select_account"} }), askSelect},
		{"prompt=select_account, done", with(ann, func(o *occasion) { o.prompt, o.selectedHere = []string{"select_account"}, true }), issue},
		{"prompt=select_account, signed in instead", with(ann, func(o *occasion) { o.prompt, o.signedInHere = []string{"select_account"}, true }), issue},
		{"prompt=select_account, nobody", with(nobody, func(o *occasion) { o.prompt = []string{"select_account"} }), askLogin},
		{"max_age=0", with(ann, func(o *occasion) { o.maxAge, o.authTime = 0, now }), askLoginAgain},
		{"max_age=0, done", with(ann, func(o *occasion) { o.maxAge, o.authTime, o.signedInHere = 0, now, true }), issue},
		{"max_age reached", with(ann, func(o *occasion) { o.maxAge = time.Hour }), askLoginAgain},
		{"max_age reached, silently", with(ann, func(o *occasion) { o.maxAge, o.prompt = time.Hour, []string{"none"} }), refuseLogin},
		{"max_age not reached", with(ann, func(o *occasion) { o.maxAge = time.Hour + time.Second }), issue},
		{"somebody else is expected", with(ann, func(o *occasion) { o.expected = []string{"bob"} }), askLoginOther},
		{"somebody else is expected, silently", with(ann, func(o *occasion) { o.expected, o.prompt = []string{"bob"}, []string{"none"} }), refuseLogin},
		{"somebody else signed in here", with(ann, func(o *occasion) { o.expected, o.signedInHere = []string{"bob"}, true }), refuseLogin},
		{"who is expected", with(ann, func(o *occasion) { o.expected = []string{"bob", "ann"} }), issue},
		{"essential class reached", with(ann, func(o *occasion) { o.essential = []string{"x", acrPassword} }), issue},
		{"essential class out of reach", with(ann, func(o *occasion) { o.essential = []string{"x"} }), refuseUnmet},
	} {
		if got := decide(tc.o); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestPromptNever goes through every combination and holds the rules that no
// table of examples can: what must never be issued, and never shown.
func TestPromptNever(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	bools := []bool{false, true}
	prompts := [][]string{nil, {"none"}, {"login"}, {"consent"}, {"select_account"}, {"login", "consent"}, {"login", "select_account"}, {"consent", "select_account"}, {"login", "consent", "select_account"}}
	for _, prompt := range prompts {
		for _, maxAge := range []time.Duration{-1, 0, time.Minute, 2 * time.Hour} {
			for _, expected := range [][]string{nil, {"ann"}, {"bob"}, {"bob", "ann"}} {
				for _, essential := range [][]string{nil, {acrPassword}, {"x"}} {
					for bits := range 1 << 6 {
						bit := func(n int) bool { return bools[bits>>n&1] }
						o := occasion{
							prompt: prompt, maxAge: maxAge, expected: expected, essential: essential, now: now,
							signedIn: bit(0), signedInHere: bit(0) && bit(1), selectedHere: bit(0) && bit(2),
							consented: bit(3), consentMissing: bit(4), alwaysAsk: bit(5),
						}
						if o.signedIn {
							o.subject, o.authTime, o.acr = "ann", now.Add(-time.Hour), acrPassword
						}
						got := decide(o)
						has := func(p string) bool { return slices.Contains(prompt, p) }
						fresh := o.signedInHere || !has("login") && (maxAge < 0 || maxAge > time.Hour)
						switch {
						case got == issue && !(o.signedIn && fresh && (expected == nil || slices.Contains(expected, "ann")) && (essential == nil || essential[0] == acrPassword)):
							t.Fatalf("issued to the wrong person or on a stale sign-in: %+v", o)
						case got == issue && !o.consented && (o.consentMissing || o.alwaysAsk || has("consent")):
							t.Fatalf("issued without consent: %+v", o)
						case got == issue && has("select_account") && !o.selectedHere && !o.signedInHere:
							t.Fatalf("issued without a selection: %+v", o)
						case has("none") && got > issue && got < refuseLogin:
							t.Fatalf("a page for prompt=none: %+v", o)
						case (got == askLoginAgain || got == askLoginOther) && o.signedInHere:
							t.Fatalf("asked to sign in for ever: %+v", o)
						case got >= askSelect && got <= askConsent && !o.signedIn:
							t.Fatalf("asked nobody: %+v", o)
						}
					}
				}
			}
		}
	}
}
