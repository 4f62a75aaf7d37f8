package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/signet-oidc/signet/storage"
)

// How an operation of the database ended, as figures and traces name it.
const (
	outcomeOK          = "ok"          // also when what was asked for is not there, or taken
	outcomeUnavailable = "unavailable" // storage.ErrUnavailable
	outcomeRefused     = "refused"     // by whoever asked: nothing of an update was kept
)

func outcomeOf(err error) string {
	switch {
	case err == nil, errors.Is(err, storage.ErrNotFound):
		return outcomeOK
	case errors.Is(err, storage.ErrUnavailable):
		return outcomeUnavailable
	}
	return outcomeRefused
}

// databaseObserver measures what the database is asked, and adds to a trace
// what is asked on behalf of it. It begins none: what polls alone is no news.
type databaseObserver struct {
	tracer  trace.Tracer // nil: no traces
	system  string       // as OpenTelemetry names the database
	seconds map[storage.Operation]map[string]prometheus.Observer
	now     func() time.Time
}

// newDatabaseObserver registers its figures with reg. tracer may be nil.
func newDatabaseObserver(db databaseURL, reg prometheus.Registerer, tracer trace.Tracer, now func() time.Time) *databaseObserver {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "signet_database_duration_seconds",
		Help:    "Time that reads, updates with their commit, and views of the database took, by how they ended.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"operation", "outcome"})
	reg.MustRegister(seconds)
	o := &databaseObserver{tracer: tracer, system: "postgresql", now: now, seconds: make(map[storage.Operation]map[string]prometheus.Observer)}
	if db.sqlite != "" {
		o.system = "sqlite"
	}
	for _, op := range []storage.Operation{storage.OpRead, storage.OpUpdate, storage.OpView} {
		o.seconds[op] = make(map[string]prometheus.Observer)
		for _, outcome := range []string{outcomeOK, outcomeUnavailable, outcomeRefused} {
			o.seconds[op][outcome] = seconds.WithLabelValues(string(op), outcome)
		}
	}
	return o
}

// Begin implements storage.Observer.
func (o *databaseObserver) Begin(ctx context.Context, op storage.Operation, statement string) (context.Context, time.Time) {
	if o.tracer != nil && trace.SpanFromContext(ctx).IsRecording() {
		name, attributes := string(op), []attribute.KeyValue{attribute.String("db.system.name", o.system)}
		if statement != "" {
			name = summary(statement)
			attributes = append(attributes, attribute.String("db.query.summary", name), attribute.String("db.query.text", statement))
		}
		ctx, _ = o.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	}
	return ctx, o.now()
}

// End implements storage.Observer.
func (o *databaseObserver) End(ctx context.Context, op storage.Operation, began time.Time, err error) {
	outcome := outcomeOf(err)
	if seconds, ok := o.seconds[op]; ok {
		seconds[outcome].Observe(o.now().Sub(began).Seconds())
	}
	if o.tracer == nil {
		return
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		if outcome == outcomeUnavailable { // the error's text may tell more than a trace should
			span.SetAttributes(attribute.String("error.type", outcome))
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// summary names a statement by its verb and its first table.
func summary(statement string) string {
	words := strings.Fields(statement)
	for i, word := range words[:max(0, len(words)-1)] {
		switch word {
		case "FROM", "INTO", "UPDATE":
			table, _, _ := strings.Cut(words[i+1], "(")
			return words[0] + " " + table
		}
	}
	return words[0]
}

// registerDatabase shows how busy the connections are.
func registerDatabase(reg prometheus.Registerer, store storage.Store) {
	gauge := func(name, help string, value func(storage.Load) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(store.Load()) }))
	}
	counter := func(name, help string, value func(storage.Load) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(store.Load()) }))
	}
	gauge("signet_database_connections_limit", "How many connections to the database there may be.",
		func(l storage.Load) float64 { return float64(l.Limit) })
	gauge("signet_database_connections_open", "Connections to the database.",
		func(l storage.Load) float64 { return float64(l.Open) })
	gauge("signet_database_connections_busy", "Connections to the database that are in use.",
		func(l storage.Load) float64 { return float64(l.Busy) })
	counter("signet_database_connection_waits_total", "How often somebody had to wait for a connection to the database.",
		func(l storage.Load) float64 { return float64(l.Waits) })
	counter("signet_database_connection_wait_seconds_total", "How long connections to the database were waited for, altogether.",
		func(l storage.Load) float64 { return l.Waited.Seconds() })
}

// newFigures returns a registry with what any Go program tells and which build
// this is.
func newFigures() *prometheus.Registry {
	v := buildVersion()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "signet_build_info", Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": v.Version, "commit": v.Commit, "go": v.Go},
	})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
