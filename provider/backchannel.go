package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// OpenID Connect Back-Channel Logout 1.0: clients in which a person is signed in
// by a session are told when it ends. What ends it leaves a row for each in the
// outbox; the logout token is made when it is sent (outbox.go).

const (
	kindBackChannelLogout = "backchannel_logout"
	typLogoutToken        = "logout+jwt"                                         // §2.4
	eventBackChannel      = "http://schemas.openid.net/event/backchannel-logout" // §2.4
	logoutTokenLifetime   = 2 * time.Minute                                      // §4
)

// endedSession is what the outbox has of a logout.
type endedSession struct {
	Subject   string `json:"user_id"` // as the client knows both
	SessionID string `json:"sid"`
}

// selectSession says whether clients have to be told of a session.
type selectSession func(sessionID string) (bool, error)

// anyOf selects these sessions.
func anyOf(ids ...string) selectSession {
	return func(id string) (bool, error) { return slices.Contains(ids, id), nil }
}

// queueLogouts leaves in the outbox what clients have to be told about the end of
// those of the person's sessions that ended selects. It comes after the end of the
// sessions, so that none gets another grant, and before that of their grants.
func queueLogouts(ctx context.Context, tx storage.Tx, now time.Time, userID string, ended selectSession) error {
	targets, err := tx.LogoutTargets(ctx, userID)
	if err != nil {
		return fmt.Errorf("clients of the session: %w", err)
	}
	for _, t := range targets {
		if !t.BackChannel {
			continue
		}
		if yes, err := ended(t.SessionID); err != nil {
			return err
		} else if !yes {
			continue
		}
		payload, err := json.Marshal(endedSession{cmp.Or(t.Subject, userID), cmp.Or(t.SID, t.SessionID)})
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		err = tx.CreateDelivery(ctx, storage.Delivery{
			ID: uuid.Must(uuid.NewV7()).String(), Kind: kindBackChannelLogout, ClientID: t.ClientID,
			Payload: string(payload), NextAttemptAt: now, CreatedAt: now,
		})
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
	}
	return nil
}

// errUndeliverable says that nobody waits for a delivery any more.
var errUndeliverable = errors.New("the client is gone, disabled, or wants none")

// sendLogout tells a client that a session has ended (§2.5). It returns
// errUndeliverable, or why the client may not have heard of it.
func (p *Provider) sendLogout(ctx context.Context, d storage.Delivery) error {
	v, c, err := p.receiver(ctx, d.ClientID)
	if errors.Is(err, errUndeliverable) { // as of a moment that may be before the logout
		if err := p.registry.catchUp(ctx); err != nil {
			return err
		}
		v, c, err = p.receiver(ctx, d.ClientID)
	}
	if err != nil {
		return err
	}
	token, err := p.logoutToken(v, c, d)
	if err != nil {
		return err
	}
	return p.outboundFor(c).PostForm(ctx, c.BackChannelLogoutURI, url.Values{"logout_token": {token}})
}

// receiver returns the client, or errUndeliverable when it is not to be told.
func (p *Provider) receiver(ctx context.Context, clientID string) (view, *client, error) {
	v, err := p.registry.view(ctx)
	if err != nil {
		return view{}, nil, err
	}
	c, err := p.registry.client(ctx, v, clientID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && (!c.Enabled || c.BackChannelLogoutURI == "") {
		return view{}, nil, errUndeliverable
	}
	return v, c, err
}

// logoutToken makes the token of §2.4. It is dated when it is sent, because it
// lives shortly; its jti is the same each time.
func (p *Provider) logoutToken(v view, c *client, d storage.Delivery) (string, error) {
	var ended endedSession
	if err := json.Unmarshal([]byte(d.Payload), &ended); err != nil {
		return "", fmt.Errorf("logout token: %w", err)
	}
	alg := c.IDTokenAlg
	if alg == "" {
		alg = keys.RS256
	}
	issuedAt := p.sharedNow().Truncate(time.Second)
	payload, err := json.Marshal(map[string]any{
		"iss": p.issuer.String(), "aud": c.ID, "sub": ended.Subject, "sid": ended.SessionID, "jti": d.ID,
		"iat": issuedAt.Unix(), "exp": issuedAt.Add(logoutTokenLifetime).Unix(),
		"events": map[string]any{eventBackChannel: struct{}{}},
	})
	if err != nil {
		return "", fmt.Errorf("logout token: %w", err)
	}
	token, err := p.sign(v, alg, typLogoutToken, payload)
	if err != nil {
		return "", fmt.Errorf("logout token: %w", err)
	}
	return token, nil
}
