package supervise

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// startTime reads when a process began, in clock ticks since boot (field 22 of
// /proc/PID/stat, proc(5)).
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	start, _, err := parseStat(raw)
	return start, err
}

// parseStat takes the start time and the state's letter from /proc/PID/stat.
func parseStat(stat []byte) (start uint64, state byte, err error) {
	i := bytes.LastIndexByte(stat, ')') // the name may hold anything
	if i < 0 {
		return 0, 0, fmt.Errorf("no process name in %q", stat)
	}
	fields := strings.Fields(string(stat[i+1:]))
	const startField = 22 - 3 // the state is field 3
	if len(fields) <= startField {
		return 0, 0, fmt.Errorf("only %d fields after the process name", len(fields))
	}
	start, err = strconv.ParseUint(fields[startField], 10, 64)
	return start, fields[0][0], err
}

// alive reports whether pid is still the process that began at start, and more
// than a zombie that nobody has reaped.
func alive(pid int, start uint64) bool {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	t, state, err := parseStat(raw)
	return err == nil && start != 0 && t == start && state != 'Z' && state != 'X'
}

// bootID tells one boot of the machine from another.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// marked gives the processes of this user that carry the marker.
func marked(marker string) []int {
	if marker == "" {
		return nil
	}
	want := []byte(markerName + "=" + marker)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue // of another user, or gone
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(kv, want) {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

// killMarked ends what carries the marker, also what such processes start
// meanwhile. A pidfd is opened before the marker is read a second time, so that
// a reused pid is never meant.
func killMarked(marker string) int {
	killed := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		for _, pid := range marked(marker) {
			if !killed[pid] && killChecked(pid, func() bool { return hasMarker(pid, marker) }) {
				killed[pid], fresh = true, true
			}
		}
	}
	return len(killed)
}

func hasMarker(pid int, marker string) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+markerName+"="+marker+"\x00"))
}

// killChecked sends SIGKILL to pid if still holds while a handle to it is open.
func killChecked(pid int, still func() bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if err == unix.ENOSYS && still() {
			return unix.Kill(pid, unix.SIGKILL) == nil
		}
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if !still() {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}
