//go:build faults

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// A program built with the tag faults dies on purpose, at the worst moment,
// where the environment says so:
//
//	SIGNET_FAILPOINT='redeem.before_commit=kill:0.05 rotate.after_commit=kill@3'
//
// kills the process with SIGKILL in one of twenty redemptions, or in the third
// rotation. The points are, each .before_commit and .after_commit:
//
//	approve  a grant is made: consent was given
//	redeem   a code is redeemed
//	rotate   a refresh token is used
//	revoke   a grant is revoked, by replay, reuse or a person's or client's wish
//	append   the revocation log gets an entry
//
// Before the commit everything was said to the database but that; after it
// nobody was told yet.
const failpointVariable = "SIGNET_FAILPOINT"

// failpoint is one place and when to die there.
type failpoint struct {
	probability float64 // 0: at the nth time
	nth         int64
	seen        atomic.Int64
}

type failpoints map[string]*failpoint

// withFailpoints puts the failpoints that are asked for before the database.
func (a *app) withFailpoints(s storage.Store) (storage.Store, error) {
	points := make(failpoints)
	for text := range strings.FieldsSeq(os.Getenv(failpointVariable)) {
		name, action, _ := strings.Cut(text, "=")
		p := new(failpoint)
		probability, chance := strings.CutPrefix(action, "kill:")
		nth, counted := strings.CutPrefix(action, "kill@")
		var err error
		switch {
		case chance:
			p.probability, err = strconv.ParseFloat(probability, 64)
		case counted:
			p.nth, err = strconv.ParseInt(nth, 10, 64)
		default:
			err = errors.New("want kill:PROBABILITY or kill@N")
		}
		if err != nil {
			return s, fmt.Errorf("%s: %q: %w", failpointVariable, text, err)
		}
		points[name] = p
	}
	a.log.Warn("this program is built to die on purpose", "at", os.Getenv(failpointVariable))
	return &faultyStore{s, points}, nil
}

// reach dies if it is time to. The line it writes first is what counts deaths.
func (f failpoints) reach(name string) {
	p := f[name]
	if p == nil {
		return
	}
	seen := p.seen.Add(1)
	if p.probability > 0 && rand.Float64() < p.probability || p.nth > 0 && seen == p.nth {
		fmt.Fprintf(os.Stderr, "failpoint %s\n", name)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute) // nothing more happens here until the signal arrives
	}
}

// faultyStore is a database whose transactions pass the failpoints.
type faultyStore struct {
	storage.Store
	points failpoints
}

// Update implements storage.Store.
func (s *faultyStore) Update(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	var done []string
	err := s.Store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		recorder := &faultyTx{Tx: tx}
		err := fn(ctx, recorder)
		if done = recorder.done; err == nil {
			s.reach(done, ".before_commit")
		}
		return err
	})
	if err == nil {
		s.reach(done, ".after_commit")
	}
	return err
}

func (s *faultyStore) reach(done []string, when string) {
	for _, name := range done {
		s.points.reach(name + when)
	}
}

// faultyTx notes what a transaction has done.
type faultyTx struct {
	storage.Tx
	done []string
}

func (t *faultyTx) note(name string, err error) error {
	if err == nil {
		t.done = append(t.done, name)
	}
	return err
}

// CreateGrant implements storage.Tx.
func (t *faultyTx) CreateGrant(ctx context.Context, g storage.Grant) error {
	return t.note("approve", t.Tx.CreateGrant(ctx, g))
}

// RedeemCode implements storage.Tx.
func (t *faultyTx) RedeemCode(ctx context.Context, id string, now time.Time, r storage.Redemption) error {
	return t.note("redeem", t.Tx.RedeemCode(ctx, id, now, r))
}

// RotateGrant implements storage.Tx.
func (t *faultyTx) RotateGrant(ctx context.Context, id string, from int64, now time.Time, keyVersion string, idleEnd time.Time) error {
	return t.note("rotate", t.Tx.RotateGrant(ctx, id, from, now, keyVersion, idleEnd))
}

// RevokeGrant implements storage.Tx.
func (t *faultyTx) RevokeGrant(ctx context.Context, id string, at time.Time, reason string) (bool, error) {
	changed, err := t.Tx.RevokeGrant(ctx, id, at, reason)
	if changed {
		_ = t.note("revoke", err)
	}
	return changed, err
}

// AppendRevocation implements storage.Tx.
func (t *faultyTx) AppendRevocation(ctx context.Context, r storage.Revocation) (int64, error) {
	seq, err := t.Tx.AppendRevocation(ctx, r)
	return seq, t.note("append", err)
}
