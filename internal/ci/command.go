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

// command describes one child program of a step.
type command struct {
	dir  string
	env  []string // added to this program's own
	out  io.Writer
	argv []string
}

// build makes the process. It runs in a group of its own, so that cancelling
// ends the whole tree (a test binary and the servers it started), not just
// the first process of it.
func (c command) build(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = c.out, c.out
	procgroup.Own(cmd, syscall.SIGKILL, 10*time.Second)
	return cmd
}

func (c command) run(ctx context.Context) error {
	fmt.Fprintf(c.out, "$ %s\n", strings.Join(append(c.env, c.argv...), " "))
	return c.explain(ctx, c.build(ctx).Run())
}

// explain names the program in its error and prefers the reason why it was
// ended over the signal that ended it.
func (c command) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	name := strings.Join(c.argv[:min(3, len(c.argv))], " ")
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s: %w (install it and try again)", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// output runs the program and returns its standard output without the
// trailing newline; what it says on standard error goes to c.out.
func (c command) output(ctx context.Context) (string, error) {
	cmd := c.build(ctx)
	cmd.Stdout = nil
	b, err := cmd.Output()
	return strings.TrimRight(string(b), "\n"), c.explain(ctx, err)
}

// stream runs the program and hands its standard output to read, which has
// to read to the end.
func (c command) stream(ctx context.Context, read func(io.Reader) error) error {
	fmt.Fprintf(c.out, "$ %s\n", strings.Join(append(c.env, c.argv...), " "))
	cmd := c.build(ctx)
	r, w := io.Pipe()
	cmd.Stdout = w
	done := make(chan error, 1)
	go func() {
		err := read(r)
		// A reader that gave up must not block the program.
		_, drained := io.Copy(io.Discard, r)
		done <- errors.Join(err, drained)
	}()
	err := cmd.Run()
	closed := w.Close()
	return errors.Join(c.explain(ctx, err), <-done, closed)
}
