// Command fill makes a database as big as many grants make it, to see what that
// costs. It copies a grant that was redeemed, the newest unless one is named,
// and its person:
//
//	go run ./storage/storagetest/fill -database signet.db -grants 100000
//
// It is for databases that are thrown away. It prints the ids of some of the
// grants.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/signet-oidc/signet/migrations"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
	"github.com/signet-oidc/signet/storage/storagetest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	database := flag.String("database", "", "postgres:// `URL` or SQLite file")
	grants := flag.Int("grants", 1000, "how many to add")
	template := flag.String("template", "", "`id` of the grant to copy")
	flag.Parse()
	if err := fill(ctx, *database, *template, *grants); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fill(ctx context.Context, database, template string, grants int) (err error) {
	if database == "" || grants < 1 {
		return errors.New("fill: want -database, and -grants above 0")
	}
	engine, open := migrations.SQLite, sqlite.DB
	if strings.HasPrefix(database, "postgres") {
		engine, open = migrations.Postgres, postgres.DB
	} else if _, err := os.Stat(database); err != nil {
		return err
	}
	db, err := open(database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if template == "" {
		err := db.QueryRowContext(ctx, `SELECT id FROM grants WHERE code_used_at > 0 ORDER BY id DESC LIMIT 1`).Scan(&template)
		if err != nil {
			return fmt.Errorf("fill: a grant to copy: %w", err)
		}
	}
	some, err := storagetest.Fill(ctx, db, engine, template, grants)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(some, "\n"))
	return nil
}
