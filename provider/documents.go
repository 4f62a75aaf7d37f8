package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/signet-oidc/signet/storage"
)

const (
	// documentLimit is twice what CIMD §9.7 recommends to read at most.
	documentLimit = 10 << 10
	// documentCooldown is the least time between two fetches of one document
	// that failed: it is no cache of the failure (CIMD §5.2), and yet nobody
	// makes this server ask another one again and again.
	documentCooldown = 10 * time.Second
	// documentPace is the time between two fetches for strangers, and between two
	// for clients that somebody has allowed: together ten a second. Nobody waits
	// longer than documentPatience for their turn.
	documentPace     = 200 * time.Millisecond
	documentPatience = time.Second
	// documentsKnown bounds how many documents are remembered.
	documentsKnown = 1000
	// documentWaiting is how many requests wait for one document at most.
	documentWaiting = 16
)

// kindDocument marks when a client's document was last as its row says. The
// row expires when nothing rests on it any more.
const kindDocument = "client_id_metadata_document"

// errDocumentsBusy is for whom there is no turn to fetch a document.
var errDocumentsBusy = fmt.Errorf("%w: %w: too many client ID metadata documents are waited for", storage.ErrUnavailable, &BusyError{RetryAfter: 2 * time.Second})

// documents is what this replica knows of Client Identifier URLs. A client that
// somebody has allowed has a row of its own, made from its document, which is
// what all replicas go by; for it only the time of the next look is remembered
// here. Of others, the document is.
type documents struct {
	policy           Documents
	outbound         *Outbound
	keys             *remoteKeys // of clients with a document
	known, strangers *pace       // separate, so that strangers keep nobody from what they know

	mu      sync.Mutex // held while an entry or a fetch is looked up and made
	entries *cache[string, documentEntry]
	fetches map[string]*documentFetch
}

type documentEntry struct {
	client   *client   // nil for one that has a row, and where no document was found
	fresh    time.Time // until when it need not be fetched
	failedAt time.Time // when fetching failed
	err      error     // with this
}

// documentFetch is a fetch that is under way; what it led to is there when
// done is closed.
type documentFetch struct {
	done    chan struct{}
	waiting int
	client  *client
	err     error
}

func newDocuments(policy Documents, public *Outbound, publicKeys *remoteKeys, capacity int, now func() time.Time) *documents {
	d := &documents{
		policy: policy, outbound: public, keys: publicKeys,
		known:     &pace{interval: documentPace, patience: documentPatience, now: now},
		strangers: &pace{interval: documentPace, patience: documentPatience, now: now},
		entries:   newCache[string, documentEntry](documentsKnown), fetches: make(map[string]*documentFetch),
	}
	if policy.Loopback {
		d.outbound = public.loopback()
		d.keys = newRemoteKeys(d.outbound, capacity)
	}
	return d
}

// remembered returns the client that the document at id described, fresh or
// not, or nil.
func (d *documents) remembered(id string) *client {
	if !d.policy.on() {
		return nil
	}
	return d.entry(id).client
}

// entry returns what is remembered of id, or the zero value.
func (d *documents) entry(id string) documentEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, _ := d.entries.get(id)
	return e
}

// once runs fetch for id, unless somebody else does at this moment or it failed
// just now: then the outcome is shared.
func (d *documents) once(ctx context.Context, id string, now time.Time, fetch func() (*client, error)) (*client, error) {
	d.mu.Lock()
	if e, _ := d.entries.get(id); e.err != nil && now.Sub(e.failedAt) < documentCooldown {
		d.mu.Unlock()
		return nil, e.err
	}
	f, running := d.fetches[id]
	if !running {
		f = &documentFetch{done: make(chan struct{})}
		d.fetches[id] = f
	} else if f.waiting++; f.waiting > documentWaiting {
		f.waiting--
		d.mu.Unlock()
		return nil, errDocumentsBusy
	}
	d.mu.Unlock()
	if !running {
		f.client, f.err = fetch()
		d.mu.Lock()
		delete(d.fetches, id)
		if f.err != nil && errors.Is(f.err, storage.ErrNotFound) {
			d.entries.put(id, documentEntry{failedAt: now, err: f.err})
		}
		d.mu.Unlock()
		close(f.done)
		return f.client, f.err
	}
	select {
	case <-f.done:
		return f.client, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, ctx.Err())
	}
}

