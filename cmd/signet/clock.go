//go:build !faults

package main

import "time"

// machineClock returns this machine's clock, with the monotonic reading.
func (*app) machineClock() (func() time.Time, error) {
	return time.Now, nil
}
