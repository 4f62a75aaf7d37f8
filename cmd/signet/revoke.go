package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/signet-oidc/signet/provider"
	"github.com/signet-oidc/signet/storage"
)

type revokeCmd struct {
	JTI    string `name:"jti" placeholder:"V" help:"One access token, by its jti claim."`
	Grant  string `placeholder:"V" help:"Everything one authorization gave, by its grant_id claim."`
	SID    string `name:"sid" placeholder:"V" help:"A session and what is bound to it, by its sid claim, also by that of an app with pairwise subjects."`
	Sub    string `placeholder:"V" help:"What a person's apps hold, by their sub claim; one of their pairwise subs stands for all."`
	Client string `placeholder:"V" help:"What a client holds, by its client_id."`
}

func (*revokeCmd) Help() string {
	return `Refuses what is out at introspection, at userinfo and, as soon as they hear of it, at verifiers that follow the revocation feed. Refresh tokens of --grant, --sid, --sub and --client end as well; people stay signed in, except with --sid, and may let their apps in again. Apps with a --backchannel-logout-uri are told of --sid and --sub, and sign the person out. To keep somebody out use "signet user disable" or "signet client disable".

seq is the entry's number in the revocation log, until the time when nothing it refuses is still valid.`
}

func (*revokeCmd) Examples() string { return "signet revoke --jti 3vY0HXo1TGyBxv1yVQpLzA" }

func (c *revokeCmd) Run(ctx context.Context, a *app) error {
	var revoke func(*provider.Admin) (provider.Revoked, error)
	given := 0
	fix := ""
	for _, what := range []struct {
		value, fix string
		revoke     func(*provider.Admin, context.Context, string) (provider.Revoked, error)
	}{
		{c.JTI, "", (*provider.Admin).RevokeToken},
		{c.Grant, "copy the grant_id claim of one of its tokens; grants are forgotten a week after they ended", (*provider.Admin).RevokeGrant},
		{c.SID, "copy the sid claim of one of its tokens; one that begins with _ is known until a week after its grants ended; `signet revoke --sub` ends all that a person's apps hold", (*provider.Admin).RevokeSession},
		{c.Sub, "`signet user show NAME` tells a person's sub; a pairwise one is known until a week after its grants ended; for a service use --client", (*provider.Admin).RevokeSubject},
		{c.Client, "", (*provider.Admin).RevokeClient},
	} {
		if what.value == "" {
			continue
		}
		given++
		fix = what.fix
		revoke = func(admin *provider.Admin) (provider.Revoked, error) { return what.revoke(admin, ctx, what.value) }
	}
	if given != 1 {
		return usage("give one of --jti, --grant, --sid, --sub and --client", "`signet revoke --help` says what each of them takes back")
	}
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	revoked, err := revoke(i.Admin())
	if errors.Is(err, storage.ErrNotFound) && fix != "" {
		return &failure{status: exitNotFound, code: "not_found", message: err.Error(), fix: fix}
	}
	if err != nil {
		return err
	}
	answer := struct {
		Seq   int64   `json:"seq"`
		Until instant `json:"until"`
	}{revoked.Seq, instant(revoked.Until)}
	return a.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "Revoked: entry %d of the revocation log, kept until %s.\n", answer.Seq, answer.Until)
	})
}
