package main

import (
	"strings"
	"testing"
)

// What the environment says about traces is taken as it is meant, or refused:
// never passed over.
func TestTraceSettings(t *testing.T) {
	for _, test := range []struct {
		name   string
		env    map[string]string
		traces bool
		fault  string // the variable that is wrong
	}{
		{name: "nothing", env: nil},
		{"an endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, true, ""},
		{"an endpoint for traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, true, ""},
		{"the exporter", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		{"only a header", map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, false, ""},
		{"no exporter", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, false, ""},
		{"one in a hundred", map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, true, ""},

		{"another exporter", map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, "OTEL_TRACES_EXPORTER"},
		{"gRPC", map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, true, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{"no URL", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, true, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"an unknown sampler", map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "some"}, true, "OTEL_TRACES_SAMPLER"},
		{"more than all", map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, true, "OTEL_TRACES_SAMPLER_ARG"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			var faults []string
			got := traces(func(field, problem, fix string) {
				faults = append(faults, field)
				if problem == "" || fix == "" {
					t.Errorf("%s: %q, %q", field, problem, fix)
				}
			})
			if got != test.traces || strings.Join(faults, " ") != test.fault {
				t.Errorf("traces %v, faults %q", got, faults)
			}
		})
	}
}

// A statement's name is short and one of few.
func TestSummary(t *testing.T) {
	for statement, want := range map[string]string{
		"SELECT a, b FROM grants WHERE id = $1":                      "SELECT grants",
		"INSERT INTO clients(id) VALUES ($1)":                        "INSERT clients",
		"UPDATE grants SET x = $1":                                   "UPDATE grants",
		"\n\tDELETE FROM sessions\n\tWHERE id IN (SELECT id FROM x)": "DELETE sessions",
		"SELECT 1": "SELECT",
	} {
		if got := summary(statement); got != want {
			t.Errorf("%q: %q, want %q", statement, got, want)
		}
	}
}
