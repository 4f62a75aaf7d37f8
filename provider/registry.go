package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// registry is what a replica remembers of clients, resources, roles and keys,
// so that a client-credentials request needs no database. The database's
// RegistryVersion tells when to forget it. Every answer says as of when it is
// true; that time becomes the iat of what is minted from it, so that a token
// which rests on older truth than a revocation is refused by it (design: the
// oldest read a token rests on).
type registry struct {
	store  storage.Store
	sealer *keys.Sealer
	clock  *clock
	policy Policy
	log    *slog.Logger

	documents *documents

	current atomic.Pointer[snapshot]
	reload  chan struct{} // holds one while the version is asked for
}

// snapshot is everything known at one registry version. All but asOf and the
// clients, which are read when first asked for, is immutable.
type snapshot struct {
	version   int64
	asOf      atomic.Pointer[time.Time] // by this machine's clock: when version was last seen to be current
	epoch     epoch
	ring      *keys.Ring
	jwks      *document
	resources map[string]*storage.Resource
	owners    map[string]*storage.Resource // by scope
	scopes    map[string]storage.Scope
	roles     map[string]storage.Role
	clients   *cache[string, *client] // nil for a client that does not exist
}

// view is a snapshot with the time, of the clock all replicas share, as of
// which the request that holds it may call it true.
type view struct {
	*snapshot
	asOf time.Time
}

// view returns what is known, at most RegistryMaxAge old, or
// storage.ErrUnavailable.
func (r *registry) view(ctx context.Context) (view, error) {
	if v, ok := r.fresh(); ok {
		return v, nil
	}
	if err := r.refresh(ctx); err != nil {
		return view{}, err
	}
	if v, ok := r.fresh(); ok {
		return v, nil
	}
	return view{}, fmt.Errorf("%w: the registry could not be read in time", storage.ErrUnavailable)
}

func (r *registry) fresh() (view, bool) {
	s := r.current.Load()
	if s == nil {
		return view{}, false
	}
	age := r.age(s)
	return view{snapshot: s, asOf: r.clock.shared(*s.asOf.Load())}, age >= 0 && age <= r.policy.RegistryMaxAge
}

// age returns how long ago the snapshot was last seen to be current. Where a
// clock without a monotonic reading was set back it is negative.
func (r *registry) age(s *snapshot) time.Duration { return r.clock.local().Sub(*s.asOf.Load()) }

// refresh asks for the registry's version, unless that was just done, and
// reads the registry anew when it changed or when a key's hour has come.
func (r *registry) refresh(ctx context.Context) error {
	return r.refreshSince(ctx, r.clock.local().Add(-r.policy.RegistryPoll/2))
}

// refreshSince is refresh, unless it was done after since.
func (r *registry) refreshSince(ctx context.Context, since time.Time) error {
	select {
	case r.reload <- struct{}{}:
		defer func() { <-r.reload }()
	case <-ctx.Done(): // a database that is silent makes nobody wait for others' turns
		return fmt.Errorf("%w: registry version: %w", storage.ErrUnavailable, ctx.Err())
	}

	asked, now := r.clock.local(), r.clock.now()
	if s := r.current.Load(); s != nil && s.asOf.Load().After(since) && r.age(s) >= 0 {
		return nil
	}
	version, err := r.store.RegistryVersion(ctx)
	if err != nil {
		return fmt.Errorf("registry version: %w", err)
	}
	if s := r.current.Load(); s != nil && s.version == version && now.Before(s.ring.NextChange()) {
		s.asOf.Store(&asked)
		return nil
	}
	s, err := r.read(ctx, version, now)
	if err != nil {
		return err
	}
	s.asOf.Store(&asked)
	r.current.Store(s)
	return nil
}

// read builds a snapshot. What it reads may be newer than version, never
// older; the next refresh then reads it once more.
func (r *registry) read(ctx context.Context, version int64, now time.Time) (*snapshot, error) {
	s := &snapshot{
		version:   version,
		resources: make(map[string]*storage.Resource),
		owners:    make(map[string]*storage.Resource),
		scopes:    make(map[string]storage.Scope),
		roles:     make(map[string]storage.Role),
		clients:   newCache[string, *client](r.policy.CachedClients),
	}
	ring, err := keys.Load(ctx, r.store, r.sealer, now)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if s.epoch, err = readEpoch(ctx, r.store); err != nil {
		return nil, err
	}
	s.ring, s.jwks = ring, jwksDocument(ring, r.policy.JWKSMaxAge)
	if err := ring.Altered(); err != nil {
		r.log.Error("a key in the database is not as it was written: it is not used, and this replica takes no requests until it is gone", "cause", err.Error())
	}

	const pageSize = 500
	for after := ""; ; {
		page, err := r.store.Resources(ctx, storage.Page{After: after, Limit: pageSize})
		if err != nil {
			return nil, fmt.Errorf("resources: %w", err)
		}
		for i := range page {
			res := &page[i]
			s.resources[res.URI] = res
			for _, sc := range res.Scopes {
				s.owners[sc.Name], s.scopes[sc.Name] = res, sc
			}
			after = res.URI
		}
		if len(page) < pageSize {
			break
		}
	}
	for after := ""; ; {
		page, err := r.store.Roles(ctx, storage.Page{After: after, Limit: pageSize})
		if err != nil {
			return nil, fmt.Errorf("roles: %w", err)
		}
		for _, role := range page {
			s.roles[role.Name] = role
			after = role.Name
		}
		if len(page) < pageSize {
			break
		}
	}
	return s, nil
}

