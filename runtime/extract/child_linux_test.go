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
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

var fastEncoder = bundle.GoEncoder(zstd.SpeedFastest, 1<<20) //nolint:gochecknoglobals // a constant of the tests

// playChild is another process that installs the pack of packEnv into the
// cache of CacheEnv. It prints "ok DIR FRESH" or "error TEXT" and ends with
// 0 or 3. name says what else it does on the way.
func playChild(name string) int {
	p, err := bundle.OpenFile(os.Getenv(packEnv))
	if err != nil {
		fmt.Println("error", err)
		return 4
	}
	defer func() { _ = p.Close() }()
	switch name {
	case "hold":
		return playHolder(p.Reader)
	case "wait": // with what it inherited
		fmt.Println("waiting")
		return awaitEnd()
	case "prune":
		return playPruner()
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

// playHolder holds the bundle until its input ends.
func playHolder(r *bundle.Reader) int {
	inst, err := Extract(context.Background(), r, Options{Lease: true})
	if err != nil {
		fmt.Println("error", err)
		return 3
	}
	fmt.Println("held")
	status := awaitEnd()
	if err := inst.Lease.Release(); err != nil {
		return 3
	}
	return status
}

func awaitEnd() int {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return 3
	}
	return 0
}

// playPruner removes all it may and dies at its step.
func playPruner() int {
	_, err := Prune(context.Background(), PruneOptions{trace: func(s string) {
		if s == os.Getenv(stepEnv) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	fmt.Println("error: not killed", err)
	return 3
}

// childOptions returns the Options that make a child misbehave.
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
	case "die at step": // SIGKILL: no deferred call runs
		return at(func() { _ = syscall.Kill(self, syscall.SIGKILL); select {} }), true
	case "die while writing":
		return Options{Progress: func(done, total int64) {
			if done > total/2 {
				_ = syscall.Kill(self, syscall.SIGKILL)
				select {}
			}
		}}, true
	case "stop at step":
		return at(func() {
			fmt.Println("stopped")
			// To this very thread, which then does not run on until another
			// one has taken the signal.
			runtime.LockOSThread()
			_ = unix.Tgkill(self, unix.Gettid(), unix.SIGSTOP)
			runtime.UnlockOSThread()
		}), true
	case "few descriptors":
		return Options{Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}, useUpDescriptors()
	}
	return Options{}, false
}

// child is a running other process.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	in  io.WriteCloser
}

// startChild starts this binary in the given part. Its cache is cache.
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

// wait returns all the child still says, and how it ended.
func (c *child) wait() (string, error) {
	c.t.Helper()
	rest, err := io.ReadAll(c.out)
	if err != nil {
		c.t.Errorf("child: %v", err)
	}
	err = c.cmd.Wait()
	return strings.TrimSuffix(string(rest), "\n"), err
}

// killed waits for the child and checks that it died of SIGKILL.
func (c *child) killed() {
	c.t.Helper()
	out, err := c.wait()
	var ee *exec.ExitError
	if !errors.As(err, &ee) {
		c.t.Fatalf("child ended by itself: %q %v", out, err)
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

// awaitStop waits until the child has stopped itself at its step.
func (c *child) awaitStop() {
	c.t.Helper()
	if got := c.line(); got != "stopped" {
		c.t.Fatalf("child said %q, want that it stopped", got)
	}
	var state string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
		if err != nil {
			c.t.Fatal(err)
		}
		if _, state, _ = strings.Cut(string(b), ") "); strings.HasPrefix(state, "T") {
			return
		}
	}
	c.t.Fatalf("child did not stop, its state is %.1s", state)
}

// succeeded waits for the child and returns whether it wrote files.
func (c *child) succeeded() (fresh bool) {
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

// useUpDescriptors leaves this process as many descriptors as stepEnv says.
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
