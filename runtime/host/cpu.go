package host

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// CPUs describes the processors that this process may use. Zero means unknown, or no
// limit.
type CPUs struct {
	// Cores is the number of physical cores of the machine.
	Cores int `json:"cores"`
	// Allowed is the number of physical cores that the affinity mask includes, which
	// also reflects the control group's cpuset.
	Allowed int `json:"allowed"`
	// Quota is the lowest quota of the control groups of this process, in CPUs.
	// LimitedBy is the file that contains it.
	Quota     float64 `json:"quota,omitempty"`
	LimitedBy string  `json:"limited_by,omitempty"`
}

// Threads returns how many threads a program should compute with: a thread per
// physical core that it may use, but no more than the quota allows. It returns 0 if
// that is no less than Cores, or unknown.
func (c CPUs) Threads() int {
	n := c.Cores
	if c.Allowed > 0 {
		n = min(n, c.Allowed)
	}
	if c.Quota > 0 {
		n = min(n, max(1, int(math.Ceil(c.Quota))))
	}
	if n == c.Cores {
		return 0
	}
	return n
}

// ReadCPUs reads the processors of the machine below root ("/" for this one).
func ReadCPUs(root string) CPUs {
	allowed := allowedCPUs(root)
	all, usable := map[string]bool{}, map[string]bool{}
	for cpu := 0; ; cpu++ {
		// Logical processors of one core have the same siblings.
		raw, err := os.ReadFile(filepath.Join(root, "sys/devices/system/cpu/cpu"+strconv.Itoa(cpu), "topology/thread_siblings"))
		if err != nil {
			break
		}
		core := strings.TrimSpace(string(raw))
		all[core] = true
		if allowed[cpu] {
			usable[core] = true
		}
	}
	c := CPUs{Cores: len(all), Allowed: len(usable)}
	for _, file := range groupFiles(root, "cpu", "cpu.max", "cpu.cfs_quota_us") {
		if quota := readQuota(root, file); quota > 0 && (c.Quota == 0 || quota < c.Quota) {
			c.Quota, c.LimitedBy = quota, "/"+file
		}
	}
	return c
}

// allowedCPUs returns the processors in the affinity mask of this process
// (Cpus_allowed_list in /proc/self/status, proc(5)): numbers and ranges.
func allowedCPUs(root string) map[int]bool {
	raw, err := os.ReadFile(filepath.Join(root, "proc/self/status"))
	if err != nil {
		return nil
	}
	out := map[int]bool{}
	for line := range strings.Lines(string(raw)) {
		list, ok := strings.CutPrefix(line, "Cpus_allowed_list:")
		if !ok {
			continue
		}
		for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			from, errFrom := strconv.ParseUint(first, 10, 16)
			to, errTo := strconv.ParseUint(last, 10, 16)
			for cpu := from; errFrom == nil && errTo == nil && cpu <= to; cpu++ {
				out[int(cpu)] = true
			}
		}
	}
	return out
}

// readQuota returns the quota in a file of a control group, in CPUs; 0 if there is
// none. Version 2 has the quota and the period in one file ("max" for no limit),
// version 1 in two (-1 for no limit).
func readQuota(root, file string) float64 {
	raw, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if strings.HasSuffix(file, "cpu.cfs_quota_us") {
		period, err := os.ReadFile(filepath.Join(root, filepath.Dir(file), "cpu.cfs_period_us"))
		if err != nil {
			return 0
		}
		fields = append(fields, strings.TrimSpace(string(period)))
	}
	if len(fields) != 2 {
		return 0
	}
	quota, errQuota := strconv.ParseInt(fields[0], 10, 64)
	period, errPeriod := strconv.ParseInt(fields[1], 10, 64)
	if errQuota != nil || errPeriod != nil || quota <= 0 || period <= 0 {
		return 0
	}
	return float64(quota) / float64(period)
}
