package several

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// child is a llama-server that a service has started.
type child struct {
	argv, env []string
	dir       string
	libraries string // a directory of libraries that replace those of the bundle; empty: none
}

// program returns the place of llama-server among the arguments: the first, or one after
// the loader of the bundle. It returns -1 if there is none.
func (c *child) program() int {
	return slices.IndexFunc(c.argv, func(arg string) bool { return filepath.Base(arg) == "llama-server" })
}

// withLibraries returns the process with the libraries of a directory before those of the
// bundle, or the process itself if dir is empty.
func (c *child) withLibraries(dir string) *child {
	if dir == "" {
		return c
	}
	out := *c
	out.argv, out.libraries = slices.Clone(c.argv), dir
	for i := range max(c.program()-1, 0) {
		if out.argv[i] == "--library-path" {
			out.argv[i+1] = dir + string(filepath.ListSeparator) + out.argv[i+1]
		}
	}
	return &out
}

// libraryPath returns where a process finds the libraries that its loader is not told of by
// an argument: those that replace others, and those of a bundle with a loader.
func (c *child) libraryPath() string {
	var dirs []string
	if c.libraries != "" {
		dirs = append(dirs, c.libraries)
	}
	if c.program() > 0 {
		dirs = append(dirs, c.dir)
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// child returns the process that has loaded a model.
func (s *service) child(file string) (*child, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		stat, _ := os.ReadFile(filepath.Join(proc, "stat")) // processes end while they are listed
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) < 2 || fields[1] != strconv.Itoa(s.cmd.Process.Pid) {
			continue
		}
		argv, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if !bytes.Contains(argv, []byte("/"+file+"\x00")) {
			continue
		}
		env, err := os.ReadFile(filepath.Join(proc, "environ"))
		if err != nil {
			return nil, err
		}
		dir, err := os.Readlink(filepath.Join(proc, "cwd"))
		if err != nil {
			return nil, err
		}
		return &child{argv: splitZero(argv), env: splitZero(env), dir: dir}, nil
	}
	return nil, fmt.Errorf("no child of %s has loaded %s", s.name, file)
}

func splitZero(raw []byte) []string {
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}

// value returns the value of the last of an argument.
func (c *child) value(flag string) string {
	for i := len(c.argv) - 2; i > 0; i-- {
		if c.argv[i] == flag {
			return c.argv[i+1]
		}
	}
	return ""
}

// key returns the API key that the child requires.
func (c *child) key() string {
	for _, e := range c.env {
		if key, ok := strings.CutPrefix(e, "LLAMA_API_KEY="); ok {
			return key
		}
	}
	return ""
}
