package web_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/storagetest"
)

var growTo = flag.Int("grants", 10_000, "the most grants that TestGrowth fills a database with; a million for the figures in docs")

// grown is a site on a database with many grants.
type grown struct {
	*flow
	raw  *sql.DB
	size int
	some []string // ids of filled grants
}

func newGrown(t *testing.T, engine migrations.Engine, size int) *grown {
	t.Helper()
	db := newDatabase(t, engine)
	s := newSite(t, db.open(t), options{quiet: true})
	s.db = db
	g := &grown{flow: newFlow(t, s, s.people()), raw: db.raw(t), size: size}
	t.Cleanup(func() { g.raw.Close() })
	token, err := s.store.Grant(t.Context(), grantOf(t, g.flow.tokens(g.redeem(g.code())).RefreshToken))
	if err != nil {
		t.Fatal(err)
	}
	// Another process, because the race detector makes SQLite forty times slower.
	fill := exec.CommandContext(t.Context(), "go", "run", "../storage/storagetest/fill",
		"-database", db.at, "-template", token.ID, "-grants", strconv.Itoa(size))
	fill.Stderr = os.Stderr
	out, err := fill.Output()
	if err != nil {
		t.Fatalf("fill: %v", err)
	}
	g.some = strings.Fields(string(out))
	g.vacuum(t, `VACUUM ANALYZE`)
	return g
}

// The parts of a refresh token (provider/code.go): a prefix, then in base64url a
// version, the key id and its length, the grant, the generation and two MACs.
const (
	afterPrefix = len("sgr_")
	beforeMACs  = 16 + 8 // the grant and the generation
)

func grantOf(t *testing.T, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(token[afterPrefix:])
	if err != nil {
		t.Fatal(err)
	}
	at := 2 + int(raw[1])
	return uuid.UUID(raw[at : at+16]).String()
}

