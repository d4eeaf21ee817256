package build

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// emulatedTests is a program with tests, and what has passed.
type emulatedTests struct {
	program, dir string
	env          []string // in addition to the environment of the process
	passed       string   // the file with the names of the tests that have passed
	out, errors  io.Writer
}

// run runs the tests that have not passed yet, and notes each that passes. A test with subtests continues with those that
// have not passed.
func (t emulatedTests) run(ctx context.Context) (err error) {
	names, err := os.ReadFile(t.passed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(t.passed, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	args := []string{"-test.run=" + emulateTests, "-test.v", "-test.count=1", "-test.timeout=0"}
	if skip := skipPattern(strings.Fields(string(names))); skip != "" {
		args = append(args, "-test.skip="+skip)
	}
	cmd := exec.CommandContext(ctx, t.program, args...)
	cmd.Dir, cmd.Env = t.dir, append(os.Environ(), t.env...)
	watch := &passWatcher{out: t.out, note: f}
	cmd.Stdout, cmd.Stderr = watch, t.errors
	return errors.Join(procgroup.Run(ctx, cmd, shutdownGrace), watch.failed)
}

// skipPattern returns the pattern of -test.skip for tests, whose names have a slash before that of a subtest. A test comes
// before its subtests: package testing uses the first pattern that matches a part of a name.
func skipPattern(names []string) string {
	names = slices.SortedStableFunc(slices.Values(names), func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	patterns := make([]string, len(names))
	for n, name := range names {
		elements := strings.Split(name, "/")
		for i, e := range elements {
			elements[i] = "^" + regexp.QuoteMeta(e) + "$"
		}
		patterns[n] = strings.Join(elements, "/")
	}
	return strings.Join(patterns, "|")
}

// passed matches the line that ends a test.
var passed = regexp.MustCompile(`^\s*--- PASS: (\S+) \(`)

// passWatcher copies the output of tests and notes the names of those that pass.
type passWatcher struct {
	out, note io.Writer
	line      []byte
	failed    error
}

// Write implements io.Writer.
func (w *passWatcher) Write(p []byte) (int, error) {
	w.line = append(w.line, p...)
	for {
		text, rest, whole := bytes.Cut(w.line, []byte("\n"))
		if !whole {
			break
		}
		if m := passed.FindSubmatch(text); m != nil && w.failed == nil {
			_, w.failed = w.note.Write(append(m[1], '\n'))
		}
		w.line = rest
	}
	return w.out.Write(p)
}
