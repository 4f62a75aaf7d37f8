package provider

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// authorizationCode is the grant of RFC 6749 §4.1 with PKCE (RFC 7636), both
// of its ends: the authorization endpoint, where a grant's row is made, and the
// token endpoint, where one conditional update makes its code a family of
// refresh tokens.
type authorizationCode struct{ provider *Provider }

var (
	_ fosite.AuthorizeEndpointHandler = (*authorizationCode)(nil)
	_ fosite.TokenEndpointHandler     = (*authorizationCode)(nil)
)

// approval is what fosite carries from issueCode to the handler.
type approval struct {
	session
	grant    storage.Grant
	idleEnd  time.Time         // of the session, which is used by this
	consents []storage.Consent // to be written with it
	asked    bool              // the person was asked
	host     string            // where the answer goes, in the words of the page
	pushed   string            // the request_uri it began with, or ""
	touch    bool              // the client goes when it is not used
}

func (a *approval) Clone() fosite.Session {
	c := *a
	return &c
}

// issueCode makes the grant and returns the redirect that carries its code.
// silent says that nobody was asked: consent that has no row yet is the
// operator's to give, and marked so.
func (p *Provider) issueCode(ctx context.Context, a *Authorization, s *SignedIn, pl *plan, silent bool) (*Redirect, error) {
	q, now := a.request, p.now()
	if q.client.Origin == originDocument && q.client.CreatedAt.IsZero() {
		if err := p.adopt(ctx, q.client); err != nil {
			return nil, err
		}
	}
	consents := pl.consents
	if silent {
		consents = pl.unwritten
	}
	consents = slices.Clone(consents)
	for i := range consents {
		consents[i].Implicit, consents[i].GrantedAt = silent, now
	}
	subject, sid := q.view.pairwiseNames(q.client, s.User.ID, s.Session.ID)
	ap := &approval{
		session: session{view: q.view, subject: cmp.Or(subject, s.User.ID)},
		grant: storage.Grant{
			ID: a.ID, ClientID: q.client.ID, UserID: s.User.ID, SessionID: s.Session.ID, Offline: pl.offline, Subject: subject, SID: sid,
			Scopes: pl.scopes, Resources: pl.resources,
			AuthTime: s.Session.AuthTime, ACR: s.Session.ACR, AMR: s.Session.AMR,
			Nonce: q.nonce, ClaimsRequest: a.form.Get("claims"), RedirectURI: a.form.Get("redirect_uri"), CodeChallenge: q.challenge,
			CodeExpiresAt: now.Add(p.policy.CodeLifetime),
			Seed:          newSeed(), KeyVersion: q.view.ring.CurrentID(keys.PurposeGrant),
			CreatedAt: q.view.epoch.first(now),
		},
		idleEnd:  earlier(now.Add(p.policy.SessionIdle), s.Session.AbsoluteEnd),
		consents: consents,
		asked:    !silent,
		host:     redirectHost(q.redirectURI),
		pushed:   a.pushed,
		touch:    q.client.Origin != originOperator,
	}
	if q.view.listsStatus(pl.resources) {
		index, err := p.statusIndexes.take(ctx, q.view.epoch.status)
		if err != nil {
			return nil, err
		}
		ap.grant.StatusIndex = index
	}
	answer, err := p.fosite.NewAuthorizeResponse(ctx, q.fosite, ap)
	if errors.Is(err, errTooManySubjects) {
		return nil, a.refuse(p, "access_denied", "The person has let in as many apps with pairwise subjects as anybody may.")
	}
	if err != nil {
		return nil, err
	}
	r := p.answer(q.redirectURI, q.mode, a.form)
	maps.Copy(r.Params, answer.GetParameters())
	p.metrics.codesIssued.Inc()
	return r, nil
}

// HandleAuthorizeEndpointRequest makes the grant's row and its code.
func (h *authorizationCode) HandleAuthorizeEndpointRequest(ctx context.Context, r fosite.AuthorizeRequester, answer fosite.AuthorizeResponder) error {
	if !r.GetResponseTypes().ExactOne("code") {
		return nil
	}
	ap := r.GetSession().(*approval)
	g, err := h.provider.createGrant(ctx, ap)
	if err != nil {
		return err
	}
	code, err := mintGrantToken(ap.view.ring, g, 0, g.KeyVersion)
	if err != nil {
		return err
	}
	answer.AddParameter("code", code)
	r.SetResponseTypeHandled("code")
	return nil
}

