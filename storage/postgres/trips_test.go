package postgres_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// countTrips stands before the server that the URL names and counts how often
// a client stops to wait for it: at Sync, and at simple queries (PostgreSQL
// manual, message formats).
func countTrips(t *testing.T, address string) (proxied string, trips *atomic.Int64) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	trips = new(atomic.Int64)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				back, err := net.Dial("tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				defer back.Close()
				go func() { _, _ = io.Copy(client, back); client.Close() }()
				_ = forward(back, bufio.NewReader(client), trips) // ends with the connection
			}()
		}
	}()
	u.Host = l.Addr().String()
	return u.String(), trips
}

func forward(to io.Writer, from io.Reader, trips *atomic.Int64) error {
	head := make([]byte, 4) // the first message has no type
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		message := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
		if _, err := io.ReadFull(from, message); err != nil {
			return err
		}
		if head[0] == 'S' || head[0] == 'Q' {
			trips.Add(1)
		}
		if _, err := to.Write(append(head[:len(head):len(head)], message...)); err != nil {
			return err
		}
		head = make([]byte, 5)
	}
}

// What the busiest requests ask costs one round trip each, and a transaction of
// one statement two: it begins with the statement.
func TestRoundTrips(t *testing.T) {
	address, trips := countTrips(t, storagetest.Postgres(t))
	s, err := postgres.Open(t.Context(), address, postgres.Options{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	rotate := func(ctx context.Context, tx storage.Tx) error {
		err := tx.RotateGrant(ctx, "g", 1, now, "k", now)
		if errors.Is(err, storage.ErrConsumed) { // there is no such grant
			return nil
		}
		return err
	}
	absent := func(err error) error {
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	}
	update := func(fn func(ctx context.Context, tx storage.Tx) error) func(context.Context) error {
		return func(ctx context.Context) error { return s.Update(ctx, fn) }
	}
	for name, c := range map[string]struct {
		want int64
		call func(ctx context.Context) error
	}{
		"grant with its person": {1, func(ctx context.Context) error { _, err := s.Standing(ctx, "g"); return absent(err) }},
		"session with its user": {1, func(ctx context.Context) error { _, _, err := s.SessionUser(ctx, "s"); return absent(err) }},
		"user with roles":       {1, func(ctx context.Context) error { _, err := s.User(ctx, "u"); return absent(err) }},
		"revocations": {1, func(ctx context.Context) error {
			_, err := s.Revocations(ctx, []storage.RevocationKey{{Kind: "sub"}}, now)
			return err
		}},
		"one statement": {2, update(rotate)},
		"one row": {2, update(func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.Grant(ctx, "g")
			return absent(err)
		})},
		"many rows": {2, update(func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.Consents(ctx, "u", "c")
			return err
		})},
		"nothing at all": {0, update(func(context.Context, storage.Tx) error { return nil })},
	} {
		// The first call prepares the statement; the pool asks after a
		// connection that was idle for a second.
		least := int64(1000)
		for range 4 {
			before := trips.Load()
			if err := c.call(t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			least = min(least, trips.Load()-before)
		}
		if least != c.want {
			t.Errorf("%s: %d round trips, want %d", name, least, c.want)
		}
	}
}
