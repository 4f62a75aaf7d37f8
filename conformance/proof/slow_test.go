package proof

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// honest gets tokens, one after the other, until stopped, and returns how long
// each took, in order. Each must be had.
func honest(a *app, stop <-chan struct{}) []time.Duration {
	var took []time.Duration
	for {
		select {
		case <-stop:
			slices.Sort(took)
			return took
		case <-time.After(10 * time.Millisecond):
		}
		began := time.Now()
		if r, err := a.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}}); err != nil || r.Status != http.StatusOK {
			a.d.t.Errorf("an honest client: %s, %v", r, err)
		}
		took = append(took, time.Since(began))
	}
}

// slowly opens n connections that each begin with a text and go on with a
// byte every two seconds, and returns when the server has closed all, with the
// longest that one was left open.
func slowly(t *testing.T, address, begin string, n int) time.Duration {
	var mu sync.Mutex
	var longest time.Duration
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			began := time.Now()
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, begin)
			var none [512]byte
			for time.Since(began) < patience {
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				if _, err := conn.Read(none[:]); err != nil && !os.IsTimeout(err) {
					mu.Lock()
					defer mu.Unlock()
					longest = max(longest, time.Since(began))
					return
				}
				_, _ = io.WriteString(conn, "x")
			}
			t.Errorf("a connection is open after %v: %.20q", patience, begin)
		})
	}
	all.Wait()
	return longest
}

// T4: 5,000 connections send a byte now and then, in their headers or in their
// bodies, or nothing at all. Each is closed, honest clients get their tokens all
// the while, and the memory it takes is bounded.
func TestSlowloris(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onSQLite)
	s := d.start(1)[0]
	service := d.service("nightly")
	until(t, "the service is known", func() bool { return service.token() != "" })
	n := 5000
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)) // Go has raised it
	if spare := int(limit.Cur) - 1000; spare < n {
		n = max(spare, 100)
		t.Logf("this machine lets a process open no more than %d files", limit.Cur)
	}
	measure := func(during func()) []time.Duration {
		stop, result := make(chan struct{}), make(chan []time.Duration)
		go func() { result <- honest(service, stop) }()
		during()
		close(stop)
		return <-result
	}
	before := measure(func() { time.Sleep(2 * time.Second) })
	const memory = "process_resident_memory_bytes"
	rss, most := s.metric(memory), 0.0
	var closed [3]time.Duration
	under := measure(func() {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			var kinds sync.WaitGroup
			for i, begin := range []string{
				"POST /token HTTP/1.1\r\nHost: x\r\nX-Slow: ",
				"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\n",
				"",
			} {
				kinds.Go(func() { closed[i] = slowly(t, s.public, begin, n/3) })
			}
			kinds.Wait()
		}()
		for {
			select {
			case <-ended:
				return
			case <-time.After(200 * time.Millisecond):
				most = max(most, s.metric(memory))
			}
		}
	})
	if most > rss+256<<20 {
		t.Errorf("it grew from %.0f to %.0f MB", rss/1e6, most/1e6)
	}
	until(t, "all connections are closed", func() bool { return s.metric("signet_http_connections") < 50 })
	t.Logf("%d connections: slow headers closed after at most %v, slow bodies after %v, silent ones after %v",
		n/3*3, closed[0].Round(time.Millisecond), closed[1].Round(time.Millisecond), closed[2].Round(time.Millisecond))
	t.Logf("memory %.0f MB before, %.0f at most; honest tokens: p50 %v, p99 %v of %d before, p50 %v, p99 %v of %d meanwhile", rss/1e6, most/1e6,
		rank(before, .5), rank(before, .99), len(before), rank(under, .5), rank(under, .99), len(under))
}