// current makes the refresh token of a filled grant, from its row and the sealed key.
func (g *grown) current(i int) string {
	g.t.Helper()
	id := g.some[i%len(g.some)]
	row, err := g.s.store.Grant(g.t.Context(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	u := uuid.MustParse(id)
	b := append([]byte("sgr_\x01"), byte(len(row.KeyVersion)))
	b = append(append(b, row.KeyVersion...), u[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(row.Generation))
	inner := hmac.New(sha256.New, row.Seed)
	inner.Write(b)
	b = inner.Sum(b)
	outer, ok := g.s.ring.MACWith(keys.PurposeGrant, row.KeyVersion, b)
	if !ok {
		g.t.Fatalf("no key %s", row.KeyVersion)
	}
	b = append(b, outer[:]...)
	return "sgr_" + base64.RawURLEncoding.EncodeToString(b[afterPrefix:])
}

// bytes returns what each table takes, and its indexes.
func (g *grown) bytes(t *testing.T) (tables, indexes map[string]int) {
	t.Helper()
	query := `SELECT m.tbl_name, m.type = 'index', sum(d.pgsize) FROM dbstat AS d JOIN sqlite_master AS m ON m.name = d.name GROUP BY 1, 2`
	if g.s.db.engine == migrations.Postgres {
		query = `SELECT c.relname, v.is_index, v.bytes FROM pg_class AS c, LATERAL (VALUES
			(false, pg_table_size(c.oid)), (true, pg_indexes_size(c.oid))) AS v (is_index, bytes)
			WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace`
	}
	rows, err := g.raw.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	tables, indexes = make(map[string]int), make(map[string]int)
	for rows.Next() {
		var table string
		var isIndex bool
		var bytes int
		if err := rows.Scan(&table, &isIndex, &bytes); err != nil {
			t.Fatal(err)
		}
		if isIndex {
			indexes[table] = bytes
		} else {
			tables[table] = bytes
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return tables, indexes
}

// A database keeps one row for each grant, however often that is used, and
// no statement reads more of them when there are many. With -v and -grants 1000000
// this prints the tables of docs/performance.md.
func TestGrowth(t *testing.T) {
	for _, engine := range []migrations.Engine{migrations.SQLite, migrations.Postgres} {
		t.Run(string(engine), func(t *testing.T) {
			var all []*grown
			for size := 1000; size <= *growTo; size *= 10 {
				began := time.Now()
				all = append(all, newGrown(t, engine, size))
				t.Logf("%d grants filled in %.1f s", size, time.Since(began).Seconds())
			}
			biggest := all[len(all)-1]
			t.Run("size", func(t *testing.T) { printSizes(t, all) })
			t.Run("use takes no room", biggest.takesNoRoom)
			t.Run("filled grants are real", biggest.areReal)
			t.Run("time", func(t *testing.T) { printTimes(t, all) })
			t.Run("nothing is scanned", biggest.noScans)
		})
	}
}

// printSizes prints what a grant takes, by table.
func printSizes(t *testing.T, all []*grown) {
	var b strings.Builder
	for _, g := range all {
		rows := g.s.db.rows(t)
		tables, indexes := g.bytes(t)
		if got := rows["grants"]; got != g.size+2 { // newFlow's code, which nobody redeems, and the template
			t.Errorf("%d rows for %d grants", got, g.size+2)
		}
		for _, table := range slices.Sorted(maps.Keys(rows)) {
			if n := rows[table]; n >= g.size/storagetest.PerPerson {
				fmt.Fprintf(&b, "\n| %d | %s | %d | %.1f MB | %.1f MB | %d |", g.size, table, n, float64(tables[table])/1e6, float64(indexes[table])/1e6, (tables[table]+indexes[table])/n)
			}
		}
	}
	t.Logf("grants | table | rows | table | indexes | bytes a row%s", b.String())
}

// areReal refreshes filled grants, twice, and asks about them.
func (g *grown) areReal(t *testing.T) {
	g.t = t
	for i := range 10 {
		if w := g.post("/introspect", url.Values{"token": {g.current(i)}}); !strings.Contains(w.Body.String(), `"active":true`) {
			t.Fatalf("grant %s: %d %s", g.some[i], w.Code, w.Body)
		}
		for range 2 {
			token := g.current(i)
			g.flow.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
			if g.current(i) == token {
				t.Fatalf("grant %s did not rotate", g.some[i])
			}
		}
	}
}

// takesNoRoom rotates grants, each by itself as refresh does: all of them a few
// times, some a hundred times. No table gets a row, and none grows, but for what
// PostgreSQL's autovacuum takes back.
func (g *grown) takesNoRoom(t *testing.T) {
	ctx := t.Context()
	rows := g.s.db.rows(t)
	grants, err := allGrants(ctx, g.raw)
	if err != nil {
		t.Fatal(err)
	}
	store := g.s.db.open(t) // its own: PostgreSQL counts what a connection did at the latest when it ends
	rotate := func(grants []storage.Grant) int {
		t.Helper()
		rand.Shuffle(len(grants), func(i, j int) { grants[i], grants[j] = grants[j], grants[i] })
		for i := range grants {
			row := &grants[i]
			err := store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
				return tx.RotateGrant(ctx, row.ID, row.Generation, time.Now(), row.KeyVersion, time.Now().Add(720*time.Hour))
			})
			if err != nil {
				t.Fatal(err)
			}
			row.Generation++
		}
		return len(grants)
	}
	rand.Shuffle(len(grants), func(i, j int) { grants[i], grants[j] = grants[j], grants[i] })
	grants = grants[:1000]
	table, index := g.sum(t)
	rotations := 0
	for range 4 {
		rotations += rotate(grants)
	}
	few := grants[:5]
	for range 100 {
		rotations += rotate(few)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	g.vacuum(t, `VACUUM grants`)
	tableAfter, indexAfter := g.sum(t)
	t.Logf("%d rotations of %d grants: tables %d to %d bytes, indexes %d to %d", rotations, len(grants), table, tableAfter, index, indexAfter)
	if tableAfter > table+table/10 || indexAfter > index+index/10 {
		t.Errorf("use made the tables grow from %d to %d bytes, the indexes from %d to %d", table, tableAfter, index, indexAfter)
	}
	if after := g.s.db.rows(t); !maps.Equal(rows, after) {
		t.Errorf("rows before: %v, after: %v", rows, after)
	}
	if g.s.db.engine != migrations.Postgres {
		return
	}
	// An update on its own page that no index hears of (heap-only tuple).
	var updates, hot int
	for deadline := time.Now().Add(time.Minute); updates < g.size+rotations; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL counted %d updates of grants, want %d", updates, g.size+rotations)
		}
		err := g.raw.QueryRowContext(ctx, `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'grants'`).Scan(&updates, &hot)
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("of %d rotations %d were heap-only updates", rotations, hot)
	if hot < rotations*95/100 {
		t.Errorf("of %d rotations only %d were heap-only updates", rotations, hot)
	}
}

func allGrants(ctx context.Context, db *sql.DB) ([]storage.Grant, error) {
	rows, err := db.QueryContext(ctx, `SELECT id, generation, key_version FROM grants WHERE code_used_at > 0`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []storage.Grant
	for rows.Next() {
		var g storage.Grant
		if err := rows.Scan(&g.ID, &g.Generation, &g.KeyVersion); err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, rows.Err()
}

// vacuum does on PostgreSQL what its autovacuum does by itself, and waits for
// that if it is at it.
func (g *grown) vacuum(t *testing.T, query string) {
	t.Helper()
	if g.s.db.engine != migrations.Postgres {
		return
	}
	conn, err := g.raw.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, query := range []string{`SET lock_timeout = 0`, query} {
		if _, err := conn.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
}

func (g *grown) sum(t *testing.T) (table, index int) {
	t.Helper()
	tables, indexes := g.bytes(t)
	for _, n := range tables {
		table += n
	}
	for _, n := range indexes {
		index += n
	}
	return table, index
}

// printTimes prints how long requests take in the handlers and the database, by
// the number of grants, sizes in turn.
func printTimes(t *testing.T, all []*grown) {
	rounds := 10
	if len(all) > 2 {
		rounds = 200
	}
	names := []string{"authorize", "redeem", "refresh", "introspect a refresh token", "revoke", "account page", "janitor, 5 of each"}
	times := make(map[string]map[int][]time.Duration)
	for _, name := range names {
		times[name] = make(map[int][]time.Duration)
	}
	for round := range rounds {
		for _, g := range all {
			g.t = t
			timed := func(name string, do func()) {
				began := time.Now()
				do()
				times[name][g.size] = append(times[name][g.size], time.Since(began))
			}
			var code, token string
			timed(names[0], func() { code = g.code() })
			timed(names[1], func() { token = g.flow.tokens(g.redeem(code)).RefreshToken })
			old := g.current(round)
			timed(names[2], func() { g.flow.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {old}}) })
			asked := g.current(round + 1)
			timed(names[3], func() {
				if w := g.post("/introspect", url.Values{"token": {asked}}); !strings.Contains(w.Body.String(), `"active":true`) {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			})
			timed(names[4], func() {
				if w := g.post("/revoke", url.Values{"token": {token}}); w.Code != http.StatusOK {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			})
			timed(names[5], func() {
				if w := g.get("/account"); w.Code != http.StatusOK {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			})
		}
	}
	// Last, for it takes grants away: in the hour in which the filled ones are
	// forgotten and those of this test are not.
	for range min(rounds, 20) {
		for _, g := range all {
			began := time.Now()
			err := g.s.store.Update(t.Context(), func(ctx context.Context, tx storage.Tx) error {
				n, err := tx.PruneExpired(ctx, began.Add(180*24*time.Hour+storage.GrantMemory-30*time.Minute), 5)
				if err == nil && n < 5 {
					err = fmt.Errorf("removed %d", n)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			times[names[6]][g.size] = append(times[names[6]][g.size], time.Since(began))
		}
	}
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "\n| %s |", name)
		for _, g := range all {
			list := times[name][g.size]
			slices.Sort(list)
			fmt.Fprintf(&b, " %.2f |", float64(list[len(list)/2].Microseconds())/1000)
		}
	}
	t.Logf("median ms, by grants%s", b.String())
}
