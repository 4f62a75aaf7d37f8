package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/signet-oidc/signet/storage"
)

// Rewrap wraps the data keys of all rows with the sealer's primary
// key-encryption key, after which the previous one is not needed any more, and
// tells progress, unless it is nil, after each. What is sealed stays as it is.
// Until it is through, new rows are sealed with the key-encryption key of
// before, which every replica has. It may be interrupted and done again. It
// returns how many rows it changed. Errors as Ensure.
func (k *Keeper) Rewrap(ctx context.Context, progress func(done, of int)) (done int, err error) {
	for of := 0; ; {
		have, err := k.look(ctx)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return done, err
		}
		rows := have.wrappedOtherwise(k.Sealer.Primary.ID())
		if len(rows) == 0 {
			return done, nil
		}
		if of == 0 {
			of = len(rows)
		}
		for _, row := range rows {
			changed, err := k.rewrap(ctx, row)
			if err != nil {
				return done, fmt.Errorf("rewrap %s: %w", row.identity, err)
			}
			if !changed {
				continue // by somebody else; the next round sees to it
			}
			if done++; progress != nil {
				progress(done, max(of, done))
			}
		}
	}
}

// wrappedRow is a row of either table and how it is sealed.
type wrappedRow struct {
	identity string
	sealed   Sealed
	kid      string // of a signing key
	id       string // of a sealed secret
	purpose  string
}

// wrappedOtherwise lists the rows whose data key another key-encryption key
// wraps, the canary last.
func (inv inventory) wrappedOtherwise(kekID string) []wrappedRow {
	var rows []wrappedRow
	for _, k := range inv.keys {
		if len(k.SealedPrivate) > 0 && k.KEKID != kekID {
			rows = append(rows, wrappedRow{signingKeyIdentity(k), Sealed{k.SealedPrivate, k.WrappedDEK, k.KEKID}, k.KID, "", k.Purpose})
		}
	}
	for _, s := range slices.Concat(inv.secrets, inv.rows, inv.canary) {
		if s.KEKID != kekID {
			rows = append(rows, wrappedRow{sealedSecretIdentity(s), Sealed{s.Sealed, s.WrappedDEK, s.KEKID}, "", s.ID, s.Purpose})
		}
	}
	return rows
}

// rewrap changes one row, if it still is as it was read.
func (k *Keeper) rewrap(ctx context.Context, row wrappedRow) (changed bool, err error) {
	sealed, err := k.Sealer.rewrap(ctx, row.identity, row.sealed)
	if err != nil {
		return false, err
	}
	err = k.Store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		changed = false
		if err := tx.LockRegistry(ctx); err != nil {
			return fmt.Errorf("lock registry: %w", err)
		}
		have, err := takeInventory(ctx, tx, k.Sealer)
		if err != nil {
			return err
		}
		for _, key := range have.keys {
			if key.KID == row.kid && bytes.Equal(key.WrappedDEK, row.sealed.WrappedDEK) {
				key.WrappedDEK, key.KEKID = sealed.WrappedDEK, sealed.KEKID
				changed = true
				return tx.UpdateSigningKey(ctx, key)
			}
		}
		for _, s := range slices.Concat(have.secrets, have.rows, have.canary) {
			if s.ID != row.id || !bytes.Equal(s.WrappedDEK, row.sealed.WrappedDEK) {
				continue
			}
			last := s.Purpose == purposeCanary
			if last && len(have.wrappedOtherwise(sealed.KEKID)) > 1 {
				return nil // from the canary on, nothing may need the previous one
			}
			s.WrappedDEK, s.KEKID = sealed.WrappedDEK, sealed.KEKID
			if err := tx.UpdateSealedSecret(ctx, s); err != nil {
				return err
			}
			changed = true
			if last && k.Record != nil {
				return k.Record(ctx, tx, Event{Name: EventRewrapped, Key: sealed.KEKID})
			}
			return nil
		}
		return nil
	})
	return changed, err
}
