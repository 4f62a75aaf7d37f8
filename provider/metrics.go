package provider

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signet-oidc/signet/provider/revocation"
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
}

func newMetrics(reg prometheus.Registerer, r *registry, c *clock, now func() time.Time) *metrics {
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
	}
	reg.MustRegister(m.tokenBytes, m.codesIssued, m.grantsEnded, m.signIns, m.tokensIssued, m.tokenErrors, m.authFailures, m.introspections, m.revocations,
		m.feedRefused, m.feedSlow, m.feedResyncs,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "signet_registry_age_seconds", Help: "Since when this replica has not confirmed what it remembers of clients and keys."},
			func() float64 {
				s := r.current.Load()
				if s == nil {
					return -1
				}
				return now().Sub(time.UnixMilli(s.asOf.Load())).Seconds()
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "signet_clock_offset_seconds", Help: "This server's clock minus the database's."},
			func() float64 { return time.Duration(c.offset.Load()).Seconds() }))
	return m
}

// watchFeed shows the figures of the revocation feed.
func (m *metrics) watchFeed(reg prometheus.Registerer, f *revocation.Feed, places *feedPlaces) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	reg.MustRegister(
		gauge("signet_revocation_feed_connections", "Verifiers connected to the revocation feed here.",
			func() float64 { return float64(places.count()) }),
		gauge("signet_revocation_log_seq", "Sequence number of the last revocation this replica knows.",
			func() float64 { return float64(f.Stats().Seq) }),
		gauge("signet_revocation_log_age_seconds", "Since when this replica has not read the revocation log to its end; above 5 it sends no heartbeat.",
			func() float64 { return f.Stats().ReadAge.Seconds() }),
		counter("signet_revocation_feed_signatures_total", "Batches, heartbeats and snapshots of the revocation feed that were signed.",
			func() float64 { return float64(f.Stats().Signed) }),
		counter("signet_revocation_log_restarts_total", "How often the revocation log was not the continuation of what it had been.",
			func() float64 { return float64(f.Stats().Restarts) }),
	)
}
