package storagetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// PerPerson is how many grants Fill gives each person.
const PerPerson = 5

// Fill makes a database as big as n grants make it, in minutes for a million.
// Each is a copy of the grant that template names, which was redeemed, with an
// id and a seed of its own, and so are its people: one to each PerPerson
// grants, with a session, a password, consents and the event of the sign-in.
// A grant is inserted with its code and then redeemed by an update, as the
// program does it, few at a time, so that pages come to be as full as use makes
// them. It returns the id of one of every n/100 grants, and may be called once
// on a database: a postgres:// URL, or the path of a SQLite file.
func Fill(ctx context.Context, database, template string, n int) (some []string, err error) {
	engine := migrations.SQLite
	if strings.HasPrefix(database, "postgres") {
		engine = migrations.Postgres
	}
	db, err := openToFill(ctx, engine, database)
	if err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	f, err := newFiller(ctx, db, engine, template, n)
	if err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	persons := (n + PerPerson - 1) / PerPerson
	for lo := 0; lo < persons; lo += 1000 {
		if err := f.people(ctx, lo, min(lo+1000, persons)-1); err != nil {
			return nil, fmt.Errorf("fill: people: %w", err)
		}
	}
	batch := max(50, n/5000)
	if engine == migrations.SQLite { // an update leaves nothing behind
		batch = 1000
	}
	for lo := 0; lo < n; lo += batch {
		err := f.grants(ctx, lo, min(lo+batch, n)-1)
		if err == nil && engine == migrations.Postgres && lo/(n/20+1) != (lo+batch)/(n/20+1) {
			// As often as autovacuum does when the database grows slowly.
			_, err = db.ExecContext(ctx, `VACUUM grants`)
		}
		if err != nil {
			return nil, fmt.Errorf("fill: grants: %w", err)
		}
	}
	if some, err = texts(ctx, db, `SELECT id FROM grants WHERE id < $1 ORDER BY id`, f.moment(n)); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	step := max(1, n/100)
	for i := 0; i*step < len(some); i++ {
		some[i] = some[i*step]
	}
	return some[:(len(some)+step-1)/step], nil
}

// openToFill opens a database without the limits of the programs: a vacuum may
// wait for another, and a fill that a power cut spoils is begun again.
func openToFill(ctx context.Context, engine migrations.Engine, database string) (*sql.DB, error) {
	if engine == migrations.Postgres {
		cfg, err := pgx.ParseConfig(database)
		if err != nil {
			return nil, err
		}
		return stdlib.OpenDB(*cfg), nil
	}
	db, err := sqlite.DB(database)
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, `PRAGMA synchronous = OFF`); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

type filler struct {
	db       *sql.DB
	engine   migrations.Engine
	template string
	first    int64 // the moment in the id of grant 0
	columns  map[string][]string
}

