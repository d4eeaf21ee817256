package selftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// OperationsName is the name of llama.cpp's program that compares a backend's
// operations with the CPU's.
const OperationsName = "test-backend-ops"

// Operations are the results of [OperationsName] on a backend, by cases.
type Operations struct {
	Device      string      `json:"device"` // llama.cpp's name, such as ROCm0
	Equal       int         `json:"equal"`
	Different   int         `json:"different"`
	Unsupported int         `json:"unsupported"`
	Complete    bool        `json:"complete"` // all cases were compared
	Table       []Operation `json:"table"`
	// Cases are the first cases that differ.
	Cases []string `json:"cases,omitempty"`
}

// Operation counts the cases of one operation.
type Operation struct {
	Name        string `json:"name"`
	Equal       int    `json:"equal"`
	Different   int    `json:"different"`
	Unsupported int    `json:"unsupported"`
}

// maxCases limits Operations.Cases.
const maxCases = 50

var (
	colour = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	// caseLine is the result of a case. Before it on the same line, the program may have
	// written how much the result differs.
	caseLine = regexp.MustCompile(`(?:^|\s)([A-Za-z0-9_]+)\((.*)\): (OK|FAIL|.*FAIL$|not supported)`)
)

// add counts a line of the program's output.
func (o *Operations) add(line string) {
	line = colour.ReplaceAllString(line, "")
	m := caseLine.FindStringSubmatch(line)
	if m == nil {
		return
	}
	i := slices.IndexFunc(o.Table, func(op Operation) bool { return op.Name == m[1] })
	if i < 0 {
		i = len(o.Table)
		o.Table = append(o.Table, Operation{Name: m[1]})
	}
	op := &o.Table[i]
	switch m[3] {
	case "OK":
		op.Equal++
		o.Equal++
	case "not supported":
		op.Unsupported++
		o.Unsupported++
	default:
		op.Different++
		o.Different++
		if len(o.Cases) < maxCases {
			o.Cases = append(o.Cases, strings.TrimSpace(line))
		}
	}
}

// operations compares the backend's operations with the CPU's.
func (s *session) operations(ctx context.Context) Result {
	program, err := FindOperations(s.o.Operations, s.o.Settings.Bundle)
	if err != nil {
		return notPossible("give the path of the program with --operations; docs/selftest.md says where it comes from", "%v", err)
	}
	argv, dir, done, err := s.operationsCommand(ctx, program)
	if err != nil {
		return failed(remedyDoctor, "%s", firstLine(err.Error()))
	}
	defer done()
	o := Operations{Device: deviceName(s.plan)}
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(s.o.operationsLimit, s.operationsTime()), errStep)
	defer cancel()
	err = supervise.Lines(ctx, supervise.Probe{Argv: argv, Dir: dir}, s.plan.Env, o.add, "test", "-b", o.Device)
	o.Complete = err == nil || o.Different > 0 && ctx.Err() == nil // the exit status reports differences
	res := o.result(err, ctx.Err() != nil)
	if o.Equal+o.Different+o.Unsupported > 0 {
		res.Operations = &o
	}
	return res
}

// result judges the counts; err is that of the program, and cut says that the time was
// over before its end.
func (o *Operations) result(err error, cut bool) Result {
	figures := fmt.Sprintf("%d cases equal the CPU's, %d differ, %d are not supported", o.Equal, o.Different, o.Unsupported)
	switch {
	case o.Different > 0:
		return failed("do not use this backend for models with these operations, and attach this report to an issue", "%s", figures)
	case cut && o.Equal == 0, err == nil && o.Equal == 0:
		return notPossible(`repeat the test with --backend, so that more time is left`, "no case was compared")
	case cut:
		return passed("%s, in the time that was left; there are more cases", figures)
	case err != nil:
		return failed("attach this report to an issue", "%s ended with an error after %s: %s", OperationsName, figures, firstLine(err.Error()))
	}
	return passed("%s", figures)
}

// operationsTime returns the time for the step: what is left, in equal parts for the
// backends that follow.
func (s *session) operationsTime() time.Duration {
	following := 1
	for i := len(s.sessions) - 1; i >= 0 && s.sessions[i] != s; i-- {
		following++
	}
	return max(time.Second, (time.Until(s.deadline)-2*time.Second)/time.Duration(following))
}

// operationsCommand returns how to start the program with the bundle's libraries.
func (s *session) operationsCommand(ctx context.Context, program string) (argv []string, dir string, done func(), err error) {
	b, err := locate.Find(s.o.Settings.Bundle)
	if err != nil {
		return nil, "", nil, err
	}
	defer func() { _ = b.Close() }()
	targets := []gfx.Target{}
	if s.plan.Target != "" {
		targets = append(targets, s.plan.Target)
	}
	p, err := b.Unpack(ctx, locate.UnpackOptions{Targets: targets, LibraryDirs: s.machine.LibraryDirs, Log: s.log})
	if err != nil {
		return nil, "", nil, err
	}
	argv = slices.Clone(p.Argv)
	argv[len(argv)-1] = program
	return argv, p.Dir, func() { _ = p.Close() }, nil
}

// FindOperations returns the path of the program: the given one, or the first of these:
// in the directory of the bundle, beside the bundle, and beside this program. A program
// that another user can change is not used unless it is given.
func FindOperations(given, bundle string) (string, error) {
	if given != "" {
		path, err := filepath.Abs(given)
		if err == nil {
			err = checkProgram(path, false)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", OperationsName, err)
		}
		return path, nil
	}
	var dirs []string
	if b, err := locate.Find(bundle); err == nil {
		if b.Dir != "" {
			dirs = append(dirs, b.Dir)
		}
		if b.Path != "" {
			dirs = append(dirs, filepath.Dir(b.Path))
		}
		_ = b.Close()
	}
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, OperationsName)
		err := checkProgram(path, true)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", OperationsName, err)
		}
		return path, nil
	}
	return "", fmt.Errorf("the program %s is not installed", OperationsName)
}

// checkProgram checks that a path is an executable file; with private set, also that
// nobody but its owner can change it, who is this user or root.
func checkProgram(path string, private bool) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not an executable file", path)
	case private && (info.Mode()&0o022 != 0 || !ownFile(info)):
		return fmt.Errorf("%s can be changed by other users; name it with --operations to use it all the same", path)
	}
	return nil
}
