package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// What notify says.
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
)

// notifyReloading begins a reload, which notifyReady ends. The service manager
// tells by the time that the message is about the reload it asked for.
func notifyReloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // fails only for clocks that do not exist
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// notify tells the service manager that started this process, if one did and
// wants to know, what state it is in: sd_notify(3).
func (a *app) notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET") // one that begins with @ is abstract, to package net too
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		_, err = conn.Write([]byte(state))
	}
	if err != nil {
		a.log.Warn("the service manager could not be told", "state", state, "cause", err.Error())
	}
}
