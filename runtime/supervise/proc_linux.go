package supervise

import (
	"bytes"
	"errors"
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
	s, err := readStat(pid)
	return s.start, err
}

func readStat(pid int) (procStat, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(raw)
}

// procStat is what of /proc/PID/stat tells one process from another and whether
// it lives.
type procStat struct {
	start uint64 // in clock ticks since boot
	state byte   // its letter
	flags uint64 // PF_* of the kernel
}

// parseStat reads the line of /proc/PID/stat, see proc(5).
func parseStat(stat []byte) (procStat, error) {
	i := bytes.LastIndexByte(stat, ')') // the name may hold anything
	if i < 0 {
		return procStat{}, fmt.Errorf("no process name in %q", stat)
	}
	fields := strings.Fields(string(stat[i+1:]))
	const state, flags, start = 0, 9 - 3, 22 - 3 // fields 3, 9 and 22 of proc(5)
	if len(fields) <= start {
		return procStat{}, fmt.Errorf("only %d fields after the process name", len(fields))
	}
	s := procStat{state: fields[state][0]}
	var flagsErr, startErr error
	s.flags, flagsErr = strconv.ParseUint(fields[flags], 10, 64)
	s.start, startErr = strconv.ParseUint(fields[start], 10, 64)
	return s, errors.Join(flagsErr, startErr)
}

// dead reports a zombie, which waits for nothing but being reaped.
func (s procStat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// exiting reports a process that will not run its program any more: the kernel
// takes down what it had (PF_EXITING in include/linux/sched.h).
func (s procStat) exiting() bool { return s.flags&0x4 != 0 }

// alive reports whether pid is still the process that began at start, and more
// than a zombie that nobody has reaped.
func alive(pid int, start uint64) bool {
	s, err := readStat(pid)
	return err == nil && start != 0 && s.start == start && !s.dead()
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
