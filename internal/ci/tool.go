package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// Versions of the tools that a run installs. The go command downloads them from the
// module proxy and verifies them against the checksum database.
const (
	golangciLint = "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0"
	govulncheck  = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"
)

// tool returns the path of the program of a `module/path@version`, and installs it in
// the cache directory first if necessary. The directory name contains the Go version:
// an analyser that was built with an older Go rejects the sources of a newer one.
func (p Project) tool(ctx context.Context, out io.Writer, spec string) (string, error) {
	goVersion, err := p.command(out, nil, "go", "env", "GOVERSION").output(ctx)
	if err != nil {
		return "", err
	}
	module, version, _ := strings.Cut(spec, "@")
	name := path.Base(module)
	dir := filepath.Join(p.Cache, "tools", name+"-"+version+"-"+goVersion)
	program := filepath.Join(dir, name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("create a directory for %s: %w", name, err)
	}
	unlock, err := lockedfile.MutexAt(dir + ".lock").Lock()
	if err != nil {
		return "", fmt.Errorf("wait for another installation of %s: %w", name, err)
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintf(out, "installing %s %s (once; minutes on a small machine)\n", name, version)
	return program, p.install(ctx, out, dir, spec)
}

// install builds into a temporary directory and renames it, so that a killed run leaves
// no partial program.
func (p Project) install(ctx context.Context, out io.Writer, dir, spec string) (err error) {
	stage, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".*")
	if err != nil {
		return fmt.Errorf("create a directory for %s: %w", spec, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if err := os.Chmod(stage, 0o755); err != nil {
		return fmt.Errorf("change the mode of the directory of %s: %w", spec, err)
	}
	install := p.command(out, []string{"GOBIN=" + stage}, "go", "install", spec)
	if err := install.run(ctx); err != nil {
		return fmt.Errorf("install a tool: %w; check that the Go module proxy is reachable", err)
	}
	if err := os.Rename(stage, dir); err != nil {
		return fmt.Errorf("rename the directory of %s: %w", spec, err)
	}
	return nil
}
