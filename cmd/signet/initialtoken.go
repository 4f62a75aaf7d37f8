package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

type initialTokenCmd struct {
	Create initialTokenCreate `cmd:"" default:"withargs" help:"Make a token with which others register clients."`
	List   initialTokenList   `cmd:"" help:"List the tokens that still register clients."`
	Revoke initialTokenRevoke `cmd:"" help:"End a token."`
}

func (*initialTokenCmd) Examples() string { return (*initialTokenCreate)(nil).Examples() }

type initialTokenCreate struct {
	Uses    int           `default:"1" placeholder:"N" help:"How many clients may be registered with it (${default})."`
	Expires time.Duration `default:"24h" placeholder:"DUR" help:"How long it works (${default})."`
	Grant   []string      `sep:"none" placeholder:"GRANT" help:"client_credentials, if they may have that as well."`
	Scope   []string      `sep:"none" placeholder:"SCOPE" help:"Scope of a resource that they may ask for beside those of --registration-scope; may repeat."`
}

func (*initialTokenCreate) Help() string {
	return "Whoever has the token registers clients at the issuer's registration endpoint (RFC 7591), which \"signet serve --registration token\" turns on. It is shown once."
}

func (*initialTokenCreate) Examples() string {
	return "signet client initial-access-token --uses 5 --expires 168h"
}

// initialTokenJSON is an initial access token.
type initialTokenJSON struct {
	ID        string   `json:"id"`
	Token     string   `json:"initial_access_token,omitempty"` // when it was made just now
	Uses      int      `json:"uses"`                           // that are left
	Grants    []string `json:"grant_types"`
	Scope     string   `json:"scope"`
	CreatedAt instant  `json:"created_at"`
	ExpiresAt instant  `json:"expires_at"`
}

func viewInitialToken(t provider.InitialAccessToken) initialTokenJSON {
	return initialTokenJSON{
		ID: t.ID, Uses: t.Uses, Grants: orEmpty(t.Grants), Scope: words(sorted(t.Scopes)),
		CreatedAt: instant(t.CreatedAt), ExpiresAt: instant(t.ExpiresAt),
	}
}

func (c *initialTokenCreate) Run(ctx context.Context, a *app) error {
	var faults provider.InvalidError
	single(faults.Add, "--grant", c.Grant)
	single(faults.Add, "--scope", c.Scope)
	if err := faults.Err(); err != nil {
		return err
	}
	i, err := a.openOrMake(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	token, made, err := i.Admin().CreateInitialAccessToken(ctx, c.Uses, c.Expires, c.Grant, c.Scope)
	if err != nil {
		return err
	}
	v := viewInitialToken(made)
	v.Token = token
	return a.print(v, func(w io.Writer) {
		field(w, "initial access token", v.Token+"   (shown only now)")
		field(w, "id", v.ID)
		field(w, "registers", counted(v.Uses, "client"))
		field(w, "expires", v.ExpiresAt.String())
	})
}

type initialTokenList struct {
	listFlags
}

func (*initialTokenList) Help() string {
	return "The tokens themselves are not kept. Those that are used up, have expired or are from before a restore are not listed: they register nothing."
}

func (*initialTokenList) Examples() string { return "signet client initial-access-token list" }

func (c *initialTokenList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := page(c.listFlags, func(p storage.Page) ([]provider.InitialAccessToken, error) {
		return i.Admin().InitialAccessTokens(ctx, p.After, p.Limit)
	}, func(t provider.InitialAccessToken) string { return t.ID }, viewInitialToken)
	if errors.Is(err, storage.ErrInvalid) {
		return usage(fmt.Sprintf("--after %q is no token's id", c.After), "copy it from the end of the listing before")
	}
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			fmt.Fprintln(w, "There are none.")
			return
		}
		fmt.Fprintln(w, "ID\tUSES LEFT\tGRANTS\tSCOPE\tCREATED\tEXPIRES")
		for _, v := range l.Items {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", v.ID, v.Uses, words(v.Grants), shorten(v.Scope, widestList), v.CreatedAt, v.ExpiresAt)
		}
		more(w, l)
	})
}

type initialTokenRevoke struct {
	ID string `arg:"" name:"id" help:"Id of the token, as the list has it."`
}

func (*initialTokenRevoke) Help() string {
	return "It registers nobody from then on. Clients that were registered with it stay; \"signet client delete\" removes them."
}

func (*initialTokenRevoke) Examples() string {
	return `signet client initial-access-token revoke $(signet client initial-access-token list --json | cut -d'"' -f6)`
}

func (c *initialTokenRevoke) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	if err := i.Admin().RevokeInitialAccessToken(ctx, c.ID); err != nil {
		return err
	}
	return a.print(map[string]any{"id": c.ID, "revoked": true}, func(w io.Writer) { fmt.Fprintf(w, "Revoked %s.\n", c.ID) })
}
