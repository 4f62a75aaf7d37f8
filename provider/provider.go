package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/i18n"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// Config is what a Provider is made of. All fields but Schedule, FeedScope,
// Registration, Documents and Tracer are required.
type Config struct {
	Issuer Issuer
	Store  storage.Store
	Sealer *keys.Sealer
	// Algorithms are the JWS algorithms that resources may choose from; the
	// first start makes keys for each.
	Algorithms []string
	Policy     Policy
	// Schedule is the life of a key; the zero value means keys.DefaultSchedule.
	Schedule keys.Schedule
	// FeedScope is what an access token needs to read the revocation feed; ""
	// leaves it open to anybody.
	FeedScope string
	// Registration lets clients register themselves; the zero value does not.
	Registration Registration
	// Documents lets clients be known by a Client ID Metadata Document; the zero
	// value does not.
	Documents Documents
	Outbound  *Outbound
	Metrics   prometheus.Registerer
	Tracer    trace.Tracer // of jobs and fetches; nil: none
	Log       *slog.Logger
	// Now is this machine's clock, with its monotonic reading, which UTC takes
	// away. Dates are by the database's clock.
	Now func() time.Time
}

// Provider answers the protocol endpoints of one issuer. It is safe for
// concurrent use, and holds nothing another replica would need.
type Provider struct {
	issuer   Issuer
	store    storage.Store
	policy   Policy
	log      *slog.Logger
	now      func() time.Time
	fosite   *fosite.Fosite
	registry *registry
	keeper   *keys.Keeper
	clock    *clock
	entries  entries
	throttle *throttle
	pushes   *throttle // pushed requests of who may be anybody
	fetches  *throttle // of request objects
	readings *throttle // of what strangers have fetched: metadata documents, sectors

	registration  Registration
	registrar     *Admin // who acts for clients that register themselves
	librarian     *Admin // who acts for clients that have a metadata document
	registrations *throttle

	outbound   *Outbound
	public     *Outbound // for what clients name that registered themselves
	documents  *documents
	hashing    *hashGate
	remoteKeys *remoteKeys
	publicKeys *remoteKeys
	tokens     *cache[[sha256.Size]byte, *issued]

	largeTokens *cache[string, time.Time] // by client: when its tokens' size was last warned of
	metrics     *metrics
	tracer      trace.Tracer
	metadata    *document

	statusLists   *revocation.StatusLists
	statusIndexes *statusIndexes
	feed          *revocation.Feed
	feedScope     string
	feedPlaces    *feedPlaces
}

