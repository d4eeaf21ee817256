package supervise

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// oomKills reads how many processes of our control group the kernel's
// out-of-memory killer ended; 0 where there is nothing to read.
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

// oomCounters are the files that count kills in our control group, of version 2
// and 1, from the texts of /proc/self/cgroup and /proc/self/mountinfo (cgroups(7),
// proc(5)). A container sees a part of the hierarchy: what is mounted begins at
// the mount's root, which the group's path has to be taken from.
func oomCounters(groups, mounts string) []string {
	paths := map[string]string{} // of our group, by kind of hierarchy
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
			continue // of a group outside of what is mounted
		}
		name := map[string]string{"cgroup": "memory.oom_control", "cgroup2": "memory.events"}[kind]
		out = append(out, path.Join(point, group, name))
	}
	return out
}
