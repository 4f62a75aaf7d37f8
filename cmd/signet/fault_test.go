package main

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// work is one kind of request that traffic is made of.
type work struct {
	name   string
	always bool // it is answered 200 without the database, too
	do     func() (reply, error)
	good   atomic.Int64 // answers 200
	busy   atomic.Int64 // answers 503
}

// traffic sends each kind of request, one after the other, until stopped, and
// holds every answer to the same rules.
type traffic struct {
	t       *testing.T
	kinds   []*work
	stop    chan struct{}
	workers sync.WaitGroup
	slowest atomic.Int64 // nanoseconds
}

func startTraffic(t *testing.T, kinds ...*work) *traffic {
	tr := &traffic{t: t, kinds: kinds, stop: make(chan struct{})}
	for _, w := range kinds {
		tr.workers.Go(func() {
			for {
				select {
				case <-tr.stop:
					return
				case <-time.After(5 * time.Millisecond): // light
				}
				tr.judge(w)
			}
		})
	}
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) end() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.workers.Wait()
}

func (tr *traffic) judge(w *work) {
	began := time.Now()
	r, err := w.do()
	took := time.Since(began)
	if limit := provider.DefaultPolicy().RequestTimeout + time.Second; took > limit {
		tr.t.Errorf("%s took %s", w.name, took)
	}
	for old := tr.slowest.Load(); int64(took) > old && !tr.slowest.CompareAndSwap(old, int64(took)); {
		old = tr.slowest.Load()
	}
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		tr.t.Errorf("%s: %v", w.name, err)
	case r.status == http.StatusOK:
		w.good.Add(1)
	case r.status == http.StatusServiceUnavailable && !w.always:
		w.busy.Add(1)
		if seconds, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || seconds < 1 {
			tr.t.Errorf("%s: 503 with Retry-After %q", w.name, r.header.Get("Retry-After"))
		}
	default:
		tr.t.Errorf("%s: %s", w.name, r)
	}
}

// every waits until each kind of request has counted up by n.
func (tr *traffic) every(what string, n int64, count func(*work) *atomic.Int64) time.Duration {
	tr.t.Helper()
	began := time.Now()
	for _, w := range tr.kinds {
		if w.always && count(w) == &w.busy {
			continue
		}
		before := count(w).Load()
		until(tr.t, w.name+": "+what, func() bool { return count(w).Load() >= before+n })
	}
	return time.Since(began)
}

func good(w *work) *atomic.Int64 { return &w.good }
func busy(w *work) *atomic.Int64 { return &w.busy }

// once remembers what was answered 200 and must therefore be durable.
type once struct {
	mu   sync.Mutex
	list []string
}

func (o *once) add(s string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, s)
}

// The database goes away under traffic, as in a crash, and comes back.
func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	db, err := storagetest.StartServer(storagetest.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	p := newPostgresPlace(t, db.URL("postgres"))
	s := p.serve("--migrate", behindProxy)
	secret, key := p.furnish("nightly"), p.keyed("keyed")
	until(t, "the client is known", func() bool { return s.token("nightly", secret, "").status == 200 })
	fresh := func() string { return s.token("nightly", secret, "invoices:read").member("access_token") }
	introspected := fresh()
	supply := make(chan string, 800) // of tokens to revoke, fetched while the database is there
	for range cap(supply) {
		supply <- fresh()
	}
	authorization := basic("nightly", secret)
	post := func(path string, form url.Values, header ...string) (reply, error) {
		return s.send(t.Context(), http.MethodPost, s.url+path, form, header...)
	}
	get := func(path string) func() (reply, error) {
		return func() (reply, error) { return s.send(t.Context(), http.MethodGet, s.url+path, nil) }
	}
	var spent, revoked once
	tr := startTraffic(t,
		&work{name: "token with a secret", do: func() (reply, error) {
			return post("/token", url.Values{"grant_type": {"client_credentials"}}, "Authorization", authorization)
		}},
		&work{name: "token with an assertion", do: func() (reply, error) {
			a := s.assertion("keyed", key)
			r, err := post("/token", asserting(a))
			if r.status == http.StatusOK {
				spent.add(a)
			}
			return r, err
		}},
		&work{name: "introspection", do: func() (reply, error) {
			r, err := post("/introspect", url.Values{"token": {introspected}}, "Authorization", authorization)
			if r.status == http.StatusOK && r.member("active") != "true" {
				t.Errorf("a good token is inactive: %s", r)
			}
			return r, err
		}},
		&work{name: "revocation", do: func() (reply, error) {
			token := <-supply
			r, err := post("/revoke", url.Values{"token": {token}}, "Authorization", authorization)
			if r.status == http.StatusOK {
				revoked.add(token)
			} else {
				supply <- token
			}
			return r, err
		}},
		&work{name: "readyz", do: get("/readyz")},
		&work{name: "livez", always: true, do: get("/livez")},
		&work{name: "JWKS", always: true, do: get("/jwks")},
		&work{name: "metadata", always: true, do: get("/.well-known/openid-configuration")},
	)
	tr.every("good before", 20, good)
	for round := range 2 {
		if err := db.Stop(); err != nil {
			t.Fatal(err)
		}
		out := tr.every("refused while the database is gone", 10, busy)
		tr.every("still good or still refused", 20, func(w *work) *atomic.Int64 {
			if w.always {
				return &w.good
			}
			return &w.busy
		})
		if err := db.Start(); err != nil {
			t.Fatal(err)
		}
		back := tr.every("good again", 10, good)
		t.Logf("round %d: all refuse after %d ms, all good again %d ms after the start", round+1, out.Milliseconds(), back.Milliseconds())
	}
	tr.end()
	for _, w := range tr.kinds {
		t.Logf("%-24s %4d × 200, %4d × 503", w.name, w.good.Load(), w.busy.Load())
	}
	t.Logf("slowest answer %s; %d assertions and %d revocations answered 200", time.Duration(tr.slowest.Load()).Round(time.Millisecond), len(spent.list), len(revoked.list))

	// What was answered 200 has happened.
	for _, a := range spent.list {
		if r := s.post("/token", asserting(a)); r.status != http.StatusUnauthorized {
			t.Errorf("an assertion accepted before the crash: %s", r)
		}
	}
	for _, token := range revoked.list {
		if s.active("nightly", secret, token) {
			t.Error("a token revoked before the crash is active")
		}
	}
}

