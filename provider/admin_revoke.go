package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// RevokeToken refuses one access token by its jti. There is no record of
// single tokens, so nobody can say whether there ever was such a one.
func (a *Admin) RevokeToken(ctx context.Context, jti string) (Revoked, error) {
	const longest = 256
	var f InvalidError
	switch {
	case strings.HasPrefix(jti, prefixRefresh) || strings.HasPrefix(jti, prefixCode):
		f.Add("jti", "is a refresh token or code", "revoke its grant instead: an access token it gave names it as grant_id")
	case strings.Count(jti, ".") == 2:
		f.Add("jti", "is a whole token", "give its jti claim; `signet token inspect` shows it")
	case jti == "" || len(jti) > longest || strings.ContainsFunc(jti, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '�' }):
		f.Add("jti", "is not one", "copy the token's jti claim; `signet token inspect` shows it")
	}
	if err := f.Err(); err != nil {
		return Revoked{}, err
	}
	var r Revoked
	err := a.updateUsers(ctx, func(ctx context.Context, tx change) (err error) {
		if r, err = tx.append(ctx, revocation.Block, revocation.KindToken, jti, eventTokenRevoked); err != nil {
			return err
		}
		return tx.audit(ctx, eventTokenRevoked, "", "", map[string]any{"jti": jti})
	})
	return r, err
}

// RevokeGrant ends a grant: its code, its refresh tokens and, at verifiers,
// its access tokens.
func (a *Admin) RevokeGrant(ctx context.Context, id string) (Revoked, error) {
	var r Revoked
	err := a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		g, err := tx.Grant(ctx, id)
		if err != nil {
			return object("grant", id, err)
		}
		if _, err := tx.RevokeGrant(ctx, id, tx.now, revokedByOperator); err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		if r, err = tx.append(ctx, revocation.Block, revocation.KindGrant, id, revokedByOperator); err != nil {
			return err
		}
		return tx.audit(ctx, eventGrantRevoked, g.UserID, g.ClientID, map[string]any{"grant_id": id, "reason": revokedByOperator})
	})
	return r, err
}

// RevokeSession ends a session, the grants bound to it and, at verifiers, the
// access tokens that name it.
func (a *Admin) RevokeSession(ctx context.Context, id string) (Revoked, error) {
	if isPairwise(id, pairwiseSIDSize) {
		session, err := a.store.PairwiseSession(ctx, id)
		if err != nil {
			return Revoked{}, object("session", id, err)
		}
		id = session
	}
	var r Revoked
	err := a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		s, err := tx.Session(ctx, id)
		if err != nil {
			return object("session", id, err)
		}
		switch err := tx.EndSession(ctx, id, tx.now, revokedByOperator); {
		case errors.Is(err, storage.ErrNotFound): // it was ended before
		case err != nil:
			return fmt.Errorf("session: %w", err)
		default:
			if err := queueLogouts(ctx, tx, tx.now, s.UserID, anyOf(id)); err != nil {
				return err
			}
		}
		sids, err := tx.PairwiseSIDs(ctx, id) // while the grants are there
		if err != nil {
			return fmt.Errorf("grants: %w", err)
		}
		if err := tx.endGrants(ctx, storage.GrantFilter{SessionID: id}, revokedByOperator); err != nil {
			return err
		}
		if r, err = tx.append(ctx, revocation.Block, revocation.KindSession, id, revokedByOperator); err != nil {
			return err
		}
		for _, sid := range sids {
			if err := tx.revoke(ctx, revocation.Block, revocation.KindSession, sid, revokedByOperator); err != nil {
				return err
			}
		}
		return tx.audit(ctx, eventSessionEnded, s.UserID, "", map[string]any{"sid": id, "reason": revokedByOperator})
	})
	return r, err
}

