package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// The commands on PostgreSQL: the schema is brought up to date only when
// asked, the key-encryption key has to be given, and the rest is the same.
func TestPostgres(t *testing.T) {
	const password = "find-me"
	p := newPlace(t, "SIGNET_DATABASE="+storagetest.EmptyPostgres(t))
	refused := func(status int, code, line string) {
		t.Helper()
		out, errs, got := p.run(line + " --json")
		var body struct {
			Error struct{ Code, Message, Fix string }
		}
		if err := json.Unmarshal([]byte(errs), &body); err != nil || got != status || body.Error.Code != code || body.Error.Message == "" || out != "" {
			t.Errorf("$ %s\n%s%s[exit %d]; want %s, exit %d", line, out, errs, got, code, status)
		}
	}
	refused(exitUnavailable, "schema_older", `signet role list`)
	refused(exitUnavailable, "schema_older", `signet client create --name A --grant client_credentials`)
	state := decode[migrationJSON](p, `signet migrate status --json`)
	if state.Current != 0 || state.Target < 1 || len(state.Pending) == 0 {
		t.Errorf("schema before: %+v", state)
	}
	p.must(`signet migrate up`)
	if state = decode[migrationJSON](p, `signet migrate up --json`); state.Current != state.Target || len(state.Pending) != 0 {
		t.Errorf("schema after: %+v", state)
	}
	refused(exitUnavailable, "key_unavailable", `signet client create --name A --grant client_credentials`)
	var kek [32]byte
	_, _ = rand.Read(kek[:])
	p.write("kek", base64.StdEncoding.EncodeToString(kek[:]))
	p.must(
		`signet role create accounting`,
		`signet resource create https://api.example.com --name API --scope invoices:read=accounting`,
		`signet client create --name A --id a --grant client_credentials --scope invoices:read --role accounting --kek-file kek`,
		`signet client rotate-secret a --kek-file kek`,
		`signet user create alice --email alice@example.com --role accounting --generate-password`,
		`signet client disable a`,
		`signet user disable alice`,
	)
	refused(exitExists, "exists", `signet role create accounting`)
	refused(exitExists, "exists", `signet user create ALICE --email x@example.com --generate-password`)
	refused(exitNotFound, "not_found", `signet user grant-role alice king`)
	refused(exitUsage, "invalid", `signet role delete accounting`)
	c := decode[struct {
		Enabled bool
		Scope   string
		Roles   []string
		Secrets []any
	}](p, `signet client show a --json`)
	if c.Enabled || len(c.Secrets) != 2 || c.Scope != "invoices:read" || len(c.Roles) != 1 {
		t.Errorf("client: %+v", c)
	}
	// Out of reach, and the password stays out of what is said about it.
	_, errs, status := p.run(`signet role list --database postgres://u:` + password + `@127.0.0.1:1/db`)
	if status != exitUnavailable || strings.Contains(errs, password) {
		t.Errorf("no server: exit %d: %s", status, errs)
	}
	_, errs, status = p.run(`signet role list --database 'postgres://u:` + password + `@[/db'`)
	if status != exitUsage || strings.Contains(errs, password) {
		t.Errorf("no URL: exit %d: %s", status, errs)
	}
}

