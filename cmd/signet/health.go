package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

type healthCmd struct {
	AdminListen string        `default:"127.0.0.1:8081" placeholder:"ADDR" help:"The server's --admin-listen (${default})."`
	Timeout     time.Duration `default:"5s" placeholder:"DUR" help:"How long to wait (${default})."`
}

// Help says what the exit status means.
func (*healthCmd) Help() string {
	return "Exit status 0 when the server is ready for requests, 1 when it is not or does not answer; fit for a container's health check."
}

func (*healthCmd) Examples() string { return "signet health || echo not ready" }

func (c *healthCmd) Run(ctx context.Context, a *app) error {
	host, port, err := net.SplitHostPort(c.AdminListen)
	if err != nil {
		return usage(fmt.Sprintf("--admin-listen %q is not host:port", c.AdminListen), "write it as 127.0.0.1:8081")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // what listens everywhere listens here
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	url := "http://" + net.JoinHostPort(host, port) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usage(fmt.Sprintf("--admin-listen %q is not host:port", c.AdminListen), "write it as 127.0.0.1:8081")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return &failure{status: exitFailed, code: "not_ready", message: "no answer from " + url, fix: "see that `signet serve` runs with this --admin-listen"}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return &failure{status: exitFailed, code: "not_ready", message: fmt.Sprintf("%s answers %d", url, res.StatusCode), fix: "the server's log says why"}
	}
	return a.print(map[string]any{"ready": true}, func(w io.Writer) { fmt.Fprintln(w, "ready") })
}
