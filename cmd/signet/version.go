package main

import (
	"fmt"
	"io"
	"runtime/debug"
)

type versionCmd struct{}

func (*versionCmd) Examples() string { return "signet version" }

type versionJSON struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

// buildVersion reads what the Go tool wrote into the binary.
func buildVersion() versionJSON {
	v := versionJSON{Version: "unknown", Commit: "unknown", Go: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		v.Commit += "+changes"
	}
	return v
}

// serverVersion is what servers tell `signet doctor` of themselves.
func serverVersion() string {
	v := buildVersion()
	return v.Version + ", commit " + v.Commit
}

func (*versionCmd) Run(a *app) error {
	v := buildVersion()
	return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "signet %s, commit %s, %s\n", v.Version, v.Commit, v.Go) })
}
