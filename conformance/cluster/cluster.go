//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/oauth2"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
)

// servedBy is the header in which the balancer says who answered. The replicas
// themselves have no names.
const servedBy = "X-Served-By"

// settings of a cluster.
type settings struct {
	dir      string // where everything runs: empty, and removed by whoever made it
	module   string // the folder of the sources
	binary   string // the provider
	orders   string // the sample API
	database string // PostgreSQL's URL, with the schema of the program or none
	lanes    int    // ways through the balancer besides the issuer's address
	drain    time.Duration
	life     time.Duration // of access tokens
	env      []string      // for the replicas
}

// cluster is three replicas over one database, a balancer in front of them, and
// the sample API behind the issuer that the balancer is.
type cluster struct {
	settings
	issuer   string
	apiURL   string
	state    string // where the balancer tells about itself
	replicas []*replica
	ways     []*lane
	started  atomic.Int32

	api, balancer *process // nil: not started
}

// replica is a place for a provider. It keeps its address, whatever process is
// in it.
type replica struct {
	*process
	cluster *cluster
	name    string
	address string
	born    time.Duration // from the start of the process until it was ready
}

// lane is a way through the balancer with a round of its own: requests in it, one
// after the other, go to one replica after the other, whatever others do. The
// first is the issuer's address.
type lane struct {
	name     string
	bind     string
	replicas []*replica // in the order of its round
}

// newCluster prepares a cluster: its addresses, its database, its keys. Nothing
// runs until start.
func newCluster(s settings) (*cluster, error) {
	c := &cluster{settings: s}
	// Cookies do not tell ports apart, and addresses that nobody else has stay free
	// while a replica is down. On Linux all of 127.0.0.0/8 is this machine.
	host := fmt.Sprintf("127.%d.%d.%d", 1+mrand.IntN(254), mrand.IntN(256), 1+mrand.IntN(254))
	port := 15000 + mrand.IntN(15000) // below those that connections get
	next := func() string {
		port++
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	issuer := next()
	c.issuer, c.apiURL, c.state = "http://"+issuer, "http://"+next(), next()
	for _, name := range []string{"r1", "r2", "r3"} {
		c.replicas = append(c.replicas, &replica{cluster: c, name: name, address: next()})
	}
	c.ways = []*lane{{"signet", issuer, c.replicas}}
	for i := range c.lanes {
		l := &lane{fmt.Sprintf("lane%d", i+1), next(), slices.Clone(c.replicas)}
		if i%2 != 0 {
			slices.Reverse(l.replicas)
		}
		c.ways = append(c.ways, l)
	}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails: it aborts the program instead
	if err := os.WriteFile(filepath.Join(c.dir, "kek"), []byte(base64.StdEncoding.EncodeToString(kek)), 0o600); err != nil {
		return nil, err
	}
	c.env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C.UTF-8", "SIGNET_ISSUER=" + c.issuer,
		"SIGNET_DATABASE=" + s.database, "SIGNET_KEK_FILE=kek"}, s.env...)
	if _, err := c.signet("", "migrate", "up"); err != nil {
		return nil, err
	}
	if _, err := c.signet("", "resource", "create", c.apiURL, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write",
		"--token-lifetime", s.life.String()); err != nil {
		return nil, err
	}
	return c, c.configure()
}

// configure writes the balancer's configuration.
func (c *cluster) configure() error {
	deployed, err := os.ReadFile(filepath.Join(c.module, "docs", "deploy", "haproxy.cfg"))
	if err != nil {
		return err
	}
	config, err := c.adapt(string(deployed))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, "haproxy.cfg"), []byte(config), 0o600)
}

