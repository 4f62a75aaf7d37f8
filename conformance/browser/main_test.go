package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/signet-oidc/signet/storage/storagetest"
)

// soon is how long a page may take: milliseconds on an idle machine, on a busy
// one long.
const soon = 60 * time.Second

// What TestMain has prepared.
var (
	binaries string          // the folder with signet, orders and storefront
	chromium context.Context // a browser without tabs
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(prepare(func() int { return storagetest.Main(m) }))
}

func prepare(run func() int) int {
	dir, err := os.MkdirTemp("", "signet-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/signet", "../../cmd/orders", "../../cmd/storefront")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	binaries = dir
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(dir, "profile")))
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			options = append(options, chromedp.ExecPath(path))
			break
		}
	}
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // the sandbox is not for root
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	var cancel context.CancelFunc
	chromium, cancel = chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(chromium); err != nil {
		fmt.Fprintln(os.Stderr, "chromium does not start; .ci/deps installs it:", err)
		return 1
	}
	return run()
}

// A tab is a browser of its own: it shares no cookie with another tab.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func newTab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{t, ctx}
	if err := chromedp.Do(ctx); err != nil { // opens it, without a deadline
		t.Fatal(err)
	}
	return b
}

// do runs an action that is over soon, or shows where the browser was.
func do[T any](b *tab, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, soon)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		ctx, cancel := context.WithTimeout(b.ctx, soon)
		defer cancel()
		at, _ := chromedp.Run(ctx, chromedp.Location())
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText : ''"))
		b.t.Fatalf("%s: %v\nat %s:\n%s", what, err, at, text)
	}
	return v
}

func (b *tab) open(url string) *tab {
	b.t.Helper()
	do(b, "open "+url, chromedp.Navigate(url))
	return b
}

// sees waits until the page has these elements, by id, to be seen.
func (b *tab) sees(ids ...string) *tab {
	b.t.Helper()
	for _, id := range ids {
		do(b, "see #"+id, chromedp.WaitVisible(chromedp.ID(id)))
	}
	return b
}

func (b *tab) click(id string) *tab {
	b.t.Helper()
	do(b, "click #"+id, chromedp.Click(chromedp.ID(id), chromedp.NodeVisible))
	return b
}

func (b *tab) types(id, text string) *tab {
	b.t.Helper()
	do(b, "type into #"+id, chromedp.SendKeys(chromedp.ID(id), text, chromedp.NodeVisible))
	return b
}

// reads checks that the words in an element have these among them.
func (b *tab) reads(id, words string) *tab {
	b.t.Helper()
	if text := do(b, "read #"+id, chromedp.Text(chromedp.ID(id), chromedp.NodeVisible)); !strings.Contains(text, words) {
		b.t.Fatalf("#%s says %q, want %q", id, text, words)
	}
	return b
}

func (b *tab) has(id string) bool {
	b.t.Helper()
	return do(b, "look for #"+id, chromedp.Evaluate[bool](fmt.Sprintf("document.getElementById(%q) !== null", id)))
}

func (b *tab) address() string {
	b.t.Helper()
	return do(b, "address", chromedp.Location())
}

func (b *tab) withoutScripts() *tab {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// theme makes the browser prefer "light" or "dark".
func (b *tab) theme(name string) *tab {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// program is one of ours, running until the test ends.
type program struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr lockedBuffer
}

// lockedBuffer collects what a program writes while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts a program, which ends with the test, and reads the line it says
// that it is ready with.
func start(t *testing.T, ready any, env []string, name string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(filepath.Join(binaries, name), args...)}
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), env...), &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(out)
	t.Cleanup(func() {
		if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, p.stderr.String())
		}
	})
	line, err := p.stdout.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, ready)
	}
	if err != nil {
		t.Fatalf("%s: %v: %s\n%s", name, err, line, p.stderr.String())
	}
	return p
}

// demo is what `signet demo --json` prints.
type demo struct {
	Issuer        string
	StorefrontURL string `json:"storefront_url"`
	OrdersURL     string `json:"orders_url"`
	User          struct{ Username, Password string }
	Database      string
}

func startDemo(t *testing.T, args ...string) (d demo) {
	t.Helper()
	start(t, &d, nil, "signet", append([]string{"demo", "--port", "0", "--json"}, args...)...)
	return d
}
