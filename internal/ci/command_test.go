//go:build unix

package ci

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// Cancelling kills grandchildren too, such as the servers of a test binary.
func TestCancelKillsTheWholeGroup(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	c := command{dir: dir, out: io.Discard, argv: []string{"sh", "-c", "sleep 600 & echo $! > pid; wait"}}
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	poll.Until(t, "the grandchild to start", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		return err == nil && strings.HasSuffix(string(b), "\n")
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the grandchild to exit", func() bool { return exited(pid) })
}

// exited reports whether a process has exited; it may be a zombie.
func exited(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestCommandErrorNamesTheCause(t *testing.T) {
	t.Run("unknown program", func(t *testing.T) {
		c := command{out: io.Discard, argv: []string{"no-such-program-anywhere"}}
		if err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), "install it") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("exit status", func(t *testing.T) {
		var out strings.Builder
		c := command{out: &out, env: []string{"WORD=hello"}, argv: []string{"sh", "-c", "echo $WORD; exit 3"}}
		if err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("got %v", err)
		}
		if !strings.HasSuffix(out.String(), "hello\n") {
			t.Errorf("output %q", &out)
		}
	})
	t.Run("a reader that stops", func(t *testing.T) {
		c := command{out: io.Discard, argv: []string{"sh", "-c", "yes | head -c 1000000"}}
		stopped := errors.New("enough")
		if err := c.stream(t.Context(), func(io.Reader) error { return stopped }); !errors.Is(err, stopped) {
			t.Errorf("got %v", err)
		}
	})
}

func TestUnreachableVulnerabilityDatabaseFailsNothing(t *testing.T) {
	exit := func(code string) error {
		return command{out: io.Discard, argv: []string{"sh", "-c", "exit " + code}}.run(t.Context())
	}
	if err := vulnerabilityError(nil, "No vulnerabilities found."); err != nil {
		t.Errorf("clean: %v", err)
	}
	if err := vulnerabilityError(exit("3"), ""); err == nil || errors.Is(err, ErrNotDone) {
		t.Errorf("found: %v", err)
	}
	if err := vulnerabilityError(exit("1"), "govulncheck: fetching vulnerabilities: no such host"); !errors.Is(err, ErrNotDone) {
		t.Errorf("unreachable: %v", err)
	}
	if err := vulnerabilityError(exit("1"), "loading packages: broken"); err == nil || errors.Is(err, ErrNotDone) {
		t.Errorf("broken: %v", err)
	}
}
