package torture

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/goroutines"
)

// snapshot lists the resources that a test may leak.
type snapshot struct {
	goroutines goroutines.Set
	files      []string // open files, as "DESCRIPTOR TARGET"
	children   []string // running processes, orphans included, as "PID NAME"
	temporary  []string // files in the directory for temporary files
	mounts     []string // mount points below that directory
}

// takeSnapshot lists the current resources of this process.
func takeSnapshot() (snapshot, error) {
	s := snapshot{goroutines: goroutines.Running()}
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

// since lists the resources that the snapshot has and before does not have. It compares
// goroutines and open files by their number for each function and target: they are
// replaced all the time, and one that is about to end must not hide a new one.
func (s snapshot) since(before snapshot) []string {
	more := s.goroutines.Since(before.goroutines)
	now, old := byTarget(s.files), byTarget(before.files)
	for _, target := range slices.Sorted(maps.Keys(now)) {
		if len(now[target]) > len(old[target]) {
			more = append(more, fmt.Sprintf("%d open files, %d before: %s", len(now[target]), len(old[target]), strings.Join(now[target], ", ")))
		}
	}
	for _, kind := range []struct {
		what        string
		now, before []string
	}{{"process", s.children, before.children}, {"temporary file", s.temporary, before.temporary}, {"mount", s.mounts, before.mounts}} {
		for _, name := range kind.now {
			if !slices.Contains(kind.before, name) {
				more = append(more, kind.what+" "+name)
			}
		}
	}
	return more
}

// byTarget groups open files by their target, sockets and pipes by their type.
func byTarget(files []string) map[string][]string {
	groups := map[string][]string{}
	for _, f := range files {
		_, target, _ := strings.Cut(f, " ")
		if kind, _, ok := strings.Cut(target, ":["); ok {
			target = kind
		}
		groups[target] = append(groups[target], f)
	}
	return groups
}

// openFiles lists the descriptors of this process, without the one of the listing.
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

// children lists the running processes whose parent is pid. It reaps the adopted
// orphans that have exited: no other code does.
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
			continue // it has exited
		}
		name, status, parent, ok := parseStat(stat)
		switch {
		case !ok || parent != pid:
		case status == 'Z' || status == 'X':
			_, _ = unix.Wait4(child, nil, unix.WNOHANG, nil) // another goroutine may reap it too
		default:
			out = append(out, fmt.Sprintf("%d %s", child, name))
		}
	}
	return out, nil
}

// parseStat parses name, state and parent of /proc/PID/stat, see proc(5).
func parseStat(stat []byte) (name string, status byte, parent int, ok bool) {
	begin, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')') // the name may contain any character
	if begin < 0 || end < begin {
		return "", 0, 0, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 2 || len(fields[0]) != 1 {
		return "", 0, 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return string(stat[begin+1 : end]), fields[0][0], parent, err == nil
}

// mountsBelow returns the mount points below dir in /proc/self/mountinfo.
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
