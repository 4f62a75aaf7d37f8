package proof

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/conformance/internal/siege"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// disk is a small file system of its own.
type disk struct {
	t    *testing.T
	path string
}

// newDisk mounts one of so many megabytes, in memory. Where the tests are
// neither root nor let make a user namespace nobody can: then it is nil.
func newDisk(t *testing.T, megabytes int) *disk {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk-") // PostgreSQL's user cannot enter t.TempDir
	must(t, err)
	t.Cleanup(func() { _ = os.Remove(dir) })
	must(t, os.Chmod(dir, 0o755))
	options := fmt.Sprintf("size=%dm,mode=1777", megabytes)
	if os.Geteuid() == 0 && exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).Run() == nil {
		t.Cleanup(func() {
			if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
				t.Errorf("umount: %v: %s", err, out)
			}
		})
		return &disk{t, dir}
	}
	// A process that holds the mount in a namespace of its own, which its
	// user's other processes see through /proc.
	holder := exec.Command("unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c",
		`mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && read -r end`, "sh", options, dir)
	stdin, err := holder.StdinPipe()
	must(t, err)
	stdout, err := holder.StdoutPipe()
	must(t, err)
	if holder.Start() != nil {
		return nil
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = holder.Wait() // read ends with the input, and says so
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "mounted\n" {
		return nil
	}
	return &disk{t, fmt.Sprintf("/proc/%d/root%s", holder.Process.Pid, dir)}
}

// fill leaves no room.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(d.t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
	}
}

// free makes room again.
func (d *disk) free() { must(d.t, os.Remove(d.ballast())) }

func (d *disk) ballast() string { return filepath.Join(d.path, "ballast") }

// The disk of the database is full: what has to be written is refused with 503,
// and the log says why and what to do; tokens for services, introspection, keys
// and metadata go on. With room again so does everything, without a restart.
// What was answered has happened, also for a crash afterwards; nothing is lost,
// nothing is valid twice.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{onSQLite, onPostgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			small := newDisk(t, 40)
			if small == nil {
				t.Log("not shown: on this machine these tests cannot mount a file system; cmd/signet's test of a limit on files stands in for it")
				return
			}
			// crash ends the database as a power cut does, and starts it again.
			crash := func() {}
			d := newDeployment(t, engine, func(d *deployment) {
				if engine == onSQLite {
					d.env = append(d.env, "SIGNET_DATA="+filepath.Join(small.path, "data"))
					return
				}
				server, err := storagetest.StartServer(storagetest.ServerOptions{})
				must(t, err)
				t.Cleanup(func() { must(t, server.Close()) })
				crash = func() { must(t, server.Stop()); must(t, server.Start()) }
				admin, err := postgres.DB(server.URL("postgres"))
				must(t, err)
				defer admin.Close()
				for _, query := range []string{
					`COPY (SELECT 1) TO PROGRAM 'mkdir -m 700 ` + small.path + `/space'`, // so that it is PostgreSQL's own
					`CREATE TABLESPACE small LOCATION '` + small.path + `/space'`,
					`CREATE DATABASE small TABLESPACE small`,
				} {
					_, err := admin.ExecContext(t.Context(), query)
					must(t, err)
				}
				d.env = append(d.env, "SIGNET_DATABASE="+server.URL("small"))
			})
			if engine == onPostgres {
				d.signet("", "migrate", "up")
			}
			servers := d.start(d.replicas())
			service, shop := d.service("nightly"), d.app("shop", "--refresh-window", "60s")
			two := []*people.Person{d.person("ada"), d.person("bob")}
			s := &siege.Siege{Wrong: t.Errorf}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var clients sync.WaitGroup
			for i := range 6 {
				c := s.NewClient(d.browser(two[i%2]).Browser, shop.App, time.Minute)
				clients.Go(func() { c.Run(ctx) })
			}
			good := service.token()
			var mu sync.Mutex
			var revoked []string
			var read, written, refused atomic.Int64
			for _, at := range servers {
				one := service.by(at)
				clients.Go(func() { // what needs no write
					for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
						r, err := one.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
						if err != nil || r.Status != http.StatusOK {
							t.Errorf("a token: %s, %v", r, err)
						}
						if r, err := one.Post("/introspect", url.Values{"token": {good}}); err != nil || r.Member("active") != "true" {
							t.Errorf("introspection of a good token: %s, %v", r, err)
						}
						for _, path := range []string{"/jwks", "/.well-known/openid-configuration", "/readyz", "/revocations/snapshot"} {
							if r, err := d.send(at, http.MethodGet, path, nil); err != nil || r.Status != http.StatusOK {
								t.Errorf("%s: %s, %v", path, r, err)
							}
						}
						read.Add(1)
					}
				})
				clients.Go(func() { // what needs one
					for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
						token := one.token()
						r, err := one.Post("/revoke", url.Values{"token": {token}})
						switch {
						case err == nil && r.Status == http.StatusOK:
							written.Add(1)
							mu.Lock()
							revoked = append(revoked, token)
							mu.Unlock()
						case err != nil || r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "":
							t.Errorf("a revocation: %s, %v", r, err)
						default:
							if refused.Add(1); !one.active(token) {
								t.Error("a revocation that was refused took effect")
							}
						}
					}
				})
			}
			more := func(n *atomic.Int64, by int64) func() bool {
				from := n.Load()
				return func() bool { return n.Load() >= from+by }
			}
			until(t, "revocations", more(&written, 10))
			for round := range often(2, 10) {
				was := refused.Load()
				small.fill()
				until(t, "revocations are refused", more(&refused, 20))
				until(t, "reads go on", more(&read, 20))
				small.free()
				began := time.Now()
				until(t, "revocations again", more(&written, 20))
				t.Logf("round %d: %d revocations refused; written again %v after there was room", round+1, refused.Load()-was, time.Since(began).Round(time.Millisecond))
			}
			stop()
			clients.Wait()
			if len(d.servers()) != len(servers) {
				t.Error("a server has ended")
			}
			said := 0
			for _, text := range d.logs() {
				said += strings.Count(text, "nothing can be written until there is space on the disk of the database")
			}
			if said == 0 {
				t.Error("no log says what is wrong and what to do")
			}

			// What was answered is on the disk.
			for _, one := range servers {
				one.kill()
			}
			crash()
			if engine == onSQLite {
				db, err := sqlite.DB(filepath.Join(small.path, "data", "signet.db"))
				must(t, err)
				var verdict string
				if err := db.QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
					t.Errorf("integrity: %s, %v", verdict, err)
				}
				must(t, db.Close())
			}
			d.start(d.replicas())
			for _, token := range revoked {
				if service.active(token) {
					t.Error("a token whose revocation was answered is active")
				}
			}
			s.Audit(d.each())
			for _, wrong := range history.Judge(s.Log.Ops()) {
				t.Error(wrong)
			}
			t.Logf("%d reads, %d revocations, %d refused; %s", read.Load(), written.Load(), refused.Load(), s)
		})
	}
}
