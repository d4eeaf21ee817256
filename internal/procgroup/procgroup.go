// Package procgroup runs programs whose own children end with them.
// exec.CommandContext ends the first process alone: a build that `go run` has
// started, or the programs that mmdebstrap has, would go on.
package procgroup

import (
	"bytes"
	"context"
	"os/exec"
	"syscall"
	"time"
)

// Own gives cmd, which exec.CommandContext has made, a process group of its own.
// When the context ends the whole group gets sig, and cmd's first process is
// killed if it is still there after grace. Where there are no process groups
// only the first process is ended.
func Own(cmd *exec.Cmd, sig syscall.Signal, grace time.Duration) {
	cmd.WaitDelay = grace
	own(cmd, sig)
}

// Run runs cmd to its end, or until ctx, by which it was made, ends: then its
// group is interrupted as by Ctrl-C, has grace to put its things in order, and
// is killed.
func Run(ctx context.Context, cmd *exec.Cmd, grace time.Duration) error {
	Own(cmd, syscall.SIGINT, grace)
	err := cmd.Run()
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cmd.Process != nil {
		kill(cmd.Process.Pid) // what outlived its first process
	}
	return ctx.Err()
}

// Output is Run that gives what cmd wrote to its standard output and error.
func Output(ctx context.Context, cmd *exec.Cmd, grace time.Duration) ([]byte, error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := Run(ctx, cmd, grace)
	return said.Bytes(), err
}
