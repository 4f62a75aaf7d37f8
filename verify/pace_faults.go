//go:build faults

package verify

import "time"

// With the tag faults providers may let keys live for seconds.
const (
	minRefresh   = 500 * time.Millisecond
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 500 * time.Millisecond
	missCooldown = 500 * time.Millisecond
)
