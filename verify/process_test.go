package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/verify"
	"github.com/signet-oidc/signet/verify/internal/feedtest"
)

var long = flag.Bool("long", os.Getenv("SIGNET_LONG") != "", "as much as a release deserves, rather than every change")

// TestMain lets this program be the resource server whose memory is measured, in
// a process of its own.
func TestMain(m *testing.M) {
	if plan := os.Getenv("SIGNET_VERIFIER"); plan != "" {
		if err := verifierProcess(plan); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A plan is what the process does; a figure what it found.
type plan struct {
	Issuer  string
	Token   string // a valid one
	Strange int    // tokens with made-up kids to be shown
	Seq     int64  // wait for this entry
}

type figures struct {
	RSS, Peak     int64 // KiB, of the process
	Entries       int
	Loaded        time.Duration // until the snapshot was there
	Grown         int64         // KiB, while strange tokens were shown
	Fetches       uint64        // of the key set, in that time
	Took          time.Duration // showing them
	Alone, Amidst time.Duration // the middle time to verify a new token, before and in between
}

func verifierProcess(text string) error {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	began := time.Now()
	v, err := verify.New(context.Background(), p.Issuer, audience, verify.WithCacheEntries(0), verify.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	for v.Revocation().Seq < p.Seq || v.Revocation().State != verify.RevocationFresh {
		if time.Since(began) > time.Minute {
			return fmt.Errorf("not followed: %w, %+v", v.Ready(), v.Revocation())
		}
		time.Sleep(time.Millisecond)
	}
	f := figures{Loaded: time.Since(began)}
	if f.Peak, err = memory("VmHWM"); err != nil {
		return err
	}
	if p.Strange > 0 {
		if err := showStrange(v, p, &f); err != nil {
			return err
		}
	}
	debug.FreeOSMemory()
	if f.RSS, err = memory("VmRSS"); err != nil {
		return err
	}
	f.Entries = v.Revocation().Entries
	return json.NewEncoder(os.Stdout).Encode(f)
}

// showStrange shows the verifier tokens that name keys nobody has.
func showStrange(v *verify.Verifier, p plan, f *figures) error {
	header, rest, _ := strings.Cut(p.Token, ".")
	var known map[string]any
	if err := json.Unmarshal([]byte(unb64(header)), &known); err != nil {
		return err
	}
	strange := func() error {
		known["kid"] = rand.Text()
		text, err := json.Marshal(known)
		if err == nil {
			_, err = v.Verify(context.Background(), b64(string(text))+"."+rest)
		}
		if err == nil || !strings.Contains(err.Error(), "unknown") {
			return fmt.Errorf("a made-up kid: %w", err)
		}
		return nil
	}
	valid := func() (time.Duration, error) {
		began := time.Now()
		_, err := v.Verify(context.Background(), p.Token)
		return time.Since(began), err
	}
	middle := func(n int, between func() error) (time.Duration, error) {
		var all []time.Duration
		for range n {
			if err := between(); err != nil {
				return 0, err
			}
			took, err := valid()
			if err != nil {
				return 0, err
			}
			all = append(all, took)
		}
		slices.Sort(all)
		return all[len(all)/2], nil
	}
	const valids = 500
	var err error
	for range 20_000 { // everything that is made once is made
		if err := strange(); err != nil {
			return err
		}
	}
	if f.Alone, err = middle(valids, func() error { return nil }); err != nil {
		return err
	}
	debug.FreeOSMemory()
	before, err := memory("VmRSS")
	if err != nil {
		return err
	}
	fetches, began := v.Stats().Fetches, time.Now()
	if f.Amidst, err = middle(valids, func() error {
		for range p.Strange / valids {
			if err := strange(); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	f.Took, f.Fetches = time.Since(began), v.Stats().Fetches-fetches
	debug.FreeOSMemory()
	after, err := memory("VmRSS")
	f.Grown = after - before
	return err
}

// memory reads a figure of this process, in KiB.
func memory(name string) (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s", name)
}

// measure runs the plan in a process of its own.
func measure(t *testing.T, p plan) (f figures) {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "SIGNET_VERIFIER="+string(text))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// listening serves a world's issuer on loopback, with n entries in the snapshot
// and the log ending at seq.
func listening(t *testing.T, n int) (w *world, url string, keysAsked *atomic.Int64) {
	t.Helper()
	w = newWorld(t)
	keysAsked = &atomic.Int64{}
	w.feed.Block("sub", "somebody", life)
	snapshot := bigSnapshot(w.feed, n)
	w.feed.Intercept = func(a http.ResponseWriter, r *http.Request) bool {
		if n == 0 || !strings.HasSuffix(r.URL.Path, "/snapshot") {
			return false
		}
		_, _ = a.Write(snapshot())
		return true
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			keysAsked.Add(1)
		}
		w.ServeHTTP(a, r)
	}))
	url = "http://" + server.Listener.Addr().String()
	w.issuer, w.feed.Issuer = url, url
	server.Start()
	t.Cleanup(func() { w.feed.Close(); server.CloseClientConnections(); server.Close() })
	return w, url, keysAsked
}

// bigSnapshot returns what makes a snapshot of n blocks by chance, in groups of
// as many minutes as a token lives.
func bigSnapshot(feed *feedtest.Feed, n int) func() []byte {
	body := make([]byte, 0, 16*n+14*32)
	const groups = 16
	left := n
	for g := groups; g > 0; g-- {
		size := left / g
		left -= size
		if size == 0 {
			continue
		}
		body = append(body, 1, 1)
		body = binary.BigEndian.AppendUint64(body, uint64(time.Now().Add(time.Duration(60+groups-g)*time.Minute).UnixMilli()))
		body = binary.BigEndian.AppendUint32(body, uint32(size))
		body = body[:len(body)+16*size]
		_, _ = rand.Read(body[len(body)-16*size:])
	}
	return func() []byte {
		claims := claimsOf(feed.Heartbeat())
		claims["count"], claims["size"], claims["sha256"] = n, len(body), sha(body)
		return slices.Concat([]byte(feed.Sign(feedtest.Snapshot, claims)+"\n"), body)
	}
}

// A million revocations cost a verifier's process less than 100 MiB, also at the
// peak, while they are loaded.
func TestMemoryOfRevocations(t *testing.T) {
	_, empty, _ := listening(t, 0)
	_, full, _ := listening(t, 1_000_000)
	none, million := measure(t, plan{Issuer: empty, Seq: 1}), measure(t, plan{Issuer: full, Seq: 1})
	t.Logf("a million entries: %d MiB more, %d MiB at the peak, loaded in %v; none: %d MiB",
		(million.RSS-none.RSS)>>10, (million.Peak-none.Peak)>>10, million.Loaded.Round(time.Millisecond), none.RSS>>10)
	if million.Entries != 1_000_000 {
		t.Fatalf("%d entries", million.Entries)
	}
	if grown := million.Peak - none.Peak; grown > 100<<10 && !raceEnabled {
		t.Errorf("%d KiB more", grown)
	}
}

// V24: tokens that name made-up keys cost no memory, no fetches and no other
// token's time.
func TestMemoryOfStrangers(t *testing.T) {
	w, url, asked := listening(t, 0)
	n := 100_000
	switch {
	case *long:
		n = 1_000_000
	case raceEnabled:
		n = 10_000
	}
	now := time.Now()
	token := w.key.token(set("iss", url), set("iat", now.Unix()), set("exp", now.Add(time.Hour).Unix()))
	f := measure(t, plan{Issuer: url, Seq: 1, Token: token, Strange: n})
	t.Logf("%d tokens with made-up kids in %v: %d KiB more, %d fetches (%d in all); a valid token took %v, in between %v",
		n, f.Took.Round(time.Millisecond), f.Grown, f.Fetches, asked.Load(), f.Alone, f.Amidst)
	if f.Grown > 1<<10 && !raceEnabled {
		t.Errorf("%d KiB more", f.Grown)
	}
	if most := uint64(f.Took/(30*time.Second)) + 1; f.Fetches > most {
		t.Errorf("%d fetches", f.Fetches)
	}
	// Far more than the tenth that a quiet machine shows: others work here too.
	if f.Amidst > 4*f.Alone+time.Millisecond {
		t.Errorf("a valid token took %v, and %v in between", f.Alone, f.Amidst)
	}
}
