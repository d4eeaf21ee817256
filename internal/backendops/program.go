package backendops

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Program is test-backend-ops beside the modules of a bundle.
type Program struct {
	Argv   []string // the command, without arguments
	Dir    string   // the directory of the modules
	Env    []string // the whole environment
	Device string   // the device to test, such as "Vulkan0"
	// CaseLimit is how long one case may take; zero means [DefaultCaseLimit].
	CaseLimit time.Duration
	// Slow says that the device is so slow that a case without a result in its time is
	// [TooSlow]. Otherwise it hangs, and is [Crashed].
	Slow bool
}

// DefaultCaseLimit is more than the slowest case takes on two busy processors.
const DefaultCaseLimit = 15 * time.Minute

// Case is one operation with its parameters, such as MUL_MAT and "type_a=q4_0,type_b=f32,m=16".
type Case struct {
	Operation string `json:"operation"`
	Params    string `json:"params"`
}

// String returns the name that test-backend-ops accepts and prints.
func (c Case) String() string { return c.Operation + "(" + c.Params + ")" }

// Outcome is the result of a case.
type Outcome string

// The outcomes of a case.
const (
	Equal       Outcome = "equal"
	Different   Outcome = "different"   // the results differ by more than the operation's tolerance
	Unsupported Outcome = "unsupported" // by the device, or by the CPU that it is compared with
	Crashed     Outcome = "crashed"     // the program did not survive the case
	TooSlow     Outcome = "too slow"    // there was no result in the time of a case; only with Program.Slow
	NotRun      Outcome = "not run"
)

// Result is the outcome of one case.
type Result struct {
	Case
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"` // of any outcome but Equal and NotRun
}

// line is a line of test-backend-ops: what it says of a failure, the case, and its status. A process
// that crashes leaves the last line without a status.
var line = regexp.MustCompile(`^(.*?)  ([A-Z][A-Z0-9_]*)\((.*)\): ?(.*)$`)

// colour is an escape sequence of a terminal.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// allocation is what the program prints, before the next line, of a case whose tensors it cannot
// allocate. It prints no line for that case.
var allocation = regexp.MustCompile(`failed to allocate (?:weight )?tensors \[[^\]]*\] `)

// parseLine reads a line. ok is false for one that is about no case; status is empty where the line
// has none.
func parseLine(text string) (before string, c Case, status string, ok bool) {
	m := line.FindStringSubmatch(colour.ReplaceAllString(strings.TrimRight(text, "\r\n"), ""))
	if m == nil {
		return "", Case{}, "", false
	}
	before = strings.TrimSpace(allocation.ReplaceAllString(m[1], ""))
	return before, Case{m[2], m[3]}, strings.TrimSpace(m[4]), true
}

// parseResult reads a line with the outcome of a case.
func parseResult(text string) (r Result, ok bool) {
	before, c, status, ok := parseLine(text)
	if !ok {
		return r, false
	}
	r.Case = c
	unsupported, isUnsupported := strings.CutPrefix(status, "not supported [")
	switch {
	case status == "OK":
		r.Outcome = Equal
	case status == "FAIL":
		r.Outcome, r.Reason = Different, before
		if r.Reason == "" {
			r.Reason = "the program does not say why"
		}
	case isUnsupported:
		r.Outcome, r.Reason = Unsupported, "by "+strings.TrimSuffix(unsupported, "]")
	default:
		return r, false
	}
	return r, true
}

// List returns the cases of all operations that the program lists, and whether the device supports
// them; each once. It computes nothing.
func (p Program) List(ctx context.Context) (supported, unsupported []Case, err error) {
	seen := map[Case]bool{}
	err = p.start(ctx, []string{"support"}, func(text string) error {
		_, c, status, ok := parseLine(text)
		if seen[c] {
			return nil
		}
		seen[c] = true
		switch {
		case ok && status == "SUPPORTED":
			supported = append(supported, c)
		case ok && status == "NOT SUPPORTED":
			unsupported = append(unsupported, c)
		}
		return nil
	})
	if err == nil && len(supported) == 0 {
		err = fmt.Errorf("the program lists no operation of the device %s: does it exist?", p.Device)
	}
	return supported, unsupported, err
}

// maxNames limits the names of cases in one argument, which the kernel limits to 128 KiB.
const maxNames = 100_000

// Run runs cases and calls report with each result, in the order of the cases. A case that crashes the
// program, or exceeds its limit, is reported as crashed, and the others are run after it.
func (p Program) Run(ctx context.Context, cases []Case, report func(Result) error) error {
	for len(cases) > 0 {
		n, size := 0, 0
		for n < len(cases) && size+len(cases[n].String())+1 <= maxNames {
			size += len(cases[n].String()) + 1
			n++
		}
		if n == 0 {
			return fmt.Errorf("the name of a case is longer than %d bytes", maxNames)
		}
		left, err := p.runNamed(ctx, cases[:n], report)
		if err != nil {
			return err
		}
		cases = slices.Concat(left, cases[n:])
	}
	return nil
}

