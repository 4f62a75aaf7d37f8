package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A report is what a run found, and all that is needed to run it again.
type report struct {
	Workload string            `json:"workload"`
	Issuer   string            `json:"issuer"`
	Date     time.Time         `json:"date"`
	Machine  machine           `json:"machine"`
	Go       string            `json:"go"`
	Settings settingsReport    `json:"settings"`
	Figures  figures           `json:"figures"`
	examples map[string]string // of failures, by kind
}

type machine struct {
	OS     string `json:"os"`
	CPU    string `json:"cpu,omitempty"`
	CPUs   int    `json:"cpus"`
	Memory int64  `json:"memory_mb,omitempty"`
}

type settingsReport struct {
	Concurrency int     `json:"concurrency"`
	Duration    float64 `json:"duration_seconds"`
	Warmup      float64 `json:"warmup_seconds"`
	MaxRequests int     `json:"max_requests"`
	Resource    string  `json:"resource,omitempty"`
	Scope       string  `json:"scope,omitempty"`
	IDTokenAlg  string  `json:"id_token_alg,omitempty"`
}

// figures count what began after the warm-up; latencies are those of requests
// that succeeded.
type figures struct {
	Requests           uint64            `json:"requests"`
	Seconds            float64           `json:"seconds"`
	RequestsPerSecond  float64           `json:"requests_per_second"`
	P50                float64           `json:"p50_ms"`
	P90                float64           `json:"p90_ms"`
	P99                float64           `json:"p99_ms"`
	Max                float64           `json:"max_ms"`
	Errors             map[string]uint64 `json:"errors"`
	ServerCPU          *float64          `json:"server_cpu_seconds,omitempty"`
	ServerCPUPer1000   *float64          `json:"server_cpu_seconds_per_1000,omitempty"`
	ServerPeakRSS      *float64          `json:"server_peak_rss_mb,omitempty"`
	DatabaseCPUPer1000 *float64          `json:"database_cpu_seconds_per_1000,omitempty"`
	LoadCPUPer1000     *float64          `json:"load_cpu_seconds_per_1000,omitempty"`
}

func newReport(o options, start time.Time, seconds float64, total *histogram, failures map[string]failed, before, after usages) *report {
	ms := func(d time.Duration) float64 { return round(float64(d)/float64(time.Millisecond), 3) }
	r := &report{
		Workload: o.workload.name,
		Issuer:   o.target.issuer,
		Date:     start.UTC().Truncate(time.Second),
		Machine:  thisMachine(),
		Go:       runtime.Version(),
		Settings: settingsReport{
			Concurrency: o.settings.concurrency,
			Duration:    o.settings.duration.Seconds(),
			Warmup:      o.settings.warmup.Seconds(),
			MaxRequests: o.settings.requests,
			Resource:    o.target.resource,
			Scope:       o.target.scope,
			IDTokenAlg:  o.target.idTokenAlg,
		},
		Figures: figures{
			Requests:          total.n,
			Seconds:           round(seconds, 3),
			RequestsPerSecond: round(float64(total.n)/seconds, 1),
			P50:               ms(total.percentile(50)),
			P90:               ms(total.percentile(90)),
			P99:               ms(total.percentile(99)),
			Max:               ms(total.max),
			Errors:            map[string]uint64{},
		},
		examples: map[string]string{},
	}
	asked := total.n
	for kind, f := range failures {
		r.Figures.Errors[kind] = f.count
		r.examples[kind] = f.example
		asked += f.count
	}
	// Refused requests cost the server too, so they count here.
	per1000 := func(cpu time.Duration) *float64 {
		v := round(cpu.Seconds()/float64(asked)*1000, 4)
		return &v
	}
	if after.server != nil {
		cpu := after.server.cpu - before.server.cpu
		total, rss := round(cpu.Seconds(), 2), round(float64(after.server.peakRSS)/(1<<20), 1)
		r.Figures.ServerCPU, r.Figures.ServerCPUPer1000, r.Figures.ServerPeakRSS = &total, per1000(cpu), &rss
	}
	if after.database != nil {
		r.Figures.DatabaseCPUPer1000 = per1000(after.database.cpu - before.database.cpu)
	}
	if before.own != nil && after.own != nil {
		r.Figures.LoadCPUPer1000 = per1000(after.own.cpu - before.own.cpu)
	}
	return r
}

func thisMachine() machine {
	m := machine{OS: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU()}
	if kb, err := procValue("/proc/meminfo", "MemTotal"); err == nil {
		m.Memory = kb >> 10
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	return m
}

// print writes the report as a table.
func (r *report) print(w io.Writer) {
	f := r.Figures
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-24s "+format+"\n", append([]any{name}, args...)...)
	}
	line("workload", "%s at %s", r.Workload, r.Issuer)
	if r.Settings.IDTokenAlg != "" {
		line("ID token", "%s", r.Settings.IDTokenAlg)
	}
	line("in flight", "%d, for %.1f s after %.1f s", r.Settings.Concurrency, f.Seconds, r.Settings.Warmup)
	line("requests", "%s", grouped(f.Requests))
	line("requests/s", "%s", grouped(uint64(f.RequestsPerSecond)))
	line("p50 / p90 / p99 / max", "%.2f / %.2f / %.2f / %.2f ms", f.P50, f.P90, f.P99, f.Max)
	if f.ServerCPU != nil {
		line("server CPU", "%.2f s, %.4f s per 1,000 requests", *f.ServerCPU, *f.ServerCPUPer1000)
		line("server peak memory", "%.1f MB", *f.ServerPeakRSS)
	}
	if f.DatabaseCPUPer1000 != nil {
		line("database CPU", "%.4f s per 1,000 requests", *f.DatabaseCPUPer1000)
	}
	if f.LoadCPUPer1000 != nil {
		line("load's own CPU", "%.4f s per 1,000 requests", *f.LoadCPUPer1000)
	}
	if len(f.Errors) == 0 {
		line("errors", "none")
	}
	for _, kind := range slices.Sorted(maps.Keys(f.Errors)) {
		line("errors, "+kind, "%s, like %s", grouped(f.Errors[kind]), r.examples[kind])
	}
}

// save writes the report as JSON.
func (r *report) save(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// grouped writes a number with a comma between thousands.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func round(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64)
	if err != nil {
		return v
	}
	return r
}