// limitFiles lets no file of the process grow beyond bytes, which is what a
// full disk is like; "" lifts the limit. It works on one's own processes.
func (s *process) limitFiles(bytes string) {
	s.t.Helper()
	if bytes == "" {
		bytes = "unlimited"
	}
	if out, err := exec.Command("prlimit", "--pid", strconv.Itoa(s.cmd.Process.Pid), "--fsize="+bytes+":").CombinedOutput(); err != nil {
		s.t.Fatalf("prlimit: %v: %s", err, out)
	}
}

// What needs no write goes on when the disk is full, nothing else is called
// done, and all is well when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.serve(behindProxy)
	secret, key := p.furnish("nightly"), p.keyed("keyed")
	until(t, "the client is known", func() bool { return s.token("nightly", secret, "").status == 200 })
	token := s.token("nightly", secret, "invoices:read").member("access_token")
	if r := s.post("/token", asserting(s.assertion("keyed", key))); r.status != http.StatusOK {
		t.Fatalf("assertion: %s", r)
	}
	revoke := func() reply {
		return s.post("/revoke", url.Values{"token": {token}}, "Authorization", basic("nightly", secret))
	}
	refused := make([]string, 5)
	for round := range 2 {
		s.limitFiles("4096")
		for i := range refused {
			refused[i] = s.assertion("keyed", key)
			if r := s.post("/token", asserting(refused[i])); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
				t.Errorf("round %d: assertion on a full disk: %s", round, r)
			}
			if r := revoke(); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
				t.Errorf("round %d: revocation on a full disk: %s", round, r)
			}
			if r := s.token("nightly", secret, "invoices:read"); r.status != http.StatusOK {
				t.Errorf("round %d: token with a secret on a full disk: %s", round, r)
			}
			if !s.active("nightly", secret, token) {
				t.Errorf("round %d: the refused revocation took effect", round)
			}
			if r := s.get(s.url + "/jwks"); r.status != http.StatusOK {
				t.Errorf("round %d: JWKS on a full disk: %s", round, r)
			}
		}
		s.limitFiles("")
		back := until(t, "assertions accepted", func() bool { return s.post("/token", asserting(s.assertion("keyed", key))).status == http.StatusOK })
		t.Logf("round %d: writes again after %d ms", round, back.Milliseconds())
		for _, a := range refused { // not spent: the client may send it again, once
			if first, second := s.post("/token", asserting(a)), s.post("/token", asserting(a)); first.status != http.StatusOK || second.status != http.StatusUnauthorized {
				t.Errorf("round %d: a refused assertion, sent again: %s, then %s", round, first, second)
			}
		}
	}
	if r := revoke(); r.status != http.StatusOK || s.active("nightly", secret, token) {
		t.Errorf("revocation with room again: %s", r)
	}
	var check string
	if err := p.openSQLite().QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&check); err != nil || check != "ok" {
		t.Errorf("integrity: %s, %v", check, err)
	}
}

// sent is an assertion and how often it was accepted, by the client's own log.
type sent struct {
	assertion string
	accepted  atomic.Int32
}

