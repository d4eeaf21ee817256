package supervise

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// limitMemory kills a process that has allocated more than Spec.LoadingMemory.
func (c *Child) limitMemory(p *process) {
	if c.spec.LoadingMemory <= 0 || p.excess != 0 {
		return
	}
	if n := anonymousMemory(p.pid); n > c.spec.LoadingMemory {
		p.excess = n
		p.signal(unix.SIGKILL)
	}
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
