package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// settingBackup is when a backup was made (RFC 3339), in the backup.
const settingBackup = "backup_made_at"

type backupCmd struct {
	File string `arg:"" help:"Where the copy goes. It must not exist."`
}

// Help says what is not in it.
func (*backupCmd) Help() string {
	return `Copies a SQLite database while it is served: all of it of one moment, every page and reference checked, then given its name. Whoever can read the copy can read e-mail addresses and password hashes, so its mode is 0600.

The key-encryption key is not in it, on purpose: keep a copy of that in another place, for without it "signet restore" refuses the backup. PostgreSQL has tools of its own for this; docs/backups.md has the commands.`
}

func (*backupCmd) Examples() string { return `signet backup "signet-$(date +%F).db"` }

type backupJSON struct {
	File   string  `json:"file"`
	Bytes  int64   `json:"bytes"`
	MadeAt instant `json:"made_at"`
	Schema int64   `json:"schema"`
	KEK    string  `json:"kek"`
}

func (c *backupCmd) Run(ctx context.Context, a *app) error {
	db, err := a.databaseURL()
	if err != nil {
		return err
	}
	if db.sqlite == "" {
		return usage("PostgreSQL is backed up with its own tools",
			fmt.Sprintf("run `(umask 077; pg_dump --format=custom --file=%s %s)`, or have pgBackRest keep every moment of the past; keep the key-encryption key apart from either", c.File, redacted(db.postgres)))
	}
	if err := mustNotExist(c.File); err != nil {
		return err
	}
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	madeAt := i.Now()
	// Beside its destination, under a name that nobody takes for a backup.
	partial, err := os.MkdirTemp(filepath.Dir(c.File), ".signet-backup-")
	if err != nil {
		return fileFailure(err, "choose another folder for the backup")
	}
	defer os.RemoveAll(partial)
	work := filepath.Join(partial, "signet.db")
	if err := sqlite.Copy(ctx, i.db.sqlite, work, a.progress("copied")); err != nil {
		return backupFailure(err, i.db.sqlite)
	}
	store, err := sqlite.Open(ctx, work, sqlite.Options{})
	if err != nil {
		return err
	}
	err = store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return tx.SetSetting(ctx, settingBackup, madeAt.Format(time.RFC3339))
	})
	if err := errors.Join(err, store.Close()); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	a.log.Info("checking the copy")
	if err := sqlite.Settle(ctx, work); err != nil {
		return backupFailure(err, i.db.sqlite)
	}
	info, err := os.Stat(work)
	if err != nil {
		return err
	}
	schema, err := schemaOf(ctx, databaseURL{sqlite: i.db.sqlite})
	if err != nil {
		return err
	}
	if err := sqlite.Publish(work, c.File); errors.Is(err, fs.ErrExist) {
		return mustNotExist(c.File)
	} else if err != nil {
		return fileFailure(err, "choose another folder for the backup")
	}
	v := backupJSON{File: c.File, Bytes: info.Size(), MadeAt: instant(madeAt), Schema: schema.Current, KEK: i.kek.where(i.db)}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "Backed up to %s, and checked.\n", v.File)
		field(w, "bytes", fmt.Sprint(v.Bytes))
		field(w, "of", v.MadeAt.String())
		fmt.Fprintf(w, "The key-encryption key (%s) is not in it. Keep a copy of that in another place: without it nobody can restore this backup, and with both anybody can sign tokens.\n", v.KEK)
	})
}

// where tells people where the key-encryption key comes from.
func (s kekSource) where(db databaseURL) string {
	switch {
	case s.text != "":
		return "of SIGNET_KEK"
	case s.file != "":
		return s.file
	case s.fd >= 0:
		return fmt.Sprintf("from file descriptor %d", s.fd)
	case s.command != "":
		return "from the command of --kek-command"
	}
	beside := kekBeside(db.sqlite)
	if _, err := os.Stat(beside); errors.Is(err, fs.ErrNotExist) {
		return "that signet serve is given; there is none beside the database"
	}
	return beside
}

// progress returns a function that logs how far the work is, now and then.
func (a *app) progress(what string) func(done, of int) {
	const every = 5 * time.Second
	last := time.Now()
	return func(done, of int) {
		if time.Since(last) >= every {
			last = time.Now()
			a.log.Info(what, "pages", done, "of", of)
		}
	}
}

