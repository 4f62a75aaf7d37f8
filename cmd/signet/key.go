package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/signet-oidc/signet/provider/keys"
)

type keyCmd struct {
	List       keyList       `cmd:"" help:"List signing keys and where they are in their life."`
	Rotate     keyRotate     `cmd:"" help:"Let the next keys sign now."`
	Compromise keyCompromise `cmd:"" help:"Take a key that others may have out of use at once."`
	Rewrap     keyRewrap     `cmd:"" help:"Change the key-encryption key."`
}

func (*keyCmd) Examples() string { return (*keyList)(nil).Examples() }

type keyJSON struct {
	KID       string     `json:"kid"`
	Alg       string     `json:"alg"`
	Purpose   string     `json:"purpose"`
	State     keys.State `json:"state"`
	PublishAt instant    `json:"publish_at"`
	SignFrom  instant    `json:"sign_from"`
	SignUntil instant    `json:"sign_until"`
	RemoveAt  instant    `json:"remove_at"`
}

// keys lists every signing key as it is now.
func (i *instance) keys(ctx context.Context) (list[keyJSON], error) {
	l := list[keyJSON]{Items: []keyJSON{}}
	infos, err := keys.List(ctx, i.Store, i.Now())
	for _, k := range infos {
		l.Items = append(l.Items, keyJSON{k.KID, k.Alg, k.Purpose, k.State,
			instant(k.PublishAt), instant(k.SignFrom), instant(k.SignUntil), instant(k.RemoveAt)})
	}
	return l, err
}

func describeKeys(w io.Writer, items []keyJSON) {
	if len(items) == 0 {
		fmt.Fprintln(w, "No keys yet; `signet serve` makes them when it first starts.")
		return
	}
	fmt.Fprintln(w, "KID\tALG\tPURPOSE\tSTATE\tSIGNS FROM\tUNTIL\tREMOVED")
	for _, k := range items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.KID, k.Alg, k.Purpose, k.State, k.SignFrom, k.SignUntil, k.RemoveAt)
	}
}

// changeKeys runs change and shows people what it changed, and programs all
// keys as they are afterwards.
func (a *app) changeKeys(ctx context.Context, change func(*instance) error) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	before, err := i.keys(ctx)
	if err != nil {
		return err
	}
	if err := change(i); err != nil {
		return err
	}
	l, err := i.keys(ctx)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		changed := slices.DeleteFunc(slices.Clone(l.Items), func(k keyJSON) bool { return slices.Contains(before.Items, k) })
		if len(changed) == 0 {
			fmt.Fprintln(w, "Nothing changed; `signet key list` shows the keys.")
			return
		}
		describeKeys(w, changed)
	})
}

type keyList struct{}

// Help says what the states are.
func (*keyList) Help() string {
	return "A key is published before it signs (next), signs (active), stays published until the last token it signed has expired (retired), and goes (removed); or others may have it (compromised). The keys are made when signet serve first starts, and rotate themselves while it runs."
}

func (*keyList) Examples() string { return "signet key list" }

func (*keyList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := i.keys(ctx)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) { describeKeys(w, l.Items) })
}

type keyRotate struct{}

// Help says why nothing breaks.
func (*keyRotate) Help() string {
	return "Keys rotate by themselves; this is for those who do not want to wait. The next key of each algorithm signs from now on, the one before stays published until its tokens have expired, and a new next one is made. People see what changed, --json has all keys. It is refused until everybody can have the next keys: they are to be published for a day first, or since there are keys at all."
}

func (*keyRotate) Examples() string { return "signet key rotate" }

func (*keyRotate) Run(ctx context.Context, a *app) error {
	return a.changeKeys(ctx, func(i *instance) error {
		err := i.Admin().RotateKeys(ctx)
		var early *keys.TooEarlyError
		if errors.As(err, &early) {
			return &failure{status: exitFailed, code: "too_early", message: early.Error(),
				fix: "run it again then; a key that others may have is replaced at once by `signet key compromise KID`"}
		}
		return err
	})
}

type keyCompromise struct {
	KID string `arg:"" name:"kid" help:"Key identifier, as signet key list shows it."`
}

// Help says what people notice.
func (*keyCompromise) Help() string {
	return "In one transaction the key is destroyed and leaves the JWK Set, verifiers that follow the revocation feed are told to refuse it, and the next key, which is published already, signs in its place. Apps that hold a token of it get a new one with their refresh token, and nobody signs in again. Verifiers that do not follow the feed may trust the key for as long as they cache the JWK Set: 15 minutes. There is no way back."
}

func (*keyCompromise) Examples() string {
	return `signet key compromise "$(signet key list | awk '/ES256 +token +active/ {print $1}')"`
}

func (c *keyCompromise) Run(ctx context.Context, a *app) error {
	return a.changeKeys(ctx, func(i *instance) error { return i.Admin().CompromiseKey(ctx, c.KID) })
}

type keyRewrap struct {
	Yes bool `help:"Do not ask."`
}

// Help says in which order.
func (*keyRewrap) Help() string {
	return "Seals everything with the key-encryption key that --kek-file (or --kek-fd, --kek-command, SIGNET_KEK) gives, instead of that of --kek-previous-file. First restart every server with both; then run this; then restart without --kek-previous-file. A server that was not restarted with both answers 503 as soon as this runs, and it cannot know which those are: so it asks. It may be interrupted and run again. Keep the old one as long as backups need it."
}

func (*keyRewrap) Examples() string {
	return `
(umask 077; openssl rand -base64 32 > new.kek)
signet key rewrap --kek-file new.kek --kek-previous-file "${SIGNET_DATA:-$HOME/.local/share/signet}/signet.kek" --yes`
}

func (c *keyRewrap) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	if err := a.confirm(ctx, c.Yes, "signet key rewrap", fmt.Sprintf("This seals the keys in %s with the key-encryption key %s. Every server on it that was not restarted with that one and the previous one answers 503 from then on, and which those are cannot be known from here.",
		i.db, i.kek.where(i.db))); err != nil {
		return err
	}
	n, err := i.Admin().RewrapKeys(ctx, func(done, of int) { a.log.Info("rewrapped", "done", done, "of", of) })
	if err != nil {
		return err
	}
	l, err := i.keys(ctx)
	if err != nil {
		return err
	}
	v := struct {
		Rewrapped int `json:"rewrapped"`
		list[keyJSON]
	}{n, l}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%d rewrapped; the previous key-encryption key opens nothing in this database any more.\n", n)
	})
}
