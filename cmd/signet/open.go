package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
	"github.com/signet-oidc/signet/storage/postgres"
	"github.com/signet-oidc/signet/storage/sqlite"
)

// instance is the database an operator's command works on.
type instance struct {
	Store storage.Store

	app    *app
	db     databaseURL
	kek    kekSource
	demo   bool          // the passwords made here are for whoever tries it out
	issuer string        // "" before the first serve
	offset time.Duration // of the database's clock against this machine's

	outbound *provider.Outbound // nil where nothing is fetched

	policy   provider.Policy
	schedule keys.Schedule
}

// open opens the database the settings name, or reports every fault in them.
// It never makes one: what a command is to show or change is not in a new one.
// The key-encryption key is left alone until a command needs it.
func (a *app) open(ctx context.Context) (*instance, error) {
	return a.connect(ctx, databaseURL.mustExist)
}

// openOrMake is open for commands that create something: a SQLite database
// that is not there is made.
func (a *app) openOrMake(ctx context.Context) (*instance, error) {
	return a.connect(ctx, func(databaseURL) error { return nil })
}

func (a *app) connect(ctx context.Context, admit func(databaseURL) error) (*instance, error) {
	faults := provider.InvalidError{Faults: slices.Clone(a.settings.faults.Faults)}
	db, kek := a.common.database(faults.Add), a.common.kek(faults.Add)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if err := admit(db); err != nil {
		return nil, err
	}
	return a.connectTo(ctx, db, kek)
}

func (a *app) connectTo(ctx context.Context, db databaseURL, kek kekSource) (*instance, error) {
	store, err := a.openStore(ctx, db, false, nil)
	if err != nil {
		return nil, err
	}
	i := &instance{Store: store, app: a, db: db, kek: kek}
	if i.policy, i.schedule, err = lifetimes(); err != nil {
		i.Close()
		return nil, err
	}
	asked := time.Now()
	now, err := store.Now(ctx)
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("database clock: %w", err)
	}
	i.offset = now.Sub(asked) // if anything too much, by what the question took
	if i.issuer, err = store.Setting(ctx, provider.SettingIssuer); err != nil && !errors.Is(err, storage.ErrNotFound) {
		i.Close()
		return nil, fmt.Errorf("settings: %w", err)
	}
	return i, nil
}

// lifetimes returns how long things last.
func lifetimes() (provider.Policy, keys.Schedule, error) {
	policy, schedule := provider.DefaultPolicy(), keys.DefaultSchedule()
	err := hurry(&policy, &schedule)
	return policy, schedule, err
}

// mustExist refuses a SQLite file that is not there.
func (u databaseURL) mustExist() error {
	if u.sqlite == "" {
		return nil
	}
	if _, err := os.Stat(u.sqlite); errors.Is(err, fs.ErrNotExist) {
		return &failure{status: exitUnavailable, code: "no_database", message: "there is no database at " + u.sqlite,
			fix: "`signet serve` makes it, and so does every create command; --data or --database names another"}
	}
	return nil
}

// mustHaveFolder refuses a SQLite file in a folder that is not there, unless
// that is the data directory.
func (u databaseURL) mustHaveFolder() error {
	if u.sqlite == "" || u.folder {
		return nil
	}
	dir := filepath.Dir(u.sqlite)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return &failure{status: exitUnavailable, code: "no_database", message: "there is no folder " + dir + " for the database",
			fix: "make it first, or name another file with --database"}
	}
	return nil
}

// Now returns the time of the clock that all replicas are held to: what a
// command revokes must not depend on the clock of the machine it is typed on.
func (i *instance) Now() time.Time { return time.Now().Add(i.offset).UTC() }

// Close closes the database. What a command did is durable by then.
func (i *instance) Close() { _ = i.Store.Close() }

// Admin returns what the operator may do.
func (i *instance) Admin() *provider.Admin {
	c := provider.AdminConfig{
		Store: i.Store, Ring: i.ring, Sealer: i.sealer, Policy: i.policy, Schedule: i.schedule, Now: i.Now, Actor: "operator", Issuer: i.issuer,
		MustChange: !i.demo,
	}
	if i.outbound != nil {
		c.Fetch = i.outbound.Get
	}
	return provider.NewAdmin(c)
}

// ring opens the keys, and makes those that hash client secrets if the
// database is new; signing keys are left to serve.
func (i *instance) ring(ctx context.Context) (*keys.Ring, error) {
	sealer, err := i.sealer(ctx)
	if err != nil {
		return nil, err
	}
	if err := keys.Ensure(ctx, i.Store, sealer, i.Now(), i.schedule, nil); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	ring, err := keys.Load(ctx, i.Store, sealer, i.Now())
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return ring, nil
}

