package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// person is the truth about a grant, read for one request: the grant, who gave
// it, what they consented to, and the session it may end with.
type person struct {
	grant    storage.Grant
	user     storage.User
	consents []storage.Consent
	session  storage.Session // zero when it is gone, or the grant is offline
}

// errGone says that a grant, or the person who gave it, exists no more.
var errGone = errors.New("the grant or its person is gone")

// person reads the truth about a grant, or returns errGone.
func (p *Provider) person(ctx context.Context, grantID string) (*person, error) {
	st, err := p.store.Standing(ctx, grantID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	return &person{grant: st.Grant, user: st.User, consents: st.Consents, session: st.Session}, nil
}

// presented reads what a client presents at the token endpoint, a code or a
// refresh token, and the truth about its grant, into s. A forgery and another
// client's token are refused alike and change nothing.
func (p *Provider) presented(ctx context.Context, s *session, clientID, prefix, token string) (*client, error) {
	const refused = "The code or refresh token is not one that was issued to this client."
	v, err := p.registry.view(ctx)
	if err != nil {
		return nil, err
	}
	if s.token, err = readGrantToken(v.ring, prefix, token); err != nil {
		return nil, invalidGrant(refused, err)
	}
	var c *client
	s.view, c, s.person, err = p.standing(ctx, clientID, s.token.grantID)
	switch {
	case errors.Is(err, errGone):
		return nil, invalidGrant(refused, err)
	case err != nil:
		return nil, err
	case !s.token.of(s.person.grant):
		return nil, invalidGrant(refused, errors.New("the inner MAC is wrong"))
	case s.person.grant.ClientID != clientID:
		return nil, invalidGrant(refused, fmt.Errorf("issued to client %q", s.person.grant.ClientID))
	}
	s.subject = subjectOf(s.person.grant)
	return c, nil
}

// standing returns client and person as they are now, with a view whose second
// is later than the last epoch of either: what is minted from it is not
// refused by that epoch (see registry.settled).
func (p *Provider) standing(ctx context.Context, clientID, grantID string) (view, *client, *person, error) {
	const patience = revocation.EpochAhead + 5*time.Second
	var last time.Time
	for waited := time.Duration(0); waited < patience; waited += p.policy.RegistryPoll {
		v, c, err := p.registry.settled(ctx, clientID)
		if err != nil {
			return view{}, nil, nil, err
		}
		who, err := p.person(ctx, grantID)
		if err != nil {
			return view{}, nil, nil, err
		}
		if last, err = p.lastEpoch(ctx, who.user.ID); err != nil {
			return view{}, nil, nil, err
		}
		if v.asOf.Truncate(time.Second).After(last) {
			return v, c, who, nil
		}
		select {
		case <-ctx.Done():
			return view{}, nil, nil, unavailable(ctx.Err())
		case <-time.After(p.policy.RegistryPoll):
		}
	}
	return view{}, nil, nil, unavailable(fmt.Errorf("the person's last epoch, %s, is ahead of this server's clock", last))
}

// lastEpoch returns the time before which tokens of the person are refused,
// whatever they call the person: entries for pairwise subs are of the same moment.
func (p *Provider) lastEpoch(ctx context.Context, sub string) (time.Time, error) {
	entries, err := p.store.Revocations(ctx, []storage.RevocationKey{revocation.Key(revocation.KindSubject, sub)}, p.now())
	if err != nil {
		return time.Time{}, fmt.Errorf("revocations: %w", err)
	}
	var last time.Time
	for _, e := range entries {
		if e.Effect == revocation.EffectEpoch && e.NotBefore.After(last) {
			last = e.NotBefore
		}
	}
	return last.Truncate(time.Second), nil
}

// check reports why the grant is worth nothing now, or nil.
func (who *person) check(s *snapshot, issuer string, c *client, now time.Time) error {
	g := who.grant
	switch {
	case s.epoch.voids(g.CreatedAt):
		return errors.New("it was given before the database was restored")
	case !g.RevokedAt.IsZero():
		return fmt.Errorf("revoked: %s", g.RevokeReason)
	case !now.Before(g.IdleEnd) || !now.Before(g.AbsoluteEnd):
		return errors.New("it was not used for too long, or is too old")
	case subjectOf(g) != s.subjectFor(c, g.UserID):
		return errors.New("the client calls people by other subs since it was given")
	case !who.user.Enabled:
		return errors.New("the user is disabled")
	case !g.Offline && !sessionLive(who.session, now):
		return errors.New("the session has ended")
	}
	have := consentsOf(who.consents)
	for _, scope := range g.Scopes {
		implicit, there := have[consentKey{scope, s.ownerOf(issuer, scope)}]
		if !there || implicit && !c.FirstParty {
			if s.exists(scope) { // a scope that was deleted needs no consent, and gives nothing
				return fmt.Errorf("there is no consent to %s", scope)
			}
		}
	}
	return nil
}

// sessionLive says whether the session is neither ended, idle nor too old.
func sessionLive(s storage.Session, now time.Time) bool {
	return s.ID != "" && s.EndedAt.IsZero() && now.Before(s.IdleEnd) && now.Before(s.AbsoluteEnd)
}

// stillSignedIn returns ErrNoSession unless the session is live and its user
// enabled. It writes to the session, which makes whoever ends it at this moment
// wait, and then find what this transaction has made of it.
func stillSignedIn(ctx context.Context, tx storage.Tx, sessionID, userID string, now, idleEnd time.Time) error {
	err := tx.TouchSession(ctx, sessionID, now, idleEnd)
	if errors.Is(err, storage.ErrNotFound) {
		return ErrNoSession
	}
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	u, err := tx.User(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) {
		return ErrNoSession
	}
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	if !u.Enabled {
		return ErrNoSession
	}
	return nil
}

// endGrant revokes a grant, its code and refresh tokens, and blocks the access
// tokens it gave, in one transaction. Doing it again changes nothing.
func (p *Provider) endGrant(ctx context.Context, g storage.Grant, reason string) error {
	now := p.now()
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		changed, err := tx.RevokeGrant(ctx, g.ID, now, reason)
		if err != nil || !changed {
			return err
		}
		if err := p.block(ctx, tx, revocation.KindGrant, reason, g.ID); err != nil {
			return err
		}
		return audit(ctx, tx, now, eventGrantRevoked, g.ClientID, g.UserID, g.ClientID, map[string]any{"reason": reason})
	})
	if err != nil {
		return fmt.Errorf("end grant: %w", err)
	}
	p.metrics.grantsEnded.WithLabelValues(reason).Inc()
	return nil
}

// block appends what refuses each of the values at verifiers.
func (p *Provider) block(ctx context.Context, tx storage.Tx, kind, reason string, values ...string) error {
	slices.Sort(values)
	for _, value := range values {
		if _, err := p.entries.append(ctx, tx, revocation.Block, kind, value, reason); err != nil {
			return err
		}
	}
	return nil
}

// audit records an event that a person or a client caused.
func audit(ctx context.Context, tx storage.Tx, now time.Time, event, actor, userID, clientID string, detail map[string]any) error {
	origin := originOf(ctx)
	e := storage.AuditEvent{
		ID: uuid.Must(uuid.NewV7()).String(), At: now, Event: event, Actor: actor, UserID: userID, ClientID: clientID,
		Address: origin.Address, RequestID: origin.RequestID,
	}
	if len(detail) > 0 {
		b, err := json.Marshal(detail)
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		e.Detail = string(b)
	}
	if err := tx.AppendAudit(ctx, e); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}
