package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// commandPackage is the path of the command's package from the root.
const commandPackage = "./cmd/go-rocm"

// Root returns the root directory of the module that contains the current
// directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module forge.lthn.ai/core/go-rocm\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not inside a checkout of go-rocm: change to the checkout", dir)
		}
	}
}

var changelogVersion = regexp.MustCompile(`(?m)^## \[?v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)\]?`)

// Version returns the version to build: that of the settings, or else the newest
// in the changelog. The version of llama.cpp is its build metadata.
func (s *Session) Version(root string) (string, error) {
	v := s.Settings.Version
	if v == "" {
		b, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
		if err != nil {
			return "", err
		}
		m := changelogVersion.FindSubmatch(b)
		if m == nil {
			return "", fmt.Errorf("CHANGELOG.md has no version heading such as `## 0.1.0`; add one or set GOROCM_VERSION")
		}
		v = string(m[1])
	}
	if err := settings.CheckVersion(v); err != nil {
		return "", fmt.Errorf("the version in CHANGELOG.md or GOROCM_VERSION: %w", err)
	}
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "+")
	if _, err := deb.ParseVersion(v, ""); err != nil {
		return "", fmt.Errorf("the version in CHANGELOG.md or GOROCM_VERSION: %w", err)
	}
	return v + "+llama." + strings.TrimPrefix(s.Recipe.Lock.Tag, "v"), nil
}

// command compiles the static command to out. The result contains nothing of the
// machine: no path, no build ID, no VCS state.
func (s *Session) command(ctx context.Context, root, out, version string, tags ...string) error {
	args := []string{
		"build", "-trimpath", "-buildvcs=false", "-tags=" + strings.Join(tags, ","),
		"-ldflags=-s -w -buildid= -X main.version=" + version,
		"-o", out, commandPackage,
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, b)
	}
	return os.Chmod(out, 0o755) //nolint:gosec // a program
}

// bareCommand compiles the command without an embedded bundle to out, for
// deliverables that contain the bundle beside the command, and returns the digest
// of the program.
func (s *Session) bareCommand(ctx context.Context, root, out, version string) (string, error) {
	if err := s.command(ctx, root, out, version, "nopayload"); err != nil {
		return "", err
	}
	return stage.FileDigest(out)
}

// goEnv returns a variable of `go env`.
func goEnv(ctx context.Context, name string) (string, error) {
	out, err := output(exec.CommandContext(ctx, "go", "env", name), "go env "+name)
	return strings.TrimSpace(string(out)), err
}

// linkedModules returns a digest of the modules in this program, which write what is
// published. It is exact where a file is not: the versions follow from the go.mod files
// of several modules.
func linkedModules() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("this program has no build information: build it with the go command")
	}
	var list []string
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		list = append(list, m.Path+" "+m.Version+" "+m.Sum)
	}
	return stage.Key(list)
}

// goVersion returns the version of Go that compiles.
func goVersion() string { return runtime.Version() }
