package supervise

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// excess is the memory for which a process was killed.
type excess struct {
	allocated int64 // bytes; 0: it was not killed
	left      int64 // bytes that the host had left, of a process that served
	serving   bool
}

// limitMemory kills a process that has allocated more than Spec.LoadingMemory while
// it loads.
func (c *Child) limitMemory(p *process) {
	if c.spec.LoadingMemory <= 0 || p.excess.allocated != 0 {
		return
	}
	if n := anonymousMemory(p.pid); n > c.spec.LoadingMemory {
		c.killForMemory(p, excess{allocated: n})
	}
}

// killForMemory kills a process and notes why.
func (c *Child) killForMemory(p *process, e excess) {
	p.excess = e
	p.signal(unix.SIGKILL)
}

const (
	// memoryInterval is the time between two looks at the memory of a process with
	// requests. A chat template that grows without end fills 1 GiB in about a second.
	memoryInterval = 250 * time.Millisecond
	// idleMemoryInterval is the same without requests: one that was abandoned may
	// still allocate.
	idleMemoryInterval = 2 * time.Second
)

// watchMemory sends the excess of a ready process to out, once, see
// Spec.HostMemory. It reads no more than files of /proc.
func (c *Child) watchMemory(ctx context.Context, p *process, out chan<- excess) {
	timer := time.NewTimer(memoryInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		allocated := anonymousMemory(p.pid)
		if allocated > c.spec.LoadingMemory {
			usable, available := c.spec.HostMemory()
			if left, short := memoryLeft(allocated, usable, available); short {
				select {
				case out <- excess{allocated: allocated, left: left, serving: true}:
				case <-ctx.Done():
				}
				return
			}
		}
		if p.load.inFlight.Load() > 0 || allocated > c.spec.LoadingMemory {
			timer.Reset(memoryInterval)
		} else {
			timer.Reset(idleMemoryInterval)
		}
	}
}

// memoryLeft returns how much memory is left beside a program that has allocated
// some, and whether that is too little to go on, see Spec.HostMemory.
func memoryLeft(allocated int64, usable, available uint64) (left int64, short bool) {
	if usable == 0 {
		return 0, false // unknown
	}
	total := int64(min(usable, math.MaxInt64))
	left = min(int64(min(available, math.MaxInt64)), max(0, total-allocated))
	return left, left < min(max(total/32, 256<<20), 2<<30)
}

// anonymousMemory returns the memory in bytes that a process has allocated and
// touched, swapped out or not; 0 if it cannot be read. Files that it maps, such as a
// model, do not count.
func anonymousMemory(pid int) int64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	return parseAnonymous(raw)
}

// parseAnonymous reads RssAnon and VmSwap from the text of /proc/PID/status, see
// proc(5).
func parseAnonymous(status []byte) int64 {
	var sum int64
	for line := range bytes.Lines(status) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		if string(name) != "RssAnon" && string(name) != "VmSwap" {
			continue
		}
		if fields := bytes.Fields(rest); len(fields) > 0 {
			if kib, err := strconv.ParseInt(string(fields[0]), 10, 53); err == nil {
				sum += kib << 10
			}
		}
	}
	return sum
}

// oomKilled reports whether the kernel's OOM killer ended a process of this control
// group since the process started.
func (p *process) oomKilled() bool { return oomKills() > p.oomKillsAtStart() }

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
