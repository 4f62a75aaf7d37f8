package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/storage"
)

// pushedURN begins the request_uri of a pushed request (RFC 9126 §2.2).
const pushedURN = "urn:ietf:params:oauth:request_uri:"

// A pushed request is kept as a single-use value until the last flow that it
// may have begun is over; that it was used is a second one.
const (
	kindPushed     = "pushed_request"
	kindPushedUsed = "pushed_request_used"
)

// errPushedUsed says that another flow got the one code of a pushed request.
var errPushedUsed = errors.New("the pushed request was used before")

// PushAuthorization answers the pushed authorization request endpoint (RFC
// 9126): it authenticates the client as the token endpoint does, judges the
// request as the authorization endpoint will, and keeps it for a minute.
func (p *Provider) PushAuthorization(w http.ResponseWriter, r *http.Request) {
	reference, err := p.pushAuthorization(w, r)
	if err != nil {
		p.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusCreated, struct {
		RequestURI string `json:"request_uri"`
		ExpiresIn  int64  `json:"expires_in"`
	}{reference, int64(p.policy.PushedLifetime / time.Second)})
}

func (p *Provider) pushAuthorization(w http.ResponseWriter, r *http.Request) (reference string, err error) {
	ctx, now := withRequest(w, r), p.now()
	if err := readForm(w, r); err != nil {
		return "", err
	}
	authenticated, err := p.fosite.AuthenticateClient(ctx, r, r.PostForm)
	if err != nil {
		return "", err
	}
	c := authenticated.(*client)
	// Anybody can be a public client, or register a client where that is open:
	// those are held back, since each request is kept, and to small ones.
	stranger := c.IsPublic() || c.Origin != originOperator
	if stranger && p.pushes.failed(c.ID, r.RemoteAddr, now) {
		return "", refused(c.ID, tooMany("pushed requests"))
	}
	if r.PostForm.Has("request_uri") { // RFC 9126 §2.1
		return "", refused(c.ID, invalidRequest("A pushed request cannot refer to another one: leave out request_uri."))
	}
	form := make(url.Values)
	for _, name := range authorizeParameters {
		if values := r.PostForm[name]; len(values) > 0 {
			form[name] = slices.Clone(values)
		}
	}
	form.Set("client_id", c.ID)
	if len(form.Get("state")) > p.policy.MaxStateBytes {
		return "", refused(c.ID, invalidRequest(fmt.Sprintf("state is longer than %d bytes.", p.policy.MaxStateBytes)))
	}
	a := &Authorization{ID: uuid.Must(uuid.NewV7()).String(), BegunAt: now, form: form}
	if err := p.begin(ctx, a, true); err != nil {
		return "", refused(c.ID, pushError(err))
	}
	request := a.encode()
	most := p.policy.MaxPushedBytes
	if stranger {
		most = min(most, 2*p.policy.MaxFlowBytes)
	}
	if len(request) > most {
		return "", refused(c.ID, invalidRequest(fmt.Sprintf("The request is larger than %d bytes.", most)))
	}
	reference, hash := newBearer(pushedURN)
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return tx.UseOnce(ctx, storage.OneTime{
			Kind: kindPushed, KeyHash: hash, Subject: c.ID, Data: string(request),
			CreatedAt: p.epoch().first(now), ExpiresAt: now.Add(p.policy.PushedLifetime + p.policy.FlowLifetime),
		}, now)
	})
	if err != nil {
		return "", fmt.Errorf("pushed request: %w", err)
	}
	return reference, nil
}

// pushError is what the authorization endpoint would say, said to the client
// itself (RFC 9126 §2.3).
func pushError(err error) error {
	var page *PageError
	if errors.As(err, &page) {
		return invalidRequest(page.Description)
	}
	var answer *Redirect
	if errors.As(err, &answer) {
		return oauthError(http.StatusBadRequest, answer.Params.Get("error"), answer.Params.Get("error_description"))
	}
	return err
}

// loadPushed fills a with the pushed request that it refers to. fresh says
// that a flow begins with it, for which it has to be young and unused (RFC
// 9126 §2.2, §4); pages after that only need it to be there.
func (p *Provider) loadPushed(ctx context.Context, a *Authorization, clientID string, fresh bool) error {
	gone := badRequest("request_uri is unknown, has expired or was used: each works once, for a minute. Begin again in the app.")
	if len(a.pushed) > 128 {
		return gone
	}
	now := p.now()
	row, err := p.store.OneTime(ctx, kindPushed, bearerHash(a.pushed), now)
	if errors.Is(err, storage.ErrNotFound) || err == nil && (row.Subject != clientID || p.epoch().voids(row.CreatedAt)) {
		return gone
	}
	if err != nil {
		return fmt.Errorf("pushed request: %w", err)
	}
	if fresh {
		if !now.Before(row.CreatedAt.Add(p.policy.PushedLifetime)) {
			return gone
		}
		switch _, err := p.store.OneTime(ctx, kindPushedUsed, bearerHash(a.pushed), now); {
		case err == nil:
			return gone
		case !errors.Is(err, storage.ErrNotFound):
			return fmt.Errorf("pushed request: %w", err)
		}
	}
	var s sealedFlow
	if err := json.Unmarshal([]byte(row.Data), &s); err != nil {
		return fmt.Errorf("pushed request: %w", err)
	}
	if a.form, err = url.ParseQuery(s.Form); err != nil {
		return fmt.Errorf("pushed request: %w", err)
	}
	a.expected = s.Expected
	return nil
}

// usePushed records, in the transaction that makes the grant, that the pushed
// request has given its one code (RFC 9126 §7.3).
func (p *Provider) usePushed(ctx context.Context, tx storage.Tx, reference string, g storage.Grant) error {
	if reference == "" {
		return nil
	}
	err := tx.UseOnce(ctx, storage.OneTime{
		Kind: kindPushedUsed, KeyHash: bearerHash(reference), Subject: g.ID,
		CreatedAt: g.CreatedAt, ExpiresAt: g.CreatedAt.Add(p.policy.PushedLifetime + p.policy.FlowLifetime),
	}, g.CreatedAt)
	if errors.Is(err, storage.ErrConsumed) {
		return errPushedUsed
	}
	return err
}

// isPushed says whether a request_uri is one that this server gave out.
func isPushed(requestURI string) bool { return strings.HasPrefix(requestURI, pushedURN) }
