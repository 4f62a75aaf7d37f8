package deploy

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// nobody is the user in the images.
const nobody = 65532

// stages reads the Dockerfile as BuildKit does.
func stages() (all []instructions.Stage, complaints []string, err error) {
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		return nil, nil, err
	}
	file, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, nil, err
	}
	for _, w := range file.Warnings {
		complaints = append(complaints, w.Short)
	}
	all, _, err = instructions.Parse(file.AST, linter.New(&linter.Config{
		Warn: func(rule, _, _, message string, _ []parser.Range) {
			complaints = append(complaints, rule+": "+message)
		},
	}))
	return all, complaints, err
}

// commands returns the instructions of a kind in a stage.
func commands[C instructions.Command](stage instructions.Stage) (all []C) {
	for _, c := range stage.Commands {
		if c, ok := c.(C); ok {
			all = append(all, c)
		}
	}
	return all
}

// buildAsDockerfile runs the command of the Dockerfile that builds.
func buildAsDockerfile() error {
	all, _, err := stages()
	if err != nil {
		return err
	}
	runs := commands[*instructions.RunCommand](all[0])
	last := strings.Join(runs[len(runs)-1].CmdLine, " ")
	cmd := exec.Command("sh", "-ec", strings.ReplaceAll(last, "/out/", out+"/"))
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=auto") // Go's own default, as in the image
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", last, err)
	}
	return nil
}

// image is what a stage makes, its parents included.
type image struct {
	copies     []*instructions.CopyCommand
	env        []string
	user       string
	entrypoint []string
	cmd        []string
	health     []string
	volumes    []string
}

func imageOf(t *testing.T, target string) (i image) {
	t.Helper()
	all, complaints, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range complaints {
		t.Error(c)
	}
	var chain []instructions.Stage
	for name := target; name != "scratch"; {
		at := slices.IndexFunc(all, func(s instructions.Stage) bool { return s.Name == name })
		if at < 0 {
			t.Fatalf("%s is built on %s, not on nothing", target, name)
		}
		chain = append(chain, all[at])
		name = all[at].BaseName
	}
	slices.Reverse(chain)
	for _, stage := range chain {
		i.copies = append(i.copies, commands[*instructions.CopyCommand](stage)...)
		for _, c := range stage.Commands {
			switch c := c.(type) {
			case *instructions.EnvCommand:
				for _, kv := range c.Env {
					i.env = append(i.env, kv.Key+"="+kv.Value)
				}
			case *instructions.UserCommand:
				i.user = c.User
			case *instructions.EntrypointCommand:
				i.entrypoint = c.CmdLine
			case *instructions.CmdCommand:
				i.cmd = c.CmdLine
			case *instructions.VolumeCommand:
				i.volumes = append(i.volumes, c.Volumes...)
			case *instructions.HealthCheckCommand:
				i.health = c.Health.Test
			}
		}
	}
	return i
}

// unpack makes the image's root in a folder: what the first stage has from
// Debian and Go, and what it has built, and files of the repository.
func (i image) unpack(t *testing.T) string {
	t.Helper()
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "signet-image-") // a test's own is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range i.copies {
		for _, path := range c.SourcePaths {
			source := filepath.Join(root, path)
			if c.From == "build" {
				source = strings.NewReplacer("/out/", out+"/", "/usr/local/go", strings.TrimSpace(string(goroot))).Replace(path)
			}
			target := filepath.Join(dir, c.DestPath)
			if strings.HasSuffix(c.DestPath, "/") {
				target = filepath.Join(target, filepath.Base(path))
			}
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				t.Fatal(err)
			}
			if output, err := exec.CommandContext(t.Context(), "cp", "-r", source, target).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			if c.Chown != "" && os.Geteuid() == 0 {
				if output, err := exec.CommandContext(t.Context(), "chown", "-R", c.Chown, target).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, output)
				}
			}
		}
	}
	return dir
}

