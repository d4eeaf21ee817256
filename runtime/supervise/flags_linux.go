package supervise

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/procstat"
	"forge.lthn.ai/core/go-rocm/internal/userdirs"
)

// maxHelp limits how much of --help is read; v0.5.0 writes some 60 KB.
const maxHelp = 4 << 20

// ProbeFlags runs the program with --help, once for each digest, and returns the
// flags that it accepts.
func ProbeFlags(ctx context.Context, p Probe) (*Flags, error) {
	if len(p.Argv) == 0 {
		return nil, fmt.Errorf("%w: Argv is empty; set it to the program to probe", ErrInvalidSpec)
	}
	if p.Digest == "" {
		var err error
		if p.Digest, err = fileDigest(p.Argv[len(p.Argv)-1]); err != nil {
			return nil, err
		}
	}
	if p.Dir == "" {
		p.Dir = filepath.Dir(p.Argv[len(p.Argv)-1])
	}
	name := ""
	if p.CacheDir != "" {
		key := sha256.Sum256([]byte(p.Digest))
		name = filepath.Join(p.CacheDir, "flags-"+hex.EncodeToString(key[:12])+".json")
		if raw, err := os.ReadFile(name); err == nil {
			var f Flags
			if json.Unmarshal(raw, &f) == nil && len(f.TakesValue) > 0 {
				return &f, nil
			}
		}
	}
	text, err := runHelp(ctx, p.Argv, p.Dir, nil)
	if err != nil {
		return nil, fmt.Errorf("read the flags of llama-server: %w", err)
	}
	f, err := ParseHelp(text)
	if err != nil {
		return nil, err
	}
	if name != "" {
		saveFlags(name, f)
	}
	return f, nil
}

// TryArgs has the program parse the command line of spec and exit, which it does
// for arguments that end with --help (common_params_parse in common/arg.cpp). It
// opens no socket and loads no model, but reads the files that arguments such as
// --chat-template-file name. The error wraps ErrBadArgument where the program
// rejects an argument, and ErrStartTimeout where it does not exit.
func TryArgs(ctx context.Context, spec Spec) error {
	spec, err := spec.withDefaults()
	if err != nil {
		return err
	}
	args := spec.Args
	if spec.Flags != nil {
		args, _ = spec.Flags.Adapt(args)
	}
	if err := checkFileArgs(args, spec.Dir); err != nil {
		return err
	}
	_, err = runHelp(ctx, spec.Argv, spec.Dir, spec.Env, args...)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Signal != 0 {
		return err
	}
	kind, line := exit.Kind, exit.Line
	for _, l := range exit.Log {
		if line == "" {
			line = l // the error comes first, then a part of the usage
		}
	}
	switch {
	case errors.Is(kind, ErrBadTemplate):
		for _, l := range exit.Log { // a line before says why
			if strings.Contains(l, "common_chat_templates_init: error:") || strings.Contains(l, "failed to apply template:") {
				line = l
			}
		}
		return fmt.Errorf("%w: llama-server says %q; use another template", kind, line)
	case kind == nil || errors.Is(kind, ErrBadArgument):
		return fmt.Errorf("%w: llama-server says %q; %s", ErrBadArgument, line, remedyArg)
	}
	return err
}

// checkFileArgs rejects arguments that name a FIFO, a socket or a device, which may
// block whoever opens it. Relative names are below dir, where the program runs.
func checkFileArgs(args []string, dir string) error {
	for _, name := range args {
		if _, value, ok := strings.Cut(name, "="); ok {
			name = value
		}
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		const special = fs.ModeNamedPipe | fs.ModeSocket | fs.ModeDevice
		if info, err := os.Stat(path); err == nil && info.Mode()&special != 0 && path != os.DevNull {
			return fmt.Errorf("%w: %s is a named pipe, a socket or a device; name a regular file", ErrBadArgument, name)
		}
	}
	return nil
}

// briefLimits limit a program that exits by itself. The time is that of its own work: on a
// machine whose processors have other work, a program that needs a second of them may take
// minutes, and is not hung.
type briefLimits struct {
	cpu   time.Duration // for which it computes
	idle  time.Duration // without computing, while it waits for no processor and no disk
	total time.Duration
}

func standardLimits() briefLimits {
	return briefLimits{cpu: 30 * time.Second, idle: 30 * time.Second, total: 10 * time.Minute}
}

// helpMemory limits what the program may allocate for --help, in bytes. A chat
// template in a file is run then, and may allocate without end.
const helpMemory = 1 << 30

// clockTick is the unit of the times in /proc: USER_HZ is 100 on every architecture that
// Linux has for Go (proc(5)).
const clockTick = 10 * time.Millisecond