// Strangers open more connections than the process may have, and leave them
// open: those that wait longest make room, for honest clients and for the
// database, and the operator learns of it.
func TestConnectionsWithoutEnd(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onSQLite)
	d.write("limited", fmt.Sprintf("#!/bin/sh\nulimit -n 400\nexec '%s' \"$@\"\n", d.binary))
	d.binary = filepath.Join(d.dir, "limited")
	must(t, os.Chmod(d.binary, 0o700))
	s := d.start(1)[0]
	service := d.service("nightly")
	until(t, "the service is known", func() bool { return service.token() != "" })
	stop, result := make(chan struct{}), make(chan []time.Duration)
	go func() { result <- honest(service, stop) }()
	conns := make([]net.Conn, 0, 1000)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range cap(conns) {
		conn, err := net.Dial("tcp", s.public)
		must(t, err)
		conns = append(conns, conn)
		if i%2 == 0 { // waits for its second request, not for its first
			_, _ = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		time.Sleep(time.Millisecond)
	}
	until(t, "many are shed", func() bool { return s.metric("signet_http_connections_shed_total") > 500 })
	if open := s.metric("signet_http_connections"); open > 272 {
		t.Errorf("%v connections are open", open)
	}
	d.hangUp()
	if service.token() == "" {
		t.Error("a new client gets no token")
	}
	d.signet("", "client", "create", "--id", "another", "--name", "Another", "--grant", "client_credentials", "--scope", "orders:read")
	close(stop)
	took := <-result
	text, err := os.ReadFile(s.log)
	must(t, err)
	if n := strings.Count(string(text), "too many connections"); n != 1 {
		t.Errorf("the log tells %d times", n)
	}
	t.Logf("%.0f connections shed; %d honest tokens, p99 %v", s.metric("signet_http_connections_shed_total"), len(took), rank(took, .99))
}

// Row 23: the server that a client publishes its keys at takes connections and
// says nothing. Whoever sends assertions in that client's name waits for a
// while, and no more than a few of them do; nobody else waits at all.
func TestSilentKeyServer(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close() // nobody ever accepts; the kernel does
	d := newDeployment(t, onSQLite, func(d *deployment) { d.args = append(d.args, "--outbound-allow", "127.0.0.0/8") })
	s := d.start(1)[0]
	service := d.service("nightly")
	d.signet("", "client", "create", "--id", "silent", "--name", "Silent", "--grant", "client_credentials", "--scope", "orders:read",
		"--auth-method", "private_key_jwt", "--jwks-uri", "http://"+silent.Addr().String()+"/jwks")
	until(t, "the service is known", func() bool { return service.token() != "" })
	quiet := s.metric("go_goroutines")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	assertion := func() string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: rand.Text()}}, nil)
		must(t, err)
		now := time.Now()
		claims, err := json.Marshal(map[string]any{"iss": "silent", "sub": "silent", "aud": d.issuer, "jti": rand.Text(),
			"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
		must(t, err)
		jws, err := signer.Sign(claims)
		must(t, err)
		text, err := jws.CompactSerialize()
		must(t, err)
		return text
	}
	stop, result := make(chan struct{}), make(chan []time.Duration)
	go func() { result <- honest(service, stop) }()
	var all sync.WaitGroup
	var waited atomic.Int64
	for range 200 {
		form := url.Values{"grant_type": {"client_credentials"}, "client_assertion": {assertion()},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
		all.Go(func() {
			began := time.Now()
			r, err := d.send(nil, http.MethodPost, "/token", form)
			if err != nil || r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
				t.Errorf("an assertion of the silent client's: %s, %v", r, err)
			}
			if took := time.Since(began); took > 3*time.Second { // of the 4 a fetch may take
				waited.Add(1)
			}
		})
	}
	all.Wait()
	close(stop)
	took := <-result
	d.hangUp()
	until(t, "nobody waits any more", func() bool { return s.metric("go_goroutines") <= quiet+10 })
	if waited.Load() > 100 { // 16, and a busy machine's
		t.Errorf("%d of 200 waited", waited.Load())
	}
	t.Logf("of 200 assertions %d waited; %d honest tokens meanwhile: p50 %v, p99 %v", waited.Load(), len(took), rank(took, .5), rank(took, .99))
}