// runNamed runs cases in one process, which all differ, and returns those that are still to be run after a crash.
func (p Program) runNamed(ctx context.Context, cases []Case, report func(Result) error) (left []Case, err error) {
	names := make([]string, len(cases))
	for i, c := range cases {
		names[i] = c.String()
	}
	done := map[Case]bool{}
	var last Case // the last case that was printed, with a status or without
	err = p.start(ctx, []string{"test", "-o", strings.Join(names, ",")}, func(text string) error {
		_, c, _, ok := parseLine(text)
		if !ok {
			return nil
		}
		last = c
		r, ok := parseResult(text)
		if !ok || done[c] { // some cases exist twice; the first result counts
			return nil
		}
		done[c] = true
		return report(r)
	})
	var crash *crashError
	switch {
	case errors.As(err, &crash) && len(cases) == 1:
		return nil, report(Result{cases[0], p.outcome(crash), crash.Error()})
	case errors.As(err, &crash):
		// The program prints a case when it has computed it, so the next one is suspect. It runs
		// alone, since the lines of several cases may be lost with the process.
		at := slices.Index(cases, last) + 1
		for at < len(cases) && done[cases[at]] {
			at++
		}
		if at == len(cases) {
			return nil, fmt.Errorf("test-backend-ops crashed after its last case: %w", err)
		}
		if _, err := p.runNamed(ctx, cases[at:at+1], report); err != nil {
			return nil, err
		}
		done[cases[at]] = true
		return slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return done[c] }), nil
	case err != nil:
		return nil, err
	}
	for _, c := range cases {
		if done[c] {
			continue
		}
		done[c] = true
		if err := report(Result{c, Different, "not reported: its tensors were not allocated"}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// RunOperation runs the cases of an operation, or of several that commas separate, whose parameters match a
// regular expression; empty: all. An operation without a case is an error.
func (p Program) RunOperation(ctx context.Context, operation, params string, report func(Result) error) error {
	args := []string{"test", "-o", operation}
	if params != "" {
		args = append(args, "-p", params)
	}
	missing := map[string]bool{}
	for name := range strings.SplitSeq(operation, ",") {
		missing[name] = true
	}
	err := p.start(ctx, args, func(text string) error {
		r, ok := parseResult(text)
		if !ok {
			return nil
		}
		delete(missing, r.Operation)
		return report(r)
	})
	var crash *crashError
	switch {
	case errors.As(err, &crash):
		return report(Result{Case{operation, "after the cases above"}, p.outcome(crash), crash.Error()})
	case err == nil && len(missing) > 0:
		return fmt.Errorf("test-backend-ops has no case of %s whose parameters match %q", slices.Sorted(maps.Keys(missing)), params)
	}
	return err
}

// crashError reports a program that a signal ended.
type crashError struct {
	text string
	hung bool // the signal was sent because the time of a case was over
}

// outcome returns the outcome of the case that was running.
func (p Program) outcome(e *crashError) Outcome {
	if p.Slow && e.hung {
		return TooSlow
	}
	return Crashed
}

// Error says how the program ended.
func (e *crashError) Error() string { return e.text }

// start runs the program and calls read with each line of its output.
func (p Program) start(ctx context.Context, args []string, read func(string) error) error {
	limit := p.CaseLimit
	if limit == 0 {
		limit = DefaultCaseLimit
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	argv := slices.Concat(p.Argv, args, []string{"-b", p.Device})
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = p.Dir, p.Env
	cmd.WaitDelay = 10 * time.Second
	stderr := &tail{limit: 4096}
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start test-backend-ops: %w", err)
	}
	var hung atomic.Bool
	watch := time.AfterFunc(limit, func() {
		hung.Store(true)
		_ = cmd.Process.Kill()
	})
	var failed error
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		watch.Reset(limit)
		if text != "" && failed == nil {
			if failed = read(text); failed != nil {
				cancel()
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && failed == nil {
				failed = err
			}
			break
		}
	}
	err = cmd.Wait()
	watch.Stop()
	var exit *exec.ExitError
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return ctx.Err()
	case hung.Load():
		return &crashError{fmt.Sprintf("it had no result after %s", limit), true}
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return &crashError{strings.TrimSpace(fmt.Sprintf("signal: %s; %s", status.Signal(), stderr.lastLine())), false}
		}
		if exit.ExitCode() == 1 {
			return nil // some cases differ
		}
		return fmt.Errorf("test-backend-ops: %w: %s", err, stderr.lastLine())
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	text  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-t.limit):]
	return len(p), nil
}

func (t *tail) lastLine() string {
	text := strings.TrimSpace(string(t.text))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
