//go:build faults

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
)

// A program built with the tag faults lets keys live for seconds where the
// environment says so, as in
//
//	SIGNET_FAULT_KEY_SCHEDULE=publish=3s,sign=5s,retire=6s,secret=7s,max-age=1s,token=3s,allowance=500ms,prune=1s
//
// publish, sign and retire are the states of a signing key, secret the time a
// symmetric key makes new values, max-age the JWK Set's, token the lifetime of
// access and ID tokens, allowance what is left for clocks, prune how often expired
// rows are looked for.
const scheduleVariable = "SIGNET_FAULT_KEY_SCHEDULE"

// hurry shortens the lives of keys, and of what they sign.
func hurry(policy *provider.Policy, schedule *keys.Schedule) error {
	var token time.Duration
	for setting := range strings.SplitSeq(os.Getenv(scheduleVariable), ",") {
		if setting == "" {
			continue
		}
		name, text, _ := strings.Cut(setting, "=")
		field, known := map[string]*time.Duration{
			"publish": &schedule.PublishAhead, "sign": &schedule.Sign, "retire": &schedule.Retire, "secret": &schedule.Secret,
			"allowance": &schedule.Allowance, "prune": &policy.PruneEvery, "max-age": &policy.JWKSMaxAge, "token": &token,
		}[name]
		d, err := time.ParseDuration(text)
		if !known || err != nil || d <= 0 {
			return fmt.Errorf("%s: %q is no setting of it", scheduleVariable, setting)
		}
		*field = d
	}
	if token > 0 {
		policy.AccessTokenLifetime, policy.MinAccessTokenLifetime, policy.MaxAccessTokenLifetime = token, token, token
		policy.IDTokenLifetime = token
	}
	return nil
}
