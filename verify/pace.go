//go:build !faults

package verify

import "time"

// How soon keys are fetched again: after a success, after a failure, and
// because a token names one that is not known.
const (
	minRefresh   = 30 * time.Second
	minBackoff   = time.Second
	maxBackoff   = 30 * time.Second
	missCooldown = 30 * time.Second
)