func (i *instance) sealer(ctx context.Context) (*keys.Sealer, error) {
	return i.app.openSealer(ctx, i.db, i.kek, i.Store)
}

// openStore opens the database and holds its schema to this program's: SQLite
// is brought up to date, PostgreSQL only with migrate, for other replicas may
// still run the release before. A newer schema is refused. o is nil but for serve.
func (a *app) openStore(ctx context.Context, db databaseURL, migrate bool, o storage.Observer) (storage.Store, error) {
	schema, err := openSchema(db)
	if err != nil {
		return nil, err
	}
	defer schema.Close()
	status, err := schema.status(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(status.Pending) == 0:
	case db.sqlite == "" && !migrate:
		return nil, &failure{status: exitUnavailable, code: "schema_older",
			message: fmt.Sprintf("the database's schema is version %d, this program needs %d", status.Current, status.Target),
			fix:     "run `signet migrate up`"}
	default:
		if err := schema.up(ctx, a.log); err != nil {
			return nil, err
		}
		if status.Current == 0 && db.sqlite != "" {
			a.log.Info("made a new database", "path", db.sqlite)
		}
	}
	if db.sqlite != "" {
		return sqlite.Open(ctx, db.sqlite, sqlite.Options{Observer: o})
	}
	return postgres.Open(ctx, db.postgres, postgres.Options{Observer: o, Server: o != nil})
}

// openSealer reads the key-encryption key. Beside a SQLite database that has
// nothing sealed yet it makes one when none is given; once something is sealed
// a missing file is an error, for a new key would only hide the loss.
func (a *app) openSealer(ctx context.Context, db databaseURL, source kekSource, store storage.Reader) (*keys.Sealer, error) {
	primary, err := a.openKEK(ctx, db, source, store)
	if err != nil {
		return nil, err
	}
	sealer := &keys.Sealer{Primary: primary}
	if source.previous != "" {
		if sealer.Previous, _, err = keys.LoadKEKFile(source.previous, false); err != nil {
			return nil, keyUnavailable(err, "check --kek-previous-file")
		}
	}
	return sealer, nil
}

func (a *app) openKEK(ctx context.Context, db databaseURL, source kekSource, store storage.Reader) (keys.KEK, error) {
	var kek keys.KEK
	var err error
	var fix string
	switch {
	case source.text != "":
		kek, err = keys.ParseKEK(source.text)
		fix = "correct SIGNET_KEK"
	case source.file != "":
		kek, _, err = keys.LoadKEKFile(source.file, false)
		fix = "check the path that --kek-file gives"
	case source.fd >= 0:
		kek, err = keys.KEKFromFD(source.fd)
		fix = "check what --kek-fd is connected to"
	case source.command != "":
		kek, err = keys.KEKFromCommand(ctx, source.command)
		fix = "check what the command of --kek-command prints"
	case db.sqlite == "":
		return nil, keyUnavailable(errors.New("no key-encryption key is given"),
			"make one with `(umask 077; openssl rand -base64 32 > signet.kek)` and give it with --kek-file; every replica needs the same one")
	default:
		path := kekBeside(db.sqlite)
		fresh, ferr := nothingSealed(ctx, store)
		if ferr != nil {
			return nil, ferr
		}
		var created bool
		kek, created, err = keys.LoadKEKFile(path, fresh)
		if created {
			a.log.Info("made a key-encryption key; keep a copy apart from the database: without it the keys in there are lost", "path", path)
		}
		fix = "put back the file, or say where it is with --kek-file"
	}
	if err == nil {
		return kek, nil
	}
	var path *fs.PathError
	if file := source.text == "" && source.fd < 0 && source.command == ""; file && !errors.As(err, &path) {
		fix = "" // of a file that was read, the error says what to do about it
	}
	return nil, keyUnavailable(err, fix)
}

// kekBeside returns where the key-encryption key of a SQLite database is.
func kekBeside(database string) string {
	return strings.TrimSuffix(database, filepath.Ext(database)) + ".kek"
}

// nothingSealed says whether the database holds nothing that a
// key-encryption key would be needed for.
func nothingSealed(ctx context.Context, r storage.Reader) (bool, error) {
	rows, err := r.SigningKeys(ctx)
	if err != nil {
		return false, fmt.Errorf("signing keys: %w", err)
	}
	secrets, err := r.SealedSecrets(ctx, keys.PurposeClientSecret)
	if err != nil {
		return false, fmt.Errorf("sealed secrets: %w", err)
	}
	return len(rows) == 0 && len(secrets) == 0, nil
}

func keyUnavailable(err error, fix string) error {
	return &failure{status: exitUnavailable, code: "key_unavailable", message: err.Error(), fix: fix}
}
