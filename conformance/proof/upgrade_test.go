package proof

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signet-oidc/signet/conformance/internal/history"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

// The program before its last change, and the one before the last migration
// (with -long: before each), serve beside this one over one database that is
// migrated meanwhile, while apps contend for codes and tokens: none of their
// requests fails, nothing is valid twice, and what was there before stays as it
// was. Where the schema is the same, the way back is no different.
func TestUpgrade(t *testing.T) {
	h := openRepository(t)
	type step struct{ name, from string }
	steps := []step{{"the program before", h.beforeLastChange()}}
	for _, name := range h.migrations()[1:] {
		steps = append(steps, step{"before " + name, h.before(name)})
	}
	if !*long {
		steps = []step{steps[0], steps[len(steps)-1]}
	}
	for _, step := range steps {
		older := h.build(step.from)
		for _, engine := range []string{onSQLite, onPostgres} {
			t.Run(step.name+"/"+engine, func(t *testing.T) { upgrade(t, engine, older) })
		}
	}
}

func upgrade(t *testing.T, engine, older string) {
	empty := ""
	d := newDeployment(t, engine, func(d *deployment) {
		d.args = append(d.args, "--drain", "6s") // how long a balancer needs to notice is not the question
		if d.engine == onPostgres {
			empty = storagetest.EmptyPostgres(t)
			d.env = append(d.env, "SIGNET_DATABASE="+empty)
		}
	})
	newer := d.binary
	type state struct {
		Current, Target int64
		Pending         []string
	}

	d.binary = older
	d.signet("", "migrate", "up")
	before := signetJSON[state](d, "migrate", "status")
	n := max(2, d.replicas())
	servers := d.start(n)
	c := d.contest()
	db := d.sql(empty)
	fill(t, engine, db, often(10_000, 1_000_000), often(1_000, 100_000))
	was := checksums(t, db, nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s, wait := c.begin(ctx)
	// busy waits until so much was noted that all servers have had their share.
	busy := func() {
		t.Helper()
		most := s.Log.Size() + often(200, 1000)
		until(t, "the apps go on", func() bool { return s.Log.Size() > most || t.Failed() })
	}
	busy()

	// This program does not serve on a schema that is too old for it, unless the
	// database is its own to migrate.
	d.binary = newer
	here := signetJSON[state](d, "migrate", "status")
	if here.Current != before.Target || len(here.Pending) != int(here.Target-here.Current) {
		t.Errorf("this program sees %+v, the older one left %+v", here, before)
	}
	migrated := here.Current != here.Target
	if migrated && engine == onPostgres {
		d.refuses("schema_older", "signet migrate up")
	}
	began := time.Now()
	d.signet("", "migrate", "up")
	took := time.Since(began)
	busy()
	// The older one does not start on a schema that it does not know.
	d.binary = older
	if migrated {
		d.refuses("schema_newer", "release at least as new")
	}

	exchange := func(binary string) {
		t.Helper()
		d.binary = binary
		var ends sync.WaitGroup
		defer ends.Wait()
		for i, gone := range servers {
			servers[i] = d.start(1)[0]
			busy()
			d.forget(gone) // as a balancer does, which is told in time
			ends.Go(func() { gone.end(syscall.SIGTERM) })
		}
		busy()
	}
	exchange(newer)
	if !migrated {
		exchange(older)
	}
	stop()
	wait()

	ops := s.Log.Ops()
	slowest := time.Duration(0)
	for _, o := range ops {
		if o.Outcome == history.Unknown {
			t.Errorf("not answered: %s", o)
		}
		if o.Call.Before(began.Add(took)) && o.End.After(began) {
			slowest = max(slowest, o.End.Sub(o.Call))
		}
	}
	for _, wrong := range history.Judge(ops) {
		t.Error(wrong)
	}
	if is := checksums(t, db, was); !slices.EqualFunc(was, is, func(a, b checksum) bool { return a.sum == b.sum }) {
		t.Errorf("rows are %v, were %v", is, was)
	}
	t.Logf("schema %d to %d in %s, the slowest answer meanwhile took %s; %s", before.Current, here.Target,
		took.Round(time.Millisecond), slowest.Round(time.Millisecond), s)
}

// refuses checks that the program does not serve, and says why and what to do.
func (d *deployment) refuses(code, fix string) {
	d.t.Helper()
	cmd := exec.Command(d.binary, append([]string{"serve", "--json"}, d.args...)...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = d.dir, d.env, &out, &errs
	err := cmd.Run()
	var body struct {
		Error struct{ Code, Message, Fix string }
	}
	lines := bytes.Split(bytes.TrimSpace(errs.Bytes()), []byte("\n"))
	_ = json.Unmarshal(lines[len(lines)-1], &body)
	var exit *exec.ExitError
	const unavailable = 5
	if !errors.As(err, &exit) || exit.ExitCode() != unavailable || out.Len() > 0 || body.Error.Code != code ||
		!strings.Contains(body.Error.Message+body.Error.Fix, fix) {
		d.t.Errorf("%s serve: %v, want %s\n%s%s", filepath.Base(d.binary), err, code, out.String(), errs.String())
	}
}

// sql opens the database past the program; url is that of PostgreSQL.
func (d *deployment) sql(url string) *sql.DB {
	d.t.Helper()
	open, where := postgres.DB, url
	if d.engine == onSQLite {
		open, where = sqlite.DB, filepath.Join(d.dir, "data", "signet.db")
	}
	db, err := open(where)
	must(d.t, err)
	d.t.Cleanup(func() { _ = db.Close() })
	return db
}

// fill makes so many grants of so many people, one in a hundred of them ended,
// in the words of the first migration.
func fill(t *testing.T, engine string, db *sql.DB, grants, people int) {
	t.Helper()
	blob, end := "BYTEA", time.Now().AddDate(1, 0, 0).UnixMilli()
	if engine == onSQLite {
		blob = "BLOB"
	}
	const numbers = `WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < %d) `
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO users (id, username, username_key, email, email_key, email_verified, enabled, profile, locale, created_at, updated_at) `+
			numbers+`SELECT 'old-' || n, 'old-' || n, 'old-' || n, '', '', 0, CASE WHEN n %% 100 = 0 THEN 0 ELSE 1 END, '{}', '', n, n FROM g`, people),
		fmt.Sprintf(`INSERT INTO consents (user_id, client_id, scope, resource_uri, implicit, granted_at) `+
			numbers+`SELECT 'old-' || n, 'lenient', 'orders:read', '', 0, n FROM g`, people),
		fmt.Sprintf(`INSERT INTO grants (id, client_id, user_id, session_id, offline, scopes, resources, auth_time, acr, amr, nonce, claims_request,
				redirect_uri, code_challenge, code_expires_at, code_used_at, seed, generation, key_version, rotated_at, idle_end, absolute_end,
				bound_jkt, status_index, created_at, revoked_at, revoke_reason) `+
			numbers+`SELECT 'old-' || n, 'lenient', 'old-' || (1 + n %% %d), '', 1, '["orders:read"]', '[]', n, '', '[]', '', '',
				'', '', n, n, CAST('0123456789abcdef0123456789abcdef' AS %s), n %% 7, 'k', n, %d, %d,
				'', n, n, CASE WHEN n %% 100 = 0 THEN n ELSE 0 END, '' FROM g`, grants, people, blob, end, end),
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%v: %s", err, statement)
		}
	}
}

// checksum is of the rows that fill has made in a table.
type checksum struct {
	table, columns string
	sum            string
}

// checksums reads the columns that the tables have, or had.
func checksums(t *testing.T, db *sql.DB, had []checksum) (sums []checksum) {
	t.Helper()
	if had == nil {
		had = []checksum{{table: "users", columns: "*"}, {table: "grants", columns: "*"}, {table: "consents", columns: "*"}}
	}
	for _, of := range had {
		key := map[bool]string{true: "user_id", false: "id"}[of.table == "consents"]
		rows, err := db.QueryContext(t.Context(), fmt.Sprintf(`SELECT %s FROM %s WHERE %s LIKE 'old-%%' ORDER BY %[3]s`, of.columns, of.table, key))
		must(t, err)
		names, err := rows.Columns()
		must(t, err)
		values, count, sum := make([]any, len(names)), 0, sha256.New()
		for i := range values {
			values[i] = new(sql.RawBytes)
		}
		for ; rows.Next(); count++ {
			must(t, rows.Scan(values...))
			for _, v := range values {
				fmt.Fprintf(sum, "%q ", *v.(*sql.RawBytes))
			}
		}
		must(t, rows.Err())
		must(t, rows.Close())
		sums = append(sums, checksum{of.table, strings.Join(names, ", "), fmt.Sprintf("%d rows %x", count, sum.Sum(nil)[:8])})
	}
	return sums
}

// repository is the history of this program.
type repository struct {
	t     *testing.T
	root  string
	built map[string]string // paths, by commit
}

// openRepository fails the test where the commits before this one are missing,
// for there is nothing else to upgrade from.
func openRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{t: t, root: "../..", built: make(map[string]string)}
	if r.git("rev-parse", "--is-shallow-repository") != "false" {
		t.Fatal("this clone has no history, and so no earlier program to upgrade from: `git fetch --unshallow` gets it")
	}
	return r
}

// git runs a command that has to succeed and returns what it says.
func (r *repository) git(args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", append([]string{"-C", r.root}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %s: %v: %s\nThe earlier programs are built from the history, which has to be there: clone the repository, not a copy of its files", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// migrations returns the names of the migrations, in order.
func (r *repository) migrations() (names []string) {
	files, err := filepath.Glob(filepath.Join(r.root, "migrations/postgres/*.sql"))
	must(r.t, err)
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}

// beforeLastChange returns the newest commit whose program differs from this one.
func (r *repository) beforeLastChange() string {
	r.t.Helper()
	program := []string{"--", "go.mod", "cmd/signet", "migrations", "provider", "storage", "templates", "web",
		":(exclude)*_test.go", ":(exclude)storage/storagetest", ":(exclude)*.md"}
	if r.git(append([]string{"status", "--porcelain"}, program...)...) != "" {
		return r.git("rev-parse", "HEAD") // the change is not committed yet
	}
	return r.git("rev-parse", r.git(append([]string{"rev-list", "-1", "HEAD"}, program...)...)+"^")
}

// before returns the newest commit that does not have a migration.
func (r *repository) before(migration string) string {
	r.t.Helper()
	added := r.git("log", "--diff-filter=A", "--format=%H", "HEAD", "--", "migrations/postgres/"+migration)
	if added == "" {
		return r.git("rev-parse", "HEAD") // it is not committed yet
	}
	return r.git("rev-parse", added[strings.LastIndex(added, "\n")+1:]+"^")
}

// build builds the program as it was at a commit, and returns the path.
func (r *repository) build(commit string) string {
	r.t.Helper()
	if path, ok := r.built[commit]; ok {
		return path
	}
	dir := r.t.TempDir()
	archive := exec.CommandContext(r.t.Context(), "git", "-C", r.root, "archive", commit)
	unpack := exec.CommandContext(r.t.Context(), "tar", "-x", "-C", dir)
	var err error
	unpack.Stdin, err = archive.StdoutPipe()
	must(r.t, err)
	must(r.t, archive.Start())
	out, err := unpack.CombinedOutput()
	if err := errors.Join(err, archive.Wait()); err != nil {
		r.t.Fatalf("git archive %s: %v: %s", commit, err, out)
	}
	path := filepath.Join(binaries, "signet-"+commit[:12])
	args := []string{"build", "-trimpath", "-o", path}
	if *raced {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(r.t.Context(), "go", append(args, "./cmd/signet")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("build %s: %v\n%s", commit, err, out)
	}
	r.built[commit] = path
	return path
}