func (d *documents) put(id string, e documentEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries.put(id, e)
}

// need is what a client is looked up for.
type need int

const (
	// forSignIns is an authorization request: without a document that can be
	// fetched now, or is fresh, it is not answered (CIMD §5.1).
	forSignIns need = iota
	// forGrants is a request that rests on what a person allowed before: it is
	// answered for a while longer.
	forGrants
)

// resolveClient returns the client, and fetches its metadata document where
// that is due. storage.ErrNotFound stands for every document that leads to no
// client; storage.ErrUnavailable says that it was not its turn.
func (p *Provider) resolveClient(ctx context.Context, v view, id string, n need) (*client, error) {
	c, err := p.registry.row(ctx, v, id)
	switch {
	case errors.Is(err, storage.ErrNotFound) && isClientURL(id) && p.documents.policy.on():
	case err != nil:
		return nil, err
	case !followsDocument(c.Client) || !c.Enabled: // for good, whatever the document says
		return c, nil
	}
	if err := p.documents.policy.admit(id); err != nil {
		return nil, &documentError{"This client_id " + err.Error() + ".", nil}
	}
	now := p.now()
	e := p.documents.entry(id)
	if now.Before(e.fresh) && (c != nil || e.client != nil) {
		if c == nil {
			return e.client, nil
		}
		return c, nil
	}
	var lasts time.Time // until when the row may be gone by, fresh or not
	if c != nil {
		if lasts, err = p.documentLasts(ctx, id, now); err != nil {
			return nil, err
		}
		if fresh := lasts.Add(-p.policy.DocumentGrace); now.Before(fresh) { // another replica fetched it
			p.documents.put(id, documentEntry{fresh: fresh})
			return c, nil
		}
	}
	// Whoever caused it may hang up: it is for everybody.
	fetched, err := p.documents.once(ctx, id, now, func() (*client, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.policy.RequestTimeout)
		defer cancel()
		return p.fetchDocument(ctx, id, c)
	})
	if err != nil && c != nil && n == forGrants && now.Before(lasts) {
		p.log.InfoContext(ctx, "a client's metadata document cannot be read: what people allowed before goes on for now", "client_id", id, "until", lasts.Format(time.RFC3339), "cause", err.Error())
		return c, nil
	}
	return fetched, err
}

// fetchDocument fetches the document at id. known is the client as its row has
// it, or nil.
func (p *Provider) fetchDocument(ctx context.Context, id string, known *client) (*client, error) {
	turns := p.documents.strangers
	if known != nil {
		turns = p.documents.known
	}
	// Nobody takes all the turns, by new documents or by some that are never good.
	if p.readings.failed("", originOf(ctx).Address, p.now()) || !turns.turn(ctx) {
		return nil, errDocumentsBusy
	}
	body, header, err := p.documents.outbound.fetch(ctx, id, "application/json", documentLimit)
	if err != nil {
		return nil, &documentError{"The metadata document at this client_id cannot be fetched: it has to be there by https, public, without a redirect, in a few seconds and kilobytes.", err}
	}
	if !isJSON(header.Get("Content-Type")) {
		return nil, &documentError{"The metadata document at this client_id is not served as application/json.", nil}
	}
	c, err := p.readDocument(ctx, id, body)
	if err != nil {
		return nil, err
	}
	fresh := p.now().Add(freshFor(header, p.policy.MinDocumentAge, p.policy.MaxDocumentAge))
	if known == nil {
		p.documents.put(id, documentEntry{client: c, fresh: fresh})
		return c, nil
	}
	if c, err = p.refreshDocument(ctx, known, c, fresh); err != nil {
		return nil, err
	}
	p.documents.put(id, documentEntry{fresh: fresh})
	return c, nil
}

