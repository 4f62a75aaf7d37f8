package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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
	ticks, err := sumOf(fields, 14, 15)
	if err != nil {
		return processUsage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	kb, err := procValue(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	if err != nil {
		return processUsage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return processUsage{time.Duration(ticks) * clockTick, kb << 10}, nil
}

// sumOf adds fields of /proc/PID/stat up, which are numbered from 1; the first
// two are gone.
func sumOf(fields []string, numbers ...int) (sum int64, err error) {
	for _, number := range numbers {
		if len(fields) <= number-3 {
			return 0, fmt.Errorf("stat has %d fields", len(fields)+2)
		}
		n, err := strconv.ParseInt(fields[number-3], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// readFamily reads the CPU time of a process and of its children, those that
// have ended among them. It tells nothing of their memory, of which they share
// the most.
func readFamily(pid int) (processUsage, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return processUsage{}, err
	}
	var ticks int64
	found := false
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		own := filepath.Base(filepath.Dir(file)) == strconv.Itoa(pid)
		numbers := []int{14, 15} // user, system
		if own {
			found = true
			numbers = append(numbers, 16, 17) // of the children it has waited for
		} else if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		n, err := sumOf(fields, numbers...)
		if err != nil {
			return processUsage{}, fmt.Errorf("%s: %w", file, err)
		}
		ticks += n
	}
	if !found {
		return processUsage{}, fmt.Errorf("process %d: there is none", pid)
	}
	return processUsage{cpu: time.Duration(ticks) * clockTick}, nil
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
