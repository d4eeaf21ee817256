package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// command is a program that a step runs.
type command struct {
	dir  string
	env  []string // in addition to the environment of this process
	out  io.Writer
	argv []string
}

// process returns the process, not yet started. It runs in a new process group, so
// that cancelling kills the whole tree: a test binary and the servers that it started.
func (c command) process(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir = c.dir
	// Each module is checked with the versions that its own go.mod selects, and not with
	// the highest ones of the workspace: users get the former.
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), c.env...)
	cmd.Stdout, cmd.Stderr = c.out, c.out
	procgroup.Configure(cmd, syscall.SIGKILL, 10*time.Second)
	return cmd
}

// run runs the program with its output to c.out.
func (c command) run(ctx context.Context) error {
	fmt.Fprintf(c.out, "$ %s\n", strings.Join(append(c.env, c.argv...), " "))
	return c.describeError(ctx, c.process(ctx).Run())
}

// describeError adds the name of the program to its error, and replaces the signal that
// killed it by the reason.
func (c command) describeError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	name := strings.Join(c.argv[:min(3, len(c.argv))], " ")
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s: %w; install it and try again", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// output runs the program and returns its standard output without trailing newlines;
// its standard error goes to c.out.
func (c command) output(ctx context.Context) (string, error) {
	cmd := c.process(ctx)
	cmd.Stdout = nil
	b, err := cmd.Output()
	return strings.TrimRight(string(b), "\n"), c.describeError(ctx, err)
}

// stream runs the program and passes its standard output to read.
func (c command) stream(ctx context.Context, read func(io.Reader) error) error {
	fmt.Fprintf(c.out, "$ %s\n", strings.Join(append(c.env, c.argv...), " "))
	cmd := c.process(ctx)
	r, w := io.Pipe()
	cmd.Stdout = w
	done := make(chan error, 1)
	go func() {
		err := read(r)
		// After an error of read the program must not block on a full pipe.
		_, drained := io.Copy(io.Discard, r)
		done <- errors.Join(err, drained)
	}()
	err := cmd.Run()
	closed := w.Close()
	return errors.Join(c.describeError(ctx, err), <-done, closed)
}