// The server is killed while it redeems assertions. Whatever it had got to,
// the next one accepts none a second time.
func TestKilledWhileRedeeming(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, p *place) {
		s := p.serve(behindProxy)
		p.furnish("nightly")
		clients := map[string]*ecdsa.PrivateKey{}
		for _, id := range []string{"keyed-0", "keyed-1", "keyed-2", "keyed-3"} {
			clients[id] = p.keyed(id)
		}
		for id, key := range clients {
			until(t, "the client is known", func() bool { return s.post("/token", asserting(s.assertion(id, key))).status == http.StatusOK })
		}
		var mu sync.Mutex
		var log []*sent
		redeem := func(at *server, one *sent) error {
			r, err := at.send(t.Context(), http.MethodPost, at.url+"/token", asserting(one.assertion))
			switch {
			case err != nil:
				return err
			case r.status == http.StatusOK:
				one.accepted.Add(1)
			case r.status != http.StatusUnauthorized:
				return fmt.Errorf("answer %s", r)
			}
			return nil
		}
		kills, unanswered := 3, 0
		for range kills {
			var accepted atomic.Int64
			var cut atomic.Int64
			var workers sync.WaitGroup
			for id, key := range clients {
				workers.Go(func() {
					for {
						one := &sent{assertion: s.assertion(id, key)}
						mu.Lock()
						log = append(log, one)
						mu.Unlock()
						if err := redeem(s, one); err != nil {
							cut.Add(1)
							return // killed
						}
						accepted.Add(1)
					}
				})
			}
			until(t, "traffic", func() bool { return accepted.Load() >= 50 })
			s.signal(syscall.SIGKILL)
			s.wait()
			workers.Wait()
			unanswered += int(cut.Load())
			s = p.serve(behindProxy)
		}
		for _, one := range log {
			var again sync.WaitGroup
			for range 2 { // two at once, as an impatient client does
				again.Go(func() {
					if err := redeem(s, one); err != nil {
						t.Error(err)
					}
				})
			}
			again.Wait()
		}
		later := 0
		for _, one := range log {
			switch n := one.accepted.Load(); {
			case n > 1:
				t.Errorf("an assertion was accepted %d times", n)
			case n == 1:
				later++
			}
		}
		t.Logf("%d kills, %d assertions, %d without an answer; accepted once: %d, never: %d", kills, len(log), unanswered, later, len(log)-later)
	})
}

// After everything the program does, nothing secret is in what it keeps or says.
func TestNoSecretIsKeptOrLogged(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		secrets, said := lead(t, p)
		kek, err := os.ReadFile(filepath.Join(p.dir, "data", "signet.kek"))
		if err != nil {
			t.Fatal(err)
		}
		secrets.add("key-encryption key", strings.TrimSpace(string(kek)))
		files, err := filepath.Glob(filepath.Join(p.dir, "data", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if filepath.Ext(f) == ".kek" {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			secrets.absent(t, filepath.Base(f), string(b))
		}
		secrets.absent(t, "the log", said)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		address := storagetest.Postgres(t)
		p := newPostgresPlace(t, address)
		secrets, said := lead(t, p)
		kek, err := os.ReadFile(filepath.Join(p.dir, "kek"))
		if err != nil {
			t.Fatal(err)
		}
		secrets.add("key-encryption key", strings.TrimSpace(string(kek)))
		secrets.add("password of the database", passwordOf(t, address))
		secrets.absent(t, "the database", dump(t, address))
		secrets.absent(t, "the log", said)
	})
}

func passwordOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return password
}

// dump returns every row of every table as text; bytes are in hexadecimal.
func dump(t *testing.T, address string) string {
	t.Helper()
	db, err := postgres.DB(address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	column := func(query string) (values []string) {
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var v string
			if err := rows.Scan(&v); err != nil {
				t.Fatal(err)
			}
			values = append(values, v)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return values
	}
	var all strings.Builder
	for _, table := range column(`SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`) {
		for _, row := range column(`SELECT t::text FROM "` + table + `" t`) {
			all.WriteString(row + "\n")
		}
	}
	return all.String()
}

// needles are secrets, each with what it is, in every form they could have
// been written down in.
type needles struct{ what, text []string }

func (n *needles) add(what, secret string) {
	forms := []string{secret, hex.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret))}
	for _, raw := range decodings(secret) {
		forms = append(forms, string(raw), hex.EncodeToString(raw))
	}
	for _, f := range forms {
		n.what, n.text = append(n.what, what), append(n.text, f)
	}
}

// decodings are the bytes that a text may stand for.
func decodings(s string) (all [][]byte) {
	_, after, _ := strings.Cut(s, "_") // a prefix, as of sgs_…
	for _, text := range []string{s, after} {
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			if raw, err := e.DecodeString(text); err == nil && len(raw) >= 16 {
				all = append(all, raw)
			}
		}
	}
	return all
}

