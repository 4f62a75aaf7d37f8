package provider

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	}
	reg.MustRegister(m.tokenBytes, m.codesIssued, m.grantsEnded, m.signIns, m.tokensIssued, m.tokenErrors, m.authFailures, m.introspections, m.revocations,
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