// adapt makes this cluster's configuration of the balancer from the one that
// operators copy. It differs in addresses, in the header that tells who answered,
// and in the lanes.
func (c *cluster) adapt(deployed string) (string, error) {
	for _, change := range []struct {
		times    int
		from, to string
	}{
		{1, "bind :8080", "bind " + c.ways[0].bind},
		{1, "bind :8404", "bind " + c.state},
		{2, "default-server resolvers names init-addr last,libc,none", ""}, // there are no names here
		{2, "balance roundrobin", "balance roundrobin\n    http-response set-header " + servedBy + " %s"},
		{2, "server signet-1 signet-1:8080", "server r1 " + c.replicas[0].address},
		{2, "server signet-2 signet-2:8080", "server r2 " + c.replicas[1].address},
		{2, "server signet-3 signet-3:8080", "server r3 " + c.replicas[2].address},
	} {
		if n := strings.Count(deployed, "    "+change.from+"\n"); n != change.times {
			return "", fmt.Errorf("docs/deploy/haproxy.cfg has %d lines %q, not %d", n, change.from, change.times)
		}
		deployed = strings.ReplaceAll(deployed, "    "+change.from+"\n", "    "+change.to+"\n")
	}
	var rules []string // of the lanes: the same but for the checks, which are made once
	for _, section := range []string{"frontend login", "backend signet"} {
		_, text, found := strings.Cut(deployed, "\n"+section+"\n")
		text, _, ended := strings.Cut(text, "\n\n")
		if !found || !ended {
			return "", errors.New("docs/deploy/haproxy.cfg has no " + section)
		}
		for line := range strings.Lines(text + "\n") {
			words := strings.Fields(line)
			if len(words) > 0 && !slices.Contains([]string{"bind", "default_backend", "server", "default-server"}, words[0]) {
				rules = append(rules, line)
			}
		}
	}
	for _, l := range c.ways[1:] {
		deployed += "\nlisten " + l.name + "\n    bind " + l.bind + "\n" + strings.Join(rules, "")
		for _, r := range l.replicas {
			deployed += "    server " + r.name + " " + r.address + " track signet/" + r.name + "\n"
		}
	}
	return deployed, nil
}

// findBalancer returns the path of HAProxy, which Debian keeps from ordinary
// people's PATH.
func findBalancer() (string, error) {
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no haproxy; install it, on Debian with: apt-get install haproxy")
}