// RevokeSubject refuses every token of a person that was issued until now and
// ends what apps hold of them. Apps are told to sign them out; here they stay
// signed in and may go on with new ones. One of the person's pairwise subs
// stands for all of them.
func (a *Admin) RevokeSubject(ctx context.Context, sub string) (Revoked, error) {
	if isPairwise(sub, pairwiseSubSize) {
		id, err := a.store.PairwiseUser(ctx, sub)
		if err != nil {
			return Revoked{}, object("user", sub, err)
		}
		sub = id
	}
	// First, for it is by their grants that apps are known.
	err := a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		return queueLogouts(ctx, tx, tx.now, sub, tx.notEnded(ctx))
	})
	if err != nil {
		return Revoked{}, err
	}
	if err := a.endGrantsAhead(ctx, storage.GrantFilter{UserID: sub}); err != nil {
		return Revoked{}, err
	}
	var r Revoked
	err = a.updateUsers(ctx, func(ctx context.Context, tx change) error {
		if err := tx.LockUser(ctx, sub); err != nil {
			return object("user", sub, err)
		}
		u, err := tx.User(ctx, sub)
		if err != nil {
			return object("user", sub, err)
		}
		if err := queueLogouts(ctx, tx, tx.now, sub, tx.notEnded(ctx)); err != nil { // what was granted meanwhile
			return err
		}
		if err := tx.endGrants(ctx, storage.GrantFilter{UserID: sub}, revokedByOperator); err != nil {
			return err
		}
		if r, err = tx.revokePerson(ctx, epochUnless(!u.Enabled), sub, eventUserRevoked); err != nil {
			return err
		}
		return tx.audit(ctx, eventUserRevoked, sub, "", nil)
	})
	return r, err
}

// notEnded selects sessions of whose end clients were not told yet.
func (tx change) notEnded(ctx context.Context) selectSession {
	return func(id string) (bool, error) {
		s, err := tx.Session(ctx, id)
		if errors.Is(err, storage.ErrNotFound) { // it grew too old
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("session: %w", err)
		}
		return s.EndedAt.IsZero(), nil
	}
}

// RevokeClient refuses every token of a client that was issued until now and
// ends its grants. It may get new ones.
func (a *Admin) RevokeClient(ctx context.Context, id string) (Revoked, error) {
	if err := a.endGrantsAhead(ctx, storage.GrantFilter{ClientID: id}); err != nil {
		return Revoked{}, err
	}
	var r Revoked
	err := a.update(ctx, func(ctx context.Context, tx change) error {
		c, err := tx.Client(ctx, id)
		if err != nil {
			return object("client", id, err)
		}
		if err := tx.endGrants(ctx, storage.GrantFilter{ClientID: id}, revokedByOperator); err != nil {
			return err
		}
		if r, err = tx.append(ctx, epochUnless(!c.Enabled), revocation.KindClient, id, eventClientRevoked); err != nil {
			return err
		}
		return tx.audit(ctx, eventClientRevoked, "", id, nil)
	})
	return r, err
}

const revokedByOperator = "revoked by the operator"

// epochUnless returns what refuses the tokens of before: an epoch, or another
// block for who is blocked, which an epoch would lift.
func epochUnless(blocked bool) makeEntry {
	if blocked {
		return revocation.Block
	}
	return revocation.Epoch
}

// endGrantsAhead ends most of what may be many grants in transactions of their
// own, so that the one that ends the rest and says so to verifiers is short.
func (a *Admin) endGrantsAhead(ctx context.Context, f storage.GrantFilter) error {
	f.Limit = 1000
	for ended := f.Limit; ended == f.Limit; {
		err := a.updateUsers(ctx, func(ctx context.Context, tx change) error {
			ids, err := tx.RevokeGrants(ctx, f, tx.now, revokedByOperator)
			ended = len(ids)
			return err
		})
		if err != nil {
			return fmt.Errorf("grants: %w", err)
		}
	}
	return nil
}

// append adds an entry to the log that verifiers follow. A client counts as
// changed then: no token is issued to it that an epoch of that moment would
// refuse (registry.settled). Like an epoch's date, that of a change is never
// earlier than the one before.
func (tx change) append(ctx context.Context, entry makeEntry, kind, value, reason string) (Revoked, error) {
	r, err := tx.admin.entries.append(ctx, tx, entry, kind, value, reason)
	if err != nil || kind != revocation.KindClient {
		return r, err
	}
	c, err := tx.Client(ctx, value)
	if errors.Is(err, storage.ErrNotFound) { // deleted just now
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("client: %w", err)
	}
	// One that is made anew within the millisecond was changed all the same.
	c.UpdatedAt = later(later(c.UpdatedAt, r.at), c.CreatedAt.Add(time.Millisecond))
	if err := tx.UpdateClient(ctx, c); err != nil {
		return r, fmt.Errorf("client: %w", err)
	}
	return r, nil
}
