package torture

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Env names the variable with the number of rounds.
const Env = "GOROCM_TORTURE"

// patience bounds the wait for what is on its way out, such as an idle
// connection; only a failure takes that long.
const patience = time.Minute

// Main runs the tests of a package in a process that inherits every orphan and
// keeps its temporary files in a folder of its own, so that both can be counted.
// It returns the exit status.
func Main(m *testing.M) int { return within(m.Run) }

func within(run func() int) (code int) {
	failed := func(err error) int {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 1
	}
	// Processes whose parent has died become children of this one, see prctl(2).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return failed(err)
	}
	tmp, err := os.MkdirTemp("", "t-") // short: sockets lie in it
	if err == nil {
		err = os.Chmod(tmp, 0o711) // tests run processes of other users, which must get through
	}
	if err != nil {
		return failed(err)
	}
	defer func() {
		if left, err := os.ReadDir(tmp); err == nil && code == 0 && len(left) > 0 {
			code = failed(fmt.Errorf("the tests left %d files in the folder for temporary ones, the first is %s", len(left), left[0].Name()))
		}
		if err := os.RemoveAll(tmp); err != nil && code == 0 {
			code = failed(err)
		}
	}()
	if err := os.Setenv("TMPDIR", tmp); err != nil {
		return failed(err)
	}
	// With its first process and pipe the runtime opens descriptors of its own
	// (a pidfd to try, epoll), which are no leak of the first test.
	if _, err := exec.CommandContext(context.Background(), "true").Output(); err != nil {
		return failed(err)
	}
	return run()
}

// Rounds runs f as often as Env says, each time as a subtest, and after each
// fails the test if something is there that was not there before the first. It
// ends with the first round that fails.
func Rounds(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	n, err := count(os.Getenv(Env))
	if err != nil {
		t.Fatal(err)
	}
	before, err := look()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		ok := t.Run(strconv.Itoa(i), f)
		if err := gone(before); err != nil {
			t.Fatalf("after round %d: %v", i, err)
		}
		if !ok {
			return
		}
	}
}

// count reads the number of rounds.
func count(v string) (int, error) {
	if v == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%q: want a number from 1 on", Env, v)
	}
	return n, nil
}

// gone waits until no more is there than before.
func gone(before state) error {
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		now, err := look()
		if err != nil {
			return err
		}
		more := now.beyond(before)
		if len(more) == 0 {
			return nil
		}
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			return fmt.Errorf("left behind:\n%s\n\n%s", strings.Join(more, "\n"), stacks[:runtime.Stack(stacks, true)])
		}
	}
}
