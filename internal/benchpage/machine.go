package benchpage

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// Machine describes the computer of a measurement.
type Machine struct {
	CPU        string
	Processors int
	Memory     float64 // GiB
	Kernel     string
	Go         string
	// Load is the load average of the minute before the measurement.
	Load float64
}

// String returns the description on one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d processors, %.0f GiB of memory, Linux %s, %s; load average before it %.1f",
		m.CPU, m.Processors, m.Memory, m.Kernel, m.Go, m.Load)
}

var (
	cpuName  = regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`)
	memTotal = regexp.MustCompile(`(?m)^MemTotal:\s+(\d+) kB$`)
)

// ThisMachine reads the description from the kernel's files below proc ("/proc").
func ThisMachine(proc string) (Machine, error) {
	m := Machine{Processors: runtime.NumCPU(), Go: runtime.Version()}
	texts := make([]string, 4)
	for i, name := range []string{"cpuinfo", "meminfo", "sys/kernel/osrelease", "loadavg"} {
		b, err := os.ReadFile(proc + "/" + name)
		if err != nil {
			return m, fmt.Errorf("describe this machine: %w", err)
		}
		texts[i] = string(b)
	}
	m.CPU, m.Kernel = "unnamed processor", strings.TrimSpace(texts[2])
	if f := cpuName.FindStringSubmatch(texts[0]); f != nil {
		m.CPU = strings.Join(strings.Fields(f[1]), " ")
	}
	f := memTotal.FindStringSubmatch(texts[1])
	if f == nil {
		return m, fmt.Errorf("describe this machine: no MemTotal in %s/meminfo", proc)
	}
	kib, err := strconv.ParseFloat(f[1], 64)
	if err != nil {
		return m, fmt.Errorf("describe this machine: %w", err)
	}
	m.Memory = kib / (1 << 20)
	load, _, _ := strings.Cut(texts[3], " ")
	if m.Load, err = strconv.ParseFloat(load, 64); err != nil {
		return m, fmt.Errorf("describe this machine: load average: %w", err)
	}
	return m, nil
}