// What keeps PostgreSQL away is told in one line, with the cure for it.
func TestPostgresRefusals(t *testing.T) {
	for _, test := range []struct{ state, said, want, fix string }{
		{"28P01", `password authentication failed for user "signet"`, `password authentication failed for user "signet"`, "password"},
		{"28000", `role "signet" does not exist`, `role "signet" does not exist`, "createuser"},
		{"3D000", `database "signet" does not exist`, `database "signet" does not exist`, "createdb"},
		{"53300", "too many clients already", "too many clients already", "is up"},
	} {
		explains(t, "postgres://signet:find-me@"+refusingPostgres(t, test.state, test.said)+"/signet?sslmode=disable", test.want, test.fix)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	explains(t, "postgres://signet:find-me@"+address+"/signet", "cannot reach the database at "+address+": connection refused", "is up")
	explains(t, "postgres://signet:find-me@nowhere.invalid/signet", `the database's host "nowhere.invalid" is not known`, "--database")

	plain := refusingPostgres(t, "28P01", "asked without TLS")
	explains(t, "postgres://signet:find-me@"+plain+"/signet?sslmode=require", "does not speak TLS, which sslmode in --database demands", "turn on ssl")

	_, errs, status := newPlace(t).run(`signet role list --database 'postgres://u:find-me@localhost/db?sslmode=nonsense'`)
	if status != exitUsage || strings.Contains(errs, "find-me") {
		t.Errorf("a setting that does not exist: exit %d: %s", status, errs)
	}
}

// explains checks what is said of a database that cannot be used.
func explains(t *testing.T, database, message, fix string) {
	t.Helper()
	for _, line := range []string{"signet role list", "signet migrate up", "signet migrate status"} {
		out, errs, status := newPlace(t, "SIGNET_DATABASE="+database).run(line + " --json")
		var body struct {
			Error struct{ Code, Message, Fix string }
		}
		if err := json.Unmarshal([]byte(errs), &body); err != nil || out != "" || status != exitUnavailable || body.Error.Code != "unavailable" {
			t.Fatalf("$ %s\n%s%s[exit %d]", line, out, errs, status)
		}
		e := body.Error
		if !strings.Contains(e.Message, message) || len(e.Message) > len(message)+60 || strings.ContainsAny(e.Message, "\n\t") || !strings.Contains(e.Fix, fix) || strings.Contains(errs, "find-me") {
			t.Errorf("$ %s: %s; %s\nwant %s; %s", line, e.Message, e.Fix, message, fix)
		}
	}
}

// refusingPostgres is a server that answers every start-up with an error
// (PostgreSQL manual, "Message Formats"), and returns its address.
func refusingPostgres(t *testing.T, state, message string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	fields := "SFATAL\x00VFATAL\x00C" + state + "\x00M" + message + "\x00\x00"
	answer := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(4+len(fields)))...)
	answer = append(answer, fields...)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var length [4]byte
			if _, err := io.ReadFull(conn, length[:]); err == nil {
				_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length[:]))-4)
				_, _ = conn.Write(answer)
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// A database that a later release made is left alone.
func TestNewerSchemaIsRefused(t *testing.T) {
	p := newPlace(t)
	p.must(`signet migrate up`)
	db, err := sqlite.DB(filepath.Join(p.dir, "data", "signet.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`signet role list`, `signet role create a`, `signet migrate up`} {
		if _, errs, status := p.run(line); status != exitUnavailable || !strings.Contains(errs, "newer") {
			t.Errorf("$ %s: exit %d: %s", line, status, errs)
		}
	}
	if s := decode[migrationJSON](p, `signet migrate status --json`); s.Current != 99999 || s.Target >= s.Current {
		t.Errorf("status: %+v", s)
	}
}

// What token inspect says of a token, from the issuer's keys and from the database.
func TestTokenInspect(t *testing.T) {
	p := newPlace(t)
	p.must(`signet client create --name A --id a --grant client_credentials`)
	ctx := t.Context()
	database := filepath.Join(p.dir, "data", "signet.db")
	store, err := sqlite.Open(ctx, database, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	kek, _, err := keys.LoadKEKFile(kekBeside(database), false)
	if err != nil {
		t.Fatal(err)
	}
	sealer, now := &keys.Sealer{Primary: kek}, time.Now()
	if err := keys.Ensure(ctx, store, sealer, now, keys.DefaultSchedule(), []string{keys.ES256}); err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Load(ctx, store, sealer, now)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	defer issuer.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = writeJSON(w, map[string]string{"issuer": issuer.URL, "jwks_uri": issuer.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		document, _ := ring.JWKS()
		_, _ = w.Write(document)
	})
	claims := fmt.Appendf(nil, `{"iss":%q,"sub":"a","client_id":"a","jti":"j","scope":"x","iat":%d}`, issuer.URL, now.Add(-time.Minute).Unix())
	token, err := ring.Sign(keys.ES256, "at+jwt", claims, now)
	if err != nil {
		t.Fatal(err)
	}
	p.write("good", token)
	parts := strings.Split(token, ".")
	p.write("forged", parts[0]+"."+base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), `"x"`, `"y"`, 1)))+"."+parts[2])
	p.write("unsigned", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))+"."+parts[1]+".")
	yes, no := true, false
	// Nothing that is known to be bad may look good to a script, and what is in
	// it is told all the same.
	check := func(line, signature string, revoked *bool) {
		t.Helper()
		out, errs, status := p.run(line + " --json")
		var v inspection
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("$ %s\n%s%s%v", line, out, errs, err)
		}
		want := 0
		if signature == signatureInvalid || revoked != nil && *revoked || v.Expired {
			want = exitFailed
		}
		if status != want {
			t.Errorf("$ %s: exit %d, want %d", line, status, want)
		}
		if v.Signature != signature || (v.Revoked == nil) != (revoked == nil) || v.Revoked != nil && *v.Revoked != *revoked {
			t.Errorf("$ %s: %s, revoked %v; want %s, %v", line, v.Signature, v.Revoked, signature, revoked)
		}
	}
	check(`signet token inspect < good`, signatureValid, &no)
	check(`signet token inspect --issuer `+issuer.URL+` < good`, signatureValid, &no)
	check(`signet token inspect --issuer `+issuer.URL+` --data elsewhere < good`, signatureValid, nil)
	check(`signet token inspect --data elsewhere < good`, signatureUnverified, nil)
	check(`signet token inspect < forged`, signatureInvalid, nil)
	check(`signet token inspect < unsigned`, signatureInvalid, nil)
	p.write("pasted", "Authorization: Bearer "+token+"\n")
	check(`signet token inspect < pasted`, signatureValid, &no)
	check(`sed 's/^[^ ]* //' pasted | signet token inspect`, signatureValid, &no)
	old, err := ring.Sign(keys.ES256, "at+jwt", fmt.Appendf(nil, `{"iss":%q,"exp":%d}`, issuer.URL, now.Add(-time.Second).Unix()), now)
	if err != nil {
		t.Fatal(err)
	}
	p.write("old", old)
	check(`signet token inspect < old`, signatureValid, &no)
	if _, errs, status := p.run(`signet token inspect < old`); status != exitFailed || !strings.Contains(errs, "it has expired") {
		t.Errorf("an expired token: exit %d: %s", status, errs)
	}
	p.must(`signet client disable a`)
	check(`signet token inspect < good`, signatureValid, &yes)
	p.must(`signet client enable a`)
	check(`signet token inspect < good`, signatureValid, &yes) // older than the epoch
	v := decode[inspection](p, `signet token inspect --json < good; true`)
	if v.Size != len(token) || v.SizeByClaim["client_id"] != len(`"client_id":"a",`) {
		t.Errorf("size %d, %v", v.Size, v.SizeByClaim)
	}
	if out, _, _ := p.run(`ls elsewhere`); out != "" {
		t.Errorf("inspecting made %s", out)
	}
}