func newFiller(ctx context.Context, db *sql.DB, engine migrations.Engine, template string, n int) (*filler, error) {
	f := &filler{db: db, engine: engine, template: template, columns: make(map[string][]string)}
	ms, err := strconv.ParseInt(strings.ReplaceAll(template[:min(len(template), 13)], "-", ""), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	f.first = ms - int64(n) - time.Minute.Milliseconds() // all of them before template
	for _, table := range []string{"grants", "users", "credentials", "sessions", "consents", "audit_events"} {
		rows, err := db.QueryContext(ctx, `SELECT * FROM `+table+` LIMIT 0`)
		if err != nil {
			return nil, err
		}
		f.columns[table], err = rows.Columns()
		if err := rows.Close(); err != nil {
			return nil, err
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// The two engines' spellings.

func (f *filler) hex(number string) string {
	if f.engine == migrations.Postgres {
		return `lpad(to_hex(CAST(` + number + ` AS BIGINT)), 12, '0')`
	}
	return `printf('%012x', ` + number + `)`
}

func (f *filler) random() string { // 32 hexadecimal digits
	if f.engine == migrations.Postgres {
		return `md5(random()::text)`
	}
	return `lower(hex(randomblob(16)))`
}

func (f *filler) secret() string { // 32 bytes
	if f.engine == migrations.Postgres {
		return `decode(md5(random()::text) || md5(random()::text), 'hex')`
	}
	return `randomblob(32)`
}

// timeID is a UUIDv7 (RFC 9562 §5.7) of the i-th moment after the first.
func (f *filler) timeID() string {
	ms := f.hex(fmt.Sprintf(`%d + i`, f.first))
	return fmt.Sprintf(`substr(%s, 1, 8) || '-' || substr(%[1]s, 9, 4) || '-7' || substr(%s, 1, 3) || '-a' || substr(%[2]s, 1, 3) || '-' || substr(%[2]s, 1, 12)`,
		ms, f.random())
}

// id is a UUID like a random one (RFC 9562 §5.4), always the same for a number
// and a kind of row, and scattered over an index as random ones are.
func (f *filler) id(kind, number string) string {
	return fmt.Sprintf(`substr(%s, 5, 8) || '-0000-4000-%s-' || %s`, f.hex(`(`+number+`) * 2654435761 % 4294967296`), kind, f.hex(number))
}

const (
	aUser    = "8000"
	aSession = "9000"
)

// clone inserts, for each number i from lo to hi, a copy of the rows that the
// condition finds by $1, with other values in some columns.
func (f *filler) clone(ctx context.Context, table, condition string, lo, hi int, values map[string]string) error {
	var list []string
	for _, column := range f.columns[table] {
		value, ok := values[column]
		if !ok {
			value = "t." + column
		}
		list = append(list, value)
	}
	_, err := f.db.ExecContext(ctx, fmt.Sprintf(`INSERT INTO %s (%s)
		WITH RECURSIVE n(i) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		SELECT %s FROM n, %[1]s AS t WHERE %[6]s`,
		table, strings.Join(f.columns[table], ", "), lo, hi, strings.Join(list, ", "), condition), f.template)
	if err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	return nil
}

// people makes the persons from lo to hi.
func (f *filler) people(ctx context.Context, lo, hi int) error {
	const owner = `(SELECT user_id FROM grants WHERE id = $1)`
	name := `'fill-' || i`
	user, session := f.id(aUser, "i"), f.id(aSession, "i")
	for _, c := range []struct {
		table, condition string
		values           map[string]string
	}{
		{"users", `t.id = ` + owner, map[string]string{"id": user, "username": name, "username_key": name,
			"email": name + ` || '@fill.example'`, "email_key": name + ` || '@fill.example'`}},
		{"credentials", `t.user_id = ` + owner, map[string]string{"id": f.timeID(), "user_id": user}},
		{"sessions", `t.id = (SELECT session_id FROM grants WHERE id = $1)`, map[string]string{"id": session, "user_id": user,
			"secret_hash": f.secret(), "absolute_end": "t.absolute_end - 3600000 + i"}},
		{"consents", `t.user_id = ` + owner, map[string]string{"user_id": user}},
		{"audit_events", `t.id = (SELECT max(id) FROM audit_events WHERE user_id = ` + owner + `)`,
			map[string]string{"id": f.timeID(), "at": "t.at - 3600000 + i", "user_id": user}},
	} {
		if err := f.clone(ctx, c.table, c.condition, lo, hi, c.values); err != nil {
			return err
		}
	}
	return nil
}

// grants makes the grants from lo to hi, of people who are there.
func (f *filler) grants(ctx context.Context, lo, hi int) error {
	person := fmt.Sprintf(`i / %d`, PerPerson)
	err := f.clone(ctx, "grants", `t.id = $1`, lo, hi, map[string]string{
		"id": f.timeID(), "user_id": f.id(aUser, person), "session_id": f.id(aSession, person), "seed": f.secret(),
		"code_used_at": "0", "generation": "0", "idle_end": "t.code_expires_at", "absolute_end": "t.code_expires_at",
	})
	if err != nil {
		return err
	}
	_, err = f.db.ExecContext(ctx, `UPDATE grants SET code_used_at = t.code_used_at, generation = 1, key_version = t.key_version,
			idle_end = t.idle_end, absolute_end = t.absolute_end - 3600000
		FROM grants AS t WHERE t.id = $1 AND grants.id >= $2 AND grants.id < $3 AND grants.code_used_at = 0`,
		f.template, f.moment(lo), f.moment(hi+1))
	return err
}

// moment is what the ids of grants from number i on are not less than.
func (f *filler) moment(i int) string {
	h := fmt.Sprintf("%012x", f.first+int64(i))
	return h[:8] + "-" + h[8:]
}

func texts(ctx context.Context, db *sql.DB, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}
