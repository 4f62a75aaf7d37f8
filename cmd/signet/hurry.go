//go:build !faults

package main

import (
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
)

// hurry is nothing, unless the program is built with the tag faults.
func hurry(*provider.Policy, *keys.Schedule) error { return nil }
