package main

import (
	"context"
	"errors"
	"fmt"
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
	issuer string        // "" before the first serve
	offset time.Duration // of the database's clock against this machine's
}

// open opens the database the settings name, or reports every fault in them.
// The key-encryption key is left alone until a command needs it.
func (a *app) open(ctx context.Context) (*instance, error) {
	faults := provider.InvalidError{Faults: slices.Clone(a.settings.faults.Faults)}
	db, kek := a.common.database(faults.Add), a.common.kek(faults.Add)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	store, err := a.openStore(ctx, db, false)
	if err != nil {
		return nil, err
	}
	i := &instance{Store: store, app: a, db: db, kek: kek}
	now, err := store.Now(ctx)
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("database clock: %w", err)
	}
	i.offset = time.Until(now)
	if i.issuer, err = store.Setting(ctx, provider.SettingIssuer); err != nil && !errors.Is(err, storage.ErrNotFound) {
		i.Close()
		return nil, fmt.Errorf("settings: %w", err)
	}
	return i, nil
}

// Now returns the time of the clock that all replicas are held to: what a
// command revokes must not depend on the clock of the machine it is typed on.
func (i *instance) Now() time.Time { return time.Now().Add(i.offset).UTC() }

// Close closes the database. What a command did is durable by then.
func (i *instance) Close() { _ = i.Store.Close() }

// Admin returns what the operator may do.
func (i *instance) Admin() *provider.Admin {
	return provider.NewAdmin(provider.AdminConfig{
		Store: i.Store, Ring: i.ring, Policy: provider.DefaultPolicy(), Now: i.Now, Actor: "operator", Issuer: i.issuer,
	})
}

// ring opens the keys, and makes those that hash client secrets if the
// database is new; signing keys are left to serve.
func (i *instance) ring(ctx context.Context) (*keys.Ring, error) {
	sealer, err := i.app.openSealer(ctx, i.db, i.kek, i.Store)
	if err != nil {
		return nil, err
	}
	if err := keys.Ensure(ctx, i.Store, sealer, i.Now(), keys.DefaultSchedule(), nil); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	ring, err := keys.Load(ctx, i.Store, sealer, i.Now())
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return ring, nil
}

// openStore opens the database and holds its schema to this program's: SQLite
// is brought up to date, PostgreSQL only with migrate, for other replicas may
// still run the release before. A newer schema is refused.
func (a *app) openStore(ctx context.Context, db databaseURL, migrate bool) (storage.Store, error) {
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
		return sqlite.Open(ctx, db.sqlite, sqlite.Options{})
	}
	return postgres.Open(ctx, db.postgres, postgres.Options{})
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
	fix := "check what --kek-file, --kek-fd, --kek-command or SIGNET_KEK gives"
	switch {
	case source.text != "":
		kek, err = keys.ParseKEK(source.text)
	case source.file != "":
		kek, _, err = keys.LoadKEKFile(source.file, false)
	case source.fd >= 0:
		kek, err = keys.KEKFromFD(source.fd)
	case source.command != "":
		kek, err = keys.KEKFromCommand(ctx, source.command)
	case db.sqlite == "":
		return nil, keyUnavailable(errors.New("no key-encryption key is given"),
			"make one with `openssl rand -base64 32 > signet.kek && chmod 600 signet.kek` and give it with --kek-file; every replica needs the same one")
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
	if err != nil {
		return nil, keyUnavailable(err, fix)
	}
	return kek, nil
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
