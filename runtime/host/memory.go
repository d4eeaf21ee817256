// Package host reads how much main memory and how many processors a program may use:
// the machine's, and the limits of its control groups and its affinity mask.
//
// A container or a systemd service with a memory limit is killed long before the
// machine's memory is used up, so a plan must not count on the machine's total.
// Files are read below a root, so that a tree of text files can describe a machine.
// A missing file means an unknown size or no limit. The package sets no limit.
package host

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is the main memory in bytes; 0 means unknown.
type Memory struct {
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"` // usable without swapping, by the kernel's estimate
	// Limit is the lowest limit of the control groups of this process, 0 if there is
	// none. LimitedBy is the file that contains it.
	Limit     uint64 `json:"limit,omitempty"`
	LimitedBy string `json:"limited_by,omitempty"`
}

// Usable returns the total or, if it is lower, the limit.
func (m Memory) Usable() uint64 {
	if m.Limit > 0 && (m.Total == 0 || m.Limit < m.Total) {
		return m.Limit
	}
	return m.Total
}

// ReadMemory reads the memory of the machine below root ("/" for this one).
func ReadMemory(root string) Memory {
	var m Memory
	if raw, err := os.ReadFile(filepath.Join(root, "proc/meminfo")); err == nil {
		m.Total, m.Available = parseMeminfo(raw)
	}
	for _, file := range groupFiles(root, "memory", "memory.max", "memory.limit_in_bytes") {
		raw, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue // the group has no memory controller, or is not visible here
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(raw)), 10, 64)
		if err != nil || n == 0 || n >= unlimited {
			continue // "max"
		}
		if m.Limit == 0 || n < m.Limit {
			m.Limit, m.LimitedBy = n, "/"+file
		}
	}
	return m
}

// unlimited is above any real memory and below the value by which version 1 of the
// control groups expresses no limit, the largest multiple of a page in 63 bits.
const unlimited = 1 << 62

// parseMeminfo returns MemTotal and MemAvailable, which proc(5) lists in KiB.
func parseMeminfo(raw []byte) (total, available uint64) {
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 54)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return total, available
}

// groupFiles returns the files of a controller, relative to the root, that may limit
// this process: those of its own control group and of each group above, since all
// limits apply. v2 and v1 are the file's names in the versions of control groups.
func groupFiles(root, controller, v2, v1 string) []string {
	raw, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var base, file string
		switch {
		case parts[0] == "0" && parts[1] == "":
			base, file = "sys/fs/cgroup", v2
		case strings.Contains(","+parts[1]+",", ","+controller+","):
			base, file = "sys/fs/cgroup/"+controller, v1
		default:
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			out = append(out, path.Join(base, group, file))
			if group == "/" {
				break
			}
		}
	}
	return out
}
