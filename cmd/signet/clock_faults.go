//go:build faults

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// A program built with the tag faults has a clock that is as far off as a file
// says at the moment, where the environment names one:
//
//	echo -1h >clock; SIGNET_FAULT_CLOCK=clock signet serve …
//
// Whole seconds, as time.ParseDuration reads them; without the file the clock is
// right. It is set as an operator or a time server sets it: what the day is
// changes, what time has passed does not.
const clockVariable = "SIGNET_FAULT_CLOCK"

func (a *app) machineClock() (func() time.Time, error) {
	name := os.Getenv(clockVariable)
	if name == "" {
		return time.Now, nil
	}
	if now := time.Now(); setBy(now, time.Hour).Sub(now) != 0 || setBy(now, time.Hour).Round(0).Sub(now.Round(0)) != time.Hour {
		return nil, errors.New("this Go's time.Time is not as clock_faults.go takes it to be")
	}
	var off atomic.Int64
	read := func() error {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			off.Store(0)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", clockVariable, err)
		}
		d, err := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("%s: %w", clockVariable, err)
		}
		if before := off.Swap(int64(d)); before != int64(d) {
			a.log.Warn("the clock was set wrong on purpose", "off", d.String())
		}
		return nil
	}
	if err := read(); err != nil {
		return nil, err
	}
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			_ = read() // half-written: the next time tells
		}
	}()
	return func() time.Time { return setBy(time.Now(), time.Duration(off.Load())) }, nil
}

// setBy returns what t would be had the clock been set by d: another day, and
// the same monotonic reading. No method of time.Time does this; its layout is
// part of no promise, so machineClock tries it out.
func setBy(t time.Time, d time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t)) // seconds above 30 bits of nanoseconds
	*wall += uint64(d/time.Second) << 30
	return t
}
