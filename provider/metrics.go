package provider

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/provider/revocation"
	"github.com/signet-oidc/signet/storage"
)

// metrics are the provider's counters. Labels hold names of ours only, never
// what a request sent.
type metrics struct {
	tokensIssued   *prometheus.CounterVec // by grant type
	tokenErrors    *prometheus.CounterVec // by error code
	tokenBytes     prometheus.Histogram
	codesIssued    prometheus.Counter
	grantsEnded    *prometheus.CounterVec // by reason
	signIns        *prometheus.CounterVec // by outcome
	authFailures   prometheus.Counter
	introspections prometheus.Counter
	revocations    prometheus.Counter
	feedRefused    prometheus.Counter
	feedSlow       prometheus.Counter
	feedResyncs    prometheus.Counter
	signing        map[string]prometheus.Observer // by algorithm
	pruned         prometheus.Counter
	deliveries     *prometheus.CounterVec          // by outcome
	backlog        atomic.Pointer[storage.Backlog] // as last counted
	keysKept       atomic.Int64                    // Unix milliseconds: when keys were last looked after
}

func newMetrics(reg prometheus.Registerer) *metrics {
	signing := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "signet_signing_duration_seconds", Help: "Time to sign an access or ID token, without what precedes it.",
		Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1}}, []string{"alg"})
	m := &metrics{
		tokensIssued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_tokens_issued_total", Help: "Successful answers of the token endpoint."}, []string{"grant_type"}),
		tokenErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_token_errors_total", Help: "Refusals of the token endpoint by error code."}, []string{"error"}),
		tokenBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signet_access_token_bytes", Help: "Size of access tokens; above 1 KiB some proxies begin to refuse them.",
			Buckets: []float64{384, 512, 768, 1024, 2048, 4096}}),
		codesIssued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_codes_issued_total", Help: "Authorization codes sent to clients, repeated approvals included."}),
		grantsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_grants_ended_total", Help: "Grants ended by misuse or by their client."}, []string{"reason"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_sign_ins_total", Help: "Attempts of people to sign in."}, []string{"outcome"}),
		authFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_client_authentication_failures_total", Help: "Failed client authentications."}),
		introspections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_introspections_total", Help: "Authenticated introspection requests."}),
		revocations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_revocations_total", Help: "Tokens revoked by their clients."}),
		feedRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_revocation_feed_refused_total", Help: "Feed connections refused because there were too many."}),
		feedSlow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_revocation_feed_slow_total", Help: "Feed connections cut because their verifier did not read."}),
		feedResyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_revocation_feed_resyncs_total", Help: "Verifiers told to start over from the snapshot."}),
		pruned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_pruned_rows_total", Help: "Expired rows that this replica removed."}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_logout_deliveries_total", Help: "Attempts of this replica to tell clients of logouts."}, []string{"outcome"}),
		signing: make(map[string]prometheus.Observer),
	}
	for _, alg := range keys.Algorithms() {
		m.signing[alg] = signing.WithLabelValues(alg)
	}
	reg.MustRegister(m.tokenBytes, m.codesIssued, m.grantsEnded, m.signIns, m.tokensIssued, m.tokenErrors, m.authFailures, m.introspections, m.revocations,
		m.feedRefused, m.feedSlow, m.feedResyncs, signing, m.pruned, m.deliveries)
	return m
}