// killBeyond kills the process group of pid once the process has allocated more than
// helpMemory bytes or is beyond the limits, until the returned function is called, which
// returns why it did; nil if it did not. The caller has not reaped the process before that.
func killBeyond(limits briefLimits, pid int) (why func() error) {
	stop, result := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(maxPoll)
		defer tick.Stop()
		started := time.Now()
		worked, cpu := started, uint64(0) // when it was last seen at work
		for {
			select {
			case <-stop:
				result <- nil
				return
			case <-tick.C:
			}
			if s, err := procstat.Read(pid); err != nil || s.CPU != cpu || !s.IsSleeping() {
				worked, cpu = time.Now(), s.CPU
			}
			if err := limits.check(anonymousMemory(pid), time.Duration(cpu)*clockTick, time.Since(worked), time.Since(started)); err != nil {
				_ = syscall.Kill(-pid, syscall.SIGKILL)
				result <- err
				return
			}
		}
	}()
	return func() error { close(stop); return <-result }
}

// check returns the limit that a program is beyond.
func (l briefLimits) check(allocated int64, cpu, idle, total time.Duration) error {
	switch {
	case allocated > helpMemory:
		return fmt.Errorf("%w: it had allocated more than %d MiB when it had parsed its arguments; %s", ErrMemoryLimit, helpMemory>>20, remedyLimit)
	case cpu > l.cpu:
		return fmt.Errorf("%w: it computed for more than %s", ErrStartTimeout, l.cpu)
	case idle > l.idle:
		return fmt.Errorf("%w: it waited for more than %s", ErrStartTimeout, l.idle)
	case total > l.total:
		return fmt.Errorf("%w: it ran for more than %s", ErrStartTimeout, l.total)
	}
	return nil
}

// runHelp runs the program with args and --help, and returns its output.
func runHelp(ctx context.Context, argv []string, dir string, env []string, args ...string) ([]byte, error) {
	out, _, err := runBriefly(ctx, argv, dir, env, append(slices.Clone(args), "--help"))
	return out, err
}

// Output runs a program that exits by itself, such as llama-server --list-devices, and
// returns what it wrote, to 4 MiB each. It has the child's environment with env added,
// and the limits of a probe: 30 seconds of work and 1 GiB. The error of a program that failed
// is an *[ExitError].
func Output(ctx context.Context, p Probe, env []string, args ...string) (stdout, stderr []byte, err error) {
	if len(p.Argv) == 0 {
		return nil, nil, fmt.Errorf("%w: Argv is empty; set it to the program to run", ErrInvalidSpec)
	}
	if p.Dir == "" {
		p.Dir = filepath.Dir(p.Argv[len(p.Argv)-1])
	}
	return runBriefly(ctx, p.Argv, p.Dir, env, args)
}

// childCommand returns a command with the child's environment, that ends with all its
// descendants when ctx does.
func childCommand(ctx context.Context, argv []string, dir string, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env, _ = childEnv(os.Environ(), slices.Concat([]string{noBacktrace}, env, configFileEnv(dir)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// runBriefly runs the program with args and returns what it wrote.
func runBriefly(ctx context.Context, argv []string, dir string, env, args []string) (stdout, stderr []byte, err error) {
	return runWithin(ctx, standardLimits(), argv, dir, env, args)
}

func runWithin(ctx context.Context, limits briefLimits, argv []string, dir string, env, args []string) (stdout, stderr []byte, err error) {
	argv = slices.Concat(argv, args)
	cmd := childCommand(ctx, argv, dir, env)
	out, errs := ctxio.LimitedBuffer{Limit: maxHelp}, ctxio.LimitedBuffer{Limit: maxHelp}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Start()
	killed := func() error { return nil }
	if err == nil {
		killed = killBeyond(limits, cmd.Process.Pid)
		err = cmd.Wait()
	}
	beyond := killed()
	if err == nil {
		return out.Bytes(), errs.Bytes(), nil
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case errors.Is(beyond, ErrMemoryLimit):
		return nil, nil, beyond
	case beyond != nil:
		return nil, nil, fmt.Errorf("llama-server %s did not exit: %w", args[len(args)-1], beyond)
	case !errors.As(err, &exit):
		return nil, nil, startError(argv[0], dir, err)
	}
	return nil, nil, exitError(exit, errs.Bytes())
}

// exitError returns the diagnosed error of a program that failed.
func exitError(exit *exec.ExitError, stderr []byte) *ExitError {
	e := &ExitError{Code: exit.ExitCode(), Pid: exit.Pid(), State: Starting}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Code, e.Signal = -1, ws.Signal()
	}
	for line := range bytes.Lines(stderr) {
		e.Log = append(e.Log, cleanLine(line))
	}
	diagnose(e, false)
	return e
}

// saveFlags caches the flags. If that fails, the next start probes again.
func saveFlags(name string, f *Flags) {
	raw, err := json.Marshal(f)
	if err != nil || os.MkdirAll(filepath.Dir(name), 0o700) != nil {
		return
	}
	_ = userdirs.WriteFile(name, raw)
}

func fileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read llama-server: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read llama-server: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
