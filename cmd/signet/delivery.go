package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/signet-oidc/signet/storage"
)

type deliveryCmd struct {
	List deliveryList `cmd:"" help:"List logouts that clients were not told of yet."`
}

func (*deliveryCmd) Examples() string { return (*deliveryList)(nil).Examples() }

type deliveryList struct {
	Failed bool `help:"Only those that were given up."`
	listFlags
}

// Help says what is there, and what is not.
func (*deliveryList) Help() string {
	return "When a session ends, clients with a --backchannel-logout-uri are told (OpenID Connect Back-Channel Logout). What was delivered is gone from here. What failed is tried again, after 5 seconds, then after twice as long each time, up to an hour; a day after the logout it is given up, and is listed for a week."
}

func (*deliveryList) Examples() string { return "signet delivery list --failed" }

type deliveryJSON struct {
	ID            string  `json:"id"`
	ClientID      string  `json:"client_id"`
	Kind          string  `json:"kind"`
	Sub           string  `json:"sub"`
	SID           string  `json:"sid"`
	State         string  `json:"state"` // pending or failed
	Attempts      int64   `json:"attempts"`
	NextAttemptAt instant `json:"next_attempt_at"`
	LastError     string  `json:"last_error,omitempty"`
	CreatedAt     instant `json:"created_at"`
}

func viewDelivery(d storage.Delivery) deliveryJSON {
	var about struct {
		UserID string `json:"user_id"`
		SID    string `json:"sid"`
	}
	_ = json.Unmarshal([]byte(d.Payload), &about) // what cannot be read says nothing
	return deliveryJSON{d.ID, d.ClientID, d.Kind, about.UserID, about.SID, mark(d.NextAttemptAt.IsZero(), "failed", "pending"),
		d.Attempts, instant(d.NextAttemptAt), d.LastError, instant(d.CreatedAt)}
}

func (c *deliveryList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	l, err := page(c.listFlags, func(p storage.Page) ([]storage.Delivery, error) {
		return i.Store.Deliveries(ctx, storage.DeliveryFilter{Failed: c.Failed, Page: p})
	}, func(d storage.Delivery) string { return d.ID }, viewDelivery)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			fmt.Fprintln(w, "There are none.")
			return
		}
		fmt.Fprintln(w, "LOGOUT\tCLIENT\tSUB\tSTATE\tATTEMPTS\tNEXT\tLAST ERROR")
		for _, v := range l.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", v.CreatedAt, shorten(v.ClientID, widestName), v.Sub, v.State, v.Attempts,
				cmp.Or(v.NextAttemptAt.String(), "-"), cmp.Or(v.LastError, "-"))
		}
		more(w, l)
	})
}