// gaugeOf and counterOf are for figures that somebody else keeps.
func gaugeOf(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func counterOf(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
}

// watch shows the figures of what the provider is made of.
func (m *metrics) watch(reg prometheus.Registerer, p *Provider, outbound *Outbound) {
	m.keysKept.Store(p.now().UnixMilli())
	// A series that begins at 0 shows its first event as an increase.
	for _, grantType := range p.grantTypes() {
		m.tokensIssued.WithLabelValues(grantType)
	}
	for _, code := range []string{"invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "server_error", "temporarily_unavailable"} {
		m.tokenErrors.WithLabelValues(code)
	}
	for _, outcome := range []string{"success", "refused", "throttled", "busy", "password_change", "error"} {
		m.signIns.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"delivered", "failed", "given_up"} {
		m.deliveries.WithLabelValues(outcome)
	}
	m.backlog.Store(new(storage.Backlog))
	for _, reason := range []string{"code replayed", "refresh token reused"} {
		m.grantsEnded.WithLabelValues(reason)
	}
	reg.MustRegister(
		gaugeOf("signet_registry_age_seconds", "Since when this replica has not confirmed what it remembers of clients and keys.",
			func() float64 {
				s := p.registry.current.Load()
				if s == nil {
					return -1
				}
				return p.registry.age(s).Seconds()
			}),
		gaugeOf("signet_clock_offset_seconds", "This server's clock minus the database's; beyond 2 either way it issues nothing.",
			func() float64 { return p.clock.offset().Seconds() }),
		gaugeOf("signet_keys_age_seconds", "Since when this replica has not looked after the keys.",
			func() float64 { return p.since(m.keysKept.Load()) }),
		gaugeOf("signet_password_hashes_running", "Passwords that are being checked or hashed.",
			func() float64 { return float64(len(p.hashing.slots)) }),
		gaugeOf("signet_password_hashes_waiting", "Sign-ins that wait for a turn to hash.",
			func() float64 { return float64(max(0, len(p.hashing.waiting)-len(p.hashing.slots))) }),
		counterOf("signet_outbound_fetches_total", "Documents of clients that were fetched.",
			func() float64 { return float64(outbound.fetched.Load()) }),
		counterOf("signet_outbound_failures_total", "Documents of clients that could not be fetched.",
			func() float64 { return float64(outbound.failed.Load()) }),
		gaugeOf("signet_logouts_pending", "Logouts that clients have to be told of, in the database.",
			func() float64 { return float64(m.backlog.Load().Pending) }),
		gaugeOf("signet_logouts_failed", "Logouts that clients will not be told of, of the last week.",
			func() float64 { return float64(m.backlog.Load().Failed) }),
		gaugeOf("signet_logouts_oldest_seconds", "How long ago the oldest pending one happened.",
			func() float64 {
				if oldest := m.backlog.Load().Oldest; !oldest.IsZero() {
					return max(0, p.since(oldest.UnixMilli()))
				}
				return 0
			}),
		&turns{p,
			prometheus.NewDesc("signet_signing_key_age_seconds", "How long the key that signs has done so.", []string{"purpose", "alg"}, nil),
			prometheus.NewDesc("signet_signing_key_change_seconds", "Seconds until the next key takes over.", []string{"purpose", "alg"}, nil),
			prometheus.NewDesc("signet_signing_key_successors", "Keys that are published and wait for their turn.", []string{"purpose", "alg"}, nil)},
	)
}

// since returns the seconds since a moment in Unix milliseconds.
func (p *Provider) since(ms int64) float64 { return p.now().Sub(time.UnixMilli(ms)).Seconds() }

// turns collects figures of the keys that sign, from the ring in use.
type turns struct {
	p                       *Provider
	age, change, successors *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (t *turns) Describe(to chan<- *prometheus.Desc) {
	to <- t.age
	to <- t.change
	to <- t.successors
}

// Collect implements prometheus.Collector.
func (t *turns) Collect(to chan<- prometheus.Metric) {
	s := t.p.registry.current.Load()
	if s == nil {
		return
	}
	now := t.p.now()
	for _, turn := range s.ring.Turns(t.p.keeper.Algorithms, now) {
		show := func(d *prometheus.Desc, value float64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, turn.Purpose, turn.Alg)
		}
		show(t.successors, float64(turn.Successors))
		if turn.Until.IsZero() {
			show(t.change, 0)
			continue
		}
		show(t.age, now.Sub(turn.Since).Seconds())
		show(t.change, turn.Until.Sub(now).Seconds())
	}
}

// watchFeed shows the figures of the revocation feed.
func (m *metrics) watchFeed(reg prometheus.Registerer, f *revocation.Feed, places *feedPlaces) {
	reg.MustRegister(
		gaugeOf("signet_revocation_feed_connections", "Verifiers connected to the revocation feed here.",
			func() float64 { return float64(places.count()) }),
		gaugeOf("signet_revocation_log_seq", "Sequence number of the last revocation this replica knows.",
			func() float64 { return float64(f.Stats().Seq) }),
		gaugeOf("signet_revocation_log_age_seconds", "Since when this replica has not read the revocation log to its end; above 5 it sends no heartbeat.",
			func() float64 { return f.Stats().ReadAge.Seconds() }),
		counterOf("signet_revocation_feed_signatures_total", "Batches, heartbeats and snapshots of the revocation feed that were signed.",
			func() float64 { return float64(f.Stats().Signed) }),
		counterOf("signet_revocation_log_restarts_total", "How often the revocation log was not the continuation of what it had been.",
			func() float64 { return float64(f.Stats().Restarts) }),
	)
}

// sign signs a token, and notes how long that took.
func (p *Provider) sign(v view, alg, typ string, claims []byte) (string, error) {
	began := p.now()
	token, err := v.ring.Sign(alg, typ, claims, began)
	if seconds, ok := p.metrics.signing[alg]; ok {
		seconds.Observe(p.now().Sub(began).Seconds())
	}
	return token, err
}
