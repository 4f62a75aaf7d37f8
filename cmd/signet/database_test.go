package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
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
	check := func(line, signature string, revoked *bool) {
		t.Helper()
		v := decode[inspection](p, line+" --json")
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
	p.must(`signet client disable a`)
	check(`signet token inspect < good`, signatureValid, &yes)
	p.must(`signet client enable a`)
	check(`signet token inspect < good`, signatureValid, &yes) // older than the epoch
	v := decode[inspection](p, `signet token inspect --json < good`)
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
	ready := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	line := `signet health --admin-listen ` + strings.TrimPrefix(server.URL, "http://")
	p.must(line)
	ready = false
	if _, _, status := p.run(line); status != exitFailed {
		t.Errorf("exit %d for a server that is not ready", status)
	}
}