// client returns the client, or storage.ErrNotFound: as its row has it, else as
// its metadata document, if this replica has read that. resolveClient reads it.
func (r *registry) client(ctx context.Context, v view, id string) (*client, error) {
	c, err := r.row(ctx, v, id)
	if errors.Is(err, storage.ErrNotFound) && isClientURL(id) {
		if c := r.documents.remembered(id); c != nil {
			return c, nil
		}
	}
	return c, err
}

// row returns the client by its row, or storage.ErrNotFound. Absence is
// remembered like presence, so that both take the same time.
func (r *registry) row(ctx context.Context, v view, id string) (*client, error) {
	c, ok := v.clients.get(id)
	if !ok {
		row, err := r.store.Client(ctx, id)
		switch {
		case errors.Is(err, storage.ErrNotFound):
		case err != nil:
			return nil, fmt.Errorf("client: %w", err)
		default:
			c = newClient(row)
		}
		v.clients.put(id, c)
	}
	if c == nil {
		return nil, fmt.Errorf("client %q: %w", clip(id), storage.ErrNotFound)
	}
	return c, nil
}

// catchUp makes the registry at least as new as the call.
func (r *registry) catchUp(ctx context.Context) error { return r.refreshSince(ctx, r.clock.local()) }

// run keeps the registry current until ctx ends.
func (r *registry) run(ctx context.Context) {
	tick := time.NewTicker(r.policy.RegistryPoll)
	defer tick.Stop()
	said := "" // of the failure that goes on
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.refresh(ctx)
		switch {
		case err != nil && ctx.Err() == nil && outage(err) != said:
			said = outage(err)
			r.log.Error(said, "cause", err.Error())
		case err == nil && said != "":
			said = ""
			r.log.Info("the database answers again, and requests are answered")
		}
	}
}

// outage says what requests get 503 for, by the error of a refresh.
func outage(err error) string {
	switch {
	case errors.Is(err, keys.ErrWrongKEK):
		return "the keys in the database were sealed with another key-encryption key since this server started: requests get 503 until it is restarted with that one"
	case errors.Is(err, storage.ErrUnavailable):
		return "the database does not answer: requests get 503 until it does"
	default:
		return "what the database holds cannot be used: requests get 503 until it can"
	}
}

// settled returns the client as it is now, with a view whose second is later
// than that of the issuer's epoch, and of one which the client's last change may
// have appended to the revocation log. An epoch is dated ahead and refuses the second it falls
// in, because iat has no finer unit: a token minted until then would be refused
// at once.
func (r *registry) settled(ctx context.Context, id string) (view, *client, error) {
	const patience = revocation.EpochAhead + 4*time.Second // and one second, and the clock offset allowed
	deadline := r.clock.local().Add(patience)
	for {
		v, err := r.view(ctx)
		if err != nil {
			return view{}, nil, err
		}
		c, err := r.row(ctx, v, id)
		if errors.Is(err, storage.ErrNotFound) && isClientURL(id) { // its row may be from just now
			if err := r.catchUp(ctx); err != nil {
				return view{}, nil, err
			}
			if v, err = r.view(ctx); err != nil {
				return view{}, nil, err
			}
			c, err = r.row(ctx, v, id)
		}
		if errors.Is(err, storage.ErrNotFound) {
			return view{}, nil, invalidClient(err) // deleted since it authenticated
		}
		if err != nil {
			return view{}, nil, err
		}
		last := v.epoch.at
		// A client that registered itself got an identifier nobody had before, and
		// where one with a document was there before, it counts as changed (change.append).
		if c.Origin == originOperator || !c.UpdatedAt.Equal(c.CreatedAt) {
			last = later(c.UpdatedAt.Add(revocation.EpochAhead), last)
		}
		if v.asOf.Truncate(time.Second).After(last.Truncate(time.Second)) {
			return v, c, nil
		}
		if r.clock.local().After(deadline) {
			return view{}, nil, unavailable(fmt.Errorf("client %q was changed, or the database restored, at %s, ahead of this server's clock", id, last))
		}
		select {
		case <-ctx.Done():
			return view{}, nil, unavailable(ctx.Err())
		case <-time.After(r.policy.RegistryPoll):
		}
	}
}
