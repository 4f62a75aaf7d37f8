package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used since it started.
type processUsage struct {
	cpu     time.Duration
	peakRSS int64 // bytes
}

// clockTick is the unit of CPU time in /proc, the same on all Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// readProcess reads the CPU time, user and system, and the peak memory of a
// process (proc_pid_stat(5), proc_pid_status(5)).
func readProcess(pid int) (processUsage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processUsage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	// The second field is the name, in brackets, and may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, system = 14 - 3, 15 - 3 // numbered from 1, and two are gone
	if len(fields) <= system {
		return processUsage{}, fmt.Errorf("process %d: stat has %d fields", pid, len(fields)+2)
	}
	u, errUser := strconv.ParseInt(fields[user], 10, 64)
	s, errSystem := strconv.ParseInt(fields[system], 10, 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return processUsage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	kb, err := procValue(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	if err != nil {
		return processUsage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return processUsage{time.Duration(u+s) * clockTick, kb << 10}, nil
}

// procValue reads a "Name: 123 kB" line.
func procValue(file, name string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if k, v, _ := strings.Cut(line, ":"); k == name {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