// refreshDocument makes a client's row what its document says now. All replicas
// go by it from then on.
func (p *Provider) refreshDocument(ctx context.Context, known, c *client, fresh time.Time) (*client, error) {
	now := p.now()
	switch {
	case c.authenticatesElsewhere():
		return nil, &documentError{"The metadata document at this client_id names no client authentication method that is offered.", nil}
	case !sameDocument(known.Client, c.Client):
		row, err := p.librarian.updateClient(ctx, known.ID, func(row *storage.Client) error {
			if !followsDocument(*row) {
				return errSettled
			}
			fresh := c.Client
			keepOperators(&fresh, *row)
			*row = fresh
			return nil
		})
		var faults *InvalidError
		switch {
		case errors.As(err, &faults): // a scope that it names is gone
			return nil, unusable(err)
		case errors.Is(err, errSettled), errors.Is(err, storage.ErrNotFound):
			return nil, fmt.Errorf("%w: client %q was changed meanwhile", storage.ErrUnavailable, known.ID)
		case err != nil:
			return nil, err
		}
		if err := p.registry.catchUp(ctx); err != nil {
			return nil, err
		}
		known = newClient(row)
	}
	err := p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return p.noteDocument(ctx, tx, known.ID, fresh, now)
	})
	return known, err
}

// errSettled says that an operator has changed the client: its document no longer does.
var errSettled = errors.New("an operator settled the client")

// documentLasts returns until when the row of a client may be gone by although
// its document cannot be fetched, or zero.
func (p *Provider) documentLasts(ctx context.Context, id string, now time.Time) (time.Time, error) {
	row, err := p.store.OneTime(ctx, kindDocument, documentHash(id), now)
	switch {
	case errors.Is(err, storage.ErrNotFound) || err == nil && p.epoch().voids(row.CreatedAt):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("client's document: %w", err)
	}
	return row.ExpiresAt, nil
}

// noteDocument notes that the document is as the client's row has it.
func (p *Provider) noteDocument(ctx context.Context, tx storage.Tx, id string, fresh, now time.Time) error {
	note := storage.OneTime{
		Kind: kindDocument, KeyHash: documentHash(id), Subject: id,
		CreatedAt: p.epoch().first(now), ExpiresAt: fresh.Add(p.policy.DocumentGrace),
	}
	_, err := tx.TakeOnce(ctx, note.Kind, note.KeyHash, now)
	if err == nil || errors.Is(err, storage.ErrConsumed) {
		err = tx.UseOnce(ctx, note, now)
	}
	if err != nil && !errors.Is(err, storage.ErrConsumed) { // another replica noted it
		return fmt.Errorf("client's document: %w", err)
	}
	return nil
}

func documentHash(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:]
}

// adopt gives a client that a person has just allowed a row, unless it has one:
// consent and grants refer to it, and operators see it. It goes when nobody
// uses it any more.
func (p *Provider) adopt(ctx context.Context, c *client) error {
	now, counted := p.now(), false
	fresh := later(p.documents.entry(c.ID).fresh, now)
	_, _, err := p.librarian.createClient(ctx, c.Client, func(ctx context.Context, tx change) error {
		if !counted { // a transaction may run twice
			if p.registrations.failed("", originOf(ctx).Address, now) {
				return fmt.Errorf("%w: new apps from one address", &BusyError{RetryAfter: 30 * time.Second})
			}
			counted = true
		}
		n, err := tx.CountClients(ctx, originDocument)
		if err != nil {
			return err
		}
		if n >= int64(p.policy.MaxRegistered) {
			return fmt.Errorf("%w: %d clients with a metadata document, as many as may be", &BusyError{RetryAfter: time.Hour}, n)
		}
		return p.noteDocument(ctx, tx, c.ID, fresh, now)
	})
	var faults *InvalidError
	switch {
	case errors.Is(err, storage.ErrExists): // somebody else allowed it first
		return nil
	case errors.As(err, &faults): // a scope that it names is gone
		return unknownClient(unusable(err))
	}
	return err
}