// health says what the server's readiness check says.
func TestHealth(t *testing.T) {
	p := newPlace(t)
	var ready atomic.Bool
	ready.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	line := `signet health --admin-listen ` + strings.TrimPrefix(server.URL, "http://")
	p.must(line)
	ready.Store(false)
	if _, _, status := p.run(line); status != exitFailed {
		t.Errorf("exit %d for a server that is not ready", status)
	}
}

// A PostgreSQL database that was put back is not made fit to be served while
// servers run on it, and is once they were killed.
func TestRestoreInPlaceWhileServing(t *testing.T) {
	t.Parallel()
	p := newPostgresPlace(t, storagetest.Postgres(t))
	server := p.serve("--migrate")
	p.must(`signet role list`) // is no server, and may run
	restored := func() bool {
		t.Helper()
		_, errs, status := p.run(`signet restore --in-place --yes --json`)
		if status != 0 && (status != exitFailed || !strings.Contains(errs, `"in_use"`) || !strings.Contains(errs, "stop every")) {
			t.Fatalf("exit %d: %s", status, errs)
		}
		return status == 0
	}
	if restored() {
		t.Error("restored while a server runs")
	}
	server.signal(syscall.SIGKILL)
	server.wait()
	if !restored() {
		t.Error("refused though no server runs")
	}
	if out, _, _ := p.run(`signet restore --in-place --yes`); !strings.Contains(out, "if you kept that") {
		t.Errorf("it does not remind of the database before: %s", out)
	}
}

// A server that does not know the key-encryption key everything was sealed with
// anew says so, once, and not that the database is away.
func TestRewrapUnderServer(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.serve()
	p.write("new", newKEK())
	p.must(`signet key rewrap --kek-file new --kek-previous-file data/signet.kek --yes`)
	until(t, "it notices", func() bool { return s.get(s.admin+"/readyz").status == http.StatusServiceUnavailable })
	for range 3 {
		s.get(s.admin + "/readyz")
	}
	until(t, "it names the cause", func() bool { return strings.Contains(s.stderr.String(), "were sealed with another key-encryption key") })
	if log := s.stderr.String(); strings.Contains(log, "does not answer") || strings.Count(log, `"not ready"`) != 1 {
		t.Errorf("its log:\n%s", log)
	}
	p.must(`signet key rewrap --kek-file data/signet.kek --kek-previous-file new --yes`)
	until(t, "it recovers", func() bool { return s.get(s.admin+"/readyz").status == http.StatusOK })
	// The log comes through a pipe, and so may come after the answer.
	until(t, "it says so", func() bool { return strings.Contains(s.stderr.String(), `"ready again"`) })
	s.get(s.admin + "/readyz")
	s.signal(syscall.SIGTERM)
	s.wait()
	if log := s.stderr.String(); strings.Count(log, `"ready again"`) != 1 {
		t.Errorf("its log:\n%s", log)
	}
}
