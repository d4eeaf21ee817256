package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// Lines runs a program beside llama-server, such as a test program of llama.cpp, and
// calls line with each line of its standard output, without the line break. It has the
// child's environment with env added, and no limit of time: it ends with ctx. The error
// of a program that failed is an *[ExitError], with the end of its standard error.
func Lines(ctx context.Context, p Probe, env []string, line func(string), args ...string) error {
	if len(p.Argv) == 0 {
		return fmt.Errorf("%w: Argv is empty; set it to the program to run", ErrInvalidSpec)
	}
	if p.Dir == "" {
		p.Dir = filepath.Dir(p.Argv[len(p.Argv)-1])
	}
	cmd := childCommand(ctx, slices.Concat(p.Argv, args), p.Dir, env)
	errs := ctxio.LimitedBuffer{Limit: maxHelp}
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return startError(p.Argv[0], p.Dir, err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxHelp)
	for lines.Scan() {
		line(lines.Text())
	}
	tooLong := lines.Err()
	if tooLong != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case tooLong != nil:
		return fmt.Errorf("read the output of %s: %w", filepath.Base(p.Argv[len(p.Argv)-1]), tooLong)
	case errors.As(err, &exit):
		return exitError(exit, errs.Bytes())
	}
	return err
}
