//go:build !faults

package main

import "github.com/signet-oidc/signet/storage"

// withFailpoints is nothing, unless the program is built with the tag faults.
func (a *app) withFailpoints(s storage.Store) (storage.Store, error) { return s, nil }
