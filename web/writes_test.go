package web_test

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// countWrites makes the database itself count the rows that are inserted,
// updated and deleted from now on, and returns what reads the counts and begins
// anew: by "grants INSERT" and the like.
func (d database) countWrites(t *testing.T) func() map[string]int {
	t.Helper()
	open := sqlite.DB
	if d.engine == migrations.Postgres {
		open = postgres.DB
	}
	db, err := open(d.at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	must := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	tables := d.rows(t)
	must(`CREATE TABLE writes (kind TEXT NOT NULL)`)
	if d.engine == migrations.Postgres {
		must(`CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO writes VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NULL; END $$`)
	}
	for table := range tables {
		for _, op := range []string{"INSERT", "UPDATE", "DELETE"} {
			trigger := `CREATE TRIGGER note_` + table + `_` + strings.ToLower(op) + ` AFTER ` + op + ` ON ` + table + ` FOR EACH ROW `
			if d.engine == migrations.Postgres {
				must(trigger + `EXECUTE FUNCTION note_write()`)
			} else {
				must(trigger + `BEGIN INSERT INTO writes VALUES ('` + table + ` ` + op + `'); END`)
			}
		}
	}
	return func() map[string]int {
		t.Helper()
		counts, err := takeCounts(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return counts
	}
}

func takeCounts(ctx context.Context, db *sql.DB) (map[string]int, error) {
	rows, err := db.QueryContext(ctx, `DELETE FROM writes RETURNING kind`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := make(map[string]int)
	for rows.Next() {
		var kind string
		if err := rows.Scan(&kind); err != nil {
			return nil, err
		}
		counts[kind]++
	}
	return counts, errors.Join(rows.Err(), rows.Close())
}

// What is written, row by row: a code flow on a live session touches that,
// inserts its grant and updates it when the code is redeemed; a refresh updates
// the grant once more; nothing grows with use.
func TestWhatIsWritten(t *testing.T) {
	const n = 12
	onBoth(t, options{}, func(t *testing.T, s *site) {
		secret := s.people()
		link := authorize("scope", "openid offline_access")
		b := s.browser()
		code := b.open(link).signIn(ada, password).press("allow").answered(callback).Get("code")
		token := s.redeem(secret, code)
		writes := s.db.countWrites(t)
		wrote := func(what string, want map[string]int) {
			t.Helper()
			if got := writes(); !maps.Equal(got, want) {
				t.Errorf("%d times %s wrote %v, want %v", n, what, got, want)
			}
		}

		for range n {
			if a := s.redeem(secret, b.open(link).answered(callback).Get("code")); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		wrote("a code flow", map[string]int{"sessions UPDATE": n, "grants INSERT": n, "grants UPDATE": n})

		for range n {
			if token = s.refresh(secret, token.member("refresh_token")); token.status != 200 {
				t.Fatalf("%d %s", token.status, token.body)
			}
		}
		wrote("refresh", map[string]int{"grants UPDATE": n})

		for range n {
			if a := s.get("/userinfo", "Authorization", "Bearer "+token.member("access_token")); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if a := s.introspect("shop", secret, token.member("refresh_token")); a.json["active"] != true {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		wrote("userinfo and introspection", map[string]int{})

		// A sign-in writes the session, that the password was used, and an event;
		// the count of failures that it begins with is gone after it.
		throttled := s.db.rows(t)["login_throttle"]
		for range n {
			if a := s.redeem(secret, s.browser().open(link).signIn(ada, password).answered(callback).Get("code")); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		got := writes()
		for kind := range got {
			if strings.HasPrefix(kind, "login_throttle ") {
				delete(got, kind)
			}
		}
		want := map[string]int{"sessions INSERT": n, "sessions UPDATE": n, "credentials UPDATE": n, "audit_events INSERT": n, "grants INSERT": n, "grants UPDATE": n}
		if !maps.Equal(got, want) {
			t.Errorf("%d sign-ins wrote %v, want %v", n, got, want)
		}
		if after := s.db.rows(t)["login_throttle"]; after != throttled {
			t.Errorf("%d counts of failures before, %d after", throttled, after)
		}
	})
}
