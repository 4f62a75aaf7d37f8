package web

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's own figures. A route is a pattern of the router,
// never a path that somebody sent.
type metrics struct {
	duration    *prometheus.HistogramVec
	panics      prometheus.Counter
	connections prometheus.Gauge
	shed        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signet_http_request_duration_seconds",
			Help:    "Time to answer a request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "status"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_panics_total", Help: "Requests that ended in a panic and a 500."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signet_http_connections", Help: "Connections to the public listener."}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signet_http_connections_shed_total", Help: "Connections closed because there were too many."}),
	}
	reg.MustRegister(m.duration, m.panics, m.connections, m.shed)
	return m
}

func (m *metrics) observe(route string, status int, took time.Duration) {
	m.duration.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
}
