//go:build !linux

package main

const (
	notifyReady    = ""
	notifyStopping = ""
)

func notifyReloading() string { return "" }

// notify does nothing: only systemd listens, and only Linux has it.
func (*app) notify(string) {}
