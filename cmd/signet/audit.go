package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/storage"
)

type auditCmd struct {
	List auditList `cmd:"" help:"List what happened, the latest first."`
}

func (*auditCmd) Examples() string { return (*auditList)(nil).Examples() }

type auditList struct {
	Since  string `placeholder:"T" help:"Only what happened since: a time as 2026-11-25T12:00:00Z or 2026-11-25 (UTC), or how long ago, as 24h."`
	User   string `placeholder:"NAME" help:"Only what concerns this user: username, e-mail address or sub."`
	Client string `placeholder:"ID" help:"Only what concerns this client."`
	listFlags
}

// Help says what there is to see.
func (*auditList) Help() string {
	return "Sign-ins, consents, sessions that ended, revocations, keys, and what operators changed. Tokens that are granted are lines of the server's log, and counted in its metrics; they are not here. Times are UTC."
}

func (*auditList) Examples() string {
	return `
signet audit list --since 24h --limit 20
signet audit list --user alice --json`
}

type auditJSON struct {
	ID        string          `json:"id"`
	Time      instant         `json:"time"`
	Event     string          `json:"event"`
	Actor     string          `json:"actor"`
	Sub       string          `json:"sub,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	Address   string          `json:"address,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

func (c *auditList) Run(ctx context.Context, a *app) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	f := storage.AuditFilter{ClientID: c.Client}
	if f.Since, err = since(c.Since, i.Now()); err != nil {
		return err
	}
	if c.User != "" {
		if f.UserID, err = i.subject(ctx, c.User); err != nil {
			return err
		}
	}
	l, err := page(c.listFlags, func(p storage.Page) ([]storage.AuditEvent, error) {
		f.Before, f.Limit = p.After, p.Limit
		return i.Store.AuditEvents(ctx, f)
	}, func(e storage.AuditEvent) string { return e.ID }, func(e storage.AuditEvent) auditJSON {
		return auditJSON{e.ID, instant(e.At), e.Event, e.Actor, e.UserID, e.ClientID, e.Address, e.RequestID, json.RawMessage(e.Detail)}
	})
	if errors.Is(err, storage.ErrNotFound) {
		return usage(fmt.Sprintf("--after %q is no event", c.After), "copy it from the end of the listing before")
	}
	if err != nil {
		return err
	}
	names, err := i.namesIn(ctx, l.Items)
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		if len(l.Items) == 0 {
			fmt.Fprintln(w, "Nothing of that kind happened.")
			return
		}
		fmt.Fprintln(w, "TIME\tEVENT\tBY\tUSER\tCLIENT\tADDRESS\tDETAIL")
		for _, e := range l.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Time, e.Event,
				shorten(cmp.Or(names[e.Actor], e.Actor), widestName), shorten(cmp.Or(names[e.Sub], e.Sub, "-"), widestName),
				shorten(cmp.Or(e.ClientID, "-"), widestName), cmp.Or(e.Address, "-"), cmp.Or(plain(e.Detail), "-"))
		}
		more(w, l)
	})
}

// since reads a time, or how long ago it was.
func since(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usage(fmt.Sprintf("--since %q is neither a time nor a duration", text), "write it as 2026-11-25T12:00:00Z, 2026-11-25 or 24h")
}

// subject returns the sub of a user; of one who was deleted, the audit log
// still knows it.
func (i *instance) subject(ctx context.Context, name string) (string, error) {
	u, err := i.Admin().User(ctx, name)
	if id, notUUID := uuid.Parse(name); errors.Is(err, storage.ErrNotFound) && notUUID == nil {
		return id.String(), nil
	}
	return u.ID, err
}

// namesIn returns the usernames of the people in the events, by their sub.
func (i *instance) namesIn(ctx context.Context, events []auditJSON) (map[string]string, error) {
	names := make(map[string]string)
	for _, e := range events {
		for _, sub := range []string{e.Actor, e.Sub} {
			if _, known := names[sub]; known || uuid.Validate(sub) != nil {
				continue
			}
			u, err := i.Store.User(ctx, sub)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return nil, fmt.Errorf("user: %w", err)
			}
			names[sub] = u.Username
		}
	}
	return names, nil
}

// plain writes a JSON object as people read it: name=value, in order.
func plain(detail json.RawMessage) string {
	var members map[string]any
	if json.Unmarshal(detail, &members) != nil {
		return ""
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value := fmt.Sprint(members[name])
		if members[name] == nil {
			value = "-"
		}
		if text, err := json.Marshal(members[name]); err == nil && strings.ContainsAny(value, " \t\n") {
			value = string(text)
		}
		words = append(words, name+"="+value)
	}
	return strings.Join(words, " ")
}
