//go:build unix

package main

import "syscall"

// maxFiles returns how many files and connections the process may have open.
// Go has raised it to what the machine allows.
func maxFiles() int {
	const unlimited = 1 << 30
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > unlimited {
		return unlimited
	}
	return int(limit.Cur)
}