// clientUseUnit is how exactly the last use of a client is known.
const clientUseUnit = 24 * time.Hour

// createGrant writes the grant and the consent it rests on, in one
// transaction that sees the person still signed in. A grant that is there
// already is returned as it is, if it was made by this same approval and its
// code may still be used; otherwise ErrFlowSpent.
func (p *Provider) createGrant(ctx context.Context, ap *approval) (storage.Grant, error) {
	g := ap.grant
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		if err := lockSubject(ctx, tx, g); err != nil {
			return err
		}
		if err := stillSignedIn(ctx, tx, g.SessionID, g.UserID, g.CreatedAt, ap.idleEnd); err != nil {
			return err
		}
		if len(ap.consents) > 0 {
			if err := tx.PutConsents(ctx, ap.consents); err != nil {
				return fmt.Errorf("consent: %w", err)
			}
		}
		if err := tx.CreateGrant(ctx, g); err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		if err := p.usePushed(ctx, tx, ap.pushed, g); err != nil {
			return err
		}
		if ap.touch {
			if err := tx.TouchClient(ctx, g.ClientID, g.CreatedAt, g.CreatedAt.Add(-clientUseUnit)); err != nil {
				return err
			}
		}
		if !ap.asked {
			return nil
		}
		if err := tx.PutConsentHost(ctx, g.UserID, g.ClientID, ap.host, g.CreatedAt); err != nil {
			return fmt.Errorf("consent: %w", err)
		}
		return audit(ctx, tx, g.CreatedAt, eventConsentGranted, g.UserID, g.UserID, g.ClientID, map[string]any{"scope": strings.Join(g.Scopes, " ")})
	})
	if errors.Is(err, errPushedUsed) {
		return g, ErrFlowSpent
	}
	if errors.Is(err, storage.ErrReference) { // deleted while the person decided
		return g, &PageError{Status: http.StatusBadRequest, Kind: PageUnknownClient, Description: "No client has this client_id."}
	}
	if !errors.Is(err, storage.ErrExists) {
		return g, err
	}
	// Read in a transaction, which comes after the one that made it.
	var earlier storage.Grant
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) (err error) {
		earlier, err = tx.Grant(ctx, g.ID)
		return err
	})
	if err != nil {
		return g, fmt.Errorf("grant: %w", err)
	}
	same := earlier.UserID == g.UserID && earlier.ClientID == g.ClientID && earlier.SessionID == g.SessionID &&
		earlier.RedirectURI == g.RedirectURI && earlier.CodeChallenge == g.CodeChallenge
	if !same || !earlier.CodeUsedAt.IsZero() || !earlier.RevokedAt.IsZero() || !g.CreatedAt.Before(earlier.CodeExpiresAt) {
		return g, ErrFlowSpent
	}
	return earlier, nil
}

func (h *authorizationCode) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne(grantCode)
}

func (h *authorizationCode) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool {
	return false
}

// HandleTokenEndpointRequest judges the code (RFC 6749 §4.1.3). Who presents
// another client's code changes nothing; its own client's mistakes cost it.
func (h *authorizationCode) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	p, s, form := h.provider, r.GetSession().(*session), r.GetRequestForm()
	if form.Get("code") == "" {
		return invalidRequest("The parameter code is missing.")
	}
	w, err := readWish(form, p.policy)
	if err != nil {
		return err
	}
	c, err := p.presented(ctx, s, r.GetClient().GetID(), prefixCode, form.Get("code"))
	if err != nil {
		return err
	}
	g, now := s.person.grant, p.now()
	if !g.CodeUsedAt.IsZero() { // RFC 6749 §4.1.2: and revoke what it gave
		if err := p.endGrant(ctx, g, "code replayed"); err != nil {
			return err
		}
		return invalidGrant("The code was used before; what it gave is revoked.", nil)
	}
	if !now.Before(g.CodeExpiresAt) {
		return invalidGrant("The code has expired.", nil)
	}
	if form.Get("redirect_uri") != g.RedirectURI { // RFC 6749 §4.1.3
		return invalidGrant("redirect_uri is not the one of the authorization request.", nil)
	}
	if err := checkVerifier(g.CodeChallenge, form.Get("code_verifier"), form.Has("code_verifier")); err != nil {
		if g.CodeChallenge != "" {
			// One try: otherwise whoever holds the code could go on guessing, or
			// leave the verifier out the second time.
			if err := p.endGrant(ctx, g, "wrong code_verifier"); err != nil {
				return err
			}
		}
		return err
	}
	s.award, err = p.gate(s.view, ask{client: c, grantType: grantCode, wish: w, person: s.person})
	return err
}

