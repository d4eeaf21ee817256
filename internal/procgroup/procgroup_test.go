//go:build unix

package procgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// Cancelling stops the children too. A program that handles SIGINT has time to clean
// up, one that ignores it is killed.
func TestRunStopsTheWholeGroup(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		grace        time.Duration
		tidy         bool
	}{
		{"handles SIGINT", `trap 'echo tidied >tidy; exit 1' INT; sleep 600 & echo $! >pid; wait`, time.Hour, true},
		{"ignores SIGINT", `trap '' INT; sleep 600 & echo $! >pid; wait`, time.Millisecond, false},
		{"leaves a child that ignores SIGINT", `(trap '' INT; exec sleep 600) & echo $! >pid; wait`, time.Hour, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			cmd := exec.CommandContext(ctx, "sh", "-c", tc.script)
			cmd.Dir = dir
			ended := make(chan error, 1)
			go func() { ended <- Run(ctx, cmd, tc.grace) }()
			poll.Until(t, "the child to start", func() bool { return line(filepath.Join(dir, "pid")) != "" })
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			pid, err := strconv.Atoi(line(filepath.Join(dir, "pid")))
			if err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "the child to exit", func() bool { return exited(pid) })
			if tidied := line(filepath.Join(dir, "tidy")) == "tidied"; tidied != tc.tidy {
				t.Errorf("it cleaned up: %v", tidied)
			}
		})
	}
}

func TestRunReturnsTheErrorOfTheProgram(t *testing.T) {
	var exit *exec.ExitError
	if err := Run(t.Context(), exec.CommandContext(t.Context(), "sh", "-c", "exit 3"), 0); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v", err)
	}
	if err := Run(t.Context(), exec.CommandContext(t.Context(), "no-such-program-anywhere"), 0); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, exec.CommandContext(ctx, "true"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before the start: %v", err)
	}
}

// line returns the line in a file, or "" while the line is incomplete.
func line(name string) string {
	b, err := os.ReadFile(name)
	if err != nil || !strings.HasSuffix(string(b), "\n") {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// exited reports whether a process has exited; it may be a zombie.
func exited(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}
