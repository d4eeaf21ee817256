package extract

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

var fastEncoder = bundle.GoEncoder(zstd.SpeedFastest, 1<<20) //nolint:gochecknoglobals // a constant of the tests

// childMain is the main function of another process. It installs the pack of packEnv
// in the cache of CacheEnv, prints "ok DIR CHANGED" or "error TEXT", and returns 0 or
// 3. name selects a different behaviour.
func childMain(name string) int {
	p, err := bundle.OpenFile(os.Getenv(packEnv))
	if err != nil {
		fmt.Println("error", err)
		return 4
	}
	defer func() { _ = p.Close() }()
	switch name {
	case "hold":
		return leaseMain(p.Reader)
	case "wait": // with an inherited lease
		fmt.Println("waiting")
		return readToEOF()
	case "prune":
		return pruneMain()
	}
	o, ok := childOptions(name)
	if !ok {
		fmt.Println("error unknown child", name)
		return 4
	}
	inst, err := Extract(context.Background(), p.Reader, o)
	if err != nil {
		fmt.Printf("error %q\n", err)
		return 3
	}
	fmt.Println("ok", inst.Dir, inst.Changed)
	return 0
}

// leaseMain keeps a lease until its input ends.
func leaseMain(r *bundle.Reader) int {
	inst, err := Extract(context.Background(), r, Options{Lease: true})
	if err != nil {
		fmt.Println("error", err)
		return 3
	}
	fmt.Println("leased")
	status := readToEOF()
	if err := inst.Lease.Release(); err != nil {
		return 3
	}
	return status
}

func readToEOF() int {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return 3
	}
	return 0
}

// pruneMain prunes everything and kills itself at its step.
func pruneMain() int {
	_, err := Prune(context.Background(), PruneOptions{trace: func(s string) {
		if s == os.Getenv(stepEnv) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	fmt.Println("error: not killed", err)
	return 3
}

// childOptions returns the Options for a child's behaviour.
func childOptions(name string) (Options, bool) {
	step := os.Getenv(stepEnv)
	at := func(do func()) Options {
		return Options{trace: func(s string) {
			if s == step {
				do()
			}
		}}
	}
	self := os.Getpid()
	switch name {
	case "plain":
		return Options{}, true
	case "no targets":
		return Options{Targets: nil}, true
	case "exit at step": // by SIGKILL: no deferred call runs
		return at(func() { _ = syscall.Kill(self, syscall.SIGKILL); select {} }), true
	case "exit while writing":
		return Options{Progress: func(done, total int64) {
			if done > total/2 {
				_ = syscall.Kill(self, syscall.SIGKILL)
				select {}
			}
		}}, true
	case "stop at step":
		return at(func() {
			fmt.Println("stopped")
			// The signal is sent to this thread, so that it stops at once.
			runtime.LockOSThread()
			_ = unix.Tgkill(self, unix.Gettid(), unix.SIGSTOP)
			runtime.UnlockOSThread()
		}), true
	case "few descriptors":
		return Options{Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}, useUpDescriptors()
	}
	return Options{}, false
}

// child is another process.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	in  io.WriteCloser
}

// startChild starts this binary with that behaviour and cache.
func startChild(t *testing.T, name string, b testBundle, cache string, change ...func(*exec.Cmd)) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childEnv+"="+name, packEnv+"="+b.file, CacheEnv+"="+cache)
	cmd.Stderr = os.Stderr
	for _, c := range change {
		c(cmd)
	}
	return start(t, cmd)
}

func start(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &child{t, cmd, bufio.NewReader(out), in}
}

// withEnv adds variables to a child's environment.
func withEnv(kv ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Env = append(c.Env, kv...) }
}

// line reads one line of the child's output.
func (c *child) line() string {
	c.t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		c.t.Errorf("child: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

// wait returns the rest of the child's output and its exit error.
func (c *child) wait() (string, error) {
	c.t.Helper()
	rest, err := io.ReadAll(c.out)
	if err != nil {
		c.t.Errorf("child: %v", err)
	}
	err = c.cmd.Wait()
	return strings.TrimSuffix(string(rest), "\n"), err
}

// killed waits for the child and checks that SIGKILL ended it.
func (c *child) killed() {
	c.t.Helper()
	out, err := c.wait()
	var ee *exec.ExitError
	if !errors.As(err, &ee) {
		c.t.Fatalf("child exited: %q %v", out, err)
	}
	if ws, ok := ee.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		c.t.Fatalf("child ended with %v: %q", err, out)
	}
}

// signal sends the child a signal.
func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// waitStopped waits until the child has stopped at its step.
func (c *child) waitStopped() {
	c.t.Helper()
	if got := c.line(); got != "stopped" {
		c.t.Fatalf("child printed %q, want that it stopped", got)
	}
	poll.Until(c.t, "the child to stop", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
		if err != nil {
			c.t.Fatal(err)
		}
		_, state, _ := strings.Cut(string(b), ") ")
		return strings.HasPrefix(state, "T")
	})
}

// succeeded waits for the child and returns whether it wrote files.
func (c *child) succeeded() (changed bool) {
	c.t.Helper()
	out, err := c.wait()
	if err != nil || !strings.HasPrefix(out, "ok ") {
		c.t.Fatalf("child: %v: %s", err, out)
	}
	return strings.HasSuffix(out, " true")
}

// failed waits for the child and returns its error text.
func (c *child) failed() string {
	c.t.Helper()
	out, err := c.wait()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 3 {
		c.t.Fatalf("child should have failed: %v: %s", err, out)
	}
	return out
}

// useUpDescriptors opens files until only stepEnv descriptors are left.
func useUpDescriptors() bool {
	left, err := strconv.Atoi(os.Getenv(stepEnv))
	if err != nil {
		return false
	}
	const most = 128
	lim := syscall.Rlimit{Cur: most, Max: most}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return false
	}
	for fd := 0; fd < most-left-1; {
		if fd, err = syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != nil {
			return false
		}
	}
	return true
}