// PopulateTokenEndpointResponse signs first and then redeems the code with one
// conditional update, so that a failure to sign costs nothing. Who comes
// second presented a used code, and that is a replay: of any number at once
// one is answered, and the others end what it got (RFC 6749 §4.1.2).
func (h *authorizationCode) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, answer fosite.AccessResponder) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	p, s := h.provider, r.GetSession().(*session)
	c, g, now := r.GetClient().(*client), s.person.grant, p.now()
	redemption := storage.Redemption{KeyVersion: s.view.ring.CurrentID(keys.PurposeGrant)}
	refresh := slices.Contains(c.GrantTypes, grantRefresh)
	if refresh {
		redemption.AbsoluteEnd = p.absoluteEnd(s.person, now)
		redemption.IdleEnd = earlier(now.Add(p.policy.RefreshIdle), redemption.AbsoluteEnd)
	} else { // ends with its one access token
		redemption.AbsoluteEnd = now.Add(s.award.lifetime + p.policy.ClockSkew)
		redemption.IdleEnd = redemption.AbsoluteEnd
	}
	if err := p.answerPerson(r, answer, g.Nonce); err != nil {
		return err
	}
	if refresh {
		token, err := mintGrantToken(s.view.ring, g, 1, redemption.KeyVersion)
		if err != nil {
			return err
		}
		answer.SetExtra("refresh_token", token)
	}
	second := false
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		err := tx.RedeemCode(ctx, g.ID, now, redemption)
		if second = errors.Is(err, storage.ErrConsumed); second {
			// Read where it was refused: what came first is in sight here.
			g, err = tx.Grant(ctx, g.ID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("redeem: %w", err)
	}
	if !second {
		return nil
	}
	if !g.CodeUsedAt.IsZero() {
		if err := p.endGrant(ctx, g, "code replayed"); err != nil {
			return err
		}
	}
	return invalidGrant("The code was used before, has expired or was revoked.", nil)
}

// absoluteEnd is when the refresh tokens of a grant end at last: those of a
// session no later than it does.
func (p *Provider) absoluteEnd(person *person, now time.Time) time.Time {
	end := now.Add(p.policy.RefreshAbsolute)
	if !person.grant.Offline {
		end = earlier(end, person.session.AbsoluteEnd)
	}
	return end
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// checkVerifier applies RFC 7636 §4.6. A code without a challenge refuses a
// verifier, or a downgraded request would go unnoticed (RFC 9700 §4.8.2).
func checkVerifier(challenge, verifier string, sent bool) error {
	if challenge == "" {
		if sent {
			return invalidGrant("code_verifier is there, but the authorization request had no code_challenge.", nil)
		}
		return nil
	}
	wellFormed := len(verifier) >= 43 && len(verifier) <= 128 && !strings.ContainsFunc(verifier, func(c rune) bool {
		return !('a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80 || '0' <= c && c <= '9' || strings.ContainsRune("-._~", c))
	})
	sum := sha256.Sum256([]byte(verifier))
	computed := base64.RawURLEncoding.EncodeToString(sum[:])
	if !wellFormed || subtle.ConstantTimeCompare([]byte(computed), []byte(challenge)) != 1 {
		return invalidGrant("code_verifier does not match; the code is spent.", nil)
	}
	return nil
}
