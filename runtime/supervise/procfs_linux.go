package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processStartTime returns when a process started, in clock ticks since boot
// (field 22 of /proc/PID/stat, proc(5)).
func processStartTime(pid int) (uint64, error) {
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

// procStat is the part of /proc/PID/stat that identifies a process and shows
// whether it runs.
type procStat struct {
	start uint64 // in clock ticks since boot
	state byte   // its letter
	flags uint64 // PF_* of the kernel
}

// parseStat parses the line of /proc/PID/stat, see proc(5).
func parseStat(stat []byte) (procStat, error) {
	i := bytes.LastIndexByte(stat, ')') // the name may contain any byte
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

// isZombie reports whether the process waits only to be reaped.
func (s procStat) isZombie() bool { return s.state == 'Z' || s.state == 'X' }

// isExiting reports whether the kernel is already releasing what the process
// owned (PF_EXITING in include/linux/sched.h).
func (s procStat) isExiting() bool { return s.flags&0x4 != 0 }

// isRunning reports whether pid is still the process that started at start, and
// is not a zombie.
func isRunning(pid int, start uint64) bool {
	s, err := readStat(pid)
	return err == nil && start != 0 && s.start == start && !s.isZombie()
}

// bootID returns the id of the current boot, empty if it cannot be read.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// oomKills returns how many processes of this control group the kernel's
// out-of-memory killer has ended; 0 if the counter cannot be read.
func oomKills() uint64 {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0
	}
	for _, name := range oomCounters(string(groups), string(mounts)) {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			var n uint64
			if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
				return n
			}
		}
	}
	return 0
}

// oomCounters returns the files that count OOM kills in this control group, of
// version 2 and 1, from the texts of /proc/self/cgroup and /proc/self/mountinfo
// (cgroups(7), proc(5)). A container sees a part of the hierarchy: the mount starts
// at its root, which oomCounters cuts from the group's path.
func oomCounters(groups, mounts string) []string {
	paths := map[string]string{} // of this group, by type of hierarchy
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			paths["cgroup2"] = parts[2]
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			paths["cgroup"] = parts[2]
		}
	}
	var out []string
	for line := range strings.Lines(mounts) {
		// ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 6 || len(tail) < 3 {
			continue
		}
		kind, root, point := tail[0], head[3], head[4]
		group, ours := paths[kind]
		if kind == "cgroup" && !slices.Contains(strings.Split(tail[2], ","), "memory") {
			ours = false
		}
		if root != "/" {
			below, inside := strings.CutPrefix(group, root)
			ours = ours && inside && (below == "" || below[0] == '/')
			group = below
		}
		if !ours || strings.Contains(group, "..") {
			continue // a group outside the mount
		}
		name := map[string]string{"cgroup": "memory.oom_control", "cgroup2": "memory.events"}[kind]
		out = append(out, path.Join(point, group, name))
	}
	return out
}
