package ci

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// keptOutput limits the output of a failed test in the log, in bytes.
const keptOutput = 32 << 10

// event is one line of `go test -json`, see `go doc cmd/test2json` and
// `go help buildjson`.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string
	Elapsed                       float64
}

// Report is the result of a stream of test events.
type Report struct {
	Count
	// Names lists the failed tests as "package Test: first line of its output" in the order
	// in which they ended, or the package if no test of it failed.
	Names []string
}

// namesShown limits the number of failed tests in an error.
const namesShown = 20

// Err returns an error that names the failed tests, or nil if none failed.
func (r Report) Err() error {
	if r.Failed == 0 {
		return nil
	}
	shown := r.Names[:min(namesShown, len(r.Names))]
	more := ""
	if n := len(r.Names) - len(shown); n > 0 {
		more = fmt.Sprintf("\n  and %d more", n)
	}
	return fmt.Errorf("%d tests failed:\n  %s%s", r.Failed, strings.Join(shown, "\n  "), more)
}

// Tally reads the output of `go test -json` and counts the tests. It writes to out one
// line for each package, the output of each failed test and the reason of each skip. A
// package that fails outside its tests (it does not compile, panics or exceeds the time
// limit) counts as one failed test, unless it has unfinished tests: these count as
// failed.
func Tally(stream io.Reader, out io.Writer) (Report, error) {
	t := &tally{out: out, packages: map[string]*packageRun{}, builds: map[string]*tail{}}
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if len(strings.TrimSpace(string(line))) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// The go command also prints plain text.
				fmt.Fprintf(out, "%s\n", strings.TrimRight(string(line), "\n"))
			} else {
				t.add(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return t.report, t.checkFinished()
		}
		if err != nil {
			return t.report, fmt.Errorf("read the results of go test: %w", err)
		}
	}
}

type tally struct {
	out      io.Writer
	report   Report
	packages map[string]*packageRun
	builds   map[string]*tail // compiler output by import path
}

type packageRun struct {
	name   string
	count  Count
	tests  map[string]*testRun
	output tail
}

type testRun struct {
	name        string
	parent      *testRun
	children    bool // it has subtests
	started     bool // the slashes in the name of a subtest do not start what is before them
	ended       bool
	failedBelow bool // one of its subtests failed
	output      tail
}

func (t *tally) add(e event) {
	switch {
	case e.Action == "build-output":
		build := t.builds[e.ImportPath]
		if build == nil {
			build = &tail{}
			t.builds[e.ImportPath] = build
		}
		build.add(e.Output)
	case e.Package == "":
	case e.Test == "":
		t.addPackageEvent(t.run(e.Package), e)
	default:
		t.addTestEvent(t.run(e.Package), e)
	}
}

func (t *tally) run(name string) *packageRun {
	p := t.packages[name]
	if p == nil {
		p = &packageRun{name: name, tests: map[string]*testRun{}}
		t.packages[name] = p
	}
	return p
}

func (p *packageRun) test(name string) *testRun {
	if r := p.tests[name]; r != nil {
		return r
	}
	r := &testRun{name: name}
	p.tests[name] = r
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		r.parent = p.test(name[:i])
		r.parent.children = true
	}
	return r
}

func (t *tally) addTestEvent(p *packageRun, e event) {
	r := p.test(e.Test)
	r.started = true
	switch e.Action {
	case "output":
		r.output.add(e.Output)
	case "pass", "skip":
		r.ended = true
		if e.Action == "skip" {
			p.count.Skipped++
			fmt.Fprintf(t.out, "skipped %s %s\n%s", p.name, r.name, r.output.quoted())
		} else if !r.children {
			p.count.Passed++
		}
		r.output = tail{}
	case "fail":
		t.fail(p, r)
	}
}

func (t *tally) fail(p *packageRun, r *testRun) {
	r.ended = true
	for up := r.parent; up != nil; up = up.parent {
		up.failedBelow = true
	}
	if r.failedBelow {
		return
	}
	p.count.Failed++
	t.report.Names = append(t.report.Names, p.name+" "+r.name+r.output.first())
	fmt.Fprintf(t.out, "FAILED %s %s\n%s", p.name, r.name, r.output.quoted())
}

func (t *tally) addPackageEvent(p *packageRun, e event) {
	switch e.Action {
	case "output":
		p.output.add(e.Output)
	case "pass", "skip", "fail":
		if e.Action == "fail" {
			t.failPackage(p, e)
		}
		word := map[string]string{"pass": "ok", "skip": "no tests", "fail": "FAILED"}[e.Action]
		if e.Action != "skip" {
			fmt.Fprintf(t.out, "%-8s %s  %s  (%.1fs)\n", word, p.name, p.count, e.Elapsed)
		}
		t.report.Count = t.report.Add(p.count)
		delete(t.packages, p.name)
	}
}

// failPackage counts the unfinished tests as failed, the deepest first, or the package
// itself if no test failed.
func (t *tally) failPackage(p *packageRun, e event) {
	for _, r := range slices.SortedFunc(maps.Values(p.tests), func(a, b *testRun) int {
		return cmp.Or(cmp.Compare(len(b.name), len(a.name)), strings.Compare(a.name, b.name))
	}) {
		if r.started && !r.ended {
			t.fail(p, r)
		}
	}
	if p.count.Failed > 0 {
		return
	}
	p.count.Failed++
	fmt.Fprintf(t.out, "FAILED %s\n", p.name)
	says := p.output.first()
	if build := t.builds[e.FailedBuild]; build != nil {
		says = build.first()
		fmt.Fprint(t.out, build.quoted())
	}
	fmt.Fprint(t.out, p.output.quoted())
	t.report.Names = append(t.report.Names, p.name+says)
}

// checkFinished returns an error if the stream lacks the result of a package.
func (t *tally) checkFinished() error {
	if len(t.packages) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(t.packages))
	return fmt.Errorf("go test exited before it reported %s", strings.Join(names, ", "))
}

// tail keeps the last bytes of an output, at least keptOutput of them.
type tail struct {
	text []byte
	cut  bool
}

func (t *tail) add(s string) {
	t.text = append(t.text, s...)
	if len(t.text) > 2*keptOutput {
		t.text, t.cut = append(t.text[:0], t.text[len(t.text)-keptOutput:]...), true
	}
}

// first returns the first line that says more than which test runs, after a colon.
func (t *tail) first() string {
	const most = 300
	for line := range strings.Lines(string(t.text)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "# ") {
			return ": " + line[:min(most, len(line))]
		}
	}
	return ""
}

func (t *tail) quoted() string {
	if len(t.text) == 0 {
		return ""
	}
	head := ""
	if t.cut {
		head = "    … (cut)\n"
	}
	text := strings.TrimRight(string(t.text), "\n")
	return head + "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}
