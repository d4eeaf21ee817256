package ci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// fuzzPackage is a package with fuzz tests, as `go list -json` describes it.
type fuzzPackage struct {
	Dir, ImportPath           string
	TestGoFiles, XTestGoFiles []string

	targets []string // the names of its fuzz tests
}

// fuzz runs every fuzz test for a number of inputs. The go command fuzzes one test at a
// time and links the program of the package for each of them; this links it once for
// each package. Lint vets the packages, and the race step runs the seeds as tests.
func (p Project) fuzz(ctx context.Context, out io.Writer) (_ Count, err error) {
	packages, err := p.fuzzPackages(ctx, out)
	if err != nil {
		return Count{}, err
	}
	cache, err := p.command(out, nil, "go", "env", "GOCACHE").output(ctx)
	if err != nil {
		return Count{}, err
	}
	work, err := os.MkdirTemp("", "go-rocm-fuzz-")
	if err != nil {
		return Count{}, fmt.Errorf("create a directory for fuzz tests: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	var sum Count
	var failed []error
	program := filepath.Join(work, "fuzz.test")
	for _, pkg := range packages {
		build := command{dir: pkg.Dir, out: out, argv: []string{"go", "test", "-c", "-fuzz=.", "-vet=off", "-ldflags=-s -w", "-o", program, "."}}
		if err := build.run(ctx); err != nil {
			failed = append(failed, fmt.Errorf("compile the fuzz tests of %s: %w", pkg.ImportPath, err))
			continue
		}
		for _, name := range pkg.targets {
			c, err := p.fuzzOne(ctx, out, pkg, name, program, filepath.Join(cache, "fuzz", pkg.ImportPath))
			sum, failed = sum.Add(c), append(failed, err)
		}
	}
	return sum, errors.Join(failed...)
}

// fuzzOne runs a fuzz test of a compiled package as the go command does: in the
// directory of the package, with the inputs that earlier runs found in corpus.
func (p Project) fuzzOne(ctx context.Context, out io.Writer, pkg fuzzPackage, name, program, corpus string) (Count, error) {
	return command{dir: pkg.Dir, out: out, argv: []string{
		"go", "tool", "test2json", "-t", "-p", pkg.ImportPath, program, "-test.v=test2json", "-test.paniconexit0", "-test.timeout=10m",
		"-test.run=^$", "-test.fuzz=^" + name + "$", "-test.fuzzcachedir=" + corpus,
		"-test.fuzztime=" + strconv.Itoa(p.FuzzRuns) + "x", "-test.fuzzminimizetime=10x",
	}}.tally(ctx)
}

// fuzzPackages lists the packages with fuzz tests. It reads their files, as the go
// command does when it writes the main function of the tests, and compiles nothing.
func (p Project) fuzzPackages(ctx context.Context, out io.Writer) ([]fuzzPackage, error) {
	dirs, err := p.testedModules()
	if err != nil {
		return nil, err
	}
	var found []fuzzPackage
	for _, dir := range dirs {
		c := command{dir: dir, out: out, argv: []string{"go", "list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles", "./..."}}
		list, err := c.output(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the packages in %s: %w", dir, err)
		}
		for decoder := json.NewDecoder(strings.NewReader(list)); decoder.More(); {
			var pkg fuzzPackage
			if err := decoder.Decode(&pkg); err != nil {
				return nil, fmt.Errorf("list the packages in %s: %w", dir, err)
			}
			for _, name := range slices.Concat(pkg.TestGoFiles, pkg.XTestGoFiles) {
				names, err := fuzzTests(filepath.Join(pkg.Dir, name))
				if err != nil {
					return nil, fmt.Errorf("find the fuzz tests: %w", err)
				}
				pkg.targets = append(pkg.targets, names...)
			}
			if len(pkg.targets) > 0 {
				slices.Sort(pkg.targets)
				found = append(found, pkg)
			}
		}
	}
	slices.SortFunc(found, func(a, b fuzzPackage) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return found, nil
}

// fuzzTests returns the names of the fuzz tests in a file.
func fuzzTests(file string) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && isFuzzTest(fn) {
			names = append(names, fn.Name.Name)
		}
	}
	return names, nil
}

// isFuzzTest reports whether a function is a fuzz test: its name is FuzzXxx, where Xxx
// does not begin with a lower case letter. The go command rejects one with another
// signature.
func isFuzzTest(fn *ast.FuncDecl) bool {
	rest, ok := strings.CutPrefix(fn.Name.Name, "Fuzz")
	first, _ := utf8.DecodeRuneInString(rest)
	return ok && fn.Recv == nil && !unicode.IsLower(first)
}
