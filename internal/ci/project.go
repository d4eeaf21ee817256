package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Project is the project under check. The zero value means the current directory, the
// user's cache directory and a thousand inputs for each fuzz test.
type Project struct {
	// Root is the directory with go.mod.
	Root string
	// Cache is the directory that keeps the lint tools.
	Cache string
	// FuzzRuns is the number of inputs for each fuzz test. It is a number and not a
	// duration: a run that reaches its time limit while the engine minimises an input
	// fails with "context deadline exceeded".
	FuzzRuns int
	// AllCases makes the race, end-to-end and install tests try every case of those that are
	// many and alike.
	AllCases bool
}

func (p Project) withDefaults() (Project, error) {
	if p.Root == "" {
		p.Root = "."
	}
	root, err := filepath.Abs(p.Root)
	if err != nil {
		return p, fmt.Errorf("resolve the project's directory: %w", err)
	}
	p.Root = root
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return p, fmt.Errorf("the checks run in the directory with go.mod: %w", err)
	}
	if p.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return p, fmt.Errorf("find a directory for the lint tools: %w; set HOME or XDG_CACHE_HOME", err)
		}
		p.Cache = filepath.Join(dir, "go-rocm")
	}
	if p.FuzzRuns == 0 {
		p.FuzzRuns = 1000
	}
	return p, nil
}

func (p Project) command(out io.Writer, env []string, argv ...string) command {
	return command{dir: p.Root, env: env, out: out, argv: argv}
}

// modules returns the directories of all Go modules of the project, the main one first.
func (p Project) modules() ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(p.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != p.Root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "dist") {
			return filepath.SkipDir
		}
		if !d.IsDir() && name == "go.mod" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find the Go modules: %w", err)
	}
	return dirs, nil
}

// testedModules returns the modules with tests. The go command fails in one whose files
// all have a build tag, such as the one of the mage targets.
func (p Project) testedModules() ([]string, error) {
	dirs, err := p.modules()
	if err != nil {
		return nil, err
	}
	var tested []string
	for _, dir := range dirs {
		has, err := hasTests(dir)
		if err != nil {
			return nil, fmt.Errorf("find the tests in %s: %w", dir, err)
		}
		if has {
			tested = append(tested, dir)
		}
	}
	return tested, nil
}

// hasTests reports whether the module in dir has a test file; nested modules do not
// count.
func hasTests(dir string) (found bool, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir:
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
		case strings.HasSuffix(d.Name(), "_test.go"):
			found = true
			return filepath.SkipAll
		}
		return nil
	})
	return found, err
}

// inModules runs a command in each module of the project and joins the errors.
func (p Project) inModules(ctx context.Context, out io.Writer, env []string, argv ...string) error {
	dirs, err := p.modules()
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		if err := (command{dir: dir, env: env, out: out, argv: argv}).run(ctx); err != nil {
			name, relErr := filepath.Rel(p.Root, dir)
			if relErr != nil {
				name = dir
			}
			failed = append(failed, fmt.Errorf("in module %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}