// signet runs a command of the program and returns what it writes to standard
// output. input is its standard input.
func (c *cluster) signet(input string, args ...string) (string, error) {
	cmd := exec.Command(c.binary, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.dir, c.env, strings.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("signet %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// client registers a client with flags for `signet client create`. One that is
// registered before start is known everywhere at once.
func (c *cluster) client(id string, flags ...string) (*people.App, error) {
	out, err := c.signet("", append([]string{"client", "create", "--json", "--id", id, "--name", id}, flags...)...)
	if err != nil {
		return nil, err
	}
	var answer struct {
		ClientSecret string `json:"client_secret"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return nil, fmt.Errorf("client create: %w", err)
	}
	return &people.App{Issuer: c.issuer, Via: c.via(c.ways[0], nil), ID: id, Secret: answer.ClientSecret,
		Callback: "https://" + id + ".example/cb", Verifier: oauth2.GenerateVerifier()}, nil
}

// app registers an app that people sign in to; more are flags for `signet client
// create`.
func (c *cluster) app(id string, more ...string) (*people.App, error) {
	flags := []string{"--grant", "authorization_code", "--grant", "refresh_token", "--redirect-uri", "https://" + id + ".example/cb",
		"--post-logout-redirect-uri", "https://" + id + ".example/bye"}
	for _, scope := range []string{"openid", "profile", "email", "offline_access", "orders:read", "orders:write"} {
		flags = append(flags, "--scope", scope)
	}
	return c.client(id, append(flags, more...)...)
}

// service registers a client that gets tokens for itself.
func (c *cluster) service(id string) (*people.App, error) {
	return c.client(id, "--grant", "client_credentials", "--scope", "orders:read")
}

// person makes an account, with a password that is replaced at the first sign-in.
func (c *cluster) person(name string) (*people.Person, error) {
	p := &people.Person{Name: name, Password: "set by an operator once"}
	_, err := c.signet(p.Password+"\n", "user", "create", name, "--email", name+"@people.example", "--password-stdin")
	return p, err
}

// start starts everything and returns when the balancer sends requests to each
// replica and the API has seen the issuer.
func (c *cluster) start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, r := range c.replicas {
		if err := r.launch(); err != nil {
			return err
		}
	}
	haproxy, err := findBalancer()
	if err != nil {
		return err
	}
	if c.balancer, err = c.run("haproxy", exec.Command(haproxy, "-db", "-f", "haproxy.cfg"), nil); err != nil {
		return err
	}
	for _, r := range c.replicas {
		if err := r.balanced(); err != nil {
			return err
		}
	}
	_, address, _ := strings.Cut(c.apiURL, "//")
	api := exec.Command(c.orders, "--issuer", c.issuer, "--audience", c.apiURL, "--listen", address, "--data", c.dir)
	if c.api, err = c.run("orders", api, listening); err != nil {
		return err
	}
	return await("the API is ready", func() (bool, error) { return c.ask(c.apiURL+"/readyz") == http.StatusOK, nil })
}

// stop ends everything that runs, at once.
func (c *cluster) stop() error {
	var errs []error
	processes := []*process{c.api, c.balancer}
	for _, r := range c.replicas {
		processes = append(processes, r.process)
	}
	for _, p := range processes {
		if p != nil {
			errs = append(errs, p.end(syscall.SIGINT))
		}
	}
	return errors.Join(errs...)
}

// launch starts a provider in the replica's place and waits until it answers.
func (r *replica) launch() error {
	c := r.cluster
	cmd := exec.Command(c.binary, "serve", "--listen", r.address, "--admin-listen", "127.0.0.1:0",
		"--trusted-proxy", "127.0.0.1/32", "--drain", c.drain.String())
	cmd.Env = c.env
	began := time.Now()
	p, err := c.run(r.name, cmd, listening)
	if err != nil {
		return err
	}
	r.process, r.born = p, time.Since(began)
	return nil
}

// balanced waits until the balancer sends requests to the replica.
func (r *replica) balanced() error {
	seen := false
	via := r.cluster.via(r.cluster.ways[0], func(_ *http.Request, _ *http.Response, name string) { seen = seen || name == r.name })
	return await("requests reach "+r.name, func() (bool, error) {
		for _, p := range []*process{r.process, r.cluster.balancer} {
			if !p.up() {
				return false, fmt.Errorf("%s has ended:\n%s", p.name, p.text())
			}
		}
		_, _ = people.Send(via, http.MethodGet, r.cluster.issuer+"/livez", nil) // not always answered yet
		return seen, nil
	})
}

// roll replaces the process of a replica as an operator does, and returns when
// the balancer uses the next one.
func (r *replica) roll() error {
	if err := r.end(syscall.SIGTERM); err != nil {
		return err
	}
	if err := r.launch(); err != nil {
		return err
	}
	return r.balanced()
}

// ask returns the status with which an address answers, 0 for none.
func (c *cluster) ask(address string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// await waits until something comes true.
func await(what string, ok func() (bool, error)) error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		switch done, err := ok(); {
		case err != nil || done:
			return err
		case time.Since(began) > patience:
			return fmt.Errorf("not within %s: %s", patience, what)
		}
	}
}

// passage carries requests for the issuer through a lane.
type passage struct {
	*http.Transport
	note func(req *http.Request, res *http.Response, replica string) // nil: nobody wants to know
}

// via returns a transport that carries requests for the issuer through a lane,
// and tells of each answer which replica gave it. An answer that the balancer
// made itself becomes an error: no replica has answered.
func (c *cluster) via(l *lane, note func(*http.Request, *http.Response, string)) passage {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, l.bind)
	}
	return passage{&http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}, note}
}

// errLost says that the replica went away before it answered.
var errLost = errors.New("the replica went away")

// RoundTrip implements http.RoundTripper.
func (p passage) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := p.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	name := res.Header.Get(servedBy)
	if name == "" {
		res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable {
			return nil, fmt.Errorf("no replica is up: %w", siege.ErrNotSent)
		}
		return nil, fmt.Errorf("%w: %s", errLost, res.Status)
	}
	if p.note != nil {
		p.note(req, res, name)
	}
	return res, nil
}
