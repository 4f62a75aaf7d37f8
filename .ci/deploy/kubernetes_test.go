package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
	yamldecoder "sigs.k8s.io/yaml"
)

// manifests is everything in docs/deploy/kubernetes.
type manifests struct {
	job        batchv1.Job
	deployment appsv1.Deployment
	service    corev1.Service // of requests
	admin      corev1.Service // of figures
	budget     policyv1.PodDisruptionBudget
	policy     networkingv1.NetworkPolicy
}

// kubernetes decodes the manifests into Kubernetes' own types. What these do
// not have is an error, and so is a member that is there twice.
func kubernetes(t *testing.T) (m manifests) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs/deploy/kubernetes/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(b)))
		for buffer := make([]byte, 64<<10); ; {
			n, err := documents.Read(buffer)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var is struct {
				APIVersion, Kind string
				Metadata         struct{ Name string }
			}
			if err := yamldecoder.Unmarshal(buffer[:n], &is); err != nil {
				t.Fatal(err)
			}
			name := is.APIVersion + " " + is.Kind
			if is.Kind == "Service" {
				name += " " + is.Metadata.Name
			}
			found[name]++
			into, ok := map[string]any{
				"batch/v1 Job":                       &m.job,
				"apps/v1 Deployment":                 &m.deployment,
				"v1 Service signet":                  &m.service,
				"v1 Service signet-admin":            &m.admin,
				"policy/v1 PodDisruptionBudget":      &m.budget,
				"networking.k8s.io/v1 NetworkPolicy": &m.policy,
			}[name]
			if !ok {
				t.Fatalf("%s: what is a %s?", file, name)
			}
			if err := yamldecoder.UnmarshalStrict(buffer[:n], into); err != nil {
				t.Fatalf("%s: %s: %v", file, name, err)
			}
		}
	}
	for name, n := range found {
		if n != 1 {
			t.Fatalf("%d of %s", n, name)
		}
	}
	if len(found) != 6 {
		t.Fatalf("there are only: %v", slices.Sorted(maps.Keys(found)))
	}
	return m
}

