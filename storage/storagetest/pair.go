//go:build unix

package storagetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pair is a throwaway primary and a streaming standby of it. URL names both,
// as an operator would: whoever connects with it finds the one that may be
// written to, before and after a failover.
type Pair struct {
	servers [2]*Server
	primary int // of servers; the other is the standby, or dead
	async   bool
}

// PairOptions are settings of a throwaway pair.
type PairOptions struct {
	ServerOptions
	// Async lets commits be answered before the standby has them, which loses
	// them when the primary dies. Without it they wait for the standby.
	Async bool
}

// slot holds back the primary's log for a standby that is away.
const slot = "standby"

// StartPair makes a primary and a standby and starts them; the standby streams
// when it returns. The caller calls Close.
func StartPair(opts PairOptions) (_ *Pair, err error) {
	primary, err := StartServer(opts.ServerOptions)
	if err != nil {
		return nil, err
	}
	p := &Pair{servers: [2]*Server{primary}, async: opts.Async}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	return p, p.Rejoin()
}

// Primary returns the server that may be written to.
func (p *Pair) Primary() *Server { return p.servers[p.primary] }

// Standby returns the other one, which is dead between KillPrimary and Rejoin.
func (p *Pair) Standby() *Server { return p.servers[1-p.primary] }

// URL returns the address of a database on whichever server is the primary, for
// clients that know libpq's target_session_attrs. It stays the same for good.
func (p *Pair) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("signet", p.Primary().password), Path: "/" + database}
	var hosts []string
	for _, s := range p.servers {
		hosts = append(hosts, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	}
	u.Host = strings.Join(hosts, ",")
	u.RawQuery = "sslmode=disable&target_session_attrs=read-write"
	return u.String()
}

// KillPrimary ends the primary as the death of its machine would. Nobody takes
// its place until Promote is called.
func (p *Pair) KillPrimary() error { return p.Primary().Kill() }

// Promote makes the standby the primary, and waits until it may be written to.
// It has no standby then, so its commits wait for none, until Rejoin.
func (p *Pair) Promote() error {
	p.primary = 1 - p.primary
	err := p.Primary().do(`SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()`, `SELECT pg_promote(false)`)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	return p.wait("the standby is still read-only", `SELECT NOT pg_is_in_recovery()`)
}

// Rejoin makes the standby anew from a copy of the primary, in the place and at
// the port of the dead server, and waits until it has caught up.
func (p *Pair) Rejoin() error {
	primary := p.Primary()
	if err := p.clone(); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	if err := p.Standby().Start(); err != nil {
		return err
	}
	want, names := "sync", "*" // whoever streams; there is one
	if p.async {
		want, names = "async", ""
	}
	// Only now, or the statements before would wait for a standby.
	if err := primary.do(`ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`, `SELECT pg_reload_conf()`); err != nil {
		return err
	}
	return p.wait("the standby does not stream", `SELECT count(*) = 1 FROM pg_stat_replication
		WHERE state = 'streaming' AND sync_state = '`+want+`' AND replay_lsn >= pg_current_wal_flush_lsn()`)
}

// clone makes the standby's data from the primary's.
func (p *Pair) clone() error {
	primary := p.Primary()
	standby := p.Standby()
	if standby == nil {
		standby = &Server{bin: primary.bin, password: primary.password, cred: primary.cred, fsync: primary.fsync}
		if err := standby.prepare(); err != nil {
			return err
		}
		p.servers[1-p.primary] = standby
	}
	if err := errors.Join(standby.Kill(), os.RemoveAll(standby.data())); err != nil {
		return err
	}
	if err := primary.do(`ALTER SYSTEM SET synchronous_standby_names = ''`, `SELECT pg_reload_conf()`,
		`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '`+slot+`'`); err != nil {
		return err
	}
	backup := standby.command(filepath.Join(primary.bin, "pg_basebackup"), "-d", primary.URL("postgres"), "-D", standby.data(),
		"-R", "-C", "-S", slot, "-X", "stream", "-c", "fast", "--no-sync")
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	return standby.configure()
}

// PauseReceiving keeps from the standby what the primary writes from now on, as
// a slow network would, until Rejoin. It is for an asynchronous pair: commits of
// another would wait.
func (p *Pair) PauseReceiving() error {
	// A walreceiver that cannot log in streams nothing, and the standby goes on.
	return errors.Join(p.Standby().do(`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`),
		p.wait("the standby still streams", `SELECT count(*) = 0 FROM pg_stat_replication`))
}

// wait asks the primary until it says true.
func (p *Pair) wait(otherwise, query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		// A server that is being promoted may end a query, or its connection.
		yes, err := p.ask(ctx, query)
		switch {
		case yes:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", otherwise, errors.Join(ctx.Err(), err))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *Pair) ask(ctx context.Context, query string) (yes bool, err error) {
	conn, err := pgx.Connect(ctx, p.Primary().URL("postgres"))
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, query).Scan(&yes)
	return yes && err == nil, err
}

// Close ends both and removes everything they made.
func (p *Pair) Close() error {
	var errs []error
	for _, s := range p.servers {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
