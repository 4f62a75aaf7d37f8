package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5"
)

var (
	replicas = []string{"signet-1", "signet-2", "signet-3"}
	samples  = []string{"orders", "storefront"}
)

// compose reads docker-compose.yml as Compose does.
func compose(t *testing.T, env ...string) *types.Project {
	t.Helper()
	return composeWith(t, nil, env...)
}

// composeWith reads docker-compose.yml and more files, which change it.
func composeWith(t *testing.T, more []string, env ...string) *types.Project {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions(append([]string{path}, more...), cli.WithEnv(env), cli.WithProfiles([]string{"samples"}), cli.WithName("signet"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	p := compose(t, "SIGNET_DB_PASSWORD=correcthorse")
	want := slices.Concat([]string{"balancer", "migrate", "postgres"}, replicas, samples)
	slices.Sort(want)
	if got := p.ServiceNames(); !slices.Equal(got, want) {
		t.Fatalf("services %q", got)
	}
	for name, s := range p.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not confined", name)
		}
		if restart := s.Restart; restart != "unless-stopped" && name != "migrate" || name == "migrate" && restart != "no" {
			t.Errorf("%s restarts %q", name, restart)
		}
		if name != "balancer" && len(s.Ports) > 0 {
			t.Errorf("%s publishes ports", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("port %s is open to others", port.Published)
			}
		}
		_, atDatabase := s.Networks["data"]
		if reaches := name == "postgres" || name == "migrate" || slices.Contains(replicas, name); atDatabase != reaches {
			t.Errorf("%s is in the database's network: %v", name, atDatabase)
		}
		for _, secret := range s.Secrets {
			if p.Secrets[secret.Source].File == "" {
				t.Errorf("%s has a secret from nowhere: %s", name, secret.Source)
			}
		}
		if s.Build != nil {
			all, _, err := stages()
			if err != nil {
				t.Fatal(err)
			}
			target := s.Build.Target
			if target == "" {
				target = all[len(all)-1].Name
			}
			if wanted := map[string]string{"orders": "orders", "storefront": "storefront"}[name]; target != wanted && (wanted != "" || target != "signet") {
				t.Errorf("%s is the image %s", name, target)
			}
		}
	}
	if !p.Networks["data"].Internal {
		t.Error("the database's network leads outside")
	}

	// Each image is built by one service, and no service looks for one elsewhere.
	builders := map[string][]string{}
	for name, s := range p.Services {
		if s.Build != nil {
			builders[s.Image] = append(builders[s.Image], name)
		}
	}
	for name, s := range p.Services {
		if ours := strings.HasPrefix(s.Image, "signet"); ours != (len(builders[s.Image]) == 1) {
			t.Errorf("%s runs %s, which is built by %q", name, s.Image, builders[s.Image])
		} else if ours && s.Build == nil && s.PullPolicy != types.PullPolicyNever {
			t.Errorf("%s may pull %s", name, s.Image)
		}
	}

	// The replicas are alike, and wait for one migration.
	first := p.Services[replicas[0]]
	_, variables := settings(t, "serve")
	for _, name := range replicas {
		s := p.Services[name]
		s.Name = first.Name
		if a, b := asJSON(t, s), asJSON(t, first); a != b {
			t.Errorf("%s differs from %s", name, replicas[0])
		}
		if d := s.DependsOn["migrate"]; d.Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%s waits for the migration until it has %q", name, d.Condition)
		}
	}
	if d := p.Services["migrate"].DependsOn["postgres"]; d.Condition != types.ServiceConditionHealthy {
		t.Errorf("the migration waits until the database has %q", d.Condition)
	}
	if c := strings.Join(p.Services["migrate"].Command, " "); c != "migrate up" {
		t.Errorf("the migration is %q", c)
	}
	for _, name := range append(slices.Clone(replicas), "migrate") {
		for key, value := range p.Services[name].Environment {
			if !slices.Contains(variables, key) {
				t.Errorf("%s: signet has no %s", name, key)
			}
			if value == nil {
				t.Errorf("%s: %s comes from whoever starts it", name, key)
			}
		}
	}
	if first.StopGracePeriod == nil || *first.StopGracePeriod <= types.Duration(duration(t, *first.Environment["SIGNET_DRAIN"])) {
		t.Errorf("replicas are killed while they drain")
	}
	if file := *first.Environment["SIGNET_KEK_FILE"]; len(first.Secrets) != 1 || file != "/run/secrets/"+first.Secrets[0].Source {
		t.Errorf("the key-encryption key is in %q, the secrets are %v", file, first.Secrets)
	}
	if _, ok := p.Services["migrate"].Environment["SIGNET_KEK_FILE"]; ok || len(p.Services["migrate"].Secrets) > 0 {
		t.Error("the migration has the key-encryption key, which it does not need")
	}
	database, err := url.Parse(*first.Environment["SIGNET_DATABASE"])
	if err != nil {
		t.Fatal(err)
	}
	password, _ := database.User.Password()
	if pg := p.Services["postgres"].Environment; database.Host != "postgres:5432" || database.User.Username() != *pg["POSTGRES_USER"] ||
		password != *pg["POSTGRES_PASSWORD"] || database.Path != "/"+*pg["POSTGRES_USER"] {
		t.Error("the replicas' database is not the one that postgres makes")
	}

	// The issuer is the balancer, by the same name for browsers and samples.
	balancer := p.Services["balancer"]
	issuer, err := url.Parse(*first.Environment["SIGNET_ISSUER"])
	if err != nil {
		t.Fatal(err)
	}
	config := read(t, "docs/deploy/haproxy.cfg")
	if !strings.Contains(config, "\n    bind :"+issuer.Port()+"\n") {
		t.Errorf("nothing listens on the issuer's port %s", issuer.Port())
	}
	for _, name := range samples {
		if mode := p.Services[name].NetworkMode; mode != "service:balancer" {
			t.Errorf("%s is in the network %q", name, mode)
		}
		if c := p.Services[name].Command; c[slices.Index(c, "--issuer")+1] != issuer.String() {
			t.Errorf("%s has the issuer %q", name, c)
		}
	}
	for _, port := range []string{issuer.Port(), "8090", "8100"} {
		if !slices.ContainsFunc(balancer.Ports, func(p types.ServicePortConfig) bool { return p.Published == port && fmt.Sprint(p.Target) == port }) {
			t.Errorf("browsers do not reach port %s", port)
		}
	}
	for _, name := range replicas {
		if !strings.Contains(config, fmt.Sprintf("\n    server %[1]s %[1]s:8080\n", name)) {
			t.Errorf("the balancer does not know %s", name)
		}
		if d := balancer.DependsOn[name]; d.Condition != types.ServiceConditionHealthy {
			t.Errorf("the balancer starts before %s is ready", name)
		}
	}
	// Nobody but the balancer is believed about where a request came from.
	address := balancer.Networks["front"].Ipv4Address
	if trusted := *first.Environment["SIGNET_TRUSTED_PROXY"]; trusted != address+"/32" {
		t.Errorf("trusted is %s, and the balancer is %s", trusted, address)
	}
	subnet, err := netip.ParsePrefix(p.Networks["front"].Ipam.Config[0].Subnet)
	if err != nil || !subnet.Contains(netip.MustParseAddr(address)) {
		t.Errorf("%s is not in %s (%v)", address, subnet, err)
	}
	// Each container is found healthy by something that is in it.
	if test := p.Services["balancer"].HealthCheck.Test; test[len(test)-1] != "http://127.0.0.1:8404/healthz" || !strings.Contains(config, "\n    bind :8404\n") || !strings.Contains(config, "monitor-uri /healthz") {
		t.Errorf("the balancer's health check is %q", test)
	}
	for _, name := range slices.Concat(replicas, samples) {
		if p.Services[name].HealthCheck != nil {
			t.Errorf("%s does not use its image's health check", name)
		}
	}
}