func TestKubernetes(t *testing.T) {
	m := kubernetes(t)
	spec := m.deployment.Spec
	pod := labels.Set(spec.Template.Labels)

	// Everything that means the replicas means them, and not the migration.
	for name, selector := range map[string]map[string]string{
		"Deployment":          spec.Selector.MatchLabels,
		"Service":             m.service.Spec.Selector,
		"Service for figures": m.admin.Spec.Selector,
		"PodDisruptionBudget": m.budget.Spec.Selector.MatchLabels,
		"NetworkPolicy":       m.policy.Spec.PodSelector.MatchLabels,
		"first spread":        spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
		"second spread":       spec.Template.Spec.TopologySpreadConstraints[1].LabelSelector.MatchLabels,
	} {
		s := labels.SelectorFromSet(selector)
		if s.Empty() || !s.Matches(pod) || s.Matches(labels.Set(m.job.Spec.Template.Labels)) {
			t.Errorf("the selector of the %s is %v, the pods' labels are %v", name, selector, pod)
		}
	}

	// A rolling update never has fewer than three, and nodes are emptied one at a time.
	rolling := spec.Strategy.RollingUpdate
	if *spec.Replicas != 3 || rolling.MaxUnavailable.String() != "0" || rolling.MaxSurge.String() != "1" || m.budget.Spec.MaxUnavailable.String() != "1" {
		t.Errorf("%d replicas, %+v, budget %v", *spec.Replicas, rolling, m.budget.Spec.MaxUnavailable)
	}

	for name, template := range map[string]corev1.PodSpec{"Deployment": spec.Template.Spec, "Job": m.job.Spec.Template.Spec} {
		c := template.Containers[0]
		may, user := c.SecurityContext, template.SecurityContext
		if *template.AutomountServiceAccountToken || !*user.RunAsNonRoot || *user.RunAsUser != nobody || user.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
			*may.AllowPrivilegeEscalation || !*may.ReadOnlyRootFilesystem || !slices.Equal(may.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(may.Capabilities.Add) > 0 {
			t.Errorf("the pods of the %s are not confined", name)
		}
		_, variables := settings(t, c.Args...)
		for _, e := range c.Env {
			if !slices.Contains(variables, e.Name) {
				t.Errorf("%s: signet has no %s", name, e.Name)
			}
			if e.ValueFrom == nil {
				continue
			}
			if key := e.ValueFrom.SecretKeyRef; key.Name != "signet" || key.Key != "database" {
				t.Errorf("%s: %s is from %v", name, e.Name, key)
			}
		}
		if c.Image != spec.Template.Spec.Containers[0].Image {
			t.Errorf("the %s runs %s", name, c.Image)
		}
	}
	if strings.Join(m.job.Spec.Template.Spec.Containers[0].Args, " ") != "migrate up" {
		t.Errorf("the job runs %q", m.job.Spec.Template.Spec.Containers[0].Args)
	}

	// It is neither killed while it drains, nor gone before it is known to go.
	drain := duration(t, environment(m)["SIGNET_DRAIN"])
	if grace := *spec.Template.Spec.TerminationGracePeriodSeconds; float64(grace) <= drain.Seconds() {
		t.Errorf("it is killed after %d s, and drains for %s", grace, drain)
	}
	c := spec.Template.Spec.Containers[0]
	if r := c.ReadinessProbe; float64(r.PeriodSeconds*r.FailureThreshold+r.TimeoutSeconds) >= drain.Seconds()/3 {
		t.Errorf("that it drains is known after %d probes every %d s, and it answers for %s more", r.FailureThreshold, r.PeriodSeconds, drain/3)
	}

	// The key is where it is looked for, from the secret that the document makes.
	volume, mount := spec.Template.Spec.Volumes[0], c.VolumeMounts[0]
	if want := mount.MountPath + "/" + volume.Secret.Items[0].Path; environment(m)["SIGNET_KEK_FILE"] != want || volume.Name != mount.Name || volume.Secret.SecretName != "signet" {
		t.Errorf("the key is at %s", want)
	}
	document := read(t, "docs/deploying.md")
	for _, key := range []string{"database", volume.Secret.Items[0].Key} {
		if !strings.Contains(document, "--from-file="+key+"=") {
			t.Errorf("nobody makes the secret's %s", key)
		}
	}
	if strings.Contains(document, "--from-literal") {
		t.Error("secrets are on a command line, and so in the shell's history")
	}

	// Ports meet: of the Service, the policy and the probes.
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	if env := environment(m); ports["http"] != env["SIGNET_LISTEN"] || ports["admin"] != env["SIGNET_ADMIN_LISTEN"] {
		t.Errorf("ports %v", ports)
	}
	if to := m.service.Spec.Ports; len(to) != 1 || to[0].TargetPort.String() != "http" {
		t.Errorf("the Service leads to %v", to)
	}
	if to := m.admin.Spec.Ports; len(to) != 1 || to[0].TargetPort.String() != "admin" || m.admin.Spec.ClusterIP != corev1.ClusterIPNone || !m.admin.Spec.PublishNotReadyAddresses {
		t.Errorf("the Service for figures is %+v", m.admin.Spec)
	}
	// The alerts' job is the label that docs/deploying.md makes the job of.
	if m.admin.Labels["app.kubernetes.io/name"] != "signet" || !strings.Contains(document, "jobLabel: app.kubernetes.io/name") ||
		!strings.Contains(document, "app.kubernetes.io/component: "+m.admin.Labels["app.kubernetes.io/component"]) ||
		!strings.Contains(read(t, "docs/deploy/prometheus/alerts.yml"), `up{job="signet"}`) {
		t.Errorf("the alerts do not see what is scraped by the labels %v", m.admin.Labels)
	}
	for _, rule := range m.policy.Spec.Ingress {
		if len(rule.From) == 0 || len(rule.Ports) != 1 || ports[rule.Ports[0].Port.String()] == "" {
			t.Errorf("the policy lets in %+v", rule)
		}
	}
}

// environment returns the settings in the Deployment that are not secret.
func environment(m manifests) map[string]string {
	env := map[string]string{}
	for _, e := range m.deployment.Spec.Template.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	return env
}

// The container's command starts with the Deployment's settings, reads a key
// with the owner and mode of a secret volume, and answers where the probes ask.
func TestDeploymentAsProcess(t *testing.T) {
	m := kubernetes(t)
	pod := m.deployment.Spec.Template.Spec
	dir, err := os.MkdirTemp("", "signet-pod-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	kek := filepath.Join(dir, "kek")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(kek, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), 0o400)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(signet(), pod.Containers[0].Args...)
	cmd.Dir = dir
	if os.Geteuid() == 0 {
		mode := os.FileMode(*pod.Volumes[0].Secret.DefaultMode)
		if err := errors.Join(os.Chown(kek, 0, int(*pod.SecurityContext.FSGroup)), os.Chmod(kek, mode)); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(*pod.SecurityContext.RunAsUser), Gid: uint32(*pod.SecurityContext.RunAsGroup)}}
	}
	env := environment(m)
	env["SIGNET_KEK_FILE"], env["SIGNET_DATABASE"], env["SIGNET_MIGRATE"] = kek, emptyDatabase(t), "true"
	env["SIGNET_LISTEN"], env["SIGNET_ADMIN_LISTEN"] = "127.0.0.1:0", "127.0.0.1:0"
	for key, value := range env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	s := begin(t, cmd).ready()
	c := pod.Containers[0]
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if probe.HTTPGet.Port.String() != "admin" {
			t.Errorf("%s is asked of %s", probe.HTTPGet.Path, probe.HTTPGet.Port.String())
		}
		if got := status("http://" + s.admin + probe.HTTPGet.Path); got != http.StatusOK {
			t.Errorf("%s answers %d", probe.HTTPGet.Path, got)
		}
	}
	// Operators' commands find database and key by the pod's settings.
	operate := func(args ...string) string {
		cmd := exec.Command(signet(), args...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = s.Dir, s.Env, s.SysProcAttr
		said, _ := cmd.CombinedOutput() // the doctor finds nobody at login.example.com
		return string(said)
	}
	if said := operate("audit", "list", "--json"); !strings.HasPrefix(said, "{") {
		t.Errorf("audit list: %s", said)
	}
	said := operate("doctor")
	for _, want := range []string{"database", "schema", "kek"} {
		if !regexp.MustCompile(`(?m)^ok +` + want + ` `).MatchString(said) {
			t.Errorf("the doctor does not find the %s well:\n%s", want, said)
		}
	}
	s.signal(syscall.SIGTERM)
	until(t, "it is unready", func() bool {
		return status("http://"+s.admin+c.ReadinessProbe.HTTPGet.Path) == http.StatusServiceUnavailable
	})
	if got := status("http://" + s.admin + c.LivenessProbe.HTTPGet.Path); got != http.StatusOK {
		t.Errorf("while it drains, %s answers %d", c.LivenessProbe.HTTPGet.Path, got)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d:\n%s", code, s.log.String())
	}
}
