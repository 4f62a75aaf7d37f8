package proof

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/signet-oidc/signet/conformance/internal/people"
)

// What operators are given to watch a server with.
const (
	prometheusDir = "../../docs/deploy/prometheus"
	dashboardFile = "../../docs/deploy/grafana/signet.json"
	observingFile = "../../docs/observing.md"
)

// promtool runs Prometheus's own tool; .ci/deps has brought it.
func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		program = "../../.cache/promtool"
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v; .ci/deps installs it\n%s", strings.Join(args, " "), err, out)
	}
}

// alerts returns the expression of each alert by its name.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      struct{ Severity string }
				Annotations struct{ Summary, Runbook string }
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(prometheusDir, "alerts.yml"))
	must(t, err)
	must(t, yaml.Unmarshal(b, &file))
	all := make(map[string]string)
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Annotations.Summary == "" || r.Annotations.Runbook == "" || !slices.Contains([]string{"page", "ticket"}, r.Labels.Severity) {
				t.Errorf("an alert has to say what it is, how bad, and what to do: %+v", r)
			}
			all[r.Alert] = r.Expr
		}
	}
	return all
}

// dashboard returns each expression of the dashboard, by the panel's title and
// a number, with the values that Grafana fills in.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	type target struct {
		Expr       string
		Datasource struct{ UID string }
	}
	var d struct {
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ H, W, X, Y int }
			Targets     []target
		}
		Annotations struct {
			List []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
	}
	b, err := os.ReadFile(dashboardFile)
	must(t, err)
	must(t, json.Unmarshal(b, &d))
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if !slices.Equal(variables, []string{"datasource", "job", "instance"}) || d.Templating.List[0].Type != "datasource" {
		t.Errorf("variables: %v", variables)
	}
	all := make(map[string]string)
	add := func(title, expr string) {
		filled := strings.NewReplacer("$__rate_interval", "1m", "$job", "signet", "$instance", ".*").Replace(expr)
		if strings.Contains(filled, "$") {
			t.Errorf("%s: unknown variable in %s", title, expr)
		}
		all[title] = filled
	}
	taken := make(map[[2]int]string)
	for _, p := range d.Panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q is not beside %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for i, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q is tied to the data source %q", p.Title, target.Datasource.UID)
			}
			add(fmt.Sprintf("%s %d", p.Title, i), target.Expr)
		}
	}
	for i, a := range d.Annotations.List {
		if a.Expr != "" {
			add(fmt.Sprintf("annotation %d", i), a.Expr)
		}
	}
	return all
}

// The alerts fire when they should, as promtool plays it through, and are few.
func TestAlerts(t *testing.T) {
	t.Parallel()
	all := alerts(t)
	if len(all) == 0 || len(all) > 10 {
		t.Errorf("%d alerts: nobody reads more than ten", len(all))
	}
	played, err := os.ReadFile(filepath.Join(prometheusDir, "alerts_test.yml"))
	must(t, err)
	for name := range all {
		if n := strings.Count(string(played), name); n < 2 {
			t.Errorf("%s is not played through both when all is well and when it is not", name)
		}
	}
	promtool(t, "", "check", "config", filepath.Join(prometheusDir, "prometheus.yml")) // and the rules it names
	promtool(t, "", "test", "rules", filepath.Join(prometheusDir, "alerts_test.yml"))
}

// Prometheus can read each expression of the dashboard.
func TestDashboard(t *testing.T) {
	t.Parallel()
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, expr := range dashboard(t) {
		rules = append(rules, rule{fmt.Sprintf("x:%d", len(rules)), expr})
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	b, err := yaml.Marshal(map[string]any{"groups": []map[string]any{{"name": "dashboard", "rules": rules}}})
	must(t, err)
	must(t, os.WriteFile(file, b, 0o600))
	promtool(t, "", "check", "rules", file)
}

// scrape returns a server's metrics as Prometheus gets them.
func (s *server) scrape() string {
	s.d.t.Helper()
	res, err := http.Get("http://" + s.admin + "/metrics")
	must(s.d.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(s.d.t, err)
	return string(b)
}

// series returns what was scraped: names of series, each with its labels.
func series(scraped string) map[string]map[string]string {
	all := make(map[string]map[string]string)
	for line := range strings.Lines(scraped) {
		if m := seriesLine.FindStringSubmatch(line); m != nil {
			if all[m[1]] == nil {
				all[m[1]] = make(map[string]string)
			}
			for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
				all[m[1]][pair[1]] = pair[2]
			}
		}
	}
	return all
}

var (
	seriesLine = regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? `)
	labelPair  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
	metricName = regexp.MustCompile(`\b(?:signet|process|go)_[a-z_]+\b`)
	selector   = regexp.MustCompile(`\b((?:signet|process|go)_[a-z_]+)\{([^}]*)\}`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	family     = regexp.MustCompile(`(?m)^# TYPE (signet_[a-z_]+) `)
	documented = regexp.MustCompile("(?m)^\\| `(signet_[a-z_]+)`")
)

