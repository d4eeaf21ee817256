package torture

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/goroutines"
)

// Env is the environment variable with the number of rounds.
const Env = "GOROCM_TORTURE"

// timeout limits the wait for resources that are about to be released, such as idle
// connections. Only a failure takes that long.
const timeout = time.Minute

// Main calls run, which runs the tests of a package, in a process that inherits every
// orphan and has its own directory for temporary files, so that both can be counted. It
// returns the exit status. What the tests of a package share, run creates and removes.
func Main(run func() int) (code int) {
	failed := func(err error) int {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 1
	}
	// Orphaned processes become children of this one, see prctl(2).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return failed(err)
	}
	tmp, err := os.MkdirTemp("", "t-") // short: it contains sockets
	if err == nil {
		err = os.Chmod(tmp, 0o711) // tests run processes of other users, which must traverse it
	}
	if err != nil {
		return failed(err)
	}
	defer func() {
		if left, err := os.ReadDir(tmp); err == nil && code == 0 && len(left) > 0 {
			code = failed(fmt.Errorf("the tests left %d temporary files, the first is %s", len(left), left[0].Name()))
		}
		if err := os.RemoveAll(tmp); err != nil && code == 0 {
			code = failed(err)
		}
	}()
	if err := os.Setenv("TMPDIR", tmp); err != nil {
		return failed(err)
	}
	// With its first process and pipe the runtime opens descriptors (a pidfd, epoll),
	// which are not a leak of the first test.
	if _, err := exec.CommandContext(context.Background(), "true").Output(); err != nil {
		return failed(err)
	}
	return run()
}

// Rounds runs f as a subtest, as many times as Env says, and checks for leaks after each
// round. It stops at the first round that fails.
func Rounds(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	n, err := parseRounds(os.Getenv(Env))
	if err != nil {
		t.Fatal(err)
	}
	before, err := takeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		ok := t.Run(strconv.Itoa(i), f)
		if err := waitReleased(before); err != nil {
			t.Fatalf("after round %d: %v", i, err)
		}
		if !ok {
			return
		}
	}
}

// parseRounds parses the number of rounds.
func parseRounds(v string) (int, error) {
	if v == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%q: want a number of at least 1", Env, v)
	}
	return n, nil
}

// waitReleased waits until nothing remains that was not in the snapshot before.
func waitReleased(before snapshot) error {
	for end := time.Now().Add(timeout); ; time.Sleep(2 * time.Millisecond) {
		now, err := takeSnapshot()
		if err != nil {
			return err
		}
		more := now.since(before)
		if len(more) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("leaked:\n%s\n\n%s", strings.Join(more, "\n"), goroutines.Stacks())
		}
	}
}
