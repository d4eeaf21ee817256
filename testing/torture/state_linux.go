package torture

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// state is what a test may leave behind.
type state struct {
	goroutines int
	files      []string // open ones, as "DESCRIPTOR TARGET"
	children   []string // living ones, orphans included, as "PID NAME"
	temporary  []string // in the folder for temporary files
	mounts     []string // below that folder
}

func look() (state, error) {
	s := state{goroutines: runtime.NumGoroutine()}
	var err error
	if s.files, err = openFiles(); err != nil {
		return s, err
	}
	if s.children, err = children(os.Getpid()); err != nil {
		return s, err
	}
	tmp := os.TempDir()
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return s, err
	}
	for _, e := range entries {
		s.temporary = append(s.temporary, filepath.Join(tmp, e.Name()))
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return s, err
	}
	s.mounts = mountsBelow(string(table), tmp)
	return s, nil
}

// beyond names what is there now and was not before. Of goroutines and open
// files it compares the number: both are made anew all the time.
func (s state) beyond(before state) []string {
	var more []string
	if s.goroutines > before.goroutines {
		more = append(more, fmt.Sprintf("%d goroutines, %d before", s.goroutines, before.goroutines))
	}
	if len(s.files) > len(before.files) {
		more = append(more, fmt.Sprintf("%d open files, %d before: %s", len(s.files), len(before.files), strings.Join(s.files, ", ")))
	}
	for _, kind := range []struct {
		what        string
		now, before []string
	}{{"process", s.children, before.children}, {"temporary file", s.temporary, before.temporary}, {"mount", s.mounts, before.mounts}} {
		for _, one := range kind.now {
			if !slices.Contains(kind.before, one) {
				more = append(more, kind.what+" "+one)
			}
		}
	}
	return more
}

// openFiles lists the descriptors of this process, but for the one that lists
// them.
func openFiles() ([]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			out = append(out, e.Name()+" "+to)
		}
	}
	return out, nil
}

// children lists the living processes whose parent is pid. An orphan that has
// ended and was adopted is reaped on the way: nobody else does.
func children(pid int) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended meanwhile
		}
		name, state, parent, ok := parseStat(stat)
		switch {
		case !ok || parent != pid:
		case state == 'Z' || state == 'X':
			_, _ = unix.Wait4(child, nil, unix.WNOHANG, nil) // whoever else reaps it is welcome
		default:
			out = append(out, fmt.Sprintf("%d %s", child, name))
		}
	}
	return out, nil
}

// parseStat takes name, state and parent from /proc/PID/stat, see proc(5).
func parseStat(stat []byte) (name string, state byte, parent int, ok bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')') // the name may hold anything
	if open < 0 || end < open {
		return "", 0, 0, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 2 || len(fields[0]) != 1 {
		return "", 0, 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return string(stat[open+1 : end]), fields[0][0], parent, err == nil
}

// mountsBelow lists the mount points below dir, from /proc/self/mountinfo.
func mountsBelow(table, dir string) []string {
	var out []string
	for line := range strings.Lines(table) {
		const point = 4
		if f := strings.Fields(line); len(f) > point && strings.HasPrefix(f[point], dir+"/") {
			out = append(out, f[point])
		}
	}
	return out
}
