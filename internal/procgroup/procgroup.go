// Package procgroup runs programs in process groups, so that cancelling stops their
// children too. exec.CommandContext kills the first process alone: the build that
// `go run` started, or the programs that mmdebstrap started, would continue.
package procgroup

import (
	"bytes"
	"context"
	"os/exec"
	"syscall"
	"time"
)

// Configure makes cmd, a command of exec.CommandContext, run in a new process group.
// When the context is cancelled, the group receives sig; if the first process has not
// exited after grace, it is killed. Without process groups only the first process is
// killed.
func Configure(cmd *exec.Cmd, sig syscall.Signal, grace time.Duration) {
	cmd.WaitDelay = grace
	setGroup(cmd, sig)
}

// Run runs cmd and waits for it. When ctx, the context of cmd, is cancelled, the group
// receives SIGINT as from Ctrl-C, has grace to clean up, and is then killed.
func Run(ctx context.Context, cmd *exec.Cmd, grace time.Duration) error {
	Configure(cmd, syscall.SIGINT, grace)
	err := cmd.Run()
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid) // processes that outlived the first one
	}
	return ctx.Err()
}

// Output is like Run and returns the standard output and standard error of cmd.
func Output(ctx context.Context, cmd *exec.Cmd, grace time.Duration) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := Run(ctx, cmd, grace)
	return out.Bytes(), err
}
