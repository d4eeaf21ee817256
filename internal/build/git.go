package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// git runs git in a checkout and returns its standard output.
func git(ctx context.Context, dir string, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	cmd.Stdin = stdin
	return output(cmd, "git "+args[0])
}

// output runs a program and returns its standard output. The error contains the
// standard error of the program, which often names the remedy.
func output(cmd *exec.Cmd, name string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	if message := strings.TrimSpace(stderr.String()); message != "" {
		return nil, fmt.Errorf("%s: %w: %s", name, err, message)
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}
