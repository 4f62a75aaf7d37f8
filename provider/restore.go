package provider

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// A database that was put back from a backup has forgotten what was used, ended
// and taken back since: a refresh token that was rotated looks current, a
// session that was ended looks live. So all that was given before is void, by
// one date that everything which was given compares with.
const (
	settingEpoch       = "issuer_epoch"        // Unix milliseconds
	settingStatusEpoch = "issuer_status_epoch" // status indexes below this one are from before it
)

// epoch is when the database was last restored, the zero time if it never was.
type epoch struct {
	at     time.Time
	status int64 // the first status index after it
}

// voids says whether what was made at this time is worth nothing any more.
func (e epoch) voids(made time.Time) bool { return !e.at.IsZero() && !made.After(e.at) }

// first returns the time, or the first one that the epoch does not void: what is
// made now is good although the epoch is dated ahead.
func (e epoch) first(now time.Time) time.Time {
	if e.voids(now) {
		return e.at.Add(time.Millisecond)
	}
	return now
}

func readEpoch(ctx context.Context, r storage.Reader) (e epoch, err error) {
	at, err := readNumber(ctx, r, settingEpoch)
	if err != nil || at == 0 {
		return epoch{}, err
	}
	e.at = time.UnixMilli(at).UTC()
	e.status, err = readNumber(ctx, r, settingStatusEpoch)
	return e, err
}

// epoch returns the one that was read last.
func (p *Provider) epoch() epoch {
	if s := p.registry.current.Load(); s != nil {
		return s.epoch
	}
	return epoch{}
}

// readNumber returns a setting, 0 when there is none.
func readNumber(ctx context.Context, r storage.Reader, name string) (int64, error) {
	text, err := r.Setting(ctx, name)
	if errors.Is(err, storage.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("settings: %w", err)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("setting %s: %w", name, err)
	}
	return n, nil
}

// Restored is what Admin.Restored did.
type Restored struct {
	Epoch  time.Time // what was given until then is void
	FeedID string    // of the revocation log
}

// Restored makes a database that was put back from a backup fit to be served:
// whatever was given before now is void, and verifiers read the revocation log
// anew. In one transaction; no server should run meanwhile, or up to a second
// later it may still take what is void. Doing it again is safe.
func (a *Admin) Restored(ctx context.Context) (Restored, error) {
	var r Restored
	err := a.update(ctx, func(ctx context.Context, tx change) error {
		before, err := readEpoch(ctx, tx)
		if err != nil {
			return err
		}
		// Dated ahead, as any epoch is, and never back.
		at := later(a.entries.now().Add(revocation.EpochAhead), before.at).Truncate(time.Millisecond)
		if err := tx.RestartRevocationLog(ctx); err != nil {
			return fmt.Errorf("revocation log: %w", err)
		}
		// Those that were replaced since the backup would be good again.
		if err := tx.VoidRegistrations(ctx, originRegistration); err != nil {
			return err
		}
		// Without an issuer it was never served, so there are no tokens.
		if a.issuer != "" {
			if _, err := tx.append(ctx, revocation.Epoch, revocation.KindIssuer, a.issuer, eventRestored); err != nil {
				return err
			}
		}
		// Places in status lists that were given since the backup are not known
		// here, and none may be given twice: go on in a list of its own, beyond
		// as many as one more list holds.
		next, err := tx.NextStatusIndex(ctx)
		if err != nil {
			return fmt.Errorf("status indexes: %w", err)
		}
		list, _ := revocation.StatusPlace(next)
		status := (list + 2) * revocation.StatusListSize
		if _, err := tx.TakeStatusIndexes(ctx, int(status-next)); err != nil {
			return fmt.Errorf("status indexes: %w", err)
		}
		for name, n := range map[string]int64{settingEpoch: at.UnixMilli(), settingStatusEpoch: status} {
			if err := tx.SetSetting(ctx, name, strconv.FormatInt(n, 10)); err != nil {
				return fmt.Errorf("settings: %w", err)
			}
		}
		log, err := tx.RevocationLog(ctx)
		if err != nil {
			return fmt.Errorf("revocation log: %w", err)
		}
		r = Restored{Epoch: at, FeedID: log.FeedID}
		return tx.audit(ctx, eventRestored, "", "", map[string]any{"epoch": at.Format(time.RFC3339Nano), "feed_id": log.FeedID})
	})
	return r, err
}