// inside returns a command that sees nothing but dir, as the image's user.
func (i image) inside(t *testing.T, dir string, command []string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = "/", slices.Concat(i.env, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	} else { // who may change the root in a user namespace of their own
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

func TestImages(t *testing.T) {
	for _, target := range []string{"signet", "orders", "storefront"} {
		t.Run(target, func(t *testing.T) {
			i := imageOf(t, target)
			if i.user != "65532:65532" {
				t.Errorf("it runs as %q", i.user)
			}
			if len(i.health) != 0 && i.health[0] != "CMD" || len(i.health) < 2 { // there is no shell
				t.Errorf("its health check is %q", i.health)
			}
			dir := i.unpack(t)
			for _, name := range []string{"signet", target} {
				program, err := elf.Open(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				defer program.Close()
				libraries, _ := program.ImportedLibraries()
				if len(libraries) > 0 || slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
					t.Errorf("%s is not static: it needs %q", name, libraries)
				}
			}
			for _, name := range []string{"LICENSE", "NOTICE"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
			pem, err := os.ReadFile(filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt"))
			if err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
				t.Errorf("root certificates: %v", err)
			}
			knowsFlags(t, i.health[2:], i.health[2])
		})
	}
	all, _, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	if last := all[len(all)-1].Name; last != "signet" {
		t.Errorf("without a target it makes %s", last)
	}
}

// The image's program starts in the image's root, as the image's user, with
// nothing to write to but its volume, and is found healthy by its own check.
func TestSignetInItsImage(t *testing.T) {
	i := imageOf(t, "signet")
	dir := i.unpack(t)
	var writable []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if os.Geteuid() == 0 && (stat.Uid == nobody || info.Mode().Perm()&0o002 != 0) {
			writable = append(writable, strings.TrimPrefix(path, dir))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && !slices.Equal(writable, i.volumes) {
		t.Errorf("its user may write to %q, and %q are volumes", writable, i.volumes)
	}

	s := begin(t, i.inside(t, dir, slices.Concat(i.entrypoint, i.cmd),
		"SIGNET_ISSUER=http://localhost:8080", "SIGNET_LISTEN=127.0.0.1:0", "SIGNET_ADMIN_LISTEN=127.0.0.1:0", "SIGNET_DRAIN=1s", "TZ=Asia/Tokyo")).ready()
	check := func() (string, error) {
		cmd := i.inside(t, dir, i.health[1:], "SIGNET_ADMIN_LISTEN="+s.admin)
		cmd.Args = append(cmd.Args, "--admin-listen", s.admin)
		said, err := cmd.CombinedOutput()
		return string(said), err
	}
	if said, err := check(); err != nil {
		t.Errorf("health: %v: %s", err, said)
	}
	if !strings.Contains(s.log.String(), "+09:00") {
		t.Errorf("its log does not know Tokyo's time:\n%s", s.log.String())
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d:\n%s", code, s.log.String())
	}
	if said, err := check(); err == nil {
		t.Errorf("healthy after its end: %s", said)
	}
}

// The binary tells which commit it was built from: .git is in the build's
// context, and so is every file that git keeps, or it would tell of changes.
func TestVersionIsStamped(t *testing.T) {
	head, err := exec.CommandContext(t.Context(), "git", "-C", root, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), signet(), "version", "--json").Output()
	var v struct{ Commit string }
	if err == nil {
		err = json.Unmarshal(said, &v)
	}
	if commit, _, _ := strings.Cut(v.Commit, "+"); err != nil || commit != strings.TrimSpace(string(head)) {
		t.Errorf("it says %s (%v), and the commit is %s", said, err, head)
	}

	patterns, err := ignorefile.ReadAll(strings.NewReader(read(t, ".dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(strings.Split(strings.TrimSuffix(string(kept), "\x00"), "\x00"), ".git/HEAD") {
		if match, err := ignored.MatchesOrParentMatches(path); err != nil || match {
			t.Errorf("%s is kept out of the build (%v)", path, err)
		}
		const most = 4 << 20 // a program that somebody built is larger
		if info, err := os.Stat(filepath.Join(root, path)); err == nil && info.Size() > most {
			t.Errorf("%s is kept by git and has %d bytes", path, info.Size())
		}
	}
	for _, path := range []string{"secrets/kek", "signet.db", "signet.db-wal", "bin/signet", "signet.exe"} {
		if match, err := ignored.MatchesOrParentMatches(path); err != nil || !match {
			t.Errorf("%s would be sent to the builder (%v)", path, err)
		}
	}
}

// The Dockerfile builds with the Go that go.mod asks for.
func TestGoVersion(t *testing.T) {
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	all, _, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	if base := all[0].BaseName; version == nil || base != "golang:"+version[1]+"-bookworm" {
		t.Errorf("the image is %s, the version %q", base, version)
	}
}