func schemaOf(ctx context.Context, db databaseURL) (migrationJSON, error) {
	s, err := openSchema(db)
	if err != nil {
		return migrationJSON{}, err
	}
	defer s.Close()
	return s.status(ctx)
}

// redacted returns the URL without its password, for people and their shells.
func redacted(database string) string {
	u, err := url.Parse(database)
	if err != nil {
		return "postgres://…"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	query := u.Query()
	query.Del("password")
	query.Del("sslpassword")
	u.RawQuery = query.Encode()
	return "'" + u.String() + "'"
}

func mustNotExist(path string) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fileFailure(err, "check the path")
	}
	return &failure{status: exitExists, code: "exists", message: path + " exists already", fix: "choose another name; a backup is never overwritten"}
}

func fileFailure(err error, fix string) error {
	return &failure{status: exitFailed, code: "file", message: oneLine(err.Error()), fix: fix}
}

// backupFailure says what is wrong with the file, of a database or a backup.
func backupFailure(err error, path string) error {
	switch {
	case errors.Is(err, sqlite.ErrDamaged):
		return &failure{status: exitFailed, code: "damaged", message: path + " is " + oneLine(err.Error()), fix: "restore an earlier backup"}
	case errors.Is(err, sqlite.ErrInUse):
		return &failure{status: exitFailed, code: "in_use", message: path + " is in use: a server or a command has it open", fix: "stop `signet serve` on this database first"}
	case errors.Is(err, context.Canceled), errors.Is(err, storage.ErrUnavailable):
		return err
	}
	return fileFailure(err, "")
}

type restoreCmd struct {
	File    string `arg:"" optional:"" help:"The backup."`
	InPlace bool   `help:"The database was put back by other means, as PostgreSQL's own tools: make it fit to be served."`
	Yes     bool   `help:"Do not ask."`
}

// Help says what people notice.
func (*restoreCmd) Help() string {
	return `Puts a backup in the place of a SQLite database, in one step, while no server runs on it. What was there is kept beside it. The backup is checked first: it has to be whole, from this release or an earlier one, and open with the key-encryption key.

What happened after the backup is not in it, so a refresh token that was used since, or a session that was ended, would look good again. Therefore everything that was given before the restore is void: people sign in again, apps ask them again, set-up links are made again, services get new tokens by themselves; verifiers that follow the revocation feed refuse older access tokens as soon as a server runs. Passwords, roles, clients, their secrets and consents are as they were: look into the audit log of the database that is kept for what has to be done again, above all keys that were given up and people who were disabled.

For PostgreSQL stop every server, keep the old database by renaming or dumping it, restore with PostgreSQL's tools, then run "signet restore --in-place", then start the servers. It refuses while it sees sessions of servers in the database. It does not see servers of earlier releases, those that PGAPPNAME, application_name in the URL or a pooler gave another name, and those that have no connection at the moment.`
}

func (*restoreCmd) Examples() string {
	return `
signet backup yesterday.db
signet restore yesterday.db --yes`
}

type restoreJSON struct {
	Epoch    instant `json:"epoch"`
	FeedID   string  `json:"feed_id"`
	Issuer   string  `json:"issuer,omitempty"`
	MadeAt   string  `json:"made_at,omitempty"`
	Previous string  `json:"previous,omitempty"`
	Damaged  bool    `json:"previous_damaged,omitempty"` // its audit log cannot be read
}

func (c *restoreCmd) Run(ctx context.Context, a *app) error {
	db, err := a.databaseURL()
	if err != nil {
		return err
	}
	switch {
	case c.InPlace && c.File != "":
		return usage("--in-place takes no file", "leave out one of them")
	case !c.InPlace && c.File == "":
		return usage("which backup?", "name its file; --in-place is for a database that was put back by other means")
	case c.InPlace:
		return c.inPlace(ctx, a, db)
	case db.sqlite == "":
		return usage("PostgreSQL is restored with its own tools", fmt.Sprintf("stop every server, rename the database that is there, for its audit log, and make an empty one, `pg_restore --exit-on-error --single-transaction --dbname=%s %s`, then `signet restore --in-place`", redacted(db.postgres), c.File))
	}
	return c.fromFile(ctx, a, db)
}