// addJWS adds a token: whole, and its signature, which is what makes it one.
func (n *needles) addJWS(what, token string) {
	n.add(what, token)
	n.add("signature of "+what, token[strings.LastIndexByte(token, '.')+1:])
}

// addPrivateKeys adds how private keys begin and are labelled, however they are encoded.
func (n *needles) addPrivateKeys() {
	n.add("private key in PEM", "PRIVATE KEY")
	n.add("private JWK", `"d":"`)
	for what, prefix := range map[string]string{ // RFC 5958 §2, up to what varies
		"P-256 key":   "020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420",
		"Ed25519 key": "302e020100300506032b657004220420",
		"RSA key":     "020100300d06092a864886f70d0101010500048204",
	} {
		raw, _ := hex.DecodeString(prefix)
		n.add(what, string(raw))
	}
}

func (n *needles) absent(t *testing.T, where, text string) {
	t.Helper()
	if !strings.Contains(text, "nightly") {
		t.Errorf("%s tells nothing of the client, so this search proves nothing", where)
	}
	for i, needle := range n.text {
		if strings.Contains(text, needle) {
			t.Errorf("%s holds a %s", where, n.what[i])
		}
	}
	t.Logf("%s: %d bytes, %d forms of secrets looked for", where, len(text), len(n.text))
}

// lead leads a whole life, good and bad, and returns every secret that was in
// it and everything that was logged.
func lead(t *testing.T, p *place) (secrets *needles, said string) {
	secrets = &needles{}
	secrets.addPrivateKeys()
	var log strings.Builder
	run := func(line string) string {
		t.Helper()
		out, errs, status := p.run(line)
		if status != 0 {
			t.Fatalf("$ %s\n%s%s[exit %d]", line, out, errs, status)
		}
		log.WriteString(errs)
		return out
	}
	s := p.serve(behindProxy)
	secret, key := p.furnish("nightly"), p.keyed("keyed")
	second := decode[shownOnce](p, `signet client rotate-secret nightly --json`).ClientSecret
	const typed = "correct-horse-battery-7"
	run(`printf %s ` + typed + ` | signet user create alice --email alice@example.com --role accounting --password-stdin`)
	made := decode[struct{ Password string }](p, `signet user create bob --email bob@example.com --generate-password --json`).Password
	run(`printf %s 2-` + typed + ` | signet user set-password alice --password-stdin`)
	secrets.add("client secret", secret)
	secrets.add("client secret", second)
	secrets.add("password", typed)
	secrets.add("password", made)
	if made == "" || second == "" {
		t.Fatal("no password or no second secret")
	}
	keyed, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets.add("client's private key", base64.RawURLEncoding.EncodeToString(keyed))

	until(t, "the clients are known", func() bool {
		return s.token("nightly", second, "").status == 200 && s.post("/token", asserting(s.assertion("keyed", key))).status == 200
	})
	authorized := basic("nightly", second)
	secrets.add("Authorization header", strings.TrimPrefix(authorized, "Basic "))
	wrong := "sgs_" + base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	wrong = wrong[:40] + "guess"
	secrets.add("guessed secret", wrong)
	secrets.add("Authorization header", strings.TrimPrefix(basic("nightly", wrong), "Basic "))
	s.token("nightly", wrong, "")
	for range 5 {
		token := s.token("nightly", second, "invoices:read").member("access_token")
		assertion := s.assertion("keyed", key)
		byKey := s.post("/token", asserting(assertion))
		if token == "" || byKey.status != http.StatusOK {
			t.Fatalf("token %q, %s", token, byKey)
		}
		s.post("/token", asserting(assertion)) // a replay, refused and logged
		s.post("/token", asserting(assertion[:len(assertion)-6]+"AAAAAA"))
		secrets.addJWS("token", token)
		secrets.addJWS("token", byKey.member("access_token"))
		secrets.addJWS("assertion", assertion)
		s.active("nightly", second, token)
		s.active("nightly", second, token+"x")
		s.post("/revoke", url.Values{"token": {token}}, "Authorization", authorized)
		s.get(s.url+"/orders?access_token="+url.QueryEscape(token), "Authorization", "Bearer "+token)
		s.post("/token?client_secret="+second, url.Values{"grant_type": {"client_credentials"}, "client_id": {"nightly"}, "client_secret": {second}}, "Authorization", authorized)
		p.write("token", token)
		run(`signet token inspect < token || test $? = 1`) // it is revoked
	}
	run(`signet client disable nightly`)
	until(t, "the client is disabled", func() bool { return s.token("nightly", second, "").status == http.StatusUnauthorized })
	secrets.absent(t, "what commands show", run(`signet client list; signet client show nightly --json; signet user list --json; signet key list; signet client delete nightly`))
	s.signal(syscall.SIGINT)
	if status := s.wait(); status != 0 {
		t.Errorf("exit %d", status)
	}
	return secrets, log.String() + s.stderr.String()
}