// Alerts and dashboard ask for what a running server tells, by labels it has;
// and the documentation has all of it, and nothing else.
func TestFigures(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *deployment) {
		s := d.start(1)[0]
		shop := d.app("shop", "--grant", "client_credentials")
		if r := shop.answer(shop.Post("/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})); r.Status != http.StatusOK {
			t.Fatalf("%s", r)
		}
		scraped := s.scrape()
		promtool(t, scraped, "check", "metrics")
		told := series(scraped)
		asked := alerts(t)
		for title, expr := range dashboard(t) {
			asked["panel "+title] = expr
		}
		for who, expr := range asked {
			names := metricName.FindAllString(expr, -1)
			for _, name := range names {
				if told[name] == nil {
					t.Errorf("%s asks for %s, which no server tells", who, name)
				}
			}
			if len(names) == 0 && !strings.Contains(expr, "up{") {
				t.Errorf("%s asks for nothing of ours: %s", who, expr)
			}
			has := func(name, label string) bool {
				_, ok := told[name][label]
				return ok || label == "job" || label == "instance" // Prometheus's own
			}
			for _, m := range selector.FindAllStringSubmatch(expr, -1) {
				for _, pair := range regexp.MustCompile(`([a-z_]+)[=!]`).FindAllStringSubmatch(m[2], -1) {
					if !has(m[1], pair[1]) {
						t.Errorf("%s asks for %s by the label %s, which it has not", who, m[1], pair[1])
					}
				}
			}
			for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(m[1], ",") {
					if !slices.ContainsFunc(names, func(name string) bool { return has(name, strings.TrimSpace(label)) }) {
						t.Errorf("%s groups by %s, which nothing has: %s", who, label, expr)
					}
				}
			}
		}

		text, err := os.ReadFile(observingFile)
		must(t, err)
		var families, rows []string
		for _, m := range family.FindAllStringSubmatch(scraped, -1) {
			families = append(families, m[1])
		}
		for _, m := range documented.FindAllStringSubmatch(string(text), -1) {
			rows = append(rows, m[1])
		}
		slices.Sort(families)
		slices.Sort(rows)
		if !slices.Equal(families, rows) {
			t.Errorf("the server tells\n%s\nthe documentation has\n%s", strings.Join(families, "\n"), strings.Join(rows, "\n"))
		}
	})
}

// However inventive strangers are, they make no series: what they send is no
// label, or the metrics would grow until somebody runs out of memory.
func TestStrangersMakeNoSeries(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, onSQLite)
	s := d.start(1)[0]
	provoke := func(word string) {
		for _, path := range []string{"/" + word, "/token", "/authorize", "/statuslists/" + word, "/revocations/" + word, "/login/" + word, "/introspect", "/revoke", "/userinfo", "/jwks", "/logout"} {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete, strings.ToUpper(word)} {
				form := url.Values{"grant_type": {word}, "client_id": {word}, "client_secret": {word}, "scope": {word}, "error": {word},
					"response_type": {word}, "token": {word}, "code": {word}, "login": {word}, "password": {word}}
				_, err := people.Send(d.to(s), method, d.issuer+path+"?error="+word, form, "Host", word, "Origin", "https://"+word+".example", "User-Agent", word)
				must(t, err)
				for _, known := range []string{"authorization_code", "refresh_token", "client_credentials"} {
					form.Set("grant_type", known)
					_, err := people.Send(d.to(s), method, d.issuer+path, form)
					must(t, err)
				}
			}
		}
	}
	values := func() map[string]bool {
		all := make(map[string]bool)
		for line := range strings.Lines(s.scrape()) {
			for _, pair := range labelPair.FindAllStringSubmatch(line, -1) {
				all[pair[1]+"="+pair[2]] = true
			}
		}
		return all
	}
	provoke("kestrel")
	before := values()
	provoke("osprey")
	for value := range values() {
		if !before[value] && !regexp.MustCompile(`^status=[1-5]\d\d$`).MatchString(value) {
			t.Errorf("another word made the label %s", value)
		}
	}
	for value := range before {
		if strings.Contains(strings.ToLower(value), "kestrel") {
			t.Errorf("a stranger's word is a label: %s", value)
		}
	}
	if len(before) < 50 {
		t.Errorf("only %d values of labels", len(before))
	}
}