// New composes a Provider. It makes the keys a new database lacks and reads
// what the first requests need; it fails when the database does not answer
// or the keys cannot be opened.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	if cfg.Schedule == (keys.Schedule{}) {
		cfg.Schedule = keys.DefaultSchedule()
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.Tracer{}
	}
	outbound := cfg.Outbound.traced(cfg.Tracer)
	public := outbound.public()
	if err := cfg.Schedule.Validate(cfg.Policy.JWKSMaxAge, max(cfg.Policy.MaxAccessTokenLifetime, cfg.Policy.IDTokenLifetime)); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	p := &Provider{
		issuer:   cfg.Issuer,
		store:    cfg.Store,
		policy:   cfg.Policy,
		log:      cfg.Log,
		clock:    &clock{store: cfg.Store, policy: cfg.Policy, local: cfg.Now, log: cfg.Log},
		throttle: newThrottle(limit{burst: 20, perSecond: 0.2}, limit{burst: 200, perSecond: 5}),
		pushes:   newThrottle(limit{burst: 120, perSecond: 2}, limit{burst: 240, perSecond: 4}),
		fetches:  newThrottle(limit{burst: 20, perSecond: 1}, limit{burst: 50, perSecond: 10}),
		readings: newThrottle(limit{burst: 20, perSecond: 0.5}, limit{burst: 20, perSecond: 0.5}),
		outbound: outbound,
		public:   public,

		registration:  cfg.Registration,
		registrations: newThrottle(limit{burst: 20, perSecond: 1. / 30}, limit{burst: 20, perSecond: 1. / 30}),

		hashing:    newHashGate(cfg.Policy.PasswordHashes, cfg.Policy.PasswordQueue),
		remoteKeys: newRemoteKeys(outbound, cfg.Policy.CachedClients),
		publicKeys: newRemoteKeys(public, cfg.Policy.CachedClients),
		tokens:     newCache[[sha256.Size]byte, *issued](cfg.Policy.CachedTokens),
		tracer:     cfg.Tracer,
		feedScope:  cfg.FeedScope,
		feedPlaces: newFeedPlaces(cfg.Policy.FeedConnections),

		largeTokens: newCache[string, time.Time](cfg.Policy.CachedClients),
	}
	p.documents = newDocuments(cfg.Documents, public, p.publicKeys, cfg.Policy.CachedClients, cfg.Now)
	p.now = p.clock.now
	p.entries = entries{func() time.Time { return p.clock.latest(p.clock.local()) }, p.policy}
	if err := p.clock.measure(ctx); err != nil {
		return nil, err
	}
	p.keeper = &keys.Keeper{Store: cfg.Store, Sealer: cfg.Sealer, Schedule: cfg.Schedule, Algorithms: cfg.Algorithms, Record: p.recordKey}
	if _, err := p.keeper.Advance(ctx, p.sharedNow()); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	p.registry = &registry{store: cfg.Store, sealer: cfg.Sealer, clock: p.clock, policy: cfg.Policy, log: cfg.Log, documents: p.documents, reload: make(chan struct{}, 1)}
	acting := AdminConfig{
		Store: cfg.Store, Policy: cfg.Policy, Now: p.sharedNow, Issuer: cfg.Issuer.String(), Fetch: p.fetchForRegistration,
		Ring: func(ctx context.Context) (*keys.Ring, error) {
			v, err := p.registry.view(ctx)
			if err != nil {
				return nil, err
			}
			return v.ring, nil
		},
	}
	acting.Actor = originRegistration
	p.registrar = NewAdmin(acting)
	acting.Actor = originDocument
	p.librarian = NewAdmin(acting)
	if err := p.claimIssuer(ctx); err != nil {
		return nil, err
	}
	p.fosite = p.composeFosite()
	p.metrics = newMetrics(cfg.Metrics)
	p.metrics.watch(cfg.Metrics, p, outbound)
	p.metadata = p.newMetadata()
	if err := p.registry.refresh(ctx); err != nil {
		return nil, err
	}
	var err error
	if p.feed, err = p.openFeed(ctx); err != nil {
		return nil, err
	}
	p.statusLists, p.statusIndexes = p.newStatusLists(), &statusIndexes{store: cfg.Store}
	p.metrics.watchFeed(cfg.Metrics, p.feed, p.feedPlaces)
	return p, nil
}

// SettingIssuer is the setting that holds the issuer of a database.
const SettingIssuer = "issuer"

// claimIssuer records for which issuer this database is served, so that
// commands know it, and says so when it was another one before.
func (p *Provider) claimIssuer(ctx context.Context) error {
	before, err := p.store.Setting(ctx, SettingIssuer)
	switch {
	case err == nil && before == p.issuer.String():
		return nil
	case err == nil:
		p.log.Warn("this database was served as another issuer before: its tokens are not accepted under the new name",
			"before", before, "issuer", p.issuer.String())
	case !errors.Is(err, storage.ErrNotFound):
		return fmt.Errorf("settings: %w", err)
	}
	err = p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) error {
		return tx.SetSetting(ctx, SettingIssuer, p.issuer.String())
	})
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// composeFosite sets up the framework: request parsing, the client
// authentication hook, the chain of our own grant handlers, the error model.
// Getters of fosite.Config fill in what is missing while requests read it, a
// data race, so every field one of them would fill is set here.
func (p *Provider) composeFosite() *fosite.Fosite {
	return fosite.NewOAuth2Provider(fositeStore{p.registry}, &fosite.Config{
		ClientAuthenticationStrategy: p.authenticateClient,
		AuthorizeEndpointHandlers:    fosite.AuthorizeEndpointHandlers{&authorizationCode{p}},
		TokenEndpointHandlers:        fosite.TokenEndpointHandlers{&clientCredentials{p}, &authorizationCode{p}, &refreshToken{p}},
		ResponseModeHandlerExtension: &fosite.DefaultResponseModeHandler{},
		ScopeStrategy:                fosite.ExactScopeStrategy,
		AudienceMatchingStrategy:     fosite.ExactAudienceMatchingStrategy,
		MinParameterEntropy:          1,
		AccessTokenLifespan:          p.policy.AccessTokenLifetime,
		MessageCatalog:               i18n.NewDefaultMessageCatalog(nil),
		ClientSecretsHasher:          refuseSecrets{},
		JWKSFetcherStrategy:          refuseFetches{},
		EnforcePKCE:                  true,
		SendDebugMessagesToClients:   false,
	})
}