// fromFile prepares a copy of the backup, and puts it in place when it is fit
// to be served.
func (c *restoreCmd) fromFile(ctx context.Context, a *app, db databaseURL) error {
	if _, err := os.Stat(c.File); err != nil {
		return &failure{status: exitNotFound, code: "not_found", message: fmt.Sprintf("%s cannot be read: %v", c.File, errors.Unwrap(err)), fix: "check the path of the backup"}
	}
	if info, err := os.Stat(c.File + "-wal"); err == nil && info.Size() > 0 {
		return &failure{status: exitFailed, code: "in_use", message: fmt.Sprintf("%s has a log beside it (%s-wal): it is a database in use, or a copy of one, not a backup", c.File, c.File),
			fix: "make the backup with `signet backup`"}
	}
	if err := db.mustHaveFolder(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(db.sqlite), 0o700); err != nil {
		return fileFailure(err, "choose another --data or --database")
	}
	if err := c.unused(ctx, db); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(filepath.Dir(db.sqlite), ".signet-restore-")
	if err != nil {
		return fileFailure(err, "")
	}
	defer os.RemoveAll(partial)
	work := databaseURL{sqlite: filepath.Join(partial, "signet.db")}
	if err := copyFile(ctx, c.File, work.sqlite); err != nil {
		return fileFailure(err, "")
	}
	if err := sqlite.Settle(ctx, work.sqlite); err != nil {
		return backupFailure(err, c.File)
	}
	if schema, err := schemaOf(ctx, work); err != nil {
		return err // newer than this program
	} else if schema.Current == 0 {
		return &failure{status: exitFailed, code: "damaged", message: c.File + " is no backup of Signet", fix: "check the path of the backup"}
	}
	i, err := a.openRestored(ctx, work, db)
	if err != nil {
		return err
	}
	defer i.Close()
	madeAt, err := i.setting(ctx, settingBackup)
	if err != nil {
		return err
	}
	does := "makes " + db.sqlite + " of " + c.File
	if mustNotExist(db.sqlite) != nil {
		does = "replaces " + db.sqlite + ", which is kept beside it, with " + c.File
	}
	if err := c.confirm(ctx, a, i, does, madeAt); err != nil {
		return err
	}
	restored, err := i.Admin().Restored(ctx)
	if err != nil {
		return err
	}
	if err := i.Store.Close(); err != nil {
		return err
	}
	if err := sqlite.Settle(ctx, work.sqlite); err != nil {
		return backupFailure(err, c.File)
	}
	aside, err := filepath.Abs(fmt.Sprintf("%s.before-restore-%s", db.sqlite, i.Now().Format("20060102T150405Z")))
	if err != nil {
		return err
	}
	for name, n := aside, 2; mustNotExist(aside) != nil; n++ { // two in one second
		aside = fmt.Sprintf("%s-%d", name, n)
	}
	kept, err := sqlite.Replace(ctx, db.sqlite, work.sqlite, aside)
	if err != nil {
		return backupFailure(err, db.sqlite)
	}
	v := restoreJSON{Epoch: instant(restored.Epoch), FeedID: restored.FeedID, Issuer: i.issuer, MadeAt: madeAt}
	if kept {
		v.Previous, v.Damaged = aside, !hasAuditLog(ctx, aside)
	}
	return a.print(v, v.describe)
}

func (v restoreJSON) describe(w io.Writer) {
	fmt.Fprintln(w, "Restored. Everything that was given before is void: start the server, and people sign in again.")
	field(w, "issuer", v.Issuer)
	field(w, "backup of", v.MadeAt)
	field(w, "previous", v.Previous)
	switch {
	case v.Previous == "":
		return
	case v.Damaged:
		fmt.Fprintf(w, "What operators did since the backup has to be done again. The file that was there is damaged, and its audit log cannot be read as it is; `sqlite3 %s .recover | sqlite3 recovered.db` may get it out. Remove that file when you need it no more.\n", v.Previous)
		return
	}
	since := ""
	if v.MadeAt != "" {
		since = " --since " + v.MadeAt
	}
	fmt.Fprintf(w, "What operators did since the backup has to be done again; `signet audit list --database sqlite://%s%s` shows it. Remove that file when you need it no more.\n", v.Previous, since)
}

// hasAuditLog says whether the audit log of a database that was put aside can
// be read. It changes nothing in it.
func hasAuditLog(ctx context.Context, path string) bool {
	schema, err := schemaOf(ctx, databaseURL{sqlite: path})
	if err != nil || schema.Current == 0 {
		return false
	}
	store, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return false
	}
	_, err = store.AuditEvents(ctx, storage.AuditFilter{Limit: 1})
	return errors.Join(err, store.Close()) == nil
}

