package proof

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/people"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// backup makes a backup of the database as docs/backups.md says, while servers
// run on it, and returns what puts it back: elsewhere, for servers that are
// started afterwards.
func (d *deployment) backup() (restore func()) {
	d.t.Helper()
	file := filepath.Join(d.dir, "backup")
	if d.engine == onSQLite {
		d.signet("", "backup", file)
		return func() {
			elsewhere := filepath.Join(d.dir, "elsewhere")
			d.setenv("SIGNET_DATA", elsewhere)
			d.signet("", "restore", file, "--yes")
		}
	}
	d.run("pg_dump", "--format=custom", "--file="+file, d.getenv("SIGNET_DATABASE"))
	return func() {
		elsewhere := storagetest.EmptyPostgres(d.t)
		d.run("pg_restore", "--exit-on-error", "--no-owner", "--single-transaction", "--dbname="+elsewhere, file)
		d.setenv("SIGNET_DATABASE", elsewhere)
		d.signet("", "restore", "--in-place", "--yes")
	}
}

func (d *deployment) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.CommandContext(d.t.Context(), name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func (d *deployment) getenv(name string) string {
	for _, v := range d.env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// setenv changes a variable of the processes that are started from now on.
func (d *deployment) setenv(name, value string) {
	d.env = slices.DeleteFunc(slices.Clone(d.env), func(v string) bool { return strings.HasPrefix(v, name+"=") })
	d.env = append(d.env, name+"="+value)
}

// A backup made under load is whole. Restored, it has forgotten what was used,
// ended and taken back since; nothing of that is good again, at any replica or
// verifier, and who signs in again is let in at once.
func TestRestore(t *testing.T) {
	onBoth(t, func(t *testing.T, d *deployment) {
		d.start(d.replicas())
		shop := d.app("shop")
		service := d.client("nightly", "--name", "Nightly", "--grant", "client_credentials", "--scope", "orders:read")
		invited := d.person("zoe")
		link := signetJSON[struct {
			SetupURL string `json:"setup_url"`
		}](d, "user", "invite", invited.Name).SetupURL
		f := d.fleet(2)
		ada, eve := d.person("ada"), d.person("eve")
		stays, leaves := d.browser(ada), d.browser(eve)
		grants := make(map[string]people.Reply) // as they were at the backup, by what becomes of them
		for _, fate := range []string{"rotated twice", "rotated once", "revoked", "left alone"} {
			grants[fate] = shop.redeem(stays.code(shop))
		}
		grants["ended with its session"] = shop.redeem(leaves.code(shop, "scope", "openid orders:read"))

		// Somebody writes all the while.
		busy, writes := d.browser(d.person("bob")), atomic.Int64{}
		done := make(chan struct{})
		var load sync.WaitGroup
		load.Go(func() {
			r := shop.redeem(busy.code(shop))
			for {
				select {
				case <-done:
					return
				default:
				}
				if r = shop.refresh(r.Member("refresh_token")); r.Status != http.StatusOK {
					t.Errorf("under load: %s", r)
					return
				}
				writes.Add(1)
			}
		})
		until(t, "there is load", func() bool { return writes.Load() > 5 || t.Failed() })
		code := leaves.code(shop)
		before := writes.Load()
		restore := d.backup()
		t.Logf("%d refreshes while the backup was made", writes.Load()-before)
		close(done)
		load.Wait()

		// What the backup does not know.
		tokens := make(map[string]people.Reply)
		for name, r := range grants {
			tokens[name] = r
		}
		next := shop.refresh(grants["rotated twice"].Member("refresh_token"))
		tokens["the next"], tokens["the one after"] = next, shop.refresh(next.Member("refresh_token"))
		tokens["the only next"] = shop.refresh(grants["rotated once"].Member("refresh_token"))
		if r, err := shop.Post("/revoke", url.Values{"token": {grants["revoked"].Member("refresh_token")}}); err != nil || r.Status != http.StatusOK {
			t.Fatal(r, err)
		}
		tokens["of a code"] = shop.redeem(code)
		late := d.browser(ada)
		tokens["given afterwards"] = shop.redeem(late.code(shop))
		r, err := service.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		must(t, err)
		tokens["of a service"] = r
		must(t, leaves.Open("/logout"))
		must(t, leaves.Press("submit"))
		setUp := people.NewBrowser(d.issuer, invited, d.to(nil))
		must(t, setUp.Open(strings.TrimPrefix(link, d.issuer)))
		must(t, setUp.Press("submit", "password", "a wholly other heron", "repeat_password", "a wholly other heron"))
		for name, r := range tokens {
			if r.Status != http.StatusOK || r.Member("access_token") == "" {
				t.Fatalf("%s: %s", name, r)
			}
		}
		if a := f.get("/0", tokens["given afterwards"].Member("access_token")); a.Status != http.StatusOK {
			t.Fatalf("before the restore: %s", a)
		}
		feed := f.verifiers[0].Revocation().FeedID

		for _, s := range d.servers() {
			s.kill()
		}
		restore()
		d.start(d.replicas())

		// Who signs in again is let in at once.
		again := d.browser(ada)
		fresh := shop.redeem(again.code(shop))
		if fresh.Status != http.StatusOK {
			t.Fatalf("signing in again: %s", fresh)
		}
		until(t, "verifiers follow the new feed", func() bool {
			return !slices.ContainsFunc([]int{0, 1}, func(i int) bool {
				s := f.verifiers[i].Revocation()
				return s.FeedID == feed || s.State != "fresh"
			})
		})
		for _, s := range d.servers() {
			shop.Via, service.Via = d.to(s), d.to(s)
			for name, r := range tokens {
				if refresh := r.Member("refresh_token"); refresh != "" {
					if a := shop.answer(shop.TryRefresh(refresh)); a.Member("error") != "invalid_grant" {
						t.Errorf("refresh token, %s: %s", name, a)
					}
					if shop.active(refresh) {
						t.Errorf("refresh token, %s: active", name)
					}
				}
				access := r.Member("access_token")
				if (name != "of a service" && shop.active(access)) || service.active(access) {
					t.Errorf("access token, %s: active", name)
				}
				a, err := d.send(s, http.MethodGet, "/userinfo", nil, "Authorization", "Bearer "+access)
				if must(t, err); a.Status != http.StatusUnauthorized {
					t.Errorf("userinfo, %s: %s", name, a)
				}
				for _, path := range []string{"/0", "/1"} {
					if a := f.get(path, access); a.Status != http.StatusUnauthorized {
						t.Errorf("verifier, %s: %s", name, a)
					}
				}
			}
			if a := shop.redeem(code); a.Member("error") != "invalid_grant" {
				t.Errorf("code: %s", a)
			}
			for name, b := range map[string]*browser{"live": stays, "ended since": leaves, "begun since": late} {
				b.Via = d.to(s)
				must(t, b.Open("/account"))
				if !strings.HasSuffix(b.URL.Path, "/login") {
					t.Errorf("session, %s: %s", name, b.Page)
				}
			}
			setUp.Via = d.to(s)
			must(t, setUp.Open(strings.TrimPrefix(link, d.issuer)))
			if _, _, err := setUp.Form("submit"); err == nil {
				t.Errorf("set-up link: %s", setUp.Page)
			}

			if a := f.get("/1", fresh.Member("access_token")); a.Status != http.StatusOK {
				t.Errorf("a new token at a verifier: %s", a)
			}
			if !shop.active(fresh.Member("access_token")) {
				t.Error("a new token is not active")
			}
			if fresh = shop.refresh(fresh.Member("refresh_token")); fresh.Status != http.StatusOK {
				t.Fatalf("a new refresh token: %s", fresh)
			}
			again.Via = d.to(s)
			must(t, again.Open("/account"))
			if strings.HasSuffix(again.URL.Path, "/login") {
				t.Error("a new session is not one")
			}
			r, err := service.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
			if must(t, err); r.Status != http.StatusOK {
				t.Errorf("a service: %s", r)
			}
			if a := f.get("/0", r.Member("access_token")); a.Status != http.StatusOK {
				t.Errorf("a service's token at a verifier: %s", a)
			}
		}
	})
}

// The key-encryption key is not in a backup, which only its owner can read.
func TestBackupHoldsNoKey(t *testing.T) {
	d := newDeployment(t, onSQLite)
	d.start(1)
	d.backup()
	file := filepath.Join(d.dir, "backup")
	info, err := os.Stat(file)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
	content, err := os.ReadFile(file)
	must(t, err)
	encoded, err := os.ReadFile(filepath.Join(d.dir, "kek"))
	must(t, err)
	raw, err := base64.StdEncoding.DecodeString(string(encoded))
	must(t, err)
	if bytes.Contains(content, raw) || bytes.Contains(content, encoded) {
		t.Error("the key-encryption key is in the backup")
	}
	if !bytes.Contains(content, []byte("sealed_private")) {
		t.Error("that is not a backup")
	}
}
