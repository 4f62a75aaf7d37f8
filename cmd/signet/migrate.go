package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
)

type migrateCmd struct {
	Up     migrateUp     `cmd:"" help:"Bring the schema up to date."`
	Status migrateStatus `cmd:"" help:"Compare the schema with what this program needs."`
}

func (*migrateCmd) Examples() string { return (*migrateUp)(nil).Examples() }

type migrationJSON struct {
	Current int64    `json:"current"`
	Target  int64    `json:"target"`
	Pending []string `json:"pending"`
}

func (v migrationJSON) describe(w io.Writer) {
	switch {
	case v.Current > v.Target:
		fmt.Fprintf(w, "The schema is version %d, newer than this program's %d.\n", v.Current, v.Target)
	case len(v.Pending) == 0:
		fmt.Fprintf(w, "The schema is up to date, version %d.\n", v.Current)
	default:
		fmt.Fprintf(w, "The schema is version %d; `signet migrate up` brings it to %d: %s.\n", v.Current, v.Target, strings.Join(v.Pending, ", "))
	}
}

type migrateUp struct{}

// Help says when it is needed.
func (*migrateUp) Help() string {
	return "Needed on PostgreSQL before a new release serves; SQLite is brought up to date by every command. The release before keeps working on the new schema. Any number of processes may do it at once."
}

func (*migrateUp) Examples() string { return "signet migrate up" }

func (*migrateUp) Run(ctx context.Context, a *app) error {
	db, err := a.databaseURL()
	if err != nil {
		return err
	}
	s, err := openSchema(db)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.up(ctx, a.log); err != nil {
		return err
	}
	v, err := s.status(ctx)
	if err != nil {
		return err
	}
	return a.print(v, v.describe)
}

type migrateStatus struct{}

// Help says what a script looks at.
func (*migrateStatus) Help() string {
	return "Exit status 0 says that it could be compared, whatever the answer. Scripts look at --json: pending lists what `signet migrate up` would do, and current is above target when the schema is newer than this program."
}

func (*migrateStatus) Examples() string { return "signet migrate status" }

func (*migrateStatus) Run(ctx context.Context, a *app) error {
	db, err := a.databaseURL()
	if err != nil {
		return err
	}
	if err := db.mustExist(); err != nil {
		return err
	}
	s, err := openSchema(db)
	if err != nil {
		return err
	}
	defer s.Close()
	v, err := s.status(ctx)
	if err != nil && !errors.Is(err, migrations.ErrNewer) { // which is an answer here
		return err
	}
	return a.print(v, v.describe)
}

// databaseURL returns which database the settings name, or every fault in them.
func (a *app) databaseURL() (databaseURL, error) {
	faults := provider.InvalidError{Faults: slices.Clone(a.settings.faults.Faults)}
	db := a.common.database(faults.Add)
	return db, faults.Err()
}

// schema is the database as the migrations see it.
type schema struct {
	db          *sql.DB
	engine      migrations.Engine
	unavailable func(error) error // says when the database is out of reach
}

func openSchema(u databaseURL) (*schema, error) {
	if err := u.mustHaveFolder(); err != nil {
		return nil, err
	}
	s := &schema{engine: migrations.Postgres, unavailable: postgres.Unavailable}
	open, where := postgres.DB, u.postgres
	if u.sqlite != "" {
		s.engine, s.unavailable = migrations.SQLite, sqlite.Unavailable
		open, where = sqlite.DB, u.sqlite
	}
	var err error
	if s.db, err = open(where); err != nil {
		if u.postgres != "" { // nothing is connected yet: the URL is at fault
			return nil, usage("--database cannot be used: "+oneLine(err.Error()), "write postgres://user@host/name")
		}
		return nil, fmt.Errorf("database: %w", err)
	}
	return s, nil
}

// Close closes the database.
func (s *schema) Close() { _ = s.db.Close() }

func (s *schema) up(ctx context.Context, log *slog.Logger) error {
	err := migrations.Up(ctx, s.db, s.engine, func(m migrations.Progress) {
		switch m.State {
		case migrations.Begun:
			log.Info("migrating", "name", m.Name)
		case migrations.Waiting:
			log.Warn("the migration waits for a transaction that holds a table it changes", "name", m.Name)
		case migrations.Applied:
			log.Info("migrated", "name", m.Name, "duration", m.Duration)
		}
	})
	if err != nil {
		return fmt.Errorf("schema: %w", s.unavailable(err))
	}
	return nil
}

// status also returns the complete state beside migrations.ErrNewer.
func (s *schema) status(ctx context.Context) (migrationJSON, error) {
	state, err := migrations.Status(ctx, s.db, s.engine)
	v := migrationJSON{state.Current, state.Target, orEmpty(state.Pending)}
	if err != nil {
		return v, fmt.Errorf("schema: %w", s.unavailable(err))
	}
	return v, nil
}