// refuseSecrets stands where fosite would hash client secrets itself. Only
// our own client authentication judges them (clientauth.go).
type refuseSecrets struct{}

var errStockHasher = errors.New("fosite's own secret hashing was called")

func (refuseSecrets) Compare(context.Context, []byte, []byte) error { return errStockHasher }
func (refuseSecrets) Hash(context.Context, []byte) ([]byte, error)  { return nil, errStockHasher }

// refuseFetches stands where fosite would fetch clients' keys, from anywhere
// and without a limit (clientkeys.go does, with both).
type refuseFetches struct{}

var errStockFetch = errors.New("fosite's own key fetching was called")

func (refuseFetches) Resolve(context.Context, string, bool) (*jose.JSONWebKeySet, error) {
	return nil, errStockFetch
}

// Run does what goes on in the background until ctx ends: it follows changes
// other processes make and the revocation log, watches the clock, carries keys
// through their lives, tells clients of logouts and removes expired rows.
func (p *Provider) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { p.registry.run(ctx) })
	group.Go(func() { p.clock.run(ctx) })
	group.Go(func() { p.keepKeys(ctx) })
	group.Go(func() { p.prune(ctx) })
	group.Go(func() { p.deliver(ctx) })
	group.Go(func() { p.feed.Run(ctx) })
	group.Wait()
}

// job runs one round of what goes on in the background, as a trace of its own.
func (p *Provider) job(ctx context.Context, name string, round func(context.Context) error) error {
	ctx, span := p.tracer.Start(ctx, name, trace.WithNewRoot())
	defer span.End()
	err := round(ctx)
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	return err
}

// Ready returns why this replica should get no requests now, or nil.
func (p *Provider) Ready(ctx context.Context) error {
	v, err := p.registry.view(ctx)
	if err != nil {
		return err
	}
	if err := v.ring.Altered(); err != nil {
		return err
	}
	if err := v.ring.CanSign(p.keeper.Algorithms, p.now()); err != nil {
		return err
	}
	return p.clock.check()
}

// prune removes what has expired, in batches that hold no lock for long. Any
// number of replicas may do it at once.
func (p *Provider) prune(ctx context.Context) {
	const batch = 500
	tick := time.NewTicker(p.policy.PruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p.clock.check() != nil {
			continue // what has expired is for those to say whose clocks agree
		}
		for gone := batch; gone > 0; {
			err := p.job(ctx, "prune", func(ctx context.Context) error {
				return p.store.Update(ctx, func(ctx context.Context, tx storage.Tx) (err error) {
					if gone, err = tx.PruneExpired(ctx, p.now(), batch); err != nil || p.policy.AuditRetention == 0 {
						return err
					}
					events, err := tx.PruneAudit(ctx, p.now().Add(-p.policy.AuditRetention), batch)
					gone += events
					return err
				})
			})
			if err == nil {
				p.metrics.pruned.Add(float64(gone))
			} else {
				if ctx.Err() == nil {
					p.log.Warn("expired rows were not removed; the next round tries again", "cause", err.Error())
				}
				break
			}
		}
		if err := p.removeUnused(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("unused clients were not removed; the next round tries again", "cause", err.Error())
		}
	}
}
