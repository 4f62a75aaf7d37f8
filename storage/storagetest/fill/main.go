// Command fill makes a database as big as many grants make it, to see what that
// costs. It copies a grant that was redeemed, and its person:
//
//	go run ./storage/storagetest/fill -database signet.db -grants 100000 -template ID
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

func fill(ctx context.Context, database, template string, grants int) error {
	if database == "" || template == "" || grants < 1 {
		return errors.New("fill: want -database, -template, and -grants above 0")
	}
	if !strings.HasPrefix(database, "postgres") {
		if _, err := os.Stat(database); err != nil {
			return err
		}
	}
	some, err := storagetest.Fill(ctx, database, template, grants)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(some, "\n"))
	return nil
}