// What docs/deploying.md adds for Prometheus reaches the replicas' admin
// listeners, and their health checks still do.
func TestComposeMetrics(t *testing.T) {
	text := read(t, "docs/deploying.md")
	_, text, found := strings.Cut(text, "\n    # docker-compose.override.yml\n")
	text, _, ended := strings.Cut(text, "\n\n")
	if !found || !ended {
		t.Fatal("docs/deploying.md has no docker-compose.override.yml")
	}
	path := filepath.Join(t.TempDir(), "docker-compose.override.yml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll("\n"+text+"\n", "\n    ", "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	p := composeWith(t, []string{path}, "SIGNET_DB_PASSWORD=correcthorse")
	prometheus, ok := p.Services["prometheus"]
	if _, there := prometheus.Networks["data"]; !ok || !there || len(prometheus.Networks) != 1 || len(prometheus.Ports) > 0 {
		t.Errorf("Prometheus is in %v", prometheus.Networks)
	}
	for _, name := range replicas {
		address := p.Services[name].Environment["SIGNET_ADMIN_LISTEN"]
		if address == nil || *address != ":8081" {
			t.Fatalf("%s has its admin listener elsewhere", name)
		}
	}
	s := begin(t, func() *exec.Cmd {
		cmd := exec.Command(signet(), "serve", "--listen", "127.0.0.1:0", "--issuer", "http://localhost:8080", "--data", t.TempDir())
		cmd.Env = []string{"SIGNET_ADMIN_LISTEN=:" + freePort(t)}
		return cmd
	}()).ready()
	check := exec.Command(signet(), "health")
	check.Env = s.Env
	if said, err := check.CombinedOutput(); err != nil {
		t.Errorf("with the admin listener everywhere: %v: %s", err, said)
	}
}

// The commands in docs/deploying.md that start signet in a container of its own
// are ones that it knows.
func TestDockerCommands(t *testing.T) {
	runs := regexp.MustCompile(`(?m)^ +docker run .* signet serve (.+)$`).FindAllStringSubmatch(strings.ReplaceAll(read(t, "docs/deploying.md"), "\\\n", " "), -1)
	if len(runs) < 2 {
		t.Fatalf("only %q", runs)
	}
	apart := 0
	for _, run := range runs {
		words := strings.Fields(run[1])
		knowsFlags(t, words, "serve")
		if i := slices.Index(words, "--kek-file"); i >= 0 && strings.Contains(run[0], ":"+words[i+1]+":ro") {
			apart++
		}
	}
	if apart == 0 {
		t.Error("nowhere is the key kept apart from the database")
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The topology of docker-compose.yml runs as processes: its commands with its
// environment, its balancer with its configuration and the commands with which
// docs/deploying.md registers the samples. Only addresses and paths differ.
func TestComposeAsProcesses(t *testing.T) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		haproxy = "/usr/sbin/haproxy" // which Debian keeps from ordinary users' PATH
	}
	dir := t.TempDir()
	login, orders, shop, state := freePort(t), freePort(t), freePort(t), freePort(t)
	issuer := "http://localhost:" + login
	project := compose(t, "SIGNET_DB_PASSWORD=correcthorse", "SIGNET_ISSUER="+issuer)
	database := emptyDatabase(t)
	put := strings.NewReplacer(
		"postgres://signet:correcthorse@postgres:5432/signet", database,
		"/run/secrets/", dir+"/",
		project.Services["balancer"].Networks["front"].Ipv4Address+"/32", "127.0.0.1/32",
		"0.0.0.0:8090", "127.0.0.1:"+orders, "127.0.0.1:8090", "127.0.0.1:"+orders,
		"0.0.0.0:8100", "127.0.0.1:"+shop, "127.0.0.1:8100", "127.0.0.1:"+shop,
	)
	if err := os.WriteFile(filepath.Join(dir, "kek"), []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), 0o600); err != nil {
		t.Fatal(err)
	}
	// command is what a service runs, in its image's environment and its own.
	command := func(name string, args ...string) *exec.Cmd {
		s := project.Services[name]
		target := "signet"
		if s.Build != nil && s.Build.Target != "" {
			target = s.Build.Target
		}
		i := imageOf(t, target)
		if len(args) == 0 {
			args = s.Command
		}
		if len(args) == 0 {
			args = i.cmd
		}
		cmd := exec.Command(filepath.Join(out, filepath.Base(i.entrypoint[0])))
		for _, arg := range args {
			cmd.Args = append(cmd.Args, put.Replace(arg))
		}
		cmd.Dir, cmd.Env = dir, i.env
		for key, value := range s.Environment {
			cmd.Env = append(cmd.Env, key+"="+put.Replace(*value))
		}
		return cmd
	}

	if said, err := command("migrate").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v: %s", err, said)
	}
	config := read(t, "docs/deploy/haproxy.cfg")
	var servers []*process
	for _, name := range replicas { // all at once
		cmd := command(name)
		cmd.Env = append(cmd.Env, "SIGNET_LISTEN=127.0.0.1:0", "SIGNET_ADMIN_LISTEN=127.0.0.1:0")
		servers = append(servers, begin(t, cmd))
	}
	for i, s := range servers {
		s.ready()
		config = strings.ReplaceAll(config, replicas[i]+":8080", s.listen)
		if said, err := command(replicas[i], "health", "--admin-listen", s.admin).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", replicas[i], err, said)
		}
	}
	config = strings.NewReplacer("bind :8080", "bind 127.0.0.1:"+login, "bind :8404", "bind 127.0.0.1:"+state).Replace(config)
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	balancer := begin(t, exec.Command(haproxy, "-db", "-f", filepath.Join(dir, "haproxy.cfg")))
	go func() { // its log is on standard output
		buffer := make([]byte, 4096)
		for n, err := 0, error(nil); err == nil; n, err = balancer.out.Read(buffer) {
			_, _ = balancer.log.Write(buffer[:n])
		}
	}()
	until(t, "the balancer is healthy", func() bool { return status("http://127.0.0.1:"+state+"/healthz") == http.StatusOK })
	until(t, "it answers for the issuer", func() bool { return status(issuer+"/.well-known/openid-configuration") == http.StatusOK })

	for _, line := range registrations(t) {
		said, err := command(replicas[0], line...).Output()
		if err != nil {
			t.Fatalf("signet %q: %v", line, err)
		}
		if slices.Contains(line, "storefront") {
			var client struct {
				Secret string `json:"client_secret"`
			}
			if err := json.Unmarshal(said, &client); err != nil || client.Secret == "" {
				t.Fatalf("no secret: %v: %s", err, said)
			}
			if err := os.WriteFile(filepath.Join(dir, "storefront"), []byte(client.Secret), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range samples {
		cmd := command(name)
		if name == "orders" {
			cmd.Args = append(cmd.Args, "--data", dir) // its image's working directory
		}
		begin(t, cmd).ready()
		health := imageOf(t, name).health
		check := exec.Command(signet(), strings.Split(put.Replace(strings.Join(health[2:], "\n")), "\n")...)
		until(t, name+" is healthy", func() bool { return exec.Command(check.Path, check.Args[1:]...).Run() == nil })
	}

	// The shop sends people to the issuer, and the balancer answers there.
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := http.Client{Jar: jar, Timeout: patience}
	res, err := browser.Get("http://127.0.0.1:" + shop + "/signin")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if at := res.Request.URL.String(); res.StatusCode != http.StatusOK || !strings.HasPrefix(at, issuer+"/login?") {
		t.Errorf("who wants to sign in gets %d at %s", res.StatusCode, at)
	}

	// Every replica serves, and goes without a request being lost.
	for range 30 {
		if got := status(issuer + "/jwks"); got != http.StatusOK {
			t.Errorf("with three replicas: %d", got)
		}
	}
	for _, name := range replicas {
		until(t, name+" has answered", func() bool { return strings.Contains(balancer.log.String(), "GET /jwks 200 "+name+" ") })
	}
	servers[0].signal(syscall.SIGKILL)
	<-servers[0].ended
	for range 30 {
		if got := status(issuer + "/jwks"); got != http.StatusOK {
			t.Errorf("with two replicas: %d", got)
		}
	}
	if log := balancer.log.String(); regexp.MustCompile(`state=|code_challenge`).MatchString(log) {
		t.Errorf("the balancer's log has what is between the shop and the issuer:\n%s", log)
	}
}

// registrations returns the commands of docs/deploying.md that register the
// samples, each without what runs it in a container.
func registrations(t *testing.T) (lines [][]string) {
	t.Helper()
	text := strings.ReplaceAll(read(t, "docs/deploying.md"), "\\\n", " ")
	for _, m := range regexp.MustCompile(`(?m)^ +docker compose exec signet-1 /signet ([^|>\n]+)`).FindAllStringSubmatch(text, -1) {
		words, err := exec.CommandContext(t.Context(), "sh", "-c", "printf '%s\\n' "+m[1]).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(string(words), "\n"), "\n"))
	}
	if len(lines) < 3 {
		t.Fatalf("only %q", lines)
	}
	return lines
}

// emptyDatabase returns the URL of a new database on the server that
// SIGNET_TEST_POSTGRES names.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	server, err := url.Parse(os.Getenv("SIGNET_TEST_POSTGRES"))
	if err != nil || server.Scheme == "" {
		t.Fatalf("no PostgreSQL: run this with `go run ./storage/storagetest/pg -nosync -- go test -C .ci/deploy ./...` (%v)", err)
	}
	admin, err := pgx.Connect(t.Context(), server.String())
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("deploy_%d", os.Getpid())
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
		_ = admin.Close(ctx)
	})
	server.Path = "/" + name
	return server.String()
}
