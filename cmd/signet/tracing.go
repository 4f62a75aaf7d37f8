package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// flushTimeout is how long the last spans may take on their way when the
// server ends.
const flushTimeout = 3 * time.Second

// traces reports whether the environment asks for traces, in OpenTelemetry's
// own variables, and what is wrong with those that the exporter would only
// pass over.
func traces(bad addFault) bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	exporter, wanted := os.Getenv("OTEL_TRACES_EXPORTER"), false
	switch exporter {
	case "none":
		return false
	case "":
	case "otlp":
		wanted = true
	default:
		bad("OTEL_TRACES_EXPORTER", fmt.Sprintf("is %q", exporter), "choose otlp or none")
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		wanted = true
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad(name, "is not an http or https URL", "write it as http://collector:4318") // it may hold a password
		}
	}
	if !wanted {
		return false
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if protocol := os.Getenv(name); protocol != "" && protocol != "http/protobuf" {
			bad(name, fmt.Sprintf("is %q", protocol), "choose http/protobuf, which collectors take on port 4318")
		}
	}
	samplers := []string{"", "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	sampler, share := os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG")
	if !slices.Contains(samplers, sampler) {
		bad("OTEL_TRACES_SAMPLER", fmt.Sprintf("is %q", sampler), "choose one of "+strings.Join(samplers[1:], ", "))
	}
	if ratio, err := strconv.ParseFloat(share, 64); share != "" && strings.HasSuffix(sampler, "traceidratio") && (err != nil || ratio < 0 || ratio > 1) {
		bad("OTEL_TRACES_SAMPLER_ARG", fmt.Sprintf("is %q", share), "write a number from 0 to 1")
	}
	return true
}

// startTracing returns what makes traces and sends them, by OTLP over HTTP, to
// where the environment says (OTEL_EXPORTER_OTLP_*). flush sends what is left.
func startTracing(ctx context.Context, log *slog.Logger) (_ trace.Tracer, flush func(), err error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("traces: %w", err)
	}
	version := buildVersion().Version
	// The environment may name the service otherwise: OTEL_SERVICE_NAME.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "signet"), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	spans := sdktrace.NewTracerProvider(sdktrace.WithBatcher(&patientExporter{SpanExporter: exporter, log: log}), sdktrace.WithResource(about))
	flush = func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		if err := spans.Shutdown(ctx); err != nil {
			log.Warn("the last traces were not sent", "cause", err.Error())
		}
	}
	return discreetTracer{spans.Tracer("github.com/signet-oidc/signet", trace.WithInstrumentationVersion(version))}, flush, nil
}

// discreetTracer keeps traces to what this program puts into them. Libraries add
// spans where they find one in the context: fosite's hold the whole text of
// errors, with clients and addresses.
type discreetTracer struct{ trace.Tracer }

// Start implements trace.Tracer.
func (t discreetTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	ctx, span := t.Tracer.Start(ctx, name, opts...)
	span = discreetSpan{span}
	return trace.ContextWithSpan(ctx, span), span
}

type discreetSpan struct{ trace.Span }

// TracerProvider implements trace.Span: for those who have only the span.
func (discreetSpan) TracerProvider() trace.TracerProvider { return strangers{} }

type strangers struct{ noop.TracerProvider }

// Tracer implements trace.TracerProvider.
func (strangers) Tracer(string, ...trace.TracerOption) trace.Tracer { return stranger{} }

// stranger makes spans that are not there, and leaves the one in the context.
type stranger struct{ noop.Tracer }

// Start implements trace.Tracer.
func (stranger) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	return ctx, noop.Span{}
}

// patientExporter says once when spans cannot be sent, and once when they can
// again. They are then lost, and nothing else is.
type patientExporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *patientExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !e.failing.Swap(true):
		e.log.Warn("traces cannot be sent and are lost, which hinders nothing else; check OTEL_EXPORTER_OTLP_ENDPOINT", "cause", err.Error())
	case err == nil && e.failing.Swap(false):
		e.log.Info("traces can be sent again")
	}
	return nil
}

// tracedLog adds the trace's id to the lines of a request or job that has one.
type tracedLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (h tracedLog) Handle(ctx context.Context, line slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		line.AddAttrs(slog.String("trace_id", span.TraceID().String()))
	}
	return h.Handler.Handle(ctx, line)
}

// WithAttrs implements slog.Handler.
func (h tracedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tracedLog{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h tracedLog) WithGroup(name string) slog.Handler { return tracedLog{h.Handler.WithGroup(name)} }
