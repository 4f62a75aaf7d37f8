package main

import (
	"context"
	"fmt"
	"io"

	"github.com/signet-oidc/signet/provider/keys"
)

type keyCmd struct {
	List keyList `cmd:"" help:"List signing keys and where they are in their life."`
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

type keyList struct{}

// Help says what the states are.
func (*keyList) Help() string {
	return "A key is published before it signs (next), signs (active), stays published until the last token it signed has expired (retired), and goes (removed). The keys are made when signet serve first starts."
}

func (*keyList) Examples() string { return "signet key list" }

func (*keyList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	infos, err := keys.List(ctx, i.Store, i.Now())
	if err != nil {
		return err
	}
	l := list[keyJSON]{Items: []keyJSON{}}
	for _, k := range infos {
		l.Items = append(l.Items, keyJSON{k.KID, k.Alg, k.Purpose, k.State,
			instant(k.PublishAt), instant(k.SignFrom), instant(k.SignUntil), instant(k.RemoveAt)})
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			fmt.Fprintln(w, "No keys yet; `signet serve` makes them when it first starts.")
			return
		}
		fmt.Fprintln(w, "KID\tALG\tPURPOSE\tSTATE\tSIGNS FROM\tUNTIL\tREMOVED")
		for _, k := range l.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.KID, k.Alg, k.Purpose, k.State, k.SignFrom, k.SignUntil, k.RemoveAt)
		}
	})
}