// inPlace makes the database as it is now fit to be served.
func (c *restoreCmd) inPlace(ctx context.Context, a *app, db databaseURL) error {
	if err := db.mustExist(); err != nil {
		return err
	}
	if err := c.unused(ctx, db); err != nil {
		return err
	}
	i, err := a.openRestored(ctx, db, db)
	if err != nil {
		return err
	}
	defer i.Close()
	madeAt, err := i.setting(ctx, settingBackup)
	if err != nil {
		return err
	}
	if err := c.confirm(ctx, a, i, "works on "+db.String()+" as it is", madeAt); err != nil {
		return err
	}
	restored, err := i.Admin().Restored(ctx)
	if err != nil {
		return err
	}
	v := restoreJSON{Epoch: instant(restored.Epoch), FeedID: restored.FeedID, Issuer: i.issuer, MadeAt: madeAt}
	return a.print(v, func(w io.Writer) {
		v.describe(w)
		fmt.Fprintln(w, "What operators did since the backup has to be done again; the audit log of the database that was here before shows it, if you kept that.")
	})
}

// unused refuses a database that a server has open, as far as the database can tell.
func (c *restoreCmd) unused(ctx context.Context, db databaseURL) error {
	if db.sqlite == "" {
		return noneServes(ctx, db)
	}
	if _, err := os.Stat(db.sqlite); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := sqlite.InUse(ctx, db.sqlite)
	if errors.Is(err, sqlite.ErrDamaged) { // which is why one restores
		return nil
	}
	if err != nil {
		return backupFailure(err, db.sqlite)
	}
	return nil
}

// noneServes refuses a PostgreSQL database in which servers have sessions.
// Those of a server that was just killed may end a moment after it.
func noneServes(ctx context.Context, db databaseURL) error {
	const patience = 5 * time.Second
	s, err := openSchema(db)
	if err != nil {
		return err
	}
	defer s.Close()
	for began := time.Now(); ; {
		n, err := postgres.Serving(ctx, s.db)
		if err != nil || n == 0 {
			return err
		}
		if time.Since(began) > patience {
			return &failure{status: exitFailed, code: "in_use", message: "the database is in use: servers run on it (" + counted(n, "session") + ")",
				fix: "stop every `signet serve` on this database first; `SELECT client_addr FROM pg_stat_activity WHERE application_name = 'signet serve'` tells where they are"}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// openRestored opens the database and its keys, as serve would, with the
// key-encryption key of the database whose place it takes.
func (a *app) openRestored(ctx context.Context, db, place databaseURL) (*instance, error) {
	var faults provider.InvalidError
	kek := a.common.kek(faults.Add)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	i, err := a.connectTo(ctx, db, kek)
	if err != nil {
		return nil, err
	}
	i.db = place
	fresh, err := nothingSealed(ctx, i.Store)
	if err == nil && !fresh {
		err = i.opens(ctx)
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// opens checks that the key-encryption key opens what is sealed, and that
// nobody has altered it.
func (i *instance) opens(ctx context.Context) error {
	sealer, err := i.sealer(ctx)
	if err != nil {
		return err
	}
	ring, err := keys.Load(ctx, i.Store, sealer, i.Now())
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	return ring.Altered()
}

// setting returns a setting, "" when there is none.
func (i *instance) setting(ctx context.Context, name string) (string, error) {
	v, err := i.Store.Setting(ctx, name)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("settings: %w", err)
	}
	return v, nil
}

// confirm asks whether everybody may be signed out. does says what is about to
// be done to which database.
func (c *restoreCmd) confirm(ctx context.Context, a *app, i *instance, does, madeAt string) error {
	of, as := "", ""
	if madeAt != "" {
		of = " of " + madeAt
	}
	if i.issuer != "" {
		as = " as " + i.issuer
	}
	return a.confirm(ctx, c.Yes, "signet restore", fmt.Sprintf("This %s. After it the database%s is served again%s: everybody has to sign in again, and access tokens from before are refused.", does, of, as))
}

// copyFile copies a file that nobody writes to, durably.
func copyFile(ctx context.Context, from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	buffer := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, out.Close())
		}
		n, err := in.Read(buffer)
		if n > 0 {
			if _, err := out.Write(buffer[:n]); err != nil {
				return errors.Join(err, out.Close())
			}
		}
		if errors.Is(err, io.EOF) {
			return errors.Join(out.Sync(), out.Close())
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
}
